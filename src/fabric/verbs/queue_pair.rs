//! A reliable connection's queue pair.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdma_sys::{
    ibv_create_qp, ibv_destroy_qp, ibv_modify_qp, ibv_post_send, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask,
    ibv_qp_init_attr, ibv_qp_state, ibv_qp_type, ibv_query_qp, ibv_send_wr,
};

use super::connection_id::{ConnectionId, RECEIVER_RETRIES, RETRIES};
use super::{CompletionQueue, ProtectionDomain, QueuePairState, VerbsError};

/// Time until a packet is sent again, as an exponent: 4.096 µs · 2^14 = 67 ms. With 6 retries a peer that is gone is
/// found out after about half a second.
const TIMEOUT: u8 = 14;
/// Bytes that a request may carry within itself, tried from the first on: devices differ and do not say. It spares a card one
/// read of memory before it can send; more than this makes every place of its queue larger for the few that need it. On
/// soft-RoCE, which takes 512, it makes no difference that could be measured.
const INLINE_BYTES: [u32; 4] = [220, 128, 64, 0];

/// What a queue pair is made for.
#[derive(Debug, Clone, Copy)]
pub struct QueuePairOptions {
    /// Requests in its send queue.
    pub depth: usize,
    /// Whether the peer may read and write what was exported to it.
    pub remote_access: bool,
    /// Whether requests carry small payloads within themselves.
    pub inline: bool,
}

/// A queue pair.
#[derive(Debug)]
pub struct QueuePair {
    raw: Option<NonNull<ibv_qp>>,
    number: u32,
    inline_bytes_max: usize,
    remote_access: bool,
    state: Mutex<QueuePairState>,
    _completions: Arc<CompletionQueue>,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: the library takes a lock of its own wherever threads may meet.
unsafe impl Send for QueuePair {}
// SAFETY: as above.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// A new one, in state RESET.
    ///
    /// # Errors
    /// The device has no more, or not so long ones.
    pub fn new(
        domain: Arc<ProtectionDomain>,
        completions: Arc<CompletionQueue>,
        options: QueuePairOptions,
    ) -> Result<Self, VerbsError> {
        let device = domain.device();
        let most = device.limits().queue_depth_max;
        if options.depth > most {
            let (device, asked) = (device.name().to_owned(), options.depth);
            return Err(VerbsError::Limit { device, what: "requests in a send queue", asked, most });
        }
        assert!(
            completions.capacity() >= options.depth,
            "a completion queue of {} for a send queue of {}",
            completions.capacity(),
            options.depth
        );
        let sizes = if options.inline { &INLINE_BYTES[..] } else { &[0] };
        let mut refused = VerbsError::Call { call: "ibv_create_qp", errno: libc::EINVAL };
        for inline in sizes {
            match create(&domain, &completions, options.depth, *inline) {
                Ok((raw, inline_bytes_max)) => {
                    // SAFETY: filled in by the library, alive until it is destroyed.
                    let number = unsafe { raw.as_ref() }.qp_num;
                    return Ok(Self {
                        raw: Some(raw),
                        number,
                        inline_bytes_max,
                        remote_access: options.remote_access,
                        state: Mutex::new(QueuePairState::Reset),
                        _completions: completions,
                        domain,
                    });
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Its number, by which the peer and the device's events name it.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Bytes that a request may carry within itself.
    #[must_use]
    pub const fn inline_bytes_max(&self) -> usize {
        self.inline_bytes_max
    }

    /// Its domain.
    #[must_use]
    pub const fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    fn lock(&self) -> MutexGuard<'_, QueuePairState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn as_ptr(&self) -> *mut ibv_qp {
        self.raw.expect("a destroyed queue pair is not used").as_ptr()
    }

    /// Goes on to `to` with what `id` knows of the connection. `reads` bounds reads under way: ours when it goes to RTS,
    /// the peer's when it goes to RTR.
    pub(super) fn advance(&self, id: &ConnectionId, to: QueuePairState, reads: u8) -> Result<(), VerbsError> {
        let mut state = self.lock();
        let next = state.go(to)?;
        let (mut attributes, mut mask) = id.attributes(to)?;
        match to {
            QueuePairState::Init => {
                // The least: the connection manager would give every right.
                attributes.qp_access_flags = if self.remote_access { REMOTE_ACCESS } else { 0 };
                mask |= mask_bits(ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS);
            }
            QueuePairState::ReadyToReceive => {
                attributes.max_dest_rd_atomic = reads;
                mask |= mask_bits(ibv_qp_attr_mask::IBV_QP_MAX_DEST_RD_ATOMIC);
            }
            QueuePairState::ReadyToSend => {
                attributes.timeout = TIMEOUT;
                attributes.retry_cnt = RETRIES;
                attributes.rnr_retry = RECEIVER_RETRIES;
                attributes.max_rd_atomic = reads;
                mask |= mask_bits(ibv_qp_attr_mask::IBV_QP_TIMEOUT)
                    | mask_bits(ibv_qp_attr_mask::IBV_QP_RETRY_CNT)
                    | mask_bits(ibv_qp_attr_mask::IBV_QP_RNR_RETRY)
                    | mask_bits(ibv_qp_attr_mask::IBV_QP_MAX_QP_RD_ATOMIC);
            }
            QueuePairState::Reset | QueuePairState::Error | QueuePairState::Other(_) => {}
        }
        // SAFETY: the queue pair is alive and the attributes are ours.
        let returned = unsafe { ibv_modify_qp(self.as_ptr(), &raw mut attributes, mask) };
        VerbsError::check("ibv_modify_qp", returned)?;
        *state = next;
        Ok(())
    }

    /// Stops it: everything in flight fails, and nothing that the peer asks is carried out any more.
    ///
    /// # Errors
    /// The system refused.
    pub fn stop(&self) -> Result<(), VerbsError> {
        let mut state = self.lock();
        let next = state.go(QueuePairState::Error)?;
        // SAFETY: all zeroes is a value of this struct of numbers.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = number_of(next);
        let mask = mask_bits(ibv_qp_attr_mask::IBV_QP_STATE);
        // SAFETY: the queue pair is alive and the attributes are ours.
        let returned = unsafe { ibv_modify_qp(self.as_ptr(), &raw mut attributes, mask) };
        VerbsError::check("ibv_modify_qp to ERR", returned)?;
        *state = next;
        Ok(())
    }

    /// The state that the device reports.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn reported_state(&self) -> Result<QueuePairState, VerbsError> {
        // SAFETY: all zeroes is a value of this struct of numbers.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        // SAFETY: all zeroes is a value of this struct: pointers in it may be null.
        let mut made: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        let mask = mask_bits(ibv_qp_attr_mask::IBV_QP_STATE);
        // SAFETY: the queue pair is alive and both structs are ours.
        let returned = unsafe { ibv_query_qp(self.as_ptr(), &raw mut attributes, mask, &raw mut made) };
        VerbsError::check("ibv_query_qp", returned)?;
        Ok(state_of(attributes.qp_state))
    }

    /// Hands a list of requests to the device.
    ///
    /// # Safety
    /// `first` leads to a list of requests, each with addresses in memory that is registered and stays so until they
    /// complete, ended by a null.
    #[inline]
    pub(super) unsafe fn post(&self, first: *mut ibv_send_wr) -> Result<(), VerbsError> {
        let mut refused = std::ptr::null_mut();
        // SAFETY: the queue pair is alive; the list is the caller's word.
        let returned = unsafe { ibv_post_send(self.as_ptr(), first, &raw mut refused) };
        VerbsError::check("ibv_post_send", returned)
    }

    /// Destroys it: on return the device has forgotten it.
    ///
    /// # Errors
    /// The system refused; it may be tried again.
    pub fn destroy(&mut self) -> Result<(), VerbsError> {
        let Some(raw) = self.raw else { return Ok(()) };
        // SAFETY: made by the library, and not destroyed yet: it is forgotten below when this succeeds.
        VerbsError::check("ibv_destroy_qp", unsafe { ibv_destroy_qp(raw.as_ptr()) })?;
        self.raw = None;
        Ok(())
    }

    /// Whether it was destroyed.
    #[must_use]
    pub const fn is_destroyed(&self) -> bool {
        self.raw.is_none()
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        if let Err(error) = self.destroy() {
            log::warn!("{error}");
        }
    }
}

const REMOTE_ACCESS: u32 = rdma_sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0
    | rdma_sys::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0;

fn create(
    domain: &ProtectionDomain,
    completions: &CompletionQueue,
    depth: usize,
    inline: u32,
) -> Result<(NonNull<ibv_qp>, usize), VerbsError> {
    // SAFETY: all zeroes is a value of this struct: pointers in it may be null.
    let mut wanted: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
    wanted.send_cq = completions.as_ptr();
    wanted.recv_cq = completions.as_ptr();
    wanted.qp_type = ibv_qp_type::IBV_QPT_RC;
    wanted.cap.max_send_wr = u32::try_from(depth).expect("at most what the device gives");
    wanted.cap.max_send_sge = 1;
    // Nothing is ever received; some devices take no empty queue.
    wanted.cap.max_recv_wr = 1;
    wanted.cap.max_recv_sge = 1;
    wanted.cap.max_inline_data = inline;
    // SAFETY: domain and queue are alive, and the struct is ours.
    let raw = unsafe { ibv_create_qp(domain.as_ptr(), &raw mut wanted) };
    let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_create_qp"))?;
    Ok((raw, wanted.cap.max_inline_data.min(inline) as usize))
}

fn mask_bits(mask: ibv_qp_attr_mask) -> i32 {
    mask.0.cast_signed()
}

/// The library's number of `state`.
pub(super) const fn number_of(state: QueuePairState) -> ibv_qp_state::Type {
    match state {
        QueuePairState::Reset => ibv_qp_state::IBV_QPS_RESET,
        QueuePairState::Init => ibv_qp_state::IBV_QPS_INIT,
        QueuePairState::ReadyToReceive => ibv_qp_state::IBV_QPS_RTR,
        QueuePairState::ReadyToSend => ibv_qp_state::IBV_QPS_RTS,
        QueuePairState::Error => ibv_qp_state::IBV_QPS_ERR,
        QueuePairState::Other(number) => number,
    }
}

const fn state_of(number: ibv_qp_state::Type) -> QueuePairState {
    match number {
        ibv_qp_state::IBV_QPS_RESET => QueuePairState::Reset,
        ibv_qp_state::IBV_QPS_INIT => QueuePairState::Init,
        ibv_qp_state::IBV_QPS_RTR => QueuePairState::ReadyToReceive,
        ibv_qp_state::IBV_QPS_RTS => QueuePairState::ReadyToSend,
        ibv_qp_state::IBV_QPS_ERR => QueuePairState::Error,
        other => QueuePairState::Other(other),
    }
}
