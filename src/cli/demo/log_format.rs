//! The log that the demonstration writes into the region: entries back to back, from byte 0.
//!
//! ```text
//!  0  magic "MBLE"   4  u32 kind (1 file, 2 data)   8  u32 file   12  u32 bytes of payload
//! 16  u64 file: its length; data: offset in the file   24  u32 reserved   28  u32 CRC32C   32  payload
//! ```
//!
//! The payload of a file entry is the file's BLAKE3 digest and its path; of a data entry, a piece of the file. The
//! checksum covers the header, the entry's position in the log and the payload, so an entry is valid in one place
//! only, and the end of the log is where the first invalid entry stands: nothing else says how long it is.

use mirrorbus::VolatileSlice;
use mirrorbus::base::{crc32c, crc32c_append};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 32;
/// Most bytes of a data entry's payload.
pub(super) const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Bytes of the digest at the head of a file entry's payload.
pub(super) const DIGEST_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"MBLE";
/// Bytes of the header that its checksum covers.
const COVERED_BYTES: usize = HEADER_BYTES - 4;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    kind: U32,
    file: U32,
    payload_bytes: U32,
    value: U64,
    reserved: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file begins, of so many bytes.
    File { file_bytes: u64 },
    /// A piece of it, from this offset in the file.
    Data { offset: u64 },
}

/// An entry without its payload, at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// Number of the file.
    pub(super) file: u32,
    pub(super) payload_bytes: usize,
    /// First byte of the header in the region.
    pub(super) position: usize,
}

/// What stands in a region where an entry is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// That entry; its payload was copied out.
    Expected,
    /// No valid entry: the log ends here.
    End,
    /// A valid entry, but another one.
    Other,
}

impl Entry {
    /// Bytes with the header.
    pub(super) const fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes
    }

    /// First byte of the next entry.
    pub(super) const fn end(&self) -> usize {
        self.position + self.bytes()
    }

    /// The header in front of `payload`.
    pub(super) fn header(&self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        assert_eq!(payload.len(), self.payload_bytes, "an entry's payload has the length that was planned");
        let (kind, value) = match self.kind {
            Kind::File { file_bytes } => (1, file_bytes),
            Kind::Data { offset } => (2, offset),
        };
        let payload_bytes = u32::try_from(self.payload_bytes).expect("at most CHUNK_BYTES_MAX");
        let mut header = Header {
            magic: MAGIC,
            kind: kind.into(),
            file: self.file.into(),
            payload_bytes: payload_bytes.into(),
            value: value.into(),
            reserved: 0.into(),
            crc: 0.into(),
        };
        header.crc = checksum(&header, self.position, payload).into();
        header.as_bytes().try_into().expect("the size is asserted above")
    }

    /// Looks for this entry in `memory`, and copies its payload to `payload`.
    pub(super) fn read(&self, memory: VolatileSlice<'_>, payload: &mut Vec<u8>) -> Found {
        payload.clear();
        if !memory.contains(self.position, HEADER_BYTES) {
            return Found::End;
        }
        let mut bytes = [0; HEADER_BYTES];
        memory.read(self.position, &mut bytes);
        let Ok(header) = Header::read_from_bytes(&bytes) else { unreachable!("the sizes are equal") };
        let payload_bytes = header.payload_bytes.get() as usize;
        let sane = header.magic == MAGIC && payload_bytes <= CHUNK_BYTES_MAX;
        if !sane || !memory.contains(self.position + HEADER_BYTES, payload_bytes) {
            return Found::End;
        }
        payload.resize(payload_bytes, 0);
        memory.read(self.position + HEADER_BYTES, payload);
        if header.crc.get() != checksum(&header, self.position, payload) {
            return Found::End;
        }
        let kind = match header.kind.get() {
            1 => Kind::File { file_bytes: header.value.get() },
            2 => Kind::Data { offset: header.value.get() },
            _ => return Found::Other,
        };
        let found = Self { kind, file: header.file.get(), payload_bytes, position: self.position };
        if found == *self { Found::Expected } else { Found::Other }
    }
}

fn checksum(header: &Header, position: usize, payload: &[u8]) -> u32 {
    let crc = crc32c(&header.as_bytes()[..COVERED_BYTES]);
    crc32c_append(crc32c_append(crc, &(position as u64).to_le_bytes()), payload)
}

#[cfg(test)]
mod tests {
    use mirrorbus::Mapping;
    use mirrorbus::memory::MapOptions;

    use super::*;

    const ENTRY: Entry = Entry { kind: Kind::Data { offset: 9 }, file: 3, payload_bytes: 5, position: 100 };

    fn region_with(entry: &Entry, payload: &[u8]) -> Mapping {
        let mapping = Mapping::anonymous(4096, MapOptions::default()).expect("a page");
        mapping.slice().write(entry.position, &entry.header(payload));
        mapping.slice().write(entry.position + HEADER_BYTES, payload);
        mapping
    }

    #[test]
    fn an_entry_is_found_where_it_was_put_and_nowhere_else() {
        let mut payload = Vec::new();
        let region = region_with(&ENTRY, b"piece");
        assert_eq!(ENTRY.read(region.slice(), &mut payload), Found::Expected);
        assert_eq!(payload, b"piece");
        let mut moved = vec![0; ENTRY.bytes()];
        region.slice().read(100, &mut moved);
        region.slice().write(500, &moved);
        assert_eq!(Entry { position: 500, ..ENTRY }.read(region.slice(), &mut payload), Found::End);
        let last = Entry { position: 4096 - HEADER_BYTES + 1, ..ENTRY };
        assert_eq!(last.read(region.slice(), &mut payload), Found::End);
    }

    #[test]
    fn every_changed_byte_ends_the_log_and_another_entry_is_told() {
        let mut payload = Vec::new();
        for at in 0..ENTRY.bytes() {
            let region = region_with(&ENTRY, b"piece");
            let mut byte = [0];
            region.slice().read(100 + at, &mut byte);
            region.slice().write(100 + at, &[byte[0] ^ 0x40]);
            assert_eq!(ENTRY.read(region.slice(), &mut payload), Found::End, "byte {at}");
        }
        let region = region_with(&Entry { file: 4, ..ENTRY }, b"piece");
        assert_eq!(ENTRY.read(region.slice(), &mut payload), Found::Other);
    }
}
