//! The values of the checkpoint's tables. Each carries a checksum over its key and itself: a value under another key is found, and so is
//! a flipped bit, which the key-value file looks for only when it repairs itself.
//!
//! ```text
//!  head    0 magic "MBCKPT01"  8 u32 crc  12 u32 flags, 0  16 dataset  32 u64 position  40 u64 generation
//!         48 u32 next volume  52 u32 volumes
//!  volume  0 u32 crc  4 u8 block shift  5 u8 name bytes  6 u16 flags, 0  8 u64 blocks  16 u64 mapped  24 name of 256
//!  leaf    0 u32 crc  4 u32 flags, 0  8 u64 × 64 LSNs
//! ```

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::base::{BlockSize, DatasetId, LogGeneration, Lsn, VolumeId, crc32c, crc32c_append};
use crate::store::volumes::NAME_BYTES_MAX;
use crate::volume::{BlockMap, LEAF_BLOCKS};

/// Why a value of the checkpoint is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It has another size.
    #[error("{bytes} bytes, not {wanted}")]
    Size {
        /// What was found.
        bytes: usize,
        /// What it should have.
        wanted: usize,
    },
    /// Something else.
    #[error("it does not begin with \"MBCKPT\"")]
    Magic,
    /// Of a format that this program does not know.
    #[error("format version {found:?} of a checkpoint; this program reads \"01\": use the one that wrote it")]
    Version {
        /// The two digits.
        found: [u8; 2],
    },
    /// Damaged, or under another key.
    #[error("its checksum is {found:#010x}, its key and bytes give {computed:#010x}")]
    Checksum {
        /// What it says.
        found: u32,
        /// What it should say.
        computed: u32,
    },
    /// A field with a value that no writer gives it.
    #[error("its {field} is {value:#x}, which cannot be")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

const MAGIC: [u8; 6] = *b"MBCKPT";
const VERSION: [u8; 2] = *b"01";

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HeadWire {
    magic: [u8; 6],
    version: [u8; 2],
    crc: U32,
    flags: U32,
    dataset: [u8; 16],
    position: U64,
    generation: U64,
    volume_next: U32,
    volumes: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct VolumeWire {
    crc: U32,
    block_shift: u8,
    name_bytes: u8,
    flags: U16,
    blocks: U64,
    mapped: U64,
    name: [u8; 256],
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LeafWire {
    crc: U32,
    flags: U32,
    lsns: [U64; LEAF_BLOCKS],
}

const _: () = assert!(size_of::<HeadWire>() == 56);
const _: () = assert!(size_of::<VolumeWire>() == 280);
const _: () = assert!(size_of::<LeafWire>() == 520);

/// Where the checkpoint stands, and how much belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRecord {
    /// Whose it is.
    pub dataset: DatasetId,
    /// Everything before is in the maps.
    pub position: Lsn,
    /// Of the last record before.
    pub generation: LogGeneration,
    /// Volumes with lower numbers were made some time.
    pub volume_next: u32,
    /// Volumes in the table.
    pub volumes: u32,
}

/// A volume without its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// Blocks.
    pub blocks: u64,
    /// Blocks with data.
    pub mapped: u64,
}

fn read<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> Result<T, RecordError> {
    let wanted = size_of::<T>();
    T::read_from_bytes(bytes).map_err(|_| RecordError::Size { bytes: bytes.len(), wanted })
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    crc32c_append(crc32c(key), body)
}

fn check(found: U32, key: &[u8], body: &[u8]) -> Result<(), RecordError> {
    let (found, computed) = (found.get(), checksum(key, body));
    if found == computed { Ok(()) } else { Err(RecordError::Checksum { found, computed }) }
}

fn check_zero(field: &'static str, value: impl Into<u64>) -> Result<(), RecordError> {
    let value = value.into();
    if value == 0 { Ok(()) } else { Err(RecordError::Field { field, value }) }
}

fn position(field: &'static str, value: U64) -> Result<Lsn, RecordError> {
    let value = value.get();
    if value <= Lsn::MAX.0 { Ok(Lsn(value)) } else { Err(RecordError::Field { field, value }) }
}

impl HeadRecord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut wire = HeadWire {
            magic: MAGIC,
            version: VERSION,
            crc: U32::ZERO,
            flags: U32::ZERO,
            dataset: self.dataset.to_bytes(),
            position: self.position.0.into(),
            generation: self.generation.0.into(),
            volume_next: self.volume_next.into(),
            volumes: self.volumes.into(),
        };
        wire.crc = checksum(&[], &wire.as_bytes()[12..]).into();
        wire.as_bytes().to_vec()
    }

    /// What `bytes` say.
    ///
    /// # Errors
    /// They are no head of a checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: HeadWire = read(bytes)?;
        if wire.magic != MAGIC {
            return Err(RecordError::Magic);
        }
        if wire.version != VERSION {
            return Err(RecordError::Version { found: wire.version });
        }
        check(wire.crc, &[], &bytes[12..])?;
        check_zero("flags", wire.flags)?;
        Ok(Self {
            dataset: DatasetId::from_bytes(wire.dataset),
            position: position("position", wire.position)?,
            generation: LogGeneration(wire.generation.get()),
            volume_next: wire.volume_next.get(),
            volumes: wire.volumes.get(),
        })
    }
}

impl VolumeRecord {
    /// Its bytes, under the volume's number.
    ///
    /// # Panics
    /// When the name is empty or longer than [`NAME_BYTES_MAX`](crate::store::NAME_BYTES_MAX).
    #[must_use]
    pub fn encode(&self, id: VolumeId) -> Vec<u8> {
        let bytes = self.name.len();
        assert!((1..=NAME_BYTES_MAX).contains(&bytes), "a volume's name of {bytes} bytes");
        let mut wire = VolumeWire {
            crc: U32::ZERO,
            block_shift: self.block_size.shift(),
            name_bytes: u8::try_from(bytes).expect("at most 255"),
            flags: U16::ZERO,
            blocks: self.blocks.into(),
            mapped: self.mapped.into(),
            name: [0; 256],
        };
        wire.name[..bytes].copy_from_slice(self.name.as_bytes());
        wire.crc = checksum(&id.0.to_le_bytes(), &wire.as_bytes()[4..]).into();
        wire.as_bytes().to_vec()
    }

    /// What `bytes` under this number say.
    ///
    /// # Errors
    /// They are no volume, or another one.
    pub fn decode(id: VolumeId, bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: VolumeWire = read(bytes)?;
        check(wire.crc, &id.0.to_le_bytes(), &bytes[4..])?;
        check_zero("flags", wire.flags)?;
        let impossible = |field, value: u64| RecordError::Field { field, value };
        let shift = wire.block_shift;
        let block_size =
            BlockSize::from_shift(shift).ok_or_else(|| impossible("block shift", shift.into()))?;
        let (blocks, mapped) = (wire.blocks.get(), wire.mapped.get());
        if blocks > BlockMap::BLOCKS_MAX {
            return Err(impossible("number of blocks", blocks));
        }
        if mapped > blocks {
            return Err(impossible("number of mapped blocks", mapped));
        }
        let (name, rest) = wire.name.split_at(wire.name_bytes.into());
        let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| impossible("name of bytes", wire.name_bytes.into()))?.to_owned();
        if let Some(byte) = rest.iter().find(|byte| **byte != 0) {
            return Err(impossible("part behind the name", (*byte).into()));
        }
        Ok(Self { name, block_size, blocks, mapped })
    }
}

/// A leaf's key as its checksum has it.
fn leaf_key(id: VolumeId, leaf: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&id.0.to_le_bytes());
    key[4..].copy_from_slice(&leaf.to_le_bytes());
    key
}

/// A leaf's bytes, under its volume and number.
#[must_use]
pub fn encode_leaf(id: VolumeId, leaf: u64, lsns: &[Lsn; LEAF_BLOCKS]) -> [u8; 520] {
    let mut wire = LeafWire { crc: U32::ZERO, flags: U32::ZERO, lsns: lsns.map(|lsn| lsn.0.into()) };
    wire.crc = checksum(&leaf_key(id, leaf), &wire.as_bytes()[4..]).into();
    zerocopy::transmute!(wire)
}

/// What `bytes` under this volume and number say. All LSNs are 0, for no data, or at most [`Lsn::MAX`]; the map checks the rest.
///
/// # Errors
/// They are no leaf, or another one.
pub fn decode_leaf(id: VolumeId, leaf: u64, bytes: &[u8]) -> Result<[Lsn; LEAF_BLOCKS], RecordError> {
    let wire: LeafWire = read(bytes)?;
    check(wire.crc, &leaf_key(id, leaf), &bytes[4..])?;
    check_zero("flags", wire.flags)?;
    let mut lsns = [Lsn::ZERO; LEAF_BLOCKS];
    for (lsn, found) in lsns.iter_mut().zip(&wire.lsns) {
        *lsn = position("LSN", *found)?;
    }
    let has_data = lsns.iter().any(|lsn| *lsn != Lsn::ZERO);
    if has_data {
        Ok(lsns)
    } else {
        Err(RecordError::Field { field: "number of blocks with data", value: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with its decoder.
    #[allow(clippy::type_complexity, reason = "a list of this test")]
    fn samples() -> Vec<(Vec<u8>, Box<dyn Fn(&[u8]) -> bool>)> {
        let head = HeadRecord {
            dataset: DatasetId::from_bytes([1; 16]),
            position: Lsn(1 << 40),
            generation: LogGeneration(3),
            volume_next: 9,
            volumes: 2,
        };
        let (name, block_size) = ("disk".to_owned(), BlockSize::Large);
        let volume = VolumeRecord { name, block_size, blocks: 100, mapped: 7 };
        let lsns: [Lsn; LEAF_BLOCKS] = std::array::from_fn(|at| Lsn(at as u64 * 4096));
        let id = VolumeId(5);
        vec![
            (head.encode(), Box::new(move |bytes: &[u8]| HeadRecord::decode(bytes) == Ok(head))),
            (
                volume.encode(id),
                Box::new(move |bytes: &[u8]| VolumeRecord::decode(id, bytes).as_ref() == Ok(&volume)),
            ),
            (
                encode_leaf(id, 8, &lsns).to_vec(),
                Box::new(move |bytes: &[u8]| decode_leaf(id, 8, bytes) == Ok(lsns)),
            ),
        ]
    }

    #[test]
    fn each_survives_its_bytes_and_every_flipped_bit_is_found() {
        for (bytes, is_same) in samples() {
            assert!(is_same(&bytes) && !is_same(&bytes[1..]));
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_same(&damaged), "bit {bit} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn what_lies_under_another_key_or_cannot_be_is_refused() {
        let lsns = [Lsn(4096); LEAF_BLOCKS];
        let bytes = encode_leaf(VolumeId(1), 2, &lsns);
        for (id, leaf) in [(2, 2), (1, 3), (2, 1)] {
            assert!(matches!(decode_leaf(VolumeId(id), leaf, &bytes), Err(RecordError::Checksum { .. })));
        }
        let field =
            |lsns: [Lsn; LEAF_BLOCKS]| decode_leaf(VolumeId(1), 2, &encode_leaf(VolumeId(1), 2, &lsns));
        assert!(matches!(field([Lsn::ZERO; LEAF_BLOCKS]), Err(RecordError::Field { .. })), "none is absent");
        assert!(matches!(field([Lsn(u64::MAX); LEAF_BLOCKS]), Err(RecordError::Field { field: "LSN", .. })));
        let (name, block_size) = ("x".to_owned(), BlockSize::Small);
        let volume = VolumeRecord { name, block_size, blocks: 1, mapped: 2 };
        assert!(matches!(
            VolumeRecord::decode(VolumeId(1), &volume.encode(VolumeId(1))),
            Err(RecordError::Field { field: "number of mapped blocks", .. })
        ));
    }
}
