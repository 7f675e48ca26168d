//! Who has the key and asks for what cannot be: another size, another's place, what is not there, or nonsense.

use std::time::{Duration, Instant};

use mirrorbus::base::SessionId;
use mirrorbus::control::{DataHandshake, Token};
use mirrorbus::mirror::WaitError;
use mirrorbus::node::{CallError, OpenError, ReconnectError, RefusalCode};
use mirrorbus::{Attach, Holder, LaneConfig, Level, Region};

use crate::common::{Fabric, Random, keys, region_config, soon};
use crate::wire::{PUSH_REPLACE, Peer, attach, data_stream, open_queue, read_to_end, refusal};
use crate::{SIZE, holder, on_both, still_serves, until_disconnected};

on_both!(
    another_size_is_refused_with_both,
    a_second_owner_is_refused,
    what_is_there_is_not_overwritten_and_what_is_not_is_not_pulled,
    differing_copies_are_counted,
    a_fenced_owner_is_told_to_start_anew,
    tickets_from_before_a_reconnection_are_stale,
    nonsense_from_an_owner_is_refused_or_dropped,
    data_streams_need_a_fresh_token_of_their_session,
    garbage_on_a_data_stream_ends_that_stream,
    connections_that_ask_for_nothing_make_room,
    a_resumption_whose_end_was_not_heard_can_be_repeated,
    ranges_to_apply_are_bounded,
);

const PUSH: Attach = Attach::Push { replace: false };

fn open(holder: &Holder, size: usize, attach: Attach) -> Result<Region, OpenError> {
    Region::open(region_config(holder.url(), size, attach), keys())
}

/// The code and the words with which the holder refuses to open.
fn refused(holder: &Holder, size: usize, attach: Attach) -> (RefusalCode, String) {
    match open(holder, size, attach) {
        Err(OpenError::Call(CallError::Refused { code, why })) => (code, why),
        other => panic!("not refused: {other:?}"),
    }
}

fn another_size_is_refused_with_both(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    for size in [SIZE - 1, SIZE * 2] {
        let (code, why) = refused(&holder, size, PUSH);
        assert_eq!(code, RefusalCode::Size);
        assert!(why.contains(&size.to_string()) && why.contains(&SIZE.to_string()), "{why}");
    }
    still_serves(&holder);
}

fn a_second_owner_is_refused(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let first = open(&holder, SIZE, PUSH).unwrap();
    for attach in [Attach::Pull, Attach::Equal, Attach::Push { replace: true }] {
        let (code, why) = refused(&holder, SIZE, attach);
        assert_eq!(code, RefusalCode::Busy, "{why}");
        assert!(why.contains("is connected"), "{why}");
    }
    let mut lane = first.lane(LaneConfig::default()).unwrap();
    let ticket = lane.store(5, b"mine").unwrap();
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    drop(lane);
    first.close();
    still_serves(&holder);
}

fn what_is_there_is_not_overwritten_and_what_is_not_is_not_pulled(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    for attach in [Attach::Pull, Attach::Equal] {
        let (code, why) = refused(&holder, SIZE, attach);
        assert_eq!(code, RefusalCode::Nothing, "{why}");
        assert!(why.contains("Empty") && why.contains("push"), "{why}");
    }
    let first = open(&holder, SIZE, PUSH).unwrap();
    let id = first.id();
    first.close();
    until_disconnected(&holder);
    let (code, why) = refused(&holder, SIZE, PUSH);
    assert_eq!(code, RefusalCode::Occupied, "{why}");
    assert!(why.contains(&id.to_string()) && why.contains("replace"), "{why}");
    still_serves(&holder);
}

fn differing_copies_are_counted(fabric: Fabric) {
    const MIB: usize = 1 << 20;
    let scratch = crate::common::Scratch::new();
    let holder = Holder::start(crate::common::holder_config(fabric.url(&scratch), 4 * MIB), keys()).unwrap();
    let region = open(&holder, 4 * MIB, PUSH).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    lane.store(MIB + 17, &[1]).unwrap();
    lane.store(3 * MIB, &[2]).unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    drop(lane);
    region.close();
    until_disconnected(&holder);
    // A fresh copy is all zero.
    let error = open(&holder, 4 * MIB, Attach::Equal).unwrap_err();
    let OpenError::Different { differing, chunks, first_offset } = error else { panic!("{error}") };
    assert_eq!((differing, chunks, first_offset), (2, 4, MIB));
    let text = error.to_string();
    assert!(text.contains("2 of 4") && text.contains("1048576") && text.contains("Pull"), "{text}");
    until_disconnected(&holder);
    let region = open(&holder, 4 * MIB, Attach::Pull).unwrap();
    assert_eq!(region.memory().to_vec()[3 * MIB], 2, "a refused comparison changed the copy");
}

fn a_fenced_owner_is_told_to_start_anew(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let region = open(&holder, SIZE, PUSH).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    lane.store(0, b"before").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    holder.fence(soon()).unwrap();
    let error = region.reconnect(&mut [&mut lane], soon()).unwrap_err();
    let ReconnectError::Call(CallError::Refused { code, why }) = &error else { panic!("{error}") };
    assert_eq!(*code, RefusalCode::NotResumable);
    assert!(why.contains("open the region anew"), "{why}");
    drop(lane);
    drop(region);
    still_serves(&holder);
}

fn tickets_from_before_a_reconnection_are_stale(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let region = open(&holder, SIZE, PUSH).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    let old = lane.store(100, b"old").unwrap();
    lane.wait(old, Level::Visible, soon()).unwrap();
    region.reconnect(&mut [&mut lane], soon()).unwrap();
    let error = lane.wait(old, Level::Acked, soon()).unwrap_err();
    assert!(matches!(error, WaitError::StaleTicket { .. }), "{error}");
    assert!(error.to_string().contains("stale ticket: it names store 1"), "{error}");
    let new = lane.store(100, b"new").unwrap();
    lane.wait(new, Level::Visible, soon()).unwrap();
    assert_eq!(&holder.memory().slice().to_vec()[100..103], b"new");
    drop(lane);
    region.close();
    still_serves(&holder);
}

fn nonsense_from_an_owner_is_refused_or_dropped(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let mut peer = Peer::connect(holder.url(), &keys());
    // Before it attached: whatever needs an attachment is out of order (code 7), a wrong size is code 1.
    for body in
        [open_queue(1), vec![4, 1, 0, 0, 0], vec![5, 1, 0, 0, 0], vec![3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]]
    {
        let why = refusal(&peer.call(&body));
        assert_eq!(why, "code 7: this session is not attached");
    }
    let why = refusal(&peer.call(&attach(1, PUSH_REPLACE, u64::MAX, 0)));
    assert!(why.starts_with("code 1:") && why.contains(&u64::MAX.to_string()), "{why}");
    let size = SIZE as u64;
    assert_eq!(peer.call(&attach(1, PUSH_REPLACE, size, u64::MAX))[0], 129);
    // Digests beyond the end, with sums that would overflow; ranges to apply without staging memory.
    for (first, count) in [(u32::MAX, u32::MAX), (0, 2), (2, 0), (0, u32::MAX)] {
        let body = [&[3, 1, 0, 0, 0][..], &first.to_le_bytes(), &count.to_le_bytes()].concat();
        let why = refusal(&peer.call(&body));
        assert!(why.contains("chunks"), "{why}");
    }
    let range = [u64::MAX.to_le_bytes(), 1u64.to_le_bytes()].concat();
    let fine = [0u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    let why = refusal(&peer.call(&[&[6, 1, 0, 0, 0, 1][..], &fine].concat()));
    assert!(why.starts_with("code 7:") && why.contains("staging"), "{why}");
    peer.send(&[&[6, 1, 0, 0, 0, 1][..], &range].concat());
    // A question, where nobody answers any; one that is too long cannot be read.
    let why = refusal(&peer.call(&[7, 1, 0, 0, 0, 1, 2, 3]));
    assert!(why.starts_with("code 9:") && why.contains("no application"), "{why}");
    peer.send(&[&[7, 1, 0, 0, 0][..], &[0; (56 << 10) + 1]].concat());
    // What cannot be read is dropped: the next good request is the next that is answered.
    let mut random = Random(0x5eed_0002);
    for _ in 0..200 {
        // Kinds from 8 to 127 are none.
        let len = 1 + random.below(100);
        let mut body = crate::wire::random_bytes(&mut random, len);
        body[0] = 8 + body[0] % 100;
        peer.send(&body);
    }
    peer.send(&attach(1, 77, size, 0));
    peer.send(&attach(1, PUSH_REPLACE, size, 0)[..80]);
    // The queue of requests holds 256; these were 204.
    let answer = peer.call(&open_queue(4242));
    assert_eq!((answer[0], &answer[1..5]), (130, &4242u32.to_le_bytes()[..]));
    drop(peer);
    still_serves(&holder);
}

/// How long a stream that was let in is watched for being hung up on.
const WATCH: Duration = Duration::from_millis(500);

fn data_streams_need_a_fresh_token_of_their_session(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let url = holder.url();
    let mut peer = Peer::connect(url, &keys());
    let session = peer.session.unwrap();
    assert_eq!(peer.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0))[0], 129);
    let used = peer.token();
    let wrong = Token::from_bytes(&[3; 32]);
    let why = data_stream(url, session, &wrong, &[1], WATCH).unwrap_err();
    assert!(why.contains("no common key"), "{why}");
    let strange = SessionId::from_bytes([5; 16]);
    let why = data_stream(url, strange, &used, &[1], WATCH).unwrap_err();
    assert!(why.contains("knows no such session"), "{why}");
    // Good, once.
    let good = data_stream(url, session, &used, &[1], WATCH).unwrap();
    let why = data_stream(url, session, &used, &[1], WATCH).unwrap_err();
    assert!(why.contains("expects no further stream"), "{why}");
    let _spare = peer.token();
    let why = data_stream(url, session, &used, &[1], WATCH).unwrap_err();
    assert!(why.contains("no common key"), "{why}");
    // Another session has no streams of its own before it attached, and does not get this one's.
    let mut other = Peer::connect(url, &keys());
    assert_eq!(refusal(&other.call(&open_queue(1))), "code 7: this session is not attached");
    let why = data_stream(url, other.session.unwrap(), &peer.token(), &[1], WATCH).unwrap_err();
    assert!(why.contains("knows no such session"), "{why}");
    if fabric == Fabric::Tcp {
        let purposes: [&[u8]; 3] = [&[], &[9], &[1, 1]];
        for purpose in purposes {
            let why = data_stream(url, session, &peer.token(), purpose, 20 * WATCH).unwrap_err();
            assert_eq!(why, "hung up after the handshake");
        }
    }
    drop((good, peer, other));
    still_serves(&holder);
}

fn garbage_on_a_data_stream_ends_that_stream(fabric: Fabric) {
    use std::io::Write;
    let (holder, _scratch) = holder(fabric);
    let url = holder.url();
    let mut peer = Peer::connect(url, &keys());
    let session = peer.session.unwrap();
    assert_eq!(peer.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0))[0], 129);
    let before = holder.memory().slice().to_vec();
    let mut random = Random(0x5eed_0003);
    for _ in 0..50 {
        let token = peer.token();
        let mut stream = data_stream(url, session, &token, &[1], Duration::ZERO).unwrap();
        let len = 64 + random.below(8000);
        let bytes = crate::wire::random_bytes(&mut random, len);
        let _ = stream.write_all(&bytes);
        let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Write);
        read_to_end(&stream);
    }
    // The handshake itself, cut at every byte; the token stays good until it was used.
    let token = peer.token();
    let mut handshake = DataHandshake::initiate(session, &token, &[1], Instant::now()).unwrap();
    let mut preface = Vec::new();
    handshake.poll_transmit(&mut preface);
    for len in 0..preface.len() {
        let mut stream = crate::wire::connect(url);
        stream.write_all(&preface[..len]).unwrap();
        rustix::net::shutdown(&stream, rustix::net::Shutdown::Write).unwrap();
        read_to_end(&stream);
    }
    drop(data_stream(url, session, &token, &[1], Duration::ZERO).unwrap());
    assert_eq!(holder.memory().slice().to_vec(), before, "garbage reached the copy");
    drop(peer);
    still_serves(&holder);
}

fn connections_that_ask_for_nothing_make_room(fabric: Fabric) {
    const BOUND: usize = 64;
    let (holder, _scratch) = holder(fabric);
    let region = open(&holder, SIZE, PUSH).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    let mut peers: Vec<_> = (0..BOUND + 10).map(|_| Peer::connect(holder.url(), &keys())).collect();
    let young = peers.split_off(10);
    for mut peer in peers {
        let end = Instant::now() + Duration::from_secs(5);
        while peer.ended.is_none() {
            assert!(Instant::now() < end, "one of the oldest was left alone");
            peer.receive();
        }
    }
    for mut peer in young {
        assert_eq!(refusal(&peer.call(&open_queue(1))), "code 7: this session is not attached");
    }
    // The owner asks for nothing either, and stays.
    let ticket = lane.store(5, b"mine").unwrap();
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    drop((lane, region));
    still_serves(&holder);
}

/// Resumes `prior`, as granted by `granted`, with so much staging memory.
fn resume(prior: SessionId, granted: &[u8], staging: u64) -> Vec<u8> {
    let mut body = attach(1, 5, SIZE as u64, staging);
    body[25..41].copy_from_slice(&prior.to_bytes());
    body[41..57].copy_from_slice(&granted[25..41]);
    body
}

const COMPLETE: [u8; 5] = [4, 1, 0, 0, 0];

fn a_resumption_whose_end_was_not_heard_can_be_repeated(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let mut first = Peer::connect(holder.url(), &keys());
    let session = first.session.unwrap();
    let granted = first.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0));
    assert_eq!((granted[0], first.call(&COMPLETE)[0]), (129, 132));
    drop(first);
    // The holder completes each, and the owner hears of none.
    for _ in 0..3 {
        let mut again = Peer::connect(holder.url(), &keys());
        let answer = again.call(&resume(session, &granted, 0));
        assert_eq!(answer[0], 129, "{}", refusal(&answer));
        assert_eq!(again.call(&COMPLETE)[0], 132);
    }
    // When another was the owner meanwhile, it is over.
    still_serves(&holder);
    let mut late = Peer::connect(holder.url(), &keys());
    let why = refusal(&late.call(&resume(session, &granted, 0)));
    assert!(why.starts_with("code 5:"), "{why}");
    drop(late);
    still_serves(&holder);
}

fn ranges_to_apply_are_bounded(fabric: Fabric) {
    let (holder, _scratch) = holder(fabric);
    let mut peer = Peer::connect(holder.url(), &keys());
    let session = peer.session.unwrap();
    let granted = peer.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0));
    assert_eq!((granted[0], peer.call(&COMPLETE)[0]), (129, 132));
    let mut peer = Peer::connect(holder.url(), &keys());
    assert_eq!(peer.call(&resume(session, &granted, 4096))[0], 129);
    let apply = |last: u8, len: u64, count: usize| {
        let range = [0u64.to_le_bytes(), len.to_le_bytes()].concat();
        [&[6, 1, 0, 0, 0, last][..], &range.repeat(count)].concat()
    };
    let why = refusal(&peer.call(&apply(0, 0, 3000)));
    assert!(why.starts_with("code 7:") && why.contains("a range is empty"), "{why}");
    // What was refused is forgotten; what is within staging is taken, however many messages it comes in.
    assert_eq!(peer.call(&apply(0, 1, 3000))[0], 132);
    let why = refusal(&peer.call(&apply(0, 1, 3000)));
    assert!(why.starts_with("code 7:") && why.contains("6000"), "{why}");
    assert_eq!(peer.call(&apply(1, 4096, 1))[0], 132);
    drop(peer);
    still_serves(&holder);
}
