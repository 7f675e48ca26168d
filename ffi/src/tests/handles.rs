//! Handles that are null, closed, of another kind or invented.

use std::ffi::c_int;
use std::ptr;

use super::{REGION_BYTES, Rig, SECOND, fails, n, ok, text};
use crate::codes::mirrorbus_code::{MIRRORBUS_E_BUSY, MIRRORBUS_E_HANDLE, MIRRORBUS_E_LIMIT};
use crate::dataset::{
    mirrorbus_dataset_alone, mirrorbus_dataset_close, mirrorbus_dataset_create_volume,
    mirrorbus_dataset_get_status, mirrorbus_dataset_promote, mirrorbus_dataset_wait_mirrored,
};
use crate::holder::{
    mirrorbus_holder_close, mirrorbus_holder_fence, mirrorbus_holder_get_status, mirrorbus_holder_read,
    mirrorbus_holder_url, mirrorbus_holder_wait_change,
};
use crate::lane::{
    LANES, mirrorbus_lane_close, mirrorbus_lane_flush, mirrorbus_lane_open, mirrorbus_lane_poll,
    mirrorbus_lane_store, mirrorbus_lane_store_v, mirrorbus_lane_try_store, mirrorbus_lane_wait,
};
use crate::region::{
    REGIONS, mirrorbus_region_close, mirrorbus_region_get_status, mirrorbus_region_memory,
    mirrorbus_region_read, mirrorbus_region_reconnect,
};
use crate::table::Table;
use crate::types::{mirrorbus_holder_status, mirrorbus_ticket};
use crate::volume::{
    mirrorbus_volume_close, mirrorbus_volume_flush, mirrorbus_volume_get_info, mirrorbus_volume_open,
    mirrorbus_volume_poll, mirrorbus_volume_read, mirrorbus_volume_trim, mirrorbus_volume_wait,
    mirrorbus_volume_write, mirrorbus_volume_write_zeroes,
};

/// A handle of this value.
fn handle<T>(value: usize) -> *mut T {
    ptr::without_provenance_mut(value)
}

/// What every function that takes a handle says to this value in its place.
fn answers(value: usize) -> Vec<c_int> {
    let ticket = mirrorbus_ticket { stream: 0, sequence: 0 };
    let mut answers = vec![
        mirrorbus_region_reconnect(handle(value), SECOND),
        mirrorbus_region_close(handle(value)),
        mirrorbus_lane_wait(handle(value), ticket, 2, SECOND),
        mirrorbus_lane_flush(handle(value), 2, SECOND),
        mirrorbus_lane_close(handle(value)),
        mirrorbus_holder_close(handle(value)),
        mirrorbus_dataset_wait_mirrored(handle(value), SECOND),
        mirrorbus_dataset_promote(handle(value), 0),
        mirrorbus_dataset_alone(handle(value)),
        mirrorbus_dataset_close(handle(value)),
        mirrorbus_volume_wait(handle(value), 0, SECOND),
        mirrorbus_volume_flush(handle(value), SECOND),
        mirrorbus_volume_close(handle(value)),
    ];
    ask_of_regions(value, &mut answers);
    ask_of_volumes(value, &mut answers);
    answers
}

fn ask_of_regions(value: usize, answers: &mut Vec<c_int>) {
    let mut bytes = [0_u8; 8];
    let (data, len) = (bytes.as_mut_ptr(), bytes.len());
    let mut status = [size_of::<mirrorbus_holder_status>() as u64; 16];
    let (mut memory, mut lane) = (ptr::null(), ptr::null_mut());
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_holder_url(handle(value), data.cast(), len) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_holder_get_status(handle(value), ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers
        .push(unsafe { mirrorbus_holder_wait_change(handle(value), 0, SECOND, status.as_mut_ptr().cast()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_holder_read(handle(value), 0, data.cast(), len) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_holder_fence(handle(value), SECOND, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_region_memory(handle(value), &raw mut memory, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_region_read(handle(value), 0, data.cast(), len) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_region_get_status(handle(value), ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_lane_open(handle(value), ptr::null(), &raw mut lane) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_lane_store(handle(value), 0, data.cast(), len, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_lane_try_store(handle(value), 0, data.cast(), len, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_lane_store_v(handle(value), 0, ptr::null(), 0, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_lane_poll(handle(value), ptr::null_mut()) });
}

fn ask_of_volumes(value: usize, answers: &mut Vec<c_int>) {
    let mut bytes = [0_u8; 8];
    let (data, len) = (bytes.as_mut_ptr(), bytes.len());
    let name = text("disk");
    let (mut place, mut flag) = (ptr::null_mut(), 0);
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_dataset_create_volume(handle(value), name.as_ptr(), 4096, 0) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_dataset_get_status(handle(value), ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_volume_open(handle(value), name.as_ptr(), &raw mut place) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_volume_get_info(handle(value), ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_volume_read(handle(value), 0, data.cast(), len, SECOND) });
    // SAFETY: it has what it asks for, but for the handle.
    answers
        .push(unsafe { mirrorbus_volume_write(handle(value), 0, data.cast(), len, SECOND, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_volume_trim(handle(value), 0, 0, SECOND, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_volume_write_zeroes(handle(value), 0, 0, SECOND, ptr::null_mut()) });
    // SAFETY: it has what it asks for, but for the handle.
    answers.push(unsafe { mirrorbus_volume_poll(handle(value), 0, &raw mut flag) });
}

#[test]
fn what_is_no_handle_is_told_by_every_function() {
    let rig = Rig::new();
    let closed = {
        let other = Rig::new();
        [other.holder.addr(), other.region.addr(), other.lane.addr()]
    };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut invented: Vec<usize> = (0..200)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random).unwrap()
        })
        .collect();
    invented.extend([0, 1, usize::MAX, (&raw const rig).addr()]);
    invented.extend(closed);
    // One behind the table.
    invented.push(rig.lane.addr() | 0xffff);
    for value in invented {
        for (index, answer) in answers(value).into_iter().enumerate() {
            assert_eq!(answer, n(MIRRORBUS_E_HANDLE), "function {index}, handle {value:#x}");
        }
    }
    // SAFETY: it is open still.
    ok(unsafe { mirrorbus_lane_poll(rig.lane, ptr::null_mut()) });
}

#[test]
fn a_handle_of_another_kind_is_told() {
    let rig = Rig::new();
    let lane_as_region = rig.lane.cast();
    fails(mirrorbus_region_close(lane_as_region), MIRRORBUS_E_HANDLE);
    fails(mirrorbus_lane_close(rig.region.cast()), MIRRORBUS_E_HANDLE);
    fails(mirrorbus_holder_close(rig.region.cast()), MIRRORBUS_E_HANDLE);
    fails(mirrorbus_volume_close(rig.holder.cast()), MIRRORBUS_E_HANDLE);
}

#[test]
fn a_second_thread_in_a_lane_is_told() {
    let rig = Rig::new();
    let inside = LANES.alone(rig.lane.addr() as u64).unwrap();
    // SAFETY: no bytes are stored.
    let store = || unsafe { mirrorbus_lane_store(rig.lane, 0, ptr::null(), 0, ptr::null_mut()) };
    fails(store(), MIRRORBUS_E_BUSY);
    fails(mirrorbus_lane_close(rig.lane), MIRRORBUS_E_BUSY);
    fails(mirrorbus_region_reconnect(rig.region, SECOND), MIRRORBUS_E_BUSY);
    drop(inside);
    ok(store());
    ok(mirrorbus_region_reconnect(rig.region, SECOND * 10));
}

#[test]
fn whoever_closes_a_lane_waits_for_nobody_who_opens_one() {
    let rig = Rig::new();
    let opening = REGIONS.shared(rig.region.addr() as u64).unwrap().lanes.clone();
    let inside = opening.change();
    fails(mirrorbus_region_reconnect(rig.region, SECOND), MIRRORBUS_E_BUSY);
    ok(mirrorbus_lane_close(rig.lane));
    drop(inside);
    ok(mirrorbus_region_reconnect(rig.region, SECOND * 10));
}

#[test]
fn lanes_survive_their_region() {
    let rig = Rig::new();
    ok(mirrorbus_region_close(rig.region));
    let byte = [1_u8];
    // SAFETY: there is one byte.
    let code =
        unsafe { mirrorbus_lane_store(rig.lane, REGION_BYTES - 1, byte.as_ptr().cast(), 1, ptr::null_mut()) };
    fails(code, crate::codes::mirrorbus_code::MIRRORBUS_E_LINK_LOST);
    ok(mirrorbus_lane_close(rig.lane));
}

#[test]
fn threads_that_close_one_handle_close_it_once() {
    static TABLE: Table<u64, 8> = Table::new(0x7f, "thing");
    for round in 0..200 {
        let handle = TABLE.insert(round).unwrap();
        let closed: usize = std::thread::scope(|scope| {
            let close = || usize::from(TABLE.close(handle).is_ok());
            let looks = || usize::from(TABLE.shared(handle).is_ok_and(|value| *value != round));
            let threads = [scope.spawn(close), scope.spawn(close), scope.spawn(looks)];
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // A look in between makes a close busy.
        assert!(closed <= 1, "{closed}");
        let _ = TABLE.close(handle);
        assert_eq!(TABLE.shared(handle).err().unwrap().code, MIRRORBUS_E_HANDLE);
    }
}

#[test]
fn places_are_used_again_under_another_name() {
    static TABLE: Table<u8, 4> = Table::new(0x7e, "thing");
    let first: Vec<_> = (0..4).map(|value| TABLE.insert(value).unwrap()).collect();
    assert_eq!(TABLE.insert(4).unwrap_err().code, MIRRORBUS_E_LIMIT);
    assert!(TABLE.check_room().is_err());
    assert_eq!(*TABLE.close(first[2]).unwrap(), 2);
    let next = first[2] + (1 << 16);
    assert_eq!(TABLE.alone(next).err().unwrap().code, MIRRORBUS_E_HANDLE, "it will be one, and is none yet");
    let again = TABLE.insert(5).unwrap();
    assert_eq!(again, next);
    assert_ne!(again, first[2]);
    assert_eq!(TABLE.alone(first[2]).err().unwrap().code, MIRRORBUS_E_HANDLE);
    assert_eq!(*TABLE.alone(again).unwrap(), 5);
    let one = TABLE.shared(again).unwrap();
    let two = TABLE.shared(again).unwrap();
    assert_eq!((*one, *two), (5, 5));
    assert_eq!(TABLE.alone(again).err().unwrap().code, MIRRORBUS_E_BUSY);
    assert_eq!(TABLE.close(again).unwrap_err().code, MIRRORBUS_E_BUSY);
    drop((one, two));
    let mut alone = TABLE.alone(again).unwrap();
    *alone = 6;
    assert_eq!(TABLE.shared(again).err().unwrap().code, MIRRORBUS_E_BUSY);
    drop(alone);
    assert_eq!(*TABLE.close(again).unwrap(), 6);
}
