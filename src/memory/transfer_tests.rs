//! Transfers of real files and sockets, and the look for zeroes.

use super::take;
use crate::memory::{MapOptions, Mapping};

fn mapping(len: usize) -> Mapping {
    Mapping::anonymous(len, MapOptions::default()).expect("a few pages")
}

#[test]
fn one_byte_anywhere_is_found_and_none_outside_counts() {
    let len = 3000;
    let memory = mapping(len);
    let slice = memory.slice();
    assert!(slice.is_zero(0, len) && slice.is_zero(len, 0));
    let places: &[usize] =
        if cfg!(miri) { &[100, 2500] } else { &[100, 163, 164, 170, 1187, 1188, 2499, 2500] };
    for &at in places {
        slice.write(at, &[1]);
        assert!(!slice.is_zero(0, len) && !slice.is_zero(100, 2401), "a byte at {at}");
        assert!(slice.is_zero(0, at) && slice.is_zero(at + 1, len - at - 1), "beside the byte at {at}");
        slice.write(at, &[0]);
    }
    assert!(std::panic::catch_unwind(|| slice.is_zero(1, len)).is_err());
}

/// The system may take any part of what it is given.
#[test]
fn what_was_taken_is_not_given_again() {
    let bytes: Vec<u8> = (0..60).collect();
    for taken in 0..=bytes.len() {
        let lens = [10, 1, 29, 20];
        let mut at = 0;
        let mut vectors = lens.map(|len| {
            let start = bytes[at..].as_ptr().cast_mut().cast();
            at += len;
            libc::iovec { iov_base: start, iov_len: len }
        });
        let done = take(&mut vectors, taken);
        let left: Vec<_> =
            vectors[done..].iter().map(|left| (left.iov_base as usize, left.iov_len)).collect();
        let start = bytes.as_ptr() as usize;
        let mut expected = taken;
        for (base, len) in left {
            assert!(base == start + expected && len > 0, "{taken} were taken");
            expected += len;
        }
        assert_eq!(expected, bytes.len(), "{taken} were taken");
    }
}

/// Not under Miri, which has neither the calls nor the kernel behind them.
#[cfg(not(miri))]
mod with_a_kernel {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::memory::Piece;

    /// One piece of the memory.
    fn whole(offset: usize, len: usize) -> [Piece; 1] {
        [Piece::Memory(offset..offset + len)]
    }

    /// A file without a name.
    fn file() -> File {
        rustix::fs::memfd_create("transfer", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd").into()
    }

    fn patterned(len: usize) -> (Mapping, Vec<u8>) {
        let memory = mapping(len);
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at * 31 % 251).expect("below 251")).collect();
        memory.slice().write(0, &bytes);
        (memory, bytes)
    }

    #[test]
    fn what_is_written_to_a_file_is_read_back() {
        let (memory, bytes) = patterned(20_000);
        let file = file();
        memory.slice().write_file_pieces(&whole(5, 15_000), file.as_fd(), 4096).expect("written");
        memory
            .slice()
            .write_file_pieces(&whole(20_000, 0), file.as_fd(), 1 << 30)
            .expect("nothing is written");
        assert_eq!(file.metadata().expect("size").len(), 19_096);
        let other = mapping(20_000);
        other.slice().read_file(100, 15_000, file.as_fd(), 4096).expect("read");
        assert_eq!(other.slice().to_vec()[100..15_100], bytes[5..15_005]);
        assert!(other.slice().is_zero(0, 100) && other.slice().is_zero(15_100, 4900), "beside the range");
    }

    #[test]
    fn the_end_of_a_file_and_bad_places_are_errors() {
        let (memory, _) = patterned(5000);
        let file = file();
        memory.slice().write_file_pieces(&whole(0, 1000), file.as_fd(), 0).expect("written");
        let error = memory.slice().read_file(0, 1001, file.as_fd(), 0).expect_err("too short");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("1000 of 1001"), "{error}");
        for file_offset in [u64::MAX, i64::MAX.cast_unsigned()] {
            let error = memory
                .slice()
                .write_file_pieces(&whole(0, 1), file.as_fd(), file_offset)
                .expect_err("too far");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        let read_only = File::open("/dev/null").expect("opened");
        assert!(memory.slice().write_file_pieces(&whole(0, 1), read_only.as_fd(), 0).is_err());
        let outside = || memory.slice().write_file_pieces(&whole(1, 5000), file.as_fd(), 0);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(outside)).is_err());
    }

    #[test]
    fn a_mapping_whose_file_was_cut_gives_an_error_and_no_signal() {
        let behind = file();
        behind.set_len(16 << 10).expect("sized");
        let fd = behind.try_clone().expect("dup").into();
        let memory = Mapping::from_fd(fd, 16 << 10, MapOptions::default()).expect("mapped");
        behind.set_len(0).expect("cut");
        let target = file();
        let error = memory
            .slice()
            .write_file_pieces(&whole(0, 16 << 10), target.as_fd(), 0)
            .expect_err("nothing is there");
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
    }

    #[test]
    fn a_receive_takes_what_is_there_and_tells_the_end() {
        let (mut there, here) = UnixStream::pair().expect("sockets");
        let memory = mapping(1000);
        there.write_all(b"a few bytes").expect("sent");
        assert_eq!(memory.slice().receive(500, 5, here.as_fd()).expect("received"), 5);
        assert_eq!(memory.slice().receive(505, 495, here.as_fd()).expect("received"), 6);
        assert_eq!(&memory.slice().to_vec()[500..511], b"a few bytes");
        here.set_nonblocking(true).expect("set");
        let error = memory.slice().receive(0, 1000, here.as_fd()).expect_err("nothing is there");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(memory.slice().receive(0, 0, here.as_fd()).expect("nothing was asked for"), 0);
        drop(there);
        assert_eq!(memory.slice().receive(0, 1000, here.as_fd()).expect("the end"), 0);
        assert_eq!((&here).read(&mut [0]).expect("the end"), 0);
    }
}
