//! Epochs: an owner and a holder in this process.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use tempfile::TempDir;

use super::{SECOND, fails, holder_options, key_file, last_text, n, ok, text};
use crate::codes::mirrorbus_code::{
    MIRRORBUS_E_BUSY, MIRRORBUS_E_DROPPED, MIRRORBUS_E_FORKED, MIRRORBUS_E_HANDLE, MIRRORBUS_E_INVALID,
    MIRRORBUS_E_LINK_LOST, MIRRORBUS_E_RANGE, MIRRORBUS_E_REFUSED, MIRRORBUS_E_SUPERSEDED,
    MIRRORBUS_E_TOO_LARGE, MIRRORBUS_E_UNSUPPORTED,
};
use crate::epoch_holder::{
    mirrorbus_epoch_holder, mirrorbus_epoch_holder_close, mirrorbus_epoch_holder_copy,
    mirrorbus_epoch_holder_get_status, mirrorbus_epoch_holder_open, mirrorbus_epoch_holder_take_over,
    mirrorbus_epoch_holder_url, mirrorbus_epoch_holder_wait_change,
};
use crate::epoch_types::{
    mirrorbus_cut, mirrorbus_epoch_holder_status, mirrorbus_epochs_options, mirrorbus_epochs_reconnected,
    mirrorbus_epochs_status,
};
use crate::epochs::{
    EPOCHS, mirrorbus_epochs, mirrorbus_epochs_applied, mirrorbus_epochs_close, mirrorbus_epochs_commit,
    mirrorbus_epochs_cut, mirrorbus_epochs_get_status, mirrorbus_epochs_memory, mirrorbus_epochs_open,
    mirrorbus_epochs_prepare, mirrorbus_epochs_reconnect, mirrorbus_epochs_ship, mirrorbus_epochs_stored,
};

const BYTES: usize = 1 << 18;
const RING: u64 = 1 << 16;
const SOON: u64 = 20 * SECOND;

/// A holder, and what owners need.
struct Rig {
    _folder: TempDir,
    key: CString,
    url: CString,
    holder: *mut mirrorbus_epoch_holder,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = key_file(&folder);
        let anywhere = text("tcp://127.0.0.1:0");
        let mut options = holder_options(&anywhere, &key);
        options.bytes = BYTES as u64;
        let mut holder = ptr::null_mut();
        // SAFETY: the options and their texts are there.
        ok(unsafe { mirrorbus_epoch_holder_open(&raw const options, RING, &raw mut holder) });
        let mut address: [c_char; 64] = [0; 64];
        // SAFETY: the array has so many bytes.
        ok(unsafe { mirrorbus_epoch_holder_url(holder, address.as_mut_ptr(), address.len()) });
        // SAFETY: the array has so many bytes.
        fails(unsafe { mirrorbus_epoch_holder_url(holder, address.as_mut_ptr(), 4) }, MIRRORBUS_E_RANGE);
        // SAFETY: it ends with a NUL.
        let url = unsafe { CStr::from_ptr(address.as_ptr()) }.to_owned();
        Self { _folder: folder, key, url, holder }
    }

    fn options(&self, attach: c_int) -> mirrorbus_epochs_options {
        mirrorbus_epochs_options {
            size: size_of::<mirrorbus_epochs_options>(),
            url: self.url.as_ptr(),
            bytes: BYTES as u64,
            ring_bytes: RING,
            key_file: self.key.as_ptr(),
            id: ptr::null(),
            attach,
            lock: 1,
            tracking: 0,
            reserved: 0,
            silence_ns: 0,
            timeout_ns: 0,
        }
    }

    fn owner(&self, attach: c_int) -> Owner {
        let mut epochs = ptr::null_mut();
        // SAFETY: the options and their texts are there.
        ok(unsafe { mirrorbus_epochs_open(&raw const *Box::new(self.options(attach)), &raw mut epochs) });
        Owner(epochs)
    }

    fn take_over(&self) -> u64 {
        let mut epoch = u64::MAX;
        // SAFETY: there is a place for the number.
        ok(unsafe { mirrorbus_epoch_holder_take_over(self.holder, SOON, &raw mut epoch) });
        epoch
    }

    fn copy(&self) -> (u64, Vec<u8>) {
        let (mut epoch, mut bytes) = (u64::MAX, vec![0_u8; BYTES]);
        // SAFETY: there are so many bytes, and a place for the number.
        let code = unsafe {
            mirrorbus_epoch_holder_copy(self.holder, bytes.as_mut_ptr().cast(), BYTES, &raw mut epoch)
        };
        ok(code);
        (epoch, bytes)
    }

    fn status(&self) -> mirrorbus_epoch_holder_status {
        // SAFETY: zeroes are such a struct.
        let mut status: mirrorbus_epoch_holder_status = unsafe { std::mem::zeroed() };
        status.size = size_of::<mirrorbus_epoch_holder_status>();
        // SAFETY: there is such a struct.
        ok(unsafe { mirrorbus_epoch_holder_get_status(self.holder, &raw mut status) });
        status
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = mirrorbus_epoch_holder_close(self.holder);
    }
}

struct Owner(*mut mirrorbus_epochs);

impl Owner {
    /// Stores `byte` so often, as a program would.
    fn fill(&self, offset: usize, byte: u8, count: usize) {
        let (mut memory, mut bytes) = (ptr::null_mut(), 0);
        // SAFETY: there are places for both.
        ok(unsafe { mirrorbus_epochs_memory(self.0, &raw mut memory, &raw mut bytes) });
        assert!(offset + count <= BYTES && bytes == BYTES as u64);
        // SAFETY: within the memory.
        let place = unsafe { memory.cast::<u8>().add(offset) };
        // SAFETY: as above; no reference to it exists.
        unsafe { place.write_bytes(byte, count) };
    }

    fn commit(&self) -> Result<mirrorbus_cut, c_int> {
        let mut cut = cut_of(size_of::<mirrorbus_cut>());
        // SAFETY: there is such a struct.
        match unsafe { mirrorbus_epochs_commit(self.0, 2, SOON, &raw mut cut) } {
            0 => Ok(cut),
            code => Err(code),
        }
    }

    fn status(&self) -> mirrorbus_epochs_status {
        // SAFETY: zeroes are such a struct.
        let mut status: mirrorbus_epochs_status = unsafe { std::mem::zeroed() };
        status.size = size_of::<mirrorbus_epochs_status>();
        // SAFETY: there is such a struct.
        ok(unsafe { mirrorbus_epochs_get_status(self.0, &raw mut status) });
        status
    }

    /// Connects again; whether it was resumed, and what was dropped.
    fn reconnect(&self) -> Result<(c_int, u64), c_int> {
        let size = size_of::<mirrorbus_epochs_reconnected>();
        let mut found = mirrorbus_epochs_reconnected { size, dropped: 9, resumed: 9, reserved: 0 };
        // SAFETY: there is such a struct.
        match unsafe { mirrorbus_epochs_reconnect(self.0, SOON, &raw mut found) } {
            0 => Ok((found.resumed, found.dropped)),
            code => Err(code),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = mirrorbus_epochs_close(self.0);
    }
}

fn cut_of(size: usize) -> mirrorbus_cut {
    mirrorbus_cut { size, epoch: 0, pages: 0, ranges: 0, changed_bytes: 0, shipped_bytes: 0 }
}

#[test]
fn what_was_committed_is_in_the_copy() {
    let rig = Rig::new();
    assert_eq!(rig.status().whole, 0);
    // SAFETY: nothing is written to null.
    let code = unsafe { mirrorbus_epoch_holder_copy(rig.holder, ptr::null_mut(), 0, ptr::null_mut()) };
    fails(code, MIRRORBUS_E_REFUSED);
    let owner = rig.owner(1);
    let status = owner.status();
    assert!((1..=3).contains(&status.tracking) && status.tracking_reason[0] != 0 && status.link == 1);
    assert_eq!((status.bytes, status.epoch, status.unshipped), (BYTES as u64, 0, 0));
    owner.fill(100, 7, 1000);
    let cut = owner.commit().unwrap();
    assert!(cut.epoch == 1 && cut.pages >= 1 && cut.changed_bytes >= 1000, "{cut:?}");
    let mut applied = 0;
    while applied < 1 {
        // SAFETY: there is a place for the number.
        ok(unsafe { mirrorbus_epochs_applied(owner.0, SOON, &raw mut applied) });
    }
    owner.fill(200, 8, 10);
    // SAFETY: no struct is wanted.
    ok(unsafe { mirrorbus_epochs_cut(owner.0, ptr::null_mut()) });
    assert_eq!(owner.status().unshipped, 2);
    // SAFETY: no struct is wanted.
    fails(unsafe { mirrorbus_epochs_cut(owner.0, ptr::null_mut()) }, MIRRORBUS_E_REFUSED);
    ok(mirrorbus_epochs_ship(owner.0, 3, SOON));
    fails(mirrorbus_epochs_ship(owner.0, 4, SOON), MIRRORBUS_E_UNSUPPORTED);
    owner.fill(300, 9, 10);
    ok(mirrorbus_epochs_prepare(owner.0, 0, BYTES as u64));
    ok(mirrorbus_epochs_stored(owner.0, 0, 4096));
    let attached = rig.status();
    assert!(
        attached.attached == 1
            && attached.connected == 1
            && attached.region[31] != 0
            && attached.region[32] == 0
    );
    assert_eq!(rig.take_over(), 2);
    let (epoch, bytes) = rig.copy();
    assert!(epoch == 2 && bytes[100..200] == [7; 100] && bytes[200..210] == [8; 10] && bytes[300] == 7);
    let mut status = attached;
    // SAFETY: there is such a struct.
    ok(unsafe { mirrorbus_epoch_holder_wait_change(rig.holder, attached.changes, SOON, &raw mut status) });
    assert!(status.changes > attached.changes && status.whole == 1 && status.trouble[0] == 0);
}

#[test]
fn an_owner_that_was_fenced_comes_back_unless_another_was_there() {
    let rig = Rig::new();
    let owner = rig.owner(1);
    owner.fill(0, 1, 8);
    owner.commit().unwrap();
    assert_eq!(owner.reconnect(), Ok((1, 0)));
    owner.fill(8, 2, 8);
    // SAFETY: no struct is wanted.
    ok(unsafe { mirrorbus_epochs_cut(owner.0, ptr::null_mut()) });
    assert_eq!(rig.take_over(), 1);
    fails(mirrorbus_epochs_ship(owner.0, 2, SOON), MIRRORBUS_E_LINK_LOST);
    assert_eq!(owner.status().link, 3);
    assert_eq!(owner.reconnect(), Ok((0, 2)));
    fails(mirrorbus_epochs_ship(owner.0, 2, SOON), MIRRORBUS_E_DROPPED);
    assert_eq!(owner.commit().unwrap().epoch, 2);
    assert_eq!(rig.take_over(), 2);
    let other = rig.owner(3);
    other.fill(16, 3, 8);
    assert_eq!(other.commit().unwrap().epoch, 3);
    drop(other);
    assert_eq!(rig.take_over(), 3);
    assert_eq!(owner.reconnect(), Err(n(MIRRORBUS_E_SUPERSEDED)));
    assert!(last_text().contains("another owner"), "{}", last_text());
    assert_eq!(rig.copy().1[..24], [[1_u8; 8], [2; 8], [3; 8]].concat()[..]);
}

#[test]
fn what_cannot_be_is_told() {
    let rig = Rig::new();
    let mut epochs = ptr::null_mut();
    for (options, code) in [
        (mirrorbus_epochs_options { attach: 0, ..rig.options(1) }, MIRRORBUS_E_INVALID),
        (mirrorbus_epochs_options { tracking: 4, ..rig.options(1) }, MIRRORBUS_E_INVALID),
        (mirrorbus_epochs_options { bytes: 12, ..rig.options(1) }, MIRRORBUS_E_INVALID),
        (mirrorbus_epochs_options { bytes: 0, ..rig.options(1) }, MIRRORBUS_E_INVALID),
        (mirrorbus_epochs_options { bytes: u64::MAX - 7, ..rig.options(1) }, MIRRORBUS_E_INVALID),
        (mirrorbus_epochs_options { ring_bytes: 1, ..rig.options(1) }, MIRRORBUS_E_INVALID),
        (mirrorbus_epochs_options { size: 8, ..rig.options(1) }, MIRRORBUS_E_INVALID),
        // Nothing whole is there yet.
        (rig.options(3), MIRRORBUS_E_REFUSED),
    ] {
        // SAFETY: the options and their texts are there.
        fails(unsafe { mirrorbus_epochs_open(&raw const options, &raw mut epochs) }, code);
    }
    assert!(epochs.is_null());
    let owner = rig.owner(1);
    for (offset, bytes) in [(BYTES as u64, 1), (u64::MAX, 2), (1, u64::MAX), (0, BYTES as u64 + 1)] {
        fails(mirrorbus_epochs_prepare(owner.0, offset, bytes), MIRRORBUS_E_RANGE);
        fails(mirrorbus_epochs_stored(owner.0, offset, bytes), MIRRORBUS_E_RANGE);
    }
    fails(mirrorbus_epochs_ship(owner.0, 0, SOON), MIRRORBUS_E_INVALID);
    owner.fill(0, 5, BYTES);
    assert_eq!(owner.commit().unwrap_err(), n(MIRRORBUS_E_TOO_LARGE));
    // The struct is looked at before anything is cut.
    let mut wrong = cut_of(3);
    // SAFETY: the struct is refused by its size.
    fails(unsafe { mirrorbus_epochs_cut(owner.0, &raw mut wrong) }, MIRRORBUS_E_INVALID);
    owner.fill(4096, 0, BYTES - 4096);
    assert_eq!(owner.commit().unwrap().epoch, 1);
    let mut byte = 0_u8;
    let place: *mut c_void = (&raw mut byte).cast();
    // SAFETY: there is one byte.
    fails(unsafe { mirrorbus_epoch_holder_copy(rig.holder, place, 1, ptr::null_mut()) }, MIRRORBUS_E_RANGE);
}

/// What every function says to this in place of its handle.
fn answers(value: usize) -> Vec<c_int> {
    let epochs: *mut mirrorbus_epochs = ptr::without_provenance_mut(value);
    let holder: *mut mirrorbus_epoch_holder = ptr::without_provenance_mut(value);
    let (mut memory, mut number, mut room) = (ptr::null_mut(), 0, [0_u64; 64]);
    room[0] = size_of::<mirrorbus_epoch_holder_status>() as u64;
    let nothing = ptr::null_mut::<c_void>();
    vec![
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epochs_memory(epochs, &raw mut memory, ptr::null_mut()) },
        mirrorbus_epochs_prepare(epochs, 0, 0),
        mirrorbus_epochs_stored(epochs, 0, 0),
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epochs_commit(epochs, 2, 0, ptr::null_mut()) },
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epochs_cut(epochs, ptr::null_mut()) },
        mirrorbus_epochs_ship(epochs, 2, 0),
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epochs_applied(epochs, 0, &raw mut number) },
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epochs_get_status(epochs, nothing.cast()) },
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epochs_reconnect(epochs, 0, ptr::null_mut()) },
        mirrorbus_epochs_close(epochs),
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epoch_holder_url(holder, ptr::null_mut(), 0) },
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epoch_holder_get_status(holder, nothing.cast()) },
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epoch_holder_wait_change(holder, 0, 0, room.as_mut_ptr().cast()) },
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epoch_holder_copy(holder, nothing, 0, ptr::null_mut()) },
        // SAFETY: it has what it asks for, but for the handle.
        unsafe { mirrorbus_epoch_holder_take_over(holder, 0, ptr::null_mut()) },
        mirrorbus_epoch_holder_close(holder),
    ]
}

#[test]
fn what_is_no_handle_is_told() {
    let rig = Rig::new();
    let owner = rig.owner(1);
    let closed = {
        let (other, handle) = (Rig::new(), rig.holder.addr());
        drop(owner);
        [other.holder.addr(), handle | 0xffff, rig.holder.addr() ^ 1 << 40]
    };
    for value in closed.into_iter().chain([0, 1, usize::MAX, (&raw const rig).addr()]) {
        assert!(answers(value).iter().all(|&answer| answer == n(MIRRORBUS_E_HANDLE)), "{value:#x}");
    }
    rig.take_over();
    // Of the other kind.
    fails(mirrorbus_epochs_close(rig.holder.cast()), MIRRORBUS_E_HANDLE);
    fails(mirrorbus_epoch_holder_close(rig.owner(2).0.cast()), MIRRORBUS_E_HANDLE);
}

#[test]
fn a_second_thread_in_a_commit_is_told() {
    let rig = Rig::new();
    let owner = rig.owner(1);
    let open = EPOCHS.shared(owner.0.addr() as u64).unwrap();
    let inside = open.alone().unwrap();
    assert_eq!(owner.commit().unwrap_err(), n(MIRRORBUS_E_BUSY));
    fails(mirrorbus_epochs_ship(owner.0, 2, SOON), MIRRORBUS_E_BUSY);
    assert_eq!(owner.reconnect(), Err(n(MIRRORBUS_E_BUSY)));
    // The memory is everybody's.
    owner.fill(0, 3, 10);
    ok(mirrorbus_epochs_prepare(owner.0, 0, 10));
    drop(inside);
    fails(mirrorbus_epochs_close(owner.0), MIRRORBUS_E_BUSY);
    drop(open);
    assert_eq!(owner.commit().unwrap().epoch, 1);
}

/// Its handle was looked up before the panic spoilt it.
#[test]
fn a_call_beside_one_that_panicked_is_told() {
    let rig = Rig::new();
    let owner = rig.owner(1);
    let shared = EPOCHS.shared(owner.0.addr() as u64).unwrap();
    let open = &*shared;
    let panicked = std::thread::scope(|scope| {
        let panic = || open.alone().map_or((), |_alone| panic!("on trial"));
        scope.spawn(panic).join().is_err()
    });
    let failure = open.alone().err().map(|failure| (failure.code, failure.text));
    let (code, text) = failure.expect("nobody uses what a panic left");
    assert!(panicked && code == MIRRORBUS_E_HANDLE && text.contains("a bug of the library"), "{text}");
}

#[test]
fn a_forked_child_is_told() {
    let rig = Rig::new();
    let owner = rig.owner(1);
    let (epochs, holder) = (owner.0.addr(), rig.holder.addr());
    let status = super::process::in_child(|| {
        [epochs, holder]
            .iter()
            .all(|&value| answers(value).iter().all(|&answer| answer == n(MIRRORBUS_E_FORKED)))
    });
    assert_eq!(status, 0);
    owner.fill(0, 3, 10);
    assert_eq!(owner.commit().unwrap().epoch, 1);
}
