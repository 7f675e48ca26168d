//! Databases on an ext4 volume, whose primary is killed in the middle: what they committed is there on the other node.
//!
//! The ledgers lie outside the volume: what a database's client was told.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::child::{say, seed};
use crate::common::Random;
use crate::device::{Device, refused};
use crate::rig::{Medium, Plan, Rig, text};
use crate::tool::{run, tool};

/// Clients of PostgreSQL at the same time.
const CLIENTS: usize = 4;

/// A transaction of theirs: `n` counts those of a client.
const TRANSACTION: &str = r"\set n :n + 1
\set account random(1, 100000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :n WHERE aid = :account;
INSERT INTO ledger VALUES (:client_id, :n);
END;
";

/// Commits of SQLite before the moment at which the primary is killed is chosen.
const COMMITS_MIN: usize = 50;

/// A pair whose volume has an empty ext4, mounted.
fn mounted(mebibytes: u64) -> (Rig, Device, PathBuf) {
    let rig = Rig::pair(Plan { volume_mib: mebibytes, ring_mib: 32, ..Plan::new(Medium::Shm) });
    let mut device = Device::of(&rig, 0);
    device.format(tool("mkfs.ext4", "e2fsprogs").arg("-q"));
    let place = device.mount("ext4");
    (rig, device, place)
}

/// Sleeps for a time that is chosen.
fn some_time(title: &str) {
    let mut random = Random(seed(title));
    (0..8).for_each(|_| _ = random.next());
    std::thread::sleep(Duration::from_millis(random.below(1500) as u64));
}

/// The other node serves what the killed one served; mounted, its journal replayed.
fn taken_over(rig: &mut Rig) -> (Device, PathBuf) {
    rig.told(1, &["promote", "vm"]);
    let mut device = Device::of(rig, 1);
    let place = device.mount("ext4");
    (device, place)
}

#[test]
fn what_sqlite_committed_is_on_the_other_node() {
    if refused("SQLite") {
        return;
    }
    let (mut rig, device, place) = mounted(48);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nodes/sqlite.py");
    let python = |what: &str, directory: &Path| {
        let mut python = tool("/usr/bin/python3", "python3");
        python.arg(&script).arg(what).arg(directory.join("ledger.sqlite"));
        python
    };
    let mut writer = python("write", &place).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut committed: usize = lines.nth(COMMITS_MIN - 1).unwrap().parse().unwrap();
    some_time("SQLite");
    rig.kill(0);
    for line in lines {
        match line.parse() {
            Ok(number) => committed = number,
            Err(_) => assert!(line.starts_with("ended: "), "{line}"),
        }
    }
    writer.wait().unwrap();
    drop(device);
    let (mut device, place) = taken_over(&mut rig);
    let said = run(&mut python("check", &place));
    let found: usize = said.trim().strip_prefix("whole ").unwrap().parse().unwrap();
    say(&format!("SQLite: {committed} commits told, {found} there"));
    // The last one may be there and not have been told.
    assert!(found == committed || found == committed + 1, "{committed} were told, {found} are there");
    device.unmount();
    run(tool("e2fsck", "e2fsprogs").args(["-fn", &device.disk]));
    device.detach();
}

/// A server of PostgreSQL on `data`.
struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    /// A directory of its user, for its socket.
    runs: PathBuf,
}

impl Postgres {
    fn new(rig: &Rig, data: PathBuf) -> Self {
        let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path().join("bin"))
            .filter(|programs| programs.join("initdb").exists() && programs.join("pgbench").exists())
            .collect();
        versions.sort_unstable();
        let programs = versions.pop().expect("apt-get install postgresql, or `cargo xtask test`");
        let runs = rig.path("postgres");
        std::fs::create_dir_all(&runs).unwrap();
        run(Command::new("chown").arg("postgres:").arg(&runs));
        Self { programs, data, runs }
    }

    /// One of its programs as its user: it refuses to be root.
    fn program(&self, name: &str) -> Command {
        let mut command = tool("setpriv", "util-linux");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(self.programs.join(name)).current_dir("/");
        command
    }

    fn create(&self) {
        std::fs::create_dir(&self.data).unwrap();
        run(Command::new("chown").arg("postgres:").arg(&self.data));
        let mut initdb = self.program("initdb");
        initdb.args(["--auth=trust", "--no-locale", "--wal-segsize=1", "--pgdata"]).arg(&self.data);
        run(&mut initdb);
    }

    fn start(&self) {
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c shared_buffers=16MB -c max_wal_size=16MB -c \
             checkpoint_timeout=30s",
            text(&self.runs)
        );
        let mut start = self.program("pg_ctl");
        start.args(["start", "--wait", "--timeout=60", "--silent", "--options", &options, "--pgdata"]);
        // Its log would keep our pipes open.
        start.arg(&self.data).arg("--log").arg(self.runs.join("log"));
        let started =
            start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let log = || std::fs::read_to_string(self.runs.join("log")).unwrap_or_default();
        assert!(started.success(), "PostgreSQL does not start: {}", log());
    }

    fn stop(&self, how: &str) -> bool {
        let mut stop = self.program("pg_ctl");
        stop.args(["stop", "--wait", "--silent", "--mode", how, "--pgdata"]).arg(&self.data);
        stop.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    fn query(&self, query: &str) -> String {
        let mut psql = self.program("psql");
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--username=postgres", "--host"]);
        run(psql.arg(&self.runs).args(["--command", query])).trim().to_owned()
    }

    fn pgbench(&self) -> Command {
        let mut pgbench = self.program("pgbench");
        pgbench.args(["--username=postgres", "--host"]).arg(&self.runs);
        pgbench
    }

    /// Of each client the transactions that it was told are committed, as pgbench logged them.
    fn committed(&self) -> Vec<usize> {
        let mut counts = vec![0; CLIENTS];
        for entry in std::fs::read_dir(&self.runs).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("told.") {
                for line in std::fs::read_to_string(&path).unwrap().lines() {
                    let client: usize = line.split(' ').next().unwrap().parse().unwrap();
                    counts[client] += 1;
                }
            }
        }
        counts
    }
}

#[test]
fn what_postgresql_committed_is_on_the_other_node() {
    if refused("PostgreSQL") {
        return;
    }
    let (mut rig, device, place) = mounted(160);
    let mut postgres = Postgres::new(&rig, place.join("data"));
    postgres.create();
    postgres.start();
    run(postgres.pgbench().args(["--initialize", "--quiet", "--scale=1"]));
    postgres.query("CREATE TABLE ledger (client int, n int, PRIMARY KEY (client, n))");
    let script = postgres.runs.join("transaction");
    std::fs::write(&script, TRANSACTION).unwrap();
    let mut pgbench = postgres.pgbench();
    pgbench.args(["--no-vacuum", "--log", "--define=n=0", "--time=60", "--jobs=1", "--log-prefix"]);
    pgbench.arg(postgres.runs.join("told")).arg(format!("--client={CLIENTS}")).arg("--file").arg(&script);
    let pgbench = pgbench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    some_time("PostgreSQL");
    rig.kill(0);
    let ended = pgbench.wait_with_output().unwrap();
    assert!(!ended.status.success(), "its server went on without a disk: {ended:?}");
    postgres.stop("immediate");
    drop(device);
    let committed = postgres.committed();
    let (mut device, place) = taken_over(&mut rig);
    assert_eq!(place.metadata().unwrap().mode() & 0o7777, 0o755);
    postgres.data = place.join("data");
    // Left by the server that had no end in good order.
    let _ = std::fs::remove_file(postgres.data.join("postmaster.pid"));
    postgres.start();
    let total: usize = committed.iter().sum();
    say(&format!(
        "PostgreSQL: {committed:?} commits told, {} there",
        postgres.query("SELECT count(*) FROM ledger")
    ));
    assert!(total > 20, "only {total} transactions were committed: {ended:?}");
    for (client, told) in committed.iter().enumerate() {
        let found = postgres.query(&format!("SELECT count(*), max(n) FROM ledger WHERE client = {client}"));
        let [one, more] = [*told, told + 1].map(|count| format!("{count}|{count}"));
        assert!(
            found == one || found == more,
            "client {client} was told of {told} commits; there are {found}"
        );
    }
    assert_eq!(
        postgres.query("SELECT (SELECT sum(abalance) FROM pgbench_accounts) - (SELECT sum(n) FROM ledger)"),
        "0",
        "a transaction is there in part"
    );
    assert!(postgres.stop("fast"), "it does not end");
    device.unmount();
    run(tool("e2fsck", "e2fsprogs").args(["-fn", &device.disk]));
    device.detach();
}
