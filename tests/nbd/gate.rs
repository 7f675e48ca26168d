//! The reply gate: nothing is answered before it is committed, whoever asks; and what becomes of it when that fails, when the client
//! goes away, and when the server stops.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mirrorbus::serve::nbd::STOP_TIME_MAX;

use crate::raw::{
    BLOCK_STATUS, CACHE, DF, DISCONNECT, FLUSH, FUA, NO_HOLE, READ, REQ_ONE, Raw, Reply, TRIM, WRITE_ZEROES,
    negotiation, read, request, write,
};
use crate::{Rig, until};

const SIZE: u64 = 16 << 20;

#[test]
fn nothing_is_answered_before_it_is_committed() {
    let rig = Rig::new(SIZE);
    rig.disk.hold.store(true, Ordering::Release);
    for asked in [
        write(0, 1, 0, b"abc"),
        read(1, 0, 512),
        request(DF, READ, 1, (0, 512), &[]),
        read(1, 0, 1 << 20),
        request(0, TRIM, 1, (0, 4096), &[]),
        request(NO_HOLE, WRITE_ZEROES, 1, (0, 4096), &[]),
        request(REQ_ONE, BLOCK_STATUS, 1, (0, 4096), &[]),
        write(FUA, 1, 0, b"abc"),
    ] {
        let stream = UnixStream::connect(rig.socket()).unwrap();
        let mut raw = Raw(Box::new(stream.try_clone().unwrap()));
        raw.send(&negotiation());
        raw.finish_negotiation();
        let commits = rig.disk.commits.load(Ordering::Relaxed);
        raw.send(&asked);
        until("a commit", || rig.disk.commits.load(Ordering::Relaxed) > commits);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let early = raw.0.read(&mut [0]);
        assert_eq!(early.unwrap_err().kind(), ErrorKind::WouldBlock, "{asked:?} was answered");
        stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        rig.disk.hold.store(false, Ordering::Release);
        raw.reply();
        rig.disk.hold.store(true, Ordering::Release);
    }
    // What shows nothing and changes nothing needs no commit.
    let mut raw = Raw::structured(&rig);
    raw.send(&request(0, CACHE, 5, (0, 4096), &[]));
    assert_eq!(raw.reply().error(), (5, 0));
    rig.disk.hold.store(false, Ordering::Release);
}

#[test]
fn requests_that_came_together_are_committed_together() {
    let rig = Rig::new(SIZE);
    let mut raw = Raw::structured(&rig);
    rig.disk.hold.store(true, Ordering::Release);
    raw.send(&write(0, 0, 0, b"first"));
    until("a commit", || rig.disk.commits.load(Ordering::Relaxed) == 1);
    let many: Vec<u8> = (1..=16).flat_map(|cookie| write(0, cookie, cookie * 4096, &[7; 2048])).collect();
    raw.send(&many);
    rig.disk.hold.store(false, Ordering::Release);
    for cookie in 0..=16 {
        assert_eq!(raw.reply(), Reply::Simple { cookie, error: 0 });
    }
    assert_eq!(rig.disk.commits.load(Ordering::Relaxed), 2);
}

#[test]
fn a_commit_that_fails_fails_every_reply_that_waited_for_it() {
    let rig = Rig::new(SIZE);
    let mut raw = Raw::structured(&rig);
    rig.disk.fail_commits.store(true, Ordering::Release);
    let status = request(0, BLOCK_STATUS, 4, (0, 4096), &[]);
    let asked = [
        write(0, 1, 0, b"abc"),
        read(2, 0, 512),
        read(3, SIZE, 512),
        status,
        write(FUA, 5, 0, b"abc"),
        read(6, 0, 8 << 20),
    ];
    raw.send(&asked.concat());
    let mut found: Vec<_> = (0..6).map(|_| raw.reply().error()).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 28), (2, 28), (3, 22), (4, 28), (5, 28), (6, 28)]);
    rig.disk.fail_commits.store(false, Ordering::Release);
    assert_eq!(&raw.read(0, 3).unwrap(), b"abc");
    // The same without structured replies: numbers only.
    let mut raw = Raw::simple(&rig);
    rig.disk.fail_commits.store(true, Ordering::Release);
    raw.send(&[read(1, 0, 512), write(0, 2, 0, b"x")].concat());
    let mut found: Vec<_> = (0..2).map(|_| raw.reply().error()).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 28), (2, 28)]);
}

#[test]
fn a_sync_holds_up_and_fails_only_those_who_asked_for_it() {
    let rig = Rig::new(SIZE);
    let mut raw = Raw::structured(&rig);
    let flush = request(0, FLUSH, 3, (0, 0), &[]);
    let asked = [write(0, 1, 0, b"abc"), write(FUA, 2, 8, b"abc"), flush, write(0, 4, 16, b"abc")].concat();
    raw.send(&asked);
    let mut found: Vec<_> = (0..4).map(|_| raw.reply().error()).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 0), (2, 0), (3, 0), (4, 0)]);
    let flushes = rig.disk.flushes.load(Ordering::Relaxed);
    assert!((1..=2).contains(&flushes), "{flushes} flushes for one batch, or two");
    rig.disk.fail_flushes.store(true, Ordering::Release);
    raw.send(&asked);
    let mut found: Vec<_> = (0..4).map(|_| raw.reply().error()).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 0), (2, 5), (3, 5), (4, 0)]);
    rig.disk.fail_flushes.store(false, Ordering::Release);
    for flagged in [
        request(FUA, TRIM, 7, (0, 4096), &[]),
        request(FUA | NO_HOLE, WRITE_ZEROES, 7, (0, 4096), &[]),
        // Reserved fields mean nothing.
        request(FUA, FLUSH, 7, (9, 9), &[]),
    ] {
        let before = rig.disk.flushes.load(Ordering::Relaxed);
        raw.send(&flagged);
        assert_eq!(raw.reply().error(), (7, 0));
        assert_eq!(rig.disk.flushes.load(Ordering::Relaxed), before + 1);
    }
}

#[test]
fn a_client_that_is_gone_is_not_waited_for() {
    let rig = Rig::new(SIZE);
    rig.disk.hold.store(true, Ordering::Release);
    for (count, connect) in [(1, Raw::structured as fn(&Rig) -> Raw), (2, Raw::structured_by_tcp)] {
        let mut raw = connect(&rig);
        raw.send(&write(0, 1, 0, b"abc"));
        until("a commit", || rig.disk.commits.load(Ordering::Relaxed) == count);
        assert_eq!(rig.server.connections(), 1);
        drop(raw);
        until("giving up", || rig.disk.given_up.load(Ordering::Relaxed) == count);
        until("leaving", || rig.server.connections() == 0);
    }
}

#[test]
fn who_waits_for_a_place_is_let_go_when_the_client_is_gone_and_by_a_stop() {
    let rig = Rig::new(SIZE);
    rig.disk.full.store(true, Ordering::Release);
    let asked = [
        write(0, 1, 0, b"abc"),
        write(0, 1, 0, &[7; 128 << 10]),
        request(0, TRIM, 1, (0, 4096), &[]),
        request(0, WRITE_ZEROES, 1, (0, 4096), &[]),
    ];
    for (count, asked) in (1..).zip(&asked) {
        let mut raw = Raw::structured(&rig);
        // What else it asked for is not even looked at.
        raw.send(&[&asked[..], asked].concat());
        until("waiting", || rig.disk.waits.load(Ordering::Acquire) == count);
        drop(raw);
        until("leaving", || rig.server.connections() == 0);
        assert_eq!(rig.disk.given_up.load(Ordering::Acquire), count);
    }
    let mut held = Raw::structured(&rig);
    held.send(&asked[0]);
    until("waiting", || rig.disk.waits.load(Ordering::Acquire) == 5);
    let started = Instant::now();
    rig.server.stop();
    let took = started.elapsed();
    assert!(took >= STOP_TIME_MAX / 2 && took < STOP_TIME_MAX + Duration::from_secs(20), "{took:?}");
    assert!(held.is_closed());
}

#[test]
fn a_disconnect_ends_it_after_the_requests_before_it() {
    let rig = Rig::new(SIZE);
    let mut raw = Raw::structured(&rig);
    raw.send(&[write(0, 1, 0, b"abc"), request(0, DISCONNECT, 2, (0, 0), &[])].concat());
    assert_eq!(raw.reply().error(), (1, 0));
    assert!(raw.is_closed());
    until("leaving", || rig.server.connections() == 0);
}

#[test]
fn what_is_no_request_ends_it_after_the_requests_before_it() {
    let rig = Rig::new(SIZE);
    let mut raw = Raw::structured(&rig);
    raw.send(&[write(0, 1, 0, b"abc"), vec![0x5a; 28]].concat());
    assert_eq!(raw.reply().error(), (1, 0));
    assert!(raw.is_closed());
    // Nobody reads gigabytes to throw them away.
    let mut raw = Raw::structured(&rig);
    raw.send(&request(0, 1, 1, (0, u32::MAX), &[]));
    assert!(raw.is_closed());
}

#[test]
fn bad_bytes_fail_what_touches_them() {
    let rig = Rig::new(SIZE);
    rig.disk.put(0, &vec![9; 1 << 20]);
    rig.disk.bad_byte.store(300_000, Ordering::Release);
    let mut raw = Raw::structured(&rig);
    assert!(raw.read(0, 4096).is_some() && raw.read(299_999, 2).is_none());
    // Pieces of a long read before the bad one may have been sent; the reply ends with where it failed.
    raw.send(&read(1, 0, 1 << 20));
    let last = loop {
        let Reply::Chunk { done, kind, data, .. } = raw.reply() else { panic!("structured") };
        if done {
            break (kind, data);
        }
    };
    assert_eq!((last.0, &last.1[..4]), (0x8002, &[0, 0, 0, 5][..]));
    assert!(String::from_utf8_lossy(&last.1).contains("byte 300000 is bad"));
    // A long write that fails in its middle: the rest of it is skipped, and the next request is found.
    raw.send(&write(0, 2, 0, &vec![1; 2 << 20]));
    assert_eq!(raw.reply().error(), (2, 5));
    let mut simple = Raw::simple(&rig);
    simple.send(&[read(1, 299_999, 2), read(2, 0, 1)].concat());
    // Refusals wait for nothing, so they may come behind what was asked for later.
    assert_eq!(simple.reply(), Reply::Simple { cookie: 2, error: 0 });
    simple.bytes(1);
    assert_eq!(simple.reply(), Reply::Simple { cookie: 1, error: 5 });
}

#[test]
fn a_stop_lets_requests_finish_and_is_bounded() {
    let rig = Rig::new(SIZE);
    let mut idle = Raw::structured(&rig);
    let mut stranger = Raw::stranger(&rig);
    let mut busy = Raw::structured(&rig);
    let mut by_tcp = Raw::structured_by_tcp(&rig);
    rig.disk.hold.store(true, Ordering::Release);
    busy.send(&write(0, 1, 0, b"abc"));
    by_tcp.send(&write(0, 1, 0, b"abc"));
    until("two commits", || rig.disk.commits.load(Ordering::Relaxed) == 2);
    let Rig { disk, server, scratch } = rig;
    let stop = std::thread::spawn(move || server.stop());
    assert!(idle.is_closed());
    assert_eq!(stranger.bytes(18), b"NBDMAGICIHAVEOPT\0\x03");
    assert!(stranger.is_closed());
    disk.hold.store(false, Ordering::Release);
    assert_eq!(busy.reply().error(), (1, 0));
    assert_eq!(by_tcp.reply().error(), (1, 0));
    assert!(busy.is_closed() && by_tcp.is_closed());
    stop.join().unwrap();
    assert!(!scratch.path("nbd.sock").exists());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let rig = Rig::new(SIZE);
    let mut held = Raw::structured(&rig);
    rig.disk.hold.store(true, Ordering::Release);
    held.send(&write(0, 1, 0, b"abc"));
    // And one that does not read its replies.
    let mut deaf = Raw::structured(&rig);
    let asked = read(1, 0, 8 << 20);
    rig.disk.hold.store(false, Ordering::Release);
    deaf.send(&asked);
    assert_eq!(held.reply().error(), (1, 0));
    rig.disk.hold.store(true, Ordering::Release);
    held.send(&write(0, 2, 0, b"abc"));
    until("a commit", || rig.disk.commits.load(Ordering::Relaxed) >= 3);
    let started = Instant::now();
    rig.server.stop();
    let took = started.elapsed();
    assert!(took >= STOP_TIME_MAX / 2 && took < STOP_TIME_MAX + Duration::from_secs(20), "{took:?}");
}
