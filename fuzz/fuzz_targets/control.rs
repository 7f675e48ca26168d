//! Fuzzes the control connection: before the tag (bytes of a stranger) and behind it (plain text that a genuine peer
//! sealed), so that the decoder of messages is reached although every record is authenticated.
//!
//! The first byte chooses. Counts of executions that got behind the tag are printed at each power of two: a run
//! that prints none has fuzzed the tag only.
#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use mirrorbus::base::SessionId;
use mirrorbus::control::{
    Channel, CloseReason, Connection, ConnectionConfig, ControlError, DataHandshake, Event, Hello, KeySet,
    MESSAGE_BYTES_MAX, State, Token,
};

/// Inputs run.
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
/// Records that passed the tag and were decoded, to a message or an error.
static DEEP: AtomicU64 = AtomicU64::new(0);

fn deep() {
    let count = 1 + DEEP.fetch_add(1, Ordering::Relaxed);
    // Fewer may all be of a handshake.
    if count >= 64 && count.is_power_of_two() {
        let executions = EXECUTIONS.load(Ordering::Relaxed);
        eprintln!("deep: {count} of {executions} (records behind the tag, of executions)");
    }
}

fn keys() -> KeySet {
    KeySet::from_bytes(&[[1; 32], [2; 32]]).expect("two different keys")
}

fn config() -> ConnectionConfig {
    let hello = Hello::new(1, Duration::from_millis(100), Duration::from_secs(1), vec![1]);
    ConnectionConfig::new(hello.expect("within bounds"))
}

/// Carries what waits from one side to the other.
fn carry(from: &mut Connection, to: &mut Connection, now: Instant) -> Result<(), ControlError> {
    let mut bytes = Vec::new();
    from.poll_transmit(&mut bytes);
    let result = to.handle_bytes(&bytes, now);
    assert_eq!(result.is_err(), to.state() == State::Failed, "an error is final, and nothing else is");
    result
}

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

fn handshake(left: &mut Connection, right: &mut Connection, now: Instant) -> Result<(), ControlError> {
    for _ in 0..3 {
        carry(left, right, now)?;
        carry(right, left, now)?;
    }
    Ok(())
}

/// Bytes of somebody without a key, in pieces.
fn stranger(mut victim: Connection, bytes: &[u8], now: Instant) {
    for (index, piece) in bytes.chunks(61).enumerate() {
        let result = victim.handle_bytes(piece, now + Duration::from_millis(index as u64));
        assert_eq!(result.is_err(), victim.state() == State::Failed);
        let told = events(&mut victim);
        assert!(!told.iter().any(|event| matches!(event, Event::Established { .. })), "a stranger got in");
        let mut out = Vec::new();
        victim.poll_transmit(&mut out);
        assert!(out.len() <= 1024, "a stranger made us say {} bytes", out.len());
    }
    let _ = victim.handle_eof();
}

/// A preface that makes sense, so that strangers get to message 1.
fn after_preface(bytes: &[u8], now: Instant) {
    let mut genuine = Vec::new();
    Connection::initiate(config(), &keys(), now).poll_transmit(&mut genuine);
    genuine.extend_from_slice(bytes);
    stranger(Connection::accept(config(), &keys(), now), &genuine, now);
}

/// Records with any plain text, from either side of an established connection.
fn sealed(bytes: &[u8], now: Instant) {
    let mut left = Connection::initiate(config(), &keys(), now);
    let mut right = Connection::accept(config(), &keys(), now);
    handshake(&mut left, &mut right, now).expect("a genuine handshake");
    assert!(matches!(events(&mut left)[..], [Event::Established { .. }]));
    assert!(matches!(events(&mut right)[..], [Event::Established { .. }]));
    let mut rest = bytes;
    let mut now = now;
    while let [order, len, tail @ ..] = rest {
        let (plain, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        let (from, to) = if order & 1 == 0 { (&mut left, &mut right) } else { (&mut right, &mut left) };
        now += Duration::from_millis(u64::from(order >> 3) * 40);
        let _ = (from.handle_timeout(now), to.handle_timeout(now));
        if order & 6 == 6 {
            from.close(CloseReason::from_code(u16::from(*len)), now);
        }
        if from.state() != State::Established || to.state() != State::Established {
            let _ = (carry(from, to, now), carry(to, from, now));
            events(from);
            events(to);
            return;
        }
        events(to);
        from.send_plain(plain);
        let result = carry(from, to, now);
        deep();
        let told = events(to);
        match plain {
            [channel, body @ ..] if *channel != 0 && body.len() <= MESSAGE_BYTES_MAX => {
                result.expect("an application's message is taken as it is");
                let message = Event::Message { channel: Channel(*channel), body: body.to_vec() };
                assert_eq!(told.last(), Some(&message));
            }
            _ => assert!(!told.iter().any(|event| matches!(event, Event::Message { .. }))),
        }
    }
}

/// Any plain text in place of the greeting.
fn greeting(bytes: &[u8], now: Instant) {
    let mut left = Connection::initiate(config(), &keys(), now);
    let mut right = Connection::accept(config(), &keys(), now);
    left.override_hello(bytes[..bytes.len().min(494)].to_vec());
    let result = handshake(&mut left, &mut right, now);
    deep();
    match (&events(&mut right)[..], result) {
        ([Event::Established { peer, .. }], Ok(())) => assert!(peer.opaque().len() <= 256),
        ([Event::Closed { .. }], Err(_)) => {}
        (told, result) => panic!("{told:?} {result:?}"),
    }
}

/// The handshake of a data stream: garbage after a genuine preface, or a genuine one with any purpose and rest.
fn data(genuine: bool, bytes: &[u8], now: Instant) {
    let token = Token::from_bytes(&[5; 32]);
    let purpose = &bytes[..bytes.len().min(64)];
    let mut left =
        DataHandshake::initiate(SessionId::from_bytes([1; 16]), &token, purpose, now).expect("within bounds");
    let mut right = DataHandshake::accept(now);
    let mut wire = Vec::new();
    left.poll_transmit(&mut wire);
    right.handle_bytes(&wire, now).expect("a genuine preface");
    right.provide_tokens(&[Token::from_bytes(&[4; 32]), token]).expect("the session is known");
    if !genuine {
        for piece in bytes.chunks(37) {
            let _ = right.handle_bytes(piece, now);
            assert!(!right.is_done(), "a stranger got in");
        }
        return;
    }
    for _ in 0..2 {
        wire.clear();
        right.poll_transmit(&mut wire);
        left.handle_bytes(&wire, now).expect("genuine");
        wire.clear();
        left.poll_transmit(&mut wire);
        if left.is_done() {
            wire.extend_from_slice(bytes);
        }
        right.handle_bytes(&wire, now).expect("genuine");
    }
    deep();
    assert_eq!((right.purpose(), right.matched()), (Some(purpose), Some(1)));
    let (mut opener, rest) = right.finish();
    assert_eq!(rest, bytes);
    let mut plain = Vec::new();
    assert!(opener.open_record(&rest, &mut plain).is_err() && plain.is_empty());
}

fuzz_target!(|bytes: &[u8]| {
    EXECUTIONS.fetch_add(1, Ordering::Relaxed);
    let now = Instant::now();
    match bytes {
        [] => {}
        [0, rest @ ..] => stranger(Connection::accept(config(), &keys(), now), rest, now),
        [1, rest @ ..] => stranger(Connection::initiate(config(), &keys(), now), rest, now),
        [2, rest @ ..] => after_preface(rest, now),
        [3, rest @ ..] => greeting(rest, now),
        [4, rest @ ..] => data(false, rest, now),
        [5, rest @ ..] => data(true, rest, now),
        [_, rest @ ..] => sealed(rest, now),
    }
});
