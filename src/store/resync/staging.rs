//! What a node that is being resynced keeps beside what it has: the maps that are to become its own.
//!
//! ```text
//!  told to ──▶ ring arrived: start, streamed ──▶ maps at start arrived ──▶ all data here ──▶ checkpoint: its own
//!                 live records are put by           live records are applied
//! ```

use std::collections::VecDeque;

use super::meter::{Meter, ResyncStatus};
use crate::base::Lsn;
use crate::segment::Record;
use crate::store::register::Position;
use crate::store::volumes::{VolumeChange, VolumeError, Volumes};

/// Records that are put by until the maps are here at most; what comes then waits in the ring.
const PUT_BY_MAX: usize = 1 << 20;
/// Records that are given out at once.
const AT_ONCE: usize = 4096;

/// A record to be applied, with the change of the table of volumes that it may be.
pub(super) type PutBy = (Record, Option<VolumeChange>);

#[derive(Debug)]
enum Maps {
    /// On their way.
    Awaited(VecDeque<PutBy>),
    /// With all that the follower has applied.
    Here(Volumes),
}

/// The state of being resynced.
#[derive(Debug)]
pub(in crate::store) struct Staging {
    /// The primary's number for it.
    pub(in crate::store) session: u64,
    /// What this node has, and serves from if the operator says so.
    pub(in crate::store) old: Position,
    /// The maps come as the log before made them, and the first base that the ring brings; once the ring is here.
    begun: Option<(Lsn, Lsn)>,
    maps: Maps,
    /// Everything that the maps at the start have is on this node's storage, but for what the ring brings.
    pub(in crate::store) is_whole: bool,
    pub(super) meter: Meter,
}

impl Staging {
    pub(in crate::store) fn new(session: u64, old: Position) -> Self {
        Self {
            session,
            old,
            begun: None,
            maps: Maps::Awaited(VecDeque::new()),
            is_whole: false,
            meter: Meter::new(),
        }
    }

    /// The ring is here: it has the log from `start` on, and all of the segments from `streamed` on.
    pub(in crate::store) fn begin(&mut self, start: Lsn, streamed: Lsn) {
        self.begun = Some((start, streamed));
    }

    pub(super) const fn begun(&self) -> Option<(Lsn, Lsn)> {
        self.begun
    }

    /// Whether one more record can be taken.
    pub(in crate::store) fn has_room(&self) -> bool {
        match &self.maps {
            Maps::Awaited(put_by) => put_by.len() < PUT_BY_MAX,
            Maps::Here(_) => true,
        }
    }

    /// Takes the next record of the log behind the start.
    ///
    /// # Errors
    /// It does not fit the maps.
    pub(in crate::store) fn take(
        &mut self,
        record: &Record,
        change: Option<VolumeChange>,
    ) -> Result<(), VolumeError> {
        match &mut self.maps {
            Maps::Awaited(put_by) => {
                put_by.push_back((*record, change));
                Ok(())
            }
            Maps::Here(volumes) => volumes.apply(record, change),
        }
    }

    /// Some of the records that were put by, for whoever has the maps; none when all were given out.
    pub(super) fn put_by(&mut self) -> Vec<PutBy> {
        match &mut self.maps {
            Maps::Awaited(put_by) => put_by.drain(..put_by.len().min(AT_ONCE)).collect(),
            Maps::Here(_) => Vec::new(),
        }
    }

    /// The maps, with all records that were put by.
    ///
    /// # Panics
    /// When some were not given out.
    pub(in crate::store) fn arrive(&mut self, volumes: Volumes) {
        assert!(
            matches!(&self.maps, Maps::Awaited(put_by) if put_by.is_empty()),
            "records are put by until the maps are here"
        );
        self.maps = Maps::Here(volumes);
    }

    /// The maps, once they are here.
    pub(in crate::store) const fn volumes(&self) -> Option<&Volumes> {
        match &self.maps {
            Maps::Awaited(_) => None,
            Maps::Here(volumes) => Some(volumes),
        }
    }

    /// How far it is.
    pub(in crate::store) fn status(&mut self) -> ResyncStatus {
        self.meter.status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockNumber, BlockSize, VolumeId};
    use crate::segment::RecordKind;
    use crate::store::volumes::Entry;
    use crate::volume::BlockMap;

    fn record(number: u64) -> Record {
        Record {
            kind: RecordKind::Write,
            volume: VolumeId(0),
            block: BlockNumber(number % 100),
            blocks: 1,
            block_size: BlockSize::Large,
            lsn: Lsn((1000 + number) * 4096),
            durable: Lsn::ZERO,
            sequence: 0,
        }
    }

    #[test]
    fn records_wait_for_the_maps_and_none_is_left_out() {
        let map = BlockMap::new(BlockSize::Large, 100);
        let entry = Entry { id: VolumeId(0), name: "v".into(), map };
        let mut wanted = Volumes::restore(vec![entry], 1);
        let mut volumes = wanted.clone();
        let old = Position { generation: 1, end: 4096, highest: 4096 };
        let mut staging = Staging::new(7, old);
        for number in 0..10_000 {
            staging.take(&record(number), None).unwrap();
        }
        let mut batches = 0;
        loop {
            let put_by = staging.put_by();
            if put_by.is_empty() {
                break;
            }
            batches += 1;
            put_by.into_iter().for_each(|(record, change)| volumes.apply(&record, change).unwrap());
        }
        assert_eq!(batches, 10_000_u64.div_ceil(AT_ONCE as u64));
        assert!(staging.volumes().is_none());
        staging.arrive(volumes);
        staging.take(&record(10_000), None).unwrap();
        (0..=10_000).for_each(|number| wanted.apply(&record(number), None).unwrap());
        assert_eq!(staging.volumes().unwrap().digest(), wanted.digest());
    }

    #[test]
    fn what_does_not_fit_in_memory_stays_in_the_ring() {
        let old = Position { generation: 1, end: 4096, highest: 4096 };
        let mut staging = Staging::new(7, old);
        for number in 0..PUT_BY_MAX as u64 {
            assert!(staging.has_room());
            staging.take(&record(number), None).unwrap();
        }
        assert!(!staging.has_room());
        assert_eq!(staging.put_by().len(), AT_ONCE);
        assert!(staging.has_room());
    }
}
