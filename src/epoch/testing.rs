//! An owner without a fabric: it cuts epochs and writes them into a region as a lane would.

use super::applied::Applied;
use super::body::Body;
use super::layout::{EpochLayout, LogId, Position, encode_head, words};
use super::record::Commit;
use crate::memory::{MapOptions, Mapping, VolatileSlice};

/// Bytes of a page here.
pub(super) const PAGE: usize = 4096;

pub(super) const LOG: LogId = LogId([5; 16]);

/// What a step of it stores: at which offset of the region which bytes, in this order.
pub(super) type Stores = Vec<(usize, Vec<u8>)>;

#[derive(Debug)]
pub(super) struct Owner {
    pub(super) layout: EpochLayout,
    memory: Mapping,
    twin: Mapping,
    pub(super) at: Position,
    pub(super) number: u64,
    /// The incarnation, and that of the last epoch.
    pub(super) incarnation: u64,
    before: u64,
    /// The memory at each epoch, from 0 on.
    pub(super) history: Vec<Vec<u8>>,
}

/// A region as a push leaves it: no epoch yet.
pub(super) fn pushed(layout: EpochLayout) -> Mapping {
    let region = Mapping::anonymous(layout.region_bytes(), MapOptions::default()).unwrap();
    region.slice().write(0, &encode_head(layout, LOG));
    region.slice().write(words::APPLIED[0], &Applied::default().encode(LOG));
    region
}

impl Owner {
    pub(super) fn new(layout: EpochLayout) -> Self {
        let mapping = || Mapping::anonymous(layout.image_bytes(), MapOptions::default()).unwrap();
        let history = vec![vec![0; layout.image_bytes()]];
        let (memory, twin) = (mapping(), mapping());
        Self { layout, memory, twin, at: Position(0), number: 0, incarnation: 1, before: 0, history }
    }

    /// The next one: it has what stands in `region`, which it recovers. Numbers before the last are of no interest any more.
    pub(super) fn pull(region: VolatileSlice<'_>, layout: EpochLayout, incarnation: u64) -> Self {
        let copy = Mapping::anonymous(region.len(), MapOptions::default()).unwrap();
        copy.slice().copy_from(0, region);
        let (_, applied) = super::log::recover(copy.slice(), layout).unwrap();
        let mut owner = Self::new(layout);
        let content = image(copy.slice(), layout);
        owner.memory.slice().write(0, &content);
        owner.twin.slice().write(0, &content);
        (owner.at, owner.number, owner.before) = (applied.position, applied.number, applied.incarnation);
        owner.incarnation = incarnation;
        owner.history = vec![content; usize::try_from(applied.number).unwrap() + 1];
        owner
    }

    /// Changes `len` bytes at `offset`, as far as there are so many.
    pub(super) fn change(&self, offset: usize, len: usize, byte: u8) {
        let len = len.min(self.memory.len() - offset);
        self.memory.slice().fill(offset, len, byte);
    }

    /// Cuts an epoch; the stores that ship it, if the ring has room behind `free`.
    pub(super) fn cut(&mut self, free: u64) -> Option<Stores> {
        let mut body = Body::default();
        for offset in (0..self.memory.len()).step_by(PAGE) {
            body.add_page(
                offset,
                PAGE.min(self.memory.len() - offset),
                self.memory.slice(),
                self.twin.slice(),
            );
        }
        let commit = Commit {
            position: self.at,
            number: self.number + 1,
            body: body.len(),
            ranges: body.ranges(),
            body_crc: body.crc(),
            incarnation: self.incarnation,
            before: self.before,
        };
        if !body.fits(self.layout.ring_bytes()) || commit.end().0 - free > self.layout.ring_bytes() as u64 {
            return None;
        }
        body.apply(self.twin.slice());
        let mut stores = Stores::new();
        let (place, left) = self.layout.place(commit.body_position());
        let (first, rest) = body.bytes().split_at(left.min(body.len()));
        // In pieces that a cut may fall between.
        for (place, part) in [(place, first), (self.layout.place(Position(0)).0, rest)] {
            stores.extend(part.chunks(700).enumerate().map(|(at, chunk)| (place + at * 700, chunk.to_vec())));
        }
        stores.push((self.layout.place(self.at).0, commit.encode(LOG).to_vec()));
        (self.at, self.number, self.before) = (commit.end(), commit.number, commit.incarnation);
        self.history.push(self.memory.slice().to_vec());
        Some(stores)
    }
}

/// The image of a region.
pub(super) fn image(region: VolatileSlice<'_>, layout: EpochLayout) -> Vec<u8> {
    region.subslice(layout.image_offset(), layout.image_bytes()).unwrap().to_vec()
}

/// The word that says how far the owner may write.
pub(super) fn free(region: VolatileSlice<'_>) -> u64 {
    region.load_word(words::FREE)
}
