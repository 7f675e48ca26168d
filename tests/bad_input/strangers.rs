//! Who has no key, speaks another version, or breaks off or garbles the handshake at any byte.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use mirrorbus::control::{HANDSHAKE_TIME_MAX, Preface};
use mirrorbus::{Attach, KeySet, Region};
use rustix::net::Shutdown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::in_child;
use crate::common::{Fabric, Random, keys, region_config};
use crate::wire::{Abuse, Peer, connect, read_to_end};
use crate::{SIZE, holder, on_both, serves, still_serves};

on_both!(
    a_wrong_key_is_told_so,
    another_version_is_told_both_ranges,
    truncation_at_every_byte,
    silence_after_every_byte,
    garbage_at_every_byte,
    random_bytes_are_no_handshake,
    a_thousand_half_open_connections,
);

fn a_wrong_key_is_told_so(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let wrong = KeySet::from_bytes(&[[8; 32]]).unwrap();
    let started = Instant::now();
    let error = Region::open(region_config(holder.url(), SIZE, Attach::Push { replace: false }), wrong)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no common key: compare key files"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    still_serves(&holder);
}

/// A preface of ours with another range of versions.
fn preface(min: u16, max: u16) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(b"MIRRORBS");
    bytes[8] = 1;
    bytes[10..12].copy_from_slice(&min.to_le_bytes());
    bytes[12..14].copy_from_slice(&max.to_le_bytes());
    bytes
}

fn another_version_is_told_both_ranges(fabric: Fabric) {
    crate::logs::collect();
    let (holder, _scratch) = holder(fabric);
    let mut socket = connect(holder.url());
    socket.write_all(&preface(7, 9)).unwrap();
    let reply = read_to_end(&socket);
    let reply: [u8; 32] = reply.as_slice().try_into().unwrap();
    Preface::parse(&reply).unwrap();
    // A refusal for the version, with the range that this side speaks; the owner's error is made of that.
    assert_eq!((reply[9], &reply[10..14]), (1, &[1, 0, 1, 0][..]));
    crate::logs::until_logged("peer speaks versions 7..9, we speak 1..1");
    still_serves(&holder);
}

/// Bytes that an owner sends in its handshake, from a real one.
fn handshake_bytes(url: &mirrorbus::FabricUrl) -> usize {
    let peer = Peer::connect(url, &keys());
    assert!(peer.sent > 32 + 48, "{} bytes are no handshake", peer.sent);
    peer.sent
}

fn truncation_at_every_byte(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let total = handshake_bytes(holder.url());
    for len in 0..total {
        let mut peer = Peer::initiate(holder.url(), &keys(), Abuse::Cut(len));
        peer.shake_hands();
        assert!(peer.session.is_none() && peer.is_cut(), "cut at {len}: {:?}", peer.ended);
        rustix::net::shutdown(&peer.socket, Shutdown::Write).unwrap();
        let started = Instant::now();
        read_to_end(&peer.socket);
        assert!(started.elapsed() < Duration::from_secs(4), "hung up on after {:?}", started.elapsed());
        if len % 16 == 0 {
            still_serves(&holder);
        }
    }
    still_serves(&holder);
}

fn silence_after_every_byte(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let total = handshake_bytes(holder.url());
    let started = Instant::now();
    let cut: Vec<File> = (0..total)
        .map(|len| {
            let mut peer = Peer::initiate(holder.url(), &keys(), Abuse::Cut(len));
            peer.shake_hands();
            assert!(peer.session.is_none(), "established by {len} of {total} bytes");
            peer.socket
        })
        .collect();
    still_serves(&holder);
    cut.iter().for_each(|socket| drop(read_to_end(socket)));
    let took = started.elapsed();
    assert!(took < HANDSHAKE_TIME_MAX * 2 + Duration::from_secs(5), "the last was hung up on after {took:?}");
    still_serves(&holder);
}

fn garbage_at_every_byte(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let total = handshake_bytes(holder.url());
    for at in 0..total {
        let mut peer = Peer::initiate(holder.url(), &keys(), Abuse::Flip(at));
        // A length that was garbled upwards makes the holder wait for more: it gets the end of the stream instead.
        peer.transmit();
        while peer.session.is_none() && peer.ended.is_none() {
            if peer.sent >= total || at < 32 {
                let _ = rustix::net::shutdown(&peer.socket, Shutdown::Write);
            }
            peer.receive();
        }
        assert!(peer.session.is_none(), "established with byte {at} altered");
        if at % 16 == 0 {
            still_serves(&holder);
        }
    }
    still_serves(&holder);
}

fn random_bytes_are_no_handshake(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let mut random = Random(0x5eed_0001);
    for round in 0..200 {
        let mut socket = connect(holder.url());
        let genuine = if round % 2 == 0 { 0 } else { 32 };
        let mut bytes = preface(1, 1)[..genuine].to_vec();
        let len = 1 + random.below(4000);
        bytes.extend(crate::wire::random_bytes(&mut random, len));
        // It may hang up before it took everything.
        let _ = socket.write_all(&bytes);
        let _ = rustix::net::shutdown(&socket, Shutdown::Write);
        assert!(read_to_end(&socket).len() <= 32 + 3, "a stranger was told something (round {round})");
    }
    still_serves(&holder);
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until no more than `most` descriptors are open, but for those of the last two owners, whose connections are
/// put away when the next one comes.
fn until_open(most: usize) {
    let most = most + 8;
    let until = Instant::now() + HANDSHAKE_TIME_MAX + Duration::from_secs(15);
    while open_descriptors() > most {
        assert!(Instant::now() < until, "{} descriptors are open, {most} should be", open_descriptors());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn a_thousand_half_open_connections(fabric: Fabric) {
    const STRANGERS: usize = 1000;
    /// Descriptors of the handshakes that a holder keeps at a time, and of one owner.
    const HELD_MAX: usize = 256 + 64;
    let name = match fabric {
        Fabric::Shm => "strangers::shm::a_thousand_half_open_connections",
        _ => "strangers::tcp::a_thousand_half_open_connections",
    };
    in_child(name, || {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert!(
            hard.is_none_or(|hard| hard >= 4096),
            "this test needs 4096 descriptors, the limit is {hard:?}"
        );
        setrlimit(Resource::Nofile, Rlimit { current: hard.map(|hard| hard.min(65536)), maximum: hard })
            .unwrap();
        let (holder, _scratch) = holder(fabric);
        still_serves(&holder);
        // What is left of that owner goes in its own time.
        std::thread::sleep(Duration::from_secs(1));
        let before = open_descriptors();
        let url = holder.url().clone();
        let strangers = std::thread::spawn(move || {
            let open = |number: usize| {
                let mut socket = connect(&url);
                // Half of them say nothing, half of them begin; some of the latter are cut off while they write.
                let _ = socket.write_all(&preface(1, 1)[..number % 2 * 20]);
                socket
            };
            (0..STRANGERS).map(open).collect::<Vec<File>>()
        });
        // While they come, when all are there, and each time within still_serves' seconds. One that is slow may be hung up on for a stranger.
        serves(&holder, |_| true);
        let strangers = strangers.join().unwrap();
        serves(&holder, |_| true);
        let most = before + STRANGERS + HELD_MAX;
        let held = open_descriptors();
        assert!(held <= most, "{held} descriptors, {before} before and {STRANGERS} strangers' own");
        until_open(before + STRANGERS);
        // None was forgotten: each was hung up on.
        strangers.iter().for_each(|socket| drop(read_to_end(socket)));
        drop(strangers);
        still_serves(&holder);
        until_open(before);
    });
}
