//! What is passed in structs and numbers about epochs.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_char, c_int};

/// How the pages are found that a program stored to; docs/epoch.md says what each needs.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_tracking {
    /// The best that works here.
    MIRRORBUS_TRACKING_BEST = 0,
    /// By the kernel, from Linux 6.9 on.
    MIRRORBUS_TRACKING_WP_ASYNC = 1,
    /// By the kernel's soft-dirty bits.
    MIRRORBUS_TRACKING_SOFT_DIRTY = 2,
    /// By a handler of SIGSEGV: everywhere. System calls that store there need mirrorbus_epochs_prepare().
    MIRRORBUS_TRACKING_MPROTECT = 3,
}

/// How a memory of epochs is opened. Zero is the usual, but for `size`, `url`, `bytes`, `key_file` and `attach`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_epochs_options {
    /// sizeof of this struct.
    pub size: usize,
    /// The holder, one of epochs: mirrorbus_epoch_holder_open(), or `mirrorbus hold --epochs`.
    pub url: *const c_char,
    /// Bytes of the memory, a multiple of 8; the holder must have as many.
    pub bytes: u64,
    /// Bytes of the ring, a multiple of 4096, which an epoch has to fit in; the holder must have as many. 0: as usual for `bytes`.
    pub ring_bytes: u64,
    /// The key file that both sides have.
    pub key_file: *const c_char,
    /// 32 hexadecimal digits: the region's name, where it is known; a pull of another is refused. Null: any, and a push makes a new one.
    pub id: *const c_char,
    /// A mirrorbus_attach. A push makes zeroes epoch 0; anything else takes the holder's last whole epoch.
    pub attach: c_int,
    /// A mirrorbus_lock.
    pub lock: c_int,
    /// A mirrorbus_tracking.
    pub tracking: c_int,
    /// Not used.
    pub reserved: c_int,
    /// How long the holder is not heard before it is called silent, in nanoseconds; 0: 2 s.
    pub silence_ns: u64,
    /// How long opening waits for the holder at each step; 0: 10 s.
    pub timeout_ns: u64,
}

/// What a cut found. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_cut {
    /// sizeof of this struct.
    pub size: usize,
    /// The epoch's number; that of the one before when nothing changed, for then none is made.
    pub epoch: u64,
    /// Pages that were looked at.
    pub pages: u64,
    /// Ranges that are shipped.
    pub ranges: u64,
    /// Bytes of the words of 8 that changed.
    pub changed_bytes: u64,
    /// Bytes that are shipped for it.
    pub shipped_bytes: u64,
}

/// How a memory of epochs is. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_epochs_status {
    /// sizeof of this struct.
    pub size: usize,
    /// Bytes of the memory.
    pub bytes: u64,
    /// The last epoch that was cut; that of the content at first.
    pub epoch: u64,
    /// The epoch that is cut and not shipped; 0: none is.
    pub unshipped: u64,
    /// The mirrorbus_tracking that is used.
    pub tracking: c_int,
    /// A mirrorbus_link.
    pub link: c_int,
    /// 32 digits: the region's name.
    pub id: [c_char; 40],
    /// Why stores are found so, and not by a better method.
    pub tracking_reason: [c_char; 256],
    /// Why the link is lost; else "". Cut off where it is longer.
    pub reason: [c_char; 256],
}

/// How a memory of epochs was connected again. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_epochs_reconnected {
    /// sizeof of this struct.
    pub size: usize,
    /// The last epoch that was cut, if the holder has it not: it was dropped, and with it all behind the holder's. What they changed is in the
    /// memory still, and in the next epoch that is cut. 0: none was dropped.
    pub dropped: u64,
    /// 1: the holder knew this owner, and the epoch under way goes on. 0: it did not, and the region was opened anew.
    pub resumed: c_int,
    /// Not used.
    pub reserved: c_int,
}

/// How a holder of epochs is. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_epoch_holder_status {
    /// sizeof of this struct.
    pub size: usize,
    /// Counts every change of the owner's access: mirrorbus_epoch_holder_wait_change() takes it. Epochs are no such change.
    pub changes: u64,
    /// The epoch that the copy holds.
    pub epoch: u64,
    /// Number of the grant in force, or of the last.
    pub generation: u32,
    /// 1 if there is a whole epoch: an owner's first push is complete.
    pub whole: c_int,
    /// 1 while an owner has access, connected or not.
    pub attached: c_int,
    /// 1 while an owner is connected.
    pub connected: c_int,
    /// 1 while the connected owner is silent.
    pub silent: c_int,
    /// 32 digits: the region's name, once an owner attached; else "".
    pub region: [c_char; 36],
    /// Why no further epoch is applied, if something is wrong with what the owner wrote; else "". Cut off where it is longer.
    pub trouble: [c_char; 256],
}

crate::types::measured! {
    mirrorbus_epochs_options mirrorbus_cut mirrorbus_epochs_status mirrorbus_epochs_reconnected mirrorbus_epoch_holder_status
}
