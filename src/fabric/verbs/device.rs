//! An RDMA device, opened.
//!
//! Each session opens it for itself, beside the connection manager: so the device's events about a queue pair come to the
//! session that has it, and the descriptors of one session end with it.

use std::ffi::CStr;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{
    ___ibv_query_port, ibv_ack_async_event, ibv_async_event, ibv_close_device, ibv_context, ibv_device_attr,
    ibv_get_async_event, ibv_get_device_name, ibv_open_device, ibv_port_attr, ibv_query_device,
};

use super::connection_id::ConnectionId;
use super::{DeviceEvent, VerbsError};

/// What a device gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Work requests in a send queue.
    pub queue_depth_max: usize,
    /// Entries in a completion queue.
    pub completions_max: usize,
    /// Reads that a queue pair of ours has outstanding.
    pub reads_out_max: u8,
    /// Reads of the peer that a queue pair of ours carries out at a time.
    pub reads_in_max: u8,
    /// Bytes in one registration.
    pub region_bytes_max: u64,
}

/// A device, opened.
#[derive(Debug)]
pub struct Device {
    context: NonNull<ibv_context>,
    name: String,
    limits: DeviceLimits,
}

// SAFETY: the library takes a lock of its own wherever threads may meet.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// The device that `id` was resolved to, `address` being where it leads.
    pub(super) fn of(id: &ConnectionId, address: &dyn std::fmt::Display) -> Result<Arc<Self>, VerbsError> {
        let beside = id.context().ok_or_else(|| VerbsError::NoDevice { address: address.to_string() })?;
        // SAFETY: the id holds its context.
        let device = unsafe { beside.as_ref() }.device;
        // SAFETY: a context's device lives as long as the context.
        let context = unsafe { ibv_open_device(device) };
        let context = NonNull::new(context).ok_or_else(|| VerbsError::last("ibv_open_device"))?;
        // SAFETY: as above; the name is a string within the device.
        let name = unsafe { ibv_get_device_name(device) };
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let limits = match limits(context) {
            Ok(limits) => limits,
            Err(error) => {
                close(context);
                return Err(error);
            }
        };
        let device = Self { context, name, limits };
        rustix::io::ioctl_fionbio(device.events_fd(), true)
            .map_err(|error| VerbsError::system("ioctl(FIONBIO)", error))?;
        Ok(Arc::new(device))
    }

    /// The name of the device that `id` was resolved to.
    pub(super) fn name_of(id: &ConnectionId) -> Option<String> {
        // SAFETY: the id holds its context.
        let device = unsafe { id.context()?.as_ref() }.device;
        // SAFETY: a context's device lives as long as the context.
        let name = unsafe { ibv_get_device_name(device) };
        // SAFETY: it is a string within the device.
        Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    pub(super) const fn as_ptr(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }

    /// Its name, as `rdma link show` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it gives.
    #[must_use]
    pub const fn limits(&self) -> DeviceLimits {
        self.limits
    }

    /// Bytes in the longest message through `port`.
    pub(super) fn message_bytes_max(&self, port: u8) -> Result<usize, VerbsError> {
        // The function behind the C macro fills in what an older library knew; the rest stays as it is here.
        // SAFETY: all zeroes is a value of this struct of numbers.
        let mut attributes: ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open and the struct is ours.
        let returned = unsafe { ___ibv_query_port(self.as_ptr(), port, &raw mut attributes) };
        VerbsError::check("ibv_query_port", returned)?;
        Ok(attributes.max_msg_sz as usize)
    }

    /// Becomes readable when the device has something to tell.
    #[must_use]
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open as long as self.
        let fd = unsafe { self.context.as_ref() }.async_fd;
        // SAFETY: it is open as long as the context.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// What the device has to tell, copied and acknowledged; `None` when there is nothing more.
    ///
    /// # Errors
    /// The device cannot be asked any more.
    pub fn next_event(&self) -> Result<Option<DeviceEvent>, VerbsError> {
        let mut event = std::mem::MaybeUninit::<ibv_async_event>::zeroed();
        // SAFETY: the library fills in the event when it returns 0.
        if unsafe { ibv_get_async_event(self.as_ptr(), event.as_mut_ptr()) } != 0 {
            return match VerbsError::last("ibv_get_async_event") {
                VerbsError::Call { errno: libc::EAGAIN | libc::EINTR, .. } => Ok(None),
                error => Err(error),
            };
        }
        let raw = event.as_mut_ptr();
        // The kind is read as a number: a newer kernel may know more of them than the enumeration here.
        let kind = raw.cast::<u8>().wrapping_add(offset_of!(ibv_async_event, event_type)).cast::<u32>();
        // SAFETY: within the event, which was filled in.
        let kind = unsafe { kind.read() };
        let element = raw.cast::<u8>().wrapping_add(offset_of!(ibv_async_event, element)).cast::<u64>();
        // SAFETY: within the event; every member of the union begins there and an address is the longest.
        let element = unsafe { element.read() };
        let copied = DeviceEvent::decode(kind, element, |queue_pair| {
            // SAFETY: a queue pair that an event is about exists until the event is acknowledged.
            unsafe { (*queue_pair).qp_num }
        });
        // SAFETY: got above, acknowledged once.
        unsafe { ibv_ack_async_event(raw) };
        Ok(Some(copied))
    }
}

fn limits(context: NonNull<ibv_context>) -> Result<DeviceLimits, VerbsError> {
    // SAFETY: all zeroes is a value of this struct of numbers.
    let mut attributes: ibv_device_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the context is open and the struct is ours.
    let returned = unsafe { ibv_query_device(context.as_ptr(), &raw mut attributes) };
    VerbsError::check("ibv_query_device", returned)?;
    let count = |value: i32| usize::try_from(value).unwrap_or(0);
    let byte = |value: i32| u8::try_from(value.clamp(0, 255)).unwrap_or(0);
    Ok(DeviceLimits {
        queue_depth_max: count(attributes.max_qp_wr),
        completions_max: count(attributes.max_cqe),
        reads_out_max: byte(attributes.max_qp_init_rd_atom),
        reads_in_max: byte(attributes.max_qp_rd_atom),
        region_bytes_max: attributes.max_mr_size,
    })
}

fn close(context: NonNull<ibv_context>) {
    // SAFETY: opened by us, closed once; everything that was made of it held it, and is gone.
    let returned = unsafe { ibv_close_device(context.as_ptr()) };
    if let Err(error) = VerbsError::check("ibv_close_device", returned) {
        log::warn!("{error}");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        close(self.context);
    }
}
