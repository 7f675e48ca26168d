//! Nodes killed in the middle of what clients write.
//!
//! Each round prints nothing; each test ends with a histogram of the requests in flight at the kills, and with how often each thing was
//! done.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::ReplicationState;

use crate::child::{Watchdog, rounds, say, seed};
use crate::common::Random;
use crate::ledger::{BLOCK, Kept, Ledger, judge};
use crate::rig::{Medium, PATIENCE, Plan, Rig};
use crate::writer::{Ended, Writer};

/// What a primary alone writes before the other is back: mostly less than the ring holds, else the other is resynced.
const ALONE_BYTES: usize = 6 << 20;
const ALONE_BYTES_RARELY: usize = 24 << 20;

#[test]
fn killed_nodes_lose_nothing_over_shm() {
    kill_rounds(Medium::Shm);
}

#[test]
fn killed_nodes_lose_nothing_over_tcp() {
    kill_rounds(Medium::Tcp);
}

/// What a round does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Kills the primary, and promotes the other.
    Primary,
    /// Kills the primary and starts it again; the two find out who serves.
    PrimaryAgain,
    /// Kills the secondary; the primary goes on alone, and lets it in again.
    Secondary,
    /// Kills both and starts them again.
    Both,
}

const DEEDS: [Deed; 4] = [Deed::Primary, Deed::PrimaryAgain, Deed::Secondary, Deed::Both];

struct Rounds {
    rig: Rig,
    ledger: Arc<Mutex<Ledger>>,
    random: Random,
    in_flight: Vec<u64>,
    serving: usize,
    context: String,
}

fn kill_rounds(medium: Medium) {
    let title = format!("nodes killed, {medium:?}");
    let watchdog = Watchdog::new(&title);
    let mut random = Random(seed(&title));
    (0..8).for_each(|_| _ = random.next());
    let began = Instant::now();
    let mut state = Rounds::new(medium, random, title.clone());
    let mut done = [0; DEEDS.len()];
    let count = rounds(10, 100);
    for round in 0..3 * count {
        // More of them where a machine that does much else let too few find requests.
        if round >= count && state.is_mostly_busy() {
            break;
        }
        // Each at least once, then any.
        let which = if round < DEEDS.len() { round } else { state.random.below(DEEDS.len()) };
        let deed = DEEDS[which];
        state.context = format!("{title}, round {round}, {deed:?}");
        watchdog.feed(state.context.clone());
        done[which] += 1;
        state.round(deed);
    }
    let (acknowledged, flushes) = {
        let ledger = state.told();
        (ledger.acknowledged, ledger.flushes)
    };
    let deeds: Vec<_> = DEEDS.iter().zip(done).map(|(deed, count)| format!("{deed:?} {count}")).collect();
    say(&format!(
        "{title}: {} in {:.1?}, {acknowledged} writes and {flushes} flushes acknowledged, none lost",
        deeds.join(", "),
        began.elapsed()
    ));
    state.in_flight.sort_unstable();
    say(&format!("{title}: requests in flight at the kills: {:?}", state.in_flight));
    assert!(state.is_mostly_busy(), "too few kills found requests");
}

impl Rounds {
    fn new(medium: Medium, random: Random, context: String) -> Self {
        let rig = Rig::pair(Plan::new(medium));
        let blocks = usize::try_from(Plan::new(medium).volume_mib << 20).unwrap() / BLOCK;
        let ledger = Arc::new(Mutex::new(Ledger::new(blocks)));
        let serving = rig.wait_for_pair();
        Self { rig, ledger, random, in_flight: Vec::new(), serving, context }
    }

    /// Whether more than half of the kills found requests in flight.
    fn is_mostly_busy(&self) -> bool {
        2 * self.in_flight.iter().filter(|count| **count > 0).count() > self.in_flight.len()
    }

    fn told(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// One round, from a mirrored pair to a mirrored pair.
    fn round(&mut self, deed: Deed) {
        let seed = self.random.next();
        let writer = Writer::start(self.rig.client(self.serving), self.ledger.clone(), seed);
        std::thread::sleep(Duration::from_micros(2000 + self.random.below(150_000) as u64));
        match deed {
            Deed::Primary => self.kill_primary(writer, false),
            Deed::PrimaryAgain => self.kill_primary(writer, true),
            Deed::Secondary => self.kill_secondary(writer),
            Deed::Both => self.kill_both(writer),
        }
    }

    fn kill(&mut self, node: usize) {
        let in_flight = self.told().in_flight;
        self.in_flight.push(in_flight);
        self.rig.kill(node);
    }

    fn kill_primary(&mut self, writer: Writer, again: bool) {
        let (gone, other) = (self.serving, 1 - self.serving);
        self.kill(gone);
        assert_eq!(writer.ended(), Ended::Lost, "{}", self.context);
        if again {
            self.rig.start(gone);
            self.serving = self.rig.wait_for_pair();
        } else {
            self.rig.told(other, &["promote", "vm"]);
            self.serving = other;
        }
        self.judge(Kept::Acknowledged);
        if again {
            return;
        }
        if self.random.below(2) == 0 {
            self.write_alone();
        }
        self.rig.start(gone);
        self.meet_again();
    }

    fn kill_secondary(&mut self, writer: Writer) {
        let (serving, other) = (self.serving, 1 - self.serving);
        self.kill(other);
        let lost = |status: &mirrorbus::serve::admin::DatasetStatus| {
            status.replication_state == ReplicationState::LinkLost
        };
        // The writer may read late what was acknowledged before, so that it is the node that is asked how far it went.
        let before = self.rig.wait(serving, "without a link", lost).lsn.committed;
        std::thread::sleep(Duration::from_millis(50));
        let status = self.rig.wait(serving, "there", |_| true);
        assert_eq!(status.lsn.committed, before, "{}: acknowledged without the peer", self.context);
        // In half of the rounds the other is back before the operator says anything.
        let early = self.random.below(2) == 0;
        if early {
            self.rig.start(other);
            let told =
                |status: &mirrorbus::serve::admin::DatasetStatus| status.reason.code == "peer-restarted";
            let status = self.rig.wait(serving, "told of a restart", told);
            assert_eq!(status.lsn.committed, before, "{}: acknowledged without the peer", self.context);
        }
        let allowed = self.allowance();
        writer.allow(allowed);
        let before = self.told().acknowledged;
        self.rig.told(serving, &["alone", "vm"]);
        let began = Instant::now();
        while self.told().acknowledged == before {
            assert!(began.elapsed() < PATIENCE, "{}: the writer does not go on", self.context);
            std::thread::sleep(Duration::from_millis(1));
        }
        if !early {
            std::thread::sleep(Duration::from_micros(self.random.below(100_000) as u64));
            self.rig.start(other);
        }
        assert_eq!(self.rig.wait_for_pair(), serving, "{}", self.context);
        writer.allow(1 << 20);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(writer.stop(), Ended::Stopped, "{}", self.context);
        self.judge(Kept::Acknowledged);
    }

    fn kill_both(&mut self, writer: Writer) {
        let first = self.random.below(2);
        self.kill(first);
        std::thread::sleep(Duration::from_micros(self.random.below(4_000) as u64));
        self.rig.kill(1 - first);
        assert_eq!(writer.ended(), Ended::Lost, "{}", self.context);
        let first = self.random.below(2);
        self.rig.start(first);
        std::thread::sleep(Duration::from_micros(self.random.below(300_000) as u64));
        self.rig.start(1 - first);
        self.serving = self.rig.wait_for_pair();
        self.judge(Kept::Flushed);
    }

    fn allowance(&mut self) -> i64 {
        let most = if self.random.below(8) == 0 { ALONE_BYTES_RARELY } else { ALONE_BYTES };
        (1 + self.random.below(most)).try_into().unwrap()
    }

    /// The node that serves writes a while without the other.
    fn write_alone(&mut self) {
        let seed = self.random.next();
        let writer = Writer::start(self.rig.client(self.serving), self.ledger.clone(), seed);
        let allowed = self.allowance();
        writer.allow(allowed);
        std::thread::sleep(Duration::from_micros(20_000 + self.random.below(100_000) as u64));
        assert_eq!(writer.stop(), Ended::Stopped, "{}", self.context);
    }

    fn meet_again(&mut self) {
        let met = self.rig.wait_for_pair();
        assert_eq!(met, self.serving, "{}: the one that served goes on\n{}", self.context, self.rig.logs());
    }

    /// Reads everything, and compares it with the ledger; afterwards it is flushed.
    fn judge(&mut self, kept: Kept) {
        let judged = judge(&mut self.rig.client(self.serving), &self.ledger, kept);
        if let Err(why) = judged {
            panic!("{}: {why}\n{}", self.context, self.rig.logs());
        }
    }
}
