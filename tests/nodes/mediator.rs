//! The mediator of a pair, a process of its own, and the ways between it and the nodes, which can be cut.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::proxy::{Passage, Proxy};

/// The process, while there is one. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Mediator {
    child: Option<Child>,
    pub(crate) url: String,
    pub(crate) key: PathBuf,
    directory: PathBuf,
    log: PathBuf,
}

fn make_directory(path: &Path) {
    std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

impl Mediator {
    /// One that does not run yet, with its files in `scratch`.
    pub(crate) fn new(url: String, scratch: &Path) -> Self {
        let path = |ending: &str| scratch.join("mediator").with_extension(ending);
        let mediator = Self { child: None, url, key: path("key"), directory: path("d"), log: path("log") };
        make_directory(&mediator.directory);
        let made = Command::new(env!("CARGO_BIN_EXE_mirrorbus")).arg("keygen").arg(&mediator.key).status();
        assert!(made.unwrap().success());
        mediator
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorbus"));
        command.args(["mediator", "--refresh", "100ms", "--listen", &self.url]);
        command.arg("--key").arg(&self.key).arg("--directory").arg(&self.directory);
        command.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        // It is not to find its output closed.
        child.stdout = Some(output.into_inner());
        assert!(self.child.replace(child).is_none(), "it runs");
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(line.starts_with("listening on "), "the mediator does not start: {line:?}\n{log}");
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// It has lost all that it knew. It must not run.
    pub(crate) fn forget(&self) {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(&self.directory).unwrap();
        make_directory(&self.directory);
    }
}

impl Drop for Mediator {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// The ways by TCP: each is of those that one connects to another.
#[derive(Debug)]
pub(crate) struct Ways {
    /// From each node to the other.
    pub(crate) link: [Proxy; 2],
    /// From each node to the arbiter.
    pub(crate) arbiter: [Proxy; 2],
}

impl Ways {
    /// Before the addresses of the nodes and the arbiter.
    pub(crate) fn new(nodes: &[String; 2], arbiter: &str) -> Self {
        let proxy = |url: &str| Proxy::start(url.trim_start_matches("tcp://"));
        Self { link: [proxy(&nodes[1]), proxy(&nodes[0])], arbiter: [proxy(arbiter), proxy(arbiter)] }
    }

    /// Between the nodes.
    pub(crate) fn set_link(&self, passage: Passage) {
        self.link.iter().for_each(|proxy| proxy.set(passage));
    }

    /// All of them.
    pub(crate) fn set_all(&self, passage: Passage) {
        self.link.iter().chain(&self.arbiter).for_each(|proxy| proxy.set(passage));
    }
}
