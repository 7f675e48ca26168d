//! A range of memory that others may change at any moment.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::copy::copy_racy;

/// A range of mapped memory. Bytes are copied in and out; no reference to them can be had.
#[derive(Clone, Copy)]
pub struct VolatileSlice<'a> {
    start: *mut u8,
    len: usize,
    mapping: PhantomData<&'a ()>,
}

// SAFETY: the slice gives copies only, and those are defined while others write (see `copy`).
unsafe impl Send for VolatileSlice<'_> {}
// SAFETY: as above.
unsafe impl Sync for VolatileSlice<'_> {}

impl<'a> VolatileSlice<'a> {
    /// # Safety
    /// `len` bytes at `start` stay mapped readable, and writable if they are ever written, for `'a`.
    pub(super) const unsafe fn new(start: *mut u8, len: usize) -> Self {
        Self { start, len, mapping: PhantomData }
    }

    /// Where it starts, for what keeps the mapping itself.
    pub(super) const fn start(&self) -> *mut u8 {
        self.start
    }

    /// Where it starts, for code that reads the memory by itself, as programs in C do. It may change at any moment.
    #[must_use]
    pub const fn as_ptr(&self) -> *const u8 {
        self.start
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `len` bytes at `offset` lie within.
    #[inline]
    #[must_use]
    pub const fn contains(&self, offset: usize, len: usize) -> bool {
        offset <= self.len && len <= self.len - offset
    }

    /// `len` bytes at `offset`, or `None` when they do not lie within.
    #[inline]
    #[must_use]
    pub fn subslice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'a>> {
        if !self.contains(offset, len) {
            return None;
        }
        // SAFETY: offset <= self.len, so the pointer stays within the mapping or one past its end.
        let start = unsafe { self.start.add(offset) };
        Some(VolatileSlice { start, len, mapping: PhantomData })
    }

    /// Copies the bytes at `offset` to `target`.
    ///
    /// # Panics
    /// When they do not lie within.
    #[inline]
    pub fn read(&self, offset: usize, target: &mut [u8]) {
        assert!(
            self.contains(offset, target.len()),
            "read of {} bytes at {offset} of {}",
            target.len(),
            self.len
        );
        // SAFETY: offset is within.
        let source = unsafe { self.start.add(offset) };
        // SAFETY: the range was checked; `target` is ours alone and cannot overlap a mapping.
        unsafe { copy_racy(source, target.as_mut_ptr(), target.len()) };
    }

    /// Copies `source` to the bytes at `offset`.
    ///
    /// # Panics
    /// When they do not lie within.
    #[inline]
    pub fn write(&self, offset: usize, source: &[u8]) {
        assert!(
            self.contains(offset, source.len()),
            "write of {} bytes at {offset} of {}",
            source.len(),
            self.len
        );
        // SAFETY: offset is within.
        let target = unsafe { self.start.add(offset) };
        // SAFETY: the range was checked; `source` cannot overlap a mapping.
        unsafe { copy_racy(source.as_ptr(), target, source.len()) };
    }

    /// Copies all of `source`, which must not overlap, to the bytes at `offset`.
    ///
    /// # Panics
    /// When they do not lie within.
    #[inline]
    pub fn copy_from(&self, offset: usize, source: VolatileSlice<'_>) {
        assert!(
            self.contains(offset, source.len),
            "copy of {} bytes to {offset} of {}",
            source.len,
            self.len
        );
        // SAFETY: offset is within.
        let target = unsafe { self.start.add(offset) };
        // SAFETY: both ranges were checked.
        unsafe { copy_racy(source.start, target, source.len) };
    }

    /// The bytes, as they were some time during the call.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// The aligned word at `offset`, shared with whoever else maps it.
    ///
    /// # Panics
    /// When it does not lie within or is not aligned.
    #[must_use]
    pub fn word_u64(&self, offset: usize) -> &'a AtomicU64 {
        assert!(self.contains(offset, 8), "word at {offset} of {}", self.len);
        // SAFETY: offset is within.
        let word = unsafe { self.start.add(offset) }.cast::<u64>();
        assert!(word.is_aligned(), "word at {offset} is not aligned");
        // SAFETY: mapped for 'a, aligned, and accessed by all in this process as an atomic.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// The aligned half word at `offset`, shared with whoever else maps it.
    ///
    /// # Panics
    /// When it does not lie within or is not aligned.
    #[must_use]
    pub fn word_u32(&self, offset: usize) -> &'a AtomicU32 {
        assert!(self.contains(offset, 4), "word at {offset} of {}", self.len);
        // SAFETY: offset is within.
        let word = unsafe { self.start.add(offset) }.cast::<u32>();
        assert!(word.is_aligned(), "word at {offset} is not aligned");
        // SAFETY: mapped for 'a, aligned, and accessed by all in this process as an atomic.
        unsafe { AtomicU32::from_ptr(word) }
    }
}

impl fmt::Debug for VolatileSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolatileSlice({:?}, {} bytes)", self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use crate::memory::{MapOptions, Mapping};

    fn mapping() -> Mapping {
        Mapping::anonymous(300, MapOptions::default()).expect("300 bytes")
    }

    #[test]
    fn bytes_go_in_and_out() {
        let (a, b) = (mapping(), mapping());
        a.slice().write(7, b"some bytes");
        let part = a.slice().subslice(7, 10).expect("within");
        b.slice().copy_from(290, part);
        assert_eq!(b.slice().subslice(290, 10).expect("within").to_vec(), b"some bytes");
        assert!(a.slice().subslice(291, 10).is_none() && a.slice().subslice(usize::MAX, 2).is_none());
        assert!(a.slice().subslice(300, 0).expect("the end").is_empty());
        a.slice().word_u64(16).store(u64::from_ne_bytes(*b"eight by"), Ordering::Release);
        a.slice().word_u32(24).store(u32::from_ne_bytes(*b"four"), Ordering::Release);
        assert_eq!(a.slice().subslice(16, 12).expect("within").to_vec(), b"eight byfour");
    }

    #[test]
    fn nothing_beyond_the_end_is_reached() {
        let mapping = mapping();
        let slice = mapping.slice();
        let fails =
            |access: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err();
        assert!(fails(&|| slice.write(300, &[0])) && fails(&|| slice.read(299, &mut [0, 0])));
        assert!(fails(&|| slice.copy_from(1, slice)) && fails(&|| slice.fill(usize::MAX, 2, 0)));
        assert!(fails(&|| _ = slice.word_u64(296)) && fails(&|| _ = slice.word_u32(2)));
    }

    /// Not under Miri, which reports the race that is the point here.
    #[cfg(not(miri))]
    #[test]
    fn racing_writers_leave_a_mix() {
        let mapping = mapping();
        let rounds = 2000;
        std::thread::scope(|scope| {
            for value in [1_u8, 2] {
                let slice = mapping.slice();
                scope.spawn(move || (0..rounds).for_each(|_| slice.write(1, &[value; 100])));
            }
            let mut bytes = [0; 100];
            for _ in 0..rounds {
                mapping.slice().read(1, &mut bytes);
                assert!(bytes.iter().all(|&byte| byte <= 2));
            }
        });
        assert!(mapping.slice().to_vec()[1..101].iter().all(|&byte| byte == 1 || byte == 2));
    }
}
