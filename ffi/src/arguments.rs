//! What comes over the boundary, looked at before it is believed.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use mirrorbus::epoch::EpochLayout;
use mirrorbus::memory::LockPolicy;
use mirrorbus::{Deadline, FabricUrl, KeySet, Level};

use crate::codes::{Failure, mirrorbus_code};
use crate::types::MIRRORBUS_FOREVER;

/// Bytes that a struct has at most in any version.
const STRUCT_BYTES_MAX: usize = 4096;

/// A struct that begins with its own size, so that programs and libraries of different versions understand each other.
///
/// # Safety
/// It is `repr(C)`, its first field is a `usize` with its size, there is no padding but at its end, and all zeroes is a value of it.
pub(crate) unsafe trait Measured: Copy {
    /// What it is called.
    const NAME: &'static str;
    /// Its size in the first version that had it.
    const FIRST_BYTES: usize;
}

/// The size that a struct says it has.
///
/// # Safety
/// `pointer` is null, or has a `usize` at it.
pub(crate) unsafe fn stated<T: Measured>(pointer: *const T) -> Result<usize, Failure> {
    if pointer.is_null() || !pointer.is_aligned() {
        let what = if pointer.is_null() { "a null pointer" } else { "not aligned" };
        return Err(Failure::invalid(format!("{} is {what}", T::NAME)));
    }
    // SAFETY: it is neither null nor unaligned, and begins with its size.
    let bytes = unsafe { pointer.cast::<usize>().read() };
    if (T::FIRST_BYTES..=STRUCT_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    let (name, first) = (T::NAME, T::FIRST_BYTES);
    Err(Failure::invalid(format!("the size in {name} is {bytes}, not sizeof of it ({first} or more)")))
}

/// Takes a struct of the caller's: what his version lacks is zero.
///
/// # Safety
/// `pointer` is null, or has as many bytes as the struct says.
pub(crate) unsafe fn take<T: Measured>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: by this function's contract.
    let bytes = unsafe { stated(pointer) }?;
    let known = size_of::<T>();
    if bytes > known {
        // SAFETY: the caller's struct has more bytes than this.
        let end = unsafe { pointer.cast::<u8>().add(known) };
        // SAFETY: the caller's struct has these bytes.
        let beyond = unsafe { std::slice::from_raw_parts(end, bytes - known) };
        if beyond.iter().any(|&byte| byte != 0) {
            let text = format!("{} says something that this version of the library does not know", T::NAME);
            return Err(Failure::new(mirrorbus_code::MIRRORBUS_E_VERSION, text));
        }
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: both have so many bytes, and `value` is this function's own.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), bytes.min(known))
    };
    // SAFETY: zeroes are a value, and so is what the caller's struct holds.
    Ok(unsafe { value.assume_init() })
}

/// [`take`] of a struct that need not be there.
///
/// # Safety
/// As there.
pub(crate) unsafe fn take_or_zero<T: Measured>(pointer: *const T) -> Result<T, Failure> {
    if pointer.is_null() {
        // SAFETY: zeroes are a value.
        return Ok(unsafe { MaybeUninit::<T>::zeroed().assume_init() });
    }
    // SAFETY: by this function's contract.
    unsafe { take(pointer) }
}

/// Fills the caller's struct, as far as his version has it.
///
/// # Safety
/// `pointer` is null, or has as many writable bytes as the struct there says.
pub(crate) unsafe fn give<T: Measured>(pointer: *mut T, value: &T) -> Result<(), Failure> {
    // SAFETY: by this function's contract.
    let bytes = unsafe { stated(pointer) }?.min(size_of::<T>());
    let head = size_of::<usize>();
    // SAFETY: every such struct has its size in front.
    let source = unsafe { std::ptr::from_ref(value).cast::<u8>().add(head) };
    // SAFETY: as above.
    let target = unsafe { pointer.cast::<u8>().add(head) };
    // SAFETY: both have these bytes; the size itself stays what the caller said.
    unsafe { std::ptr::copy_nonoverlapping(source, target, bytes - head) };
    Ok(())
}

/// Whether a value can be put there.
pub(crate) fn check_target<T>(target: *const T, what: &str) -> Result<(), Failure> {
    if target.is_null() || !target.is_aligned() {
        return Err(Failure::invalid(format!("the place for {what} is a null pointer or not aligned")));
    }
    Ok(())
}

/// Text that need not be there.
///
/// # Safety
/// `text` is null, or ends with a NUL and does not change while it is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map_err(|_| Failure::invalid(format!("{what} is not UTF-8")))?;
    Ok(Some(text))
}

/// Text that has to be there.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn needed<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: by this function's contract.
    let found = unsafe { text(pointer, what) }?;
    found.filter(|text| !text.is_empty()).ok_or_else(|| Failure::invalid(format!("{what} is missing")))
}

/// Bytes to be read. None may be at a null pointer.
///
/// # Safety
/// `data` has `bytes` bytes, which do not change while they are used.
#[inline]
pub(crate) unsafe fn bytes<'a>(data: *const c_void, bytes: usize) -> Result<&'a [u8], Failure> {
    check_range(data, bytes)?;
    if bytes == 0 {
        return Ok(&[]);
    }
    // SAFETY: by this function's contract; it is not null, and no more than a slice may have.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), bytes) })
}

/// Bytes to be written. None may be at a null pointer.
///
/// # Safety
/// `data` has `bytes` bytes, which nobody else uses meanwhile.
pub(crate) unsafe fn bytes_mut<'a>(data: *mut c_void, bytes: usize) -> Result<&'a mut [u8], Failure> {
    check_range(data, bytes)?;
    if bytes == 0 {
        return Ok(&mut []);
    }
    // SAFETY: by this function's contract; it is not null, and no more than a slice may have.
    Ok(unsafe { std::slice::from_raw_parts_mut(data.cast(), bytes) })
}

#[inline]
fn check_range(data: *const c_void, bytes: usize) -> Result<(), Failure> {
    if bytes > 0
        && (data.is_null() || bytes > isize::MAX.unsigned_abs() || data.addr().checked_add(bytes).is_none())
    {
        return Err(Failure::invalid(format!("{bytes} bytes at {data:p} cannot be")));
    }
    Ok(())
}

/// Refuses bytes that lie in the region itself: they would change while they are copied.
#[inline]
pub(crate) fn check_apart(data: &[u8], memory: &Range<usize>) -> Result<(), Failure> {
    let start = data.as_ptr().addr();
    if !data.is_empty() && start < memory.end && memory.start < start + data.len() {
        return Err(Failure::invalid("the bytes lie in the region's own memory: store from a copy of them"));
    }
    Ok(())
}

/// An offset or a length in this process' memory.
#[inline]
pub(crate) fn place(value: u64, what: &str) -> Result<usize, Failure> {
    usize::try_from(value).map_err(|_| {
        Failure::new(mirrorbus_code::MIRRORBUS_E_RANGE, format!("{what} {value} does not fit in memory"))
    })
}

/// A wait's end.
#[inline]
pub(crate) const fn deadline(timeout_ns: u64) -> Deadline {
    if timeout_ns == MIRRORBUS_FOREVER {
        return Deadline::within(Duration::MAX);
    }
    Deadline::within(Duration::from_nanos(timeout_ns))
}

/// So long, or what is usual where nothing is said.
pub(crate) const fn duration_or(ns: u64, usual: Duration) -> Duration {
    match ns {
        0 => usual,
        MIRRORBUS_FOREVER => Duration::MAX,
        ns => Duration::from_nanos(ns),
    }
}

/// A level by its number.
#[inline]
pub(crate) fn level(number: c_int) -> Result<Level, Failure> {
    Ok(match number {
        1 => Level::Posted,
        2 => Level::Acked,
        3 => Level::Visible,
        4 => Level::Durable,
        other => return Err(unknown("level", other)),
    })
}

/// A policy of locking by its number.
pub(crate) fn lock(number: c_int) -> Result<LockPolicy, Failure> {
    Ok(match number {
        0 => LockPolicy::Required,
        1 => LockPolicy::Try,
        2 => LockPolicy::Off,
        other => return Err(unknown("lock", other)),
    })
}

/// Says that a number means nothing.
#[cold]
pub(crate) fn unknown(what: &str, number: c_int) -> Failure {
    Failure::invalid(format!("there is no {what} {number}"))
}

/// The address that a text is.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn url(pointer: *const c_char, what: &str) -> Result<FabricUrl, Failure> {
    // SAFETY: by this function's contract.
    let text = unsafe { needed(pointer, what) }?;
    text.parse().map_err(|error| Failure::invalid(format!("{what} {text:?}: {error}")))
}

/// The keys in a file.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn keys(path: *const c_char) -> Result<KeySet, Failure> {
    // SAFETY: by this function's contract.
    let path = unsafe { needed(path, "key_file") }?;
    KeySet::load(Path::new(path)).map_err(|error| Failure::of(mirrorbus_code::MIRRORBUS_E_KEY, &error))
}

/// The 16 bytes that 32 hexadecimal digits are.
pub(crate) fn id(text: &str, what: &str) -> Result<[u8; 16], Failure> {
    let number = (text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
        .filter(|&number| number != 0);
    let number = number.ok_or_else(|| {
        Failure::invalid(format!("{what} {text:?} is not 32 hexadecimal digits, not all of them 0"))
    })?;
    Ok(number.to_be_bytes())
}

/// Puts text into an array of fixed size, with a NUL behind it, cut off where it does not fit.
pub(crate) fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut target = [0; N];
    for (place, byte) in target.iter_mut().zip(&text.as_bytes()[..end]) {
        *place = c_char::from_ne_bytes([*byte]);
    }
    target
}

/// Sizes of a memory of epochs and its ring.
pub(crate) fn epoch_layout(bytes: u64, ring_bytes: u64) -> Result<EpochLayout, Failure> {
    let bytes = place(bytes, "bytes")?;
    let made = match ring_bytes {
        0 => EpochLayout::new(bytes),
        ring => EpochLayout::with_ring(bytes, place(ring, "ring_bytes")?),
    };
    Ok(made?)
}
