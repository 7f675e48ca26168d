//! What a simulated world spares itself of the key-value file's work, which is otherwise more than half of a run.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use redb::Database;

use super::Snapshot;
use crate::base::{DatasetId, Lsn};
use crate::sim::{files, scheduler};

const BLOCK_BYTES: usize = 4096;

/// A file of nothing, by the blocks that are not all zeroes.
struct Empty {
    dataset: DatasetId,
    len: u64,
    blocks: Vec<(u64, Vec<u8>)>,
}

thread_local! {
    static EMPTY: RefCell<Option<Empty>> = const { RefCell::new(None) };
}

fn is_empty(now: &Snapshot) -> bool {
    scheduler::is_simulated() && now.position == Lsn::ZERO
}

/// Makes the file what it was made when this was asked for before; whether it could.
pub(super) fn copy(file: &File, dataset: DatasetId, now: &Snapshot) -> io::Result<bool> {
    if !is_empty(now) {
        return Ok(false);
    }
    EMPTY.with_borrow(|empty| {
        let Some(empty) = empty.as_ref().filter(|empty| empty.dataset == dataset) else { return Ok(false) };
        file.set_len(empty.len)?;
        for (at, bytes) in &empty.blocks {
            file.write_all_at(bytes, *at)?;
        }
        files::sync_at_once(file).unwrap_or(Ok(())).map(|()| true)
    })
}

/// Keeps what the file at `path` was made for the next time.
pub(super) fn keep(path: &Path, dataset: DatasetId, now: &Snapshot) -> io::Result<()> {
    if !is_empty(now) {
        return Ok(());
    }
    let bytes = std::fs::read(path)?;
    let blocks =
        bytes.chunks(BLOCK_BYTES).zip(0_u64..).filter(|(block, _)| block.iter().any(|byte| *byte != 0));
    let blocks = blocks.map(|(block, number)| (number * BLOCK_BYTES as u64, block.to_vec())).collect();
    EMPTY.set(Some(Empty { dataset, len: bytes.len() as u64, blocks }));
    Ok(())
}

/// Closes the file of a process that was killed: nothing of what the library would write then is written, so it need not make it.
pub(super) fn close(database: Option<Database>) {
    if let Some(database) = database
        && scheduler::is_dying()
        && !std::thread::panicking()
    {
        // It does not write either on a thread that panics.
        let _ = catch_unwind(AssertUnwindSafe(move || {
            let _database = database;
            resume_unwind(Box::new(()));
        }));
    }
}
