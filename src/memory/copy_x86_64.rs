//! The racy copy on x86-64, in assembly: the compiler sees neither the loads nor the stores.
//!
//! | bytes | method |
//! |---|---|
//! | 0–31 | two overlapping moves of 1, 2, 4, 8 or 16 bytes |
//! | 32–64 | inlined: two 16-byte moves from each end |
//! | to 8 registers | one, two or four register moves from each end, all loads before all stores |
//! | to the `rep` threshold | four registers a turn, destination aligned; unaligned head and tail |
//! | above | `rep movsb` where the processor says that it is fast (ERMS) |
//!
//! "Register" is 16, 32 or 64 bytes by what the processor has, found out once. 64-byte registers are used only beside
//! FSRM, which keeps away from the processors that lower their clock for them. Two moves from each end cover any size
//! between two and four registers without a branch: they overlap.

use std::arch::asm;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// From here on `rep movsb` beats each width of register: it does not read what it overwrites, so it wins in memory that
/// is in no cache before it wins in memory that is (measured on Zen 5).
const REP_FROM_XMM: usize = 2048;
const REP_FROM_YMM: usize = 4096;
const REP_FROM_ZMM: usize = 4096;
/// For processors where `rep movsb` is not known to be fast.
const REP_NEVER: usize = usize::MAX;

/// A copy as [`copy_racy`], of more than 64 bytes.
type CopyLarge = unsafe fn(*const u8, *mut u8, usize);

/// The one for this processor; at first, one that finds it out. A pointer, as a dynamic linker would place it, costs one
/// predicted call where a choice would cost several branches.
static COPY_LARGE: AtomicPtr<()> = AtomicPtr::new(copy_first as *mut ());

/// Whether 64 bytes go through one register; found out by [`prepare`].
static HAS_WIDE: AtomicBool = AtomicBool::new(false);

/// Finds out what this processor has. Without it copies work too, some more slowly.
pub(super) fn prepare() {
    HAS_WIDE.store(has_fsrm() && is_x86_feature_detected!("avx512f"), Ordering::Relaxed);
}

/// Fast short `rep movsb`: CPUID leaf 7, EDX bit 4.
fn has_fsrm() -> bool {
    const FSRM: u32 = 1 << 4;
    if !is_x86_feature_detected!("ermsb") {
        return false;
    }
    #[allow(unused_unsafe, reason = "safe to call only in newer compilers than the oldest supported")]
    // SAFETY: a processor with ERMS has leaf 7, where ERMS itself is told.
    let leaf = unsafe { std::arch::x86_64::__cpuid_count(7, 0) };
    leaf.edx & FSRM != 0
}

/// Copies `len` bytes; the ranges must not overlap.
///
/// # Safety
/// `source` is readable and `destination` writable for `len` bytes.
#[inline]
pub(super) unsafe fn copy_racy(source: *const u8, destination: *mut u8, len: usize) {
    if len.wrapping_sub(32) <= 32 {
        // SAFETY: 32 <= len <= 64, so 32 bytes from each end lie within and cover all.
        unsafe {
            asm!(
                "movups {a}, [{s}]",
                "movups {b}, [{s} + 16]",
                "movups {c}, [{s} + {n} - 32]",
                "movups {e}, [{s} + {n} - 16]",
                "movups [{d}], {a}",
                "movups [{d} + 16], {b}",
                "movups [{d} + {n} - 32], {c}",
                "movups [{d} + {n} - 16], {e}",
                s = in(reg) source,
                d = in(reg) destination,
                n = in(reg) len,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                e = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
        }
    } else if len > 64 {
        let copy = COPY_LARGE.load(Ordering::Relaxed);
        // SAFETY: what is stored there is always such a function.
        let copy = unsafe { std::mem::transmute::<*mut (), CopyLarge>(copy) };
        // SAFETY: as the caller vouches; the processor has what the chosen one needs.
        unsafe { copy(source, destination, len) };
    } else {
        // SAFETY: as the caller vouches; len < 32.
        unsafe { copy_small(source, destination, len) };
    }
}

/// Whether 64 bytes go through one register: for [`copy_racy_twice`], whose caller keeps it where it looks anyway.
pub(super) fn has_wide() -> bool {
    HAS_WIDE.load(Ordering::Relaxed)
}

/// Copies `len` bytes to two places; no two of the three ranges may overlap.
///
/// # Safety
/// `source` is readable and both destinations writable for `len` bytes; `wide` is not true unless [`has_wide`] is.
#[inline(always)]
pub(super) unsafe fn copy_racy_twice(
    source: *const u8,
    first: *mut u8,
    second: *mut u8,
    len: usize,
    wide: bool,
) {
    if len == 64 && wide {
        // SAFETY: 64 bytes each, and the processor has the registers.
        unsafe {
            asm!(
                "vmovdqu64 zmm16, [{s}]",
                "vmovdqu64 [{f}], zmm16",
                "vmovdqu64 [{g}], zmm16",
                s = in(reg) source,
                f = in(reg) first,
                g = in(reg) second,
                out("xmm16") _,
                options(nostack, preserves_flags),
            );
        }
    } else if len.wrapping_sub(32) <= 32 {
        // SAFETY: 32 <= len <= 64, so 32 bytes from each end lie within and cover all, in each place.
        unsafe {
            asm!(
                "movups {a}, [{s}]",
                "movups {b}, [{s} + 16]",
                "movups {c}, [{s} + {n} - 32]",
                "movups {e}, [{s} + {n} - 16]",
                "movups [{f}], {a}",
                "movups [{f} + 16], {b}",
                "movups [{f} + {n} - 32], {c}",
                "movups [{f} + {n} - 16], {e}",
                "movups [{g}], {a}",
                "movups [{g} + 16], {b}",
                "movups [{g} + {n} - 32], {c}",
                "movups [{g} + {n} - 16], {e}",
                s = in(reg) source,
                f = in(reg) first,
                g = in(reg) second,
                n = in(reg) len,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                e = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
        }
    } else {
        // SAFETY: as the caller vouches.
        unsafe { copy_racy(source, first, len) };
        // SAFETY: as the caller vouches.
        unsafe { copy_racy(source, second, len) };
    }
}

/// Moves one register from each end, so that `len` from one to two registers are covered.
macro_rules! both_ends {
    ($move:literal, $class:ident, $width:literal $(, $modifier:literal)?; $source:ident, $destination:ident, $len:ident) => {
        asm!(
            concat!($move, " {a", $($modifier,)? "}, [{s}]"),
            concat!($move, " {b", $($modifier,)? "}, [{s} + {n} - ", $width, "]"),
            concat!($move, " [{d}], {a", $($modifier,)? "}"),
            concat!($move, " [{d} + {n} - ", $width, "], {b", $($modifier,)? "}"),
            s = in(reg) $source,
            d = in(reg) $destination,
            n = in(reg) $len,
            a = out($class) _,
            b = out($class) _,
            options(nostack, preserves_flags),
        )
    };
}

/// # Safety
/// As [`copy_racy`], with `len` below 32.
#[inline(never)]
unsafe fn copy_small(source: *const u8, destination: *mut u8, len: usize) {
    if len >= 16 {
        // SAFETY: 16 <= len < 32: both moves lie within.
        unsafe { both_ends!("movups", xmm_reg, 16; source, destination, len) };
    } else if len >= 8 {
        // SAFETY: 8 <= len < 16: both moves lie within.
        unsafe { both_ends!("mov", reg, 8; source, destination, len) };
    } else if len >= 4 {
        // SAFETY: 4 <= len < 8: both moves lie within.
        unsafe { both_ends!("mov", reg, 4, ":e"; source, destination, len) };
    } else if len >= 2 {
        // SAFETY: 2 <= len < 4: both moves lie within.
        unsafe { both_ends!("mov", reg, 2, ":x"; source, destination, len) };
    } else if len == 1 {
        // SAFETY: one byte.
        unsafe { both_ends!("mov", reg_byte, 1; source, destination, len) };
    }
}

/// # Safety
/// As [`copy_racy`], with `len` above 64.
#[cold]
unsafe fn copy_first(source: *const u8, destination: *mut u8, len: usize) {
    let copy = *methods().last().expect("SSE is always there");
    COPY_LARGE.store(copy as *mut (), Ordering::Relaxed);
    // SAFETY: as the caller vouches; the processor has what is in the list.
    unsafe { copy(source, destination, len) };
}

/// What this processor has, best last.
fn methods() -> Vec<CopyLarge> {
    let erms = is_x86_feature_detected!("ermsb");
    let fsrm = has_fsrm();
    let avx = is_x86_feature_detected!("avx");
    let choices: [(bool, CopyLarge); 5] = [
        (true, copy_xmm::<REP_NEVER>),
        (erms, copy_xmm::<REP_FROM_XMM>),
        (avx, copy_ymm::<REP_NEVER>),
        (avx && erms, copy_ymm::<REP_FROM_YMM>),
        (fsrm && is_x86_feature_detected!("avx512f"), copy_zmm::<REP_FROM_ZMM>),
    ];
    choices.into_iter().filter(|&(there, _)| there).map(|(_, copy)| copy).collect()
}

/// # Safety
/// As [`copy_racy`].
#[inline(always)]
unsafe fn copy_rep(source: *const u8, destination: *mut u8, len: usize) {
    // SAFETY: as the caller vouches; the ABI keeps the direction flag clear.
    unsafe {
        asm!(
            "rep movsb",
            inout("rsi") source => _,
            inout("rdi") destination => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Defines a copy by registers `$r0`–`$r7` of `$width` bytes; `len` must be above twice the width.
///
/// All branches are within one block of assembly, so that `vzeroupper` ends each path.
macro_rules! copy_by {
    ($name:ident, $move:literal, $width:literal,
     $r0:literal $r1:literal $r2:literal $r3:literal $r4:literal $r5:literal $r6:literal $r7:literal,
     end $end:literal, clobbers $($clobber:tt)*) => {
        /// # Safety
        /// As [`copy_racy`], with `len` above two registers, on a processor that has these registers.
        unsafe fn $name<const REP_FROM: usize>(source: *const u8, destination: *mut u8, len: usize) {
            if len >= REP_FROM {
                // SAFETY: as the caller vouches.
                unsafe { copy_rep(source, destination, len) };
                return;
            }
            // SAFETY: each move lies within `len` bytes of its start: the ends overlap where `len` is no multiple,
            // and the loop stops four registers short of the end. `{n}` becomes the place where it stops.
            unsafe {
                asm!(
                    "cmp {n}, 8*{w}",
                    "ja 4f",
                    concat!($move, " ", $r0, ", [{s}]"),
                    concat!($move, " ", $r1, ", [{s} + {w}]"),
                    concat!($move, " ", $r2, ", [{s} + {n} - 2*{w}]"),
                    concat!($move, " ", $r3, ", [{s} + {n} - {w}]"),
                    "cmp {n}, 4*{w}",
                    "jbe 3f",
                    concat!($move, " ", $r4, ", [{s} + 2*{w}]"),
                    concat!($move, " ", $r5, ", [{s} + 3*{w}]"),
                    concat!($move, " ", $r6, ", [{s} + {n} - 4*{w}]"),
                    concat!($move, " ", $r7, ", [{s} + {n} - 3*{w}]"),
                    concat!($move, " [{d} + 2*{w}], ", $r4),
                    concat!($move, " [{d} + 3*{w}], ", $r5),
                    concat!($move, " [{d} + {n} - 4*{w}], ", $r6),
                    concat!($move, " [{d} + {n} - 3*{w}], ", $r7),
                    "3:",
                    concat!($move, " [{d}], ", $r0),
                    concat!($move, " [{d} + {w}], ", $r1),
                    concat!($move, " [{d} + {n} - 2*{w}], ", $r2),
                    concat!($move, " [{d} + {n} - {w}], ", $r3),
                    "jmp 6f",
                    // The loop: the first register unaligned, then from the next aligned place of the destination.
                    "4:",
                    concat!($move, " ", $r0, ", [{s}]"),
                    concat!($move, " ", $r4, ", [{s} + {n} - 4*{w}]"),
                    concat!($move, " ", $r5, ", [{s} + {n} - 3*{w}]"),
                    concat!($move, " ", $r6, ", [{s} + {n} - 2*{w}]"),
                    concat!($move, " ", $r7, ", [{s} + {n} - {w}]"),
                    concat!($move, " [{d}], ", $r0),
                    "lea {n}, [{d} + {n} - 4*{w}]",
                    "sub {s}, {d}",
                    "and {d}, -{w}",
                    "add {d}, {w}",
                    ".p2align 5",
                    "5:",
                    concat!($move, " ", $r0, ", [{s} + {d}]"),
                    concat!($move, " ", $r1, ", [{s} + {d} + {w}]"),
                    concat!($move, " ", $r2, ", [{s} + {d} + 2*{w}]"),
                    concat!($move, " ", $r3, ", [{s} + {d} + 3*{w}]"),
                    concat!($move, " [{d}], ", $r0),
                    concat!($move, " [{d} + {w}], ", $r1),
                    concat!($move, " [{d} + 2*{w}], ", $r2),
                    concat!($move, " [{d} + 3*{w}], ", $r3),
                    "add {d}, 4*{w}",
                    "cmp {d}, {n}",
                    "jb 5b",
                    concat!($move, " [{n}], ", $r4),
                    concat!($move, " [{n} + {w}], ", $r5),
                    concat!($move, " [{n} + 2*{w}], ", $r6),
                    concat!($move, " [{n} + 3*{w}], ", $r7),
                    "6:",
                    $end,
                    w = const $width,
                    s = inout(reg) source => _,
                    d = inout(reg) destination => _,
                    n = inout(reg) len => _,
                    $($clobber)*
                    options(nostack),
                );
            }
        }
    };
}

copy_by!(copy_xmm, "movups", 16, "xmm0" "xmm1" "xmm2" "xmm3" "xmm4" "xmm5" "xmm6" "xmm7", end "",
    clobbers out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
             out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,);

// `vzeroupper` clears the upper halves of all sixteen.
copy_by!(copy_ymm, "vmovdqu", 32, "ymm0" "ymm1" "ymm2" "ymm3" "ymm4" "ymm5" "ymm6" "ymm7", end "vzeroupper",
    clobbers out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
             out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
             out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
             out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,);

// The upper sixteen do not slow later SSE code down and need no `vzeroupper`.
copy_by!(copy_zmm_many, "vmovdqu64", 64, "zmm16" "zmm17" "zmm18" "zmm19" "zmm20" "zmm21" "zmm22" "zmm23", end "",
    clobbers out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _,
             out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _,);

/// # Safety
/// As [`copy_racy`], with `len` of at least 64, on a processor with AVX-512F.
unsafe fn copy_zmm<const REP_FROM: usize>(source: *const u8, destination: *mut u8, len: usize) {
    if len > 128 {
        // SAFETY: above two registers.
        unsafe { copy_zmm_many::<REP_FROM>(source, destination, len) };
        return;
    }
    // SAFETY: 64 <= len <= 128, so 64 bytes from each end lie within and cover all.
    unsafe {
        asm!(
            "vmovdqu64 zmm16, [{s}]",
            "vmovdqu64 zmm17, [{s} + {n} - 64]",
            "vmovdqu64 [{d}], zmm16",
            "vmovdqu64 [{d} + {n} - 64], zmm17",
            s = in(reg) source,
            d = in(reg) destination,
            n = in(reg) len,
            out("xmm16") _,
            out("xmm17") _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widths below the best one are not reached through `copy_racy` on this processor: each is tried here.
    #[test]
    fn every_method_that_this_processor_has_copies() {
        let source: Vec<u8> =
            (0..20_000_usize).map(|at| u8::try_from(at * 7 % 251).expect("below")).collect();
        for (method, copy) in methods().into_iter().enumerate() {
            for len in (65..1200).chain([2047, 2048, 2049, 4095, 4097, 16_383, 16_385]) {
                for at in [0, 1, 31, 63] {
                    let mut destination = vec![0xEE_u8; len + 200];
                    let into = destination[64 + at..].as_mut_ptr();
                    // SAFETY: both hold the bytes, and the processor has the method.
                    unsafe { copy(source[at / 2..].as_ptr(), into, len) };
                    let copied = &destination[64 + at..64 + at + len];
                    assert!(copied == &source[at / 2..at / 2 + len], "method {method}, {len} bytes at {at}");
                    let margin = destination[..64 + at].iter().chain(&destination[64 + at + len..]);
                    assert!(
                        margin.copied().all(|byte| byte == 0xEE),
                        "method {method}, {len} bytes at {at}: margin"
                    );
                }
            }
        }
    }
}
