//! What a node has after a start: the checkpoint, and the log behind it.

use super::checkpoint::Snapshot;
use super::config::{DatasetConfig, OpenError};
use super::durable_mark::{DurableMark, Marked};
use super::log_files::LogFiles;
use super::register::Position;
use super::resync::{Note, NoteError};
use super::segment_files::SegmentFiles;
use super::volumes::{CHANGE_BYTES, VolumeChange, Volumes};
use crate::base::{DatasetId, Lsn};
use crate::segment::{
    Known, Record, RecordKind, Replay, ReplayError, SegmentHead, SegmentLayout, segment_file_name,
};

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) volumes: Volumes,
    pub(super) position: Position,
    /// The heads of the segments that hold it.
    pub(super) heads: Vec<SegmentHead>,
}

/// Reads the log from the checkpoint's position `from` on, and makes what it found durable. With `fork`, what lies behind that is
/// set aside: it is void in the log that this node is to follow. Else the log goes as far as is `marked`, if that is about the generation that
/// the log ends with: of an earlier one the head of the next says where it ended.
///
/// # Errors
/// The log is damaged, or the checkpoint lies behind the fork.
pub(super) fn recover(
    files: &impl LogFiles,
    dataset: DatasetId,
    layout: SegmentLayout,
    start: Snapshot,
    fork: Option<Lsn>,
    marked: Option<Marked>,
) -> Result<Recovered, OpenError> {
    let Snapshot { position: from, generation: last, mut volumes } = start;
    if let Some(fork) = fork.filter(|fork| *fork < from) {
        return Err(OpenError::CheckpointBehindFork { checkpoint: from, fork, marker: None });
    }
    let mut segments = files.heads(dataset, from)?;
    if let Some(fork) = fork {
        segments.retain(|(head, _)| head.previous_end < fork || head.base < fork);
    }
    let mut heads: Vec<_> = segments.iter().map(|(head, _)| *head).collect();
    let newest = heads.last().map_or(last, |head| head.generation.max(last));
    let marked = marked.filter(|marked| fork.is_none() && marked.generation >= newest);
    let durable = marked.map_or(from, |marked| marked.durable.max(from));
    let mut replay = Replay::new(segments, Known { from, durable })?;
    let mut parts = false;
    for record in &mut replay {
        let record = record?;
        if fork.is_some_and(|fork| record.end() > fork) {
            parts = true;
            break;
        }
        let change = change(files, layout, &record)?;
        volumes.apply(&record, change).map_err(|error| OpenError::Record { lsn: record.lsn, error })?;
    }
    // The fork is the end of a record of this log, if this log goes so far.
    let whole = replay.outcome().map(|outcome| outcome.end);
    let end = match (whole, fork) {
        (Some(end), Some(fork)) => end.min(fork),
        (Some(end), None) => end,
        (None, fork) if parts => fork.unwrap_or(from),
        (None, _) => from,
    };
    // Whatever a file was made for may have been given out.
    let bases = files.list()?;
    let highest = bases.last().map_or(end, |base| base.plus(layout.segment_bytes()).max(end));
    // After the death of the process alone part of what was read may be in the kernel's cache only.
    heads.retain(|head| head.previous_end <= end);
    let bases: Vec<_> = heads.iter().filter(|head| head.end() > from).map(|head| head.base).collect();
    files.sync(&bases)?;
    let generation = heads.last().map_or(last, |head| head.generation.max(last));
    let position = Position { generation: generation.0, end: end.0, highest: highest.0 };
    Ok(Recovered { volumes, position, heads })
}

/// [`recover`] of a node that may have been resynced when it ended: then it has what it had before.
///
/// # Errors
/// Those, and that what it had is not whole, or not all that it acknowledged alone.
pub(super) fn recover_noted(
    files: &SegmentFiles,
    config: &DatasetConfig,
    start: Snapshot,
    note: &mut Note,
    mark: &DurableMark,
) -> Result<Recovered, OpenError> {
    let (dataset, layout) = (config.id, config.layout);
    if note.from().is_some() {
        // What the log has behind the note does not count, whoever was told of it.
        let unmarked = mark.remove();
        unmarked.map_err(|error| NoteError::File { path: mark.path().to_owned(), error })?;
    }
    // One that has ended makes its checkpoint first.
    let old = note.from().filter(|old| old.end() >= start.position);
    let Some(old) = old else {
        note.remove()?;
        return recover_marked(files, config, start, mark);
    };
    for base in files.list()?.into_iter().filter(|base| *base >= old.end()) {
        // What was being written is worth nothing, and need not be fit to be read.
        if files.head(dataset, base, Lsn::MAX)?.is_none() {
            files.remove(base)?;
        }
    }
    let found = recover(files, dataset, layout, start, Some(old.end()), None)?;
    if found.position.end() != old.end() {
        return Err(OpenError::OldPoint { found: found.position.end(), wanted: old.end() });
    }
    let highest = found.position.highest.max(old.highest);
    Ok(Recovered { position: Position { highest, ..found.position }, ..found })
}

/// [`recover`] of a node that may have acknowledged alone what nothing but the mark tells of.
fn recover_marked(
    files: &SegmentFiles,
    config: &DatasetConfig,
    start: Snapshot,
    mark: &DurableMark,
) -> Result<Recovered, OpenError> {
    let (dataset, layout, marked) = (config.id, config.layout, mark.marked());
    let why = match (recover(files, dataset, layout, start.clone(), None, marked), marked) {
        (Err(OpenError::Replay(why)), Some(marked)) => (why, marked.durable),
        (found, _) => return found,
    };
    // What is damaged without the mark too is told as ever.
    let found = recover(files, dataset, layout, start, None, None)?;
    let (why, durable) = why;
    let end = found.position.end();
    let path = |base| config.directory.join("segments").join(segment_file_name(base));
    let first = found.heads.last().map_or(layout.base(end), |head| head.base);
    let last = layout.base(Lsn(durable.0.saturating_sub(1)));
    let mut segments = path(first).display().to_string();
    if last > first {
        segments = format!("{segments} to {}", path(last).display());
    }
    let why = match why {
        ReplayError::Corrupt { fault, .. } => fault.to_string(),
        why => why.to_string(),
    };
    Err(OpenError::Lost { segments, end, durable, why, mark: mark.path().to_owned() })
}

/// The snapshot from which a log that is to end at `fork` is read again: the checkpoint, or the marker if that lies behind the fork.
///
/// # Errors
/// Both do.
pub(super) fn start_before(
    checkpoint: &Snapshot,
    marker: Option<&Snapshot>,
    fork: Lsn,
) -> Result<Snapshot, OpenError> {
    let before = |snapshot: &&Snapshot| snapshot.position <= fork;
    let found = Some(checkpoint).filter(before).or_else(|| marker.filter(before));
    found.cloned().ok_or_else(|| OpenError::CheckpointBehindFork {
        checkpoint: checkpoint.position,
        fork,
        marker: marker.map(|marker| marker.position),
    })
}

fn change(
    files: &impl LogFiles,
    layout: SegmentLayout,
    record: &Record,
) -> Result<Option<VolumeChange>, OpenError> {
    if record.kind != RecordKind::Volume {
        return Ok(None);
    }
    let mut bytes = [0; CHANGE_BYTES];
    let base = layout.base(record.lsn);
    files.read(base, record.lsn.since(base), &mut bytes)?;
    let change = VolumeChange::decode(record.volume, &bytes);
    change.map(Some).map_err(|error| OpenError::Record { lsn: record.lsn, error })
}
