//! What the contract promises, on this medium.

use std::time::Duration;

use super::rig::*;
use crate::fabric::tcp::{DEPTH_MAX, FRAME_PAYLOAD_MAX, ReceiverEndReason};
use crate::fabric::{Operation, Queue, QueueError, WindowId};

const SPIN: Duration = Duration::from_micros(50);

#[test]
fn later_writes_win_and_completions_come_in_order() {
    let mut rig = Rig::new(tcp_pair(), 4096, 64, SPIN);
    let mut seen = Vec::new();
    for round in 0..500 {
        rig.fill(round);
        post_all(&mut rig.queue, &[write(round, 0, 4096, true)], &mut seen).unwrap();
        // The source was read by post: what follows in the local mapping is not what was posted.
        rig.local.slice().write(0, &[0xee; 4096]);
    }
    reap(&mut rig.queue, 499, &mut seen).unwrap();
    assert!(seen.is_sorted() && seen.len() <= 500, "{seen:?}");
    assert_eq!(rig.remote(), pattern(4096, 499));
    assert_eq!(rig.queue.free_slots(), 64);
}

#[test]
fn partial_sends_lose_nothing() {
    let len = 1 << 20;
    let mut rig = Rig::new(narrow_pair(), len, 16, Duration::ZERO);
    rig.fill(1);
    let (mut seen, mut requests, mut offset) = (Vec::new(), Vec::new(), 0);
    for size in [1, 7, 48, 64, 4096, 65_536, FRAME_PAYLOAD_MAX, 3].into_iter().cycle() {
        if offset + size > len {
            break;
        }
        requests.push(write(requests.len() as u64, offset, size, true));
        offset += size;
    }
    post_all(&mut rig.queue, &requests, &mut seen).unwrap();
    reap(&mut rig.queue, requests.len() as u64 - 1, &mut seen).unwrap();
    assert_eq!(rig.remote()[..offset], pattern(len, 1)[..offset]);
}

#[test]
fn a_full_queue_takes_fewer_and_then_none() {
    let (ours, theirs) = tcp_pair();
    let local = region(1 << 20);
    let grant = window(1 << 20, crate::fabric::Access::ReadWrite).grant();
    let mut queue = queue(ours, &local, grant, 4, None);
    let requests: Vec<_> = (0..6).map(|id| write(id, 0, 8, true)).collect();
    assert_eq!(queue.post(&requests), Ok(4));
    assert_eq!(queue.post(&requests[4..]), Ok(0));
    assert_eq!(queue.free_slots(), 0);
    // Unsignaled writes need no slot, but bytes: nobody takes them, so the room ends.
    let large: Vec<_> = (0..6).map(|id| write(id, 0, FRAME_PAYLOAD_MAX, false)).collect();
    let taken = queue.post(&large).unwrap();
    assert!((1..6).contains(&taken), "{taken}");
    assert_eq!(queue.post(&large), Ok(0));
    assert!(queue.wants_write());
    drop(theirs);
}

#[test]
fn hundred_thousand_unsignaled_writes_then_one_flush() {
    let mut rig = Rig::new(tcp_pair(), 64 << 10, 8, SPIN);
    rig.fill(9);
    let mut seen = Vec::new();
    let requests: Vec<_> = (0..1000).map(|n| write(n as u64, (n % 1024) * 64, 64, false)).collect();
    for _ in 0..100 {
        post_all(&mut rig.queue, &requests, &mut seen).unwrap();
    }
    assert!(seen.is_empty(), "nothing was signaled");
    post_all(&mut rig.queue, &[request(Operation::Flush, 77, 0, 0, false)], &mut seen).unwrap();
    reap(&mut rig.queue, 77, &mut seen).unwrap();
    assert_eq!(seen, [77]);
    assert_eq!(rig.remote()[..64_000], pattern(64 << 10, 9)[..64_000]);
    rig.serving.stop();
    let end = rig.serving.end();
    assert_eq!(end.reason, ReceiverEndReason::Stopped);
    assert_eq!((end.counts.frames, end.counts.bytes), (100_001, 6_400_000));
}

#[test]
fn reads_see_the_writes_before_them() {
    let mut rig = Rig::new(tcp_pair(), 1 << 20, 32, SPIN);
    rig.fill(4);
    let mut seen = Vec::new();
    post_all(&mut rig.queue, &[write(1, 0, FRAME_PAYLOAD_MAX, true)], &mut seen).unwrap();
    rig.local.slice().write(0, &vec![0; FRAME_PAYLOAD_MAX]);
    post_all(&mut rig.queue, &[request(Operation::Read, 2, 0, FRAME_PAYLOAD_MAX, false)], &mut seen).unwrap();
    post_all(&mut rig.queue, &[request(Operation::Read, 3, 500, 0, false)], &mut seen).unwrap();
    reap(&mut rig.queue, 3, &mut seen).unwrap();
    assert_eq!(rig.local.slice().to_vec(), pattern(1 << 20, 4));
    assert_eq!(seen.iter().filter(|&&id| id == 2).count(), 1);
}

#[test]
fn both_directions_full_do_not_wait_for_each_other() {
    let len = 1 << 20;
    let mut rig = Rig::new(narrow_pair(), len, DEPTH_MAX, Duration::ZERO);
    rig.window.mapping().slice().write(0, &pattern(len, 5));
    let mut requests = Vec::new();
    for n in 0..64 {
        let offset = (n % 4) * FRAME_PAYLOAD_MAX;
        requests.push(request(Operation::Read, 2 * n as u64, offset, FRAME_PAYLOAD_MAX, true));
        requests.push(write(2 * n as u64 + 1, len / 2 + offset, FRAME_PAYLOAD_MAX, n % 3 == 0));
    }
    requests.push(request(Operation::Flush, 1000, 0, 0, true));
    let mut seen = Vec::new();
    post_all(&mut rig.queue, &requests, &mut seen).unwrap();
    reap(&mut rig.queue, 1000, &mut seen).unwrap();
    assert_eq!(rig.local.slice().to_vec()[..len / 2], pattern(len, 5)[..len / 2]);
    assert_eq!(
        seen.iter().filter(|&&id| id % 2 == 0 && id < 1000).count(),
        64,
        "each read completes by itself"
    );
}

#[test]
fn empty_and_largest_writes() {
    let mut rig = Rig::new(tcp_pair(), FRAME_PAYLOAD_MAX, 8, SPIN);
    rig.fill(2);
    let mut seen = Vec::new();
    let end = FRAME_PAYLOAD_MAX;
    post_all(&mut rig.queue, &[write(1, end, 0, true)], &mut seen).unwrap();
    reap(&mut rig.queue, 1, &mut seen).unwrap();
    assert_eq!(rig.remote(), vec![0; end]);
    post_all(&mut rig.queue, &[write(2, 0, end, true)], &mut seen).unwrap();
    reap(&mut rig.queue, 2, &mut seen).unwrap();
    assert_eq!(rig.remote(), pattern(end, 2));
}

#[test]
fn out_of_range_takes_nothing_and_the_queue_goes_on() {
    let len = 1 << 20;
    let mut rig = Rig::new(tcp_pair(), len, 8, SPIN);
    rig.fill(3);
    let other = crate::fabric::WorkRequest { window: WindowId(8), ..write(2, 0, 8, true) };
    let far = crate::fabric::WorkRequest { local_offset: usize::MAX, ..write(2, 0, 8, true) };
    for bad in [
        write(2, len - 7, 8, true),
        write(2, usize::MAX, 8, true),
        write(2, 8, usize::MAX, true),
        write(2, 0, FRAME_PAYLOAD_MAX + 1, true),
        request(Operation::Read, 2, len, 1, true),
        other,
        far,
    ] {
        let error = rig.queue.post(&[write(1, 0, 8, true), bad]).unwrap_err();
        assert!(matches!(error, QueueError::OutOfRange { .. }), "{bad:?}: {error}");
    }
    assert_eq!(rig.queue.free_slots(), 8);
    assert!(!rig.queue.wants_write());
    let mut seen = Vec::new();
    post_all(&mut rig.queue, &[write(5, len - 8, 8, true)], &mut seen).unwrap();
    reap(&mut rig.queue, 5, &mut seen).unwrap();
    assert_eq!(rig.remote()[..len - 8], vec![0; len - 8]);
    assert_eq!(rig.remote()[len - 8..], pattern(len, 3)[len - 8..]);
}

#[test]
fn sleeping_instead_of_polling() {
    let mut rig = Rig::new(tcp_pair(), 1 << 20, 8, Duration::ZERO);
    rig.fill(6);
    let mut next = 0_usize;
    let mut done = None;
    while done != Some(199) {
        while next < 200
            && rig.queue.post(&[write(next as u64, (next % 8) << 17, 1 << 17, true)]).unwrap() == 1
        {
            next += 1;
        }
        rig.queue.doorbell().unwrap();
        let before = done;
        while let Some(completion) = rig.queue.poll().unwrap() {
            done = Some(completion.wr_id);
        }
        if done == before {
            sleep(&mut rig.queue).unwrap();
        }
    }
    assert_eq!(rig.remote(), pattern(1 << 20, 6));
}

#[test]
fn sleeping_ends_when_the_peer_closes() {
    let mut rig = Rig::new(tcp_pair(), 4096, 8, Duration::ZERO);
    assert_eq!(rig.queue.poll(), Ok(None));
    rig.serving.stop();
    assert_eq!(rig.serving.end().reason, ReceiverEndReason::Stopped);
    sleep(&mut rig.queue).unwrap();
    let error = failure(&mut rig.queue);
    assert!(matches!(error, QueueError::PeerGone { .. }), "{error}");
    assert_eq!(rig.queue.post(&[write(1, 0, 8, true)]), Err(error.clone()));
    assert_eq!(rig.queue.doorbell(), Err(error.clone()));
    assert_eq!(rig.queue.poll(), Err(error.clone()));
    assert_eq!(rig.queue.arm(), Err(error));
}
