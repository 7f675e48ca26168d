//! Whose a backing directory is: the file `identity`.
//!
//! ```text
//!   0 magic "MBNODE01"   8 u32 crc32c of bytes 12 to 135   12 u32 flags, 0
//!  16 dataset           32 life        48 u64 starts        56 u32 segment bytes  60 u32 device block bytes
//!  64 u8 bytes of the name   65 0      72 the node's name, UTF-8, then 0
//! ```
//!
//! *Life* is random, made with the directory: two directories of one node are told apart by it. *Starts* counts how often it was opened: a
//! directory that was put back from an old copy has the same life and fewer starts than others have seen.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::base::{DatasetId, LifeId, crc32c};
use crate::segment::{LayoutError, SegmentLayout};

/// Bytes of the file.
pub const IDENTITY_BYTES: usize = 136;

/// Bytes of a node's name at most.
pub const NODE_NAME_BYTES_MAX: usize = 64;

const MAGIC: [u8; 6] = *b"MBNODE";
const VERSION: [u8; 2] = *b"01";
const CHECKED_FROM: usize = 12;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 6],
    version: [u8; 2],
    crc: U32,
    flags: U32,
    dataset: [u8; 16],
    life: [u8; 16],
    starts: U64,
    segment_bytes: U32,
    device_block_bytes: U32,
    name_bytes: u8,
    reserved: [u8; 7],
    name: [u8; NODE_NAME_BYTES_MAX],
}

const _: () = assert!(size_of::<Wire>() == IDENTITY_BYTES);

/// What a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose log is in it.
    pub dataset: DatasetId,
    /// The node that has it.
    pub node: String,
    /// Made with the directory.
    pub life: LifeId,
    /// How often it was opened.
    pub starts: u64,
    /// The sizes of its segments.
    pub layout: SegmentLayout,
}

/// Why an identity is none, or another than the one that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It has another size.
    #[error("{bytes} bytes, an identity has {IDENTITY_BYTES}")]
    Size {
        /// What was found.
        bytes: usize,
    },
    /// Something else.
    #[error("no identity: it does not begin with \"MBNODE\"")]
    Magic,
    /// Of a format that this program does not know.
    #[error("format version {found:?} of an identity; this program reads \"01\": use the one that wrote it")]
    Version {
        /// The two digits.
        found: [u8; 2],
    },
    /// Damaged.
    #[error("its checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What it says.
        found: u32,
        /// What it should say.
        computed: u32,
    },
    /// Sizes out of range.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A field with a value that no writer gives it.
    #[error("its {field} is {value:#x}, which cannot be")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Another dataset's.
    #[error("it is dataset {found}'s, not {wanted}'s: give each dataset a directory of its own")]
    Dataset {
        /// What it says.
        found: DatasetId,
        /// Whose it should be.
        wanted: DatasetId,
    },
    /// Another node's.
    #[error("it is node {found:?}'s, not {wanted:?}'s: two nodes never share a directory, nor change names")]
    Node {
        /// What it says.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// Other sizes.
    #[error(
        "its segments have {} bytes in device blocks of {}, not {} in {}: sizes are chosen once",
        found.segment_bytes(), found.device_block_bytes(), wanted.segment_bytes(), wanted.device_block_bytes()
    )]
    Sizes {
        /// What it says.
        found: SegmentLayout,
        /// What was asked for.
        wanted: SegmentLayout,
    },
    /// Two nodes with one name.
    #[error("both nodes are {node:?} (lives {own} and {peer}): give them different names")]
    OneName {
        /// The name.
        node: String,
        /// This directory's life.
        own: LifeId,
        /// The other's.
        peer: LifeId,
    },
    /// It was made anew, or is another directory than before.
    #[error(
        "the backing of node {node:?} is life {found}, last seen was {seen}: it was made anew; set it out and copy it whole"
    )]
    OtherLife {
        /// The node.
        node: String,
        /// What it is.
        found: LifeId,
        /// What it was.
        seen: LifeId,
    },
    /// It was put back from an old copy.
    #[error(
        "the backing of node {node:?} is at start {found}, start {seen} was seen already: it is an old copy; set it out and copy it whole"
    )]
    OlderLife {
        /// The node.
        node: String,
        /// Its count.
        found: u64,
        /// The count that was seen.
        seen: u64,
    },
}

impl Identity {
    /// Its bytes.
    ///
    /// # Panics
    /// When the name is empty or longer than [`NODE_NAME_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let bytes = self.node.len();
        assert!((1..=NODE_NAME_BYTES_MAX).contains(&bytes), "a node's name of {bytes} bytes");
        let small = |bytes: u64| U32::new(u32::try_from(bytes).expect("a layout's sizes are at most 2^30"));
        let mut wire = Wire {
            magic: MAGIC,
            version: VERSION,
            crc: U32::ZERO,
            flags: U32::ZERO,
            dataset: self.dataset.to_bytes(),
            life: self.life.to_bytes(),
            starts: self.starts.into(),
            segment_bytes: small(self.layout.segment_bytes()),
            device_block_bytes: small(self.layout.device_block_bytes()),
            name_bytes: u8::try_from(bytes).expect("at most 64"),
            reserved: [0; 7],
            name: [0; NODE_NAME_BYTES_MAX],
        };
        wire.name[..bytes].copy_from_slice(self.node.as_bytes());
        wire.crc = crc32c(&wire.as_bytes()[CHECKED_FROM..]).into();
        zerocopy::transmute!(wire)
    }

    /// What `bytes` say.
    ///
    /// # Errors
    /// They are no identity, of another version, damaged, or say what cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let Ok(wire) = Wire::read_from_bytes(bytes) else {
            return Err(IdentityError::Size { bytes: bytes.len() });
        };
        if wire.magic != MAGIC {
            return Err(IdentityError::Magic);
        }
        if wire.version != VERSION {
            return Err(IdentityError::Version { found: wire.version });
        }
        let computed = crc32c(&bytes[CHECKED_FROM..]);
        if wire.crc.get() != computed {
            return Err(IdentityError::Checksum { found: wire.crc.get(), computed });
        }
        let layout =
            SegmentLayout::new(wire.segment_bytes.get().into(), wire.device_block_bytes.get().into())?;
        let impossible = |field, value| IdentityError::Field { field, value };
        let name_bytes = usize::from(wire.name_bytes);
        let name = wire.name.get(..name_bytes).filter(|name| !name.is_empty());
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        let Some(node) = name else { return Err(impossible("name", wire.name_bytes.into())) };
        if wire.flags.get() != 0 {
            return Err(impossible("flags", wire.flags.get().into()));
        }
        let rest = wire.reserved.iter().chain(&wire.name[name_bytes..]);
        if let Some(byte) = rest.copied().find(|byte| *byte != 0) {
            return Err(impossible("reserved part", byte.into()));
        }
        Ok(Self {
            dataset: DatasetId::from_bytes(wire.dataset),
            node: node.to_owned(),
            life: LifeId::from_bytes(wire.life),
            starts: wire.starts.get(),
            layout,
        })
    }

    /// Whether it is this node's of this dataset.
    ///
    /// # Errors
    /// Says what differs.
    pub fn check(&self, dataset: DatasetId, node: &str, layout: SegmentLayout) -> Result<(), IdentityError> {
        if self.dataset != dataset {
            return Err(IdentityError::Dataset { found: self.dataset, wanted: dataset });
        }
        if self.node != node {
            return Err(IdentityError::Node { found: self.node.clone(), wanted: node.to_owned() });
        }
        if self.layout != layout {
            return Err(IdentityError::Sizes { found: self.layout, wanted: layout });
        }
        Ok(())
    }

    /// Whether `peer` can be the other of a pair with this one.
    ///
    /// # Errors
    /// It is of another dataset, of other sizes, or has the same name.
    pub fn check_peer(&self, peer: &Self) -> Result<(), IdentityError> {
        if peer.node == self.node {
            let (node, own, peer) = (self.node.clone(), self.life, peer.life);
            return Err(IdentityError::OneName { node, own, peer });
        }
        peer.check(self.dataset, &peer.node, self.layout)
    }

    /// Whether it is the directory that was seen before with this life and this many starts, and not an older one.
    ///
    /// # Errors
    /// It was made anew, or put back from a copy.
    pub fn check_seen(&self, life: LifeId, starts: u64) -> Result<(), IdentityError> {
        let node = self.node.clone();
        if self.life != life {
            return Err(IdentityError::OtherLife { node, found: self.life, seen: life });
        }
        if self.starts < starts {
            return Err(IdentityError::OlderLife { node, found: self.starts, seen: starts });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identity {
        Identity {
            dataset: DatasetId::from_bytes([1; 16]),
            node: "alpha".into(),
            life: LifeId::from_bytes([2; 16]),
            starts: 7,
            layout: SegmentLayout::DEFAULT,
        }
    }

    #[test]
    fn survives_its_bytes_and_every_flipped_bit_is_found() {
        let bytes = sample().encode();
        assert_eq!(Identity::decode(&bytes), Ok(sample()));
        for bit in 0..IDENTITY_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&damaged).is_err(), "bit {bit}");
        }
        assert_eq!(Identity::decode(&bytes[1..]), Err(IdentityError::Size { bytes: IDENTITY_BYTES - 1 }));
    }

    #[test]
    fn what_no_writer_writes_is_refused_though_its_checksum_is_right() {
        let changed = |change: &dyn Fn(&mut Wire)| {
            let mut wire: Wire = zerocopy::transmute!(sample().encode());
            change(&mut wire);
            wire.crc = crc32c(&wire.as_bytes()[CHECKED_FROM..]).into();
            Identity::decode(wire.as_bytes()).unwrap_err()
        };
        let field = |change: &dyn Fn(&mut Wire)| match changed(change) {
            IdentityError::Field { field, .. } => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(&|wire| wire.name_bytes = 0), "name");
        assert_eq!(field(&|wire| wire.name_bytes = 65), "name");
        assert_eq!(field(&|wire| wire.name[0] = 0xff), "name");
        assert_eq!(field(&|wire| wire.name_bytes = 4), "reserved part");
        assert_eq!(field(&|wire| wire.flags = 1.into()), "flags");
        assert!(matches!(changed(&|wire| wire.segment_bytes = 3.into()), IdentityError::Layout(_)));
        assert!(matches!(changed(&|wire| wire.version = *b"02"), IdentityError::Version { .. }));
    }

    #[test]
    fn others_and_older_ones_are_told() {
        let (own, other) = (sample(), DatasetId::from_bytes([9; 16]));
        assert_eq!(own.check(own.dataset, "alpha", own.layout), Ok(()));
        let told = |error: Result<(), IdentityError>| error.unwrap_err().to_string();
        assert!(told(own.check(other, "alpha", own.layout)).contains(&other.to_string()));
        assert!(told(own.check(own.dataset, "beta", own.layout)).contains("beta"));
        let small = SegmentLayout::new(1 << 20, 512).unwrap();
        assert!(told(own.check(own.dataset, "alpha", small)).contains("1048576"));
        let peer = Identity { node: "beta".into(), life: LifeId::from_bytes([3; 16]), ..own.clone() };
        assert_eq!(own.check_peer(&peer), Ok(()));
        let twin = Identity { life: peer.life, ..own.clone() };
        assert!(matches!(own.check_peer(&twin), Err(IdentityError::OneName { .. })));
        let strange = Identity { dataset: other, ..peer.clone() };
        assert!(matches!(own.check_peer(&strange), Err(IdentityError::Dataset { .. })));
        assert_eq!(own.check_seen(own.life, 7), Ok(()));
        assert!(told(own.check_seen(own.life, 8)).contains("start 7, start 8"));
        assert!(matches!(own.check_seen(peer.life, 1), Err(IdentityError::OtherLife { .. })));
    }
}
