//! Handing memory over: the holder offers descriptors over a Unix socket, the owner maps them.
//!
//! ```text
//! offer, one message with two descriptors (memory of window, grant page):
//!   0  u32 magic 0x4853424d ("MBSH")    4  u32 window     8  u64 bytes
//!  16  u64 granted word                24  u32 generation 28  u32 access (0 read, 1 read and write)
//! ```
//!
//! The socket was authenticated before (the data handshake of the control room), so a stranger is offered nothing.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{GrantPage, GrantView};
use crate::base::Generation;
use crate::fabric::{Access, ExportedWindow, Grant, QueueError, WindowId};
use crate::memory::{MapError, MapOptions, Mapping};

const MAGIC: u32 = u32::from_le_bytes(*b"MBSH");

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Offer {
    magic: U32,
    window: U32,
    bytes: U64,
    granted: U64,
    generation: U32,
    access: U32,
}

const _: () = assert!(size_of::<Offer>() == 32);

/// Holder: offers `window` under `page` to the owner at the other end of `socket`.
///
/// # Errors
/// The socket is gone, or the memory cannot be handed on.
pub fn offer(socket: impl AsFd, window: &ExportedWindow, page: &GrantPage) -> Result<(), QueueError> {
    let grant = window.grant();
    let memory = window.mapping().fd().ok_or_else(|| QueueError::Protocol {
        why: "memory that is private to this process cannot be offered: use memfd, shm or a file".into(),
    })?;
    let offer = Offer {
        magic: MAGIC.into(),
        window: grant.window.0.into(),
        bytes: (grant.len as u64).into(),
        granted: page.granted().into(),
        generation: grant.generation.0.into(),
        access: u32::from(grant.access == Access::ReadWrite).into(),
    };
    let fds = [memory, page.fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        unreachable!("the buffer was made for two descriptors");
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(offer.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)
        .map_err(|error| QueueError::System {
            call: "send the memory's descriptors",
            error: error.to_string(),
        })?;
    Ok(())
}

/// Owner: the holder's memory, mapped here.
#[derive(Debug)]
pub struct ShmPeer {
    pub(super) memory: Arc<Mapping>,
    pub(super) grant: Grant,
    pub(super) page: GrantView,
}

impl ShmPeer {
    /// Takes the offer that waits on `socket`.
    ///
    /// # Errors
    /// It does not come, is no offer, or cannot be mapped.
    pub fn receive(socket: impl AsFd) -> Result<Arc<Self>, QueueError> {
        let refuse = |why: String| QueueError::Protocol { why };
        let mut bytes = [0; size_of::<Offer>()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|error| QueueError::PeerGone { why: format!("no offer of memory came: {error}") })?;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                fds.extend(received);
            }
        }
        let offer = Offer::read_from_bytes(&bytes).map_err(|_| refuse("an offer of another size".into()))?;
        if message.bytes != bytes.len() || offer.magic.get() != MAGIC {
            return Err(refuse(format!("{} bytes came that are no offer of memory", message.bytes)));
        }
        let count = fds.len();
        let Ok([memory, page]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err(refuse(format!("an offer came with {count} descriptors, not 2")));
        };
        let len =
            usize::try_from(offer.bytes.get()).map_err(|_| refuse("an offer larger than memory".into()))?;
        let actual = rustix::fs::fstat(&memory)
            .map_err(|error| refuse(format!("offered memory has no size: {error}")))?;
        if actual.st_size.cast_unsigned() < offer.bytes.get() {
            return Err(refuse(format!("offered memory has {} bytes, {len} were promised", actual.st_size)));
        }
        let access = if offer.access.get() == 1 { Access::ReadWrite } else { Access::Read };
        let mapped = match access {
            Access::ReadWrite => Mapping::from_fd(memory, len, MapOptions::default()),
            Access::Read => Mapping::from_fd_read_only(memory, len),
        };
        let memory = Arc::new(mapped.map_err(|error| refuse(error.to_string()))?);
        // Every page is entered into this process's tables now, so that no store pays for a fault.
        if access == Access::ReadWrite {
            memory.populate();
        }
        let page = GrantView::new(page, offer.granted.get()).map_err(refuse)?;
        let generation = Generation(offer.generation.get());
        Ok(Arc::new(Self {
            memory,
            grant: Grant { window: WindowId(offer.window.get()), generation, len, access },
            page,
        }))
    }

    /// A window that is a device or DAX file mapped here; `grant` is what the holder said of it.
    ///
    /// # Errors
    /// No memory.
    ///
    /// # Panics
    /// When the device is smaller than the grant.
    pub fn device(memory: Arc<Mapping>, grant: Grant) -> Result<Arc<Self>, MapError> {
        assert!(grant.len <= memory.len(), "the grant is {} bytes, the device {}", grant.len, memory.len());
        Ok(Arc::new(Self { memory, grant, page: GrantView::unrevocable()? }))
    }

    /// What was granted.
    #[must_use]
    pub const fn grant(&self) -> Grant {
        self.grant
    }

    /// The peer's memory as it is mapped here.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }
}
