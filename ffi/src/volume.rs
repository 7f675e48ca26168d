//! Volumes of a dataset that this node serves.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_char, c_int, c_void};
use std::time::Instant;

use mirrorbus::store::{Gone, IoError, Mark, Source, Volume};

use crate::arguments::{self, check_target, deadline, needed};
use crate::codes::Failure;
use crate::dataset::{DATASETS, mirrorbus_dataset};
use crate::guard::call;
use crate::table::{Table, pointer};
use crate::types::mirrorbus_volume_info;

/// A volume: a disk of blocks that both nodes have.
pub struct mirrorbus_volume {
    _opaque: [u8; 0],
}

static VOLUMES: Table<Volume, 1024> = Table::new(0x95, "volume");

fn number(volume: *const mirrorbus_volume) -> u64 {
    volume.addr() as u64
}

/// Opens a volume, where this node serves. It works no more when the node's role changes: open it again then.
///
/// Threads: any, at any time.
///
/// # Safety
/// `name` is a text, `volume` a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_volume_open(
    dataset: *mut mirrorbus_dataset,
    name: *const c_char,
    volume: *mut *mut mirrorbus_volume,
) -> c_int {
    call(|| {
        check_target(volume, "the handle")?;
        // SAFETY: by this function's contract.
        let name = unsafe { needed(name, "name") }?;
        let opened = DATASETS.shared(crate::dataset::number(dataset))?.volume(name)?;
        let handle = VOLUMES.insert(opened)?;
        // SAFETY: checked above.
        unsafe { *volume = pointer(handle) };
        Ok(())
    })
}

/// Tells how large it is.
///
/// Threads: any, at any time.
///
/// # Safety
/// `info` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_volume_get_info(
    volume: *mut mirrorbus_volume,
    info: *mut mirrorbus_volume_info,
) -> c_int {
    call(|| {
        let found = VOLUMES.shared(number(volume))?.info()?;
        let said = mirrorbus_volume_info {
            size: size_of::<mirrorbus_volume_info>(),
            bytes: found.bytes(),
            block_bytes: found.block_size.bytes(),
        };
        // SAFETY: by this function's contract.
        unsafe { arguments::give(info, &said) }
    })
}

/// Runs a request that gives up at `end`. It is asked every 20 ms.
fn in_time<T>(end: Instant, request: impl FnOnce(Gone<'_>) -> Result<T, IoError>) -> Result<T, IoError> {
    request(&|| Instant::now() >= end)
}

/// When a call that begins now is over.
fn end(timeout_ns: u64) -> Instant {
    deadline(timeout_ns).instant()
}

/// Reads. Returns when the bytes may be given out: nothing that is read is lost again by a failover.
///
/// The target may be memory of epochs, however its stores are found, and also while it is cut: what is read into it is found as a store.
///
/// A timeout is seen within 20 ms, but not while a disk is read. Threads: any, at any time.
///
/// # Safety
/// `target` has `bytes` bytes, which nobody else uses meanwhile. After an error they mean nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_volume_read(
    volume: *mut mirrorbus_volume,
    offset: u64,
    target: *mut c_void,
    bytes: usize,
    timeout_ns: u64,
) -> c_int {
    call(|| {
        // SAFETY: by this function's contract.
        let target = unsafe { arguments::bytes_mut(target, bytes) }?;
        let open = VOLUMES.shared(number(volume))?;
        let mark = open.read(offset, target)?;
        Ok(in_time(end(timeout_ns), |gone| open.commit(mark, gone))?)
    })
}

/// Acknowledges at once, or says what to wait for.
///
/// # Safety
/// `target` is null, or a place for a mark.
unsafe fn answer(volume: &Volume, mark: Mark, target: *mut u64, end: Instant) -> Result<(), Failure> {
    if target.is_null() {
        return Ok(in_time(end, |gone| volume.commit(mark, gone))?);
    }
    // SAFETY: by this function's contract.
    unsafe { target.write_unaligned(mark.0) };
    Ok(())
}

/// Writes. With `mark` null it returns when the write is acknowledged: in both nodes' memory, or on the own disk while the node serves
/// alone. Else it returns when the bytes are taken, and mirrorbus_volume_wait() or mirrorbus_volume_poll() of the mark tell when they are
/// acknowledged; a later mark includes the earlier ones. A mark is of this handle: after MIRRORBUS_E_ROLE what had not been acknowledged may
/// be lost, and another handle refuses the mark. Waits while the log has no room. After an error part of it may have been written.
///
/// Durable on return: nothing but what mirrorbus_volume_flush() made so. A timeout, for room and acknowledgment together, is seen within 20 ms,
/// but not while a disk is synced. Threads: any, at any time.
///
/// # Safety
/// `data` has `bytes` bytes that nobody changes meanwhile; `mark` is a place for one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_volume_write(
    volume: *mut mirrorbus_volume,
    offset: u64,
    data: *const c_void,
    bytes: usize,
    timeout_ns: u64,
    mark: *mut u64,
) -> c_int {
    call(|| {
        // SAFETY: by this function's contract.
        let data = unsafe { arguments::bytes(data, bytes) }?;
        let open = VOLUMES.shared(number(volume))?;
        let end = end(timeout_ns);
        let taken = in_time(end, |gone| open.write(offset, Source::Bytes(data), gone))?;
        // SAFETY: by this function's contract.
        unsafe { answer(&open, taken, mark, end) }
    })
}

/// Makes the blocks that lie wholly in the range read as zeroes, and gives their room back. `mark` as in mirrorbus_volume_write().
///
/// Durable on return: as there. Threads: any, at any time.
///
/// # Safety
/// `mark` is a place for one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_volume_trim(
    volume: *mut mirrorbus_volume,
    offset: u64,
    bytes: u64,
    timeout_ns: u64,
    mark: *mut u64,
) -> c_int {
    call(|| {
        let open = VOLUMES.shared(number(volume))?;
        let end = end(timeout_ns);
        let taken = in_time(end, |gone| open.trim(offset, bytes, gone))?;
        // SAFETY: by this function's contract.
        unsafe { answer(&open, taken, mark, end) }
    })
}

/// Makes the range read as zeroes. Takes no room, but for blocks that lie in it in part. `mark` as in mirrorbus_volume_write().
///
/// Durable on return: as there. Threads: any, at any time.
///
/// # Safety
/// `mark` is a place for one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_volume_write_zeroes(
    volume: *mut mirrorbus_volume,
    offset: u64,
    bytes: u64,
    timeout_ns: u64,
    mark: *mut u64,
) -> c_int {
    call(|| {
        let open = VOLUMES.shared(number(volume))?;
        let end = end(timeout_ns);
        let taken = in_time(end, |gone| open.write_zeroes(offset, bytes, gone))?;
        // SAFETY: by this function's contract.
        unsafe { answer(&open, taken, mark, end) }
    })
}

/// Waits until everything up to the mark is acknowledged. After MIRRORBUS_E_TIMEOUT it may be waited for again.
///
/// Durable on return: nothing but what mirrorbus_volume_flush() made so; while the node serves alone what was acknowledged is on its disk. A timeout
/// is seen within 20 ms, but not while a disk is synced. Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_volume_wait(volume: *mut mirrorbus_volume, mark: u64, timeout_ns: u64) -> c_int {
    call(|| {
        let open = VOLUMES.shared(number(volume))?;
        open.check_mark(Mark(mark))?;
        Ok(in_time(end(timeout_ns), |gone| open.commit(Mark(mark), gone))?)
    })
}

/// Tells without waiting whether everything up to the mark is acknowledged: 1 in `*acknowledged` if so, else 0. While the node serves alone
/// the dataset's own threads bring the log to the disk, which may take them a second; mirrorbus_volume_wait() does it at once.
///
/// Threads: any, at any time.
///
/// # Safety
/// `acknowledged` is a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_volume_poll(
    volume: *mut mirrorbus_volume,
    mark: u64,
    acknowledged: *mut c_int,
) -> c_int {
    call(|| {
        check_target(acknowledged, "the answer")?;
        let open = VOLUMES.shared(number(volume))?;
        open.check_mark(Mark(mark))?;
        let is_there = open.try_commit(Mark(mark))?;
        // SAFETY: checked above.
        unsafe { *acknowledged = c_int::from(is_there) };
        Ok(())
    })
}

/// Makes what was acknowledged before durable.
///
/// Durable on return: all of it, on both nodes' storage, or as the dataset's `durability` says. A timeout is seen within 20 ms, but not while a
/// disk is synced. Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_volume_flush(volume: *mut mirrorbus_volume, timeout_ns: u64) -> c_int {
    call(|| {
        let open = VOLUMES.shared(number(volume))?;
        Ok(in_time(end(timeout_ns), |gone| open.flush(gone))?)
    })
}

/// Closes the handle. MIRRORBUS_E_BUSY while another thread is in a call with it.
///
/// Durable on return: nothing that was not before. Threads: any. The handle is of no use afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_volume_close(volume: *mut mirrorbus_volume) -> c_int {
    call(|| {
        drop(VOLUMES.close(number(volume))?);
        Ok(())
    })
}
