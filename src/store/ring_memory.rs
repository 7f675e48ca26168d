//! The mirrored region of a dataset: a page of words, then the ring of open segments, then the window of a resync.
//!
//! ```text
//!     0  "MBRING02"   8 dataset   24 generation   32 start   40 flush   48 own durable       the primary's, mirrored
//!  2048  durable   2056 end   2064 trouble   2072 check                                      the secondary's own
//!  4096  place 0 │ place 1 │ …                                                               segments
//!        behind them: what a resync brings, piece by piece                                   the primary's, when it is asked
//! ```
//!
//! The secondary's words are never written by the primary: it fetches them one-sided. Their place in the primary's own memory is
//! where they land.
//!
//! *Start*: from this position on the ring has the whole log; what the secondary had before it attached ends there or behind.
//! *Flush*: the log is padded behind this position, so its last blocks may be written as they are. *Own durable*: what the primary
//! has on its storage. *Trouble*: why the secondary's durable position does not move.

use std::sync::Arc;

use crate::base::{DatasetId, LogGeneration, Lsn, crc32c_append};
use crate::memory::{Mapping, VolatileSlice};
use crate::segment::{HEAD_BYTES, SegmentHead, SegmentLayout};

/// Bytes before the ring.
pub(super) const CONTROL_BYTES: usize = 4096;

const MAGIC: u64 = u64::from_le_bytes(*b"MBRING02");

const GENERATION_AT: usize = 24;
const START_AT: usize = 32;
pub(super) const FLUSH_AT: usize = 40;
pub(super) const OWN_DURABLE_AT: usize = 48;

/// Bytes of the window by which a resync brings its pieces: apart from the ring, so that what clients write never waits for it there.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

/// Words of the secondary.
pub(super) const SECONDARY_AT: usize = 2048;
pub(super) const SECONDARY_BYTES: usize = SECONDARY_WORDS * 8;
const SECONDARY_WORDS: usize = 4;

/// What keeps a secondary from making progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Its disk is full.
    NoSpace,
    /// Its disk failed, or what it found in the ring cannot be applied.
    Failed,
}

impl Trouble {
    const fn code(self) -> u64 {
        match self {
            Self::None => 0,
            Self::NoSpace => 1,
            Self::Failed => 2,
        }
    }
}

/// What the primary says about the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PrimaryWords {
    pub(super) dataset: DatasetId,
    pub(super) generation: LogGeneration,
    pub(super) start: Lsn,
    pub(super) flush: Lsn,
    pub(super) own_durable: Lsn,
}

/// What the secondary says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SecondaryWords {
    pub(super) durable: Lsn,
    pub(super) end: Lsn,
    pub(super) trouble: Trouble,
}

impl SecondaryWords {
    /// Each word with its place in the region.
    pub(super) fn encode(&self) -> [(usize, u64); SECONDARY_WORDS] {
        let words = [self.durable.0, self.end.0, self.trouble.code()];
        let check = check(words);
        let [durable, end, trouble] = words;
        let mut at = SECONDARY_AT;
        [durable, end, trouble, check].map(|word| {
            at += 8;
            (at - 8, word)
        })
    }

    fn decode([durable, end, trouble, found]: [u64; SECONDARY_WORDS]) -> Option<Self> {
        if found != check([durable, end, trouble]) {
            return None;
        }
        let trouble = match trouble {
            0 => Trouble::None,
            1 => Trouble::NoSpace,
            _ => Trouble::Failed,
        };
        Some(Self { durable: Lsn(durable.min(Lsn::MAX.0)), end: Lsn(end.min(Lsn::MAX.0)), trouble })
    }
}

/// Of the other words; never 0, which a new region has.
fn check(words: [u64; SECONDARY_WORDS - 1]) -> u64 {
    let sum = words.iter().fold(0, |sum, word| crc32c_append(sum, &word.to_le_bytes()));
    u64::from(sum) | 1 << 32
}

/// The region's memory. A clone is the same memory.
#[derive(Debug, Clone)]
pub(super) struct RingMemory {
    memory: Arc<Mapping>,
    layout: SegmentLayout,
    places: u64,
}

impl RingMemory {
    /// Bytes of a region with this many places.
    pub(super) fn region_bytes(layout: SegmentLayout, places: u64) -> usize {
        Self::window_at(layout, places) + WINDOW_BYTES
    }

    /// Where the window of a resync begins.
    fn window_at(layout: SegmentLayout, places: u64) -> usize {
        CONTROL_BYTES + usize::try_from(places * layout.segment_bytes()).expect("it fits the memory")
    }

    /// Where the window of a resync begins in the region, and its memory.
    pub(super) fn window(&self) -> (usize, VolatileSlice<'_>) {
        let at = Self::window_at(self.layout, self.places);
        match self.memory.slice().subslice(at, WINDOW_BYTES) {
            Some(slice) => (at, slice),
            None => unreachable!("the region ends with it"),
        }
    }

    /// # Panics
    /// When the memory has another size.
    pub(super) fn new(memory: Arc<Mapping>, layout: SegmentLayout, places: u64) -> Self {
        assert_eq!(memory.len(), Self::region_bytes(layout, places), "bytes of the region");
        Self { memory, layout, places }
    }

    pub(super) const fn mapping(&self) -> &Arc<Mapping> {
        &self.memory
    }

    pub(super) const fn layout(&self) -> SegmentLayout {
        self.layout
    }

    pub(super) const fn places(&self) -> u64 {
        self.places
    }

    /// Where the segment at `base` lies in the region.
    pub(super) fn offset(&self, base: Lsn) -> usize {
        let place = base.0 / self.layout.segment_bytes() % self.places;
        CONTROL_BYTES + usize::try_from(place * self.layout.segment_bytes()).expect("it fits the memory")
    }

    /// The memory of the place of the segment at `base`.
    pub(super) fn place(&self, base: Lsn) -> VolatileSlice<'_> {
        let bytes = usize::try_from(self.layout.segment_bytes()).expect("at most 2^30");
        match self.memory.slice().subslice(self.offset(base), bytes) {
            Some(slice) => slice,
            None => unreachable!("places lie within"),
        }
    }

    /// The head of the segment at `base`, if its place has it.
    pub(super) fn head(&self, dataset: DatasetId, base: Lsn) -> Option<SegmentHead> {
        let mut bytes = [0; HEAD_BYTES];
        self.place(base).read(0, &mut bytes);
        SegmentHead::decode_at(&bytes, dataset, base).ok().filter(|head| head.layout == self.layout)
    }

    /// The heads of all segments in the ring, by rising base.
    pub(super) fn heads(&self, dataset: DatasetId) -> Vec<SegmentHead> {
        let mut bytes = [0; HEAD_BYTES];
        let place = |index: u64| Lsn(index * self.layout.segment_bytes());
        let mut heads: Vec<_> = (0..self.places)
            .filter_map(|index| {
                self.place(place(index)).read(0, &mut bytes);
                let head = SegmentHead::decode(&bytes).ok()?;
                let here = head.dataset == dataset
                    && head.layout == self.layout
                    && self.offset(head.base) == self.offset(place(index));
                here.then_some(head)
            })
            .collect();
        heads.sort_by_key(|head| head.base);
        heads
    }

    /// Says what the primary says, and forgets what a secondary of before said: it would be taken for the next one's word.
    pub(super) fn write_primary(&self, words: &PrimaryWords) {
        let slice = self.memory.slice();
        slice.fill(SECONDARY_AT, SECONDARY_BYTES, 0);
        slice.write(8, &words.dataset.to_bytes());
        self.set(GENERATION_AT, words.generation.0);
        self.set(START_AT, words.start.0);
        self.set(FLUSH_AT, words.flush.0);
        self.set(OWN_DURABLE_AT, words.own_durable.0);
        self.set(0, MAGIC);
    }

    /// What the primary said; `None` when nobody did.
    pub(super) fn primary(&self) -> Option<PrimaryWords> {
        let mut dataset = [0; 16];
        self.memory.slice().read(8, &mut dataset);
        let lsn = |at| Lsn(self.get(at).min(Lsn::MAX.0));
        (self.get(0) == MAGIC).then(|| PrimaryWords {
            dataset: DatasetId::from_bytes(dataset),
            generation: LogGeneration(self.get(GENERATION_AT)),
            start: lsn(START_AT),
            flush: lsn(FLUSH_AT),
            own_durable: lsn(OWN_DURABLE_AT),
        })
    }

    /// What the secondary said, as it was fetched; `None` when words of two times were: nothing orders them on every medium.
    pub(super) fn secondary(&self) -> Option<SecondaryWords> {
        let words: [u64; SECONDARY_WORDS] = std::array::from_fn(|index| self.get(SECONDARY_AT + index * 8));
        SecondaryWords::decode(words)
    }

    fn set(&self, at: usize, value: u64) {
        self.memory.slice().store_word(at, value);
    }

    fn get(&self, at: usize) -> u64 {
        self.memory.slice().load_word(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MapOptions;

    #[test]
    fn words_and_places_do_not_overlap() {
        let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
        let bytes = RingMemory::region_bytes(layout, 3);
        let memory = Arc::new(Mapping::anonymous(bytes, MapOptions::default()).unwrap());
        let ring = RingMemory::new(memory.clone(), layout, 3);
        assert_eq!((ring.primary(), ring.secondary()), (None, None));
        let primary = PrimaryWords {
            dataset: DatasetId::from_bytes([7; 16]),
            generation: LogGeneration(3),
            start: Lsn(1 << 16),
            flush: Lsn(2 << 16),
            own_durable: Lsn(5),
        };
        let secondary = SecondaryWords { durable: Lsn(9), end: Lsn(10), trouble: Trouble::NoSpace };
        ring.write_primary(&primary);
        for (at, word) in secondary.encode() {
            memory.slice().store_word(at, word);
        }
        let (at, window) = ring.window();
        assert_eq!(at + WINDOW_BYTES, bytes);
        window.fill(0, WINDOW_BYTES, 0xee);
        for base in 0..3 {
            ring.place(Lsn(base << 16)).fill(0, 1 << 16, 0xff);
        }
        assert!(window.to_vec().iter().all(|byte| *byte == 0xee));
        assert_eq!((ring.primary(), ring.secondary()), (Some(primary), Some(secondary)));
        memory.slice().store_word(SECONDARY_AT, 11);
        assert_eq!(ring.secondary(), None, "a word of another time");
        memory.slice().store_word(SECONDARY_AT, secondary.durable.0);
        assert_eq!(ring.secondary(), Some(secondary));
        ring.write_primary(&primary);
        assert_eq!(ring.secondary(), None, "what one said is not the next one's word");
        assert_eq!(ring.offset(Lsn(4 << 16)), CONTROL_BYTES + (1 << 16));
        assert!(ring.heads(primary.dataset).is_empty());
    }
}
