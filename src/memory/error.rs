//! Why a mapping cannot be had, with the figures and the way out.

use std::path::PathBuf;

use super::MappingKind;
use crate::base::format_bytes;

/// Why a mapping cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A call failed.
    #[error("{call} of {len} bytes failed: {error}")]
    System {
        /// The call.
        call: &'static str,
        /// Bytes.
        len: usize,
        /// What it said.
        error: std::io::Error,
    },
    /// A path could not be opened, made or examined.
    #[error("{call} of {path:?} failed: {error}")]
    Path {
        /// The call.
        call: &'static str,
        /// The file, device or shared memory object.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// Nothing to map.
    #[error("a mapping of 0 bytes was asked for: give a size of at least 1 byte")]
    Zero,
    /// More than an address can reach.
    #[error(
        "a mapping of {asked} bytes was asked for, and no address space holds more than {most}: give a smaller size"
    )]
    AddressSpace {
        /// Bytes asked for.
        asked: usize,
        /// Bytes possible.
        most: usize,
    },
    /// More than the memory of this machine or control group.
    #[error("a {kind} mapping of {} needs {} of memory ({needed} bytes), and {} ({available} bytes) are available: \
             make the region smaller, free memory, or map a file", format_bytes(*asked as u64), format_bytes(*needed),
             format_bytes(*available))]
    Memory {
        /// What was to be mapped.
        kind: MappingKind,
        /// Bytes asked for.
        asked: usize,
        /// Bytes of those that have no memory yet.
        needed: u64,
        /// Bytes that can be had without swapping.
        available: u64,
    },
    /// More than the file system has room for.
    #[error("a {kind} mapping of {} needs {} more on its file system ({needed} bytes), and {} ({available} bytes) are \
             free: make the region smaller, free space, or use another file system",
             format_bytes(*asked as u64), format_bytes(*needed), format_bytes(*available))]
    Space {
        /// What was to be mapped.
        kind: MappingKind,
        /// Bytes asked for.
        asked: usize,
        /// Bytes of those that are not allocated yet.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// What exists is too short, and is not ours to extend.
    #[error(
        "{what} holds {found} bytes, fewer than the {asked} asked for: ask for at most {found}, or extend it first"
    )]
    TooShort {
        /// The path or descriptor.
        what: String,
        /// Bytes there.
        found: u64,
        /// Bytes asked for.
        asked: usize,
    },
    /// What exists is longer, and cutting it would destroy what it holds.
    #[error(
        "{path:?} holds {found} bytes, more than the {asked} asked for, and is not cut: ask for {found}, give \
             another path, or remove it"
    )]
    TooLong {
        /// The file or shared memory object.
        path: PathBuf,
        /// Bytes there.
        found: u64,
        /// Bytes asked for.
        asked: usize,
    },
    /// A directory, socket, pipe or the like.
    #[error("{what} is {found}, not {wanted}")]
    NotMappable {
        /// The path or descriptor.
        what: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// The table of mappings that are guarded against truncation is full.
    #[error(
        "{most} mappings of files, devices or foreign memory exist in this process, the most that are guarded \
             against truncation: drop some first"
    )]
    TooMany {
        /// How many there may be.
        most: usize,
    },
}
