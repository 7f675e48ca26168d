//! What is read, on its way from the export to the client: straight into the buffer that is sent.

use super::batch::BATCH_BYTES_MAX;
use super::channel::Channel;
use super::ended::Ended;
use super::export::ExportError;
use super::request::Request;
use super::transmission::{Transmission, piece_bytes};
use super::wire::command_flag as flag;

/// From this length on a read asks what is stored: below, sending zeroes is cheaper than to ask.
const SPARSE_BYTES_MIN: usize = 64 << 10;
/// Runs that are asked for in one piece of a read.
const SPARSE_RUNS_MAX: usize = 64;
/// Descriptors in a block status; a client asks again for what is behind them.
const STATUS_RUNS_MAX: usize = 1024;

impl<C: Channel> Transmission<'_, C> {
    /// Answers a read, or has it refused.
    pub(super) fn read(&mut self, request: &Request) -> Result<(), Ended> {
        let cookie = request.cookie;
        let (mut at, mut left) = (request.offset, request.len as usize);
        if !self.structured || request.has(flag::DF) {
            match self.read_whole(request) {
                Ok(()) => self.batch.answered(cookie),
                Err(error) => self.batch.refuse(cookie, &error.into(), None),
            }
            return Ok(());
        }
        while left > 0 {
            let piece = piece_bytes(at, left);
            if let Err((error, at)) = self.read_piece(cookie, at, piece, piece == left) {
                self.batch.refuse(cookie, &error.into(), Some(at));
                return Ok(());
            }
            at += piece as u64;
            left -= piece;
            if left > 0
                && self.batch.replies.len() >= BATCH_BYTES_MAX
                && let Some(refusal) = self.settle()?
            {
                self.batch.refuse(cookie, &refusal, None);
                return Ok(());
            }
        }
        self.batch.answered(cookie);
        Ok(())
    }

    /// All in one reply: it is not known to be one before all was read.
    fn read_whole(&mut self, request: &Request) -> Result<(), ExportError> {
        let Request { cookie, offset, len, .. } = *request;
        let replies = &mut self.batch.replies;
        let before = replies.len();
        let target = if self.structured {
            replies.data_chunk(cookie, true, offset, len as usize)
        } else {
            replies.simple(cookie, 0);
            replies.extend(len as usize)
        };
        match self.export.read(offset, target) {
            Ok(mark) => {
                self.batch.raise(mark);
                Ok(())
            }
            Err(error) => {
                self.batch.replies.truncate(before);
                Err(error)
            }
        }
    }

    /// One piece as chunks of data and, where it is long, of holes. An error comes with its offset.
    fn read_piece(
        &mut self,
        cookie: u64,
        at: u64,
        bytes: usize,
        is_last: bool,
    ) -> Result<(), (ExportError, u64)> {
        if bytes < SPARSE_BYTES_MIN {
            return self.read_chunk(cookie, at, bytes, is_last);
        }
        let extents = self.export.extents(at, bytes as u64, SPARSE_RUNS_MAX).map_err(|error| (error, at))?;
        self.batch.raise(extents.mark);
        let (mut at, mut left) = (at, bytes);
        for run in extents.runs {
            let len = usize::try_from(run.bytes).map_or(left, |len| len.min(left));
            left -= len;
            let done = is_last && left == 0;
            if run.hole && len > 0 {
                let len = u32::try_from(len).expect("a part of a piece");
                self.batch.replies.hole_chunk(cookie, done, at, len);
            } else if len > 0 {
                self.read_chunk(cookie, at, len, done)?;
            }
            at += len as u64;
        }
        if left > 0 { self.read_chunk(cookie, at, left, is_last) } else { Ok(()) }
    }

    #[inline]
    fn read_chunk(
        &mut self,
        cookie: u64,
        at: u64,
        bytes: usize,
        done: bool,
    ) -> Result<(), (ExportError, u64)> {
        let before = self.batch.replies.len();
        let target = self.batch.replies.data_chunk(cookie, done, at, bytes);
        match self.export.read(at, target) {
            Ok(mark) => {
                self.batch.raise(mark);
                Ok(())
            }
            Err(error) => {
                self.batch.replies.truncate(before);
                Err((error, at))
            }
        }
    }

    /// Answers what is stored and what is not.
    pub(super) fn block_status(&mut self, request: &Request) {
        let Request { cookie, offset, len, .. } = *request;
        let most = if request.has(flag::REQ_ONE) { 1 } else { STATUS_RUNS_MAX };
        match self.export.extents(offset, u64::from(len), most) {
            Ok(extents) => {
                assert!(extents.runs.len() <= most, "{} runs, at most {most}", extents.runs.len());
                self.batch.raise(extents.mark);
                self.batch.replies.block_status(cookie, &extents.runs, len);
                self.batch.answered(cookie);
            }
            Err(error) => self.batch.refuse(cookie, &error.into(), None),
        }
    }
}
