//! Replies on their way out: one buffer, in which they are written where they will be sent from.
//!
//! Its bytes stay initialised, so that data is read straight into it and nothing is cleared for each reply. It grows with a
//! large reply, and gives that back.

use super::errno::Refusal;
use super::wire::{
    CHUNK_HEADER_BYTES, SIMPLE_REPLY_BYTES, SIMPLE_REPLY_MAGIC, STRING_BYTES_MAX, STRUCTURED_REPLY_MAGIC,
    chunk,
};

/// What it begins with.
const FIRST_BYTES: usize = 4096;
/// What it keeps after a large reply.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Replies, one behind the other.
#[derive(Debug)]
pub(super) struct Output {
    bytes: Vec<u8>,
    len: usize,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; FIRST_BYTES], len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Forgets all; gives memory back when a large reply took it.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        if self.bytes.len() > KEPT_BYTES_MAX {
            self.bytes = vec![0; FIRST_BYTES];
        }
    }

    /// Forgets what stands behind `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "{len} of {} bytes", self.len);
        self.len = len;
    }

    /// The next `count` bytes, with whatever was in them.
    #[inline]
    pub(super) fn extend(&mut self, count: usize) -> &mut [u8] {
        let (start, end) = (self.len, self.len + count);
        if end > self.bytes.len() {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        self.len = end;
        &mut self.bytes[start..end]
    }

    /// A simple reply, without data.
    #[inline]
    pub(super) fn simple(&mut self, cookie: u64, error: u32) {
        let target: &mut [u8; SIMPLE_REPLY_BYTES] =
            self.extend(SIMPLE_REPLY_BYTES).try_into().expect("of this size");
        target[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        target[4..8].copy_from_slice(&error.to_be_bytes());
        target[8..].copy_from_slice(&cookie.to_be_bytes());
    }

    #[inline]
    fn chunk_header(&mut self, cookie: u64, kind: u16, flags: u16, len: usize) {
        let len = u32::try_from(len).expect("a chunk is not longer than a request may be");
        let target: &mut [u8; CHUNK_HEADER_BYTES] =
            self.extend(CHUNK_HEADER_BYTES).try_into().expect("of this size");
        target[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
        target[4..6].copy_from_slice(&flags.to_be_bytes());
        target[6..8].copy_from_slice(&kind.to_be_bytes());
        target[8..16].copy_from_slice(&cookie.to_be_bytes());
        target[16..].copy_from_slice(&len.to_be_bytes());
    }

    /// A chunk of `len` bytes of data from `offset` on, which the caller puts into what is returned.
    #[inline]
    pub(super) fn data_chunk(&mut self, cookie: u64, done: bool, offset: u64, len: usize) -> &mut [u8] {
        self.chunk_header(cookie, chunk::OFFSET_DATA, done_flag(done), 8 + len);
        self.extend(8).copy_from_slice(&offset.to_be_bytes());
        self.extend(len)
    }

    /// A chunk that says that `len` bytes from `offset` on are zeroes.
    pub(super) fn hole_chunk(&mut self, cookie: u64, done: bool, offset: u64, len: u32) {
        self.chunk_header(cookie, chunk::OFFSET_HOLE, done_flag(done), 12);
        self.extend(8).copy_from_slice(&offset.to_be_bytes());
        self.extend(4).copy_from_slice(&len.to_be_bytes());
    }

    /// The block status of a range of `len` bytes that begins with `runs`, bytes and state of each, in the metadata context of number `id`.
    ///
    /// # Panics
    /// When there are none, or they do not fit into the range.
    pub(super) fn block_status(&mut self, cookie: u64, done: bool, id: u32, runs: &[(u64, u32)], len: u32) {
        let sum: u64 = runs.iter().map(|(bytes, _)| bytes).sum();
        assert!(sum > 0 && sum <= u64::from(len), "runs of {sum} bytes in a range of {len}");
        self.chunk_header(cookie, chunk::BLOCK_STATUS, done_flag(done), 4 + 8 * runs.len());
        self.extend(4).copy_from_slice(&id.to_be_bytes());
        for (bytes, state) in runs {
            let bytes = u32::try_from(*bytes).expect("within a range of this size");
            let target = self.extend(8);
            target[..4].copy_from_slice(&bytes.to_be_bytes());
            target[4..].copy_from_slice(&state.to_be_bytes());
        }
    }

    /// That a request failed; with `offset`, where in it.
    pub(super) fn error_chunk(&mut self, cookie: u64, refusal: &Refusal, offset: Option<u64>) {
        let text = super::option::cut(&refusal.text).as_bytes();
        let kind = if offset.is_some() { chunk::ERROR_OFFSET } else { chunk::ERROR };
        self.chunk_header(cookie, kind, chunk::DONE, 6 + text.len() + if offset.is_some() { 8 } else { 0 });
        self.extend(4).copy_from_slice(&refusal.errno.number().to_be_bytes());
        let len = u16::try_from(text.len()).expect("cut to 4096 bytes");
        self.extend(2).copy_from_slice(&len.to_be_bytes());
        self.extend(text.len()).copy_from_slice(text);
        if let Some(offset) = offset {
            self.extend(8).copy_from_slice(&offset.to_be_bytes());
        }
    }
}

const fn done_flag(done: bool) -> u16 {
    if done { chunk::DONE } else { 0 }
}

/// A text always fits the 16 bits that its length has.
const _: () = assert!(STRING_BYTES_MAX <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::super::errno::Errno;
    use super::*;

    const COOKIE: u64 = 0x1112_1314_1516_1718;

    /// One reply of each kind, byte by byte.
    #[test]
    fn replies_have_their_form() {
        let cookie = COOKIE.to_be_bytes();
        let reply = |write: &dyn Fn(&mut Output)| {
            let mut output = Output::new();
            write(&mut output);
            output.filled().to_vec()
        };
        let chunk = |flags: u8, kind: [u8; 2], data: &[u8]| {
            let len = u32::try_from(data.len()).unwrap().to_be_bytes();
            [&[0x66, 0x8e, 0x33, 0xef, 0, flags], &kind[..], &cookie, &len, data].concat()
        };
        let simple = [&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28][..], &cookie].concat();
        assert_eq!(reply(&|output| output.simple(COOKIE, 28)), simple);
        let data = [&[0, 0, 0, 0, 0, 0, 2, 1][..], b"abc"].concat();
        let found = reply(&|output| output.data_chunk(COOKIE, false, 513, 3).copy_from_slice(b"abc"));
        assert_eq!(found, chunk(0, [0, 1], &data));
        let hole = [0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0];
        assert_eq!(reply(&|output| output.hole_chunk(COOKIE, true, 512, 65536)), chunk(1, [0, 2], &hole));
        let runs = [(512, 3), (1, 0)];
        let status = [0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(
            reply(&|output| output.block_status(COOKIE, true, 1, &runs, 513)),
            chunk(1, [0, 5], &status)
        );
        let refusal = Refusal::new(Errno::Io, "why");
        let error = [&[0, 0, 0, 5, 0, 3][..], b"why"].concat();
        assert_eq!(reply(&|output| output.error_chunk(COOKIE, &refusal, None)), chunk(1, [0x80, 1], &error));
        let error = [&error[..], &[0, 0, 0, 0, 0, 0, 0, 9]].concat();
        let found = reply(&|output| output.error_chunk(COOKIE, &refusal, Some(9)));
        assert_eq!(found, chunk(1, [0x80, 2], &error));
    }

    #[test]
    fn a_large_reply_gives_its_memory_back() {
        let mut output = Output::new();
        output.extend(KEPT_BYTES_MAX + 1);
        assert!(output.bytes.len() > KEPT_BYTES_MAX);
        output.clear();
        assert!(output.bytes.len() == FIRST_BYTES && output.is_empty());
    }

    #[test]
    fn a_long_text_is_cut() {
        let refusal = Refusal::new(Errno::Io, "é".repeat(4000));
        let mut output = Output::new();
        output.error_chunk(COOKIE, &refusal, None);
        assert_eq!(output.len(), CHUNK_HEADER_BYTES + 6 + STRING_BYTES_MAX);
    }
}
