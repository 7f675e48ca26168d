//! What became of a request to append to the log.

use crate::base::Lsn;
use crate::segment::{Record, RecordKind, Request};

/// A record that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) lsn: Lsn,
    pub(super) end: Lsn,
    /// Whether it is a record, not a place that was given up.
    pub(super) is_whole: bool,
}

impl Appended {
    /// The record, as a reader of the log finds it.
    pub(super) const fn record(&self, request: &Request) -> Record {
        Record {
            kind: if self.is_whole { request.kind } else { RecordKind::Void },
            volume: request.volume,
            block: request.block,
            blocks: request.blocks,
            block_size: request.block_size,
            lsn: self.lsn,
            durable: Lsn::ZERO,
            sequence: 0,
        }
    }
}
