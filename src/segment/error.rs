//! What is wrong with bytes that came from a disk, a peer or a configuration.

use std::ops::Range;

use crate::base::{DatasetId, LogGeneration, Lsn};

/// Sizes that no segment can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The device's block.
    #[error("a device block of {bytes} bytes: it is a power of two from 512 to 65536")]
    DeviceBlock {
        /// What was given.
        bytes: u64,
    },
    /// The segment.
    #[error("a segment of {bytes} bytes: it is a power of two from {least} to {most}")]
    Segment {
        /// What was given.
        bytes: u64,
        /// The least with such device blocks.
        least: u64,
        /// The most.
        most: u64,
    },
}

/// Bytes that are no head of a segment, or not of the one that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Something else, or never written.
    #[error("no head of a segment: it does not begin with \"MBSEGM\"")]
    Magic,
    /// Of a format that this program does not know.
    #[error("format version {found:?} of a segment; this program reads \"01\": use the one that wrote it")]
    Version {
        /// The two digits.
        found: [u8; 2],
    },
    /// Damaged or half written.
    #[error("the head's checksum is {found:#010x}, its bytes give {computed:#010x}")]
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
    #[error("the head's {field} is {value:#x}, which cannot be")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The segment of another dataset.
    #[error("a segment of dataset {found}, not of {wanted}: files of two datasets were mixed")]
    Dataset {
        /// What the head says.
        found: DatasetId,
        /// Whose it should be.
        wanted: DatasetId,
    },
    /// Another segment than its name or place says.
    #[error("the segment at {found} where {wanted} should be")]
    Base {
        /// What the head says.
        found: Lsn,
        /// What was looked for.
        wanted: Lsn,
    },
}

/// What stands where the next record was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The segment has no room for a further record.
    #[error("the segment is full")]
    Full,
    /// The slot holds no valid record: its checksum is wrong, or it names another place.
    #[error("no record in the table's slot {slot}")]
    NoRecord {
        /// The slot.
        slot: u32,
    },
    /// The record is valid but its payload is not.
    #[error(
        "block {block} of the record at {lsn} (bytes {range:?} of the segment) does not match its checksum"
    )]
    Payload {
        /// The record.
        lsn: Lsn,
        /// The first such block, counted in the record.
        block: u32,
        /// Its bytes in the segment.
        range: Range<u64>,
    },
    /// A record that its writer vouched for by checksum, place and number says what this program cannot act on.
    #[error("the record in slot {slot} has {field} {value}: written by a newer program, or by a defect")]
    Unreadable {
        /// The slot.
        slot: u32,
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError<E> {
    /// The medium failed.
    #[error("reading the segment at {base}")]
    Medium {
        /// The segment.
        base: Lsn,
        /// What it said.
        #[source]
        error: E,
    },
    /// What was durable is not there any more. Repair these positions from the peer, or refuse to serve.
    #[error(
        "the log is damaged from {from} to {to}: {fault}, though the log was durable to {to}; repair it from the peer"
    )]
    Corrupt {
        /// Everything before is valid.
        from: Lsn,
        /// The first position that is not known to be affected.
        to: Lsn,
        /// What was found there.
        fault: Fault,
    },
    /// A segment that must be there is not, or its head is damaged.
    #[error(
        "the segments between {from} and {to} are missing or have no valid head; take them from the peer"
    )]
    Missing {
        /// Everything before is valid.
        from: Lsn,
        /// Where the log goes on.
        to: Lsn,
    },
    /// A record that this program cannot act on.
    #[error("at {at}: {fault}")]
    Unreadable {
        /// Everything before is valid.
        at: Lsn,
        /// What was found.
        fault: Fault,
    },
    /// Two segments' heads contradict each other.
    #[error("the segment at {base}, generation {generation}, does not follow the one before it: {why}")]
    Chain {
        /// The later one.
        base: Lsn,
        /// Its generation.
        generation: LogGeneration,
        /// What does not fit.
        why: &'static str,
    },
}
