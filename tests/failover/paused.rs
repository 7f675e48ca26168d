//! A primary that stands still, and goes on when the other has taken over: it answers nothing any more.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{BLOCK, Client, Command, content, number_of};
use crate::rig::{Medium, NAMES, Plan, Rig};
use crate::{assert_whole, served, usual};

/// How long an answer is waited for: none is right as well.
const ANSWER_TIME: Duration = Duration::from_secs(2);

const LEN: u32 = 4096;

/// Pauses whichever serves for that long, and at least until the other serves; what it then answers to reads of a block that was written
/// there meanwhile. `flushes`: what it had was on its disk, not in its memory only.
fn pause(rig: &Rig, number: u32, least: Duration, flushes: bool) {
    let block = u64::from(number);
    let offset = block * BLOCK as u64;
    let (old, new) = (2 * number + 1, 2 * number + 2);
    let paused = assert_whole(rig);
    let other = 1 - paused;
    let mut clients = [rig.client(paused), rig.client(paused)];
    assert_eq!(clients[0].write(offset, &content(block, old)), 0);
    if flushes {
        assert_eq!(clients[0].flush(), 0);
    }
    for client in &mut clients {
        assert_eq!(client.read(offset, LEN), Ok(content(block, old).to_vec()));
        client.set_patience(ANSWER_TIME);
    }
    rig.freeze(paused);
    let began = Instant::now();
    // This one is read by the node when it goes on.
    clients[0].ask(Command::Read, offset, LEN, &[]).unwrap();
    let mut client = served(rig, other);
    assert_eq!(client.write(offset, &content(block, new)), 0);
    while began.elapsed() < least {
        std::thread::sleep(Duration::from_millis(5));
    }
    rig.signal(paused, Signal::CONT);
    // And this one comes while it does.
    let _ = clients[1].ask(Command::Read, offset, LEN, &[]);
    for client in &mut clients {
        let found = answer(client).map(|bytes| number_of(block, &bytes));
        assert!(
            found.is_none_or(|found| found == Some(new)),
            "{} answers a read with {found:?} instead of {new}, after a pause of {:?}\n{}",
            NAMES[paused],
            began.elapsed(),
            rig.logs()
        );
    }
    assert_eq!(client.read(offset, LEN), Ok(content(block, new).to_vec()));
    assert_eq!(assert_whole(rig), other, "{}", rig.logs());
}

/// What a read is answered with; `None`: with a failure, the connection's end, or not at all.
pub(crate) fn answer(client: &mut Client) -> Option<Vec<u8>> {
    match client.answer() {
        Ok((_, 0)) => client.data(LEN).ok(),
        Ok(_) | Err(_) => None,
    }
}

pub(crate) fn a_paused_primary_answers_no_stale_read(plan: Plan) {
    no_stale_read(&Rig::pair(plan));
}

/// Of a pair, whichever serves.
pub(crate) fn no_stale_read(rig: &Rig) {
    // For just as long as it takes: what it does when it goes on and what the other does are at the same time.
    for round in 0..4 {
        pause(rig, round, Duration::ZERO, round % 2 == 1);
    }
    pause(rig, 4, Duration::from_secs(5), true);
}

#[test]
fn a_paused_primary_answers_no_stale_read_via_shm() {
    a_paused_primary_answers_no_stale_read(usual(Medium::Shm));
}

#[test]
fn a_paused_primary_answers_no_stale_read_via_tcp() {
    a_paused_primary_answers_no_stale_read(usual(Medium::Tcp));
}

/// A silence that is far longer than what comes of it.
const LONG_SILENCE_MS: u64 = 30_000;
/// Longer than the usual one, and than what a connection of TCP has.
const STILL_TIME: Duration = Duration::from_secs(3);

/// Each of the two stands still for less than the silence after which it is missed: nothing moves, and who asks meanwhile waits.
fn less_than_the_silence_moves_nothing(medium: Medium) {
    let rig = Rig::pair(Plan { silence_ms: Some(LONG_SILENCE_MS), ..usual(medium) });
    let serving = rig.wait_for_pair();
    let mut client = rig.client(serving);
    let before = rig.wait(serving, "there", |_| true);
    for (number, still) in [(1, 1 - serving), (2, serving)] {
        assert_eq!(client.write(0, &content(0, number)), 0);
        rig.freeze(still);
        client.ask(Command::Read, 0, LEN, &[]).unwrap();
        std::thread::sleep(STILL_TIME);
        rig.signal(still, Signal::CONT);
        let found = answer(&mut client).map(|bytes| number_of(0, &bytes));
        assert_eq!(found, Some(Some(number)), "{} stood still\n{}", NAMES[still], rig.logs());
        assert_eq!(assert_whole(&rig), serving, "{}", rig.logs());
        let after = rig.wait(serving, "there", |_| true);
        assert_eq!(after.generation, before.generation, "{}", rig.logs());
    }
}

#[test]
fn less_than_the_silence_moves_nothing_via_shm() {
    less_than_the_silence_moves_nothing(Medium::Shm);
}

#[test]
fn less_than_the_silence_moves_nothing_via_tcp() {
    less_than_the_silence_moves_nothing(Medium::Tcp);
}
