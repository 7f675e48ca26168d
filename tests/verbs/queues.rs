//! The queue itself: places, completions, keys, and what becomes of everything in flight when the device breaks.

use std::time::Instant;

use mirrorbus::fabric::verbs::{DeviceEvent, Watched};
use mirrorbus::fabric::{Armed, Queue, QueueError};
use mirrorbus::mirror::Polling;
use mirrorbus::{LaneConfig, Level};

use crate::common::{Fabric, Pair, soon};
use crate::rig::{PATIENCE, Peer, complete, flush, next, readable, write};

const SIZE: usize = 1 << 16;

#[test]
fn requests_that_ask_for_no_completion_wrap_the_queue_many_times() {
    let peer = Peer::new(SIZE);
    let (_connector, mut queue, local) = peer.queue(16);
    let until = Instant::now() + PATIENCE;
    for number in 0..2000u64 {
        let offset = (number % 1000) as usize * 8;
        // Each place is written twice: the earlier write of it is long complete, the queue being so short.
        local.slice().write(offset, &number.to_le_bytes());
        while queue.post(&[write(number, offset, 8, false)]).unwrap() == 0 {
            queue.doorbell().unwrap();
            assert_eq!(queue.poll().unwrap(), None, "nobody asked for a completion");
            assert!(Instant::now() < until, "the queue is full for ever at request {number}");
        }
        assert!(queue.free_slots() < 16);
    }
    queue.doorbell().unwrap();
    while queue.post(&[flush(7)]).unwrap() == 0 {
        assert_eq!(queue.poll().unwrap(), None);
        assert!(Instant::now() < until, "the queue stays full");
    }
    queue.doorbell().unwrap();
    assert_eq!(next(&mut queue).unwrap().wr_id, 7);
    assert_eq!(queue.free_slots(), 16);
    assert_eq!(peer.memory.slice().to_vec()[..8000], local.slice().to_vec()[..8000]);
}

#[test]
fn everything_outstanding_finds_room_among_the_completions() {
    let depth = 1024;
    let mut peer = Peer::new(SIZE);
    let (connector, mut queue, _local) = peer.queue(depth);
    for number in 0..depth as u64 {
        assert_eq!(queue.post(&[write(number, number as usize * 8, 8, true)]).unwrap(), 1);
    }
    assert_eq!(queue.post(&[write(0, 0, 8, true)]).unwrap(), 0, "it is full");
    queue.doorbell().unwrap();
    // Let all of them complete before any is looked at.
    let until = Instant::now() + PATIENCE;
    while peer.memory.slice().to_vec()[(depth - 1) * 8..depth * 8] != [0; 8] && Instant::now() < until {}
    for number in 0..depth as u64 {
        assert_eq!(next(&mut queue).unwrap().wr_id, number);
    }
    // Now every one of a full queue fails at once, asked for or not.
    let watcher = std::thread::spawn({
        let watch = connector.watch().clone();
        move || watch.next()
    });
    peer.quiet().revoke().unwrap();
    for number in 0..depth as u64 {
        match queue.post(&[write(number, number as usize * 8, 8, false)]) {
            Ok(taken) => assert_eq!(taken, 1),
            Err(error) => assert!(matches!(error, QueueError::PeerGone { .. }), "{error}"),
        }
    }
    let _ = queue.doorbell();
    let first = next(&mut queue).unwrap_err();
    assert!(matches!(first, QueueError::PeerGone { .. }), "{first}");
    assert_eq!(queue.poll().unwrap_err(), first, "the first cause stays");
    assert_eq!(queue.post(&[write(0, 0, 8, true)]).unwrap_err(), first);
    assert!(matches!(watcher.join().unwrap(), Watched::Failed(QueueError::PeerGone { .. })));
}

#[test]
fn a_broken_device_fails_everything_in_flight_and_wakes_who_sleeps() {
    let peer = Peer::new(SIZE);
    let (connector, mut queue, _local) = peer.queue(64);
    let (_other_connector, mut other, _) = peer.queue(64);
    for event in [
        DeviceEvent::Harmless { kind: 9 },
        DeviceEvent::QueuePair { number: u32::MAX, kind: 1 },
        DeviceEvent::PortDown { port: 2 },
    ] {
        assert_eq!(connector.watch().handle(event), None, "{event} is not about this queue");
    }
    while queue.arm().unwrap() == Armed::PollAgain {
        assert_eq!(queue.poll().unwrap(), None);
    }
    let event = queue.event_fd().unwrap().try_clone_to_owned().unwrap();
    assert!(!readable(std::os::fd::AsFd::as_fd(&event)));
    let cause = connector.watch().handle(DeviceEvent::DeviceFatal).expect("it has a queue");
    assert!(cause.to_string().contains("broke down"), "{cause}");
    assert!(readable(std::os::fd::AsFd::as_fd(&event)));
    for result in [
        queue.post(&[write(1, 0, 8, true)]).map(|_| ()),
        queue.doorbell(),
        queue.poll().map(|_| ()),
        queue.arm().map(|_| ()),
    ] {
        assert_eq!(result.unwrap_err(), cause);
    }
    // One session's device is not another's, although both are the same card.
    other.post(&[write(2, 0, 8, true)]).unwrap();
    other.doorbell().unwrap();
    assert_eq!(next(&mut other).unwrap().wr_id, 2);
}

#[test]
fn a_port_that_goes_down_fails_the_queues_that_go_through_it() {
    let peer = Peer::new(SIZE);
    let (connector, mut queue, _local) = peer.queue(16);
    assert_eq!(connector.watch().handle(DeviceEvent::PortDown { port: 2 }), None);
    queue.post(&[write(1, 0, 8, true)]).unwrap();
    queue.doorbell().unwrap();
    assert_eq!(next(&mut queue).unwrap().wr_id, 1, "another port is no matter to it");
    let cause = connector.watch().handle(DeviceEvent::PortDown { port: 1 }).expect("it is the queue's own");
    assert!(cause.to_string().contains("port 1"), "{cause}");
    assert_eq!(queue.doorbell().unwrap_err(), cause);
}

#[test]
fn a_sleeper_is_woken_by_the_completion_that_it_armed_for() {
    let peer = Peer::new(SIZE);
    let (_connector, mut queue, _local) = peer.queue(64);
    for number in 0..50 {
        while queue.arm().unwrap() == Armed::PollAgain {
            assert_eq!(queue.poll().unwrap(), None);
        }
        queue.post(&[write(number, 0, 8, true)]).unwrap();
        queue.doorbell().unwrap();
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            queue.event_fd().unwrap(),
            rustix::event::PollFlags::IN,
        )];
        let most = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&most)), Ok(1), "store {number} wakes nobody");
        assert_eq!(queue.poll().unwrap().map(|completion| completion.wr_id), Some(number));
    }
}

#[test]
fn a_wrong_key_and_one_that_was_taken_back_are_refused_by_the_device() {
    let mut peer = Peer::new(SIZE);
    let (mut good, _) = peer.bare(16);
    good.write(0, 64, true);
    good.ring().unwrap();
    complete(&mut good, 0).unwrap();
    let (mut wrong, _) = peer.bare(16);
    wrong.set_key(wrong.window().key ^ 0x00ff_ff00);
    wrong.write(0, 64, true);
    wrong.ring().unwrap();
    let why = complete(&mut wrong, 0).unwrap_err();
    assert!(why.contains("remote access"), "{why}");
    // The key of another registration that is gone by now.
    let stale = {
        let other = Peer::new(SIZE);
        let (queue, _) = other.bare(16);
        queue.window().key
    };
    let (mut late, _) = peer.bare(16);
    late.set_key(stale);
    late.write(0, 64, true);
    late.ring().unwrap();
    let why = complete(&mut late, 0).unwrap_err();
    assert!(why.contains("remote access"), "{why}");
    // And after the revocation the very key that was good.
    peer.quiet().revoke().unwrap();
    let before = peer.memory.slice().digest();
    good.write(0, 64, true);
    good.ring().unwrap();
    assert!(complete(&mut good, 1).is_err());
    assert_eq!(peer.memory.slice().digest(), before);
}

#[test]
fn a_device_says_whether_it_has_a_flush_of_its_own() {
    let peer = Peer::new(SIZE);
    let (connector, _queue, _) = peer.queue(16);
    let device = connector.device().expect("it is connected");
    // Soft-RoCE got one in Linux 6.3.
    println!("{}: {:?}, {:?}", device.name(), device.native_flush().unwrap(), device.limits());
    assert!(device.limits().queue_depth_max >= 16);
}

#[test]
fn a_store_and_its_flush_go_by_one_doorbell() {
    let pair = Pair::new(Fabric::Rdma, SIZE);
    for depth in [1, 8, 256] {
        let mut lane = pair.region.lane(LaneConfig { depth, ..LaneConfig::default() }).unwrap();
        for number in 1..=20 {
            let ticket = lane.store(64, &[number as u8; 100]).unwrap();
            lane.wait(ticket, Level::Visible, soon()).unwrap();
            assert_eq!(lane.stats().doorbells, number, "depth {depth}");
            assert_eq!(lane.stats().requests, 2 * number, "a write and a read");
        }
        assert_eq!(pair.held(), pair.local());
    }
}

#[test]
fn a_hot_word_keeps_its_last_value() {
    let pair = Pair::new(Fabric::Rdma, SIZE);
    let config = LaneConfig { depth: 64, polling: Polling::Block, ..LaneConfig::default() };
    let mut lane = pair.region.lane(config).unwrap();
    for number in 0..500u64 {
        // The source of the last one is still being read: this one waits for it.
        lane.store(128, &number.to_le_bytes()).unwrap();
    }
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held()[128..136], 499u64.to_le_bytes());
}
