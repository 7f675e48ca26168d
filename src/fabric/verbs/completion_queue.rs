//! A completion queue with its channel, to sleep on.
//!
//! Sleeping is a handshake: ask for an event, then look once more, since what came before the asking tells nobody. The
//! event is taken, and acknowledged, before the next is asked for.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{
    ibv_ack_cq_events, ibv_comp_channel, ibv_cq, ibv_create_comp_channel, ibv_create_cq,
    ibv_destroy_comp_channel, ibv_destroy_cq, ibv_get_cq_event, ibv_poll_cq, ibv_req_notify_cq, ibv_wc,
};

use super::{Device, VerbsError};

/// The channel on which a completion queue tells.
#[derive(Debug)]
struct CompletionChannel {
    raw: NonNull<ibv_comp_channel>,
    _device: Arc<Device>,
}

impl CompletionChannel {
    fn new(device: Arc<Device>) -> Result<Self, VerbsError> {
        // SAFETY: the device is open.
        let raw = unsafe { ibv_create_comp_channel(device.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_create_comp_channel"))?;
        let channel = Self { raw, _device: device };
        rustix::io::ioctl_fionbio(channel.fd(), true)
            .map_err(|error| VerbsError::system("ioctl(FIONBIO)", error))?;
        Ok(channel)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel lives as long as self.
        let fd = unsafe { self.raw.as_ref() }.fd;
        // SAFETY: it is open as long as the channel.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        // SAFETY: made by the library, destroyed once; the queue that told on it is gone.
        let returned = unsafe { ibv_destroy_comp_channel(self.raw.as_ptr()) };
        if let Err(error) = VerbsError::check("ibv_destroy_comp_channel", returned) {
            log::warn!("{error}");
        }
    }
}

/// A completion queue.
#[derive(Debug)]
pub struct CompletionQueue {
    raw: NonNull<ibv_cq>,
    capacity: usize,
    channel: CompletionChannel,
}

// SAFETY: the library takes a lock of its own wherever threads may meet.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl CompletionQueue {
    /// One with room for `wanted` completions: for everything that may be outstanding, since every request completes
    /// when a queue pair fails, signaled or not, and what finds no room breaks the queue.
    ///
    /// # Errors
    /// The device has no more, or not so long ones.
    pub fn new(device: Arc<Device>, wanted: usize) -> Result<Arc<Self>, VerbsError> {
        let most = device.limits().completions_max;
        let too_many = |most| VerbsError::Limit {
            device: device.name().to_owned(),
            what: "completions",
            asked: wanted,
            most,
        };
        let count = i32::try_from(wanted).ok().filter(|_| wanted <= most).ok_or_else(|| too_many(most))?;
        let channel = CompletionChannel::new(device.clone())?;
        // SAFETY: the device is open and the channel is of it; no context is handed back.
        let raw =
            unsafe { ibv_create_cq(device.as_ptr(), count, std::ptr::null_mut(), channel.raw.as_ptr(), 0) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_create_cq"))?;
        // SAFETY: filled in by the library, alive until it is destroyed.
        let given = usize::try_from(unsafe { raw.as_ref() }.cqe).unwrap_or(0);
        let queue = Self { raw, capacity: given, channel };
        if given < wanted {
            return Err(too_many(given));
        }
        Ok(Arc::new(queue))
    }

    pub(super) const fn as_ptr(&self) -> *mut ibv_cq {
        self.raw.as_ptr()
    }

    /// Completions that it has room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Becomes readable when a completion comes, once the queue was armed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.channel.fd()
    }

    /// Takes completions into `room`; returns how many.
    #[inline]
    pub(super) fn poll(&self, room: &mut [ibv_wc]) -> Result<usize, VerbsError> {
        let most = i32::try_from(room.len()).expect("a few at a time");
        // SAFETY: the queue is alive and there is room for so many.
        let taken = unsafe { ibv_poll_cq(self.as_ptr(), most, room.as_mut_ptr()) };
        usize::try_from(taken).map_err(|_| VerbsError::Call { call: "ibv_poll_cq", errno: -taken })
    }

    /// Asks for an event at the next completion.
    pub(super) fn arm(&self) -> Result<(), VerbsError> {
        // SAFETY: the queue is alive.
        VerbsError::check("ibv_req_notify_cq", unsafe { ibv_req_notify_cq(self.as_ptr(), 0) })
    }

    /// Takes and acknowledges the event, if it has come: there is one at most for each time that the queue was armed. Whether it had.
    pub(super) fn take_event(&self) -> bool {
        let (mut queue, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
        let channel = self.channel.raw.as_ptr();
        // SAFETY: the channel is alive; it belongs to this queue alone.
        let has_come = unsafe { ibv_get_cq_event(channel, &raw mut queue, &raw mut context) } == 0;
        if has_come {
            // SAFETY: it was got just now.
            unsafe { ibv_ack_cq_events(self.as_ptr(), 1) };
        }
        has_come
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // SAFETY: made by the library, destroyed once; its queue pairs held it and are gone, its events are acknowledged.
        let returned = unsafe { ibv_destroy_cq(self.as_ptr()) };
        if let Err(error) = VerbsError::check("ibv_destroy_cq", returned) {
            log::warn!("{error}");
        }
    }
}
