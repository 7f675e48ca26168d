//! What breaks, and that no wrong byte gets through it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::rig::*;
use crate::fabric::tcp::frame::SIGNALED;
use crate::fabric::tcp::{
    FRAME_HEADER_BYTES, FRAME_PAYLOAD_MAX, FrameDecoder, FrameError, FrameKind, Header, NakReason, Outbox,
    Receiver, ReceiverEndReason, Refusal, Responder,
};
use crate::fabric::{Access, ExportedWindow, Operation, Queue, QueueError};

const LEN: usize = 256;

/// Kind, flags and offset.
type Answer = (FrameKind, u8, u64);

/// Runs `bytes` through a responder of a fresh window; its refusal, the window's bytes and the answers' kinds.
fn respond(bytes: &[u8]) -> (Option<Refusal>, Vec<u8>, Vec<Answer>) {
    let window = window(LEN, Access::ReadWrite);
    let mut responder = Responder::new(vec![Arc::clone(&window)]);
    let mut outbox = Outbox::new(2 * Responder::OUTBOX_BYTES_MIN);
    let step = responder.handle(bytes, &mut outbox);
    assert!(!step.blocked && step.consumed <= bytes.len());
    let (mut answers, mut decoder, mut rest) = (Vec::new(), FrameDecoder::new(), outbox.pending());
    while let Some(frame) = decoder.decode(rest).unwrap() {
        answers.push((frame.header.kind, frame.header.flags, frame.header.offset));
        rest = &rest[frame.wire_bytes()..];
    }
    assert!(rest.is_empty());
    (responder.refusal(), window.mapping().slice().to_vec(), answers)
}

/// Three requests: two writes and a flush; with the window's bytes before each and after all.
fn exchange() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let frames = vec![
        frame(FrameKind::Write, 0, 10, 40, 0, &pattern(40, 1)),
        frame(FrameKind::Write, 1, 30, 64, SIGNALED, &pattern(64, 2)),
        frame(FrameKind::Flush, 2, 0, 0, 0, &[]),
    ];
    let mut states = vec![vec![0; LEN]];
    for (offset, payload) in [(10, pattern(40, 1)), (30, pattern(64, 2)), (0, Vec::new())] {
        let mut next = states.last().unwrap().clone();
        next[offset..offset + payload.len()].copy_from_slice(&payload);
        states.push(next);
    }
    (frames, states)
}

/// The frame in which byte `at` of the stream lies.
fn frame_of(frames: &[Vec<u8>], mut at: usize) -> usize {
    frames
        .iter()
        .position(|frame| {
            at < frame.len() || {
                at -= frame.len();
                false
            }
        })
        .unwrap()
}

#[test]
fn every_flipped_bit_stops_the_stream_before_its_frame() {
    let (frames, states) = exchange();
    let good = frames.concat();
    let (refusal, bytes, answers) = respond(&good);
    assert_eq!((refusal, &bytes), (None, &states[3]));
    assert_eq!(answers, [(FrameKind::Ack, 0, 2)], "one cumulative Ack");
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let (refusal, bytes, answers) = respond(&bad);
            assert!(matches!(refusal, Some(Refusal::Garbled(_))), "bit {bit} of byte {at}: {refusal:?}");
            let due = frame_of(&frames, at);
            assert_eq!(bytes, states[due], "bit {bit} of byte {at}");
            assert_eq!(answers.last(), Some(&(FrameKind::Nak, NakReason::Garbled as u8, due as u64)));
        }
    }
}

/// Passes bytes on in both directions and flips one of those that go in direction `which`.
fn proxy(which: usize, at: usize) -> (OwnedFd, OwnedFd) {
    let (ours, mut left) = stream_pair();
    let (mut right, theirs) = stream_pair();
    let (mut left_out, mut right_out) = (left.try_clone().unwrap(), right.try_clone().unwrap());
    let pass = move |from: &mut TcpStream, to: &mut TcpStream, flip: Option<usize>| {
        let (mut buffer, mut passed) = ([0; 4096], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(at) = flip.filter(|at| (passed..passed + count).contains(at)) {
                buffer[at - passed] ^= 0x10;
            }
            passed += count;
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    std::thread::spawn(move || pass(&mut left, &mut right_out, (which == 0).then_some(at)));
    std::thread::spawn(move || pass(&mut right, &mut left_out, (which == 1).then_some(at)));
    (ours.into(), theirs.into())
}

fn stream_pair() -> (TcpStream, TcpStream) {
    let (a, b) = tcp_pair();
    (a.into(), b.into())
}

#[test]
fn a_flipped_byte_on_the_wire_ends_the_queue_and_changes_nothing() {
    let requests =
        [write(1, 0, 24, true), request(Operation::Read, 2, 100, 24, true), write(3, 32, 24, true)];
    // 72 + 48 + 72 bytes go out; at least a ReadReply of 72 and an Ack of 48 come back.
    for (which, count) in [(0, 192), (1, 120)] {
        for at in 0..count {
            let mut rig = Rig::new(proxy(which, at), LEN, 8, Duration::ZERO);
            rig.fill(8);
            rig.window.mapping().slice().write(100, &[0x77; 24]);
            let before = rig.local.slice().to_vec();
            let mut seen = Vec::new();
            let outcome = post_all(&mut rig.queue, &requests, &mut seen)
                .and_then(|()| reap(&mut rig.queue, 3, &mut seen));
            // Acks may be fewer or more than expected; what counts is that a flip never passes for truth.
            let error = outcome.unwrap_err();
            assert!(matches!(error, QueueError::Protocol { .. }), "byte {at} of {which}: {error}");
            drop(rig.queue);
            rig.serving.end();
            let (local, remote) = (rig.local.slice().to_vec(), rig.window.mapping().slice().to_vec());
            for n in (0..LEN).filter(|n| !(100..124).contains(n)) {
                assert!(remote[n] == 0 || remote[n] == before[n] && n < 56, "byte {n} of the window");
                assert_eq!(local[n], before[n], "byte {n} of the local mapping");
            }
            assert!(local[100..124] == before[100..124] || local[100..124] == [0x77; 24]);
            assert_eq!(remote[100..124], [0x77; 24]);
        }
    }
}

#[test]
fn gaps_duplicates_and_refused_requests_have_numbers() {
    let first = frame(FrameKind::Write, 0, 0, 4, SIGNALED, b"good");
    let after = |second: Vec<u8>| respond(&[first.clone(), second].concat());
    let sequence = |found| Some(Refusal::Garbled(FrameError::Sequence { expected: 1, found }));
    assert_eq!(after(frame(FrameKind::Write, 2, 0, 3, 0, b"gap")).0, sequence(2));
    assert_eq!(after(first.clone()).0, sequence(0));
    assert!(matches!(
        after(frame(FrameKind::Ack, 1, 0, 0, 0, &[])).0,
        Some(Refusal::Garbled(FrameError::Kind { .. }))
    ));
    let header = Header {
        kind: FrameKind::Write,
        flags: 0,
        len: 3,
        psn: 1,
        wr_id: 9,
        offset: 0,
        window: WINDOW.0,
        generation: GENERATION.0,
    };
    for (header, reason) in [
        (Header { window: 1, ..header }, NakReason::UnknownWindow),
        (Header { generation: 2, ..header }, NakReason::StaleGeneration),
        (Header { offset: LEN as u64 - 2, ..header }, NakReason::OutOfRange),
        (Header { offset: u64::MAX, ..header }, NakReason::OutOfRange),
    ] {
        let (refusal, bytes, answers) = after(encode(header, b"bad"));
        assert_eq!(refusal, Some(Refusal::Request { psn: 1, wr_id: 9, reason }));
        assert_eq!((&bytes[..4], &bytes[4..]), (&b"good"[..], &[0; LEN - 4][..]));
        assert_eq!(answers, [(FrameKind::Ack, 0, 0), (FrameKind::Nak, reason as u8, 1)]);
    }
    let mut long = frame(FrameKind::Read, 1, 0, FRAME_PAYLOAD_MAX, 0, &[]);
    long[4..8].copy_from_slice(&u32::try_from(FRAME_PAYLOAD_MAX + 1).unwrap().to_le_bytes());
    let crc = crate::base::crc32c(&long[..44]);
    long[44..].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(after(long).0, Some(Refusal::Garbled(FrameError::Length { psn: 1, .. }))));
}

#[test]
fn the_end_of_the_stream_at_every_byte() {
    let (frames, states) = exchange();
    let good = frames.concat();
    for cut in 0..=good.len() {
        let window = window(LEN, Access::ReadWrite);
        let (ours, theirs) = stream_pair();
        let mut serving = serve(&window, theirs.into());
        (&ours).write_all(&good[..cut]).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(serving.end().reason, ReceiverEndReason::PeerGone { .. }));
        let whole = if cut == good.len() { 3 } else { frame_of(&frames, cut) };
        assert_eq!(window.mapping().slice().to_vec(), states[whole], "cut at {cut}");
    }
    for cut in 0..FRAME_HEADER_BYTES {
        let (mut queue, mut peer) = lone_queue();
        assert_eq!(queue.post(&[write(100, 0, 8, true)]), Ok(1));
        queue.doorbell().unwrap();
        peer.read_exact(&mut [0; FRAME_HEADER_BYTES + 8]).unwrap();
        peer.write_all(&frame(FrameKind::Ack, 0, 0, 0, 0, &[])[..cut]).unwrap();
        drop(peer);
        let error = failure(&mut queue);
        assert!(matches!(error, QueueError::PeerGone { .. }), "{error}");
    }
}

fn serve(window: &Arc<ExportedWindow>, stream: OwnedFd) -> Serving {
    Serving::start(Receiver::new(stream, vec![Arc::clone(window)], Duration::ZERO, None, Vec::new()))
}

fn lone_queue() -> (crate::fabric::tcp::TcpQueue, TcpStream) {
    let (ours, theirs) = stream_pair();
    let grant = window(LEN, Access::ReadWrite).grant();
    (queue(ours.into(), &region(LEN), grant, 8, None), theirs)
}

#[test]
fn answers_that_answer_nothing_are_errors() {
    let reply = |len: usize| frame(FrameKind::ReadReply, 0, 0, len, 0, &vec![9; len]);
    let ack = |psn, due| frame(FrameKind::Ack, psn, due, 0, 0, &[]);
    let read = request(Operation::Read, 100, 0, 16, true);
    for (posted, bytes, word) in [
        (write(100, 0, 8, true), ack(0, 5), "not outstanding"),
        (write(99, 0, 8, true), ack(0, 0), "does not answer"),
        (write(100, 0, 8, true), ack(1, 0), "frame 1 came where 0"),
        (read, ack(0, 0), "does not answer"),
        (read, reply(15), "does not answer"),
        (write(100, 0, 8, true), reply(8), "does not answer"),
        (
            write(100, 0, 8, true),
            [ack(0, 0), frame(FrameKind::Write, 1, 0, 1, 0, b"x")].concat(),
            "came as answer",
        ),
        (write(100, 0, 8, true), vec![0xa5; 48], "CRC32C"),
        (
            read,
            {
                let mut bad = reply(16);
                bad[50] ^= 1;
                bad
            },
            "payload of frame 0",
        ),
    ] {
        let (mut queue, mut peer) = lone_queue();
        assert_eq!(queue.post(&[posted]), Ok(1));
        queue.doorbell().unwrap();
        peer.write_all(&bytes).unwrap();
        let error = failure(&mut queue);
        assert!(matches!(&error, QueueError::Protocol { why } if why.contains(word)), "{word}: {error}");
    }
}

#[test]
fn garbage_never_enters() {
    for seed in 1..200 {
        let garbage = pattern(3000, seed);
        let (refusal, bytes, answers) = respond(&garbage);
        assert!(matches!(refusal, Some(Refusal::Garbled(_))));
        assert_eq!(bytes, [0; LEN]);
        assert_eq!(answers, [(FrameKind::Nak, NakReason::Garbled as u8, 0)]);
    }
    let window = window(LEN, Access::ReadWrite);
    let (ours, theirs) = stream_pair();
    let mut serving = serve(&window, theirs.into());
    (&ours).write_all(&pattern(100_000, 3)).unwrap();
    let mut answer = [0; FRAME_HEADER_BYTES];
    (&ours).read_exact(&mut answer).unwrap();
    let nak = FrameDecoder::new().decode(&answer).unwrap().unwrap().header;
    assert_eq!((nak.kind, nak.flags), (FrameKind::Nak, NakReason::Garbled as u8));
    drop(ours);
    assert!(matches!(serving.end().reason, ReceiverEndReason::Refused(Refusal::Garbled(_))));
    assert_eq!(window.mapping().slice().to_vec(), [0; LEN]);
}

#[test]
fn a_failure_to_send_yields_to_the_peers_reason() {
    for reason in [Some(NakReason::Revoked), None] {
        let (ours, theirs) = narrow_pair();
        let mut queue = queue(ours, &region(LEN), window(LEN, Access::ReadWrite).grant(), 8, None);
        if let Some(reason) = reason {
            let nak = frame(FrameKind::Nak, 0, 0, 0, reason as u8, &[]);
            assert_eq!(rustix::io::write(&theirs, &nak), Ok(nak.len()));
        }
        drop(theirs);
        assert_eq!(queue.post(&[write(1, 0, 8, false)]), Ok(1));
        assert_eq!(queue.doorbell(), Ok(()), "the send fails; the reason is not known yet");
        assert!(!queue.wants_write());
        assert_eq!(queue.post(&[write(2, 0, 8, false)]), Ok(0));
        let error = queue.poll().unwrap_err();
        match reason {
            Some(_) => assert_eq!(error, QueueError::Revoked { granted: GENERATION }),
            None => {
                assert!(matches!(&error, QueueError::PeerGone { why } if why.contains("send")), "{error}")
            }
        }
        assert_eq!(queue.post(&[write(1, 0, 8, true)]), Err(error));
    }
}
