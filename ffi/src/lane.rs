//! Lanes: ordered streams of stores into a region.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::Arc;

use mirrorbus::base::Sequence;
use mirrorbus::mirror::{Polling, StoreError, Watermarks};
use mirrorbus::{Lane, LaneConfig, Ticket};

use crate::arguments::{self, check_apart, check_target, deadline};
use crate::codes::Failure;
use crate::guard::call;
use crate::region::{Lanes, REGIONS, mirrorbus_region};
use crate::table::{Table, pointer};
use crate::types::{mirrorbus_lane_options, mirrorbus_part, mirrorbus_ticket, mirrorbus_watermarks};

/// An ordered stream of stores into a region.
pub struct mirrorbus_lane {
    _opaque: [u8; 0],
}

/// Parts of one store at most.
const PARTS_MAX: usize = 1024;

pub(crate) static LANES: Table<OpenLane, 4096> = Table::new(0x93, "lane");

/// A lane, with what its region knows of it.
pub(crate) struct OpenLane {
    pub(crate) lane: Lane,
    /// The addresses of the region's memory, which nothing is stored from.
    memory: Range<usize>,
    lanes: Arc<Lanes>,
}

#[inline]
fn number(lane: *const mirrorbus_lane) -> u64 {
    lane.addr() as u64
}

/// Opens one more lane. Lanes are independent: nothing is ordered between two of them. Close it before the region, or after. Waits for a
/// mirrorbus_region_reconnect() that is under way, as long as that takes.
///
/// Threads: any, at any time.
///
/// # Safety
/// `options` is such a struct or null, `lane` a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_lane_open(
    region: *mut mirrorbus_region,
    options: *const mirrorbus_lane_options,
    lane: *mut *mut mirrorbus_lane,
) -> c_int {
    call(|| {
        check_target(lane, "the handle")?;
        // SAFETY: by this function's contract.
        let options = unsafe { arguments::take_or_zero(options) }?;
        let mut config = LaneConfig::default();
        if options.depth != 0 {
            config.depth = usize::try_from(options.depth).unwrap_or(usize::MAX);
        }
        if config.depth > Lane::DEPTH_MAX {
            let why = format!("a depth of {}, the most is {}", config.depth, Lane::DEPTH_MAX);
            return Err(Failure::invalid(why));
        }
        config.polling = match options.polling {
            0 => config.polling,
            1 => Polling::Spin,
            2 => Polling::Block,
            other => return Err(arguments::unknown("polling", other)),
        };
        config.store_timeout = arguments::duration_or(options.store_timeout_ns, config.store_timeout);
        let owned = REGIONS.shared(crate::region::number(region))?;
        LANES.check_room()?;
        // No reconnection without it.
        let _changing = owned.lanes.change();
        let opened = OpenLane {
            lane: owned.region.lane(config)?,
            memory: owned.addresses(),
            lanes: owned.lanes.clone(),
        };
        let handle = LANES.insert(opened)?;
        owned.lanes.handles().push(handle);
        // SAFETY: checked above.
        unsafe { *lane = pointer(handle) };
        Ok(())
    })
}

/// Puts the ticket where the caller wants it.
///
/// # Safety
/// `target` is null, or a place for a ticket.
#[inline]
unsafe fn put(target: *mut mirrorbus_ticket, ticket: Ticket) {
    if !target.is_null() {
        let (stream, sequence) = ticket.to_parts();
        // SAFETY: by this function's contract.
        unsafe { target.write_unaligned(mirrorbus_ticket { stream, sequence: sequence.0 }) };
    }
}

/// A store of bytes of the caller's.
///
/// # Safety
/// `data` has `bytes` bytes that nobody changes, `ticket` is null or a place for one.
#[inline]
unsafe fn store_by(
    lane: *mut mirrorbus_lane,
    offset: u64,
    (data, bytes): (*const c_void, usize),
    ticket: *mut mirrorbus_ticket,
    by: impl FnOnce(&mut Lane, usize, &[u8]) -> Result<Ticket, StoreError>,
) -> c_int {
    call(|| {
        // SAFETY: by this function's contract.
        let data = unsafe { arguments::bytes(data, bytes) }?;
        let offset = arguments::place(offset, "offset")?;
        let mut open = LANES.alone(number(lane))?;
        check_apart(data, &open.memory)?;
        let taken = by(&mut open.lane, offset, data)?;
        // SAFETY: by this function's contract.
        unsafe { put(ticket, taken) };
        Ok(())
    })
}

/// Stores: on return this side's memory has the bytes, and they are on their way to the holder. Waits for room, at most the lane's
/// `store_timeout_ns`. After an error nothing was stored on either side.
///
/// Durable on return: nothing. Wait for the ticket. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `data` has `bytes` bytes that nobody changes meanwhile; `ticket` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_lane_store(
    lane: *mut mirrorbus_lane,
    offset: u64,
    data: *const c_void,
    bytes: usize,
    ticket: *mut mirrorbus_ticket,
) -> c_int {
    // SAFETY: by this function's contract.
    unsafe { store_by(lane, offset, (data, bytes), ticket, Lane::store) }
}

/// mirrorbus_lane_store() that never waits: MIRRORBUS_E_WOULD_BLOCK when as many stores are in flight as can be.
///
/// Durable on return: nothing. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// As mirrorbus_lane_store().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_lane_try_store(
    lane: *mut mirrorbus_lane,
    offset: u64,
    data: *const c_void,
    bytes: usize,
    ticket: *mut mirrorbus_ticket,
) -> c_int {
    // SAFETY: by this function's contract.
    unsafe { store_by(lane, offset, (data, bytes), ticket, Lane::try_store) }
}

/// Stores parts, one behind the other, as one store; at most 1024 of them. Waits for room as mirrorbus_lane_store().
///
/// Durable on return: nothing. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `parts` has `count` parts, each with its bytes, which nobody changes meanwhile; `ticket` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_lane_store_v(
    lane: *mut mirrorbus_lane,
    offset: u64,
    parts: *const mirrorbus_part,
    count: usize,
    ticket: *mut mirrorbus_ticket,
) -> c_int {
    call(|| {
        if count > PARTS_MAX || (count > 0 && (parts.is_null() || !parts.is_aligned())) {
            return Err(Failure::invalid(format!(
                "{count} parts at {parts:p} cannot be: at most {PARTS_MAX}"
            )));
        }
        let offset = arguments::place(offset, "offset")?;
        let mut open = LANES.alone(number(lane))?;
        let mut slices = Vec::with_capacity(count);
        for index in 0..count {
            // SAFETY: there are `count` of them.
            let part = unsafe { parts.add(index) };
            // SAFETY: by this function's contract, it is one of them.
            let part = unsafe { part.read() };
            // SAFETY: by this function's contract.
            let data = unsafe { arguments::bytes(part.data, part.bytes) }?;
            check_apart(data, &open.memory)?;
            slices.push(data);
        }
        let taken = open.lane.store_v(offset, &slices)?;
        // SAFETY: by this function's contract.
        unsafe { put(ticket, taken) };
        Ok(())
    })
}

/// Waits until the store of the ticket, and with it every earlier one of this lane, reached a mirrorbus_level. After
/// MIRRORBUS_E_TIMEOUT the store goes on, and may be waited for again.
///
/// Durable on return: what the level says; see docs/semantics.md. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_lane_wait(
    lane: *mut mirrorbus_lane,
    ticket: mirrorbus_ticket,
    level: c_int,
    timeout_ns: u64,
) -> c_int {
    call(|| {
        let level = arguments::level(level)?;
        let mut open = LANES.alone(number(lane))?;
        let (sequence, last) = (Sequence(ticket.sequence), open.lane.watermarks().last);
        let ticket = Ticket::from_parts(ticket.stream, sequence);
        // One of another lane, or of before, is stale whatever its number.
        if sequence > last && open.lane.is_own(ticket) {
            return Err(Failure::invalid(format!("a ticket of store {sequence}, the lane's last is {last}")));
        }
        open.lane.wait(ticket, level, deadline(timeout_ns))?;
        Ok(())
    })
}

/// Brings every store so far to a mirrorbus_level. At MIRRORBUS_DURABLE it asks the holder for a sync, store or not: on return all of the copy
/// as it was when this was called is on the holder's stable storage, with what opening pushed.
///
/// Durable on return: what the level says. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_lane_flush(lane: *mut mirrorbus_lane, level: c_int, timeout_ns: u64) -> c_int {
    call(|| {
        let level = arguments::level(level)?;
        LANES.alone(number(lane))?.lane.flush(level, deadline(timeout_ns))?;
        Ok(())
    })
}

/// Sends what was gathered, looks what has completed, and tells how far the stores have come. Never waits.
///
/// Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `marks` is such a struct, with its size, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_lane_poll(
    lane: *mut mirrorbus_lane,
    marks: *mut mirrorbus_watermarks,
) -> c_int {
    call(|| {
        let Watermarks { last, posted, acked, visible, durable } = LANES.alone(number(lane))?.lane.poll()?;
        if marks.is_null() {
            return Ok(());
        }
        let said = mirrorbus_watermarks {
            size: size_of::<mirrorbus_watermarks>(),
            last: last.0,
            posted: posted.0,
            acked: acked.0,
            visible: visible.0,
            durable: durable.0,
        };
        // SAFETY: by this function's contract.
        unsafe { arguments::give(marks, &said) }
    })
}

/// Closes the lane. What was not acknowledged before may or may not be at the holder: flush first.
///
/// Durable on return: nothing that was not before. Threads: any; MIRRORBUS_E_BUSY while another is in a call with it. The handle is of no use
/// afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_lane_close(lane: *mut mirrorbus_lane) -> c_int {
    call(|| {
        let handle = number(lane);
        let lanes = LANES.peek(handle, |open| open.lanes.clone())?;
        // A reconnection has all lanes or none: while it has them this one is in use.
        let mut handles = lanes.handles();
        let open = LANES.close(handle)?;
        handles.retain(|&other| other != handle);
        // Ending its queue may take a while, and the list is for moments only. A reconnection before it has ended is told that a lane is busy.
        drop(handles);
        drop(open);
        Ok(())
    })
}
