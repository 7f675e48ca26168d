//! Requests on their way to the device: built where they lie, linked, handed over as one list.
//!
//! The device copies a request when it is handed over, so a batch is reused for the next. It is filled by the thread that
//! uses the queue and by nobody else.

use rdma_sys::{ibv_send_flags, ibv_send_wr, ibv_sge, ibv_wr_opcode};

/// Requests handed over at once, at most: where a doorbell is a system call its cost is spread far enough by then, and
/// the requests stay in the nearest cache.
pub(super) const BATCH_MAX: usize = 128;

/// What a request is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) read: bool,
    pub(super) signaled: bool,
    pub(super) inline: bool,
    /// Waits for the reads before it.
    pub(super) fence: bool,
    pub(super) local: u64,
    pub(super) local_key: u32,
    pub(super) len: u32,
    pub(super) remote: u64,
    pub(super) remote_key: u32,
}

/// Requests that were posted and not handed over.
pub(super) struct Batch {
    requests: Box<[ibv_send_wr]>,
    /// The one range of each request. `requests` has addresses of these.
    _ranges: Box<[ibv_sge]>,
    ranges: *mut ibv_sge,
    len: usize,
}

// SAFETY: the addresses in it are of memory that it owns.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut ranges = vec![ibv_sge { addr: 0, length: 0, lkey: 0 }; BATCH_MAX].into_boxed_slice();
        let start = ranges.as_mut_ptr();
        let mut requests: Box<[ibv_send_wr]> = (0..BATCH_MAX)
            // SAFETY: all zeroes is a value of this struct: pointers in it may be null.
            .map(|_| unsafe { std::mem::zeroed() })
            .collect();
        let first = requests.as_mut_ptr();
        for (index, request) in requests.iter_mut().enumerate() {
            request.sg_list = start.wrapping_add(index);
            request.next = first.wrapping_add(index + 1);
        }
        Self { requests, _ranges: ranges, ranges: start, len: 0 }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len == BATCH_MAX
    }

    /// Adds one.
    ///
    /// # Panics
    /// When it is full.
    #[inline]
    pub(super) fn push(&mut self, request: Request) {
        let slot = &mut self.requests[self.len];
        let range = ibv_sge { addr: request.local, length: request.len, lkey: request.local_key };
        // SAFETY: `len` is below BATCH_MAX, checked by the indexing above.
        let place = unsafe { self.ranges.add(self.len) };
        // SAFETY: the ranges are ours, and the device has copied what stood there.
        unsafe { place.write(range) };
        slot.wr_id = request.number;
        slot.num_sge = i32::from(request.len > 0);
        slot.opcode =
            if request.read { ibv_wr_opcode::IBV_WR_RDMA_READ } else { ibv_wr_opcode::IBV_WR_RDMA_WRITE };
        let flag = |on: bool, flag: ibv_send_flags| if on { flag.0 } else { 0 };
        slot.send_flags = flag(request.signaled, ibv_send_flags::IBV_SEND_SIGNALED)
            | flag(request.inline, ibv_send_flags::IBV_SEND_INLINE)
            | flag(request.fence, ibv_send_flags::IBV_SEND_FENCE);
        slot.wr.rdma = rdma_sys::rdma_t { remote_addr: request.remote, rkey: request.remote_key };
        self.len += 1;
    }

    /// Ends the list and gives its head to `hand_over`; afterwards the batch is empty. Nothing happens to an empty one.
    #[inline]
    pub(super) fn hand_over<E>(
        &mut self,
        hand_over: impl FnOnce(*mut ibv_send_wr) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(last) = self.len.checked_sub(1) else { return Ok(()) };
        let link = std::mem::replace(&mut self.requests[last].next, std::ptr::null_mut());
        let result = hand_over(self.requests.as_mut_ptr());
        self.requests[last].next = link;
        self.len = 0;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u64) -> Request {
        Request {
            number,
            read: false,
            signaled: number.is_multiple_of(2),
            inline: false,
            fence: false,
            local: number,
            local_key: 1,
            len: 8,
            remote: 0,
            remote_key: 2,
        }
    }

    #[test]
    fn a_batch_is_a_list_that_ends_and_is_reused() {
        let mut batch = Batch::new();
        for round in 1..4_u64 {
            (0..round).for_each(|number| batch.push(request(number)));
            let mut seen = Vec::new();
            batch
                .hand_over(|mut at| -> Result<(), ()> {
                    while !at.is_null() {
                        // SAFETY: the list is the batch's own.
                        let request = unsafe { &*at };
                        // SAFETY: each request has its range.
                        let range = unsafe { &*request.sg_list };
                        seen.push((request.wr_id, range.addr, request.send_flags & 2 != 0));
                        at = request.next;
                    }
                    Ok(())
                })
                .unwrap();
            let expected: Vec<_> = (0..round).map(|number| (number, number, number % 2 == 0)).collect();
            assert_eq!(seen, expected);
            assert_eq!(batch.len, 0);
        }
        assert!(batch.hand_over(|_| Err(())).is_ok(), "an empty one is not handed over");
    }
}
