//! What strangers, tampering and bad luck with packet boundaries can do to either handshake: nothing.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::connection_tests::{KEY_A, KEY_B, Pair, config, events, keys, transmit};
use super::preface::RefusalCode;
use super::*;
use crate::base::SessionId;

/// The messages of one genuine handshake, alternating from the initiator on.
fn recorded() -> Vec<Vec<u8>> {
    let mut pair = Pair::new(&[KEY_A], &[KEY_A]);
    let mut flights = Vec::new();
    loop {
        let bytes = transmit(&mut pair.left);
        if bytes.is_empty() {
            return flights;
        }
        pair.right.handle_bytes(&bytes, pair.now).unwrap();
        flights.push(bytes);
        let bytes = transmit(&mut pair.right);
        pair.left.handle_bytes(&bytes, pair.now).unwrap();
        flights.push(bytes);
    }
}

/// Runs a handshake in which `alter` may change each flight; true if either side called it established.
fn altered(alter: impl Fn(usize, &mut Vec<u8>)) -> (bool, bool, Pair) {
    let mut pair = Pair::new(&[KEY_A], &[KEY_A]);
    for flight in 0..6 {
        let (from, to) = if flight % 2 == 0 {
            (&mut pair.left, &mut pair.right)
        } else {
            (&mut pair.right, &mut pair.left)
        };
        let mut bytes = transmit(from);
        alter(flight, &mut bytes);
        // An error is what is hoped for; the state tells.
        let failed = to.handle_bytes(&bytes, pair.now).is_err();
        assert_eq!(failed, to.state() == State::Failed);
    }
    let established = |side: &mut Connection| {
        let established = events(side).iter().any(|event| matches!(event, Event::Established { .. }));
        assert_eq!(established, side.state() == State::Established);
        established
    };
    (established(&mut pair.left), established(&mut pair.right), pair)
}

#[test]
fn flights_have_the_documented_lengths() {
    let lengths: Vec<usize> = recorded().iter().map(Vec::len).collect();
    let hello = |opaque: usize| RECORD_OVERHEAD + 2 + 16 + opaque;
    assert_eq!(lengths, [32, 32, 2 + 48, 2 + 48, hello(4), hello(5)]);
    assert!(lengths.iter().step_by(2).sum::<usize>() < HANDSHAKE_BYTES_MAX);
}

#[test]
fn one_altered_bit_anywhere_never_establishes_its_receiver() {
    for (flight, len) in recorded().iter().map(Vec::len).enumerate() {
        for position in 0..len {
            for bit in [0, 3, 7] {
                let (left, right, _) = altered(|at, bytes| {
                    if at == flight && position < bytes.len() {
                        bytes[position] ^= 1 << bit;
                    }
                });
                assert!(!left, "flight {flight} byte {position} bit {bit}");
                // The last flight is the responder's greeting: it has authenticated the initiator by then.
                assert_eq!(right, flight == 5, "flight {flight} byte {position} bit {bit}");
            }
        }
    }
}

#[test]
fn truncation_at_every_byte_waits_then_fails() {
    for (flight, len) in recorded().iter().map(Vec::len).enumerate() {
        for kept in 0..len {
            let (left, right, mut pair) = altered(|at, bytes| {
                bytes.truncate(match at.cmp(&flight) {
                    std::cmp::Ordering::Less => usize::MAX,
                    std::cmp::Ordering::Equal => kept,
                    std::cmp::Ordering::Greater => 0,
                });
            });
            assert!(!left && right == (flight == 5), "flight {flight} cut at {kept}");
            let cut = if flight % 2 == 0 { &mut pair.right } else { &mut pair.left };
            assert_eq!(cut.state(), State::Handshaking, "it waits");
            assert!(matches!(cut.handle_eof(), Err(ControlError::Truncated { .. })));
            assert_eq!(cut.state(), State::Failed);
        }
    }
}

#[test]
fn garbage_from_every_byte_on_is_an_error_or_waiting() {
    for (flight, len) in recorded().iter().map(Vec::len).enumerate() {
        for position in 0..len {
            for filler in [0x00, 0x41, 0xff] {
                let (left, right, _) = altered(|at, bytes| {
                    if at == flight && position < bytes.len() && bytes[position] != filler {
                        bytes.truncate(position);
                        bytes.resize(4096, filler);
                    } else if at >= flight {
                        bytes.clear();
                    }
                });
                assert!(!left && right == (flight == 5), "flight {flight} garbage from {position}");
            }
        }
    }
}

#[test]
fn a_replayed_first_message_earns_the_second_and_nothing_else() {
    let flights = recorded();
    let now = Instant::now();
    let mut victim = Connection::accept(config(b""), &keys(&[KEY_A]), now);
    victim.handle_bytes(&flights[0], now).unwrap();
    assert_eq!(transmit(&mut victim), flights[1], "the preface is the same, so message 1 is accepted");
    victim.handle_bytes(&flights[2], now).unwrap();
    let second = transmit(&mut victim);
    assert!(second.len() == flights[3].len() && second != flights[3]);
    assert_eq!((victim.state(), events(&mut victim)), (State::Handshaking, vec![]));
    let cause = victim.handle_bytes(&flights[4], now).unwrap_err();
    assert!(matches!(cause, ControlError::Record(RecordError::Forged { number: 0, .. })), "{cause}");
    assert!(transmit(&mut victim).is_empty(), "no greeting for a stranger");
    assert_eq!(events(&mut victim), [Event::Closed { reason: Ended::Failed(cause) }]);
}

#[test]
fn what_a_stranger_can_send_is_bounded() {
    let now = Instant::now();
    let flights = recorded();
    let mut victim = Connection::accept(config(b""), &keys(&[KEY_A]), now);
    victim.handle_bytes(&flights[0], now).unwrap();
    let cause = victim.handle_bytes(&513_u16.to_le_bytes(), now).unwrap_err();
    assert_eq!(
        cause,
        ControlError::Oversize { what: "handshake message", len: 513, max: HANDSHAKE_MESSAGE_MAX }
    );

    // The largest message 1 is read whole, and is no message 1.
    let mut victim = Connection::accept(config(b""), &keys(&[KEY_A]), now);
    victim.handle_bytes(&flights[0], now).unwrap();
    let mut large = 512_u16.to_le_bytes().to_vec();
    large.resize(513, 7);
    victim.handle_bytes(&large, now).unwrap();
    assert_eq!(victim.handle_bytes(&[7], now), Err(ControlError::Authentication));

    let mut victim = Connection::accept(config(b""), &keys(&[KEY_A]), now);
    let cause = victim.handle_bytes(b"GET / HTTP/1.1\r\nHost: example.invalid\r\n\r\n", now).unwrap_err();
    assert_eq!(cause, ControlError::NotMirrorbus { found: *b"GET / HT" });
}

#[test]
fn an_authenticated_peer_is_not_trusted_with_lengths_and_kinds() {
    for (plain, word) in [
        (&[][..], "without a channel"),
        (&[0, 77], "kind 77"),
        (&[0, 1, 0], "greeting"),
        (&[1; MESSAGE_BYTES_MAX + 2], "limit is 61440"),
    ] {
        let mut pair = Pair::established();
        pair.left.send_plain(plain);
        let cause = pair.settle().1.unwrap().to_string();
        let named = cause.contains(word) || cause == "record of 61458 bytes, the limit is 61457";
        assert!(named, "{cause} names {word}");
        assert_eq!(pair.right.state(), State::Failed);
    }
    let mut pair = Pair::new(&[KEY_A], &[KEY_A]);
    pair.left.override_hello(vec![1, 2, 3]);
    assert_eq!(pair.settle().1.unwrap().to_string(), "broken protocol: the first message is no greeting");
}

#[test]
fn events_that_nobody_takes_are_bounded() {
    let mut pair = Pair::established();
    let mut cause = None;
    for _ in 0..EVENTS_MAX {
        pair.left.send(Channel::MIRROR, b"").unwrap();
        let bytes = transmit(&mut pair.left);
        cause = cause.or(pair.right.handle_bytes(&bytes, pair.now).err());
    }
    assert_eq!(cause, Some(ControlError::Undrained { max: EVENTS_MAX }));
    assert!(events(&mut pair.right).len() <= EVENTS_MAX);
}

struct Streams {
    left: DataHandshake,
    right: DataHandshake,
    now: Instant,
}

fn pump(from: &mut DataHandshake, to: &mut DataHandshake, now: Instant) -> Result<(), ControlError> {
    let mut bytes = Vec::new();
    from.poll_transmit(&mut bytes);
    to.handle_bytes(&bytes, now)
}

const SESSION: SessionId = SessionId::from_bytes([3; 16]);

fn token(byte: u8) -> Token {
    Token::from_bytes(&[byte; 32])
}

/// Up to the point where the responder asks for tokens.
fn streams(purpose: &[u8]) -> Streams {
    let now = Instant::now();
    let left = DataHandshake::initiate(SESSION, &token(2), purpose, now).unwrap();
    let mut streams = Streams { left, right: DataHandshake::accept(now), now };
    assert_eq!(streams.right.needs_token(), None);
    pump(&mut streams.left, &mut streams.right, now).unwrap();
    assert_eq!(streams.right.needs_token(), Some(SESSION));
    streams
}

#[test]
fn a_data_stream_finds_its_token_among_several() {
    let Streams { mut left, mut right, now } = streams(b"queue 1");
    right.provide_tokens(&[token(1), token(2), token(3)]).unwrap();
    pump(&mut right, &mut left, now).unwrap();
    pump(&mut left, &mut right, now).unwrap();
    assert!(!right.is_done(), "message 1 alone authenticates nobody");
    pump(&mut right, &mut left, now).unwrap();
    assert!(left.is_done());
    let mut bytes = Vec::new();
    left.poll_transmit(&mut bytes);
    bytes.extend_from_slice(b"first data");
    right.handle_bytes(&bytes, now).unwrap();
    assert_eq!(
        (right.purpose(), right.matched(), right.version()),
        (Some(&b"queue 1"[..]), Some(1), Some(1))
    );
    assert_eq!((right.poll_timeout(), right.needs_token()), (None, None));
    let (mut left, nothing) = left.finish();
    let (right, leftover) = right.finish();
    assert_eq!((&nothing[..], &leftover[..]), (&b""[..], &b"first data"[..]));
    let (mut wire, mut plain) = (Vec::new(), Vec::new());
    left.seal_record(b"store", &mut wire).unwrap();
    let (mut sealer, mut opener) = right.split();
    opener.open_record(&wire[2..], &mut plain).unwrap();
    wire.clear();
    sealer.seal_record(b" done", &mut wire).unwrap();
    left.open_record(&wire[2..], &mut plain).unwrap();
    assert_eq!(plain, b"store done");
}

#[test]
fn a_data_stream_without_its_token_is_refused() {
    let Streams { mut left, mut right, now } = streams(b"");
    right.provide_tokens(&[token(1), token(3)]).unwrap();
    pump(&mut right, &mut left, now).unwrap();
    assert_eq!(pump(&mut left, &mut right, now), Err(ControlError::Authentication));
    assert_eq!(pump(&mut right, &mut left, now), Err(ControlError::Authentication));

    let Streams { mut left, mut right, now } = streams(b"");
    assert!(matches!(right.provide_token(None), Err(ControlError::Preface { .. })));
    let refused = ControlError::Refused(RefusalCode::UnknownSession);
    assert_eq!(pump(&mut right, &mut left, now), Err(refused.clone()));
    assert_eq!(left.handle_eof(), Err(refused));

    let Streams { mut right, .. } = streams(b"");
    let many = vec![token(1); TOKENS_MAX + 1];
    assert!(matches!(right.provide_tokens(&many), Err(ControlError::Oversize { len: 257, .. })));
    assert!(DataHandshake::initiate(SESSION, &token(1), &[0; 65], Instant::now()).is_err());
}

#[test]
fn a_data_stream_has_the_same_bounds() {
    let Streams { mut right, now, .. } = streams(b"");
    let due = now + HANDSHAKE_TIME_MAX;
    assert_eq!(right.poll_timeout(), Some(due));
    right.handle_timeout(due - Duration::from_nanos(1)).unwrap();
    assert_eq!(right.handle_timeout(due), Err(ControlError::HandshakeTimeout { limit: HANDSHAKE_TIME_MAX }));
    let Streams { mut right, now, .. } = streams(b"");
    assert!(matches!(right.handle_bytes(b"early", now), Err(ControlError::Preface { .. })));
    let mut long = Preface::refuse(PrefaceKind::Data, RefusalCode::Busy);
    long[9] = 0;
    let error = DataHandshake::accept(now).handle_bytes(&long, now).unwrap_err();
    assert!(error.to_string().contains("names no session"), "{error}");
}

#[test]
fn altering_any_bit_of_a_data_handshake_fails() {
    let mut altered_bytes = 0;
    for flight in [0, 1, 2, 3, 4] {
        for position in 0.. {
            let now = Instant::now();
            let mut left = DataHandshake::initiate(SESSION, &token(2), b"queue 7", now).unwrap();
            let mut right = DataHandshake::accept(now);
            let mut reached = false;
            for at in 0..=4 {
                let (from, to) = if at % 2 == 0 { (&mut left, &mut right) } else { (&mut right, &mut left) };
                let mut bytes = Vec::new();
                from.poll_transmit(&mut bytes);
                if at == flight && position < bytes.len() {
                    bytes[position] ^= 0x10;
                    reached = true;
                }
                let _ = to.handle_bytes(&bytes, now);
                if to.needs_token().is_some() {
                    to.provide_token(Some(&token(2))).unwrap();
                }
            }
            assert_eq!(right.is_done(), !reached, "flight {flight} byte {position}");
            if !reached {
                break;
            }
            altered_bytes += 1;
        }
    }
    assert_eq!(altered_bytes, 32 + 32 + 50 + 50 + RECORD_OVERHEAD + 7);
}

/// Feeds `bytes` in pieces of the given sizes, over and over.
fn feed(to: &mut Connection, mut bytes: &[u8], sizes: &[usize], now: Instant) {
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            return;
        }
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        to.handle_bytes(piece, now).unwrap();
        bytes = rest;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn splits_do_not_matter(
        sizes in prop::collection::vec(1_usize..90, 1..20),
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..12),
    ) {
        let mut pair = Pair::new(&[KEY_A, KEY_B], &[KEY_B, KEY_A]);
        let mut received = Vec::new();
        let mut sent = false;
        loop {
            let (from_left, from_right) = (transmit(&mut pair.left), transmit(&mut pair.right));
            feed(&mut pair.right, &from_left, &sizes, pair.now);
            feed(&mut pair.left, &from_right, &sizes, pair.now);
            received.extend(events(&mut pair.right));
            if pair.left.state() == State::Established && !sent {
                sent = true;
                for body in &bodies {
                    pair.left.send(Channel(3), body).unwrap();
                }
                pair.left.close(CloseReason::Finished, pair.now);
            } else if from_left.is_empty() && from_right.is_empty() {
                break;
            }
        }
        prop_assert_eq!(pair.left.state(), State::Closed);
        prop_assert_eq!(received.len(), bodies.len() + 2);
        for (event, body) in received[1..].iter().zip(&bodies) {
            prop_assert_eq!(event, &Event::Message { channel: Channel(3), body: body.clone() });
        }
    }

    #[test]
    fn random_bytes_never_establish(
        bytes in prop::collection::vec(any::<u8>(), 0..2000), sizes in prop::collection::vec(1_usize..99, 1..9), after in 0_usize..3,
    ) {
        let flights = recorded();
        let now = Instant::now();
        for side in 0..2 {
            let mut victim = if side == 0 {
                Connection::accept(config(b""), &keys(&[KEY_A]), now)
            } else {
                Connection::initiate(config(b""), &keys(&[KEY_A]), now)
            };
            // A genuine beginning, as far as it can be replayed, so that the garbage gets deeper.
            for flight in flights.iter().skip(side).step_by(2).take(after.min(2 - side)) {
                victim.handle_bytes(flight, now).unwrap();
            }
            for piece in bytes.chunks(sizes[0]) {
                let _ = victim.handle_bytes(piece, now);
            }
            let established = events(&mut victim).iter().any(|event| matches!(event, Event::Established { .. }));
            prop_assert!(!established);
        }
    }
}
