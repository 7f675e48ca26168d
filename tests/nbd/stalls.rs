//! Clients that stall or vanish at every byte, while others go on.

use std::time::{Duration, Instant};

use mirrorbus::serve::nbd::CONNECTIONS_MAX;

use crate::raw::{Raw, negotiation, read, write};
use crate::{Rig, many_descriptors, until};

const SIZE: u64 = 4 << 20;
/// Where the stalled write goes.
const TARGET: u64 = 1 << 20;
const PAYLOAD: [u8; 64] = [0xab; 64];

/// Writes, reads and compares, as a client that knows nothing of the others.
fn goes_on(client: &mut Raw, round: usize) {
    let started = Instant::now();
    let text = [u8::try_from(round % 251).unwrap(); 512];
    client.send(&write(0, 7, 0, &text));
    assert_eq!(client.reply().error(), (7, 0));
    assert_eq!(client.read(0, 512).unwrap(), text);
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
}

/// All bytes of a client with one write and one read.
fn all_bytes() -> (Vec<u8>, usize) {
    let negotiation = negotiation();
    let before_payload = negotiation.len() + 28;
    ([negotiation, write(0, 1, TARGET, &PAYLOAD), read(2, TARGET, 16)].concat(), before_payload)
}

#[test]
fn stalls_at_every_byte_hold_up_nobody_and_end_where_they_began() {
    many_descriptors();
    let rig = Rig::new(SIZE);
    let mut other = Raw::structured(&rig);
    let (bytes, before_payload) = all_bytes();
    assert!(bytes.len() < CONNECTIONS_MAX, "{} clients at once", bytes.len());
    let mut stalled = Vec::new();
    for len in 0..=before_payload + PAYLOAD.len() - 1 {
        let mut raw = Raw::stranger(&rig);
        raw.send(&bytes[..len]);
        stalled.push((raw, len));
        if len % 8 == 0 {
            goes_on(&mut other, len);
        }
    }
    goes_on(&mut other, 1);
    let target = usize::try_from(TARGET).unwrap();
    let content = rig.disk.content();
    assert!(content[target..target + 64].iter().all(|&byte| byte == 0), "half a payload was taken");
    for (mut raw, len) in stalled {
        raw.send(&bytes[len..]);
        raw.finish_negotiation();
        assert_eq!(raw.reply().error(), (1, 0), "stalled at {len}");
        raw.reply();
    }
    assert_eq!(rig.disk.content()[target..target + 64], PAYLOAD);
    goes_on(&mut other, 2);
}

#[test]
fn vanishing_at_every_byte_takes_nobody_along() {
    let rig = Rig::new(SIZE);
    let mut other = Raw::structured(&rig);
    let (bytes, before_payload) = all_bytes();
    for len in 0..bytes.len() {
        for connect in [Raw::stranger, Raw::stranger_by_tcp] {
            let mut raw = connect(&rig);
            raw.send(&bytes[..len]);
            drop(raw);
        }
        if len % 8 == 0 {
            goes_on(&mut other, len);
        }
        if len == before_payload + PAYLOAD.len() - 1 {
            until("leaving", || rig.server.connections() == 1);
            let target = usize::try_from(TARGET).unwrap();
            assert!(rig.disk.content()[target..target + 64].iter().all(|&byte| byte == 0));
        }
    }
    until("leaving", || rig.server.connections() == 1);
    goes_on(&mut other, 3);
}

#[test]
fn a_long_payload_that_stalls_holds_up_nobody() {
    let rig = Rig::new(SIZE);
    let mut other = Raw::structured(&rig);
    let payload = vec![0x77; 1 << 20];
    let bytes = write(0, 1, TARGET, &payload);
    let mut stalled: Vec<_> = [28, 29, 4096, 131_072, 131_100, 262_143, 262_172, 500_001, bytes.len() - 1]
        .into_iter()
        .map(|len| {
            let mut raw = Raw::structured(&rig);
            raw.send(&bytes[..len]);
            goes_on(&mut other, len);
            (raw, len)
        })
        .collect();
    for (raw, len) in &mut stalled {
        raw.send(&bytes[*len..]);
        assert_eq!(raw.reply().error(), (1, 0));
    }
    let target = usize::try_from(TARGET).unwrap();
    assert!(rig.disk.content()[target..target + payload.len()] == payload);
}

#[test]
fn a_client_that_reads_nothing_holds_up_nobody() {
    let rig = Rig::new(SIZE);
    rig.disk.put(0, &vec![5; 4 << 20]);
    let mut other = Raw::structured(&rig);
    let mut deaf = Raw::structured(&rig);
    (0..16).for_each(|cookie| deaf.send(&read(cookie, 0, 4 << 20)));
    (0..50).for_each(|round| goes_on(&mut other, round));
    drop(deaf);
    until("leaving", || rig.server.connections() == 1);
}

/// More strangers than there are places: who wants a disk gets in, and who uses one stays.
#[test]
fn a_crowd_that_says_nothing_keeps_nobody_out() {
    many_descriptors();
    let rig = Rig::new(SIZE);
    let mut other = Raw::structured(&rig);
    let crowd: Vec<_> = (0..CONNECTIONS_MAX + 20).map(|_| Raw::stranger(&rig)).collect();
    until("a full house", || rig.server.connections() == CONNECTIONS_MAX);
    goes_on(&mut other, 1);
    let mut late = Raw::structured(&rig);
    goes_on(&mut late, 2);
    goes_on(&mut other, 3);
    drop(crowd);
    until("leaving", || rig.server.connections() == 2);
}
