//! An owner that stores to a holder on another machine, over a link that fails, and the judge of what is left.
//!
//! `cargo xtask rxe` runs the two roles in its guests, by environment variables; what they find they print, a line each.
//! The test here runs both on this machine, so that they are known to work and the judge to refuse.

mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/ledger.rs"]
mod ledger;
#[path = "across/roles.rs"]
mod roles;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{Scratch, holder_config};
use mirrorbus::{Holder, KeySet};

/// Does nothing unless this process was started for a role.
#[test]
fn role() {
    match child::role().as_deref() {
        None => {}
        Some("store") => roles::store(),
        Some("judge") => roles::judge(),
        Some(other) => panic!("no role {other}"),
    }
}

/// A role as a process, killed on drop.
struct Role(Child, BufReader<ChildStdout>);

impl Role {
    fn start(role: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["role", "--exact", "--nocapture", "--test-threads=1"])
            .env("MIRRORBUS_TEST_ROLE", role)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    /// The rest of the next line that begins so, if there is one.
    fn line_after(&mut self, beginning: &str) -> Option<String> {
        let mut lines = (&mut self.1).lines().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix(beginning).map(str::to_owned))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_owner_is_judged_by_what_it_said() {
    let scratch = Scratch::new();
    let key = scratch.path("key");
    let keys = KeySet::create(&key).unwrap();
    let holder =
        Holder::start(holder_config("tcp://127.0.0.1:0".parse().unwrap(), roles::SIZE), keys).unwrap();
    let url = holder.url().to_string();
    let common = [("TEST_URL", url.as_str()), ("TEST_KEY", key.to_str().unwrap())];
    let mut owner = Role::start("store", &[&common[..], &[("TEST_SEED", "7")]].concat());
    let acked: u64 = (0..3).map(|_| owner.line_after("acked ").unwrap().parse().unwrap()).last().unwrap();
    assert!(acked > 0);
    drop(owner);
    let acked = acked.to_string();
    let found = |seed: &str| {
        let told = [&common[..], &[("TEST_SEED", seed), ("TEST_ACKED", &acked)]].concat();
        Role::start("judge", &told).line_after("prefix of ")
    };
    assert!(found("7").unwrap().parse::<u64>().unwrap() >= acked.parse().unwrap());
    assert_eq!(found("8"), None, "the stores of another seed are no prefix of what is there");
}

#[test]
fn an_owner_whose_holder_ends_says_so() {
    let scratch = Scratch::new();
    let key = scratch.path("key");
    let keys = KeySet::create(&key).unwrap();
    let holder =
        Holder::start(holder_config("tcp://127.0.0.1:0".parse().unwrap(), roles::SIZE), keys).unwrap();
    let url = holder.url().to_string();
    let told = [("TEST_URL", url.as_str()), ("TEST_KEY", key.to_str().unwrap()), ("TEST_SEED", "9")];
    let mut owner = Role::start("store", &told);
    owner.line_after("acked ").unwrap();
    drop(holder);
    assert!(owner.line_after("lost after ").is_some());
}
