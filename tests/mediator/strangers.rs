//! Who has no key, speaks something else, or comes in crowds.

use std::io::Write;

use mirrorbus::base::DatasetId;
use mirrorbus::cluster::Verdict;
use mirrorbus::cluster::{ArbiterClient, ArbiterError};
use mirrorbus::mediator::Client;
use mirrorbus::{Attach, KeySet, Region};

use crate::common::{Random, region_config};
use crate::wire::{Peer, connect, random_bytes};
use crate::{AT_ONCE, DATASET, PATIENCE, Rig, ask, change, take};

/// More than a holder keeps of connections that never attach.
const NODES: u8 = 200;

#[test]
fn a_wrong_key_is_refused() {
    let rig = Rig::started(AT_ONCE);
    let wrong = KeySet::from_bytes(&[[8; 32]]).unwrap();
    let mut client = Client::new(rig.url().clone(), wrong, DATASET, "alpha");
    match client.read(0, PATIENCE).unwrap_err() {
        ArbiterError::NotSent(why) => assert!(why.contains("no common key"), "{why}"),
        other => panic!("{other}"),
    }
    assert_eq!(take(&mut rig.client("alpha"), &change(0, "alpha")), Verdict::Taken);
}

#[test]
fn there_is_no_memory_to_attach() {
    let rig = Rig::started(AT_ONCE);
    for attach in [Attach::Push { replace: true }, Attach::Pull, Attach::Equal] {
        let told = Region::open(region_config(rig.url(), 4096, attach), rig.keys()).unwrap_err().to_string();
        assert!(told.contains("this is a mediator"), "{told}");
    }
}

#[test]
fn garbage_disturbs_nobody() {
    let rig = Rig::started(AT_ONCE);
    let mut random = Random(0x5eed_0007);
    let mut alpha = rig.client("alpha");
    for expected in 0..40 {
        // Strangers: some say nothing, some anything.
        let mut sockets: Vec<_> = (0..8).map(|_| connect(rig.url())).collect();
        for socket in sockets.iter_mut().skip(2) {
            let len = 1 + random.below(2000);
            // It may hang up before it took everything.
            let _ = socket.write_all(&random_bytes(&mut random, len));
        }
        // Somebody with the key who says what is none of a mediator's questions.
        let mut peer = Peer::connect(rig.url(), &rig.keys());
        let len = random.below(300);
        let mut body = random_bytes(&mut random, len);
        if expected % 2 == 0 {
            body = [b"MBMEDI01{\"dataset\":\"", body.as_slice()].concat();
        }
        let answer = peer.call(&ask(&body));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("MBMEDI01") && answer.contains("unclear"), "{answer}");
        assert_eq!(take(&mut alpha, &change(expected, "alpha")), Verdict::Taken);
    }
}

#[test]
fn each_node_keeps_its_connection() {
    let rig = Rig::started(AT_ONCE);
    let mut clients: Vec<_> =
        (0..NODES).map(|number| rig.client_of(DatasetId::from_bytes([number; 16]), "alpha")).collect();
    for expected in 0..2 {
        for client in &mut clients {
            // Over the connection that it has: one that was cut would not answer.
            assert_eq!(take(client, &change(expected, "alpha")), Verdict::Taken);
        }
    }
}
