//! Payloads on their way from the client to the export.
//!
//! A piece that has come is written from where it lies in the buffer. One that waits in the socket, whole, goes straight into the export's memory. One that
//! has not come is waited for, with nothing held.

use std::cell::RefCell;
use std::io;

use super::channel::Channel;
use super::ended::{DISCARDED_BYTES_MAX, Ended};
use super::export::{ExportError, Fill, Mark, Payload};
use super::request::Request;
use super::transmission::{Transmission, piece_bytes};
use crate::memory::VolatileSlice;

/// What is missing of a piece, if it is as much, is received straight into the export's memory: the copy saved is worth the system call
/// that finds out whether all of it is there.
const FILL_BYTES_MIN: usize = 16 << 10;

impl<C: Channel> Transmission<'_, C> {
    /// Reads `bytes` of a payload and throws them away.
    pub(super) fn skip(&mut self, bytes: u32) -> Result<(), Ended> {
        if bytes > DISCARDED_BYTES_MAX {
            self.settle()?;
            return Err(Ended::TooLong { bytes });
        }
        let mut left = bytes as usize;
        loop {
            let count = left.min(self.input.len());
            self.input.consume(count);
            left -= count;
            if left == 0 {
                return Ok(());
            }
            self.await_more(Ended::Truncated)?;
        }
    }

    /// Gives the payload to the export, piece by piece. What the export says is within; the connection's end is without.
    pub(super) fn write(&mut self, request: &Request) -> Result<Result<Mark, ExportError>, Ended> {
        let (mut at, mut left) = (request.offset, request.len as usize);
        loop {
            let piece = piece_bytes(at, left);
            let taken = self.write_piece(at, piece)?;
            at += piece as u64;
            left -= piece;
            match taken {
                Ok(mark) if left == 0 => return Ok(Ok(mark)),
                Ok(mark) => self.batch.raise(mark),
                Err(error) => {
                    self.skip(u32::try_from(left).expect("a part of a payload"))?;
                    return Ok(Err(error));
                }
            }
        }
    }

    fn write_piece(&mut self, at: u64, bytes: usize) -> Result<Result<Mark, ExportError>, Ended> {
        loop {
            if let Some(payload) = self.input.bytes().get(..bytes) {
                let taken = self.export.write(at, Payload::Bytes(payload), &|| self.channel.gone());
                self.input.consume(bytes);
                return Ok(taken);
            }
            let missing = bytes - self.input.len();
            if missing >= FILL_BYTES_MIN && self.channel.available() >= missing {
                return self.fill_piece(at, missing);
            }
            self.await_more(Ended::Truncated)?;
        }
    }

    /// A piece of which all that has come is the front, and the rest waits in the socket.
    fn fill_piece(&mut self, at: u64, missing: usize) -> Result<Result<Mark, ExportError>, Ended> {
        let channel = RefCell::new(&mut *self.channel);
        let mut filler = Filler { front: self.input.bytes(), channel: &channel, left: missing, broken: None };
        let taken = self.export.write(at, Payload::Fill(&mut filler), &|| channel.borrow().gone());
        let Filler { front, left, broken, .. } = filler;
        if let Some(error) = broken {
            return Err(Ended::Io(error));
        }
        assert!(
            taken.is_err() || (front.is_empty() && left == 0),
            "the export left {left} bytes of a payload"
        );
        self.input.consume(self.input.len());
        self.skip(u32::try_from(left).expect("a part of a piece"))?;
        Ok(taken)
    }
}

/// The rest of a payload, in the socket.
struct Filler<'a, C> {
    front: &'a [u8],
    /// Filled from and asked by turns.
    channel: &'a RefCell<&'a mut C>,
    /// Bytes in the socket.
    left: usize,
    broken: Option<io::Error>,
}

impl<C: Channel> Fill for Filler<'_, C> {
    fn bytes(&self) -> usize {
        self.front.len() + self.left
    }

    fn fill(&mut self, target: VolatileSlice<'_>) -> io::Result<()> {
        assert!(target.len() <= self.bytes(), "{} bytes of {}", target.len(), self.bytes());
        let count = self.front.len().min(target.len());
        let (front, rest) = self.front.split_at(count);
        target.write(0, front);
        self.front = rest;
        let target = target.subslice(count, target.len() - count).expect("the rest of it");
        if let Err(error) = self.channel.borrow_mut().receive_into(target) {
            self.broken = Some(io::Error::new(error.kind(), error.to_string()));
            return Err(error);
        }
        self.left -= target.len();
        Ok(())
    }
}
