//! Moving ranges in bulk over a queue: the whole region when attaching, the unknown ranges when reconnecting.

use std::time::{Duration, Instant};

use super::call::CallError;
use crate::base::Deadline;
use crate::fabric::{Armed, Operation, Queue, QueueError, WindowId, WorkRequest};
use crate::mirror::RegionCore;
use crate::node::stream::wait_ready;

/// Most bytes in one request, where the medium has no bound of its own.
const CHUNK_BYTES: usize = 1 << 20;
/// Requests between two that are signaled.
const SIGNAL_EVERY: u64 = 8;

/// One contiguous piece of a transfer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) local_offset: usize,
    pub(super) remote_offset: usize,
    pub(super) len: usize,
}

/// Moves all `pieces` and returns when the last is complete: in the peer's memory (`Write`), or here (`Read`).
///
/// # Errors
/// The queue fails, the link is lost, or nothing completes for `patience`.
pub(super) fn transfer(
    core: &RegionCore,
    queue: &mut dyn Queue,
    operation: Operation,
    window: WindowId,
    pieces: impl IntoIterator<Item = Piece>,
    patience: Duration,
) -> Result<(), CallError> {
    let chunk = queue.capabilities().message_bytes_max.min(CHUNK_BYTES);
    let mut posted = 0;
    let mut progress = Progress { completed: 0, since: Instant::now(), patience };
    let requests = pieces.into_iter().flat_map(|piece| {
        (0..piece.len).step_by(chunk).map(move |at| Piece {
            local_offset: piece.local_offset + at,
            remote_offset: piece.remote_offset + at,
            len: chunk.min(piece.len - at),
        })
    });
    for piece in requests {
        posted += 1;
        let request = WorkRequest {
            wr_id: posted,
            operation,
            window,
            local_offset: piece.local_offset,
            remote_offset: piece.remote_offset,
            len: piece.len,
            signaled: posted % SIGNAL_EVERY == 0,
        };
        progress.post(core, queue, &request)?;
    }
    // A flush completes after all that was posted before it.
    posted += 1;
    let flush = WorkRequest {
        wr_id: posted,
        operation: Operation::Flush,
        window,
        local_offset: 0,
        remote_offset: 0,
        len: 0,
        signaled: true,
    };
    progress.post(core, queue, &flush)?;
    queue.doorbell().map_err(failed)?;
    while progress.completed < posted {
        progress.step(core, queue)?;
    }
    Ok(())
}

#[derive(Debug)]
struct Progress {
    completed: u64,
    since: Instant,
    patience: Duration,
}

impl Progress {
    /// Posts, waiting for room. A doorbell may make room at once; only when it did not is there something to wait for.
    fn post(
        &mut self,
        core: &RegionCore,
        queue: &mut dyn Queue,
        request: &WorkRequest,
    ) -> Result<(), CallError> {
        loop {
            if queue.post(std::slice::from_ref(request)).map_err(failed)? == 1 {
                return Ok(());
            }
            queue.doorbell().map_err(failed)?;
            if queue.post(std::slice::from_ref(request)).map_err(failed)? == 1 {
                return Ok(());
            }
            self.step(core, queue)?;
        }
    }

    /// Reaps one completion, or sleeps until there may be one.
    fn step(&mut self, core: &RegionCore, queue: &mut dyn Queue) -> Result<(), CallError> {
        if let Some(completion) = queue.poll().map_err(failed)? {
            self.completed = completion.wr_id;
            self.since = Instant::now();
            return Ok(());
        }
        if core.lost() {
            let why = core.lost_reason().map_or_else(|| "closed".into(), |reason| reason.to_string());
            return Err(CallError::Ended(why));
        }
        if self.since.elapsed() > self.patience {
            return Err(CallError::Timeout);
        }
        if queue.arm().map_err(failed)? == Armed::Sleep
            && let Some(event) = queue.event_fd()
        {
            let until = Deadline::within(self.patience).instant();
            wait_ready(event, queue.wants_write(), core.wake_fd(), Some(until));
        }
        Ok(())
    }
}

fn failed(error: QueueError) -> CallError {
    CallError::Ended(format!("bulk transfer: {error}"))
}
