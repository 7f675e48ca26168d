//! A node that is told to stop ends in bounded time, also while its clients wait for a peer that does not come.

use std::time::{Duration, Instant};

use mirrorbus::serve::admin::ReplicationState;

use crate::client::{BLOCK, Client, Command, content};
use crate::rig::{Medium, PATIENCE, Plan, Rig};

/// Blocks of one write: a piece that the server takes whole.
const BLOCKS: u64 = 32;
/// Clients with such a write each, together twice what the ring holds.
const CLIENTS: u64 = 64;

/// Threads of the node that serve a client.
fn connections(rig: &Rig) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", rig.process(0))).unwrap();
    let names =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|name| name.trim() == "mirrorbus-nbd-c").count()
}

fn payload(first: u64, number: u32) -> Vec<u8> {
    (first..first + BLOCKS).flat_map(|block| content(block, number)).collect()
}

/// Waits until so many threads serve clients.
fn wait_for_connections(rig: &Rig, wanted: usize) {
    let began = Instant::now();
    loop {
        let found = connections(rig);
        if found == wanted {
            return;
        }
        assert!(began.elapsed() < PATIENCE / 4, "{found} threads for {wanted} clients\n{}", rig.logs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A pair whose peer is gone, and clients of which the first have filled the ring, and the others wait for a place in it.
fn full_ring(rig: &mut Rig) -> Vec<Client> {
    assert_eq!(rig.client(0).write(0, &payload(0, 1)), 0);
    rig.kill(1);
    rig.wait(0, "without its peer", |status| status.replication_state == ReplicationState::LinkLost);
    wait_for_connections(rig, 0);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| rig.client(0)).collect();
    for (client, number) in clients.iter_mut().zip(1..) {
        let (first, bytes) = (number * BLOCKS, payload(number * BLOCKS, 2));
        let len = u32::try_from(bytes.len()).unwrap();
        client.ask(Command::Write, first * BLOCK as u64, len, &bytes).unwrap();
    }
    let status = rig.wait(0, "full", |status| {
        status.ring.used_places == status.ring.places && status.counters.writes > CLIENTS
    });
    let taken = status.lsn.appended - status.lsn.committed;
    assert!(taken < CLIENTS * BLOCKS * BLOCK as u64, "all found a place");
    wait_for_connections(rig, clients.len());
    clients
}

fn pair() -> Rig {
    Rig::pair(Plan { ring_mib: 4, volume_mib: 16, ..Plan::new(Medium::Shm) })
}

#[test]
fn who_waits_for_a_place_is_let_go_when_the_client_is_gone() {
    let mut rig = pair();
    let mut clients = full_ring(&mut rig);
    // Half of those who found a place, and half of those who wait for one.
    let mut stays = false;
    clients.retain(|_| {
        stays = !stays;
        stays
    });
    wait_for_connections(&rig, clients.len());
    drop(clients);
    wait_for_connections(&rig, 0);
}

#[test]
fn a_node_with_a_full_ring_and_no_peer_stops_and_has_what_was_acknowledged() {
    let mut rig = pair();
    let mut clients = full_ring(&mut rig);
    let status = rig.stop(0);
    assert!(status.success(), "{status}\n{}", rig.logs());
    for client in &mut clients {
        let answer = client.answer();
        assert!(answer.is_err(), "a write that no peer has was answered: {answer:?}\n{}", rig.logs());
    }
    rig.start(0);
    rig.start(1);
    let serves = rig.wait_for_pair();
    let mut client = rig.client(serves);
    for block in 0..BLOCKS {
        assert!(client.read(block * BLOCK as u64, 4096) == Ok(content(block, 1).to_vec()), "block {block}");
    }
}
