//! `reads = "confirm"`: no lease is asked for, and no clock.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{BLOCK, Client, Command, content, number_of};
use crate::cut::exactly_one_serves;
use crate::paused::{a_paused_primary_answers_no_stale_read, answer, no_stale_read};
use crate::proxy::Passage;
use crate::rig::{Medium, Plan, Rig};
use crate::{assert_whole, cuttable, is_alone, plan, served, switch, usual};

const CONFIRM: &str = "reads = \"confirm\"";

fn confirming(plan: Plan) -> Plan {
    Plan { lines: CONFIRM.into(), ..plan }
}

#[test]
fn a_paused_primary_that_confirms_answers_no_stale_read_via_shm() {
    a_paused_primary_answers_no_stale_read(confirming(usual(Medium::Shm)));
}

#[test]
fn a_paused_primary_that_confirms_answers_no_stale_read_via_tcp() {
    a_paused_primary_answers_no_stale_read(confirming(usual(Medium::Tcp)));
}

/// Each node goes by its own way, whatever the other's is.
#[test]
fn one_node_confirms_and_the_other_has_a_lease() {
    let mut rig = Rig::new(usual(Medium::Tcp));
    let config = std::fs::read_to_string(rig.config(0)).unwrap();
    std::fs::write(rig.config(0), config.replace("lock = \"try\"", &format!("{CONFIRM}\nlock = \"try\"")))
        .unwrap();
    rig.arbiter().start();
    rig.start(0);
    rig.start(1);
    no_stale_read(&rig);
}

/// Without a mediator an operator takes a primary that stands still for one that is down.
fn an_operator_is_wrong_about_the_primary(medium: Medium) {
    let mut rig = Rig::pair(confirming(Plan::new(medium)));
    let serving = rig.wait_for_pair();
    let other = 1 - serving;
    let mut clients = [rig.client(serving), rig.client(serving)];
    assert_eq!(clients[0].write(0, &content(0, 1)), 0);
    assert_eq!(clients[0].flush(), 0);
    rig.freeze(serving);
    clients[0].ask(Command::Read, 0, 4096, &[]).unwrap();
    rig.told(other, &["promote", "vm"]);
    let mut client = served(&rig, other);
    assert_eq!(client.write(0, &content(0, 2)), 0);
    rig.signal(serving, Signal::CONT);
    let _ = clients[1].ask(Command::Read, 0, 4096, &[]);
    for client in &mut clients {
        client.set_patience(Duration::from_secs(1));
        let found = answer(client).map(|bytes| number_of(0, &bytes));
        assert_eq!(found, None, "answered by one that was overtaken\n{}", rig.logs());
    }
    rig.kill(serving);
    rig.start(serving);
    assert_eq!(assert_whole(&rig), other);
    assert_eq!(client.read(0, 4096), Ok(content(0, 2).to_vec()));
}

#[test]
fn an_operator_who_is_wrong_about_a_primary_that_confirms_gets_no_stale_read() {
    an_operator_is_wrong_about_the_primary(Medium::Shm);
    an_operator_is_wrong_about_the_primary(Medium::Tcp);
}

#[test]
fn exactly_one_serves_when_the_link_of_nodes_that_confirm_is_cut_in_silence() {
    exactly_one_serves(confirming(cuttable()), Passage::Silent, None, 0);
}

/// Reads, writes and flushes, of one client.
fn assert_answered(client: &mut Client, number: u32) {
    for block in 0..16 {
        let (offset, bytes) = (block * BLOCK as u64, content(block, number));
        assert_eq!(client.write(offset, &bytes), 0);
        assert_eq!(client.read(offset, 4096), Ok(bytes.to_vec()));
        assert_eq!(client.read((block + 64) * BLOCK as u64, 4096), Ok(vec![0; 4096]), "never written");
    }
    assert_eq!(client.flush(), 0);
    // Many at once, reads and writes: one look serves all of them.
    let (mut asked, bytes) = (Vec::new(), content(99, number));
    for at in 0..64 {
        let is_read = at % 3 != 0;
        let command = if is_read { Command::Read } else { Command::Write };
        let payload: &[u8] = if is_read { &[] } else { &bytes };
        let block = if is_read { at % 16 } else { 99 };
        asked.push((is_read, block, client.ask(command, block * BLOCK as u64, 4096, payload).unwrap()));
    }
    for (is_read, block, asked) in asked {
        assert_eq!(client.answer().unwrap(), (asked, 0));
        if is_read {
            assert_eq!(client.data(4096).unwrap(), content(block, number));
        }
    }
}

fn all_is_answered_mirrored_and_alone(medium: Medium) {
    let mut rig = Rig::pair(confirming(plan(medium)));
    let serving = rig.wait_for_pair();
    let mut client = served(&rig, serving);
    assert_answered(&mut client, 1);
    rig.kill(1 - serving);
    rig.wait(serving, "alone", is_alone);
    assert_answered(&mut client, 2);
    rig.start(1 - serving);
    assert_eq!(assert_whole(&rig), serving, "{}", rig.logs());
    assert_answered(&mut client, 3);
    switch(&rig, serving);
    assert_answered(&mut served(&rig, 1 - serving), 4);
    assert_eq!(assert_whole(&rig), 1 - serving);
}

#[test]
fn all_is_answered_by_nodes_that_confirm_mirrored_and_alone_via_shm() {
    all_is_answered_mirrored_and_alone(Medium::Shm);
}

#[test]
fn all_is_answered_by_nodes_that_confirm_mirrored_and_alone_via_tcp() {
    all_is_answered_mirrored_and_alone(Medium::Tcp);
}

/// A lease that was granted before is over by then.
const LEASE_OVER: Duration = Duration::from_millis(60);
/// Before that the member is not missed yet.
const NOT_MISSED: Duration = Duration::from_millis(250);

/// Stops the member, which grants nothing then, and reads until it is missed: how many reads that were asked for when each lease was over were
/// answered nevertheless.
fn answered_without_a_lease(rig: &Rig) -> usize {
    let serving = assert_whole(rig);
    let mut client = served(rig, serving);
    client.set_patience(NOT_MISSED);
    // Before it is: it may have been heard last then.
    let missed = Instant::now() + NOT_MISSED;
    rig.freeze(1 - serving);
    let (frozen, mut answered) = (Instant::now(), 0);
    while Instant::now() < missed {
        let asked = frozen.elapsed();
        client.ask(Command::Read, 0, 4096, &[]).unwrap();
        let is_answered = client.answer().is_ok() && client.data(4096).is_ok();
        if !is_answered {
            break;
        }
        answered += usize::from(asked >= LEASE_OVER && Instant::now() < missed);
    }
    rig.signal(1 - serving, Signal::CONT);
    answered
}

/// Through shared memory a look takes nothing of the member's processor, while a lease is its word.
#[test]
fn no_lease_is_asked_for_where_answers_are_confirmed() {
    let rig = Rig::pair(confirming(plan(Medium::Shm)));
    // A machine that does much else may do nothing here for as long.
    let answered = (0..8).any(|_| answered_without_a_lease(&rig) > 0);
    assert!(answered, "reads waited for a lease\n{}", rig.logs());
    let rig = Rig::pair(plan(Medium::Shm));
    assert_eq!(answered_without_a_lease(&rig), 0, "by a lease that nobody can have granted\n{}", rig.logs());
}
