//! Two nodes, each a process of its own, in a directory that ends with the test.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "plan.rs"]
mod plan;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{DatasetStatus, NodeStatus, ReplicationState, Role};
use rustix::process::{Pid, Signal, kill_process};

use crate::arbiter::Arbiter;
use crate::client::Client;
use crate::common::{Scratch, free_port};
use crate::mediator::Ways;
pub(crate) use plan::{Medium, Plan};

/// How long anything that must happen may take on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a status that is new is waited for, from a node that tells an older one.
const PATIENCE_OLD: Duration = Duration::from_secs(10);

/// Between two looks at a status.
const LOOK: Duration = Duration::from_millis(10);

/// Lines of a node's log that a failure shows.
const LOG_LINES: usize = 25;

/// The pair. Its nodes are killed when it is dropped.
pub(crate) struct Rig {
    nodes: [Option<Child>; 2],
    arbiter: Option<Arbiter>,
    ways: Option<Ways>,
    plan: Plan,
    scratch: Scratch,
}

/// The names of the nodes.
pub(crate) const NAMES: [&str; 2] = ["alpha", "beta"];

impl Rig {
    /// The configuration of two nodes, and neither of them.
    pub(crate) fn new(plan: Plan) -> Self {
        let mut rig = Self { nodes: [None, None], arbiter: None, ways: None, plan, scratch: Scratch::new() };
        let key = rig.path("key");
        assert!(rig.run(&["keygen", text(&key)]).status.success());
        let id = rig.run(&["dataset-id"]);
        let id = String::from_utf8(id.stdout).unwrap();
        let url = |name: &str| match rig.plan.medium {
            Medium::Shm => format!("shm:{}", rig.path(name).with_extension("ring").display()),
            Medium::Tcp => format!("tcp://127.0.0.1:{}", free_port()),
        };
        let (urls, mediator) = (NAMES.map(url), url("mediator"));
        rig.arbiter = Arbiter::new(rig.plan.decider, mediator.clone(), &rig.scratch.0);
        let arbiter = rig.arbiter.as_ref().map_or(mediator, Arbiter::url);
        rig.ways = rig.plan.proxied.then(|| Ways::new(&urls, &arbiter));
        for node in 0..2 {
            rig.write_config(node, id.trim(), &urls);
        }
        rig
    }

    /// Both nodes, mirrored.
    pub(crate) fn pair(plan: Plan) -> Self {
        let mut rig = Self::new(plan);
        if let Some(arbiter) = &mut rig.arbiter {
            arbiter.start();
        }
        rig.start(0);
        rig.start(1);
        rig.wait_for_pair();
        rig
    }

    fn write_config(&self, node: usize, id: &str, urls: &[String; 2]) {
        let name = NAMES[node];
        let path = |ending: &str| self.path(name).with_extension(ending).display().to_string();
        let config = format!(
            r#"
            [node]
            name = "{name}"
            admin = "{}"
            [[dataset]]
            name = "vm"
            id = "{id}"
            directory = "{}"
            key = "{}"
            listen = "{}"
            peer = "{}"
            region = "{}MiB"
            segment = "1MiB"
            lock = "try"
            nbd = ["unix:{}"]
            {}
            {}
            [[dataset.volume]]
            name = "root"
            size = "{}MiB"
            block = 4096
            "#,
            path("admin"),
            path("d"),
            self.path("key").display(),
            urls[node],
            self.ways.as_ref().map_or(urls[1 - node].clone(), |ways| ways.link[node].url()),
            self.plan.ring_mib,
            path("nbd"),
            self.plan.silence_ms.map_or_else(String::new, |ms| format!("silence-ms = {ms}")),
            self.plan.lines.replace("SCRATCH", &self.scratch.0.display().to_string()),
            self.plan.volume_mib,
        );
        std::fs::write(self.config(node), config + &self.arbiter_table(node)).unwrap();
    }

    fn arbiter_table(&self, node: usize) -> String {
        let Some(arbiter) = &self.arbiter else { return String::new() };
        let url = self.ways.as_ref().map_or(arbiter.url(), |ways| ways.arbiter[node].url());
        let preferred = self.plan.preferred.map(|node| format!("preferred = \"{}\"\n", NAMES[node]));
        arbiter.table(&url) + &preferred.unwrap_or_default()
    }

    /// The arbiter, of a plan that has one.
    pub(crate) const fn arbiter(&mut self) -> &mut Arbiter {
        self.arbiter.as_mut().unwrap()
    }

    /// What can be cut, of a plan that says so.
    pub(crate) const fn ways(&self) -> &Ways {
        self.ways.as_ref().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// The file with the node's configuration.
    pub(crate) fn config(&self, node: usize) -> PathBuf {
        self.path(NAMES[node]).with_extension("toml")
    }

    /// The directory of the node's dataset.
    pub(crate) fn directory(&self, node: usize) -> PathBuf {
        self.path(NAMES[node]).with_extension("d")
    }

    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.path(NAMES[node]).with_extension("nbd")
    }

    /// As clients are given it.
    pub(crate) fn uri(&self, node: usize) -> String {
        format!("nbd+unix:///root?socket={}", self.socket(node).display())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mirrorbus")).args(arguments).output().unwrap()
    }

    /// Asks a running node.
    pub(crate) fn ask(&self, node: usize, arguments: &[&str]) -> Output {
        let admin = self.path(NAMES[node]).with_extension("admin");
        self.run(&[arguments, &["--admin", text(&admin)]].concat())
    }

    /// Asks a running node for what it has to do.
    pub(crate) fn told(&self, node: usize, arguments: &[&str]) {
        let output = self.ask(node, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.logs());
    }

    fn command(&self, node: usize) -> Command {
        let program = env!("CARGO_BIN_EXE_mirrorbus");
        let scratch = self.scratch.0.display().to_string();
        let words = self.plan.under.iter();
        let mut words = words.map(|word| word.replace("NODE", NAMES[node]).replace("SCRATCH", &scratch));
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.current_dir(&self.scratch.0).args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["node", "--config"]).arg(self.config(node));
        command.env("RUST_LOG", "info").stdin(Stdio::null());
        command
    }

    /// Starts a node, without waiting for anything.
    pub(crate) fn start(&mut self, node: usize) {
        let log = self.path(NAMES[node]).with_extension("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(node);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        assert!(self.nodes[node].replace(command.spawn().unwrap()).is_none(), "it runs");
    }

    /// Starts a node that does not come up; what it says.
    pub(crate) fn refusal(&self, node: usize) -> String {
        let output = self.command(node).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        let id = self.process(node);
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    /// A node stands still, with all its threads.
    pub(crate) fn freeze(&self, node: usize) {
        self.signal(node, Signal::STOP);
        let began = Instant::now();
        let tasks = format!("/proc/{}/task", self.process(node));
        let stands = || {
            std::fs::read_dir(&tasks).unwrap().all(|task| {
                let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            })
        };
        while !stands() {
            assert!(began.elapsed() < PATIENCE, "{} does not stop", NAMES[node]);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The number of the node's process.
    pub(crate) fn process(&self, node: usize) -> u32 {
        let id = self.nodes[node].as_ref().unwrap().id();
        if self.plan.under.is_empty() {
            return id;
        }
        // What it runs under has one child, and would let it run on if it were killed itself.
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().next().map_or(id, |child| child.parse().unwrap())
    }

    /// Bytes of the mirrored region: a page of words, and the ring.
    pub(crate) fn region_bytes(&self) -> usize {
        4096 + usize::try_from(self.plan.ring_mib << 20).unwrap()
    }

    /// Kills a node, and waits until it is gone.
    pub(crate) fn kill(&mut self, node: usize) {
        self.signal(node, Signal::KILL);
        self.nodes[node].take().unwrap().wait().unwrap();
    }

    /// Asks a node to end, and waits until it has.
    pub(crate) fn stop(&mut self, node: usize) -> ExitStatus {
        self.signal(node, Signal::TERM);
        let mut child = self.nodes[node].take().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("{} does not end\n{}", NAMES[node], self.logs());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// How the node's dataset is; `None` while the node does not answer. One that tells how it was a while ago is asked again.
    pub(crate) fn status(&self, node: usize) -> Option<DatasetStatus> {
        let began = Instant::now();
        loop {
            let output = self.ask(node, &["status", "--json"]);
            let status: NodeStatus = serde_json::from_slice(&output.stdout).ok()?;
            let dataset = status.datasets.into_iter().next()?;
            let is_new = status.age_ms == 0 && dataset.reason.code != "busy";
            if is_new || began.elapsed() > PATIENCE_OLD {
                return Some(dataset);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the node's status is as wanted.
    pub(crate) fn wait(
        &self,
        node: usize,
        what: &str,
        wanted: impl Fn(&DatasetStatus) -> bool,
    ) -> DatasetStatus {
        let began = Instant::now();
        loop {
            let status = self.status(node);
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            let name = NAMES[node];
            assert!(began.elapsed() < PATIENCE, "{name} is not {what}: {status:#?}\n{}", self.logs());
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the two are mirrored; which of them serves.
    pub(crate) fn wait_for_pair(&self) -> usize {
        self.wait_for_primary("mirrored", |status| status.replication_state == ReplicationState::Established)
    }

    /// Waits until one of the two serves, and is as wanted; which.
    pub(crate) fn wait_for_primary(&self, what: &str, wanted: impl Fn(&DatasetStatus) -> bool) -> usize {
        let began = Instant::now();
        loop {
            let found = [self.status(0), self.status(1)];
            let serves = |status: &DatasetStatus| status.role == Role::Primary && wanted(status);
            if let Some(node) = found.iter().position(|status| status.as_ref().is_some_and(serves)) {
                return node;
            }
            assert!(began.elapsed() < PATIENCE, "none serves {what}: {found:#?}\n{}", self.logs());
            std::thread::sleep(LOOK);
        }
    }

    /// A client of the volume.
    pub(crate) fn client(&self, node: usize) -> Client {
        Client::connect(&self.socket(node), "root")
            .unwrap_or_else(|error| panic!("{} does not serve: {error}\n{}", NAMES[node], self.logs()))
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self) -> String {
        let mut all = format!("in {}\n", self.scratch.0.display());
        for name in NAMES.into_iter().chain(self.arbiter.as_ref().map(Arbiter::name)) {
            let log = std::fs::read_to_string(self.path(name).with_extension("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            all += &format!("--- {name}\n{last}\n");
        }
        all
    }

    /// The files of the node's segments, by rising base.
    pub(crate) fn segments(&self, node: usize) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory(node).join("segments")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort_unstable();
        paths
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for node in 0..2 {
            if self.nodes[node].is_some() {
                let id = Pid::from_raw(self.process(node).cast_signed()).unwrap();
                let _ = kill_process(id, Signal::KILL);
            }
            if let Some(child) = &mut self.nodes[node] {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            // What there is may tell why; the logs say where.
            self.scratch.keep();
        }
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
