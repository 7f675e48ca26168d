//! The mediator as its nodes have it: the real process, asked by the library's client.

mod common;

#[path = "common/program.rs"]
mod program;
#[path = "common/wire.rs"]
mod wire;

#[path = "mediator/changes.rs"]
mod changes;
#[path = "mediator/disk.rs"]
mod disk;
#[path = "mediator/strangers.rs"]
mod strangers;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::Scratch;
use mirrorbus::base::DatasetId;
use mirrorbus::cluster::{
    ArbiterClient, ArbiterError, Asked, Configuration, Question, Request, Verdict, encode,
};
use mirrorbus::mediator::Client;
use mirrorbus::{FabricUrl, KeySet};
use program::{Program, command, run};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
const DATASET: DatasetId = DatasetId::from_bytes([0xd5; 16]);

/// The refresh period where the time after a start is not what a test is about.
const AT_ONCE: &str = "10ms";

/// A mediator's directory and key, and the process while there is one.
struct Rig {
    scratch: Scratch,
    running: Option<(Program, FabricUrl)>,
}

impl Rig {
    fn new() -> Self {
        let scratch = Scratch::new();
        let output = run(&["keygen", scratch.path("key").to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        Self { scratch, running: None }
    }

    /// With a process.
    fn started(refresh: &str) -> Self {
        let mut rig = Self::new();
        rig.start(refresh);
        rig
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path("state")
    }

    fn keys(&self) -> KeySet {
        KeySet::load(&self.scratch.path("key")).unwrap()
    }

    fn arguments(&self, refresh: &str) -> Vec<String> {
        let path = |name| self.scratch.path(name).to_str().unwrap().to_owned();
        let (key, state) = (path("key"), path("state"));
        let line = ["mediator", "--listen", "tcp://127.0.0.1:0", "--refresh", refresh, "--key", &key];
        line.into_iter().chain(["--directory", &state]).map(str::to_owned).collect()
    }

    fn start(&mut self, refresh: &str) {
        self.start_as(command(&self.arguments(refresh)));
    }

    fn start_as(&mut self, command: Command) {
        let program = Program::of(command);
        let url = program.line_after("listening on ").parse().unwrap();
        self.running = Some((program, url));
    }

    fn program(&self) -> &Program {
        &self.running.as_ref().unwrap().0
    }

    fn url(&self) -> &FabricUrl {
        &self.running.as_ref().unwrap().1
    }

    /// Ends it without a word.
    fn kill(&mut self) {
        let (program, _) = self.running.take().unwrap();
        program.signal(Signal::KILL);
        program.end();
    }

    /// Ends it in good order.
    fn stop(&mut self) {
        let (program, _) = self.running.take().unwrap();
        program.signal(Signal::TERM);
        assert_eq!(program.line(), "stopped");
        let (status, errors) = program.end();
        assert!(status.success(), "{status}: {errors}");
    }

    fn client(&self, node: &str) -> Client {
        self.client_of(DATASET, node)
    }

    fn client_of(&self, dataset: DatasetId, node: &str) -> Client {
        Client::new(self.url().clone(), self.keys(), dataset, node)
    }

    /// The id that the register has.
    fn id(&self) -> u64 {
        self.client("reader").read(0, PATIENCE).unwrap().map_or(0, |found| found.id)
    }
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

/// Asks for it over a connection that is gone before the answer.
fn ask_and_leave(rig: &Rig, request: &Request) {
    let asked = Asked::CompareAndSet(request.clone());
    let question = Question { dataset: DATASET.to_string(), node: request.next.primary.clone(), asked };
    let mut peer = wire::Peer::connect(rig.url(), &rig.keys());
    peer.send(&ask(&encode(&question)));
}

/// A question as a control message.
fn ask(body: &[u8]) -> Vec<u8> {
    [&[7, 1, 0, 0, 0], body].concat()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ArbiterError>) -> (String, String) {
    match result.unwrap_err() {
        ArbiterError::Refused { code, text } => (code, text),
        other => panic!("{other}"),
    }
}
