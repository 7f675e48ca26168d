//! Which library this is.

use std::ffi::{c_char, c_int};

use crate::codes::{Failure, mirrorbus_code};
use crate::guard::caught;

/// What programs are built for. Another number is another libmirrorbus.so.N, and programs have to be built again. What is added keeps the
/// number: structs grow at their end, and say how large they are.
pub const MIRRORBUS_ABI_VERSION: u32 = 1;

/// The version of the library that runs: MIRRORBUS_ABI_VERSION when it was built.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_abi_version() -> u32 {
    MIRRORBUS_ABI_VERSION
}

/// Whether a program that was built for `version` can use this library: mirrorbus_abi_check(MIRRORBUS_ABI_VERSION). MIRRORBUS_E_VERSION
/// if not.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_abi_check(version: u32) -> c_int {
    caught(|| {
        if version == MIRRORBUS_ABI_VERSION {
            return Ok(());
        }
        let text = format!(
            "the program was built for version {version} of the library, this is {MIRRORBUS_ABI_VERSION}"
        );
        Err(Failure::new(mirrorbus_code::MIRRORBUS_E_VERSION, text))
    })
}

/// The release, such as "0.1.0". It stays where it is.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
