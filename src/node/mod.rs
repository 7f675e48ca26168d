//! The shell: threads, sockets and files, joining the mirror to its control connection.
//!
//! [`Holder`] keeps a copy for an owner; [`Region`] is the owner's; [`ask`], [`Inquirer`] and [`HolderGate`] are between their applications. `driver` moves the bytes of one control
//! connection, `message` is what the two say over it, `stream` is where they meet.

mod cipher;
mod driver;
#[cfg(feature = "store")]
pub(crate) mod files;
mod holder;
mod key_file;
mod message;
mod names;
mod owner;
mod stream;

pub use crate::control::KeySet;
pub use holder::{
    Attaching, Content, FenceError, Fenced, Holder, HolderConfig, HolderError, HolderGate, HolderStatus,
};
pub use key_file::KeyFileError;
pub use message::{REQUEST_BYTES_MAX, RefusalCode};
pub use owner::{
    Attach, CallError, Inquirer, LinkStatus, OpenError, ReconnectError, Reconnected, Region, RegionConfig,
    ask,
};
#[cfg(feature = "store")]
pub(crate) use stream::is_vacant;

use crate::fabric::WindowId;
use crate::memory::Mapping;
use message::DIGEST_CHUNK_BYTES;

/// The window that mirrors the region.
pub(crate) const REGION_WINDOW: WindowId = WindowId(1);
/// The window that takes what a reconnection sends again.
pub(crate) const STAGING_WINDOW: WindowId = WindowId(2);

/// Bytes from the kernel's generator.
pub(crate) fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    #[cfg(test)]
    if let Some(bytes) = crate::sim::scheduler::random_bytes() {
        return Ok(bytes);
    }
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// Digest of the chunk of `memory` that starts at `offset`; the last may be shorter.
pub(crate) fn chunk_digest(memory: &Mapping, offset: usize) -> [u8; 32] {
    let len = DIGEST_CHUNK_BYTES.min(memory.len().saturating_sub(offset));
    memory.slice().subslice(offset, len).map_or([0; 32], |chunk| chunk.digest())
}
