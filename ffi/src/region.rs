//! A region, as its owner has it.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use mirrorbus::base::RegionId;
use mirrorbus::node::LinkStatus;
use mirrorbus::{Attach, Region, RegionConfig};

use crate::arguments::{self, check_target, deadline};
use crate::codes::{Failure, mirrorbus_code};
use crate::forked;
use crate::guard::call;
use crate::holder::copy_out;
use crate::lane::LANES;
use crate::table::{Table, pointer};
use crate::types::{mirrorbus_region_options, mirrorbus_region_status};

/// A region: memory whose every store, made through a lane, reaches the holder's.
pub struct mirrorbus_region {
    _opaque: [u8; 0],
}

pub(crate) static REGIONS: Table<OwnedRegion, 1024> = Table::new(0x92, "region");

/// A region with the handles of its lanes, all of which a reconnection needs.
pub(crate) struct OwnedRegion {
    pub(crate) region: Region,
    pub(crate) lanes: Arc<Lanes>,
}

/// Handles of the lanes that are open.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Locked for moments only, so that nobody who closes a lane waits for one who waits for the holder.
    handles: Mutex<Vec<u64>>,
    /// Locked while a lane is opened or a reconnection has them all.
    changing: Mutex<()>,
}

impl Lanes {
    pub(crate) fn handles(&self) -> MutexGuard<'_, Vec<u64>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`change`](Self::change) that waits for nobody.
    fn try_change(&self) -> Result<MutexGuard<'_, ()>, Failure> {
        match self.changing.try_lock() {
            Ok(changing) => Ok(changing),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                let text = "another thread opens a lane of this region, or reconnects it";
                Err(Failure::new(mirrorbus_code::MIRRORBUS_E_BUSY, text))
            }
        }
    }
}

impl OwnedRegion {
    /// Where its memory lies.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let memory = self.region.memory();
        let start = memory.as_ptr().addr();
        start..start + memory.len()
    }
}

pub(crate) fn number(region: *const mirrorbus_region) -> u64 {
    region.addr() as u64
}

/// Maps the memory, connects to the holder, and brings both copies together as `attach` says: on return they are equal. A failure leaves
/// nothing behind here; a push that failed half-way leaves the holder with a copy that it gives to nobody.
///
/// Durable on return: nothing. mirrorbus_lane_flush() at MIRRORBUS_DURABLE brings what was pushed to the holder's disk. Threads: any.
///
/// # Safety
/// `options` is such a struct with its texts, `region` a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_region_open(
    options: *const mirrorbus_region_options,
    region: *mut *mut mirrorbus_region,
) -> c_int {
    call(|| {
        check_target(region, "the handle")?;
        // SAFETY: by this function's contract.
        let options = unsafe { arguments::take(options) }?;
        let attach = match options.attach {
            1 => Attach::Push { replace: false },
            2 => Attach::Push { replace: true },
            3 => Attach::Pull,
            4 => Attach::Equal,
            other => return Err(arguments::unknown("attach", other)),
        };
        // SAFETY: by this function's contract.
        let url = unsafe { arguments::url(options.url, "url") }?;
        let mut config = RegionConfig::new(url, arguments::place(options.bytes, "bytes")?, attach);
        // SAFETY: by this function's contract.
        let id = unsafe { arguments::text(options.id, "id") }?;
        config.id = id.map(|text| arguments::id(text, "id").map(RegionId::from_bytes)).transpose()?;
        config.huge_pages = options.huge_pages != 0;
        config.lock = arguments::lock(options.lock)?;
        config.silence = arguments::duration_or(options.silence_ns, config.silence);
        config.timeout = arguments::duration_or(options.timeout_ns, config.timeout);
        // SAFETY: by this function's contract.
        let keys = unsafe { arguments::keys(options.key_file) }?;
        REGIONS.check_room()?;
        forked::watch()?;
        let opened = OwnedRegion { region: Region::open(config, keys)?, lanes: Arc::default() };
        let handle = REGIONS.insert(opened)?;
        // SAFETY: checked above.
        unsafe { *region = pointer(handle) };
        Ok(())
    })
}

/// Gives the memory itself, to read in place. What is written there other than by a lane is not mirrored, and may be overwritten. It is
/// there until the region and all of its lanes are closed.
///
/// Threads: any, at any time. Whoever reads while another thread stores may see half of a store.
///
/// # Safety
/// `memory` and `bytes` are places for them; `bytes` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_region_memory(
    region: *mut mirrorbus_region,
    memory: *mut *const c_void,
    bytes: *mut u64,
) -> c_int {
    call(|| {
        check_target(memory, "the address")?;
        let addresses = {
            let owned = REGIONS.shared(number(region))?;
            let slice = owned.region.memory();
            (slice.as_ptr(), slice.len())
        };
        // SAFETY: checked above.
        unsafe { *memory = addresses.0.cast() };
        if !bytes.is_null() {
            // SAFETY: by this function's contract.
            unsafe { bytes.write_unaligned(addresses.1 as u64) };
        }
        Ok(())
    })
}

/// Copies bytes out of this side's memory.
///
/// Threads: any, at any time. Whoever reads while another thread stores may see half of a store.
///
/// # Safety
/// `target` has `bytes` bytes, which nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_region_read(
    region: *mut mirrorbus_region,
    offset: u64,
    target: *mut c_void,
    bytes: usize,
) -> c_int {
    call(|| {
        let owned = REGIONS.shared(number(region))?;
        // SAFETY: by this function's contract.
        let target = unsafe { arguments::bytes_mut(target, bytes) }?;
        copy_out(owned.region.memory(), offset, target)
    })
}

/// Tells how the link is.
///
/// Threads: any, at any time.
///
/// # Safety
/// `status` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_region_get_status(
    region: *mut mirrorbus_region,
    status: *mut mirrorbus_region_status,
) -> c_int {
    call(|| {
        let owned = REGIONS.shared(number(region))?;
        let (link, reason) = match owned.region.link() {
            LinkStatus::Up => (1, String::new()),
            LinkStatus::Silent(_) => (2, String::new()),
            LinkStatus::Lost(reason) => (3, reason.to_string()),
        };
        let said = mirrorbus_region_status {
            size: size_of::<mirrorbus_region_status>(),
            bytes: owned.region.size() as u64,
            link,
            lanes: u32::try_from(owned.lanes.handles().len()).unwrap_or(u32::MAX),
            id: arguments::fixed(&owned.region.id().to_string()),
            reason: arguments::fixed(&reason),
        };
        // SAFETY: by this function's contract.
        unsafe { arguments::give(status, &said) }
    })
}

/// Connects again after the link was lost, sends what was not acknowledged, and takes all lanes of the region along: on return every store
/// that was taken is MIRRORBUS_VISIBLE at the holder, and tickets from before are stale. After an error the link is lost, if it
/// was not before, and the stores are as they were: try again.
/// MIRRORBUS_E_REFUSED where the holder has restarted or was fenced: close the region and open it anew.
///
/// Durable on return: nothing that was not before. Threads: any. MIRRORBUS_E_BUSY while a thread is in a call with one of the
/// lanes, or opens one.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_region_reconnect(region: *mut mirrorbus_region, timeout_ns: u64) -> c_int {
    call(|| {
        let owned = REGIONS.shared(number(region))?;
        // None comes meanwhile, and none goes, for all are in use.
        let _changing = owned.lanes.try_change()?;
        let mut open = {
            let handles = owned.lanes.handles();
            handles.iter().map(|&handle| LANES.alone(handle)).collect::<Result<Vec<_>, Failure>>()?
        };
        let mut lanes: Vec<_> = open.iter_mut().map(|open| &mut open.lane).collect();
        owned.region.reconnect(&mut lanes, deadline(timeout_ns))?;
        Ok(())
    })
}

/// Closes the link in good order; the holder keeps its copy. Lanes that are still open find the link lost: close them too. What was not
/// acknowledged before may or may not be at the holder: flush first. MIRRORBUS_E_BUSY while another thread is in a call with the region.
///
/// Durable on return: nothing that was not before. Threads: any. The handle is of no use afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_region_close(region: *mut mirrorbus_region) -> c_int {
    call(|| {
        REGIONS.close(number(region))?.region.close();
        Ok(())
    })
}
