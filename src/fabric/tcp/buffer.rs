//! The two buffers between frames and the wire. Both have a fixed size and never move bytes more than once on average.

use super::wire::{Input, Wire, WireError};

/// Bytes on their way out, oldest first.
#[derive(Debug)]
pub struct Outbox {
    bytes: Box<[u8]>,
    head: usize,
    tail: usize,
}

impl Outbox {
    /// Room for `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into_boxed_slice(), head: 0, tail: 0 }
    }

    /// What waits.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.head..self.tail]
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Makes `len` bytes at the end and returns them to be filled; `None`, and no change, when they do not fit.
    ///
    /// Bytes that wait are moved to the front only when at least as many have left since the last move.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.bytes.len() - self.tail {
            let waiting = self.tail - self.head;
            if waiting > self.head || len > self.bytes.len() - waiting {
                return None;
            }
            self.bytes.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, waiting);
        }
        let start = self.tail;
        self.tail += len;
        Some(&mut self.bytes[start..self.tail])
    }

    /// Takes back the last `len` bytes reserved.
    pub(super) fn unreserve(&mut self, len: usize) {
        assert!(len <= self.tail - self.head, "{len} bytes taken back of {}", self.tail - self.head);
        self.tail -= len;
    }

    /// The first `count` bytes are gone.
    ///
    /// # Panics
    /// When there are not so many.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.tail - self.head, "{count} bytes consumed of {}", self.tail - self.head);
        self.head += count;
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        }
    }

    /// Hands what waits to the wire, as far as it takes it.
    pub(super) fn push(&mut self, wire: &mut Wire) -> Result<(), WireError> {
        while !self.is_empty() || wire.backlog() {
            let sent = wire.send(&self.bytes[self.head..self.tail])?;
            self.consume(sent.taken);
            if sent.full {
                break;
            }
        }
        Ok(())
    }
}

/// Bytes that arrived and are not yet taken.
#[derive(Debug)]
pub(super) struct Staging {
    bytes: Vec<u8>,
    start: usize,
    capacity: usize,
}

impl Staging {
    /// Room for `capacity` bytes, starting with `first`.
    pub(super) fn new(capacity: usize, first: &[u8]) -> Self {
        let capacity = capacity.max(first.len());
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(first);
        Self { bytes, start: 0, capacity }
    }

    /// What is there.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The first `count` bytes are taken.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.start, "{count} of {}", self.bytes.len() - self.start);
        self.start += count;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Receives what has arrived. What is left over is moved to the front first, which the caller keeps cheap by
    /// taking all complete frames before: less than one frame is left then.
    #[inline]
    pub(super) fn fill(&mut self, wire: &mut Wire, blocking: bool) -> Result<Input, WireError> {
        if self.start > 0 {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.bytes.len() - self.start);
            self.start = 0;
        }
        let input = wire.receive(&mut self.bytes, blocking)?;
        assert!(self.bytes.len() <= self.bytes.capacity() && self.bytes.capacity() >= self.capacity);
        Ok(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbox_keeps_order_and_never_grows() {
        let mut outbox = Outbox::new(10);
        outbox.reserve(6).unwrap().copy_from_slice(b"abcdef");
        assert!(outbox.reserve(5).is_none());
        outbox.consume(2);
        assert!(outbox.reserve(5).is_none(), "four bytes would be moved for two that left");
        outbox.consume(1);
        outbox.reserve(7).unwrap().copy_from_slice(b"ghijklm");
        assert_eq!(outbox.pending(), b"defghijklm");
        assert!(outbox.reserve(1).is_none());
        assert!(outbox.reserve(11).is_none());
        outbox.consume(10);
        assert!(outbox.is_empty() && outbox.reserve(10).is_some());
    }
}
