//! Mapped memory, and access to it that stays defined while a peer writes.
//!
//! A peer, another process or a NIC may change a mapping at any moment, so no reference to its bytes is ever made:
//! a [`VolatileSlice`] copies in and out, and nothing else.
//!
//! A [`Mapping`] is anonymous, a memfd, a shared memory object, a file, a device or a received descriptor. Truncating what is
//! behind it does not kill the process: [`Mapping::lost`] tells.
//!
//! A [`TrackedMemory`] tells which of its pages were stored to by ordinary stores.

mod available;
mod compare;
mod copy;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod copy_x86_64;
mod error;
mod lock;
mod make;
mod mapping;
mod named;
mod pages;
mod pair;
mod sigbus;
mod signal;
#[cfg(all(test, not(miri)))]
mod testing;
#[cfg(all(test, not(miri)))]
mod tests;
mod track;
mod transfer;
mod twin;
mod volatile;
mod words;

pub use error::MapError;
pub use lock::{LockError, LockPolicy};
pub use mapping::{MapOptions, Mapping, MappingKind};
pub use pages::Pages;
pub use pair::Pair;
pub use sigbus::any_mapping_lost;
pub use track::{Runs, TrackError, TrackedMemory, TrackingMethod};
pub use transfer::Piece;
pub use twin::Twin;
pub use volatile::VolatileSlice;

/// Bytes that are moved word by word where they are whole words: a cache line.
pub const FEW_WORDS_BYTES_MAX: usize = 64;
