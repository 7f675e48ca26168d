//! A planned switch: the service moves, no request fails, and nothing is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{ReplicationState, Role};

use crate::child::seed;
use crate::client::{Client, content};
use crate::common::Random;
use crate::ledger::Ledger;
use crate::proxy::Passage;
use crate::rig::{Medium, NAMES, Plan, Rig};
use crate::roamer::Roamer;
use crate::writer::{Ended, Writer};
use crate::{BLOCKS, assert_kept, assert_whole, cuttable, is_alone, plan, served, switch, wait_until};

/// Back and forth.
const SWITCHES: u32 = 10;
/// Longest pause of a client in half of them, on a machine that does much else.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A client that writes one block again and again, where it is served, and looks how long it waits.
struct Pulse {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<u32>>,
    longest: Arc<Mutex<Duration>>,
}

/// Its block, which is nobody else's.
const PULSE_BLOCK: u64 = BLOCKS as u64 + 7;

impl Pulse {
    fn start(rig: &Rig) -> Self {
        let (stop, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Duration::ZERO)));
        let (sockets, stopped, seen) = ([0, 1].map(|node| rig.socket(node)), stop.clone(), longest.clone());
        let beat = move || {
            let (mut number, mut failed, mut answered) = (0, Vec::new(), Instant::now());
            for socket in sockets.iter().cycle() {
                if stopped.load(Ordering::SeqCst) {
                    return failed;
                }
                let Ok(mut client) = Client::connect(socket, "root") else {
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                };
                while !stopped.load(Ordering::SeqCst) {
                    number += 1;
                    match client.try_write(PULSE_BLOCK * 4096, &content(PULSE_BLOCK, number)) {
                        Ok(0) => {}
                        Ok(error) => failed.push(error),
                        Err(_) => break,
                    }
                    let mut longest = seen.lock().unwrap();
                    *longest = longest.max(answered.elapsed());
                    answered = Instant::now();
                }
            }
            unreachable!("two sockets, again and again")
        };
        Self { thread: std::thread::spawn(beat), stop, longest }
    }

    /// The longest time between two answers since this was asked last.
    fn longest(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().unwrap())
    }

    /// Ends it; the numbers of what failed.
    fn stop(self) -> Vec<u32> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// A writer that goes along is never told that something failed.
fn nothing_fails_in_switches(medium: Medium) {
    let mut random = Random(seed("switches"));
    let rig = Rig::pair(Plan { volume_mib: 16, ..plan(medium) });
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    let roamer = Roamer::start(&rig, &ledger, random.next());
    let pulse = Pulse::start(&rig);
    let mut pauses = Vec::new();
    for _ in 0..SWITCHES {
        let serving = rig.wait_for_pair();
        std::thread::sleep(Duration::from_micros(20_000 + random.below(50_000) as u64));
        pulse.longest();
        let report = switch(&rig, serving);
        wait_until(&rig, "the client is answered", || {
            let before = ledger.lock().unwrap().acknowledged;
            std::thread::sleep(Duration::from_millis(5));
            ledger.lock().unwrap().acknowledged > before
        });
        let seen = pulse.longest();
        if let Some(report) = report {
            assert_eq!(report.to, NAMES[1 - serving]);
            pauses.push((seen, Duration::from_micros(report.held_us)));
        }
        let status = rig.status(1 - serving).unwrap();
        assert_eq!(status.role, Role::Primary, "{}", rig.logs());
    }
    let serving = assert_whole(&rig);
    let failed = pulse.stop();
    assert!(failed.is_empty(), "requests failed: {failed:?}\n{}", rig.logs());
    let roamed = roamer.stop();
    assert!(roamed.failed.is_empty(), "requests failed: {:?}\n{}", roamed.failed, rig.logs());
    assert!(roamed.connections > SWITCHES, "{roamed:?}");
    assert_kept(&rig, serving, &ledger);
    pauses.sort_unstable();
    println!("{medium:?}: a client waited, and requests were held, for {pauses:.1?}");
    assert!(pauses.len() > SWITCHES as usize / 2, "the service moved by itself\n{}", rig.logs());
    let (median, _) = pauses[pauses.len() / 2];
    assert!(median < PAUSE_MAX, "clients waited for {median:?}\n{}", rig.logs());
}

#[test]
fn nothing_fails_in_switches_via_shm() {
    nothing_fails_in_switches(Medium::Shm);
}

#[test]
fn nothing_fails_in_switches_via_tcp() {
    nothing_fails_in_switches(Medium::Tcp);
}

/// The client that was there all the time goes on as though nothing had been asked.
#[test]
fn what_cannot_be_switched_is_served_on() {
    let mut rig = Rig::pair(plan(Medium::Tcp));
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    let serving = rig.wait_for_pair();
    let writer = Writer::start(rig.client(serving), ledger.clone(), seed("no switch"));
    let refused = |rig: &Rig, node: usize, words: &str| {
        let output = rig.ask(node, &["switch", "vm"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{output:?}\n{}", rig.logs());
        assert!(text.contains(words), "{text}\n{}", rig.logs());
    };
    refused(&rig, 1 - serving, "does not serve");
    rig.arbiter().kill();
    refused(&rig, serving, "mediator");
    rig.arbiter().start();
    rig.kill(1 - serving);
    rig.wait(serving, "alone", is_alone);
    refused(&rig, serving, "does not have every acknowledged write");
    let before = ledger.lock().unwrap().acknowledged;
    wait_until(&rig, "the client is answered", || ledger.lock().unwrap().acknowledged > before + 16);
    assert_eq!(writer.stop(), Ended::Stopped, "its client noticed\n{}", rig.logs());
    assert_kept(&rig, serving, &ledger);
}

/// The link is cut at any moment of a switch: one of the two goes on, with all that was acknowledged.
#[test]
fn switches_while_the_link_is_cut_lose_nothing() {
    let mut random = Random(seed("switches and cuts"));
    let rig = Rig::pair(cuttable());
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    let roamer = Roamer::start(&rig, &ledger, random.next());
    let mut switched = 0;
    for round in 0..8 {
        let serving = rig.wait_for_pair();
        let cut = if round % 2 == 0 { Passage::Closed } else { Passage::Silent };
        let output = std::thread::scope(|scope| {
            let asked = scope.spawn(|| rig.ask(serving, &["switch"]));
            std::thread::sleep(Duration::from_micros(random.below(150_000) as u64));
            rig.ways().set_link(cut);
            std::thread::sleep(Duration::from_millis(random.below(800) as u64));
            rig.ways().set_link(Passage::Open);
            asked.join().unwrap()
        });
        switched += u32::from(output.status.success());
        let serving = rig.wait_for_pair();
        let status = rig.status(1 - serving).unwrap();
        assert_eq!(status.replication_state, ReplicationState::Established, "{}", rig.logs());
        let before = ledger.lock().unwrap().acknowledged;
        wait_until(&rig, "the client is answered", || ledger.lock().unwrap().acknowledged > before + 16);
    }
    roamer.stop();
    let serving = assert_whole(&rig);
    assert_kept(&rig, serving, &ledger);
    served(&rig, serving);
    println!("{switched} of 8 switches were made");
}

/// Whoever is connected to the node that served is hung up on, also if it asks for nothing; what it asks for is not answered, not even with an error.
#[test]
fn who_is_connected_is_hung_up_on_without_an_answer() {
    let rig = Rig::pair(plan(Medium::Tcp));
    let serving = rig.wait_for_pair();
    let (mut idle, mut late) = (rig.client(serving), rig.client(serving));
    assert_eq!(late.write(0, &content(0, 1)), 0);
    switch(&rig, serving);
    let written = late.try_write(0, &content(0, 2));
    assert!(written.is_err(), "{written:?}\n{}", rig.logs());
    let hung_up = idle.answer().map_err(|error| error.kind());
    assert_eq!(hung_up, Err(std::io::ErrorKind::UnexpectedEof), "{}", rig.logs());
    let mut client = served(&rig, 1 - serving);
    assert_eq!(client.read(0, 4096), Ok(content(0, 1).to_vec()), "what was not taken was not done");
}
