//! What has come from a client and was not taken yet.
//!
//! One buffer: one call takes as many pipelined requests as there are, and each is executed where it lies.

use std::io;

use super::channel::Channel;

/// Room for what a client sends ahead.
pub(super) const INPUT_BYTES: usize = 256 << 10;

/// Bytes of a client.
#[derive(Debug)]
pub struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Input {
    fn default() -> Self {
        Self::new()
    }
}

impl Input {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; INPUT_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What has come.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Forgets the first `count` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} of {} bytes", self.len());
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits for more, and takes what there is. False when there will be no more.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Panics
    /// When it is full: nobody waits for a unit that does not fit.
    pub fn receive<C: Channel>(&mut self, channel: &mut C) -> io::Result<bool> {
        assert!(self.len() < INPUT_BYTES, "a unit of more than {INPUT_BYTES} bytes is waited for");
        if self.start > 0 {
            // A part of one request, at most.
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        let count = channel.receive(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count > 0)
    }
}
