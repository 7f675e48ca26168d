//! What lies behind where this node's log ends, and is void: set aside, so that it never counts again.

use super::Pair;
use crate::base::Lsn;
use crate::store::checkpoint::Snapshot;
use crate::store::config::{CommandError, OpenError};
use crate::store::resync::{Note, SegmentTable};
use crate::store::segment_files::SegmentFileError;
use crate::store::state::Role;

impl Pair {
    /// Removes the segments that lie behind `end`, where the primary's log ends: they are void, of a primary that lost them or of a generation
    /// that this one has not heard of, and may lie where its log is to go. The caller has `filling`, and no ring is here yet.
    pub(super) fn remove_beyond(&self, end: Lsn) -> Result<(), SegmentFileError> {
        let engine = &self.engine;
        let last = engine.layout().base(end);
        for base in engine.files.list()?.into_iter().filter(|base| *base > last).rev() {
            log::info!("{}: the segment at {base} is void, the log ends at {end}", engine.config.name);
            engine.files.remove(base)?;
            engine.sums.forget(base);
        }
        engine.files.sync_names()
    }

    /// What the files have beyond what this node has is given up, and with it the note; not while this node is resynced. Nobody follows
    /// meanwhile.
    ///
    /// # Errors
    /// The disk's; then the note is still there.
    pub(in crate::store) fn forget_resync(&self) -> Result<(), CommandError> {
        let _filling = self.filling();
        // Whoever looked before may have been overtaken by the primary's word.
        match &self.engine.shared.lock().role {
            Role::Secondary(secondary) if secondary.resync.is_some() => return Ok(()),
            Role::Secondary(_) | Role::Undecided | Role::Primary(_) | Role::Failed { .. } => {}
        }
        self.set_aside(&mut self.note())
    }

    /// The same, for whoever has `filling`: what lies behind the noted end is gone for good when the note is.
    ///
    /// # Errors
    /// The disk's; then the note is still there.
    pub(super) fn set_aside(&self, note: &mut Note) -> Result<(), CommandError> {
        // One that may be there although it could not be written is removed too.
        let Some(old) = note.from() else { return Ok(note.remove()?) };
        let engine = &self.engine;
        let (files, end) = (&engine.files, old.end());
        let bases = files.list().map_err(OpenError::from)?;
        // First what gives room, the last of it first: what is left is the first part of a log. A table is written anew beside the old one.
        for base in bases.iter().copied().filter(|base| *base >= end).rev() {
            files.remove(base).map_err(OpenError::from)?;
            engine.sums.forget(base);
        }
        for base in bases.into_iter().filter(|base| *base < end) {
            if end <= base.plus(engine.layout().segment_bytes()) {
                // The last one may have been given the table of the primary's, which goes on.
                let table = SegmentTable::read(files, engine.config.id, base).map_err(OpenError::from)?;
                if let Some((table, cut)) = table.map(|table| (table.cut(end), table)).filter(|(a, b)| a != b)
                {
                    let (head, slots) = (table.head.encode(), (table.start, &table.bytes[..]));
                    let replaced = files.replace_table(base, cut.start, &head, slots);
                    replaced.map_err(OpenError::from)?;
                    engine.sums.forget(base);
                }
            }
        }
        files.sync_names().map_err(OpenError::from)?;
        self.verified().clear();
        note.remove()?;
        Ok(())
    }

    /// Removes what lies behind the noted end, all but these segments, with the checkpoint at `back` if it has to go back.
    ///
    /// # Errors
    /// The disk's. After a restart what the note says holds; or all of the log is there as before, if the checkpoint has not gone back.
    pub(super) fn cut(&self, back: Option<&Snapshot>, kept: &[Lsn]) -> Result<(), CommandError> {
        let engine = &self.engine;
        if let Some(back) = back {
            self.go_back(back)?;
        }
        // The last goes first: what is left is the first part of a log.
        for base in engine.files.list().map_err(OpenError::from)?.into_iter().rev() {
            if !kept.contains(&base) {
                engine.files.remove(base).map_err(OpenError::from)?;
                engine.sums.forget(base);
            }
        }
        self.set_aside(&mut self.note())
    }
}
