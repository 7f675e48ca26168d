//! What was done, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// As threads raise them.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Read requests.
    reads,
    /// Their bytes.
    read_bytes,
    /// Write requests.
    writes,
    /// Their bytes.
    write_bytes,
    /// Trims and zeroed ranges.
    trims,
    /// Flushes that clients asked for.
    flushes,
    /// Bytes written to the segments' files.
    destaged_bytes,
    /// Syncs of them.
    syncs,
    /// Checkpoints written.
    checkpoints,
    /// Segments removed because all in them was dead.
    segments_removed,
    /// Bytes of dead blocks given back to the filesystem.
    punched_bytes,
    /// Blocks that did not match their checksum.
    damaged_blocks,
    /// Blocks that were written again from good data.
    repaired_blocks,
    /// Reads that the peer's data answered, because this node's was bad.
    masked_reads,
    /// Questions of a node that is brought up to date.
    resync_questions,
    /// Answers with data to it.
    resync_pieces,
    /// Bytes of data in them.
    resync_data_bytes,
    /// Bytes of maps and of tables of segments that it was sent.
    resync_table_bytes,
    /// Times that what a client asked for failed because it was held for too long.
    hold_failures,
}

/// Raises a count.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
