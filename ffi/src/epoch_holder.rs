//! Being a holder of epochs.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_char, c_int, c_void};

use mirrorbus::epoch::EpochHolder;
use mirrorbus::node::HolderStatus;

use crate::arguments::{self, check_target, deadline};
use crate::codes::{Failure, mirrorbus_code};
use crate::epoch_types::mirrorbus_epoch_holder_status;
use crate::forked;
use crate::guard::call;
use crate::holder::{config, put_address};
use crate::table::{Table, pointer};
use crate::types::mirrorbus_holder_options;

/// A copy of an owner's memory that is a whole epoch, always.
pub struct mirrorbus_epoch_holder {
    _opaque: [u8; 0],
}

static HOLDERS: Table<EpochHolder, 256> = Table::new(0x97, "holder of epochs");

fn number(holder: *const mirrorbus_epoch_holder) -> u64 {
    holder.addr() as u64
}

/// mirrorbus_holder_open() of a holder that applies epochs: `bytes` of the options are those of the owner's memory, `ring_bytes` those of the
/// owner's ring; 0: as usual for `bytes`. What a holder before left in the file is brought to its last whole epoch first.
///
/// Durable on return: nothing new. Threads: any, at any time.
///
/// # Safety
/// `options` is such a struct with its texts, `holder` a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epoch_holder_open(
    options: *const mirrorbus_holder_options,
    ring_bytes: u64,
    holder: *mut *mut mirrorbus_epoch_holder,
) -> c_int {
    call(|| {
        check_target(holder, "the handle")?;
        // SAFETY: by this function's contract.
        let options = unsafe { arguments::take(options) }?;
        let layout = arguments::epoch_layout(options.bytes, ring_bytes)?;
        // SAFETY: by this function's contract.
        let (config, keys) = unsafe { config(&options) }?;
        HOLDERS.check_room()?;
        forked::watch()?;
        let handle = HOLDERS.insert(EpochHolder::start(config, layout, keys)?)?;
        // SAFETY: checked above.
        unsafe { *holder = pointer(handle) };
        Ok(())
    })
}

/// Writes the address where it listens, with the real port, and a NUL. MIRRORBUS_E_RANGE if it takes more than `bytes`.
///
/// Threads: any, at any time.
///
/// # Safety
/// `target` has `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epoch_holder_url(
    holder: *mut mirrorbus_epoch_holder,
    target: *mut c_char,
    bytes: usize,
) -> c_int {
    call(|| {
        let text = HOLDERS.shared(number(holder))?.holder().url().to_string();
        // SAFETY: by this function's contract.
        unsafe { put_address(&text, target, bytes) }
    })
}

/// Tells which epoch it has, and for whom.
///
/// Threads: any, at any time. It may wait for an epoch that is being applied.
///
/// # Safety
/// `status` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epoch_holder_get_status(
    holder: *mut mirrorbus_epoch_holder,
    status: *mut mirrorbus_epoch_holder_status,
) -> c_int {
    call(|| {
        let open = HOLDERS.shared(number(holder))?;
        let said = said(&open, &open.holder().status());
        // SAFETY: by this function's contract.
        unsafe { arguments::give(status, &said) }
    })
}

/// Waits until an owner came, went or fell silent since `seen`, the `changes` of an earlier status, or the time is over: then the status is as
/// it was. It may return later than that, and so may mirrorbus_epoch_holder_get_status(): to tell the epoch both wait while one is being applied,
/// and synced where the copy is in a file.
///
/// Threads: any, at any time.
///
/// # Safety
/// `status` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epoch_holder_wait_change(
    holder: *mut mirrorbus_epoch_holder,
    seen: u64,
    timeout_ns: u64,
    status: *mut mirrorbus_epoch_holder_status,
) -> c_int {
    call(|| {
        check_target(status, "the status")?;
        let open = HOLDERS.shared(number(holder))?;
        let found = open.holder().wait_change(seen, deadline(timeout_ns));
        // SAFETY: by this function's contract.
        unsafe { arguments::give(status, &said(&open, &found)) }
    })
}

fn said(open: &EpochHolder, status: &HolderStatus) -> mirrorbus_epoch_holder_status {
    let found = open.status();
    mirrorbus_epoch_holder_status {
        size: size_of::<mirrorbus_epoch_holder_status>(),
        changes: status.changes,
        epoch: found.epoch.unwrap_or(0),
        generation: status.generation.0,
        whole: c_int::from(found.epoch.is_some()),
        attached: c_int::from(status.attached),
        connected: c_int::from(status.connected),
        silent: c_int::from(status.silent),
        region: arguments::fixed(&status.region.map(|id| id.to_string()).unwrap_or_default()),
        trouble: arguments::fixed(&found.trouble.unwrap_or_default()),
    }
}

/// Copies the whole memory as of one epoch, between two of them; an owner may go on meanwhile. `bytes` are those of the memory, else
/// MIRRORBUS_E_RANGE. MIRRORBUS_E_REFUSED while there is no whole epoch. Takes as much memory again for a while.
///
/// Threads: any, at any time. It holds up the applying of epochs.
///
/// # Safety
/// `target` has `bytes` bytes, which nobody else uses meanwhile. `epoch` is a place for the epoch's number, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epoch_holder_copy(
    holder: *mut mirrorbus_epoch_holder,
    target: *mut c_void,
    bytes: usize,
    epoch: *mut u64,
) -> c_int {
    call(|| {
        let open = HOLDERS.shared(number(holder))?;
        // SAFETY: by this function's contract.
        let target = unsafe { arguments::bytes_mut(target, bytes) }?;
        let copy = open.snapshot()?;
        if target.len() != copy.slice().len() {
            let text = format!("room for {bytes} bytes, the memory has {}", copy.slice().len());
            return Err(Failure::new(mirrorbus_code::MIRRORBUS_E_RANGE, text));
        }
        copy.slice().read(0, target);
        if !epoch.is_null() {
            // SAFETY: by this function's contract.
            unsafe { epoch.write_unaligned(copy.epoch) };
        }
        Ok(())
    })
}

/// Takes the owner's access away, and applies what is whole: on return the copy is the last epoch that was acknowledged, or a later one whose
/// commit record had come, and changes only when a new owner attaches. mirrorbus_epoch_holder_copy() gives it out. After
/// MIRRORBUS_E_TIMEOUT nothing more is let in: try again. MIRRORBUS_E_REFUSED when there is no whole epoch.
///
/// Durable on return: nothing that was not before. Threads: any, at any time.
///
/// # Safety
/// `epoch` is a place for the epoch's number, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epoch_holder_take_over(
    holder: *mut mirrorbus_epoch_holder,
    timeout_ns: u64,
    epoch: *mut u64,
) -> c_int {
    call(|| {
        let found = HOLDERS.shared(number(holder))?.take_over(deadline(timeout_ns))?.epoch;
        if !epoch.is_null() {
            // SAFETY: by this function's contract.
            unsafe { epoch.write_unaligned(found) };
        }
        Ok(())
    })
}

/// Ends it: the owner is told; a copy in memory is gone, one in a file stays. MIRRORBUS_E_BUSY while another thread is in a call with it.
///
/// Threads: any. The handle is of no use afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_epoch_holder_close(holder: *mut mirrorbus_epoch_holder) -> c_int {
    call(|| {
        HOLDERS.close(number(holder))?.stop();
        Ok(())
    })
}
