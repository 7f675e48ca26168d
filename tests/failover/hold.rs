//! Requests that are held for longer than is allowed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{DatasetStatus, ReplicationState};

use crate::arbiter::Decider;
use crate::child::seed;
use crate::client::{BLOCK, Client, Command, IO, content, number_of};
use crate::common::Random;
use crate::ledger::Ledger;
use crate::proxy::Passage;
use crate::rig::{Medium, PATIENCE, Plan, Rig};
use crate::writer::{Ended, Writer};
use crate::{BLOCKS, assert_kept, assert_whole, cuttable, is_alone, plan, served};

/// For how long requests are held.
const BOUND: Duration = Duration::from_secs(2);
/// Blocks of a client that nobody else writes to.
const FIRST: u64 = BLOCKS as u64;
const COUNT: u64 = 8;

fn bounded(plan: Plan, after: &str) -> Plan {
    let lines = format!("hold-seconds = {}\n{after}", BOUND.as_secs());
    Plan { lines, volume_mib: 16, ..plan }
}

fn is_too_long(status: &DatasetStatus) -> bool {
    status.reason.code == "held-too-long"
}

/// What a client asks for of which the answer is held: two reads, writes, and a flush.
fn ask_for_all(client: &mut Client, number: u32) -> usize {
    let at = |block: u64| block * BLOCK as u64;
    for block in FIRST..FIRST + COUNT {
        client.ask(Command::Write, at(block), 4096, &content(block, number)).unwrap();
    }
    client.ask(Command::Flush, 0, 0, &[]).unwrap();
    usize::try_from(COUNT).unwrap() + 1
}

/// The same without writes.
fn assert_all_written(client: &mut Client, allowed: &[u32]) {
    for block in FIRST..FIRST + COUNT {
        let found = client.read(block * BLOCK as u64, 4096).unwrap();
        let found = number_of(block, &found);
        assert!(found.is_some_and(|found| allowed.contains(&found)), "{found:?} is none of {allowed:?}");
    }
}

fn write_all(client: &mut Client, number: u32) {
    for block in FIRST..FIRST + COUNT {
        assert_eq!(client.write(block * BLOCK as u64, &content(block, number)), 0);
    }
    assert_eq!(client.flush(), 0);
}

/// A pair under a writer, which loses its mediator and then the member: nobody can decide.
struct Doubt {
    rig: Rig,
    serving: usize,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    began: Instant,
}

fn doubt(plan: Plan) -> Doubt {
    let mut random = Random(seed("held"));
    let mut rig = Rig::pair(plan);
    let serving = rig.wait_for_pair();
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    let writer = Writer::start(rig.client(serving), ledger.clone(), random.next());
    let mut client = rig.client(serving);
    write_all(&mut client, 1);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(writer.stop(), Ended::Stopped);
    rig.arbiter().kill();
    let began = Instant::now();
    rig.kill(1 - serving);
    Doubt { rig, serving, client, ledger, began }
}

impl Doubt {
    /// Waits until it has lasted for too long, and is told.
    fn last(&self) -> DatasetStatus {
        let status = self.rig.wait(self.serving, "held for too long", is_too_long);
        assert!(self.began.elapsed() >= BOUND, "after {:?}\n{}", self.began.elapsed(), self.rig.logs());
        assert_eq!(status.replication_state, ReplicationState::LinkLost);
        let hold = status.hold.as_ref().unwrap();
        assert!(hold.is_over && hold.held_ms >= 2000, "{hold:?}");
        // The event comes with the next look at what changed.
        let began = Instant::now();
        loop {
            let events = self.rig.ask(self.serving, &["events"]);
            if String::from_utf8_lossy(&events.stdout).contains("held-too-long") {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{events:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = self.rig.ask(self.serving, &["status"]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("longer than hold-seconds"), "{text}");
        status
    }

    /// Somebody decides; service goes on over the same connection, and the pair is whole again.
    fn end(mut self, allowed: &[u32]) {
        self.rig.arbiter().start();
        let status = self.rig.wait(self.serving, "alone", is_alone);
        assert!(status.hold.is_none(), "{status:?}");
        assert_all_written(&mut self.client, allowed);
        write_all(&mut self.client, 9);
        assert_all_written(&mut self.client, &[9]);
        assert_kept(&self.rig, self.serving, &self.ledger);
        self.rig.start(1 - self.serving);
        assert_eq!(assert_whole(&self.rig), self.serving, "{}", self.rig.logs());
        assert_all_written(&mut self.client, &[9]);
    }
}

fn answers(client: &mut Client, count: usize) -> Vec<u32> {
    (0..count).map(|_| client.answer().unwrap().1).collect()
}

/// What waits fails when the time is over, and what comes fails at once; when it is decided all goes on.
#[test]
fn held_for_too_long_is_answered_with_an_error() {
    let mut doubt = doubt(bounded(plan(Medium::Tcp), "after-hold = \"error\""));
    // Before the node knows that the link is lost, or behind that.
    let asked = ask_for_all(&mut doubt.client, 2);
    let found = answers(&mut doubt.client, asked);
    let took = doubt.began.elapsed();
    assert_eq!(found, vec![IO; asked], "{}", doubt.rig.logs());
    assert!(took >= BOUND, "after {took:?}");
    let before = doubt.last();
    assert_eq!(before.hold.as_ref().unwrap().after, "error");
    // More than the ring has room for: nothing of it gets there.
    let mut times = Vec::new();
    for round in 0..64 {
        let began = Instant::now();
        assert_eq!(doubt.client.write(FIRST * BLOCK as u64, &[3; 1 << 20]), IO, "{round}");
        assert_eq!(doubt.client.read(FIRST * BLOCK as u64, 4096), Err(IO));
        assert_eq!(doubt.client.flush(), IO);
        assert_eq!(doubt.client.trim(FIRST * BLOCK as u64, 4096), IO);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    assert!(times[times.len() / 2] < BOUND, "what comes is held: {times:.1?}");
    let after = doubt.rig.status(doubt.serving).unwrap();
    assert_eq!(after.lsn.appended, before.lsn.appended, "it was appended");
    assert!(after.counters.hold_failures > before.counters.hold_failures);
    // What had been held may have taken effect.
    doubt.end(&[1, 2]);
}

/// What waits waits on, and operators are told.
#[test]
fn held_for_too_long_is_told_and_held_on() {
    let mut doubt = doubt(bounded(plan(Medium::Tcp), "after-hold = \"suspend\""));
    let asked = ask_for_all(&mut doubt.client, 2);
    let status = doubt.last();
    assert_eq!(status.hold.as_ref().unwrap().after, "suspend");
    doubt.client.set_patience(Duration::from_millis(500));
    assert!(doubt.client.answer().is_err(), "it is answered");
    assert_eq!(doubt.rig.status(doubt.serving).unwrap().counters.hold_failures, 0);
    doubt.client.set_patience(PATIENCE);
    doubt.rig.arbiter().start();
    assert_eq!(answers(&mut doubt.client, asked), vec![0; asked], "{}", doubt.rig.logs());
    // It runs: started again it would be a second one.
    doubt.rig.arbiter().kill();
    doubt.end(&[2]);
}

/// The link comes back, with nobody who decides: what was answered with an error takes effect, or not, on both nodes alike.
#[test]
fn the_link_is_back_behind_an_error() {
    let plan = bounded(Plan { decider: Decider::Operator, ..cuttable() }, "after-hold = \"error\"");
    let rig = Rig::pair(plan);
    let serving = rig.wait_for_pair();
    let mut client = rig.client(serving);
    write_all(&mut client, 1);
    let mut known = vec![1];
    for (number, cut) in [(2, Passage::Closed), (3, Passage::Silent)] {
        let began = Instant::now();
        rig.ways().set_link(cut);
        let asked = ask_for_all(&mut client, number);
        let found = answers(&mut client, asked);
        assert!(found.iter().all(|error| *error == IO), "{found:?}\n{}", rig.logs());
        assert!(began.elapsed() >= BOUND, "after {:?}", began.elapsed());
        rig.wait(serving, "held for too long", is_too_long);
        rig.ways().set_link(Passage::Open);
        assert_eq!(assert_whole(&rig), serving, "{}", rig.logs());
        known.push(number);
        assert_all_written(&mut client, &known);
        write_all(&mut client, number + 10);
        known = vec![number + 10];
        assert_all_written(&mut client, &known);
    }
    assert_all_written(&mut served(&rig, serving), &known);
}
