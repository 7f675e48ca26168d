//! An owner that stores to a holder on another machine, over a link that fails, and the judge of what is left.
//!
//! `cargo xtask rxe` runs the roles in its guests, by environment variables; what they find they print, a line each.
//! The tests here run them on this machine over tcp, so that they are known to work and the judge to refuse.

mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[path = "common/nbd_client.rs"]
mod client;
#[path = "across/disk.rs"]
mod disk;
#[path = "across/fence.rs"]
mod fence;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/ledger.rs"]
mod ledger;
#[cfg(feature = "serve")]
#[path = "nbd/memory.rs"]
mod memory;
#[path = "across/reconnects.rs"]
mod reconnects;
#[path = "across/region.rs"]
mod region;
#[path = "across/roaming.rs"]
mod roaming;
#[path = "across/store.rs"]
mod store;
#[path = "across/told.rs"]
mod told;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::{Scratch, holder_config};
use mirrorbus::{Holder, KeySet};

/// Does nothing unless this process was started for a role.
#[test]
fn role() {
    let Some(role) = child::role() else { return };
    // The test harness has begun a line.
    println!();
    match role.as_str() {
        "store" => store::store(),
        "visible" => store::visible(),
        "judge" => store::judge(),
        "told" => told::told(),
        "executioner" => told::executioner(),
        "fenced-holder" => fence::fenced_holder(),
        "fenced-owner" => fence::fenced_owner(),
        "reconnects" => reconnects::reconnects(),
        "disk-writer" => disk::disk_writer(),
        "disk-reader" => disk::disk_reader(),
        "disk-roamer" => roaming::disk_roamer(),
        "disk-watcher" => roaming::disk_watcher(),
        other => panic!("no role {other}"),
    }
}

/// A role as a process, killed on drop; what it says, and the file of what it complains about.
struct Role(Child, BufReader<ChildStdout>, PathBuf);

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Role {
    /// The rest of the next line that begins so, if there is one.
    fn line_after(&mut self, beginning: &str) -> Option<String> {
        let mut lines = (&mut self.1).lines().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix(beginning).map(str::to_owned))
    }

    /// The same, which must be there.
    fn told(&mut self, beginning: &str) -> String {
        self.line_after(beginning).unwrap_or_else(|| {
            let errors = std::fs::read_to_string(&self.2).unwrap();
            panic!("it ended without a line {beginning:?}: {errors}")
        })
    }

    fn ends_well(mut self) {
        while self.line_after("").is_some() {}
        assert!(self.0.wait().unwrap().success());
    }
}

/// A key, a place for files, and the variables that every role gets.
struct Stage {
    scratch: Scratch,
    keys: KeySet,
    url: String,
}

impl Stage {
    fn new() -> Self {
        let scratch = Scratch::new();
        let keys = KeySet::create(&scratch.path("key")).unwrap();
        Self { scratch, keys, url: "tcp://127.0.0.1:0".to_owned() }
    }

    /// A holder in this process, to which roles go from here on.
    fn holder(&mut self) -> Holder {
        let config = holder_config(self.url.parse().unwrap(), region::SIZE);
        let holder = Holder::start(config, self.keys.clone()).unwrap();
        self.url = holder.url().to_string();
        holder
    }

    fn start(&self, role: &str, more: &[(&str, &str)]) -> Role {
        let errors = self.scratch.path(&format!("{role}.errors"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["role", "--exact", "--nocapture", "--test-threads=1"])
            .env("MIRRORBUS_TEST_ROLE", role)
            .envs([("TEST_URL", self.url.as_str()), ("TEST_SEED", "7")])
            .env("TEST_KEY", self.scratch.path("key"))
            .env("TEST_GO", self.scratch.path("go"))
            .envs(more.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Role(child, output, errors)
    }

    fn go(&self, suffix: &str) {
        std::fs::write(self.scratch.path(&format!("go{suffix}")), "").unwrap();
    }

    /// What the judge finds, who is told that so many are acknowledged.
    fn judged(&self, acked: &str, more: &[(&str, &str)]) -> Option<u64> {
        let told = [&[("TEST_ACKED", acked)], more].concat();
        self.start("judge", &told).line_after("prefix of ").map(|found| found.parse().unwrap())
    }
}

#[test]
fn a_killed_owner_is_judged_by_what_it_said() {
    let mut stage = Stage::new();
    let _holder = stage.holder();
    let mut owner = stage.start("store", &[]);
    let acked = (0..3).map(|_| owner.told("acked ")).last().unwrap();
    assert_ne!(acked, "0");
    drop(owner);
    assert!(stage.judged(&acked, &[]).unwrap() >= acked.parse().unwrap());
    assert_eq!(
        stage.judged(&acked, &[("TEST_SEED", "8")]),
        None,
        "the stores of another seed are no prefix of what is there"
    );
}

#[test]
fn an_owner_whose_holder_ends_says_so() {
    let mut stage = Stage::new();
    let holder = stage.holder();
    let mut owner = stage.start("store", &[]);
    owner.told("acked ");
    drop(holder);
    owner.told("lost after ");
}

/// How late an owner may be told of its holder's death. Closing is what the kernel does when a process is killed: far sooner than any silence
/// is noticed.
const TOLD_MAX: Duration = Duration::from_millis(1500);

#[test]
fn an_owner_is_told_of_its_holders_death() {
    // On a machine that does much else it may be late now and then.
    let mut late = Vec::new();
    while late.len() < 3 {
        let took = told_within();
        if took < TOLD_MAX {
            return;
        }
        late.push(took);
    }
    panic!("told after {late:?}");
}

/// How much later than the word to kill its holder an owner is told.
fn told_within() -> Duration {
    let stage = Stage::new();
    // The holder is another's role here; that it is fenced in the end does not come to pass.
    let mut holder = stage.start("fenced-holder", &[("TEST_LISTEN", "127.0.0.1:0"), ("TEST_DELAY_MS", "5")]);
    let url = holder.told("listening on ");
    let process = holder.0.id().to_string();
    let mut executioner =
        stage.start("executioner", &[("TEST_PROCESS", &process), ("TEST_LISTEN", "127.0.0.1:0")]);
    let address = executioner.told("waits at ");
    let told = [("TEST_URL", url.as_str()), ("TEST_EXECUTIONER", &address), ("TEST_DELAY_MS", "50")];
    let mut owner = stage.start("told", &told);
    owner.told("lost after ");
    let micros = owner.told("told within ");
    owner.ends_well();
    executioner.ends_well();
    Duration::from_micros(micros.strip_suffix(" us").unwrap().parse().unwrap())
}

#[test]
fn a_fenced_copy_does_not_change_though_the_owner_goes_on() {
    let mut stage = Stage::new();
    let mut holder = stage.start("fenced-holder", &[("TEST_LISTEN", "127.0.0.1:0"), ("TEST_DELAY_MS", "5")]);
    stage.url = holder.told("listening on ");
    let line = holder.told("told at ");
    let mut owner = stage.start("fenced-owner", &[("TEST_HOLDER", &line)]);
    owner.told("storing");
    stage.go("1");
    owner.told("lost after ");
    holder.told("fenced in ");
    let acked = holder.told("acked ");
    owner.ends_well();
    assert!(stage.judged(&acked, &[("TEST_STORES", "walk")]).unwrap() >= acked.parse().unwrap());
    stage.go("2");
    holder.ends_well();
}

#[test]
fn reconnections_settle() {
    let mut stage = Stage::new();
    let _holder = stage.holder();
    let mut owner = stage.start("reconnects", &[("TEST_RECONNECTS", "5")]);
    owner.told("settled");
    stage.go("1");
    let acked = owner.told("acked ");
    owner.told("settled");
    stage.go("2");
    owner.ends_well();
    assert_eq!(stage.judged(&acked, &[]), Some(acked.parse().unwrap()));
}

#[test]
fn visible_stores_are_counted_until_the_end_is_asked_for() {
    let mut stage = Stage::new();
    let _holder = stage.holder();
    let mut owner = stage.start("visible", &[]);
    let first: u64 = owner.told("visible ").parse().unwrap();
    assert!(owner.told("visible ").parse::<u64>().unwrap() > first);
    std::thread::sleep(Duration::from_millis(10));
    stage.go("");
    let acked = owner.told("acked ");
    owner.ends_well();
    assert_eq!(stage.judged(&acked, &[]), Some(acked.parse().unwrap()));
}
