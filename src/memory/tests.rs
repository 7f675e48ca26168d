//! Mappings of every kind on this machine, and what happens to them when others interfere.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::testing::{in_child, run_child};
use super::*;

const KIB: usize = 1 << 10;
const PLAIN: MapOptions = MapOptions { huge_pages: false };
const HUGE: MapOptions = MapOptions { huge_pages: true };

/// A path that no other test uses; removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mirrorbus-memory-{}-{number}", std::process::id());
        // Beside the build, which is on a disk, where the temporary directory may be memory.
        Self(std::env::current_exe().expect("the test program").with_file_name(name))
    }

    fn resize(&self, len: u64) {
        OpenOptions::new().write(true).open(&self.0).and_then(|file| file.set_len(len)).expect("resizing");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn open(path: &Path) -> OwnedFd {
    OpenOptions::new().read(true).write(true).open(path).expect("opening").into()
}

/// Writes and reads at both ends, and looks at the flag "do not copy on fork".
fn exercise(mapping: &Mapping, len: usize) {
    assert_eq!((mapping.len(), mapping.lost(), mapping.is_empty()), (len, false, false));
    mapping.slice().write(len - 3, b"end");
    mapping.slice().write(0, b"start");
    let mut bytes = [0; 5];
    mapping.slice().read(0, &mut bytes);
    assert_eq!((&bytes, &mapping.slice().to_vec()[len - 3..]), (b"start", &b"end"[..]));
    let start = format!("{:?}", mapping.slice());
    let start =
        start.trim_start_matches("VolatileSlice(0x").split(',').next().expect("an address").to_owned();
    let smaps = fs::read_to_string("/proc/self/smaps").expect("smaps");
    let of_mapping = smaps.lines().skip_while(|line| !line.starts_with(&format!("{start}-")));
    let flags = of_mapping.skip(1).find(|line| line.starts_with("VmFlags:"));
    // A mapping that the kernel joined to a neighbour does not begin a range of its own.
    let joined = !smaps.lines().any(|line| line.starts_with(&format!("{start}-")));
    assert!(joined || flags.is_some_and(|flags| flags.contains(" dc")), "{flags:?}");
}

#[test]
fn every_kind_maps_and_says_what_it_is() {
    let scratch = Scratch::new();
    let name = format!("/mirrorbus-test-{}", std::process::id());
    for len in [9, 4 * KIB, 100 * KIB + 1] {
        for options in [PLAIN, HUGE] {
            let anonymous = Mapping::anonymous(len, options).expect("anonymous");
            let memfd = Mapping::memfd("test", len, options).expect("memfd");
            let shm = Mapping::shm(&name, len, options).expect("shm");
            let file = Mapping::file(&scratch.0, len, options).expect("file");
            let device = Mapping::device(&scratch.0, len, options).expect("device");
            let fd = memfd.fd().expect("has one").try_clone_to_owned().expect("dup");
            let same = Mapping::from_fd(fd, len, options).expect("from_fd");
            let kinds = [
                MappingKind::Anonymous,
                MappingKind::Memfd,
                MappingKind::Shm,
                MappingKind::File,
                MappingKind::Device,
                MappingKind::Descriptor,
            ];
            let all = [&anonymous, &memfd, &shm, &file, &device, &same];
            for (mapping, kind) in all.into_iter().zip(kinds) {
                assert_eq!(mapping.kind(), kind);
                exercise(mapping, len);
                assert!(mapping.page_size_used().is_power_of_two());
                let synced = mapping.sync();
                assert_eq!(mapping.is_durable_backing(), synced.is_ok(), "{mapping:?}: {synced:?}");
            }
            assert!(memfd.slice().equals(same.slice()) && file.slice().equals(device.slice()));
            for memory in [&anonymous, &memfd, &shm, &same] {
                let error = memory.sync().expect_err("memory");
                assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
                assert!(error.to_string().contains("memory only"), "{error}");
            }
            Mapping::unlink_shm(&name).expect("unlink");
            fs::remove_file(&scratch.0).expect("remove");
        }
    }
    assert!(Mapping::unlink_shm(&name).is_err());
}

#[test]
fn a_memfd_cannot_be_resized_and_is_filled() {
    let memfd = Mapping::memfd("test", 64 * KIB, PLAIN).expect("memfd");
    let file = File::from(memfd.fd().expect("has one").try_clone_to_owned().expect("dup"));
    assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
    let status = rustix::fs::fstat(&file).expect("fstat");
    assert_eq!(status.st_blocks * 512, 64 << 10);
    assert!(rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE).is_err());
}

#[test]
fn what_is_synced_is_in_the_file() {
    let scratch = Scratch::new();
    let mapping = Mapping::file(&scratch.0, 10_000, PLAIN).expect("file");
    mapping.slice().write(9_000, b"durable");
    mapping.sync().expect("sync");
    assert_eq!(&fs::read(&scratch.0).expect("read")[9_000..9_007], b"durable");
    drop(mapping);
    let again = Mapping::file(&scratch.0, 20_000, PLAIN).expect("extended");
    assert_eq!(&again.slice().to_vec()[9_000..9_007], b"durable");
}

#[test]
fn bad_requests_are_errors_with_numbers() {
    let scratch = Scratch::new();
    fs::write(&scratch.0, vec![7; 5000]).expect("write");
    let say = |made: Result<Mapping, MapError>| made.expect_err("refused").to_string();
    assert!(matches!(Mapping::anonymous(0, PLAIN), Err(MapError::Zero)));
    assert!(matches!(Mapping::memfd("test", 0, PLAIN), Err(MapError::Zero)));
    assert!(matches!(Mapping::anonymous(usize::MAX, PLAIN), Err(MapError::AddressSpace { .. })));
    for options in [PLAIN, HUGE] {
        assert!(matches!(Mapping::anonymous(1 << 50, options), Err(MapError::Memory { .. })));
        assert!(matches!(Mapping::memfd("test", 1 << 50, options), Err(MapError::Memory { .. })));
        let missing = Scratch::new();
        assert!(matches!(Mapping::file(&missing.0, 1 << 50, options), Err(MapError::Space { .. })));
    }
    let text = say(Mapping::device(&scratch.0, 5001, PLAIN));
    assert!(text.contains("5000") && text.contains("5001"), "{text}");
    let text = say(Mapping::from_fd(open(&scratch.0), 5001, PLAIN));
    assert!(text.contains("5000") && text.contains("5001"), "{text}");
    let text = say(Mapping::file(&scratch.0, 4999, PLAIN));
    assert!(text.contains("5000") && text.contains("4999"), "{text}");
    assert_eq!(fs::metadata(&scratch.0).expect("there").len(), 5000, "never resized");
    let text = say(Mapping::device(Path::new("/nowhere/at/all"), 1, PLAIN));
    assert!(text.contains("/nowhere/at/all"), "{text}");
    assert!(!Path::new("/nowhere").exists());
    let (reader, _writer) = std::io::pipe().expect("pipe");
    assert!(say(Mapping::from_fd(reader.into(), 1, PLAIN)).contains("a pipe"));
    assert!(say(Mapping::file(Path::new("/dev/null"), 1, PLAIN)).contains("a character device"));
}

#[test]
fn a_truncated_file_raises_the_flag_and_no_signal() {
    let scratch = Scratch::new();
    let mapping = Mapping::file(&scratch.0, 64 * KIB, PLAIN).expect("file");
    let other = Mapping::device(&scratch.0, 8 * KIB, PLAIN).expect("device");
    mapping.slice().fill(0, 64 * KIB, 0x55);
    scratch.resize(16 << 10);
    let mut bytes = [0xEE; 100];
    mapping.slice().read(0, &mut bytes);
    assert!(bytes == [0x55; 100] && !mapping.lost(), "what is left is left");
    mapping.slice().read(40 * KIB - 50, &mut bytes);
    assert!(bytes == [0; 100] && mapping.lost());
    mapping.slice().write(20 * KIB, b"goes nowhere");
    mapping.slice().write(63 * KIB, b"goes nowhere");
    mapping.slice().read(16 * KIB - 50, &mut bytes);
    assert_eq!((&bytes[..50], &bytes[50..]), (&[0x55; 50][..], &[0; 50][..]));
    assert!(mapping.sync().is_err() && mapping.sync().expect_err("sticky").to_string().contains("earlier"));
    assert_eq!(fs::metadata(&scratch.0).expect("there").len(), 16 << 10);
    assert!(!other.lost(), "the flag is the mapping's own");
    drop(mapping);
    scratch.resize(64 << 10);
    assert!(
        !Mapping::device(&scratch.0, 64 * KIB, PLAIN).expect("again").lost(),
        "the flag is not inherited"
    );
}

/// Bytes of `mapping` that the kernel would write to its file: shared and private.
fn dirty_bytes(mapping: &Mapping) -> usize {
    let start =
        format!("{:?}", mapping.slice()).split(['(', ',']).nth(1).expect("an address")[2..].to_owned();
    let maps = fs::read_to_string("/proc/self/smaps").expect("smaps");
    let lines = maps.lines().skip_while(|line| !line.trim_start_matches('0').starts_with(&start)).skip(1);
    let dirty = lines
        .take_while(|line| !line.starts_with("VmFlags"))
        .filter(|line| line.contains("d_Dirty:") || line.contains("e_Dirty:"));
    let kilobytes = dirty.map(|line| line.split_whitespace().nth(1).expect("a number").parse::<usize>());
    kilobytes.sum::<Result<usize, _>>().expect("a number") * KIB
}

#[test]
fn what_a_device_may_have_written_is_written_to_the_file_once_more() {
    let path = Scratch::new();
    let mapping = Mapping::file(&path.0, 64 * KIB - 3, PLAIN).unwrap();
    mapping.slice().write(0, &vec![7; 64 * KIB - 3]);
    mapping.sync().unwrap();
    assert_eq!(dirty_bytes(&mapping), 0);
    mapping.touch_all();
    assert_eq!(dirty_bytes(&mapping), 64 * KIB);
    assert!(mapping.slice().to_vec().iter().all(|byte| *byte == 7));
}

#[test]
fn a_cut_within_the_last_page_is_found_by_sync() {
    let scratch = Scratch::new();
    let mapping = Mapping::file(&scratch.0, 4 * KIB, PLAIN).expect("file");
    scratch.resize(100);
    mapping.slice().write(2000, b"beyond");
    assert!(!mapping.lost());
    let text = mapping.sync().expect_err("cut").to_string();
    assert!(text.contains("100") && text.contains("4096"), "{text}");
}

#[test]
fn shared_memory_and_descriptors_are_guarded_too() {
    let name = format!("/mirrorbus-cut-{}", std::process::id());
    let shm = Mapping::shm(&name, 32 * KIB, PLAIN).expect("shm");
    let fd = shm.fd().expect("has one").try_clone_to_owned().expect("dup");
    let same = Mapping::from_fd(fd.try_clone().expect("dup"), 32 * KIB, PLAIN).expect("from_fd");
    Mapping::unlink_shm(&name).expect("unlink");
    File::from(fd).set_len(0).expect("cut");
    shm.slice().write(0, b"gone");
    assert!(shm.lost() && !same.lost());
    assert_eq!(same.slice().to_vec(), vec![0; 32 * KIB]);
    assert!(same.lost());
}

/// A peer may cut what it hands over after its size was looked at, and seal it then.
#[test]
fn a_seal_on_what_is_too_short_is_no_guarantee() {
    in_child("memory::tests::a_seal_on_what_is_too_short_is_no_guarantee", || {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("short", flags).expect("memfd");
        rustix::fs::ftruncate(&fd, 4096).expect("size");
        let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&fd, seals).expect("sealing");
        let mapping = Mapping::map(fd, 8 * KIB, MappingKind::Descriptor, None, PLAIN).expect("mapped");
        mapping.slice().write(6 * KIB, b"beyond the end");
        assert!(mapping.lost());
    });
}

#[test]
fn many_threads_survive_a_cut() {
    let scratch = Scratch::new();
    let mapping = Mapping::file(&scratch.0, 1 << 20, PLAIN).expect("file");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mapping = &mapping;
            scope.spawn(move || {
                let mut at = thread * 100_003;
                while !mapping.lost() {
                    at = (at + 77_777) % ((1 << 20) - 300);
                    mapping.slice().write(at, &[1; 300]);
                    mapping.slice().read(at, &mut [0; 300]);
                }
                mapping.slice().fill(0, 1 << 20, 2);
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        scratch.resize(0);
    });
    assert!(mapping.lost());
}

/// Raises SIGBUS in memory that is not ours, in a child where the handler is installed.
#[test]
fn faults_elsewhere_still_kill() {
    let name = "memory::tests::faults_elsewhere_still_kill";
    let output = run_child(name, || {
        let scratch = Scratch::new();
        let _guarded = Mapping::file(&scratch.0, 4 * KIB, PLAIN).expect("file");
        let foreign = tempfile_of(8 * KIB);
        let (protection, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
        // SAFETY: a new mapping.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 8 * KIB, protection, flags, &foreign, 0) };
        File::from(foreign).set_len(0).expect("cut");
        // SAFETY: mapped; the access is meant to fault.
        let byte = unsafe { at.expect("mmap").cast::<u8>().read_volatile() };
        unreachable!("read {byte} beyond the end");
    });
    if let Some(output) = output {
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}

#[test]
fn a_sent_signal_still_kills() {
    let output = run_child("memory::tests::a_sent_signal_still_kills", || {
        let scratch = Scratch::new();
        let guarded = Mapping::file(&scratch.0, 4 * KIB, PLAIN).expect("file");
        drop(guarded);
        drop(scratch);
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).expect("kill");
        std::thread::sleep(std::time::Duration::from_secs(10));
        unreachable!("survived a signal that was sent");
    });
    if let Some(output) = output {
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}

/// An unnamed file of `len` bytes that can be cut.
fn tempfile_of(len: usize) -> OwnedFd {
    let fd = rustix::fs::memfd_create("foreign", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&fd, len as u64).expect("size");
    fd
}

#[test]
fn the_table_of_guarded_mappings_is_bounded() {
    in_child("memory::tests::the_table_of_guarded_mappings_is_bounded", || {
        let fd = tempfile_of(4 * KIB);
        let make = || Mapping::from_fd(fd.try_clone().expect("dup"), 4 * KIB, PLAIN);
        let limit = rustix::process::Rlimit { current: Some(4096), maximum: Some(4096) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("descriptors");
        let mut all: Vec<Mapping> =
            (0..sigbus::TRUNCATABLE_MAPPINGS_MAX).map(|_| make().expect("room")).collect();
        let error = make().expect_err("full");
        assert!(
            matches!(error, MapError::TooMany { most: 1024 }) && error.to_string().contains("1024"),
            "{error}"
        );
        all.pop();
        all.push(make().expect("room again"));
        File::from(fd).set_len(0).expect("cut");
        for mapping in &all {
            assert!(!mapping.lost());
            mapping.slice().write(9, b"x");
            assert!(mapping.lost());
        }
    });
}

/// So that the kernel joins it with none.
#[test]
fn a_mapping_apart_lies_between_pages_that_nobody_reaches() {
    let mapping = Mapping::apart(40 * KIB + 5).expect("some pages");
    let start = mapping.slice().start().addr();
    let end = start + (40 * KIB + 5).next_multiple_of(mapping.page_size_used());
    mapping.slice().fill(0, mapping.len(), 7);
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let ranges: Vec<(usize, usize, &str)> = maps
        .lines()
        .map(|line| {
            let (range, rest) = line.split_once(' ').expect("a range first");
            let (from, to) = range.split_once('-').expect("two addresses");
            let address = |text| usize::from_str_radix(text, 16).expect("an address");
            (address(from), address(to), &rest[..4])
        })
        .collect();
    let own = ranges.iter().position(|range| *range == (start, end, "rw-p")).expect("a mapping of its own");
    let ((_, before, below), (behind, _, above)) = (ranges[own - 1], ranges[own + 1]);
    assert_eq!((before, below, behind, above), (start, "---p", end, "---p"));
    drop(mapping);
    Mapping::apart(0).expect_err("nothing");
}
