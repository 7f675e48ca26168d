//! The copy that every store pays twice.
//!
//! Others may write source or destination during the copy, so no Rust reference to those bytes may exist and the
//! compiler must not be told of the accesses: on x86-64 they are inline assembly, elsewhere and under Miri volatile. A
//! race then gives some mix of old and new bytes, torn anywhere, and nothing worse. (Miri reports such a race all the
//! same: tests that race on purpose do not run there.)
//!
//! No non-temporal stores: what is stored is read soon, and ordinary stores keep the order that the fabrics rely on
//! (all bytes of a copy are visible before any later store; among themselves they have no order).

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) use super::copy_x86_64::{copy_racy, copy_racy_twice, has_wide, prepare};

/// Nothing to find out.
#[cfg(any(not(target_arch = "x86_64"), miri))]
pub(super) const fn prepare() {}

/// No register is that wide.
#[cfg(any(not(target_arch = "x86_64"), miri))]
pub(super) const fn has_wide() -> bool {
    false
}

/// Copies `len` bytes; the ranges must not overlap.
///
/// # Safety
/// `source` is readable and `destination` writable for `len` bytes.
#[cfg(any(not(target_arch = "x86_64"), miri))]
#[inline]
pub(super) unsafe fn copy_racy(source: *const u8, destination: *mut u8, len: usize) {
    /// Two registers' worth, which the compiler moves with one load and one store where it can.
    type Pair = [u64; 2];
    const PAIR: usize = size_of::<Pair>();
    let aligned = source.addr() % align_of::<Pair>() == 0 && destination.addr() % align_of::<Pair>() == 0;
    let mut done = 0;
    while aligned && len - done >= PAIR {
        // SAFETY: PAIR bytes at `done` lie within what the caller vouches for.
        let from = unsafe { source.add(done) }.cast::<Pair>();
        // SAFETY: as above, for the destination.
        let to = unsafe { destination.add(done) }.cast::<Pair>();
        // SAFETY: readable and, as checked, aligned.
        let pair = unsafe { from.read_volatile() };
        // SAFETY: writable and, as checked, aligned.
        unsafe { to.write_volatile(pair) };
        done += PAIR;
    }
    while len - done >= 8 {
        // SAFETY: eight bytes at `done` lie within what the caller vouches for.
        let from = unsafe { source.add(done) }.cast::<Unaligned>();
        // SAFETY: as above, for the destination.
        let to = unsafe { destination.add(done) }.cast::<Unaligned>();
        // SAFETY: readable; the type has no alignment.
        let word = unsafe { from.read_volatile() };
        // SAFETY: writable; the type has no alignment.
        unsafe { to.write_volatile(word) };
        done += 8;
    }
    while done < len {
        // SAFETY: done < len.
        let from = unsafe { source.add(done) };
        // SAFETY: done < len.
        let to = unsafe { destination.add(done) };
        // SAFETY: readable.
        let byte = unsafe { from.read_volatile() };
        // SAFETY: writable.
        unsafe { to.write_volatile(byte) };
        done += 1;
    }
}

/// Copies `len` bytes to two places; no two of the three ranges may overlap.
///
/// # Safety
/// `source` is readable and both destinations writable for `len` bytes.
#[cfg(any(not(target_arch = "x86_64"), miri))]
#[inline]
pub(super) unsafe fn copy_racy_twice(
    source: *const u8,
    first: *mut u8,
    second: *mut u8,
    len: usize,
    _wide: bool,
) {
    // SAFETY: as the caller vouches.
    unsafe { copy_racy(source, first, len) };
    // SAFETY: as the caller vouches.
    unsafe { copy_racy(source, second, len) };
}

/// Eight bytes at any address: one load or store on processors that allow it, which these all do.
#[cfg(any(not(target_arch = "x86_64"), miri))]
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned(u64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{copy_racy, copy_racy_twice, has_wide, prepare};

    /// Copies `len` bytes between the given misalignments and checks them and a margin on both sides.
    fn check(source_at: usize, destination_at: usize, len: usize) {
        const MARGIN: usize = 64;
        let byte = |at: usize| u8::try_from(at * 7 % 251).expect("below 251");
        let source: Vec<u8> = (0..MARGIN + source_at + len + MARGIN).map(byte).collect();
        let mut destination = vec![0xEE; MARGIN + destination_at + len + MARGIN];
        let mut model = destination.clone();
        let (from, to) = (MARGIN + source_at, MARGIN + destination_at);
        model[to..to + len].copy_from_slice(&source[from..from + len]);
        let into = destination[to..].as_mut_ptr();
        // SAFETY: both vectors hold `len` bytes at these places.
        unsafe { copy_racy(source[from..].as_ptr(), into, len) };
        assert!(destination == model, "{len} bytes from {source_at} to {destination_at}");
        let mut both = [vec![0xEE; model.len()], vec![0xEE; model.len()]];
        let [first, second] = both.each_mut().map(|bytes| bytes[to..].as_mut_ptr());
        prepare();
        // SAFETY: as above, for both.
        unsafe { copy_racy_twice(source[from..].as_ptr(), first, second, len, has_wide()) };
        assert!(
            both.iter().all(|bytes| *bytes == model),
            "{len} bytes from {source_at} twice to {destination_at}"
        );
    }

    #[test]
    fn every_small_size_at_every_alignment() {
        let (sizes, step) = if cfg!(miri) { (0..70, 7) } else { (0..300, 1) };
        // Under Miri those where a word begins and ends: what lies between takes minutes.
        for len in sizes.filter(|len| !cfg!(miri) || len % 8 < 2) {
            for source_at in (0..16).step_by(step) {
                for destination_at in (0..16).step_by(step) {
                    check(source_at, destination_at, len);
                }
            }
        }
    }

    #[test]
    fn sizes_around_each_change_of_method() {
        for edge in [512, 1024, 2048, 4096, 8192, 16384, 65536, 1 << 20] {
            for len in [edge - 65, edge - 1, edge, edge + 1, edge + 33, edge + 255] {
                if !cfg!(miri) || len < 600 {
                    check(len % 61, len % 17, len);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 2 } else { 256 }, ..ProptestConfig::default() })]
        #[test]
        fn any_size_at_any_alignment(source_at in 0_usize..64, destination_at in 0_usize..64,
                                     len in 0_usize..if cfg!(miri) { 200 } else { 40_000 }) {
            check(source_at, destination_at, len);
        }
    }
}
