//! What a node has after a start: the checkpoint, and the log behind it.

use super::checkpoint::Snapshot;
use super::config::{DatasetConfig, OpenError};
use super::log_files::LogFiles;
use super::register::Position;
use super::resync::Note;
use super::segment_files::SegmentFiles;
use super::volumes::{CHANGE_BYTES, VolumeChange, Volumes};
use crate::base::{DatasetId, Lsn};
use crate::segment::{Known, Record, RecordKind, Replay, SegmentHead, SegmentLayout};

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) volumes: Volumes,
    pub(super) position: Position,
    /// The heads of the segments that hold it.
    pub(super) heads: Vec<SegmentHead>,
}

/// Reads the log from the checkpoint's position `from` on, and makes what it found durable. With `fork`, what lies behind that is
/// set aside: it is void in the log that this node is to follow.
///
/// # Errors
/// The log is damaged, or the checkpoint lies behind the fork.
pub(super) fn recover(
    files: &impl LogFiles,
    dataset: DatasetId,
    layout: SegmentLayout,
    start: Snapshot,
    fork: Option<Lsn>,
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
    let mut replay = Replay::new(segments, Known { from, durable: from })?;
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
/// Those, and that what it had is not whole.
pub(super) fn recover_noted(
    files: &SegmentFiles,
    config: &DatasetConfig,
    start: Snapshot,
    note: &mut Note,
) -> Result<Recovered, OpenError> {
    let (dataset, layout) = (config.id, config.layout);
    // One that has ended makes its checkpoint first.
    let old = note.from().filter(|old| old.end() >= start.position);
    let Some(old) = old else {
        note.remove()?;
        return recover(files, dataset, layout, start, None);
    };
    for base in files.list()?.into_iter().filter(|base| *base >= old.end()) {
        // What was being written is worth nothing, and need not be fit to be read.
        if files.head(dataset, base, Lsn::MAX)?.is_none() {
            files.remove(base)?;
        }
    }
    let found = recover(files, dataset, layout, start, Some(old.end()))?;
    if found.position.end() != old.end() {
        return Err(OpenError::OldPoint { found: found.position.end(), wanted: old.end() });
    }
    let highest = found.position.highest.max(old.highest);
    Ok(Recovered { position: Position { highest, ..found.position }, ..found })
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
