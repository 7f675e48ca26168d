//! Nodes of the map's tree, and what can be said of one alone.
//!
//! Each node has 64 children: a leaf 64 entries of 8 bytes, so that a dense map takes nine bytes a block with everything, while
//! a path that has to be copied stays short. An inner node knows how much is mapped below and the highest LSN below, so that
//! trimming all of a subtree touches one node.
//!
//! A digest is of content only: of which LSN each block has. Tombstones do not count, since one node may keep some that the other has
//! dropped. It is computed when asked for, and forgotten when the node changes.

use std::sync::{Arc, OnceLock};

use crate::base::Lsn;

/// Bits of a block number that one level takes.
pub(super) const FAN_SHIFT: u32 = 6;
/// Children of a node.
pub(super) const FAN: usize = 1 << FAN_SHIFT;

/// BLAKE3 of content.
pub(super) type Digest = [u8; 32];

/// What is known of one block: nothing, where its data is, or when it was trimmed. LSNs leave the highest bit free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry(u64);

const TOMBSTONE: u64 = 1 << 63;

impl Entry {
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn mapped(lsn: Lsn) -> Self {
        assert!(lsn.0 > 0 && lsn.0 < TOMBSTONE, "data lies at a position between 0 and 2^63");
        Self(lsn.0)
    }

    pub(super) const fn trimmed(lsn: Lsn) -> Self {
        assert!(lsn.0 > 0 && lsn.0 < TOMBSTONE, "a trim has a position between 0 and 2^63");
        Self(lsn.0 | TOMBSTONE)
    }

    /// Where the block's data is.
    pub(super) const fn lsn(self) -> Option<Lsn> {
        if self.0 == 0 || self.0 & TOMBSTONE != 0 { None } else { Some(Lsn(self.0)) }
    }

    /// The record that made it so; 0 for none.
    pub(super) const fn newest(self) -> Lsn {
        Lsn(self.0 & !TOMBSTONE)
    }
}

/// 64 blocks.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) entries: [Entry; FAN],
    pub(super) digest: OnceLock<Digest>,
}

/// 64 subtrees of the level below.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) children: [Child; FAN],
    /// Blocks with data.
    pub(super) mapped: u64,
    /// No record below is newer.
    pub(super) newest: Lsn,
    pub(super) digest: OnceLock<Digest>,
}

/// A subtree. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(super) enum Child {
    /// No block has anything.
    #[default]
    Empty,
    /// All blocks were trimmed by this record.
    Trimmed(Lsn),
    /// The lowest level.
    Leaf(Arc<Leaf>),
    /// Any other.
    Inner(Arc<Inner>),
}

// A copy that is about to change: its digest would be of something else.
impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self { entries: self.entries, digest: OnceLock::new() }
    }
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self {
            children: self.children.clone(),
            mapped: self.mapped,
            newest: self.newest,
            digest: OnceLock::new(),
        }
    }
}

/// Bytes that an `Arc` adds to what it holds.
const ARC_BYTES: usize = 2 * size_of::<usize>();

impl Child {
    /// A node of this level, all of whose blocks are as this subtree says, which is no node.
    pub(super) fn expand(&self, level: u32) -> Self {
        let lsn = match self {
            Self::Empty => None,
            Self::Trimmed(lsn) => Some(*lsn),
            Self::Leaf(_) | Self::Inner(_) => return self.clone(),
        };
        if level == 0 {
            let entry = lsn.map_or(Entry::NONE, Entry::trimmed);
            return Self::Leaf(Arc::new(Leaf { entries: [entry; FAN], digest: OnceLock::new() }));
        }
        let children = std::array::from_fn(|_| self.clone());
        let newest = lsn.unwrap_or_default();
        Self::Inner(Arc::new(Inner { children, mapped: 0, newest, digest: OnceLock::new() }))
    }

    /// Blocks with data.
    pub(super) fn mapped(&self) -> u64 {
        match self {
            Self::Empty | Self::Trimmed(_) => 0,
            Self::Leaf(leaf) => leaf.entries.iter().filter(|entry| entry.lsn().is_some()).count() as u64,
            Self::Inner(inner) => inner.mapped,
        }
    }

    /// No record in it is newer; 0 when there is none.
    pub(super) fn newest(&self) -> Lsn {
        match self {
            Self::Empty => Lsn::ZERO,
            Self::Trimmed(lsn) => *lsn,
            Self::Leaf(leaf) => leaf.entries.iter().map(|entry| entry.newest()).max().unwrap_or_default(),
            Self::Inner(inner) => inner.newest,
        }
    }

    /// Whether no block has data or a tombstone.
    pub(super) fn is_void(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Trimmed(_) => false,
            Self::Leaf(leaf) => leaf.entries.iter().all(|entry| *entry == Entry::NONE),
            Self::Inner(inner) => inner.children.iter().all(|child| matches!(child, Self::Empty)),
        }
    }

    /// Whether both are the same node, or have no data.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        let cached = |a: &OnceLock<Digest>, b: &OnceLock<Digest>| a.get().is_some_and(|a| b.get() == Some(a));
        match (self, other) {
            (Self::Empty | Self::Trimmed(_), Self::Empty | Self::Trimmed(_)) => true,
            (Self::Leaf(a), Self::Leaf(b)) => Arc::ptr_eq(a, b) || cached(&a.digest, &b.digest),
            (Self::Inner(a), Self::Inner(b)) => Arc::ptr_eq(a, b) || cached(&a.digest, &b.digest),
            _ => false,
        }
    }

    /// Child `index` of a node that is not a leaf; of what is no node, itself.
    pub(super) fn child(&self, index: usize) -> &Self {
        match self {
            Self::Inner(inner) => &inner.children[index],
            Self::Empty | Self::Trimmed(_) | Self::Leaf(_) => self,
        }
    }

    /// Entry `index` of a leaf; what is no node has the same everywhere.
    pub(super) fn entry(&self, index: usize) -> Entry {
        match self {
            Self::Leaf(leaf) => leaf.entries[index],
            Self::Trimmed(lsn) => Entry::trimmed(*lsn),
            Self::Empty | Self::Inner(_) => Entry::NONE,
        }
    }

    /// Digest of its content; `None` when no block has data.
    pub(super) fn digest(&self) -> Option<Digest> {
        if self.mapped() == 0 {
            return None;
        }
        let digest = match self {
            Self::Empty | Self::Trimmed(_) => return None,
            Self::Leaf(leaf) => leaf.digest.get_or_init(|| {
                let mut hasher = blake3::Hasher::new();
                for entry in &leaf.entries {
                    hasher.update(&entry.lsn().unwrap_or_default().0.to_le_bytes());
                }
                *hasher.finalize().as_bytes()
            }),
            Self::Inner(inner) => inner.digest.get_or_init(|| {
                let mut hasher = blake3::Hasher::new();
                for child in &inner.children {
                    hasher.update(&child.digest().unwrap_or_default());
                }
                *hasher.finalize().as_bytes()
            }),
        };
        Some(*digest)
    }

    /// Bytes of memory, without what the allocator adds; nodes that others share are counted in full.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Empty | Self::Trimmed(_) => 0,
            Self::Leaf(_) => size_of::<Leaf>() + ARC_BYTES,
            Self::Inner(inner) => {
                let below: usize = inner.children.iter().map(Self::memory_bytes).sum();
                below + size_of::<Inner>() + ARC_BYTES
            }
        }
    }
}

const _: () = assert!(size_of::<Entry>() == 8);
const _: () = assert!(size_of::<Leaf>() + ARC_BYTES <= 9 * FAN);
