//! etcd as nodes have it: the real server, asked by the library's client.

mod common;

#[path = "common/authority.rs"]
mod authority;
#[path = "nodes/etcd.rs"]
mod server;
#[path = "common/tool.rs"]
mod tool;

#[path = "etcd/changes.rs"]
mod changes;
#[path = "etcd/lost.rs"]
mod lost;
#[path = "etcd/proxy.rs"]
mod proxy;
#[path = "etcd/strangers.rs"]
mod strangers;
#[path = "etcd/users.rs"]
mod users;

use std::time::{Duration, Instant};

use common::Scratch;
use mirrorbus::base::DatasetId;
use mirrorbus::cluster::{ArbiterClient, ArbiterError, Configuration, Request, Verdict};
use mirrorbus::etcd::{Client, EtcdConfig, Gateway};
use server::Etcd;

const PATIENCE: Duration = Duration::from_secs(20);
const DATASET: DatasetId = DatasetId::from_bytes([0xd5; 16]);
const PREFIX: &str = "/mirrorbus/test/";

/// The refresh period where the time after a start is not what a test is about.
const AT_ONCE: Duration = Duration::ZERO;

/// An etcd that runs.
struct Rig {
    etcd: Etcd,
    scratch: Scratch,
}

impl Rig {
    fn started() -> Self {
        let scratch = Scratch::new();
        let mut etcd = Etcd::new(&scratch.0);
        etcd.start();
        Self { etcd, scratch }
    }

    fn client(&self, node: &str) -> Client {
        client_of(&[self.etcd.url()], node, AT_ONCE)
    }

    /// The id that the register has.
    fn id(&self) -> u64 {
        self.client("reader").read(0, PATIENCE).unwrap().map_or(0, |found| found.id)
    }
}

fn config(endpoints: &[String]) -> EtcdConfig {
    EtcdConfig { endpoints: endpoints.to_vec(), prefix: PREFIX.into(), tls: None, login: None }
}

fn client_of(endpoints: &[String], node: &str, refresh: Duration) -> Client {
    Client::new(Gateway::open(&config(endpoints)).unwrap(), DATASET, node, refresh)
}

fn configuration(id: u64, primary: &str) -> Configuration {
    Configuration { id, members: vec!["alpha".into(), "beta".into()], primary: primary.into(), floor: id }
}

/// The change from `expected` to the next id.
fn change(expected: u64, primary: &str) -> Request {
    let nonce = expected * 1000 + u64::from(primary.as_bytes()[0]);
    Request { expected, next: configuration(expected + 1, primary), nonce }
}

fn take(client: &mut Client, request: &Request) -> Verdict {
    client.compare_and_set(request, PATIENCE).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ArbiterError>) -> (String, String) {
    match result.unwrap_err() {
        ArbiterError::Refused { code, text } => (code, text),
        other => panic!("{other}"),
    }
}

/// Whether it took about as long as it may, and not much longer on a machine that does much else.
fn assert_in_time(began: Instant, within: Duration) {
    let took = began.elapsed();
    assert!(took < within + Duration::from_secs(10), "{took:?} instead of {within:?}");
}
