//! Volumes of a node that serves alone.

use std::ffi::c_void;
use std::ptr;

use mirrorbus::memory::{Runs, TrackedMemory, TrackingMethod};

use super::{SECOND, fails, key_file, ok, text};
use crate::codes::mirrorbus_code::{MIRRORBUS_E_INVALID, MIRRORBUS_E_RANGE, MIRRORBUS_E_ROLE};
use crate::dataset::{mirrorbus_dataset_close, mirrorbus_dataset_open, mirrorbus_dataset_promote};
use crate::types::{MIRRORBUS_FOREVER, mirrorbus_dataset_options};
use crate::volume::{
    mirrorbus_volume, mirrorbus_volume_close, mirrorbus_volume_open, mirrorbus_volume_poll,
    mirrorbus_volume_read, mirrorbus_volume_trim, mirrorbus_volume_wait, mirrorbus_volume_write,
    mirrorbus_volume_write_zeroes,
};

#[test]
fn volumes_refuse_what_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(&folder);
    let path = |name: &str| text(folder.path().join(name).to_str().unwrap());
    let [listen, peer] = ["a", "b"].map(|name| text(&format!("shm:{}", folder.path().join(name).display())));
    let (id, node, directory, name) = (text(&"5a".repeat(16)), text("alpha"), path("alpha"), text("disk"));
    let options = mirrorbus_dataset_options {
        size: size_of::<mirrorbus_dataset_options>(),
        name: ptr::null(),
        id: id.as_ptr(),
        node: node.as_ptr(),
        directory: directory.as_ptr(),
        listen: listen.as_ptr(),
        peer: peer.as_ptr(),
        key_file: key.as_ptr(),
        segment_bytes: 1 << 20,
        segments: 4,
        durability: 0,
        lock: 2,
        volume: name.as_ptr(),
        volume_bytes: 1 << 20,
        volume_block_bytes: 0,
    };
    refuse_options(&options, &name);
    let mut dataset = ptr::null_mut();
    // SAFETY: the options and their texts are there.
    ok(unsafe { mirrorbus_dataset_open(&raw const options, &raw mut dataset) });
    ok(mirrorbus_dataset_promote(dataset, 0));
    let mut volume = ptr::null_mut();
    // SAFETY: there is a name, and a place for the handle.
    ok(unsafe { mirrorbus_volume_open(dataset, name.as_ptr(), &raw mut volume) });
    refuse_ranges(volume);
    let mut data = [3_u8; 512];
    let bytes: *mut c_void = data.as_mut_ptr().cast();
    fails(mirrorbus_volume_wait(volume, u64::MAX, MIRRORBUS_FOREVER), MIRRORBUS_E_INVALID);
    let (mut mark, mut is_there) = (0, 0);
    // SAFETY: there is a place for the answer.
    fails(unsafe { mirrorbus_volume_poll(volume, 1 << 40, &raw mut is_there) }, MIRRORBUS_E_INVALID);
    // SAFETY: there are so many bytes, and a place for the mark.
    ok(unsafe { mirrorbus_volume_write(volume, 512, bytes, 512, 20 * SECOND, &raw mut mark) });
    // A node that serves alone: its own threads bring it to the disk.
    while is_there == 0 {
        // SAFETY: there is a place for the answer.
        ok(unsafe { mirrorbus_volume_poll(volume, mark, &raw mut is_there) });
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    ok(mirrorbus_volume_wait(volume, mark, 0));
    ok(mirrorbus_dataset_close(dataset));
    // SAFETY: there are so many bytes.
    fails(unsafe { mirrorbus_volume_read(volume, 0, bytes, 512, SECOND) }, MIRRORBUS_E_ROLE);
    ok(mirrorbus_volume_close(volume));
    // From the disk, for a ring begins anew.
    // SAFETY: the options and their texts are there.
    ok(unsafe { mirrorbus_dataset_open(&raw const options, &raw mut dataset) });
    ok(mirrorbus_dataset_promote(dataset, 1));
    // SAFETY: there is a name, and a place for the handle.
    ok(unsafe { mirrorbus_volume_open(dataset, name.as_ptr(), &raw mut volume) });
    read_into_tracked_memory(volume);
    ok(mirrorbus_volume_close(volume));
    ok(mirrorbus_dataset_close(dataset));
}

/// The kernel cannot store there, which says nothing about the disk.
fn read_into_tracked_memory(volume: *mut mirrorbus_volume) {
    let memory = TrackedMemory::new(1 << 16, TrackingMethod::Mprotect).unwrap();
    let mut found = Runs::new(memory.page_bytes());
    memory.collect(&mut found).unwrap();
    // SAFETY: within the memory.
    let target = unsafe { memory.pointer().add(4096) };
    // SAFETY: there are so many bytes.
    ok(unsafe { mirrorbus_volume_read(volume, 0, target.as_ptr().cast(), 4096, SECOND) });
    let bytes = memory.slice().to_vec();
    assert!(bytes[4096 + 512..4096 + 1024].iter().all(|&byte| byte == 3), "what was written");
    memory.collect(&mut found).unwrap();
    assert!(found.ranges().iter().any(|run| run.contains(&5000)), "{found:?}");
}

fn refuse_options(options: &mirrorbus_dataset_options, no_id: &std::ffi::CStr) {
    let options = *options;
    let mut dataset = ptr::null_mut();
    for wrong in [
        mirrorbus_dataset_options { id: no_id.as_ptr(), ..options },
        mirrorbus_dataset_options { segment_bytes: 1000, ..options },
        mirrorbus_dataset_options { segments: 1, ..options },
        mirrorbus_dataset_options { durability: 2, ..options },
        mirrorbus_dataset_options { volume_block_bytes: 1024, ..options },
        mirrorbus_dataset_options { volume_bytes: 1000, ..options },
        mirrorbus_dataset_options { volume_bytes: 0, ..options },
        mirrorbus_dataset_options { volume: c" disk".as_ptr(), ..options },
        mirrorbus_dataset_options { directory: ptr::null(), ..options },
    ] {
        // SAFETY: the options and their texts are there.
        fails(unsafe { mirrorbus_dataset_open(&raw const wrong, &raw mut dataset) }, MIRRORBUS_E_INVALID);
    }
}

fn refuse_ranges(volume: *mut mirrorbus_volume) {
    let mut data = [3_u8; 512];
    let bytes: *mut c_void = data.as_mut_ptr().cast();
    for offset in [1 << 20, (1 << 20) - 511, u64::MAX, u64::MAX - 511] {
        // SAFETY: there are so many bytes.
        fails(
            unsafe { mirrorbus_volume_write(volume, offset, bytes, 512, SECOND, ptr::null_mut()) },
            MIRRORBUS_E_RANGE,
        );
        // SAFETY: there are so many bytes.
        fails(unsafe { mirrorbus_volume_read(volume, offset, bytes, 512, SECOND) }, MIRRORBUS_E_RANGE);
        // SAFETY: no mark is wanted.
        fails(
            unsafe { mirrorbus_volume_trim(volume, offset, 512, SECOND, ptr::null_mut()) },
            MIRRORBUS_E_RANGE,
        );
        // SAFETY: no mark is wanted.
        let code =
            unsafe { mirrorbus_volume_write_zeroes(volume, offset, u64::MAX, SECOND, ptr::null_mut()) };
        fails(code, MIRRORBUS_E_RANGE);
    }
}
