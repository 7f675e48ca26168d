//! The boundary: what goes wrong inside leaves as a code, with a text for the thread that called.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::codes::{Failure, mirrorbus_code};
use crate::forked;

thread_local! {
    static TEXT: RefCell<CString> = RefCell::default();
}

/// Runs what a function of the library does. Nothing that goes wrong in it leaves it but as a code.
#[inline]
pub(crate) fn call(work: impl FnOnce() -> Result<(), Failure>) -> c_int {
    match forked::check() {
        Ok(()) => caught(work),
        Err(failure) => note(&failure),
    }
}

/// [`call`] for what a forked child may do too.
#[inline]
pub(crate) fn caught(work: impl FnOnce() -> Result<(), Failure>) -> c_int {
    // What a panic leaves half done is not used again: the guards of handles see that there is one, and close them for use.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => mirrorbus_code::MIRRORBUS_OK as c_int,
        Ok(Err(failure)) => note(&failure),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied();
            let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let text = format!("a bug of the library was caught: {}", said.unwrap_or("it did not say which"));
            note(&Failure::new(mirrorbus_code::MIRRORBUS_E_INTERNAL, text))
        }
    }
}

/// Keeps the text for the thread that asks.
#[cold]
#[inline(never)]
fn note(failure: &Failure) -> c_int {
    let text = CString::new(failure.text.replace('\0', "?")).unwrap_or_default();
    // A thread that ends has none any more; its code says enough.
    let _ = TEXT.try_with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = text));
    failure.code as c_int
}

/// The text of the last call of this thread that failed; empty before the first. It stays where it is until the next that fails.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_error_text() -> *const c_char {
    let kept = TEXT.try_with(|kept| kept.try_borrow().map_or(c"".as_ptr(), |kept| kept.as_ptr()));
    kept.unwrap_or(c"".as_ptr())
}

/// The name of a code, such as "MIRRORBUS_E_TIMEOUT"; "unknown" for others. It stays where it is.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_code_name(code: c_int) -> *const c_char {
    let name: &'static CStr = mirrorbus_code::name(code);
    name.as_ptr()
}
