//! What comes over the boundary wrong is told, and nothing of it ends the process.

mod epochs;
mod handles;
mod input;
mod process;
mod volumes;

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use mirrorbus::KeySet;
use tempfile::TempDir;

use crate::codes::mirrorbus_code;
use crate::guard::mirrorbus_error_text;
use crate::holder::{mirrorbus_holder, mirrorbus_holder_close, mirrorbus_holder_open, mirrorbus_holder_url};
use crate::lane::{mirrorbus_lane, mirrorbus_lane_open};
use crate::region::{mirrorbus_region, mirrorbus_region_open};
use crate::types::{mirrorbus_holder_options, mirrorbus_region_options};

const SECOND: u64 = 1_000_000_000;
const REGION_BYTES: u64 = 65536;

/// The number of a code.
fn n(code: mirrorbus_code) -> c_int {
    code as c_int
}

fn last_text() -> String {
    // SAFETY: it ends with a NUL, and stays until the next failure of this thread.
    unsafe { CStr::from_ptr(mirrorbus_error_text()) }.to_string_lossy().into_owned()
}

#[track_caller]
fn ok(code: c_int) {
    assert_eq!(code, 0, "{}", last_text());
}

#[track_caller]
fn fails(code: c_int, wanted: mirrorbus_code) {
    assert_eq!(code, n(wanted), "{wanted:?}: {}", last_text());
    assert!(!last_text().is_empty());
}

/// A holder and its owner in this process.
struct Rig {
    folder: TempDir,
    key: CString,
    url: CString,
    holder: *mut mirrorbus_holder,
    region: *mut mirrorbus_region,
    lane: *mut mirrorbus_lane,
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn key_file(folder: &TempDir) -> CString {
    let path = folder.path().join("key");
    KeySet::create(&path).unwrap();
    text(path.to_str().unwrap())
}

fn holder_options(url: &CStr, key: &CStr) -> mirrorbus_holder_options {
    mirrorbus_holder_options {
        size: size_of::<mirrorbus_holder_options>(),
        url: url.as_ptr(),
        bytes: REGION_BYTES,
        key_file: key.as_ptr(),
        file: ptr::null(),
        accept_uncertain: 0,
        lock: 2,
        silence_ns: 0,
    }
}

fn region_options(url: &CStr, key: &CStr, attach: c_int) -> mirrorbus_region_options {
    mirrorbus_region_options {
        size: size_of::<mirrorbus_region_options>(),
        url: url.as_ptr(),
        bytes: REGION_BYTES,
        key_file: key.as_ptr(),
        id: ptr::null(),
        attach,
        lock: 2,
        huge_pages: 0,
        reserved: 0,
        silence_ns: 0,
        timeout_ns: 0,
    }
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = key_file(&folder);
        let anywhere = text("tcp://127.0.0.1:0");
        let mut holder = ptr::null_mut();
        // SAFETY: the options and their texts are there.
        ok(unsafe {
            mirrorbus_holder_open(&raw const *Box::new(holder_options(&anywhere, &key)), &raw mut holder)
        });
        let mut address: [c_char; 64] = [0; 64];
        // SAFETY: the array has so many bytes.
        ok(unsafe { mirrorbus_holder_url(holder, address.as_mut_ptr(), address.len()) });
        // SAFETY: it ends with a NUL.
        let url = unsafe { CStr::from_ptr(address.as_ptr()) }.to_owned();
        let mut region = ptr::null_mut();
        // SAFETY: the options and their texts are there.
        ok(unsafe {
            mirrorbus_region_open(&raw const *Box::new(region_options(&url, &key, 1)), &raw mut region)
        });
        let mut lane = ptr::null_mut();
        // SAFETY: null are the usual options.
        ok(unsafe { mirrorbus_lane_open(region, ptr::null(), &raw mut lane) });
        Self { folder, key, url, holder, region, lane }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A test may have closed any of them.
        let _ = crate::lane::mirrorbus_lane_close(self.lane);
        let _ = crate::region::mirrorbus_region_close(self.region);
        let _ = mirrorbus_holder_close(self.holder);
    }
}
