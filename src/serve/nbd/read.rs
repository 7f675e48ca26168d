//! What is read, on its way from the export to the client: straight into the buffer that is sent.

use super::batch::BATCH_BYTES_MAX;
use super::channel::Channel;
use super::ended::Ended;
use super::export::ExportError;
use super::request::Request;
use super::transmission::{Transmission, piece_bytes};
use super::wire::{
    ALLOCATION_ID, STATE_HOLE_AND_ZERO, STATE_UNREPLICATED, UNREPLICATED_ID, command_flag as flag,
};

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
                Err(error) => {
                    self.stay()?;
                    self.batch.refuse(cookie, &error.into(), None);
                }
            }
            return Ok(());
        }
        while left > 0 {
            let piece = piece_bytes(at, left);
            if let Err((error, at)) = self.read_piece(cookie, at, piece, piece == left) {
                self.stay()?;
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

    /// Answers what is stored and what is not, and what the peer lacks: one chunk for each context that was selected.
    pub(super) fn block_status(&mut self, request: &Request) -> Result<(), Ended> {
        let cookie = request.cookie;
        match self.statuses(request) {
            Ok(statuses) => {
                for (number, (id, runs)) in statuses.iter().enumerate() {
                    let done = number + 1 == statuses.len();
                    self.batch.replies.block_status(cookie, done, *id, runs, request.len);
                }
                self.batch.answered(cookie);
            }
            Err(error) => {
                self.stay()?;
                self.batch.refuse(cookie, &error.into(), None);
            }
        }
        Ok(())
    }

    /// Of each selected context the stretches, with their states.
    #[allow(clippy::type_complexity, reason = "made and used in one place")]
    fn statuses(&mut self, request: &Request) -> Result<Vec<(u32, Vec<(u64, u32)>)>, ExportError> {
        let (offset, len) = (request.offset, u64::from(request.len));
        let most = if request.has(flag::REQ_ONE) { 1 } else { STATUS_RUNS_MAX };
        let mut statuses = Vec::new();
        if self.allocation {
            let extents = self.export.extents(offset, len, most)?;
            let state = |hole| if hole { STATE_HOLE_AND_ZERO } else { 0 };
            let runs = extents.runs.iter().map(|run| (run.bytes, state(run.hole))).collect();
            self.batch.raise(extents.mark);
            statuses.push((ALLOCATION_ID, runs));
        }
        if self.unreplicated {
            let extents = self.export.unreplicated(offset, len, most)?;
            let state = |lacks| if lacks { STATE_UNREPLICATED } else { 0 };
            let runs = extents.runs.iter().map(|run| (run.bytes, state(run.lacks))).collect();
            self.batch.raise(extents.mark);
            statuses.push((UNREPLICATED_ID, runs));
        }
        let runs_max = statuses.iter().map(|(_, runs): &(u32, Vec<_>)| runs.len()).max();
        assert!(runs_max.is_none_or(|runs| runs <= most), "{runs_max:?} runs, at most {most}");
        Ok(statuses)
    }
}
