//! Arguments that cannot be.

use std::ffi::c_void;
use std::os::unix::fs::PermissionsExt;
use std::ptr;

use super::{
    REGION_BYTES, Rig, SECOND, fails, holder_options, key_file, last_text, ok, region_options, text,
};
use crate::codes::mirrorbus_code::{
    MIRRORBUS_E_INVALID, MIRRORBUS_E_KEY, MIRRORBUS_E_LINK_LOST, MIRRORBUS_E_RANGE, MIRRORBUS_E_REFUSED,
    MIRRORBUS_E_STALE, MIRRORBUS_E_UNSUPPORTED, MIRRORBUS_E_VERSION,
};
use crate::holder::{
    mirrorbus_holder_fence, mirrorbus_holder_get_status, mirrorbus_holder_open, mirrorbus_holder_read,
};
use crate::lane::{
    mirrorbus_lane_close, mirrorbus_lane_flush, mirrorbus_lane_open, mirrorbus_lane_poll,
    mirrorbus_lane_store, mirrorbus_lane_store_v, mirrorbus_lane_wait,
};
use crate::region::{
    mirrorbus_region_get_status, mirrorbus_region_memory, mirrorbus_region_open, mirrorbus_region_read,
    mirrorbus_region_reconnect,
};
use crate::types::{
    MIRRORBUS_FOREVER, mirrorbus_fenced, mirrorbus_holder_options, mirrorbus_holder_status,
    mirrorbus_lane_options, mirrorbus_part, mirrorbus_region_options, mirrorbus_region_status,
    mirrorbus_ticket, mirrorbus_watermarks,
};

fn open_region(options: &mirrorbus_region_options) -> i32 {
    let mut region = ptr::null_mut();
    // SAFETY: the options are there, and a place for the handle.
    unsafe { mirrorbus_region_open(options, &raw mut region) }
}

fn open_holder(options: &mirrorbus_holder_options) -> i32 {
    let mut holder = ptr::null_mut();
    // SAFETY: the options are there, and a place for the handle.
    unsafe { mirrorbus_holder_open(options, &raw mut holder) }
}

fn store(rig: &Rig, offset: u64, data: *const c_void, bytes: usize) -> i32 {
    // SAFETY: what does not have so many bytes is refused before they are looked at.
    unsafe { mirrorbus_lane_store(rig.lane, offset, data, bytes, ptr::null_mut()) }
}

#[test]
fn options_that_cannot_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(&folder);
    let url = text("tcp://127.0.0.1:1");
    let usual = region_options(&url, &key, 1);
    let mut region = ptr::null_mut();
    // SAFETY: null is what is to be refused.
    fails(unsafe { mirrorbus_region_open(ptr::null(), &raw mut region) }, MIRRORBUS_E_INVALID);
    // SAFETY: null is what is to be refused.
    fails(unsafe { mirrorbus_region_open(&raw const usual, ptr::null_mut()) }, MIRRORBUS_E_INVALID);
    let bad_text = c"\xff\xfe";
    let (short, name) = (text("abc"), text("nowhere://x"));
    for (options, word) in [
        (mirrorbus_region_options { size: 0, ..usual }, "size"),
        (mirrorbus_region_options { size: usual.size - 1, ..usual }, "size"),
        (mirrorbus_region_options { size: usize::MAX, ..usual }, "size"),
        (mirrorbus_region_options { url: ptr::null(), ..usual }, "url"),
        (mirrorbus_region_options { url: bad_text.as_ptr(), ..usual }, "UTF-8"),
        (mirrorbus_region_options { url: name.as_ptr(), ..usual }, "url"),
        (mirrorbus_region_options { key_file: ptr::null(), ..usual }, "key_file"),
        (mirrorbus_region_options { id: short.as_ptr(), ..usual }, "id"),
        (mirrorbus_region_options { attach: 0, ..usual }, "attach"),
        (mirrorbus_region_options { attach: 5, ..usual }, "attach"),
        (mirrorbus_region_options { lock: -1, ..usual }, "lock"),
    ] {
        fails(open_region(&options), MIRRORBUS_E_INVALID);
        assert!(last_text().contains(word), "{word}: {}", last_text());
    }
    fails(open_region(&usual), MIRRORBUS_E_LINK_LOST);
    for bytes in [0, u64::MAX, 1 << 62] {
        assert!(open_region(&mirrorbus_region_options { bytes, ..usual }) < 0, "{bytes} bytes");
        assert!(
            open_holder(&mirrorbus_holder_options { bytes, ..holder_options(&url, &key) }) < 0,
            "{bytes} bytes"
        );
    }
    let path = folder.path().join("key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    fails(open_region(&usual), MIRRORBUS_E_KEY);
}

#[test]
fn structs_of_other_versions_are_understood_or_refused() {
    #[repr(C)]
    struct Newer {
        known: mirrorbus_lane_options,
        unknown: u64,
    }
    let rig = Rig::new();
    let size = size_of::<Newer>();
    let known = mirrorbus_lane_options { size, depth: 8, polling: 0, store_timeout_ns: 0 };
    let open = |newer: &Newer| {
        let mut lane = ptr::null_mut();
        // SAFETY: the struct has as many bytes as it says.
        let code = unsafe { mirrorbus_lane_open(rig.region, &raw const newer.known, &raw mut lane) };
        (code, lane)
    };
    let (code, lane) = open(&Newer { known, unknown: 0 });
    ok(code);
    ok(mirrorbus_lane_close(lane));
    fails(open(&Newer { known, unknown: 1 }).0, MIRRORBUS_E_VERSION);
    for known in [
        mirrorbus_lane_options { depth: 4097, ..known },
        mirrorbus_lane_options { depth: u32::MAX, ..known },
        mirrorbus_lane_options { polling: 3, ..known },
    ] {
        fails(open(&Newer { known, unknown: 0 }).0, MIRRORBUS_E_INVALID);
    }
    // What is filled in has to say how large it is too.
    let mut status = [0_u64; 32];
    // SAFETY: there is room for such a struct, whose size is 0.
    let code = unsafe {
        mirrorbus_holder_get_status(rig.holder, status.as_mut_ptr().cast::<mirrorbus_holder_status>())
    };
    fails(code, MIRRORBUS_E_INVALID);
}

#[test]
fn structs_have_no_padding() {
    // As the fields are declared; what is copied to a caller must not have bytes that nobody set.
    let sums = [
        (size_of::<mirrorbus_holder_options>(), 5 * 8 + 2 * 4 + 8),
        (size_of::<mirrorbus_holder_status>(), 2 * 8 + 5 * 4 + 36),
        (size_of::<mirrorbus_fenced>(), 8 + 2 * 4),
        (size_of::<mirrorbus_region_options>(), 5 * 8 + 4 * 4 + 2 * 8),
        (size_of::<mirrorbus_region_status>(), 2 * 8 + 2 * 4 + 40 + 256),
        (size_of::<mirrorbus_lane_options>(), 8 + 2 * 4 + 8),
        (size_of::<mirrorbus_watermarks>(), 6 * 8),
        (size_of::<crate::types::mirrorbus_dataset_options>(), 10 * 8 + 2 * 4 + 3 * 8),
        (size_of::<crate::types::mirrorbus_dataset_status>(), 8 + 2 * 4 + 8 + 64 + 256),
        (size_of::<crate::types::mirrorbus_volume_info>(), 3 * 8),
        (size_of::<crate::epoch_types::mirrorbus_epochs_options>(), 6 * 8 + 4 * 4 + 2 * 8),
        (size_of::<crate::epoch_types::mirrorbus_cut>(), 6 * 8),
        (size_of::<crate::epoch_types::mirrorbus_epochs_status>(), 4 * 8 + 2 * 4 + 40 + 2 * 256),
        (size_of::<crate::epoch_types::mirrorbus_epochs_reconnected>(), 2 * 8 + 2 * 4),
        (size_of::<crate::epoch_types::mirrorbus_epoch_holder_status>(), 3 * 8 + 5 * 4 + 36 + 256),
    ];
    sums.iter().for_each(|(size, sum)| assert_eq!(size, sum));
}

#[test]
fn ranges_that_cannot_be_change_nothing() {
    let rig = Rig::new();
    let data = [7_u8; 16];
    let bytes: *const c_void = data.as_ptr().cast();
    for offset in [REGION_BYTES, REGION_BYTES - 15, u64::MAX, u64::MAX - 15, 1 << 63] {
        fails(store(&rig, offset, bytes, data.len()), MIRRORBUS_E_RANGE);
        let mut target = [0_u8; 16];
        // SAFETY: the target has its bytes.
        fails(
            unsafe { mirrorbus_region_read(rig.region, offset, target.as_mut_ptr().cast(), 16) },
            MIRRORBUS_E_RANGE,
        );
        // SAFETY: the target has its bytes.
        fails(
            unsafe { mirrorbus_holder_read(rig.holder, offset, target.as_mut_ptr().cast(), 16) },
            MIRRORBUS_E_RANGE,
        );
    }
    fails(store(&rig, 0, ptr::null(), 1), MIRRORBUS_E_INVALID);
    fails(store(&rig, 0, bytes, usize::MAX), MIRRORBUS_E_INVALID);
    fails(store(&rig, 0, ptr::without_provenance(usize::MAX), 16), MIRRORBUS_E_INVALID);
    let mut memory = ptr::null();
    // SAFETY: there is a place for it.
    ok(unsafe { mirrorbus_region_memory(rig.region, &raw mut memory, ptr::null_mut()) });
    fails(store(&rig, 4096, memory, 16), MIRRORBUS_E_INVALID);
    assert!(last_text().contains("region's own memory"), "{}", last_text());
    let part = mirrorbus_part { data: bytes, bytes: 16 };
    let parts = [part, mirrorbus_part { data: ptr::null(), bytes: 1 }];
    let store_v = |offset, parts: *const mirrorbus_part, count| {
        // SAFETY: what does not have so many parts is refused before they are looked at.
        unsafe { mirrorbus_lane_store_v(rig.lane, offset, parts, count, ptr::null_mut()) }
    };
    fails(store_v(0, ptr::null(), 2), MIRRORBUS_E_INVALID);
    fails(store_v(0, parts.as_ptr(), usize::MAX), MIRRORBUS_E_INVALID);
    fails(store_v(0, parts.as_ptr(), 2), MIRRORBUS_E_INVALID);
    fails(store_v(REGION_BYTES - 31, [part, part].as_ptr(), 2), MIRRORBUS_E_RANGE);
    let mut marks = mirrorbus_watermarks {
        size: size_of::<mirrorbus_watermarks>(),
        last: 9,
        posted: 9,
        acked: 9,
        visible: 9,
        durable: 9,
    };
    // SAFETY: there is such a struct.
    ok(unsafe { mirrorbus_lane_poll(rig.lane, &raw mut marks) });
    assert_eq!((marks.last, marks.acked), (0, 0), "nothing of it was stored");
    ok(store_v(REGION_BYTES - 32, [part, part].as_ptr(), 2));
    ok(store(&rig, REGION_BYTES, ptr::null(), 0));
}

/// State of the link, by its number.
fn link(rig: &Rig) -> i32 {
    let size = size_of::<mirrorbus_region_status>();
    let mut status =
        mirrorbus_region_status { size, bytes: 0, link: 0, lanes: 0, id: [0; 40], reason: [0; 256] };
    // SAFETY: there is such a struct.
    ok(unsafe { mirrorbus_region_get_status(rig.region, &raw mut status) });
    assert_eq!((status.bytes, status.lanes), (REGION_BYTES, 1));
    assert!(status.id[31] != 0 && status.id[32] == 0, "32 digits");
    assert_eq!(status.reason[0] == 0, status.link != 3, "why it is lost, if it is");
    status.link
}

#[test]
fn tickets_that_were_not_given_are_told() {
    let rig = Rig::new();
    let mut ticket = mirrorbus_ticket { stream: 0, sequence: 0 };
    let byte = 1_u8;
    // SAFETY: there is one byte, and a place for a ticket.
    ok(unsafe { mirrorbus_lane_store(rig.lane, 0, (&raw const byte).cast(), 1, &raw mut ticket) });
    ok(mirrorbus_lane_wait(rig.lane, ticket, 3, MIRRORBUS_FOREVER));
    let beyond = mirrorbus_ticket { sequence: 2, ..ticket };
    fails(mirrorbus_lane_wait(rig.lane, beyond, 3, MIRRORBUS_FOREVER), MIRRORBUS_E_INVALID);
    let other = mirrorbus_ticket { stream: !ticket.stream, ..ticket };
    fails(mirrorbus_lane_wait(rig.lane, other, 3, SECOND), MIRRORBUS_E_STALE);
    let other_beyond = mirrorbus_ticket { stream: !ticket.stream, ..beyond };
    fails(mirrorbus_lane_wait(rig.lane, other_beyond, 3, SECOND), MIRRORBUS_E_STALE);
    for level in [0, 5, -1, i32::MAX] {
        fails(mirrorbus_lane_wait(rig.lane, ticket, level, SECOND), MIRRORBUS_E_INVALID);
        fails(mirrorbus_lane_flush(rig.lane, level, SECOND), MIRRORBUS_E_INVALID);
    }
    fails(mirrorbus_lane_flush(rig.lane, 4, SECOND), MIRRORBUS_E_UNSUPPORTED);
    ok(mirrorbus_region_reconnect(rig.region, 10 * SECOND));
    fails(mirrorbus_lane_wait(rig.lane, ticket, 2, SECOND), MIRRORBUS_E_STALE);
    fails(mirrorbus_lane_wait(rig.lane, beyond, 2, SECOND), MIRRORBUS_E_STALE);
    // Who is fenced is told, and comes back by a pull.
    let mut fenced = mirrorbus_fenced { size: size_of::<mirrorbus_fenced>(), generation: 0, exact: 0 };
    // SAFETY: there is such a struct.
    ok(unsafe { mirrorbus_holder_fence(rig.holder, 10 * SECOND, &raw mut fenced) });
    assert!(fenced.generation > 1 && fenced.exact == 1, "{fenced:?}");
    while link(&rig) != 3 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    fails(mirrorbus_lane_flush(rig.lane, 2, 10 * SECOND), MIRRORBUS_E_LINK_LOST);
    fails(mirrorbus_region_reconnect(rig.region, 10 * SECOND), MIRRORBUS_E_REFUSED);
    fails(open_region(&region_options(&rig.url, &rig.key, 1)), MIRRORBUS_E_REFUSED);
    let mut region = ptr::null_mut();
    // SAFETY: the options and their texts are there.
    ok(unsafe {
        mirrorbus_region_open(&raw const *Box::new(region_options(&rig.url, &rig.key, 3)), &raw mut region)
    });
    ok(crate::region::mirrorbus_region_close(region));
    assert!(rig.folder.path().exists());
}
