//! The maps of a node that is being resynced: what it has, and what differs in the primary's, frame by frame.

use super::pull::{PullError, Puller, Session, with_staging};
use super::staging::PutBy;
use super::wire::{Ask, Reply, VolumeRow};
use crate::base::{BlockNumber, Lsn, VolumeId};
use crate::replica::{Cursor, Plan, decode_runs};
use crate::store::pair::Pair;
use crate::store::volumes::{Entry, NAME_BYTES_MAX, VOLUMES_MAX, Volumes};

fn wrong(why: impl std::fmt::Display) -> PullError {
    PullError::Wrong(why.to_string())
}

/// Fetches the maps, makes them this node's staging maps, and finds out what this node lacks.
pub(super) fn fetch_maps(puller: &mut Puller, pair: &Pair, session: &Session) -> Result<Plan, PullError> {
    let old = with_staging(pair, session, |volumes, _| volumes.clone())?;
    let ask = |puller: &mut Puller, ask| puller.ask(pair, session.number, (0, 0), ask);
    let Reply::Volumes { bytes, since, next } = ask(puller, Ask::Volumes)? else {
        return Err(wrong("no table of volumes"));
    };
    let rows: Vec<VolumeRow> = serde_json::from_slice(&Puller::window(pair, bytes)?).map_err(wrong)?;
    let mut entries = entries(&rows, &old, Lsn(since), next)?;
    let mut cursor = Cursor::default();
    let digest = loop {
        let reply = ask(puller, Ask::Maps { volume: cursor.volume.0, block: cursor.block.0 })?;
        let Reply::Maps { bytes, next, digest } = reply else { return Err(wrong("no maps")) };
        apply(&Puller::window(pair, bytes)?, &mut entries, session.start)?;
        let Some((volume, block)) = next else { break digest };
        let next = Cursor { volume: VolumeId(volume), block: BlockNumber(block) };
        if next <= cursor {
            return Err(wrong(format!("{next:?} follows {cursor:?} in the maps")));
        }
        cursor = next;
    };
    let mut volumes = Volumes::restore(entries, next);
    let found = volumes.digest();
    if found != digest {
        return Err(wrong(format!("the maps have digest {found}, the primary's {digest}")));
    }
    let plan = plan(pair, session, &old, &volumes);
    // What came meanwhile.
    loop {
        let put_by = with_staging(pair, session, |_, staging| {
            let put_by = staging.put_by();
            if put_by.is_empty() {
                staging.meter.begin(plan.bytes());
                staging.arrive(volumes.clone());
            }
            put_by
        })?;
        if put_by.is_empty() {
            return Ok(plan);
        }
        apply_put_by(&mut volumes, put_by)?;
    }
}

/// Applies what the staging has given out, and does not have any more. As when it comes by the ring, what cannot be applied is no fault of the
/// primary's answers, whose digest was right: this node does not go on.
fn apply_put_by(volumes: &mut Volumes, put_by: Vec<PutBy>) -> Result<(), PullError> {
    for (record, change) in put_by {
        volumes.apply(&record, change)?;
    }
    Ok(())
}

/// The volumes, each with what this node has of it from before the difference.
fn entries(rows: &[VolumeRow], old: &Volumes, since: Lsn, next: u32) -> Result<Vec<Entry>, PullError> {
    let rise = rows.is_sorted_by(|a, b| a.id < b.id) && rows.last().is_none_or(|last| last.id < next);
    if rows.len() > VOLUMES_MAX || !rise {
        return Err(wrong(format!("{} volumes, with numbers below {next} that rise", rows.len())));
    }
    let entry = |row: &VolumeRow| {
        if !(1..=NAME_BYTES_MAX).contains(&row.name.len()) {
            return Err(wrong(format!("a name of {} bytes", row.name.len())));
        }
        let id = VolumeId(row.id);
        let map = row.map(old.get(id).map(|old| &old.map), since).map_err(wrong)?;
        Ok(Entry { id, name: row.name.clone(), map })
    };
    rows.iter().map(entry).collect()
}

/// Enters a frame.
fn apply(frame: &[u8], entries: &mut [Entry], start: Lsn) -> Result<(), PullError> {
    for run in decode_runs(frame).map_err(wrong)? {
        let at = entries.binary_search_by_key(&run.volume, |entry| entry.id);
        let at = at.map_err(|_| wrong(format!("a run of volume {}, which is none", run.volume)))?;
        run.apply(&mut entries[at].map, start).map_err(wrong)?;
    }
    Ok(())
}

/// What the new maps have and the old ones have not, but for what comes by the ring.
fn plan(pair: &Pair, session: &Session, old: &Volumes, new: &Volumes) -> Plan {
    let pairs = new.entries().iter().map(|entry| {
        let known = old.get(entry.id).map(|old| &old.map);
        let known = known.filter(|known| known.block_size() == entry.map.block_size());
        (entry.id, known, &entry.map)
    });
    Plan::new(pair.engine.layout(), &(Lsn::ZERO..session.streamed), pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BlockSize;
    use crate::segment::{Record, RecordKind};

    #[test]
    fn a_record_that_was_put_by_and_does_not_fit_is_not_asked_for_again() {
        let mut volumes = Volumes::restore(Vec::new(), 1);
        let (kind, block_size) = (RecordKind::Write, BlockSize::Large);
        let (volume, block, lsn) = (VolumeId(0), BlockNumber(0), Lsn(1 << 20));
        let durable = Lsn::ZERO;
        let record = Record { kind, volume, block, blocks: 1, block_size, lsn, durable, sequence: 0 };
        let error = apply_put_by(&mut volumes, vec![(record, None)]).unwrap_err();
        assert!(matches!(error, PullError::Follow(_)), "{error}");
    }
}
