//! The log as a primary writes it: places in the ring, records in the mirrored memory, what is to be posted and what to be destaged.
//!
//! ```text
//!  append ─▶ record in the ring ─▶ gather ─▶ post ─▶ the peer's memory
//!                                    └─────▶ destage: appended, committed, written, synced
//! ```
//!
//! Invariants:
//! * A segment is begun only when its place in the ring is free and its file has its room on the disk, so a record that was
//!   appended always gets there.
//! * Places are given out and sealed in one go: none is open when the next segment is begun.
//! * Posts leave in the order of the log, each segment's head before its records.
//!
//! Pure but for the memory.

use std::collections::VecDeque;

pub(super) use super::appended::Appended;
use super::resident::Residents;
use super::ring_memory::RingMemory;
use crate::base::Lsn;
use crate::memory::{Piece, VolatileSlice};
use crate::segment::{
    Append, Destage, DestageWrite, Extent, HEAD_BYTES, Node, Packed, Place, RecordKind, Request, Ring, Salt,
    SegmentHead, Sync,
};

/// Of a segment behind which none can be begun so many parts are filled but one: that is for trims and for changes of volumes.
const KEPT_PART: u64 = 16;

/// Why a record finds no place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The ring's next place is still needed, until both nodes are durable beyond it.
    Ring,
    /// The next segment's file is not prepared.
    File,
    /// The ring is on its way to a peer as it is.
    Frozen,
}

/// Bytes of the region to be mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Post {
    pub(super) offset: usize,
    pub(super) len: usize,
    /// The log is with the peer to there once this is.
    pub(super) end: Option<Lsn>,
}

/// A payload on its way into the log.
pub(super) enum Payload<'a> {
    /// Private bytes.
    Bytes(&'a [u8]),
    /// Somebody who fills the memory; false when that failed, and the place is given up.
    Fill(&'a mut dyn FnMut(VolatileSlice<'_>) -> bool),
    /// A record without.
    None,
}

/// The state of a primary's log.
#[derive(Debug)]
pub(super) struct Log {
    memory: RingMemory,
    ring: Ring,
    append: Append,
    pub(super) destage: Destage,
    resident: Residents,
    /// The segments to this one have their files.
    prepared: Lsn,
    /// Where this node began it: what lies before is of generations before.
    pub(super) first: Lsn,
    posts: VecDeque<Post>,
    extents: Vec<Extent>,
    salts: fn() -> Salt,
    /// The log is padded behind this position.
    padded: Lsn,
    /// Whether there is a peer: without one nothing is posted, and the own disk alone frees the ring.
    has_peer: bool,
    /// To where the peer is durable, as far as was ever known; this node.
    peer_durable: Lsn,
    own_durable: Lsn,
    is_frozen: bool,
}

/// What a log begins with.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) head: SegmentHead,
    /// This node is durable to there.
    pub(super) durable: Lsn,
}

impl Log {
    /// A generation's log, from its first segment on, whose file must have been prepared.
    pub(super) fn begin(memory: RingMemory, begin: Begin, salts: fn() -> Salt) -> Self {
        let Begin { head, durable } = begin;
        let ring = Ring::new(memory.layout(), memory.places(), durable);
        let mut log = Self {
            ring,
            append: Append::new(head),
            destage: Destage::new(durable),
            resident: Residents::default(),
            prepared: head.base,
            first: head.base,
            posts: VecDeque::new(),
            extents: Vec::new(),
            salts,
            padded: durable,
            has_peer: false,
            peer_durable: Lsn::ZERO,
            own_durable: durable,
            is_frozen: false,
            memory,
        };
        log.open(head);
        log
    }

    pub(super) const fn memory(&self) -> &RingMemory {
        &self.memory
    }

    pub(super) const fn head(&self) -> &SegmentHead {
        self.append.head()
    }

    /// The position behind the last record.
    pub(super) const fn end(&self) -> Lsn {
        self.append.end()
    }

    /// Places that are needed.
    pub(super) fn used(&self) -> usize {
        self.ring.used()
    }

    /// Segments in the ring's memory that were written there.
    pub(super) fn resident(&self) -> impl Iterator<Item = &SegmentHead> {
        self.resident.heads().filter(|head| self.packed(head.base).is_some())
    }

    /// Whether nothing may be appended: what is in the ring stays as it is.
    pub(super) const fn set_frozen(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
    }

    /// The segment that needs a file next.
    pub(super) fn to_prepare(&self) -> Option<Lsn> {
        let next = self.append.head().end();
        (self.prepared < next).then_some(next)
    }

    /// The file of the segment at `base` is there, with room for all of it.
    pub(super) fn set_prepared(&mut self, base: Lsn) {
        self.prepared = self.prepared.max(base);
    }

    /// Appends a record: its payload lies in the ring and its slots are sealed when this returns.
    ///
    /// # Errors
    /// Nothing was appended.
    pub(super) fn append(&mut self, request: Request, payload: &mut Payload<'_>) -> Result<Appended, Full> {
        if self.is_frozen {
            return Err(Full::Frozen);
        }
        // While there may be no room for another file, what gives room back still finds a place.
        let rest = self.memory.layout().segment_bytes() / KEPT_PART;
        let is_kept = request.kind == RecordKind::Write && !self.append.has_room_before(&request, rest);
        if is_kept && self.to_prepare().is_some() {
            return Err(Full::File);
        }
        let place = loop {
            match self.append.reserve(request) {
                Some(place) => break place,
                None => self.next_segment()?,
            }
        };
        let (lsn, end) = (place.lsn(), place.end());
        self.resident.push(place.extent());
        let is_whole = self.finish(place, payload);
        Ok(Appended { lsn, end, is_whole })
    }

    fn finish(&mut self, place: Place, payload: &mut Payload<'_>) -> bool {
        let segment = self.memory.place(self.append.head().base);
        match payload {
            Payload::Bytes(bytes) => {
                self.append.fill(place, bytes, segment);
                true
            }
            Payload::None => {
                self.append.seal(place, segment);
                true
            }
            Payload::Fill(fill) => {
                let range = place.payload();
                let part = segment.subslice(index(range.start), index(range.end - range.start));
                let is_whole = part.is_some_and(fill);
                if is_whole {
                    self.append.seal(place, segment);
                } else {
                    self.append.void(place, segment);
                }
                is_whole
            }
        }
    }

    fn next_segment(&mut self) -> Result<(), Full> {
        let next = self.append.head().end();
        if self.prepared < next {
            return Err(Full::File);
        }
        if !self.ring.has_place(next) {
            return Err(Full::Ring);
        }
        self.gather();
        let end = self.append.end();
        let head = self.append.next(self.append.head().phase, (self.salts)());
        self.destage.pad(end);
        self.padded = self.padded.max(end);
        self.open(head);
        self.append = Append::new(head);
        self.claim();
        Ok(())
    }

    /// Takes the place of the segment with this head, and puts it there.
    fn open(&mut self, head: SegmentHead) {
        self.ring.open(head.base, head.previous_end);
        self.destage.open(head);
        self.memory.place(head.base).write(0, &head.encode());
        self.resident.begin(head, &self.memory);
        self.post(Post { offset: self.memory.offset(head.base), len: HEAD_BYTES, end: None });
    }

    fn post(&mut self, post: Post) {
        if self.has_peer {
            self.posts.push_back(post);
        }
    }

    /// Begins to post and to destage what was appended since the last call.
    pub(super) fn gather(&mut self) {
        let Some(batch) = self.append.take_batch(&mut self.extents) else { return };
        self.extents.drain(..).for_each(|extent| self.destage.append(extent));
        let start = self.memory.offset(self.append.head().base);
        let len = index(batch.range.end - batch.range.start);
        self.post(Post { offset: start + index(batch.range.start), len, end: Some(batch.end) });
    }

    /// What is to be posted next.
    pub(super) fn next_post(&self) -> Option<Post> {
        self.posts.front().copied()
    }

    /// The first of [`next_post`](Self::next_post) was handed over.
    pub(super) fn posted(&mut self) {
        self.posts.pop_front();
    }

    /// There is no peer from now on: nothing is posted, and the own disk alone frees the ring.
    pub(super) fn part(&mut self) {
        self.gather();
        self.posts.clear();
        self.has_peer = false;
        self.set_durable(Node::Own, self.own_durable);
    }

    /// Segments that were brought back into the ring's memory, while it is frozen.
    pub(super) fn adopt(&mut self, heads: Vec<SegmentHead>) {
        for head in heads {
            self.resident.adopt(head, &self.memory);
        }
    }

    /// The open segment, or the last one that begins at `from` or before, begins there in the log.
    pub(super) fn open_from(&self, from: Lsn) -> Lsn {
        self.resident
            .heads()
            .rev()
            .map(|head| head.previous_end)
            .find(|end| *end <= from)
            .unwrap_or(Lsn::ZERO)
    }

    /// There is a peer from now on, which has the log to `from` and the ring's bytes as they are now, and to `peer_durable` on its disk: it
    /// keeps in the ring what the peer lacks or writes anew. False when the ring does not reach back so far.
    ///
    /// *Reaches back*: a segment in the memory continues the log at `from` or before, and all after it are there.
    pub(super) fn meet(&mut self, from: Lsn, peer_durable: Lsn) -> bool {
        self.gather();
        // What is not on the own disk yet is needed there too.
        let reach = from.min(self.own_durable);
        let first = self.resident.heads().rposition(|head| head.previous_end <= reach);
        let Some(first) = first else { return false };
        let needed: Vec<_> = self.resident.heads().skip(first).copied().collect();
        let follows = |pair: &[SegmentHead]| pair[1].previous_end <= pair[0].end();
        if !needed.windows(2).all(follows) {
            return false;
        }
        let peer_durable = peer_durable.min(self.open_from(from));
        let mut ring = Ring::new(self.memory.layout(), self.memory.places(), reach.min(peer_durable));
        for head in &needed {
            ring.open(head.base, head.previous_end);
        }
        ring.set_durable(Node::Own, self.own_durable);
        self.ring = ring;
        self.peer_durable = peer_durable;
        self.has_peer = true;
        self.posts.clear();
        true
    }

    /// What is before `lsn` is committed, so it may be destaged.
    pub(super) fn commit(&mut self, lsn: Lsn) {
        self.destage.commit(lsn);
    }

    /// Pads the log, so that all of it can be destaged; the position to which that makes it durable.
    pub(super) fn pad(&mut self) -> Lsn {
        self.gather();
        let end = self.append.pad();
        self.destage.pad(end);
        self.padded = end;
        end
    }

    /// The last position that [`pad`](Self::pad) gave.
    pub(super) const fn padded(&self) -> Lsn {
        self.padded
    }

    /// Takes note of a sync of this node's; the position to which it is durable.
    pub(super) fn synced(&mut self, sync: Sync) -> Lsn {
        let durable = self.destage.synced(sync);
        self.set_durable(Node::Own, durable);
        self.own_durable
    }

    /// Takes note that a node is durable to `lsn`; a lower one than before says nothing new.
    pub(super) fn set_durable(&mut self, node: Node, lsn: Lsn) {
        let lsn = lsn.min(self.append.end());
        match node {
            Node::Own => self.own_durable = self.own_durable.max(lsn),
            Node::Peer => self.peer_durable = self.peer_durable.max(lsn),
        }
        self.ring.set_durable(Node::Own, self.own_durable);
        let peer = if self.has_peer { self.peer_durable } else { self.own_durable };
        self.ring.set_durable(Node::Peer, peer);
        self.claim();
    }

    /// Records say what both nodes have, so that neither takes the loss of it for the log's end. What the own disk alone has is
    /// not claimed: a peer that is sent the records later may lose power half-way through them.
    fn claim(&mut self) {
        let both = self.own_durable.min(self.peer_durable).min(self.append.end());
        self.append.set_durable(both);
    }

    pub(super) const fn own_durable(&self) -> Lsn {
        self.own_durable
    }

    pub(super) const fn peer_durable(&self) -> Lsn {
        self.peer_durable
    }

    /// See [`Residents::packed`].
    pub(super) fn packed(&self, base: Lsn) -> Option<&Packed> {
        self.resident.packed(base)
    }

    /// Reads the bytes at `lsn` from the ring; false when they are not there.
    pub(super) fn read(&self, lsn: Lsn, target: &mut [u8]) -> bool {
        let base = self.memory.layout().base(lsn);
        let Some(packed) = self.packed(base) else { return false };
        packed.read(self.memory.place(base), lsn.since(base), target)
    }

    /// The next part of the log to be written to a file, and the pieces of the ring of which it consists.
    pub(super) fn next_write(&mut self, bytes_max: u64) -> Option<(DestageWrite, Vec<Piece>)> {
        let write = self.destage.next_write(bytes_max)?;
        let Some(packed) = self.packed(write.base) else {
            unreachable!("what is not written yet is in the ring")
        };
        let pieces = write.pieces(packed);
        Some((write, pieces))
    }
}

/// An offset in a segment, for memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("segments have at most 2^30 bytes")
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
