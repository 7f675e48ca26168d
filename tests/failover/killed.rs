//! A node that is killed: the other serves, and the killed one comes back and is as good as before.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::child::{rounds, say, seed};
use crate::common::Random;
use crate::ledger::Ledger;
use crate::rig::{Medium, Plan, Rig};
use crate::writer::{Ended, Writer};
use crate::{
    BLOCKS, assert_kept, assert_whole, cuttable, is_alone, make_primary, plan, served, usual, wait_until,
};

/// What the node that is not preferred waits before it asks.
const DELAY: Duration = Duration::from_millis(300);

/// Kills whichever serves, under writes; which serves then.
fn kill_primary(rig: &mut Rig, ledger: &Arc<Mutex<Ledger>>, random: &mut Random) -> usize {
    let serving = rig.wait_for_pair();
    let writer = Writer::start(rig.client(serving), ledger.clone(), random.next());
    std::thread::sleep(Duration::from_micros(20_000 + random.below(150_000) as u64));
    rig.kill(serving);
    assert_eq!(writer.ended(), Ended::Lost);
    assert_kept(rig, 1 - serving, ledger);
    1 - serving
}

pub(crate) fn a_killed_primary_is_taken_over(plan: Plan, rounds: u32) {
    let mut random = Random(seed("a killed primary"));
    let mut rig = Rig::pair(plan);
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    // What was killed comes back, follows, and takes over in its turn.
    for _ in 0..rounds {
        let serving = kill_primary(&mut rig, &ledger, &mut random);
        rig.wait(serving, "alone", is_alone);
        // It takes writes, which the other one lacks.
        let writer = Writer::start(rig.client(serving), ledger.clone(), random.next());
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(writer.stop(), Ended::Stopped);
        rig.start(1 - serving);
        let serving = assert_whole(&rig);
        assert_kept(&rig, serving, &ledger);
    }
}

#[test]
fn a_killed_primary_is_taken_over_via_shm() {
    a_killed_primary_is_taken_over(plan(Medium::Shm), 3);
}

#[test]
fn a_killed_primary_is_taken_over_via_tcp() {
    a_killed_primary_is_taken_over(plan(Medium::Tcp), 3);
}

fn a_killed_secondary_is_set_out(medium: Medium) {
    let mut random = Random(seed("a killed secondary"));
    let mut rig = Rig::pair(plan(medium));
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    let serving = rig.wait_for_pair();
    let writer = Writer::start(rig.client(serving), ledger.clone(), random.next());
    std::thread::sleep(Duration::from_millis(50));
    rig.kill(1 - serving);
    rig.wait(serving, "alone", is_alone);
    let acknowledged = || ledger.lock().unwrap().acknowledged;
    let before = acknowledged();
    wait_until(&rig, "the client is answered", || acknowledged() > before + 16);
    // Not more, so that the other one has it all soon.
    writer.allow(1 << 20);
    rig.start(1 - serving);
    assert_eq!(rig.wait_for_pair(), serving, "{}", rig.logs());
    assert_eq!(writer.stop(), Ended::Stopped, "its client never noticed");
    assert_kept(&rig, serving, &ledger);
    assert_whole(&rig);
    // It is a member again, which has all.
    kill_primary(&mut rig, &ledger, &mut random);
}

#[test]
fn a_killed_secondary_is_set_out_via_shm() {
    a_killed_secondary_is_set_out(Medium::Shm);
}

#[test]
fn a_killed_secondary_is_set_out_via_tcp() {
    a_killed_secondary_is_set_out(Medium::Tcp);
}

/// The one that is preferred is dead, as the primary and as the secondary, and nobody says so: what is asked of it goes nowhere.
#[test]
fn the_other_wins_after_its_delay_when_the_preferred_is_dead() {
    let mut rig = Rig::pair(Plan { preferred: Some(0), ..cuttable() });
    for primary in [0, 1] {
        make_primary(&mut rig, primary);
        let began = Instant::now();
        let mut client = rig.client(primary);
        rig.kill(0);
        if primary == 0 {
            client = served(&rig, 1);
        }
        assert_eq!(client.write(0, &[7; 4096]), 0);
        let took = began.elapsed();
        assert!(took >= DELAY, "it asked after {took:?}\n{}", rig.logs());
        rig.wait(1, "alone", is_alone);
        rig.start(0);
        assert_whole(&rig);
    }
}

/// From the kill of the node that serves to the first write that the other one has acknowledged, each measured at a client that tries all
/// the time. The figures are printed; a machine that does much else must not fail by them.
fn take_over_time(medium: Medium) {
    let mut rig = Rig::pair(usual(medium));
    let mut times = Vec::new();
    for round in 0..rounds(5, 20) {
        let serving = rig.wait_for_pair();
        let fill = u8::try_from(round).unwrap();
        assert_eq!(rig.client(serving).write(0, &[fill; 4096]), 0);
        let killed = Instant::now();
        rig.kill(serving);
        let mut client = served(&rig, 1 - serving);
        assert_eq!(client.read(0, 4096).unwrap(), [fill; 4096]);
        assert_eq!(client.write(4096, &[!fill; 4096]), 0);
        times.push(killed.elapsed());
        rig.start(serving);
    }
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    say(&format!(
        "take-over over {medium:?}, {} rounds: median {median:.0?}, longest {longest:.0?}",
        times.len()
    ));
}

#[test]
fn what_a_take_over_takes_via_shm() {
    take_over_time(Medium::Shm);
}

#[test]
fn what_a_take_over_takes_via_tcp() {
    take_over_time(Medium::Tcp);
}
