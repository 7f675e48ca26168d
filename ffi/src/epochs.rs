//! A memory that is stored into through a pointer, and mirrored by epochs.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use mirrorbus::base::RegionId;
use mirrorbus::epoch::{Cut, EpochConfig, EpochRegion, Reconnected};
use mirrorbus::memory::{TrackedMemory, TrackingMethod};
use mirrorbus::node::LinkStatus;
use mirrorbus::{Attach, RegionConfig};

use crate::arguments::{self, check_target, deadline};
use crate::codes::{Failure, mirrorbus_code};
use crate::epoch_types::{
    mirrorbus_cut, mirrorbus_epochs_options, mirrorbus_epochs_reconnected, mirrorbus_epochs_status,
};
use crate::forked;
use crate::guard::call;
use crate::table::{Table, pointer};

/// A memory whose plain stores are found and mirrored, all of an epoch or none.
pub struct mirrorbus_epochs {
    _opaque: [u8; 0],
}

pub(crate) static EPOCHS: Table<OpenEpochs, 256> = Table::new(0x96, "memory of epochs");

/// The region, which one thread has at a time, and its memory, which any has.
pub(crate) struct OpenEpochs {
    region: Mutex<EpochRegion>,
    memory: Arc<TrackedMemory>,
}

impl OpenEpochs {
    /// The region, for this thread alone.
    pub(crate) fn alone(&self) -> Result<MutexGuard<'_, EpochRegion>, Failure> {
        match self.region.try_lock() {
            Ok(region) => Ok(region),
            // A panic of another thread's call spoilt the handle; this one's was looked up before.
            Err(TryLockError::Poisoned(_)) => {
                let text = "a bug of the library was caught in a call with this memory of epochs: close it";
                Err(Failure::new(mirrorbus_code::MIRRORBUS_E_HANDLE, text))
            }
            Err(TryLockError::WouldBlock) => {
                let text = "another thread is in a call with this memory of epochs";
                Err(Failure::new(mirrorbus_code::MIRRORBUS_E_BUSY, text))
            }
        }
    }
}

fn number(epochs: *const mirrorbus_epochs) -> u64 {
    epochs.addr() as u64
}

/// # Safety
/// The texts are texts or null.
unsafe fn config(options: &mirrorbus_epochs_options) -> Result<EpochConfig, Failure> {
    let attach = match options.attach {
        1 => Attach::Push { replace: false },
        2 => Attach::Push { replace: true },
        // The content is never assumed.
        3 | 4 => Attach::Pull,
        other => return Err(arguments::unknown("attach", other)),
    };
    let method = match options.tracking {
        0 => None,
        1 => Some(TrackingMethod::WpAsync),
        2 => Some(TrackingMethod::SoftDirty),
        3 => Some(TrackingMethod::Mprotect),
        other => return Err(arguments::unknown("tracking", other)),
    };
    // SAFETY: by this function's contract.
    let url = unsafe { arguments::url(options.url, "url") }?;
    let layout = arguments::epoch_layout(options.bytes, options.ring_bytes)?;
    let mut region = RegionConfig::new(url, layout.region_bytes(), attach);
    // SAFETY: by this function's contract.
    let id = unsafe { arguments::text(options.id, "id") }?;
    region.id = id.map(|text| arguments::id(text, "id").map(RegionId::from_bytes)).transpose()?;
    region.lock = arguments::lock(options.lock)?;
    region.silence = arguments::duration_or(options.silence_ns, region.silence);
    region.timeout = arguments::duration_or(options.timeout_ns, region.timeout);
    let mut config = EpochConfig::new(region, layout);
    config.method = method;
    Ok(config)
}

/// Maps the memory, has its stores found from now on, connects to a holder of epochs, and brings both together as `attach` says: on return the
/// holder has zeroes as epoch 0, or the memory has the holder's last whole epoch. Nothing is left behind here by a failure; a push
/// that failed half-way leaves the holder with a copy that it gives to nobody. MIRRORBUS_E_LIMIT: a process has at most 256 of them, and at
/// most 64 that are tracked by MIRRORBUS_TRACKING_SOFT_DIRTY or _MPROTECT.
///
/// Durable on return: nothing; a commit at MIRRORBUS_DURABLE makes it so. Threads: any, at any time.
///
/// # Safety
/// `options` is such a struct with its texts, `epochs` a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epochs_open(
    options: *const mirrorbus_epochs_options,
    epochs: *mut *mut mirrorbus_epochs,
) -> c_int {
    call(|| {
        check_target(epochs, "the handle")?;
        // SAFETY: by this function's contract.
        let options = unsafe { arguments::take(options) }?;
        // SAFETY: by this function's contract.
        let config = unsafe { config(&options) }?;
        // SAFETY: by this function's contract.
        let keys = unsafe { arguments::keys(options.key_file) }?;
        EPOCHS.check_room()?;
        forked::watch()?;
        let region = EpochRegion::open(config, keys)?;
        let memory = region.memory().clone();
        let handle = EPOCHS.insert(OpenEpochs { region: Mutex::new(region), memory })?;
        // SAFETY: checked above.
        unsafe { *epochs = pointer(handle) };
        Ok(())
    })
}

/// Gives the memory, to read and to store into through this pointer like any other. It is there until the handle is closed; who stores
/// there afterwards is killed.
///
/// Threads: any, at any time; and any may store there at any time, also while an epoch is cut. What was stored before mirrorbus_epochs_commit()
/// or _cut() was called is in the epoch. What is stored during the cut is in it or in the next: hold your writers until it returns.
///
/// # Safety
/// `memory` and `bytes` are places for them; `bytes` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epochs_memory(
    epochs: *mut mirrorbus_epochs,
    memory: *mut *mut c_void,
    bytes: *mut u64,
) -> c_int {
    call(|| {
        check_target(memory, "the address")?;
        let open = EPOCHS.shared(number(epochs))?;
        // SAFETY: checked above.
        unsafe { *memory = open.memory.pointer().as_ptr().cast() };
        if !bytes.is_null() {
            // SAFETY: by this function's contract.
            unsafe { bytes.write_unaligned(open.memory.len() as u64) };
        }
        Ok(())
    })
}

/// A range of the memory.
fn range(open: &OpenEpochs, offset: u64, bytes: u64) -> Result<(usize, usize), Failure> {
    let (at, len) = (arguments::place(offset, "offset")?, arguments::place(bytes, "bytes")?);
    if open.memory.slice().contains(at, len) {
        return Ok((at, len));
    }
    let text = format!("{len} bytes at {at} lie outside of the {} bytes that there are", open.memory.len());
    Err(Failure::new(mirrorbus_code::MIRRORBUS_E_RANGE, text))
}

/// Says that a system call is about to store there (read, recv). With MIRRORBUS_TRACKING_MPROTECT such a call fails with EFAULT otherwise; the
/// others need nothing. It holds until the next cut, during which no such call may be under way. With MIRRORBUS_TRACKING_SOFT_DIRTY a cut or opening of
/// any memory of this process that is tracked so counts, of another thread too: a call under way then may fail with EFAULT, and can be repeated.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_epochs_prepare(epochs: *mut mirrorbus_epochs, offset: u64, bytes: u64) -> c_int {
    call(|| {
        let open = EPOCHS.shared(number(epochs))?;
        let (at, len) = range(&open, offset, bytes)?;
        let prepared = open.memory.prepare(at, len);
        prepared.map_err(|error| Failure::of(mirrorbus_code::MIRRORBUS_E_SYSTEM, &error))
    })
}

/// Says that something stored there that no method sees: a device, into pages that it keeps pinned (O_DIRECT, registered buffers of io_uring,
/// RDMA, a GPU). Call it when the device has done and before the cut.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_epochs_stored(epochs: *mut mirrorbus_epochs, offset: u64, bytes: u64) -> c_int {
    call(|| {
        let open = EPOCHS.shared(number(epochs))?;
        let (at, len) = range(&open, offset, bytes)?;
        open.memory.stored(at, len);
        Ok(())
    })
}

/// Puts what a cut found where the caller wants it.
///
/// # Safety
/// `target` is null, or such a struct with its size.
unsafe fn put(target: *mut mirrorbus_cut, cut: &Cut) -> Result<(), Failure> {
    if target.is_null() {
        return Ok(());
    }
    let said = mirrorbus_cut {
        size: size_of::<mirrorbus_cut>(),
        epoch: cut.epoch,
        pages: cut.pages as u64,
        ranges: cut.ranges as u64,
        changed_bytes: cut.changed_bytes as u64,
        shipped_bytes: cut.shipped_bytes as u64,
    };
    // SAFETY: by this function's contract.
    unsafe { arguments::give(target, &said) }
}

/// Looks at the struct before anything is done that cannot be undone.
///
/// # Safety
/// `target` is null, or has a `usize` at it.
unsafe fn check_cut(target: *const mirrorbus_cut) -> Result<(), Failure> {
    if !target.is_null() {
        // SAFETY: by this function's contract.
        unsafe { arguments::stated(target) }?;
    }
    Ok(())
}

/// mirrorbus_epochs_cut() and mirrorbus_epochs_ship(): on return the holder has the whole epoch at a mirrorbus_level, with all that was stored
/// before the call. One that was cut before and not shipped goes first. After an error nothing that was stored is forgotten: it is in
/// this epoch, which the next call goes on with, or in the next. MIRRORBUS_E_TOO_LARGE: more changed than the ring takes, and
/// nothing was cut.
///
/// Durable on return: what the level says. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `cut` is such a struct, with its size, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epochs_commit(
    epochs: *mut mirrorbus_epochs,
    level: c_int,
    timeout_ns: u64,
    cut: *mut mirrorbus_cut,
) -> c_int {
    call(|| {
        let level = arguments::level(level)?;
        // SAFETY: by this function's contract.
        unsafe { check_cut(cut) }?;
        let open = EPOCHS.shared(number(epochs))?;
        let found = open.alone()?.commit(level, deadline(timeout_ns))?;
        // SAFETY: by this function's contract.
        unsafe { put(cut, &found) }
    })
}

/// Closes an epoch: what was stored before the call is in it. Nothing is sent, so that writers need be held no longer than this. When nothing
/// changed none is made. MIRRORBUS_E_REFUSED while one is cut and not shipped.
///
/// Durable on return: nothing. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `cut` is such a struct, with its size, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epochs_cut(
    epochs: *mut mirrorbus_epochs,
    cut: *mut mirrorbus_cut,
) -> c_int {
    call(|| {
        // SAFETY: by this function's contract.
        unsafe { check_cut(cut) }?;
        let open = EPOCHS.shared(number(epochs))?;
        let found = open.alone()?.cut()?;
        // SAFETY: by this function's contract.
        unsafe { put(cut, &found) }
    })
}

/// Ships the epoch that was cut, and waits until the holder has every epoch at a mirrorbus_level. After MIRRORBUS_E_TIMEOUT it stays cut: ship
/// again. MIRRORBUS_E_DROPPED: a reconnection dropped it, cut another.
///
/// Durable on return: what the level says. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_epochs_ship(
    epochs: *mut mirrorbus_epochs,
    level: c_int,
    timeout_ns: u64,
) -> c_int {
    call(|| {
        let level = arguments::level(level)?;
        let open = EPOCHS.shared(number(epochs))?;
        Ok(open.alone()?.ship(level, deadline(timeout_ns))?)
    })
}

/// Asks the holder which epoch it has applied last.
///
/// Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `epoch` is a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epochs_applied(
    epochs: *mut mirrorbus_epochs,
    timeout_ns: u64,
    epoch: *mut u64,
) -> c_int {
    call(|| {
        check_target(epoch, "the epoch")?;
        let open = EPOCHS.shared(number(epochs))?;
        let found = open.alone()?.applied(deadline(timeout_ns))?;
        // SAFETY: checked above.
        unsafe { *epoch = found };
        Ok(())
    })
}

/// Tells how it is: epoch, tracking, link.
///
/// Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `status` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epochs_get_status(
    epochs: *mut mirrorbus_epochs,
    status: *mut mirrorbus_epochs_status,
) -> c_int {
    call(|| {
        let open = EPOCHS.shared(number(epochs))?;
        let region = open.alone()?;
        let (link, reason) = match region.region().link() {
            LinkStatus::Up => (1, String::new()),
            LinkStatus::Silent(_) => (2, String::new()),
            LinkStatus::Lost(reason) => (3, reason.to_string()),
        };
        let (method, why) = region.method();
        let said = mirrorbus_epochs_status {
            size: size_of::<mirrorbus_epochs_status>(),
            bytes: open.memory.len() as u64,
            epoch: region.epoch(),
            unshipped: region.unshipped().unwrap_or(0),
            tracking: match method {
                TrackingMethod::WpAsync => 1,
                TrackingMethod::SoftDirty => 2,
                TrackingMethod::Mprotect => 3,
            },
            link,
            id: arguments::fixed(&region.region().id().to_string()),
            tracking_reason: arguments::fixed(why),
            reason: arguments::fixed(&reason),
        };
        // SAFETY: by this function's contract.
        unsafe { arguments::give(status, &said) }
    })
}

/// Connects again after the link was lost. Where the holder knows this owner still, the epoch under way goes on. Where it does not (it was
/// restarted, or fenced this owner), the region is opened anew with the holder's last whole epoch, the memory stays as it is, and the
/// next commit ships all in which it differs, in one epoch. MIRRORBUS_E_SUPERSEDED: another owner made epochs meanwhile, which
/// are left as they are; close this one. After any other error try again.
///
/// Durable on return: nothing that was not before. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
///
/// # Safety
/// `reconnected` is such a struct, with its size, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_epochs_reconnect(
    epochs: *mut mirrorbus_epochs,
    timeout_ns: u64,
    reconnected: *mut mirrorbus_epochs_reconnected,
) -> c_int {
    call(|| {
        if !reconnected.is_null() {
            // SAFETY: by this function's contract.
            unsafe { arguments::stated(reconnected) }?;
        }
        let open = EPOCHS.shared(number(epochs))?;
        let found = open.alone()?.reconnect(deadline(timeout_ns))?;
        if reconnected.is_null() {
            return Ok(());
        }
        let (resumed, dropped) = match found {
            Reconnected::Resumed => (1, 0),
            Reconnected::Anew { dropped } => (0, dropped.unwrap_or(0)),
        };
        let size = size_of::<mirrorbus_epochs_reconnected>();
        let said = mirrorbus_epochs_reconnected { size, dropped, resumed, reserved: 0 };
        // SAFETY: by this function's contract.
        unsafe { arguments::give(reconnected, &said) }
    })
}

/// Closes the link in good order, and unmaps the memory. What was not committed is nowhere; the holder keeps the last whole epoch.
/// MIRRORBUS_E_BUSY while another thread is in a call with it.
///
/// Durable on return: nothing that was not before. Threads: any; none stores into the memory any more. The handle is of no use afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_epochs_close(epochs: *mut mirrorbus_epochs) -> c_int {
    call(|| {
        drop(EPOCHS.close(number(epochs))?);
        Ok(())
    })
}
