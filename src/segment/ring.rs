//! The ring of open segments: which places of the mirrored region hold a segment that is still needed there.
//!
//! ```text
//!  place = base / segment bytes, modulo places
//!
//!           open                  close (the next one is open)         both nodes durable to its end, no reader
//!  free ───────────▶ appended to ─────────────────────────────▶ full ─────────────────────────────────────────▶ free
//! ```
//!
//! A place is needed until both nodes have what is in it on stable storage: before, the other node's memory may be the only other
//! copy. A reader that copies a block out of the ring holds its segment, so that nothing is written over it meanwhile.

use std::collections::VecDeque;

use super::SegmentLayout;
use crate::base::Lsn;

/// One of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The one this runs on.
    Own,
    /// The other.
    Peer,
}

#[derive(Debug)]
struct Open {
    base: Lsn,
    /// Where its records end; `None` while it is appended to.
    end: Option<Lsn>,
    readers: u32,
}

/// The segments in the ring.
#[derive(Debug)]
pub struct Ring {
    layout: SegmentLayout,
    places: u64,
    /// By rising base.
    open: VecDeque<Open>,
    own: Lsn,
    peer: Lsn,
}

impl Ring {
    /// Places of a ring at least: one is appended to while the one before is destaged.
    pub const PLACES_MIN: u64 = 2;

    /// An empty ring of `places` segments. Both nodes are durable to `durable`.
    ///
    /// # Panics
    /// With fewer places than [`PLACES_MIN`](Self::PLACES_MIN).
    #[must_use]
    pub fn new(layout: SegmentLayout, places: u64, durable: Lsn) -> Self {
        assert!(places >= Self::PLACES_MIN, "a ring has at least two places, not {places}");
        Self { layout, places, open: VecDeque::new(), own: durable, peer: durable }
    }

    /// Bytes of the ring.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.places * self.layout.segment_bytes()
    }

    /// Where the segment at `base` lies in the region's bytes, if it is there at all.
    ///
    /// # Panics
    /// When no segment begins at `base`.
    #[must_use]
    pub fn offset(&self, base: Lsn) -> u64 {
        assert_eq!(self.layout.base(base), base, "no segment begins there");
        self.place(base) * self.layout.segment_bytes()
    }

    const fn place(&self, base: Lsn) -> u64 {
        base.0 / self.layout.segment_bytes() % self.places
    }

    /// Segments that are needed in the ring.
    #[must_use]
    pub fn used(&self) -> usize {
        self.open.len()
    }

    /// The position to which both nodes are durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.own.min(self.peer)
    }

    /// Whether the segment at `base` has a free place.
    #[must_use]
    pub fn has_place(&self, base: Lsn) -> bool {
        self.open.iter().all(|open| self.place(open.base) != self.place(base))
    }

    /// Begins the segment at `base`; the one before ends at `previous_end`.
    ///
    /// # Panics
    /// When its place is not free, or it does not come after the newest.
    pub fn open(&mut self, base: Lsn, previous_end: Lsn) {
        assert!(self.has_place(base), "the place of the segment at {base} is needed");
        assert_eq!(self.layout.base(base), base, "no segment begins there");
        if let Some(newest) = self.open.back_mut() {
            assert!(newest.base < base, "the segment at {base} after the one at {}", newest.base);
            newest.end = Some(previous_end);
        }
        self.open.push_back(Open { base, end: None, readers: 0 });
        self.free();
    }

    /// Takes note that `node` is durable to `lsn`; a lower one than before says nothing new.
    pub fn set_durable(&mut self, node: Node, lsn: Lsn) {
        let known = match node {
            Node::Own => &mut self.own,
            Node::Peer => &mut self.peer,
        };
        *known = lsn.max(*known);
        self.free();
    }

    /// Keeps the segment with `lsn` in the ring until [`release`](Self::release). False when it is not there: read the file then.
    #[must_use]
    pub fn hold(&mut self, lsn: Lsn) -> bool {
        let base = self.layout.base(lsn);
        let Some(open) = self.open.iter_mut().find(|open| open.base == base) else { return false };
        open.readers += 1;
        true
    }

    /// Ends one [`hold`](Self::hold) of the same position.
    ///
    /// # Panics
    /// When there is none.
    pub fn release(&mut self, lsn: Lsn) {
        let base = self.layout.base(lsn);
        let held = self.open.iter_mut().find(|open| open.base == base && open.readers > 0);
        let Some(open) = held else { panic!("nobody holds the segment at {base}") };
        open.readers -= 1;
        self.free();
    }

    fn free(&mut self) {
        let durable = self.durable();
        self.open.retain(|open| open.readers > 0 || open.end.is_none_or(|end| end > durable));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> (Ring, impl Fn(u64) -> Lsn) {
        let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
        (Ring::new(layout, 4, Lsn(0)), |number| Lsn(number << 16))
    }

    #[test]
    fn a_place_is_free_when_both_are_durable() {
        let (mut ring, base) = ring();
        assert_eq!((ring.bytes(), ring.offset(base(6))), (1 << 18, 2 << 16));
        for number in 4..8 {
            assert!(ring.has_place(base(number)));
            ring.open(base(number), base(number));
        }
        assert!(!ring.has_place(base(8)) && ring.used() == 4);
        ring.set_durable(Node::Own, base(6));
        assert!(!ring.has_place(base(8)), "the peer's memory is the only other copy");
        ring.set_durable(Node::Peer, Lsn(base(5).0 - 1));
        assert!(!ring.has_place(base(8)), "its last byte is missing");
        ring.set_durable(Node::Peer, base(5));
        ring.set_durable(Node::Peer, base(4));
        assert!(ring.has_place(base(8)) && !ring.has_place(base(9)) && ring.durable() == base(5));
    }

    #[test]
    fn a_reader_keeps_the_place() {
        let (mut ring, base) = ring();
        ring.open(base(4), base(4));
        ring.open(base(5), Lsn(base(4).0 + 4096));
        assert!(ring.hold(Lsn(base(4).0 + 77)) && ring.hold(base(4)) && !ring.hold(base(6)));
        ring.set_durable(Node::Own, base(9));
        ring.set_durable(Node::Peer, base(9));
        ring.release(base(4));
        assert!(!ring.has_place(base(8)));
        ring.release(base(4));
        assert!(ring.has_place(base(8)) && !ring.hold(base(4)));
        assert!(!ring.has_place(base(9)), "the newest is appended to, whatever is durable");
    }

    #[test]
    #[should_panic(expected = "is needed")]
    fn a_place_in_use_is_never_given() {
        let (mut ring, base) = ring();
        ring.open(base(4), base(4));
        ring.open(base(8), base(5));
    }
}
