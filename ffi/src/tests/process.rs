//! Panics, forks and versions.

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use super::{Rig, SECOND, fails, last_text, n, ok};
use crate::codes::mirrorbus_code;
use crate::codes::mirrorbus_code::{
    MIRRORBUS_E_FORKED, MIRRORBUS_E_HANDLE, MIRRORBUS_E_INTERNAL, MIRRORBUS_E_VERSION,
};
use crate::guard::{call, mirrorbus_code_name};
use crate::lane::{
    LANES, mirrorbus_lane_close, mirrorbus_lane_flush, mirrorbus_lane_open, mirrorbus_lane_store,
};
use crate::region::{mirrorbus_region_get_status, mirrorbus_region_reconnect};
use crate::version::{MIRRORBUS_ABI_VERSION, mirrorbus_abi_check, mirrorbus_abi_version, mirrorbus_version};

#[test]
fn a_panic_is_a_code_and_spoils_what_the_call_used() {
    let rig = Rig::new();
    let handle = rig.lane.addr() as u64;
    let code = call(|| {
        let _inside = LANES.alone(handle)?;
        panic!("no {}", "way");
    });
    fails(code, MIRRORBUS_E_INTERNAL);
    assert!(last_text().contains("no way"), "{}", last_text());
    fails(mirrorbus_lane_flush(rig.lane, 2, SECOND), MIRRORBUS_E_HANDLE);
    assert!(last_text().contains("close it"), "{}", last_text());
    fails(mirrorbus_region_reconnect(rig.region, SECOND), MIRRORBUS_E_HANDLE);
    ok(mirrorbus_lane_close(rig.lane));
    ok(mirrorbus_region_reconnect(rig.region, 10 * SECOND));
    // Nothing else is spoilt.
    let mut lane = ptr::null_mut();
    // SAFETY: there is a place for the handle.
    ok(unsafe { mirrorbus_lane_open(rig.region, ptr::null(), &raw mut lane) });
    ok(mirrorbus_lane_close(lane));
}

/// What a forked child answers, as its exit status.
pub(super) fn in_child(answers: impl FnOnce() -> bool) -> c_int {
    // SAFETY: the child calls what is under test, and ends without anything that threads of the parent may hold.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let right = catch_unwind(AssertUnwindSafe(answers)).unwrap_or(false);
        // SAFETY: it ends this process only.
        unsafe { libc::_exit(c_int::from(!right)) };
    }
    let mut status = 0;
    // SAFETY: it is the child made above.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    status
}

#[test]
fn a_forked_child_is_told() {
    let rig = Rig::new();
    let status = in_child(|| {
        let mut lane = ptr::null_mut();
        let answers = [
            // SAFETY: no bytes are stored.
            unsafe { mirrorbus_lane_store(rig.lane, 0, ptr::null(), 0, ptr::null_mut()) },
            // SAFETY: there is a place for the handle.
            unsafe { mirrorbus_lane_open(rig.region, ptr::null(), &raw mut lane) },
            // SAFETY: null is no place.
            unsafe { mirrorbus_region_get_status(rig.region, ptr::null_mut()) },
            mirrorbus_lane_close(rig.lane),
            mirrorbus_lane_flush(rig.lane, 2, SECOND),
        ];
        answers == [n(MIRRORBUS_E_FORKED); 5]
            && last_text().contains("forked")
            && mirrorbus_abi_check(MIRRORBUS_ABI_VERSION) == 0
    });
    assert_eq!(status, 0);
    ok(mirrorbus_lane_flush(rig.lane, 2, 20 * SECOND));
}

#[test]
fn versions_are_told_apart() {
    assert_eq!(mirrorbus_abi_version(), MIRRORBUS_ABI_VERSION);
    ok(mirrorbus_abi_check(MIRRORBUS_ABI_VERSION));
    fails(mirrorbus_abi_check(MIRRORBUS_ABI_VERSION + 1), MIRRORBUS_E_VERSION);
    // SAFETY: it ends with a NUL, and stays.
    let version = unsafe { CStr::from_ptr(mirrorbus_version()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_code_has_its_name() {
    let name = |code| {
        // SAFETY: it ends with a NUL, and stays.
        unsafe { CStr::from_ptr(mirrorbus_code_name(code)) }.to_str().unwrap()
    };
    let last = mirrorbus_code::MIRRORBUS_E_SUPERSEDED;
    for code in [mirrorbus_code::MIRRORBUS_OK, mirrorbus_code::MIRRORBUS_E_TIMEOUT, MIRRORBUS_E_HANDLE, last]
    {
        assert_eq!(name(n(code)), format!("{code:?}"));
    }
    for code in n(last)..=0 {
        assert!(name(code).starts_with("MIRRORBUS_"), "{code}");
    }
    assert_eq!((name(1), name(n(last) - 1)), ("unknown", "unknown"));
}
