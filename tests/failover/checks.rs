//! Checks of the mediation that are no other test's: what was asked for twice, or too late, and who wins next time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{ReplicationState, Role};
use rustix::process::Signal;

use crate::client::{Client, Command, content, number_of};
use crate::probe::{Probes, assert_there};
use crate::proxy::Passage;
use crate::rig::{NAMES, Rig};
use crate::{assert_whole, cuttable, is_alone, served, wait_until};

/// How often what depends on which node asks first is tried.
const TRIES: u32 = 8;
/// A request for a change is longer than this, and what only looks is shorter.
const CHANGE_BYTES: usize = 180;

/// Retry after a lost reply: the mediator has taken what the primary asked for, and the answer is lost. Nothing is acknowledged until it is asked again,
/// which succeeds, though the register has moved on.
#[test]
fn a_retry_after_a_lost_reply_succeeds() {
    let rig = Rig::pair(cuttable());
    let probes = Probes::start(&rig);
    // On a machine that does much else the other node may be the first.
    let is_retried = (0..TRIES).any(|_| retry(&rig, &probes));
    assert!(is_retried, "the primary was never the first\n{}", rig.logs());
    let serving = assert_whole(&rig);
    assert_there(&mut served(&rig, serving), &probes.stop());
}

/// How often a node's log has these words.
fn logged(rig: &Rig, node: usize, words: &str) -> usize {
    let log = std::fs::read_to_string(rig.path(NAMES[node]).with_extension("log")).unwrap();
    log.matches(words).count()
}

/// Whether the mediator has it on its disk that this node alone is a member.
fn is_only_member(rig: &Rig, node: usize) -> bool {
    let directory = std::fs::read_dir(rig.path("mediator").with_extension("d")).unwrap();
    let mut files = directory.map(|entry| entry.unwrap().path());
    let register = files.find(|path| path.extension().is_some_and(|ending| ending == "register")).unwrap();
    std::fs::read_to_string(register).unwrap().contains(&format!("\"members\":[\"{}\"]", NAMES[node]))
}

/// Whether the mediator took the request of the primary, and the primary did not hear of it.
fn retry(rig: &Rig, probes: &Probes) -> bool {
    let serving = rig.wait_for_pair();
    let other = 1 - serving;
    let began = Instant::now();
    wait_until(rig, "a probe is answered", || probes.taken(serving, began) > 10);
    rig.ways().arbiter[serving].set(Passage::MuteBehind(CHANGE_BYTES));
    rig.ways().set_link(Passage::Closed);
    let mut was_taken = false;
    wait_until(rig, "it is decided", || {
        was_taken = is_only_member(rig, serving);
        was_taken || is_only_member(rig, other)
    });
    if was_taken {
        assert!(!rig.status(other).is_some_and(|status| is_alone(&status)), "{}", rig.logs());
        let status = rig.status(serving).unwrap();
        assert_eq!(status.replication_state, ReplicationState::LinkLost, "{}", rig.logs());
        let since = Instant::now();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!([0, 1].map(|node| probes.taken(node, since)), [0; 2], "{}", rig.logs());
    }
    rig.ways().arbiter[serving].set(Passage::Open);
    if was_taken {
        rig.wait(serving, "alone", is_alone);
        let since = Instant::now();
        wait_until(rig, "a probe is answered", || probes.taken(serving, since) > 10);
    }
    rig.ways().set_link(Passage::Open);
    let serves = rig.wait_for_pair();
    assert!(!was_taken || serves == serving, "{} serves\n{}", NAMES[serves], rig.logs());
    was_taken
}

/// Stale id: a primary that stood still asks for a change of the configuration that it knows, and the register has a later one. It is refused, and
/// serves nothing.
#[test]
fn a_stale_id_is_refused() {
    let rig = Rig::pair(cuttable());
    let serving = rig.wait_for_pair();
    let other = 1 - serving;
    assert_eq!(rig.client(serving).write(0, &content(0, 1)), 0);
    rig.freeze(serving);
    rig.ways().set_link(Passage::Closed);
    rig.wait(other, "alone", is_alone);
    let mut client = served(&rig, other);
    assert_eq!(client.write(0, &content(0, 2)), 0);
    // Of what happened only the mediator can tell it.
    rig.signal(serving, Signal::CONT);
    let refused = format!("steps down: {} serves now", NAMES[other]);
    wait_until(&rig, "it is refused", || logged(&rig, serving, &refused) == 1);
    assert_eq!(rig.status(serving).unwrap().role, Role::Undecided);
    assert!(Client::connect(&rig.socket(serving), "root").is_err(), "it serves");
    let status = rig.status(other).unwrap();
    assert!(is_alone(&status), "{status:?}");
    rig.ways().set_link(Passage::Open);
    assert_eq!(assert_whole(&rig), other);
    assert_eq!(client.read(0, 4096), Ok(content(0, 2).to_vec()));
}

/// A lease is live for so long.
const LEASE: Duration = Duration::from_millis(50);

/// A read that was answered: when it was asked for, and with the write of which number.
type Read = (Instant, Option<u32>);

/// Reads one block at one node again and again.
fn read_on(
    rig: &Rig,
    node: usize,
    stop: &Arc<AtomicBool>,
    reads: &Arc<Mutex<Vec<Read>>>,
) -> std::thread::JoinHandle<()> {
    let (socket, stop, reads) = (rig.socket(node), stop.clone(), reads.clone());
    std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
            let Ok(mut client) = Client::connect(&socket, "root") else { continue };
            client.set_patience(Duration::from_millis(200));
            while !stop.load(Ordering::SeqCst) {
                let asked = Instant::now();
                let answered = client.ask(Command::Read, 0, 4096, &[]).and_then(|_| client.answer());
                if !matches!(answered, Ok((_, 0))) {
                    break;
                }
                let Ok(bytes) = client.data(4096) else { break };
                reads.lock().unwrap().push((asked, number_of(0, &bytes)));
            }
        }
    })
}

/// Lease expiry alone fences: all ways of the primary go silent, no connection ends, and nobody can tell it anything. What ends its answers is the
/// end of its lease, before it misses anybody.
#[test]
fn lease_expiry_alone_fences() {
    let rig = Rig::pair(cuttable());
    let serving = rig.wait_for_pair();
    let other = 1 - serving;
    assert_eq!(rig.client(serving).write(0, &content(0, 1)), 0);
    let (stop, reads) = (Arc::default(), Arc::default());
    let readers = [read_on(&rig, serving, &stop, &reads), read_on(&rig, serving, &stop, &reads)];
    let count = || reads.lock().unwrap().len();
    wait_until(&rig, "reads are answered", || count() > 100);
    rig.ways().arbiter[serving].set(Passage::Silent);
    rig.ways().set_link(Passage::Silent);
    // What was granted was asked for before, so no lease is live later than this.
    let over = Instant::now() + LEASE;
    rig.wait(other, "alone", is_alone);
    let mut client = served(&rig, other);
    assert_eq!(client.write(0, &content(0, 2)), 0);
    std::thread::sleep(Duration::from_secs(1));
    let status = rig.status(serving).unwrap();
    assert_eq!(status.role, Role::Primary, "nobody has told it: {status:?}");
    assert_eq!(status.replication_state, ReplicationState::LinkLost);
    {
        let reads = reads.lock().unwrap();
        let late = reads.iter().find(|(asked, found)| *asked > over || *found != Some(1));
        assert!(late.is_none(), "{late:?} is answered, and no lease is live since {over:?}\n{}", rig.logs());
    }
    rig.ways().set_all(Passage::Open);
    rig.wait(serving, "not primary", |status| status.role != Role::Primary);
    stop.store(true, Ordering::SeqCst);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let found = reads.lock().unwrap().iter().filter(|(_, found)| *found != Some(1)).count();
    assert_eq!(found, 0, "it answered what it could not know");
    assert_eq!(assert_whole(&rig), other);
}

/// The loser rejoins identical, and wins when the link is cut the next time and it is the other one that does not reach the mediator.
#[test]
fn the_loser_rejoins_identical_and_wins_the_next_time() {
    let rig = Rig::pair(cuttable());
    let probes = Probes::start(&rig);
    let mut loser = rig.wait_for_pair();
    for round in 0..3 {
        let began = Instant::now();
        wait_until(&rig, "a probe is answered", || probes.taken(loser, began) > 10);
        rig.ways().arbiter[loser].set(Passage::Closed);
        rig.ways().set_link(if round % 2 == 0 { Passage::Closed } else { Passage::Silent });
        let winner = 1 - loser;
        rig.wait(winner, "alone", is_alone);
        let decided = Instant::now();
        wait_until(&rig, "the winner takes writes", || probes.taken(winner, decided) > 10);
        assert_eq!(probes.taken(loser, decided), 0, "both serve\n{}", rig.logs());
        rig.ways().set_all(Passage::Open);
        // All that both have is compared.
        assert_eq!(assert_whole(&rig), winner, "{}", rig.logs());
        loser = winner;
    }
    assert_there(&mut served(&rig, loser), &probes.stop());
}
