//! Mapped memory, and access to it that stays defined while a peer writes.
//!
//! A peer, another process or a NIC may change a mapping at any moment, so no reference to its bytes is ever made:
//! a [`VolatileSlice`] copies in and out, and nothing else.

mod copy;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod copy_x86_64;
mod mapping;
mod volatile;

pub use mapping::{MapError, MapOptions, Mapping};
pub use volatile::VolatileSlice;
