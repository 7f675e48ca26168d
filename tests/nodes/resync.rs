//! Nodes killed in the middle of a resync, while clients write.
//!
//! Each round: the secondary is killed, the primary goes on alone for much more than the ring has, the secondary comes back, and while it is
//! brought up to date either of the two is killed, some times. In the end both are mirrored, and often the other one serves.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::ReplicationState;

use crate::child::{Watchdog, rounds, say, seed};
use crate::common::Random;
use crate::ledger::{BLOCK, Kept, Ledger};
use crate::rig::{Medium, PATIENCE, Plan, Rig};
use crate::writer::{Ended, Writer};

const RING_MIB: u64 = 4;
const VOLUME_MIB: u64 = 24;
/// What is written alone: some rings.
const ALONE_BYTES: usize = 32 << 20;

#[test]
fn nodes_killed_while_one_is_resynced_lose_nothing_over_shm() {
    kill_rounds(Medium::Shm);
}

#[test]
fn nodes_killed_while_one_is_resynced_lose_nothing_over_tcp() {
    kill_rounds(Medium::Tcp);
}

struct Rounds {
    rig: Rig,
    ledger: Arc<Mutex<Ledger>>,
    random: Random,
    serving: usize,
    context: String,
    /// Kills of either while a resync was under way, and bytes of data that resyncs moved.
    kills_within: [u64; 2],
    moved: u64,
}

fn kill_rounds(medium: Medium) {
    let title = format!("nodes killed in a resync, {medium:?}");
    let watchdog = Watchdog::new(&title);
    let mut random = Random(seed(&title));
    (0..8).for_each(|_| _ = random.next());
    let began = Instant::now();
    let plan = Plan { ring_mib: RING_MIB, volume_mib: VOLUME_MIB, ..Plan::new(medium) };
    let ledger = Ledger::new(usize::try_from(VOLUME_MIB << 20).unwrap() / BLOCK);
    let rig = Rig::pair(plan);
    let serving = rig.wait_for_pair();
    let (ledger, context) = (Arc::new(Mutex::new(ledger)), String::new());
    let mut state = Rounds { rig, ledger, random, serving, context, kills_within: [0; 2], moved: 0 };
    let count = rounds(4, 100);
    for round in 0..count {
        state.context = format!("{title}, round {round}");
        watchdog.feed(state.context.clone());
        state.round();
    }
    let Rounds { ledger, kills_within: [primaries, secondaries], moved, .. } = state;
    let acknowledged = ledger.lock().unwrap().acknowledged;
    say(&format!(
        "{title}: {count} rounds in {:.1?}, {acknowledged} writes acknowledged, none lost; {moved} bytes moved by the last processes, \
         {primaries} primaries and {secondaries} secondaries killed within",
        began.elapsed()
    ));
    assert!(moved > 0 && primaries + secondaries > 0, "no resync was hit");
}

impl Rounds {
    fn writer(&mut self) -> Writer {
        Writer::start(self.rig.client(self.serving), self.ledger.clone(), self.random.next())
    }

    fn sleep(&mut self, most: Duration) {
        let most = usize::try_from(most.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.random.below(most) as u64));
    }

    /// The one that serves goes on without the other, which is gone.
    fn go_alone(&self) {
        let gone = |status: &mirrorbus::serve::admin::DatasetStatus| {
            matches!(status.replication_state, ReplicationState::LinkLost | ReplicationState::Alone)
        };
        let status = self.rig.wait(self.serving, "without a link", gone);
        if status.replication_state == ReplicationState::LinkLost {
            self.rig.told(self.serving, &["alone", "vm"]);
        }
    }

    fn round(&mut self) {
        let mut writer = self.writer();
        self.sleep(Duration::from_millis(50));
        self.rig.kill(1 - self.serving);
        writer.allow(ALONE_BYTES.try_into().unwrap());
        self.go_alone();
        let began = Instant::now();
        while !writer.rests() {
            assert!(began.elapsed() < 2 * PATIENCE, "{}: the writer does not go on", self.context);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.rig.start(1 - self.serving);
        writer.allow(i64::MAX);
        for _ in 0..1 + self.random.below(4) {
            let resyncs = |status: &mirrorbus::serve::admin::DatasetStatus| {
                status.resync.is_some() || status.replication_state == ReplicationState::Established
            };
            self.rig.wait(self.serving, "bringing the other up to date", resyncs);
            self.sleep(Duration::from_millis(300));
            writer = self.kill_one(writer);
        }
        let serving = self.rig.wait_for_pair();
        assert_eq!(serving, self.serving, "{}", self.context);
        self.sleep(Duration::from_millis(30));
        assert_eq!(writer.stop(), Ended::Stopped, "{}", self.context);
        self.moved += self.rig.status(serving).map_or(0, |status| status.counters.resync_data_bytes);
        self.judge();
        if self.random.below(2) == 0 {
            let gone = std::mem::replace(&mut self.serving, 1 - serving);
            self.rig.kill(gone);
            self.rig.told(self.serving, &["promote", "vm"]);
            self.judge();
            self.rig.start(gone);
            assert_eq!(self.rig.wait_for_pair(), self.serving, "{}", self.context);
        }
    }

    /// Kills one of the two and starts it again.
    fn kill_one(&mut self, writer: Writer) -> Writer {
        let kills_primary = self.random.below(2) == 0;
        let (serving, other) = (self.serving, 1 - self.serving);
        let within = self.rig.status(serving).is_some_and(|status| status.resync.is_some());
        let which = if kills_primary { serving } else { other };
        self.rig.kill(which);
        self.kills_within[usize::from(!kills_primary)] += u64::from(within);
        if !kills_primary {
            self.go_alone();
            self.rig.start(other);
            return writer;
        }
        assert_eq!(writer.ended(), Ended::Lost, "{}", self.context);
        self.rig.start(serving);
        // One that was mirrored already may have more than what the other found on its disk.
        self.serving = self.rig.wait_for_primary("again", |_| true);
        self.judge();
        self.writer()
    }

    /// Reads everything, and compares it with the ledger; afterwards it is flushed.
    fn judge(&mut self) {
        let mut client = self.rig.client(self.serving);
        let blocks = self.ledger.lock().unwrap().blocks();
        let mut found = Vec::with_capacity(blocks * BLOCK);
        let piece = 256 * BLOCK;
        for offset in (0..blocks * BLOCK).step_by(piece) {
            let bytes = client.read(offset as u64, u32::try_from(piece).unwrap());
            found.extend(bytes.unwrap_or_else(|error| {
                panic!("{}: reading at {offset}: {error}\n{}", self.context, self.rig.logs())
            }));
        }
        let judged = self.ledger.lock().unwrap().judge(&found, Kept::Acknowledged);
        if let Err(why) = judged {
            panic!("{}: {why}\n{}", self.context, self.rig.logs());
        }
        assert_eq!(client.flush(), 0, "{}", self.context);
        let mut ledger = self.ledger.lock().unwrap();
        let began = ledger.begin_flush();
        ledger.flushed(began);
    }
}
