//! The plain way: the shortest path of a store through shared memory, without a request and without a queue.
//!
//! What it needs lies in one place, found once: where both copies are mapped, and where the grant is looked at. A
//! store is two copies behind one look at the grant; an acknowledgment is the fence and one look more. Words that are
//! needed together are read together ([`Pair`] says why).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{GrantView, ShmPeer, fencing};
use crate::memory::{Mapping, Pair, Twin};

/// Shown by no grant: what a way that leads nowhere looks at.
static NOWHERE: AtomicU64 = AtomicU64::new(0);

/// A way from a local mapping to a peer's window, at equal offsets.
#[derive(Debug)]
pub struct PlainWay {
    /// Address of the grant's word, and what it shows while the grant stands.
    watched: Pair,
    memories: Twin,
    /// What the address is in.
    _page: Option<GrantView>,
}

impl PlainWay {
    /// From `local` to `peer`, which may be written.
    pub(super) fn new(local: Arc<Mapping>, peer: &ShmPeer) -> Self {
        let (word, granted) = peer.page.watched();
        Self {
            watched: Pair::new(std::ptr::from_ref(word).expose_provenance() as u64, granted),
            memories: Twin::new(local, peer.memory.clone()),
            _page: Some(peer.page.clone()),
        }
    }

    /// One that leads nowhere: for media that have none.
    #[must_use]
    pub fn nowhere() -> Self {
        let word = std::ptr::from_ref(&NOWHERE).expose_provenance() as u64;
        Self { watched: Pair::new(word, u64::MAX), memories: Twin::empty(), _page: None }
    }

    /// The grant's word, and what it shows while the grant stands.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the address was made of a pointer")]
    fn watched(&self) -> (&AtomicU64, u64) {
        let (word, granted) = self.watched.words();
        let word = std::ptr::with_exposed_provenance::<AtomicU64>(word as usize);
        // SAFETY: the address of a word in the page that self keeps, or of a static.
        (unsafe { &*word }, granted)
    }

    /// Copies `data` to `offset` of both sides; `false` did nothing: the range lies outside, or the grant does not
    /// stand. What went this way is posted; [`complete`](Self::complete) tells when it is acknowledged.
    #[inline(always)]
    #[must_use]
    pub fn store(&self, offset: usize, data: &[u8]) -> bool {
        let (word, granted) = self.watched();
        fencing::after_earlier_stores();
        if !self.memories.contains(offset, data.len()) || word.load(Ordering::Relaxed) != granted {
            return false;
        }
        self.memories.write(offset, data);
        true
    }

    /// Copies few whole words at `offset` of the peer's side to this one. `false` did nothing that counts: the range lies
    /// outside, or the grant did not stand any more when they were read.
    #[must_use]
    pub fn fetch(&self, offset: usize, len: usize) -> bool {
        let (word, granted) = self.watched();
        // Words are loaded before what is loaded behind them.
        let stands = || word.load(Ordering::Relaxed) == granted;
        self.memories.contains(offset, len) && self.memories.fetch(offset, len, stands)
    }

    /// After stores: whether all of them are acknowledged, and visible. Contains the full fence. `false` says nothing.
    #[inline(always)]
    #[must_use]
    pub fn complete(&self) -> bool {
        let (word, granted) = self.watched();
        fencing::still_granted(word, granted) && !self.memories.lost()
    }
}
