//! A channel of the connection manager's events.
//!
//! Each event is copied and acknowledged before anything is done about it: destroying an id waits until all its events
//! are acknowledged, so whoever acted first could wait for itself.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Once};

use rdma_sys::{
    ibv_fork_init, rdma_ack_cm_event, rdma_cm_event, rdma_cm_event_type, rdma_cm_id, rdma_conn_param,
    rdma_create_event_channel, rdma_destroy_event_channel, rdma_event_channel, rdma_get_cm_event,
};

use super::VerbsError;
use super::connection_id::ConnectionId;

/// Bytes of private data that an event may carry.
pub(super) const PRIVATE_BYTES_MAX: usize = 255;

/// What happened to an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    AddressResolved,
    RouteResolved,
    ConnectRequest,
    ConnectResponse,
    Established,
    Rejected,
    Disconnected,
    DeviceRemoval,
    /// Told for information; nothing follows from it.
    Harmless(u32),
    /// A step failed.
    Failed(u32),
}

impl EventKind {
    const fn of(event: rdma_cm_event_type::Type) -> Self {
        match event {
            rdma_cm_event_type::RDMA_CM_EVENT_ADDR_RESOLVED => Self::AddressResolved,
            rdma_cm_event_type::RDMA_CM_EVENT_ROUTE_RESOLVED => Self::RouteResolved,
            rdma_cm_event_type::RDMA_CM_EVENT_CONNECT_REQUEST => Self::ConnectRequest,
            rdma_cm_event_type::RDMA_CM_EVENT_CONNECT_RESPONSE => Self::ConnectResponse,
            rdma_cm_event_type::RDMA_CM_EVENT_ESTABLISHED => Self::Established,
            rdma_cm_event_type::RDMA_CM_EVENT_REJECTED => Self::Rejected,
            rdma_cm_event_type::RDMA_CM_EVENT_DISCONNECTED => Self::Disconnected,
            rdma_cm_event_type::RDMA_CM_EVENT_DEVICE_REMOVAL => Self::DeviceRemoval,
            rdma_cm_event_type::RDMA_CM_EVENT_TIMEWAIT_EXIT
            | rdma_cm_event_type::RDMA_CM_EVENT_ADDR_CHANGE
            | rdma_cm_event_type::RDMA_CM_EVENT_MULTICAST_JOIN
            | rdma_cm_event_type::RDMA_CM_EVENT_MULTICAST_ERROR => Self::Harmless(event),
            other => Self::Failed(other),
        }
    }
}

impl EventKind {
    /// Whether a connection that stood is over when it hears this.
    pub(super) const fn ends_connection(self) -> bool {
        match self {
            // A holder that lets go before it heard that the connection stands rejects it.
            Self::Disconnected | Self::Rejected | Self::DeviceRemoval | Self::Failed(_) => true,
            Self::AddressResolved
            | Self::RouteResolved
            | Self::ConnectRequest
            | Self::ConnectResponse
            | Self::Established
            | Self::Harmless(_) => false,
        }
    }
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(rdma_cm_event_type::RDMA_CM_EVENT_ADDR_ERROR) => f.write_str("no such address"),
            Self::Failed(rdma_cm_event_type::RDMA_CM_EVENT_ROUTE_ERROR) => f.write_str("no route"),
            Self::Failed(rdma_cm_event_type::RDMA_CM_EVENT_CONNECT_ERROR) => f.write_str("connect error"),
            Self::Failed(rdma_cm_event_type::RDMA_CM_EVENT_UNREACHABLE) => f.write_str("peer unreachable"),
            Self::Failed(number) | Self::Harmless(number) => write!(f, "event {number}"),
            Self::DeviceRemoval => f.write_str("the device was removed"),
            Self::Disconnected => f.write_str("the peer ended the connection"),
            Self::Rejected => f.write_str("the peer turned the connection down"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// An event, copied.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    pub(super) status: i32,
    /// The key of the id that it is about; of the listener for a request.
    pub(super) key: u64,
    /// The peer's queue pair, in events that have one.
    pub(super) queue_pair: u32,
    /// Reads that the peer's end takes at a time from this one, in events that say so.
    pub(super) reads_out_max: u8,
    /// What the peer sent along.
    pub(super) private: Vec<u8>,
    /// The new id of a request.
    pub(super) request: Option<ConnectionId>,
}

/// Before anything else of the library: a forked child must not share pages that a device writes. Newer kernels see to
/// that by themselves; for older ones the library keeps such pages out of children.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: nothing was registered by this process yet, as far as it is ours.
        let returned = unsafe { ibv_fork_init() };
        if let Err(error) = VerbsError::check("ibv_fork_init", returned) {
            log::warn!("{error}: do not fork while a region is mirrored over RDMA");
        }
    });
}

/// A channel. Its descriptor does not block.
#[derive(Debug)]
pub(super) struct EventChannel {
    raw: NonNull<rdma_event_channel>,
}

// SAFETY: the library takes a lock of its own wherever threads may meet.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

impl EventChannel {
    pub(super) fn new() -> Result<Arc<Self>, VerbsError> {
        prepare();
        // SAFETY: takes nothing.
        let raw = unsafe { rdma_create_event_channel() };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("rdma_create_event_channel"))?;
        let channel = Self { raw };
        rustix::io::ioctl_fionbio(channel.fd(), true)
            .map_err(|error| VerbsError::system("ioctl(FIONBIO)", error))?;
        Ok(Arc::new(channel))
    }

    pub(super) const fn as_ptr(&self) -> *mut rdma_event_channel {
        self.raw.as_ptr()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel lives as long as self.
        let raw = unsafe { self.raw.as_ref() }.fd;
        // SAFETY: it is open as long as the channel.
        unsafe { BorrowedFd::borrow_raw(raw) }
    }

    /// The next event, if there is one.
    pub(super) fn next(self: &Arc<Self>) -> Result<Option<Event>, VerbsError> {
        let mut raw: *mut rdma_cm_event = std::ptr::null_mut();
        // SAFETY: the channel is open; the library fills in the pointer when it returns 0.
        if unsafe { rdma_get_cm_event(self.as_ptr(), &raw mut raw) } != 0 {
            return match VerbsError::last("rdma_get_cm_event") {
                VerbsError::Call { errno: libc::EAGAIN | libc::EINTR, .. } => Ok(None),
                error => Err(error),
            };
        }
        // SAFETY: returned by the library, and valid until it is acknowledged.
        let event = unsafe { &*raw };
        let kind = EventKind::of(event.event);
        let subject = if kind == EventKind::ConnectRequest { event.listen_id } else { event.id };
        // SAFETY: what an event is about exists until it is acknowledged.
        let key = unsafe { subject.as_ref() }.map_or(0, |id: &rdma_cm_id| id.context.addr() as u64);
        let request = (kind == EventKind::ConnectRequest)
            .then(|| NonNull::new(event.id))
            .flatten()
            .map(|id| ConnectionId::adopt(id, self.clone()));
        // SAFETY: both sides of the union are plain data; this one is filled in for connected services.
        let conn: rdma_conn_param = unsafe { event.param.conn };
        let carries = matches!(
            kind,
            EventKind::ConnectRequest
                | EventKind::ConnectResponse
                | EventKind::Rejected
                | EventKind::Established
        );
        let len =
            if carries && !conn.private_data.is_null() { usize::from(conn.private_data_len) } else { 0 };
        let private = if len == 0 {
            Vec::new()
        } else {
            // SAFETY: the event holds so many bytes there until it is acknowledged.
            unsafe { std::slice::from_raw_parts(conn.private_data.cast::<u8>(), len.min(PRIVATE_BYTES_MAX)) }
                .to_vec()
        };
        let copied = Event {
            kind,
            status: event.status,
            key,
            queue_pair: conn.qp_num,
            reads_out_max: conn.initiator_depth,
            private,
            request,
        };
        // SAFETY: returned by rdma_get_cm_event, acknowledged once, not used afterwards.
        VerbsError::check("rdma_ack_cm_event", unsafe { rdma_ack_cm_event(raw) })?;
        Ok(Some(copied))
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: every id of the channel held it, and is gone.
        unsafe { rdma_destroy_event_channel(self.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_connection_that_stood_is_told_from_what_does_not() {
        let ends = |event| EventKind::of(event).ends_connection();
        for event in [
            rdma_cm_event_type::RDMA_CM_EVENT_DISCONNECTED,
            rdma_cm_event_type::RDMA_CM_EVENT_REJECTED,
            rdma_cm_event_type::RDMA_CM_EVENT_DEVICE_REMOVAL,
            rdma_cm_event_type::RDMA_CM_EVENT_CONNECT_ERROR,
            rdma_cm_event_type::RDMA_CM_EVENT_UNREACHABLE,
        ] {
            assert!(ends(event), "{}", EventKind::of(event));
        }
        for event in [
            rdma_cm_event_type::RDMA_CM_EVENT_ESTABLISHED,
            rdma_cm_event_type::RDMA_CM_EVENT_TIMEWAIT_EXIT,
            rdma_cm_event_type::RDMA_CM_EVENT_ADDR_CHANGE,
        ] {
            assert!(!ends(event), "{}", EventKind::of(event));
        }
        let rejected = EventKind::of(rdma_cm_event_type::RDMA_CM_EVENT_REJECTED);
        assert_eq!(rejected.to_string(), "the peer turned the connection down");
    }
}
