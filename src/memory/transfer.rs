//! Bytes between mapped memory and files or sockets: the kernel moves them, without a copy of ours between.
//!
//! The kernel takes an address, so no reference to the bytes is made, and what others write meanwhile makes some mix
//! of old and new bytes and nothing worse, as with every access here. Where the file behind a mapping was cut short,
//! the kernel says `EFAULT` and no signal comes: that is an error like any other.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::VolatileSlice;

/// Bytes copied out at a time while looking for what is not zero; the first look takes less, for most data ends there.
const LOOK: usize = 1 << 10;
/// Bytes of the first look.
const FIRST_LOOK: usize = 64;

/// Memory that one call takes in pieces: `IOV_MAX` of Linux.
const VECTORS_MAX: usize = 1024;

/// What stands for zeroes.
static ZEROES: [u8; 4096] = [0; 4096];

/// A part of what is moved by one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the memory.
    Memory(Range<usize>),
    /// So many zeroes.
    Zeroes(usize),
}

/// Leaves of `vectors` what is behind the first `bytes`, which the system has taken; how many have nothing left.
fn take(vectors: &mut [libc::iovec], mut bytes: usize) -> usize {
    let mut done = 0;
    while bytes > 0 && done < vectors.len() {
        let vector = &mut vectors[done];
        let part = bytes.min(vector.iov_len);
        vector.iov_base = vector.iov_base.cast::<u8>().wrapping_add(part).cast();
        (vector.iov_len, bytes) = (vector.iov_len - part, bytes - part);
        done += usize::from(vector.iov_len == 0);
    }
    done
}

impl VolatileSlice<'_> {
    /// Writes what `pieces` name to `file`, one behind the other, from `file_offset` on.
    ///
    /// # Errors
    /// What the system says; a part may have been written. `WriteZero` when the file takes nothing.
    ///
    /// # Panics
    /// When one does not lie within.
    pub fn write_file_pieces(
        &self,
        pieces: &[Piece],
        file: BorrowedFd<'_>,
        mut file_offset: u64,
    ) -> io::Result<()> {
        let mut vectors = Vec::with_capacity(pieces.len().min(VECTORS_MAX));
        let mut rest = pieces.iter().flat_map(|piece| self.parts(piece)).peekable();
        while rest.peek().is_some() {
            vectors.clear();
            vectors.extend(rest.by_ref().take(VECTORS_MAX));
            let len: usize = vectors.iter().map(|vector| vector.iov_len).sum();
            Self::write_vectors(&mut vectors, file, file_offset, len)?;
            file_offset += len as u64;
        }
        Ok(())
    }

    /// A piece as the kernel takes it.
    fn parts(&self, piece: &Piece) -> impl Iterator<Item = libc::iovec> {
        let (memory, zeroes) = match piece {
            Piece::Memory(range) => {
                let len = range.end - range.start;
                (Some(libc::iovec { iov_base: self.place(range.start, len).cast(), iov_len: len }), 0)
            }
            Piece::Zeroes(len) => (None, *len),
        };
        let zero = move |done: usize| libc::iovec {
            iov_base: ZEROES.as_ptr().cast_mut().cast(),
            iov_len: ZEROES.len().min(zeroes - done),
        };
        memory.into_iter().chain((0..zeroes).step_by(ZEROES.len()).map(zero))
    }

    fn write_vectors(
        vectors: &mut [libc::iovec],
        file: BorrowedFd<'_>,
        file_offset: u64,
        len: usize,
    ) -> io::Result<()> {
        let mut first = 0;
        move_whole(len, file_offset, io::ErrorKind::WriteZero, |_, file_at| {
            let count = libc::c_int::try_from(vectors.len() - first).expect("at most 1024");
            // SAFETY: each of the vectors is memory of the mapping, which stays for as long as self, or of ZEROES; the call reads it.
            let written =
                unsafe { libc::pwritev(file.as_raw_fd(), vectors[first..].as_ptr(), count, file_at) };
            first += take(&mut vectors[first..], usize::try_from(written).unwrap_or(0));
            written
        })
    }

    /// A private copy of what `pieces` name, one behind the other.
    ///
    /// # Panics
    /// When one does not lie within.
    #[must_use]
    pub fn gather(&self, pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            let start = bytes.len();
            match piece {
                Piece::Memory(range) => {
                    bytes.resize(start + range.len(), 0);
                    self.read(range.start, &mut bytes[start..]);
                }
                Piece::Zeroes(len) => bytes.resize(start + len, 0),
            }
        }
        bytes
    }

    /// Reads `len` bytes of `file` from `file_offset` on into this memory at `offset`.
    ///
    /// # Errors
    /// What the system says; a part may have been read. `UnexpectedEof` when the file ends before.
    ///
    /// # Panics
    /// When the bytes do not lie within.
    pub fn read_file(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        file_offset: u64,
    ) -> io::Result<()> {
        self.move_all(offset, len, file_offset, io::ErrorKind::UnexpectedEof, |at, len, file_at| {
            // SAFETY: `len` bytes at `at` lie within the mapping, which stays for as long as self; the call writes them.
            unsafe { libc::pread(file.as_raw_fd(), at.cast::<c_void>(), len, file_at) }
        })
    }

    /// Receives at most `len` bytes of `socket` into this memory at `offset`, by one call; returns how many. 0 says that
    /// the peer has closed, or that `len` is 0.
    ///
    /// # Errors
    /// What the system says: `WouldBlock` on a socket that does not wait and has nothing.
    ///
    /// # Panics
    /// When the bytes do not lie within.
    pub fn receive(&self, offset: usize, len: usize, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let target = self.place(offset, len);
        if len == 0 {
            return Ok(0);
        }
        loop {
            // SAFETY: `len` bytes at `target` lie within the mapping, which stays for as long as self.
            let count = unsafe { libc::recv(socket.as_raw_fd(), target.cast::<c_void>(), len, 0) };
            if let Some(count) = counted(count)? {
                return Ok(count);
            }
        }
    }

    /// Whether `len` bytes at `offset` were all zero, each at some time during the call.
    ///
    /// # Panics
    /// When they do not lie within.
    #[must_use]
    pub fn is_zero(&self, offset: usize, len: usize) -> bool {
        let mut bytes = [0; LOOK];
        let mut done = 0;
        let mut step = FIRST_LOOK;
        assert!(self.contains(offset, len), "look at {len} bytes at {offset} of {}", self.len());
        while done < len {
            let part = &mut bytes[..step.min(len - done)];
            self.read(offset + done, part);
            if !all_zero(part) {
                return false;
            }
            done += part.len();
            step = LOOK;
        }
        true
    }

    /// Address of `len` bytes at `offset`.
    fn place(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(self.contains(offset, len), "transfer of {len} bytes at {offset} of {}", self.len());
        self.start().wrapping_add(offset)
    }

    /// Calls `step` with an address, a length and an offset in the file until everything is moved; `none` is the error
    /// when nothing is.
    fn move_all(
        &self,
        offset: usize,
        len: usize,
        file_offset: u64,
        none: io::ErrorKind,
        step: impl Fn(*mut u8, usize, libc::off_t) -> libc::ssize_t,
    ) -> io::Result<()> {
        let start = self.place(offset, len);
        move_whole(len, file_offset, none, |done, at| step(start.wrapping_add(done), len - done, at))
    }
}

/// Calls `step` with how much is done and an offset in the file until everything is; `none` is the error when nothing is moved.
fn move_whole(
    len: usize,
    file_offset: u64,
    none: io::ErrorKind,
    mut step: impl FnMut(usize, libc::off_t) -> libc::ssize_t,
) -> io::Result<()> {
    let end = u64::try_from(len).ok().and_then(|len| file_offset.checked_add(len));
    if end.and_then(|end| libc::off_t::try_from(end).ok()).is_none() {
        let why = format!("{len} bytes at {file_offset} lie beyond the longest file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut done = 0;
    while done < len {
        let file_at = libc::off_t::try_from(file_offset + done as u64).expect("its end was checked");
        let Some(count) = counted(step(done, file_at))? else { continue };
        if count == 0 {
            let why = format!("{done} of {len} bytes at {file_offset} of the file were moved, no more");
            return Err(io::Error::new(none, why));
        }
        done += count;
    }
    assert_eq!(done, len, "the kernel moved more than it was asked for");
    Ok(())
}

/// What a call returned; `None` when a signal interrupted it.
fn counted(returned: libc::ssize_t) -> io::Result<Option<usize>> {
    if let Ok(count) = usize::try_from(returned) {
        return Ok(Some(count));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) }
}

/// Whether every byte is zero: without a way out before the end, so that the compiler uses wide registers.
fn all_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let any = words.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word));
    any == 0 && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
