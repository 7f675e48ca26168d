//! When etcd counts as one that has just started.

use super::*;
use crate::etcd::{EtcdConfig, Gateway};

fn client() -> Client {
    let endpoints = vec!["http://127.0.0.1:1".into()];
    let gateway =
        Gateway::open(&EtcdConfig { endpoints, prefix: "/x/".into(), tls: None, login: None }).unwrap();
    Client::new(gateway, DatasetId::from_bytes([7; 16]), "alpha", Duration::from_secs(1))
}

#[test]
fn what_was_not_seen_before_has_just_started() {
    let known = Header { cluster_id: 1, revision: 10, raft_term: 3 };
    let is_new = |next: Header| {
        let mut client = client();
        client.see(known);
        std::thread::sleep(Duration::from_millis(2));
        client.see(next) < Duration::from_millis(2)
    };
    assert!(client().see(known) < Duration::from_millis(2), "the first");
    assert!(!is_new(known), "the same");
    assert!(!is_new(Header { revision: 11, ..known }), "it was written");
    assert!(is_new(Header { revision: 9, ..known }), "it went back");
    assert!(is_new(Header { raft_term: 4, ..known }), "another leader, or a start");
    assert!(is_new(Header { raft_term: 2, ..known }), "another life");
    assert!(is_new(Header { cluster_id: 2, ..known }), "another etcd");
}

#[test]
fn nothing_was_asked_where_nobody_is() {
    let mut client = client();
    let error = client.read(1, Duration::from_millis(200)).unwrap_err();
    assert!(matches!(&error, ArbiterError::NotSent(why) if why.contains("127.0.0.1:1")), "{error}");
}
