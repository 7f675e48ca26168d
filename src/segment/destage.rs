//! What to write to the disk next, and what is durable after a sync. Each node runs it by itself, over the ring that it has.
//!
//! ```text
//!  appended ──commit──▶ committed ──next_write──▶ issued ──written──▶ written ──begin_sync, synced──▶ durable
//! ```
//!
//! Invariants:
//! * Only what is committed is written, and only device blocks that nothing will be added to: full ones, and those before a
//!   flush's padding. So no block is written twice, and none that was synced is ever touched.
//! * A segment's head is written when everything before its previous end is durable. So a valid head proves that, and replay
//!   tells damage from the tail by it.
//! * The durable position is that of a record whose payload, slots and head were written before the sync began, and all of whose
//!   predecessors' were.
//!
//! A write or a sync that fails is the end: the caller takes the node out and asks nothing more. After a failed fsync nobody knows what
//! the disk has, and a second one that succeeds proves nothing.

use std::collections::VecDeque;
use std::ops::Range;

use super::head::SegmentHead;
use super::packed::Packed;
use super::record::Extent;
use crate::base::Lsn;
use crate::memory::Piece;

/// Bytes of the table in one write at most: they are gathered slot by slot.
const TABLE_BYTES_MAX: u64 = 64 << 10;

/// Part of a segment to be written to its file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing behind it becomes durable before it is written"]
pub struct DestageWrite {
    /// The segment.
    pub base: Lsn,
    /// Its bytes in the file; whole device blocks.
    pub range: Range<u64>,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Payload,
    /// Of the table.
    Slots {
        first: u32,
        end: u32,
    },
}

impl DestageWrite {
    /// Of what in the segment's place of the ring these bytes consist, if `packed` has its records.
    #[must_use]
    pub fn pieces(&self, packed: &Packed) -> Vec<Piece> {
        match self.part {
            Part::Head => vec![Piece::Memory(
                0..usize::try_from(self.range.end).expect("a device block has at most 65536 bytes"),
            )],
            Part::Payload => packed.payloads(self.range.clone()),
            Part::Slots { first, end } => packed.table(first..end),
        }
    }
}

/// What a sync that begins now makes durable.
#[derive(Debug)]
#[must_use = "tell when it is done"]
pub struct Sync {
    marks: Vec<(Lsn, Marks)>,
}

impl Sync {
    /// The segments whose files are to be synced. A file that is new needs its directory synced too.
    pub fn bases(&self) -> impl Iterator<Item = Lsn> + '_ {
        self.marks.iter().map(|(base, _)| *base)
    }
}

/// How much of a segment something holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    head: bool,
    payload: u64,
    slots: u32,
}

/// A committed record that is not durable yet.
#[derive(Debug, Clone, Copy)]
struct Committed {
    end: Lsn,
    payload_end: u64,
    slots_end: u32,
}

impl Committed {
    /// Whether all of it is among what the marks are of.
    const fn is_in(&self, marks: &Marks) -> bool {
        marks.head && self.payload_end <= marks.payload && self.slots_end <= marks.slots
    }
}

#[derive(Debug)]
struct Segment {
    head: SegmentHead,
    /// Not committed.
    appended: VecDeque<Extent>,
    committed: VecDeque<Committed>,
    last: Committed,
    /// The last position that no device block has bytes on both sides of.
    padded: Lsn,
    /// Whether the next segment is there.
    closed: bool,
    issued: Marks,
    written: Marks,
    synced: Marks,
    /// Writes under way, in the order of their issue: their ends, and whether they are done.
    payloads: VecDeque<(u64, bool)>,
    slots: VecDeque<(u32, bool)>,
}

/// The state of destaging a log.
#[derive(Debug)]
pub struct Destage {
    segments: VecDeque<Segment>,
    committed: Lsn,
    durable: Lsn,
    syncing: bool,
}

impl Destage {
    /// Of a log that is durable to `durable`.
    #[must_use]
    pub const fn new(durable: Lsn) -> Self {
        Self { segments: VecDeque::new(), committed: durable, durable, syncing: false }
    }

    /// The position to which this node is durable.
    #[must_use]
    pub const fn durable(&self) -> Lsn {
        self.durable
    }

    /// Begins a segment; the one before is padded at its end.
    ///
    /// # Panics
    /// When it does not come after the newest.
    pub fn open(&mut self, head: SegmentHead) {
        if let Some(newest) = self.segments.back_mut() {
            assert!(newest.head.base < head.base, "{} after {}", head.base, newest.head.base);
            newest.padded = head.previous_end;
            newest.closed = true;
        }
        self.segments.push_back(Segment::new(head));
    }

    /// Takes note of a record, in the order of the log.
    ///
    /// # Panics
    /// When its segment was not begun, or is done with.
    pub fn append(&mut self, extent: Extent) {
        let base = self.segments.front().map(|segment| segment.head.layout.base(extent.lsn));
        let segment = self.segments.iter_mut().find(|segment| Some(segment.head.base) == base);
        let Some(segment) = segment else { panic!("no segment has {extent:?}") };
        let last = segment.appended.back().map_or(segment.last.end, |last| last.end);
        assert!(extent.lsn >= last, "{extent:?} after {last}");
        segment.appended.push_back(extent);
    }

    /// Takes note that the log is padded behind `lsn`, the end of a record: its last blocks may be written as they are.
    pub fn pad(&mut self, lsn: Lsn) {
        let holds = |segment: &&mut Segment| segment.head.base < lsn && lsn <= segment.head.end();
        if let Some(segment) = self.segments.iter_mut().find(holds) {
            segment.padded = lsn.max(segment.padded);
        }
    }

    /// Takes note that everything before `lsn` is committed.
    pub fn commit(&mut self, lsn: Lsn) {
        self.committed = lsn.max(self.committed);
        for segment in &mut self.segments {
            segment.commit(self.committed);
            if !segment.appended.is_empty() {
                break;
            }
        }
    }

    /// The next bytes to write, at most `bytes_max`, but at least a device block; `None` when there is nothing to write now. Several may
    /// be under way, done in any order.
    pub fn next_write(&mut self, bytes_max: u64) -> Option<DestageWrite> {
        let durable = self.durable;
        self.segments.iter_mut().find_map(|segment| segment.next_write(durable, bytes_max))
    }

    /// Takes note that the write is done.
    ///
    /// # Panics
    /// When it was not under way.
    pub fn written(&mut self, write: &DestageWrite) {
        let segment = self.segments.iter_mut().find(|segment| segment.head.base == write.base);
        let Some(segment) = segment else { panic!("{write:?} of a segment that is done with") };
        segment.written(write);
    }

    /// Begins a sync of what is written; `None` when nothing is that was not synced.
    ///
    /// # Panics
    /// When one is under way.
    pub fn begin_sync(&mut self) -> Option<Sync> {
        assert!(!self.syncing, "one sync at a time");
        let changed = self.segments.iter().filter(|segment| segment.written != segment.synced);
        let marks: Vec<_> = changed.map(|segment| (segment.head.base, segment.written)).collect();
        self.syncing = !marks.is_empty();
        self.syncing.then_some(Sync { marks })
    }

    /// To where this node is durable once the sync has succeeded: what [`synced`](Self::synced) will say.
    #[must_use]
    pub fn durable_after(&self, sync: &Sync) -> Lsn {
        let marks = |segment: &Segment| sync.marks.iter().find(|(base, _)| *base == segment.head.base);
        let records = self.segments.iter().flat_map(|segment| {
            let synced = marks(segment).map_or(segment.synced, |(_, marks)| *marks);
            segment.committed.iter().take_while(move |record| record.is_in(&synced))
        });
        records.last().map_or(self.durable, |record| record.end)
    }

    /// Takes note that the sync succeeded; the position to which this node is durable now.
    #[allow(clippy::needless_pass_by_value, reason = "a sync ends once")]
    pub fn synced(&mut self, sync: Sync) -> Lsn {
        self.syncing = false;
        for (base, marks) in &sync.marks {
            let segment = self.segments.iter_mut().find(|segment| segment.head.base == *base);
            let Some(segment) = segment else { panic!("the segment at {base} is done with") };
            segment.synced = *marks;
        }
        let before = self.durable;
        while let Some(segment) = self.segments.front_mut() {
            self.durable = segment.durable().unwrap_or(self.durable);
            let done = segment.closed && self.durable >= segment.padded && segment.is_idle();
            if !done {
                break;
            }
            self.segments.pop_front();
        }
        assert!(self.durable >= before && self.durable <= self.committed, "durable {}", self.durable);
        self.durable
    }
}

impl Segment {
    fn new(head: SegmentHead) -> Self {
        let none = Marks { head: false, payload: head.layout.payload_start(), slots: 0 };
        Self {
            appended: VecDeque::new(),
            committed: VecDeque::new(),
            last: Committed { end: head.previous_end, payload_end: none.payload, slots_end: 0 },
            padded: Lsn::ZERO,
            closed: false,
            issued: none,
            written: none,
            synced: none,
            payloads: VecDeque::new(),
            slots: VecDeque::new(),
            head,
        }
    }

    fn commit(&mut self, committed: Lsn) {
        while let Some(extent) = self.appended.front().filter(|extent| extent.end <= committed) {
            let is_new = extent.slots.start >= self.issued.slots
                && (extent.payload.is_empty() || extent.payload.start >= self.issued.payload);
            assert!(is_new, "{extent:?} lies in blocks that were written: the log was not padded there");
            // The step of a record without payload counts as one: so what lies before a flush's padding is below any later
            // record's blocks, whatever that is.
            let payload_end = extent.end.since(self.head.base);
            self.last = Committed { end: extent.end, payload_end, slots_end: extent.slots.end };
            self.committed.push_back(self.last);
            self.appended.pop_front();
        }
    }

    /// To where payload and slots may be written.
    fn target(&self) -> (u64, u32) {
        let layout = &self.head.layout;
        let Committed { end, payload_end, slots_end } = self.last;
        let padded = (layout.pad(payload_end), layout.pad_slot(slots_end));
        // A later padding hides an earlier one, but the record behind that shows it: that one may never be committed.
        let begins_anew =
            |next: &Extent| next.lsn.since(self.head.base) >= padded.0 && next.slots.start >= padded.1;
        if end == self.padded || self.appended.front().is_some_and(begins_anew) {
            return padded;
        }
        let per_block = layout.slots_per_block();
        (payload_end - payload_end % layout.device_block_bytes(), slots_end - slots_end % per_block)
    }

    fn next_write(&mut self, durable: Lsn, bytes_max: u64) -> Option<DestageWrite> {
        let (layout, base) = (self.head.layout, self.head.base);
        let (payload, slots) = self.target();
        let block = layout.device_block_bytes();
        let bytes_max = (bytes_max - bytes_max % block).max(block);
        if self.issued.payload < payload {
            let range = self.issued.payload..payload.min(self.issued.payload.saturating_add(bytes_max));
            self.issued.payload = range.end;
            self.payloads.push_back((range.end, false));
            return Some(DestageWrite { base, range, part: Part::Payload });
        }
        if self.issued.slots < slots {
            let bytes_max = bytes_max.min(TABLE_BYTES_MAX.max(block));
            let most =
                u32::try_from(bytes_max / block).unwrap_or(u32::MAX).saturating_mul(layout.slots_per_block());
            let range = self.issued.slots..slots.min(self.issued.slots.saturating_add(most));
            self.issued.slots = range.end;
            self.slots.push_back((range.end, false));
            let part = Part::Slots { first: range.start, end: range.end };
            return Some(DestageWrite { base, range: layout.slots(&range), part });
        }
        if !self.issued.head && durable >= self.head.previous_end && self.last.slots_end > 0 {
            self.issued.head = true;
            return Some(DestageWrite { base, range: 0..block, part: Part::Head });
        }
        None
    }

    fn written(&mut self, write: &DestageWrite) {
        let known = match write.part {
            Part::Head => !std::mem::replace(&mut self.written.head, true) && self.issued.head,
            Part::Payload => done(&mut self.payloads, write.range.end, &mut self.written.payload),
            Part::Slots { end, .. } => done(&mut self.slots, end, &mut self.written.slots),
        };
        assert!(known, "{write:?} was not under way");
    }

    /// To where it is durable by what was synced, if any record is that was not before.
    fn durable(&mut self) -> Option<Lsn> {
        let synced = self.synced;
        let mut durable = None;
        while let Some(record) = self.committed.front().filter(|record| record.is_in(&synced)) {
            durable = Some(record.end);
            self.committed.pop_front();
        }
        durable
    }

    /// Whether nothing is left to be done.
    fn is_idle(&self) -> bool {
        self.appended.is_empty() && self.committed.is_empty() && self.written == self.synced
    }
}

/// Marks the write that ends at `end` as done, and moves `mark` over all that are done with nothing before them open.
fn done<T: Copy + PartialEq>(writes: &mut VecDeque<(T, bool)>, end: T, mark: &mut T) -> bool {
    let Some(write) = writes.iter_mut().find(|(other, done)| *other == end && !done) else { return false };
    write.1 = true;
    while let Some((end, _)) = writes.front().filter(|(_, done)| *done) {
        *mark = *end;
        writes.pop_front();
    }
    true
}

#[cfg(test)]
#[path = "destage_tests.rs"]
mod tests;
