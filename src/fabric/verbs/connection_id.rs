//! An id of the connection manager: one end of a connection, or a listener.
//!
//! The queue pair is not the library's: it belongs to a context and protection domain of ours, and is told to the
//! connection manager by number. So each session has device events of its own, retries that end are set here, and what a
//! peer may do is the least that is needed, not what the connection manager would allow.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{
    ibv_context, ibv_qp_attr, rdma_accept, rdma_bind_addr, rdma_cm_id, rdma_conn_param, rdma_connect,
    rdma_create_id, rdma_destroy_id, rdma_disconnect, rdma_establish, rdma_get_src_port, rdma_init_qp_attr,
    rdma_listen, rdma_port_space, rdma_reject, rdma_resolve_addr, rdma_resolve_route,
};

use super::address::RawAddress;
use super::event_channel::EventChannel;
use super::{QueuePairState, VerbsError};

/// Retries of a packet that is not acknowledged. 7 would be for ever on some devices.
pub(super) const RETRIES: u8 = 6;
/// Retries when the peer has no receive posted, which never happens here: nothing is sent that needs one.
pub(super) const RECEIVER_RETRIES: u8 = 6;

/// What is said when connecting or accepting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// This side's queue pair.
    pub(super) queue_pair: u32,
    /// Reads that this side has outstanding at most.
    pub(super) reads_out: u8,
    /// Reads of the peer that this side carries out at a time.
    pub(super) reads_in: u8,
    pub(super) private: &'a [u8],
}

/// An id, with its channel.
#[derive(Debug)]
pub(super) struct ConnectionId {
    raw: NonNull<rdma_cm_id>,
    _channel: Arc<EventChannel>,
}

// SAFETY: the library takes a lock of its own wherever threads may meet.
unsafe impl Send for ConnectionId {}
// SAFETY: as above.
unsafe impl Sync for ConnectionId {}

impl ConnectionId {
    pub(super) fn new(channel: Arc<EventChannel>, key: u64) -> Result<Self, VerbsError> {
        let mut raw = std::ptr::null_mut();
        let context = std::ptr::without_provenance_mut(key_bits(key));
        // SAFETY: the channel is open, and the context is a number that the library only hands back.
        let returned =
            unsafe { rdma_create_id(channel.as_ptr(), &raw mut raw, context, rdma_port_space::RDMA_PS_TCP) };
        VerbsError::check("rdma_create_id", returned)?;
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("rdma_create_id"))?;
        Ok(Self { raw, _channel: channel })
    }

    /// Takes over the id of a request, whose events come on the listener's channel.
    pub(super) const fn adopt(raw: NonNull<rdma_cm_id>, channel: Arc<EventChannel>) -> Self {
        Self { raw, _channel: channel }
    }

    /// Names it in its events from now on.
    pub(super) fn set_key(&mut self, key: u64) {
        // SAFETY: alive until drop; nobody else reaches this field while we have it exclusively.
        unsafe { self.raw.as_mut() }.context = std::ptr::without_provenance_mut(key_bits(key));
    }

    pub(super) fn bind(&self, address: SocketAddr) -> Result<(), VerbsError> {
        let mut raw = RawAddress::new(address);
        // SAFETY: the address is of the length that its family says.
        VerbsError::check("rdma_bind_addr", unsafe { rdma_bind_addr(self.raw.as_ptr(), raw.as_mut_ptr()) })
    }

    pub(super) fn listen(&self, backlog: i32) -> Result<(), VerbsError> {
        // SAFETY: the id is bound.
        VerbsError::check("rdma_listen", unsafe { rdma_listen(self.raw.as_ptr(), backlog) })
    }

    pub(super) fn port(&self) -> u16 {
        // SAFETY: alive until drop.
        u16::from_be(unsafe { rdma_get_src_port(self.raw.as_ptr()) })
    }

    pub(super) fn resolve_address(&self, target: SocketAddr, timeout_ms: i32) -> Result<(), VerbsError> {
        let mut raw = RawAddress::new(target);
        let id = self.raw.as_ptr();
        // SAFETY: the address is of the length that its family says; no source is asked for.
        let returned = unsafe { rdma_resolve_addr(id, std::ptr::null_mut(), raw.as_mut_ptr(), timeout_ms) };
        VerbsError::check("rdma_resolve_addr", returned)
    }

    pub(super) fn resolve_route(&self, timeout_ms: i32) -> Result<(), VerbsError> {
        // SAFETY: the address was resolved.
        VerbsError::check("rdma_resolve_route", unsafe { rdma_resolve_route(self.raw.as_ptr(), timeout_ms) })
    }

    /// The library's context of the device that leads to the peer; `None` before that is known.
    pub(super) fn context(&self) -> Option<NonNull<ibv_context>> {
        // SAFETY: alive until drop.
        NonNull::new(unsafe { self.raw.as_ref() }.verbs)
    }

    /// The device's port that leads to the peer.
    pub(super) fn device_port(&self) -> u8 {
        // SAFETY: alive until drop.
        unsafe { self.raw.as_ref() }.port_num
    }

    /// What the queue pair has to be told to go to `state`.
    pub(super) fn attributes(&self, state: QueuePairState) -> Result<(ibv_qp_attr, i32), VerbsError> {
        // SAFETY: all zeroes is a value of this struct of numbers.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = super::queue_pair::number_of(state);
        let mut mask = 0;
        // SAFETY: both are ours; the id is at the step that knows them.
        let returned = unsafe { rdma_init_qp_attr(self.raw.as_ptr(), &raw mut attributes, &raw mut mask) };
        VerbsError::check("rdma_init_qp_attr", returned)?;
        Ok((attributes, mask))
    }

    pub(super) fn connect(&self, terms: Terms<'_>) -> Result<(), VerbsError> {
        let mut parameters = parameters(terms);
        // SAFETY: the parameters live through the call, which copies them.
        VerbsError::check("rdma_connect", unsafe { rdma_connect(self.raw.as_ptr(), &raw mut parameters) })
    }

    /// Answers the peer's answer: the connection stands.
    pub(super) fn establish(&self) -> Result<(), VerbsError> {
        // SAFETY: alive until drop.
        VerbsError::check("rdma_establish", unsafe { rdma_establish(self.raw.as_ptr()) })
    }

    pub(super) fn accept(&self, terms: Terms<'_>) -> Result<(), VerbsError> {
        let mut parameters = parameters(terms);
        // SAFETY: the parameters live through the call, which copies them.
        VerbsError::check("rdma_accept", unsafe { rdma_accept(self.raw.as_ptr(), &raw mut parameters) })
    }

    pub(super) fn reject(&self, private: &[u8]) -> Result<(), VerbsError> {
        let len = u8::try_from(private.len()).expect("private data has its bound");
        // SAFETY: the bytes live through the call, which copies them.
        let returned = unsafe { rdma_reject(self.raw.as_ptr(), private.as_ptr().cast(), len) };
        VerbsError::check("rdma_reject", returned)
    }

    /// Tells the peer that the connection ends. Does not wait for it; one that does not stand any more is no error.
    pub(super) fn disconnect(&self) {
        // SAFETY: alive until drop.
        let returned = unsafe { rdma_disconnect(self.raw.as_ptr()) };
        if let Err(error) = VerbsError::check("rdma_disconnect", returned) {
            log::debug!("{error}");
        }
    }
}

fn key_bits(key: u64) -> usize {
    usize::try_from(key).expect("keys are counted from 1 and addresses have 64 bits")
}

fn parameters(terms: Terms<'_>) -> rdma_conn_param {
    rdma_conn_param {
        private_data: terms.private.as_ptr().cast(),
        private_data_len: u8::try_from(terms.private.len()).expect("private data has its bound"),
        responder_resources: terms.reads_in,
        initiator_depth: terms.reads_out,
        flow_control: 0,
        retry_count: RETRIES,
        rnr_retry_count: RECEIVER_RETRIES,
        srq: 0,
        qp_num: terms.queue_pair,
    }
}

impl Drop for ConnectionId {
    fn drop(&mut self) {
        // SAFETY: made by the library, destroyed once. All its events were acknowledged where they were taken.
        let returned = unsafe { rdma_destroy_id(self.raw.as_ptr()) };
        if let Err(error) = VerbsError::check("rdma_destroy_id", returned) {
            log::warn!("{error}");
        }
    }
}
