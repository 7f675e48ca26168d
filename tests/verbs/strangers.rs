//! Connection requests of those who have no token, or one that was used.

use std::process::Command;
use std::sync::Arc;

use mirrorbus::base::SessionId;
use mirrorbus::control::Token;
use mirrorbus::fabric::verbs::{Connector, QueueOptions, VerbsError};
use mirrorbus::fabric::{Access, Grant, WindowId};
use mirrorbus::memory::MapOptions;
use mirrorbus::{FabricUrl, Generation, LaneConfig, Level, Mapping};

use crate::common::{Fabric, Pair, soon};

const SIZE: usize = 1 << 16;

fn target(pair: &Pair) -> std::net::SocketAddr {
    match pair.holder.url() {
        FabricUrl::Rdma { address } => address.parse().unwrap(),
        other => panic!("{other}"),
    }
}

fn ask(pair: &Pair, session: SessionId) -> VerbsError {
    let local = Arc::new(Mapping::anonymous(SIZE, MapOptions::default()).unwrap());
    let connector = Connector::new(target(pair), local, false).unwrap();
    let grant =
        Grant { window: WindowId(1), generation: Generation(1), len: SIZE, access: Access::ReadWrite };
    let options = QueueOptions { depth: 16, grants: vec![grant], durable: Ok(()) };
    connector.connect(session, &Token::from_bytes(&[1; 32]), &options, &mut soon()).unwrap_err()
}

fn goes_on(pair: &Pair) {
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(10, b"undisturbed").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

#[test]
fn a_stranger_is_turned_away_with_a_reason() {
    let pair = Pair::new(Fabric::Rdma, SIZE);
    let before = pair.holder.status().streams;
    for round in 0..20 {
        match ask(&pair, SessionId::from_bytes([round; 16])) {
            VerbsError::Rejected { why } => assert!(why.contains("session is unknown"), "{why}"),
            error => panic!("{error}"),
        }
    }
    assert_eq!(pair.holder.status().streams, before);
    goes_on(&pair);
}

#[test]
fn who_speaks_another_protocol_is_turned_away() {
    let pair = Pair::new(Fabric::Rdma, SIZE);
    let target = target(&pair);
    let (address, port) = (target.ip().to_string(), target.port().to_string());
    let output = Command::new("timeout")
        .args(["10", "rping", "-c", "-C", "1", "-a", &address, "-p", &port])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    goes_on(&pair);
}

#[test]
fn nobody_listens_is_told_from_a_holder_that_refuses() {
    let pair = Pair::new(Fabric::Rdma, SIZE);
    let mut nowhere = target(&pair);
    nowhere.set_port(1);
    let local = Arc::new(Mapping::anonymous(SIZE, MapOptions::default()).unwrap());
    let connector = Connector::new(nowhere, local, false).unwrap();
    let options = QueueOptions { depth: 16, grants: Vec::new(), durable: Ok(()) };
    let token = Token::from_bytes(&[1; 32]);
    match connector.connect(SessionId::from_bytes([1; 16]), &token, &options, &mut soon()).unwrap_err() {
        VerbsError::Rejected { why } => assert!(why.contains("nobody listens"), "{why}"),
        error => panic!("{error}"),
    }
}
