//! What is promised of the mirrored write path, each promise a test of a pair of real nodes.
//!
//! A secondary that is stopped runs no code at all: what is acknowledged then is in its memory by the primary alone, and on its disk
//! is nothing of it. Its silence is noticed after two seconds, so what is to happen meanwhile is quick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::ReplicationState;
use mirrorbus::{LaneConfig, Level};
use rustix::process::Signal;

use crate::client::{BLOCK, Client, Command, content};
use crate::common::{Fabric, Pair, soon};
use crate::memory::{damage, places, processor_ticks, regions};
use crate::rig::{Medium, PATIENCE, Plan, Rig};
use crate::tool::tool;

/// Blocks of one write where many are needed.
const BATCH: u64 = 16;

fn offset(block: u64) -> u64 {
    block * BLOCK as u64
}

/// One write of these blocks, acknowledged.
fn write(client: &mut Client, blocks: std::ops::Range<u64>, number: u32) {
    let bytes: Vec<u8> = blocks.clone().flat_map(|block| content(block, number)).collect();
    assert_eq!(client.write(offset(blocks.start), &bytes), 0, "{blocks:?}");
}

fn assert_written(client: &mut Client, blocks: std::ops::Range<u64>, number: u32) {
    for block in blocks {
        let found = client.read(offset(block), 4096);
        assert!(found == Ok(content(block, number).to_vec()), "block {block} is not that of write {number}");
    }
}

/// Each block's place in the primary's region is its place in the peer's memory.
fn an_acknowledged_write_is_at_the_same_offset_of_the_peers_memory(medium: Medium) {
    let rig = Rig::pair(Plan::new(medium));
    let mut client = rig.client(0);
    let blocks = 200;
    for block in 0..blocks {
        write(&mut client, block..block + 1, 1);
    }
    // At once: what comes later is not seen.
    rig.freeze(0);
    rig.freeze(1);
    let [primary, secondary] = [0, 1].map(|node| regions(rig.process(node), rig.region_bytes()));
    let own = primary.first().expect("the primary's region");
    let peers = secondary.first().expect("the secondary's region");
    for block in 0..blocks {
        let content = content(block, 1);
        let here = places(own, &content);
        assert!(!here.is_empty(), "{medium:?}: block {block} is not in the primary's region");
        assert_eq!(places(peers, &content), here, "{medium:?}: block {block} is elsewhere");
    }
}

#[test]
fn an_acknowledged_write_is_at_the_same_offset_over_shm() {
    an_acknowledged_write_is_at_the_same_offset_of_the_peers_memory(Medium::Shm);
}

#[test]
fn an_acknowledged_write_is_at_the_same_offset_over_tcp() {
    an_acknowledged_write_is_at_the_same_offset_of_the_peers_memory(Medium::Tcp);
}

/// A thread that writes one batch after another, each when the one before is acknowledged.
struct Batches {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Batches {
    fn start(mut client: Client, blocks: u64) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (acknowledged.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let first = counted.load(Ordering::SeqCst) * BATCH % blocks;
                write(&mut client, first..first + BATCH, 1);
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { acknowledged, stop, thread }
    }

    fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// How many are acknowledged when no more are, since the ring of the node that serves is full.
    fn stalled(&self, rig: &Rig, serving: usize) -> u64 {
        let began = Instant::now();
        loop {
            let before = self.count();
            std::thread::sleep(Duration::from_millis(300));
            let ring = rig.wait(serving, "there", |_| true).ring;
            if self.count() == before && ring.used_places == ring.places {
                return before;
            }
            assert!(began.elapsed() < PATIENCE, "the ring is not filled: {ring:?}\n{}", rig.logs());
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

#[test]
fn the_peers_processor_runs_nothing_for_a_write_and_its_memory_is_not_freed_before_its_disk_has_it() {
    let rig = Rig::pair(Plan { volume_mib: 64, ..Plan::new(Medium::Shm) });
    let mut client = rig.client(0);
    rig.freeze(1);
    let before = processor_ticks(rig.process(1));
    let writer = Batches::start(rig.client(0), 16384);
    let acknowledged = writer.stalled(&rig, 0);
    let ring = rig.region_bytes() as u64;
    let bytes = acknowledged * BATCH * BLOCK as u64;
    assert!(
        bytes > ring / 2,
        "only {bytes} bytes were taken by a peer that stands still, of a ring of {ring}"
    );
    assert!(bytes <= ring, "{bytes} bytes were acknowledged, of which {ring} fit the peer's memory");
    assert_eq!(processor_ticks(rig.process(1)), before, "the peer's processor ran");
    // On no disk of the peer, so its memory still has each of them, though the ring is full.
    let region = regions(rig.process(1), rig.region_bytes()).remove(0);
    for block in 0..acknowledged * BATCH {
        assert!(!places(&region, &content(block, 1)).is_empty(), "block {block} left the peer's memory");
    }
    rig.signal(1, Signal::CONT);
    rig.wait_for_pair();
    let began = Instant::now();
    while writer.count() < 3 * acknowledged {
        assert!(began.elapsed() < PATIENCE, "places are not given back\n{}", rig.logs());
        std::thread::sleep(Duration::from_millis(10));
    }
    writer.end();
    assert_eq!(client.flush(), 0);
    let status = rig.wait(0, "destaged", |status| status.lsn.durable_peer >= status.lsn.committed);
    assert!(status.lsn.durable_own >= status.lsn.committed && status.lsn.committed > ring, "{status:?}");
    assert_written(&mut client, 0..acknowledged * BATCH, 1);
}

#[test]
fn what_was_acknowledged_and_not_destaged_is_recovered_from_the_peers_memory() {
    for medium in [Medium::Shm, Medium::Tcp] {
        let mut rig = Rig::pair(Plan::new(medium));
        let mut client = rig.client(0);
        write(&mut client, 0..BATCH, 1);
        assert_eq!(client.flush(), 0);
        if medium == Medium::Shm {
            // Its memory has them, and it could not do anything about them.
            rig.freeze(1);
        }
        for batch in 0..20 {
            write(&mut client, batch * BATCH..(batch + 1) * BATCH, 2);
        }
        rig.kill(0);
        if medium == Medium::Shm {
            let on_disk = rig
                .segments(1)
                .iter()
                .map(|path| std::fs::read(path).unwrap())
                .any(|bytes| (0..20 * BATCH).any(|block| !places(&bytes, &content(block, 2)).is_empty()));
            assert!(!on_disk, "it was destaged: nothing is shown");
            rig.signal(1, Signal::CONT);
        }
        // Nothing of the owner is left.
        std::fs::remove_dir_all(rig.directory(0)).unwrap();
        rig.told(1, &["promote", "vm"]);
        assert_written(&mut rig.client(1), 0..20 * BATCH, 2);
    }
}

/// With what was acknowledged behind it and is not damaged, so that it is no write that did not come whole.
#[test]
fn what_was_acknowledged_and_is_damaged_in_the_peers_memory_is_not_dropped_in_silence() {
    let mut rig = Rig::pair(Plan::new(Medium::Shm));
    let mut client = rig.client(0);
    write(&mut client, 0..BATCH, 1);
    assert_eq!(client.flush(), 0);
    rig.freeze(1);
    for batch in 0..20 {
        write(&mut client, batch * BATCH..(batch + 1) * BATCH, 2);
    }
    rig.kill(0);
    std::fs::remove_dir_all(rig.directory(0)).unwrap();
    assert_eq!(damage(rig.process(1), rig.region_bytes(), &content(10 * BATCH, 2)), 1);
    rig.signal(1, Signal::CONT);
    for _ in 0..2 {
        let refused = rig.ask(1, &["promote", "vm"]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && text.contains("what lies between is damaged"), "{refused:?}");
    }
    rig.told(1, &["promote", "vm", "--flushed-only"]);
    let mut client = rig.client(1);
    assert_written(&mut client, 0..10 * BATCH, 2);
    let lost = client.read(offset(10 * BATCH), 4096);
    assert_eq!(lost, Ok(vec![0; BLOCK]), "it was never written before");
}

#[test]
fn what_is_outside_the_range_is_not_mirrored() {
    const SIZE: usize = 1 << 16;
    for fabric in [Fabric::Shm, Fabric::Tcp] {
        let pair = Pair::new(fabric, SIZE);
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        let ticket = lane.store(SIZE - 8, &[7; 8]).unwrap();
        lane.wait(ticket, Level::Visible, soon()).unwrap();
        let (held, local) = (pair.held(), pair.local());
        assert_eq!(held, local);
        for (offset, len) in [(SIZE, 1), (SIZE - 1, 2), (usize::MAX, 1), (0, SIZE + 1)] {
            assert!(
                lane.store(offset, &vec![9; len]).is_err(),
                "{fabric:?}: {len} bytes at {offset} were taken"
            );
        }
        lane.flush(Level::Visible, soon()).unwrap();
        assert!(pair.held() == held && pair.local() == local, "{fabric:?}: something went across the end");
    }
}

#[test]
fn an_overwrite_while_the_first_is_destaged_is_kept() {
    drop(tool("strace", "strace"));
    // Each sync takes a fifth of a second, on both.
    let words = ["strace", "-f", "-qq", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=200000"];
    let more = ["-o", "/dev/null"];
    let under = words.iter().chain(&more).map(|&word| word.to_owned()).collect();
    let mut rig = Rig::pair(Plan { under, ..Plan::new(Medium::Tcp) });
    let mut client = rig.client(0);
    let blocks = 0..BATCH;
    let bytes = |number| blocks.clone().flat_map(|block| content(block, number)).collect::<Vec<u8>>();
    let len = u32::try_from(bytes(1).len()).unwrap();
    let mut overtook = 0;
    let rounds = 4;
    for round in 0..rounds {
        write(&mut client, blocks.clone(), 2 * round + 1);
        let flush = client.ask(Command::Flush, 0, 0, &[]).unwrap();
        let again = client.ask(Command::Write, 0, len, &bytes(2 * round + 2)).unwrap();
        let answers = [(); 2].map(|()| client.answer().unwrap());
        assert!(answers.iter().all(|(_, error)| *error == 0), "{answers:?}");
        assert!(answers.iter().any(|(number, _)| *number == flush), "{answers:?}");
        overtook += u32::from(answers[0].0 == again);
    }
    assert!(overtook > 0, "no write was acknowledged while the one before was destaged");
    assert_written(&mut client, blocks.clone(), 2 * rounds);
    // On disk the later one takes the place of the earlier one, and in the peer's memory as well.
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    assert_written(&mut rig.client(1), blocks.clone(), 2 * rounds);
    assert_eq!(rig.client(1).flush(), 0);
    rig.kill(1);
    rig.start(1);
    rig.wait(1, "alone", |status| status.replication_state == ReplicationState::Alone);
    assert_written(&mut rig.client(1), blocks, 2 * rounds);
}

#[test]
fn without_the_peer_nothing_is_acknowledged_until_alone_is_granted_and_then_it_is_on_the_own_disk() {
    let mut rig = Rig::pair(Plan::new(Medium::Shm));
    let mut client = rig.client(0);
    write(&mut client, 0..BATCH, 1);
    rig.kill(1);
    rig.wait(0, "without a link", |status| status.replication_state == ReplicationState::LinkLost);
    let blocks = 0..20;
    let held = Arc::new(AtomicU64::new(0));
    let counted = held.clone();
    let writing = blocks.clone();
    let writer = std::thread::spawn(move || {
        for block in writing {
            write(&mut client, block..block + 1, 2);
            counted.fetch_add(1, Ordering::SeqCst);
        }
        client
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(held.load(Ordering::SeqCst), 0, "acknowledged with one copy, and nobody allowed it");
    rig.told(0, &["alone", "vm"]);
    drop(writer.join().unwrap());
    // At once, without a flush: each was on the disk before it was acknowledged.
    rig.kill(0);
    rig.start(0);
    rig.wait(0, "alone", |status| status.replication_state == ReplicationState::Alone);
    assert_written(&mut rig.client(0), blocks.clone(), 2);
    // The other one is filled again before what it has counts.
    rig.start(1);
    assert_eq!(rig.wait_for_pair(), 0);
    let mut client = rig.client(0);
    write(&mut client, 20..40, 3);
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    assert_written(&mut rig.client(1), blocks, 2);
    assert_written(&mut rig.client(1), 20..40, 3);
}
