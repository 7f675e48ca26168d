//! Being a holder.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_char, c_int, c_void};
use std::path::PathBuf;

use mirrorbus::node::{Content, HolderStatus};
use mirrorbus::{Holder, HolderConfig, KeySet};

use crate::arguments::{self, check_target, deadline};
use crate::codes::{Failure, mirrorbus_code};
use crate::forked;
use crate::guard::call;
use crate::table::{Table, pointer};
use crate::types::{mirrorbus_fenced, mirrorbus_holder_options, mirrorbus_holder_status};

/// A copy of a region, kept for one owner at a time.
pub struct mirrorbus_holder {
    _opaque: [u8; 0],
}

static HOLDERS: Table<Holder, 256> = Table::new(0x91, "holder");

fn number(holder: *const mirrorbus_holder) -> u64 {
    holder.addr() as u64
}

/// Maps the memory of a copy, and listens for its owner. Nothing is left behind by a failure.
///
/// Durable on return: nothing; a copy in a file is as it was. Threads: any, at any time.
///
/// # Safety
/// `options` is such a struct with its texts, `holder` a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_holder_open(
    options: *const mirrorbus_holder_options,
    holder: *mut *mut mirrorbus_holder,
) -> c_int {
    call(|| {
        check_target(holder, "the handle")?;
        // SAFETY: by this function's contract.
        let options = unsafe { arguments::take(options) }?;
        // SAFETY: by this function's contract.
        let (config, keys) = unsafe { config(&options) }?;
        HOLDERS.check_room()?;
        forked::watch()?;
        let handle = HOLDERS.insert(Holder::start(config, keys)?)?;
        // SAFETY: checked above.
        unsafe { *holder = pointer(handle) };
        Ok(())
    })
}

/// What the options say.
///
/// # Safety
/// The texts are texts or null.
pub(crate) unsafe fn config(options: &mirrorbus_holder_options) -> Result<(HolderConfig, KeySet), Failure> {
    // SAFETY: by this function's contract.
    let url = unsafe { arguments::url(options.url, "url") }?;
    let mut config = HolderConfig::new(url, arguments::place(options.bytes, "bytes")?);
    // SAFETY: by this function's contract.
    config.file = unsafe { arguments::text(options.file, "file") }?.map(PathBuf::from);
    config.accept_uncertain = options.accept_uncertain != 0;
    config.lock = arguments::lock(options.lock)?;
    config.silence = arguments::duration_or(options.silence_ns, config.silence);
    // SAFETY: by this function's contract.
    let keys = unsafe { arguments::keys(options.key_file) }?;
    Ok((config, keys))
}

/// Writes the address where it listens, with the real port, and a NUL. MIRRORBUS_E_RANGE if it takes more than `bytes`.
///
/// Threads: any, at any time.
///
/// # Safety
/// `target` has `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_holder_url(
    holder: *mut mirrorbus_holder,
    target: *mut c_char,
    bytes: usize,
) -> c_int {
    call(|| {
        let text = HOLDERS.shared(number(holder))?.url().to_string();
        // SAFETY: by this function's contract.
        unsafe { put_address(&text, target, bytes) }
    })
}

/// Writes an address and a NUL.
///
/// # Safety
/// `target` has `bytes` bytes.
pub(crate) unsafe fn put_address(text: &str, target: *mut c_char, bytes: usize) -> Result<(), Failure> {
    // SAFETY: by this function's contract.
    let target = unsafe { arguments::bytes_mut(target.cast(), bytes) }?;
    let Some(place) = target.get_mut(..=text.len()) else {
        let why = format!("the address takes {} bytes", text.len() + 1);
        return Err(Failure::new(mirrorbus_code::MIRRORBUS_E_RANGE, why));
    };
    place[..text.len()].copy_from_slice(text.as_bytes());
    place[text.len()] = 0;
    Ok(())
}

/// Tells what it holds, and for whom.
///
/// Threads: any, at any time.
///
/// # Safety
/// `status` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_holder_get_status(
    holder: *mut mirrorbus_holder,
    status: *mut mirrorbus_holder_status,
) -> c_int {
    call(|| {
        let found = HOLDERS.shared(number(holder))?.status();
        // SAFETY: by this function's contract.
        unsafe { arguments::give(status, &said(&found)) }
    })
}

/// Waits until something changed since `seen`, the `changes` of an earlier status, or the time is over: then the status is as it was.
///
/// Threads: any, at any time.
///
/// # Safety
/// `status` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_holder_wait_change(
    holder: *mut mirrorbus_holder,
    seen: u64,
    timeout_ns: u64,
    status: *mut mirrorbus_holder_status,
) -> c_int {
    call(|| {
        check_target(status, "the status")?;
        let found = HOLDERS.shared(number(holder))?.wait_change(seen, deadline(timeout_ns));
        // SAFETY: by this function's contract.
        unsafe { arguments::give(status, &said(&found)) }
    })
}

fn said(status: &HolderStatus) -> mirrorbus_holder_status {
    mirrorbus_holder_status {
        size: size_of::<mirrorbus_holder_status>(),
        changes: status.changes,
        generation: status.generation.0,
        content: match status.content {
            Content::Empty => 0,
            Content::Partial => 1,
            Content::Complete => 2,
        },
        attached: c_int::from(status.attached),
        connected: c_int::from(status.connected),
        silent: c_int::from(status.silent),
        region: arguments::fixed(&status.region.map(|id| id.to_string()).unwrap_or_default()),
    }
}

/// Copies bytes out of the copy as it is now; an owner may be writing it. After a fence it is stable.
///
/// Threads: any, at any time.
///
/// # Safety
/// `target` has `bytes` bytes, which nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_holder_read(
    holder: *mut mirrorbus_holder,
    offset: u64,
    target: *mut c_void,
    bytes: usize,
) -> c_int {
    call(|| {
        let memory = HOLDERS.shared(number(holder))?.memory();
        // SAFETY: by this function's contract.
        let target = unsafe { arguments::bytes_mut(target, bytes) }?;
        copy_out(memory.slice(), offset, target)
    })
}

/// Copies bytes out of a mapping.
pub(crate) fn copy_out(
    memory: mirrorbus::VolatileSlice<'_>,
    offset: u64,
    target: &mut [u8],
) -> Result<(), Failure> {
    let found = usize::try_from(offset).ok().and_then(|offset| memory.subslice(offset, target.len()));
    let Some(source) = found else {
        let (len, size) = (target.len(), memory.len());
        let text = format!("{len} bytes at {offset} lie outside of the {size} bytes that there are");
        return Err(Failure::new(mirrorbus_code::MIRRORBUS_E_RANGE, text));
    };
    source.read(0, target);
    Ok(())
}

/// Takes the owner's access away: on return no byte of the copy changes any more, and every store that was acknowledged, at any time, is in
/// it. The owner is told, and cannot reconnect; a new one can pull. Who takes over calls this first. After MIRRORBUS_E_TIMEOUT nothing
/// more is let in: try again.
///
/// Durable on return: nothing that was not before. Threads: any, at any time.
///
/// # Safety
/// `fenced` is such a struct, with its size, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_holder_fence(
    holder: *mut mirrorbus_holder,
    timeout_ns: u64,
    fenced: *mut mirrorbus_fenced,
) -> c_int {
    call(|| {
        if !fenced.is_null() {
            // Before anything is done that cannot be undone.
            // SAFETY: by this function's contract.
            unsafe { arguments::stated(fenced) }?;
        }
        let done = HOLDERS.shared(number(holder))?.fence(deadline(timeout_ns))?;
        if fenced.is_null() {
            return Ok(());
        }
        let size = size_of::<mirrorbus_fenced>();
        let said = mirrorbus_fenced { size, generation: done.generation.0, exact: c_int::from(done.exact) };
        // SAFETY: by this function's contract.
        unsafe { arguments::give(fenced, &said) }
    })
}

/// Ends it: the owner is told; a copy in memory is gone, one in a file stays. MIRRORBUS_E_BUSY while another thread is in a call with it.
///
/// Threads: any. The handle is of no use afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_holder_close(holder: *mut mirrorbus_holder) -> c_int {
    call(|| {
        HOLDERS.close(number(holder))?.stop();
        Ok(())
    })
}
