//! Two connections in memory, driven step by step with a clock of the test's own: what they do when all goes well,
//! when the sides do not fit, and when time passes.

use std::time::{Duration, Instant};

use super::preface::RefusalCode;
use super::*;

pub(super) const KEY_A: [u8; 32] = [0xaa; 32];
pub(super) const KEY_B: [u8; 32] = [0xbb; 32];

pub(super) fn keys(keys: &[[u8; 32]]) -> KeySet {
    KeySet::from_bytes(keys).unwrap()
}

pub(super) fn config(opaque: &[u8]) -> ConnectionConfig {
    let (heartbeat, silence) = (Duration::from_millis(500), Duration::from_secs(2));
    ConnectionConfig::new(Hello::new(7, heartbeat, silence, opaque.to_vec()).unwrap())
}

/// Both ends and the line between them.
pub(super) struct Pair {
    pub(super) left: Connection,
    pub(super) right: Connection,
    pub(super) now: Instant,
}

pub(super) fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

pub(super) fn transmit(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    connection.poll_transmit(&mut bytes);
    bytes
}

impl Pair {
    pub(super) fn new(left_keys: &[[u8; 32]], right_keys: &[[u8; 32]]) -> Self {
        let now = Instant::now();
        let left = Connection::initiate(config(b"left"), &keys(left_keys), now);
        let right = Connection::accept(config(b"right"), &keys(right_keys), now);
        Self { left, right, now }
    }

    /// Carries bytes until both are quiet; returns what each side said last, if it failed.
    pub(super) fn settle(&mut self) -> (Option<ControlError>, Option<ControlError>) {
        let mut failures = (None, None);
        loop {
            let (from_left, from_right) = (transmit(&mut self.left), transmit(&mut self.right));
            if from_left.is_empty() && from_right.is_empty() {
                return failures;
            }
            failures.1 = self.right.handle_bytes(&from_left, self.now).err().or(failures.1);
            failures.0 = self.left.handle_bytes(&from_right, self.now).err().or(failures.0);
        }
    }

    pub(super) fn established() -> Self {
        let mut pair = Self::new(&[KEY_A], &[KEY_A]);
        assert_eq!(pair.settle(), (None, None));
        assert_eq!(events(&mut pair.left).len(), 1);
        assert_eq!(events(&mut pair.right).len(), 1);
        pair
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn both_learn_who_the_peer_is() {
    let mut pair = Pair::new(&[KEY_A], &[KEY_A]);
    assert_eq!(pair.left.send(Channel::MIRROR, b"early"), Err(SendError::NotEstablished));
    assert_eq!(pair.settle(), (None, None));
    let (left, right) = (events(&mut pair.left), events(&mut pair.right));
    let [Event::Established { version: 1, peer: at_left, session: left_session }] = &left[..] else {
        panic!("{left:?}");
    };
    let [Event::Established { version: 1, peer: at_right, session: right_session }] = &right[..] else {
        panic!("{right:?}");
    };
    assert_eq!((at_left.opaque(), at_right.opaque()), (&b"right"[..], &b"left"[..]));
    assert_eq!(at_left.capabilities(), 7);
    assert_eq!(left_session, right_session);
    let mut other = Pair::new(&[KEY_A], &[KEY_A]);
    other.settle();
    let again = events(&mut other.left);
    assert!(!matches!(&again[..], [Event::Established { session, .. }] if session == left_session));
}

#[test]
fn messages_keep_channel_order_and_bytes() {
    let mut pair = Pair::established();
    let big = vec![0x5a; MESSAGE_BYTES_MAX];
    pair.left.send(Channel::MIRROR, b"one").unwrap();
    pair.left.send(Channel(200), &big).unwrap();
    pair.right.send(Channel::MIRROR, b"").unwrap();
    assert_eq!(pair.settle(), (None, None));
    let message = |channel, body: &[u8]| Event::Message { channel, body: body.to_vec() };
    assert_eq!(events(&mut pair.right), [message(Channel::MIRROR, b"one"), message(Channel(200), &big)]);
    assert_eq!(events(&mut pair.left), [message(Channel::MIRROR, b"")]);
}

#[test]
fn every_step_of_a_rotation_connects() {
    let steps: &[&[[u8; 32]]] = &[&[KEY_A], &[KEY_A, KEY_B], &[KEY_B, KEY_A], &[KEY_B]];
    for neighbours in steps.windows(2) {
        for (left, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut pair = Pair::new(neighbours[left], neighbours[right]);
            assert_eq!(pair.settle(), (None, None), "{left} {right}");
            assert_eq!((pair.left.state(), pair.right.state()), (State::Established, State::Established));
        }
    }
    let mut skipped = Pair::new(steps[0], steps[3]);
    assert_eq!(skipped.settle(), (Some(ControlError::Authentication), Some(ControlError::Authentication)));
}

#[test]
fn a_wrong_key_is_named_on_both_sides_and_final() {
    let mut pair = Pair::new(&[KEY_A], &[KEY_B]);
    assert_eq!(pair.settle(), (Some(ControlError::Authentication), Some(ControlError::Authentication)));
    let closed = Event::Closed { reason: Ended::Failed(ControlError::Authentication) };
    for side in [&mut pair.left, &mut pair.right] {
        assert_eq!(events(side), std::slice::from_ref(&closed));
        assert_eq!((side.state(), side.failure()), (State::Failed, Some(&ControlError::Authentication)));
        assert_eq!(side.handle_bytes(b"more", pair.now), Err(ControlError::Authentication));
        assert_eq!(side.handle_timeout(pair.now), Err(ControlError::Authentication));
        assert_eq!(side.handle_eof(), Err(ControlError::Authentication));
        assert_eq!(side.send(Channel::MIRROR, b""), Err(SendError::Failed(ControlError::Authentication)));
        side.close(CloseReason::Finished, pair.now);
        assert_eq!((side.state(), side.poll_timeout()), (State::Failed, None));
        assert_eq!(events(side), [], "the end is told once");
    }
    assert!(
        ControlError::Authentication
            .to_string()
            .starts_with("no common key: compare key files on both sides")
    );
}

#[test]
fn versions_that_do_not_meet_are_told_to_both() {
    let now = Instant::now();
    let ranged = |min, max| ConnectionConfig { versions: VersionRange { min, max }, ..config(b"") };
    let meet = |left, right| {
        let left = Connection::initiate(left, &keys(&[KEY_A]), now);
        let right = Connection::accept(right, &keys(&[KEY_A]), now);
        let mut pair = Pair { left, right, now };
        let failures = pair.settle();
        (failures, events(&mut pair.left))
    };
    let ((left, right), _) = meet(ranged(1, 2), ranged(3, 5));
    assert_eq!(
        left.unwrap().to_string(),
        "peer speaks versions 3..5, we speak 1..2: bring both sides to a common version"
    );
    assert_eq!(
        right.unwrap().to_string(),
        "peer speaks versions 1..2, we speak 3..5: bring both sides to a common version"
    );
    let (failures, events) = meet(ranged(1, 4), ranged(2, 9));
    assert_eq!(failures, (None, None));
    assert!(matches!(events[..], [Event::Established { version: 4, .. }]));
}

#[test]
fn a_listener_can_choose_by_kind_and_refuse() {
    let now = Instant::now();
    let mut left = Connection::initiate(config(b""), &keys(&[KEY_A]), now);
    let first: [u8; PREFACE_LEN] = transmit(&mut left).try_into().unwrap();
    let preface = Preface::parse(&first).unwrap();
    assert_eq!((preface.kind(), preface.session()), (PrefaceKind::Control, None));
    let refusal = Preface::refuse(preface.kind(), RefusalCode::Busy);
    assert_eq!(left.handle_bytes(&refusal, now), Err(ControlError::Refused(RefusalCode::Busy)));
    let mut data = DataHandshake::accept(now);
    let error = data.handle_bytes(&first, now).unwrap_err();
    assert_eq!(error.to_string(), "malformed preface: a Control stream where Data was expected");
}

#[test]
fn the_handshake_has_a_deadline_whoever_stalls() {
    for delivered in 0..3 {
        let mut pair = Pair::new(&[KEY_A], &[KEY_A]);
        for _ in 0..delivered {
            let bytes = transmit(&mut pair.left);
            pair.right.handle_bytes(&bytes, pair.now).unwrap();
            let bytes = transmit(&mut pair.right);
            pair.left.handle_bytes(&bytes, pair.now).unwrap();
        }
        // The last bytes of the left side are lost.
        let lost = transmit(&mut pair.left);
        assert!(!lost.is_empty());
        let due = pair.now + HANDSHAKE_TIME_MAX;
        assert_eq!(pair.right.poll_timeout(), Some(due));
        pair.right.handle_timeout(due - Duration::from_nanos(1)).unwrap();
        assert_eq!(pair.right.state(), State::Handshaking);
        let cause = ControlError::HandshakeTimeout { limit: HANDSHAKE_TIME_MAX };
        assert_eq!(pair.right.handle_timeout(due), Err(cause.clone()));
        assert_eq!(events(&mut pair.right), [Event::Closed { reason: Ended::Failed(cause.clone()) }]);
        assert_eq!(pair.left.handle_bytes(b"late", due), Err(cause), "late bytes find the door shut");
    }
}

#[test]
fn heartbeats_keep_silence_away() {
    let mut pair = Pair::established();
    for step in 1..=8 {
        pair.wait(Duration::from_millis(500));
        for side in [&mut pair.left, &mut pair.right] {
            assert_eq!(side.poll_timeout(), Some(pair.now), "step {step}");
            side.handle_timeout(pair.now).unwrap();
        }
        let beat = transmit(&mut pair.left);
        assert_eq!(beat.len(), RECORD_OVERHEAD + 2);
        pair.right.handle_bytes(&beat, pair.now).unwrap();
        let bytes = transmit(&mut pair.right);
        pair.left.handle_bytes(&bytes, pair.now).unwrap();
    }
    assert_eq!((events(&mut pair.left), events(&mut pair.right)), (vec![], vec![]));
}

#[test]
fn silence_is_told_once_and_does_not_close() {
    let mut pair = Pair::established();
    let silent_at = pair.now + Duration::from_secs(2);
    let mut beats = 0;
    while let Some(due) = pair.left.poll_timeout().filter(|due| *due <= silent_at + Duration::from_secs(3)) {
        assert!(due > pair.now, "a timeout that is not in the future would spin");
        pair.now = due;
        pair.left.handle_timeout(due).unwrap();
        beats += usize::from(!transmit(&mut pair.left).is_empty());
        if due < silent_at {
            assert_eq!(events(&mut pair.left), []);
        } else if due == silent_at {
            assert_eq!(events(&mut pair.left), [Event::PeerSilent]);
        }
    }
    assert_eq!(beats, 10, "one each half second, silent or not");
    assert_eq!(events(&mut pair.left), []);
    assert_eq!(pair.left.state(), State::Established);
    pair.right.send(Channel::MIRROR, b"back").unwrap();
    let bytes = transmit(&mut pair.right);
    pair.left.handle_bytes(&bytes[..10], pair.now).unwrap();
    assert_eq!(events(&mut pair.left), [], "bytes that no tag covers are not the peer's voice");
    pair.left.handle_bytes(&bytes[10..], pair.now).unwrap();
    let back = Event::Message { channel: Channel::MIRROR, body: b"back".to_vec() };
    assert_eq!(events(&mut pair.left), [Event::PeerHeard, back]);
    pair.left.handle_timeout(pair.now + Duration::from_secs(2)).unwrap();
    assert_eq!(events(&mut pair.left), [Event::PeerSilent], "and silent again");
}

#[test]
fn what_waits_takes_the_place_of_heartbeats() {
    let mut pair = Pair::established();
    pair.left.send(Channel::MIRROR, b"waits").unwrap();
    for _ in 0..100 {
        pair.wait(Duration::from_millis(500));
        pair.left.handle_timeout(pair.now).unwrap();
    }
    assert_eq!(transmit(&mut pair.left).len(), RECORD_OVERHEAD + 1 + 5);
}

#[test]
fn an_orderly_close_delivers_what_was_sent_before() {
    let mut pair = Pair::established();
    pair.left.send(Channel::MIRROR, b"last").unwrap();
    pair.right.send(Channel::MIRROR, b"crossing").unwrap();
    pair.left.close(CloseReason::Stopping, pair.now);
    assert_eq!(pair.left.state(), State::Closing);
    assert_eq!(pair.left.send(Channel::MIRROR, b"late"), Err(SendError::Closed));
    assert_eq!(pair.settle(), (None, None));
    let message = |body: &[u8]| Event::Message { channel: Channel::MIRROR, body: body.to_vec() };
    let by_peer = Event::Closed { reason: Ended::ByPeer(CloseReason::Stopping) };
    let by_us = Event::Closed { reason: Ended::ByUs(CloseReason::Stopping) };
    assert_eq!(events(&mut pair.right), [message(b"last"), by_peer]);
    assert_eq!(events(&mut pair.left), [message(b"crossing"), by_us]);
    for side in [&mut pair.left, &mut pair.right] {
        assert_eq!((side.state(), side.poll_timeout()), (State::Closed, None));
        side.handle_bytes(b"whatever", pair.now).unwrap();
        side.handle_eof().unwrap();
        assert_eq!(events(side), []);
    }
}

#[test]
fn closes_that_cross_or_get_no_answer_end_too() {
    let mut pair = Pair::established();
    pair.left.close(CloseReason::Finished, pair.now);
    pair.right.close(CloseReason::Replaced, pair.now);
    assert_eq!(pair.settle(), (None, None));
    assert_eq!(events(&mut pair.left), [Event::Closed { reason: Ended::ByUs(CloseReason::Finished) }]);
    assert_eq!(events(&mut pair.right), [Event::Closed { reason: Ended::ByUs(CloseReason::Replaced) }]);

    let mut pair = Pair::established();
    pair.left.close(CloseReason::Finished, pair.now);
    let due = pair.now + CLOSE_TIME_MAX;
    assert_eq!(pair.left.poll_timeout(), Some(due));
    pair.left.handle_timeout(due).unwrap();
    assert_eq!(pair.left.state(), State::Closed);
    assert_eq!(pair.right.handle_eof(), Err(ControlError::Truncated { during: "without a close" }));

    let mut pair = Pair::new(&[KEY_A], &[KEY_A]);
    pair.left.close(CloseReason::Finished, pair.now);
    assert_eq!(events(&mut pair.left), [Event::Closed { reason: Ended::ByUs(CloseReason::Finished) }]);
    assert!(pair.right.handle_eof().unwrap_err().to_string().contains("during the handshake"));
}

#[test]
fn the_outgoing_queue_is_bounded() {
    let mut pair = Pair::established();
    let body = vec![1; 60_000];
    let mut taken = 0;
    let refused = loop {
        match pair.left.send(Channel::MIRROR, &body) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    let len = body.len() + 1 + RECORD_OVERHEAD;
    assert_eq!(taken, SEND_QUEUE_BYTES_MAX / len);
    assert_eq!(refused, SendError::Full { queued: taken * len, len, max: SEND_QUEUE_BYTES_MAX });
    let big = vec![0; MESSAGE_BYTES_MAX + 1];
    assert_eq!(pair.left.send(Channel(9), &big), Err(SendError::TooLong { len: 61_441, max: 61_440 }));
    assert_eq!(pair.left.send(Channel(0), b""), Err(SendError::ReservedChannel));
    pair.left.close(CloseReason::Finished, pair.now);
    assert_eq!(pair.settle(), (None, None));
    assert_eq!(events(&mut pair.right).len(), taken + 1, "what was taken arrives, then the close");
}
