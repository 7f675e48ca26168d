//! PostgreSQL on an ext4 volume, through failover: the primary is killed while clients commit, the other node takes over by itself, and
//! PostgreSQL goes on there.
//!
//! The ledger lies outside the volume: what pgbench was told is committed, as it logged that.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::arbiter::Decider;
use crate::child::{rounds, say, seed};
use crate::common::Random;
use crate::device::{Device, refused};
use crate::rig::{Medium, PATIENCE, Plan, Rig, text};
use crate::tool::{run, tool};

/// Clients at the same time.
const CLIENTS: usize = 4;

/// So many transactions are committed at least when the primary is killed.
const ENOUGH: usize = 20;

/// How long the clients go on behind that at most, in milliseconds.
const SOME_TIME: usize = 1500;

/// A transaction of theirs: `n` counts those of a client in a round.
const TRANSACTION: &str = r"\set n :n + 1
\set account random(1, 100000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :n WHERE aid = :account;
INSERT INTO ledger VALUES (:round, :client_id, :n);
END;
";

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

    fn psql(&self, query: &str) -> Command {
        let mut psql = self.program("psql");
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--username=postgres", "--host"]);
        psql.arg(&self.runs).args(["--command", query]);
        psql
    }

    fn query(&self, query: &str) -> String {
        run(&mut self.psql(query)).trim().to_owned()
    }

    /// Waits until there are so many transactions of a round that the clients were told of enough; whether it came to that.
    fn wait_for_enough(&self, round: usize, clients: &mut Child) -> bool {
        let query = format!("SELECT count(*) FROM ledger WHERE round = {round}");
        let began = Instant::now();
        while clients.try_wait().unwrap().is_none() {
            let found = self.psql(&query).output().unwrap();
            let found = String::from_utf8(found.stdout).unwrap().trim().parse::<usize>();
            if found.is_ok_and(|found| found > ENOUGH + CLIENTS) {
                return true;
            }
            assert!(began.elapsed() < PATIENCE, "hardly anything is committed");
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn pgbench(&self) -> Command {
        let mut pgbench = self.program("pgbench");
        pgbench.args(["--username=postgres", "--host"]).arg(&self.runs);
        pgbench
    }

    /// What the transactions are made of, and are written to.
    fn prepare(&self) {
        run(self.pgbench().args(["--initialize", "--quiet", "--scale=1"]));
        self.query("CREATE TABLE ledger (round int, client int, n int, PRIMARY KEY (round, client, n))");
        std::fs::write(self.runs.join("transaction"), TRANSACTION).unwrap();
    }

    /// Where pgbench logs what it was told in a round.
    fn told(&self, round: usize) -> String {
        format!("told{round}")
    }

    /// Begins to commit.
    fn commit(&self, round: usize) -> Child {
        let mut pgbench = self.pgbench();
        pgbench.args(["--no-vacuum", "--log", "--define=n=0", "--time=600", "--jobs=1", "--log-prefix"]);
        pgbench.arg(self.runs.join(self.told(round))).arg(format!("--define=round={round}"));
        pgbench.arg(format!("--client={CLIENTS}")).arg("--file").arg(self.runs.join("transaction"));
        pgbench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Of each client the transactions that it was told are committed, as pgbench logged them.
    fn committed(&self, round: usize) -> Vec<usize> {
        let (mut counts, beginning) = (vec![0; CLIENTS], self.told(round) + ".");
        for entry in std::fs::read_dir(&self.runs).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(&beginning) {
                for line in std::fs::read_to_string(&path).unwrap().lines() {
                    let client: usize = line.split(' ').next().unwrap().parse().unwrap();
                    counts[client] += 1;
                }
            }
        }
        counts
    }

    /// It has all that was told in this round, and nothing in part.
    fn check(&self, round: usize, ended: &Output) {
        let committed = self.committed(round);
        let count = self.query(&format!("SELECT count(*) FROM ledger WHERE round = {round}"));
        say(&format!("PostgreSQL, round {round}: {committed:?} commits told, {count} there"));
        let total: usize = committed.iter().sum();
        assert!(total > ENOUGH, "only {total} transactions were committed: {ended:?}");
        for (client, told) in committed.iter().enumerate() {
            let query = "SELECT count(*), max(n) FROM ledger WHERE round =";
            let found = self.query(&format!("{query} {round} AND client = {client}"));
            // The last one may be there and not have been told.
            let [one, more] = [*told, told + 1].map(|count| format!("{count}|{count}"));
            assert!(
                found == one || found == more,
                "client {client} was told of {told} commits; there are {found}"
            );
        }
        let in_part = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) - (SELECT sum(n) FROM ledger)";
        assert_eq!(self.query(in_part), "0", "a transaction is there in part");
    }
}

/// The volume of the node that serves now, mounted, and PostgreSQL on it.
fn goes_on(rig: &Rig, postgres: &mut Postgres, serving: usize) -> Device {
    let mut device = Device::of(rig, serving);
    let place = device.mount("ext4");
    assert_eq!(place.metadata().unwrap().mode() & 0o7777, 0o755);
    postgres.data = place.join("data");
    // Left by the server that had no end in good order.
    let _ = std::fs::remove_file(postgres.data.join("postmaster.pid"));
    postgres.start();
    device
}

#[test]
fn what_postgresql_committed_is_there_after_each_failover() {
    if refused("PostgreSQL") {
        return;
    }
    let plan = Plan { decider: Decider::Mediator, volume_mib: 160, ring_mib: 32, ..Plan::new(Medium::Shm) };
    // A machine that does much else may keep a node from its processors for as long as is usual.
    let plan = Plan { silence_ms: Some(5000), ..plan };
    let mut rig = Rig::pair(plan);
    let mut random = Random(seed("PostgreSQL"));
    let mut serving = rig.wait_for_pair();
    let mut device = Device::of(&rig, serving);
    device.format(tool("mkfs.ext4", "e2fsprogs").arg("-q"));
    let mut postgres = Postgres::new(&rig, device.mount("ext4").join("data"));
    postgres.create();
    postgres.start();
    postgres.prepare();
    for round in 0..rounds(1, 10) {
        // Killed while the other one is a member, of course.
        assert_eq!(rig.wait_for_pair(), serving, "service has moved by itself");
        let mut pgbench = postgres.commit(round);
        let is_enough = postgres.wait_for_enough(round, &mut pgbench);
        assert!(is_enough, "{:?}\n{}", pgbench.wait_with_output(), rig.logs());
        std::thread::sleep(Duration::from_millis(random.below(SOME_TIME) as u64));
        rig.kill(serving);
        let ended = pgbench.wait_with_output().unwrap();
        assert!(!ended.status.success(), "its server went on without a disk: {ended:?}");
        postgres.stop("immediate");
        drop(device);
        let killed = serving;
        serving = rig.wait_for_primary("in its place", |_| true);
        rig.start(killed);
        device = goes_on(&rig, &mut postgres, serving);
        postgres.check(round, &ended);
    }
    assert!(postgres.stop("fast"), "it does not end");
    device.unmount();
    run(tool("e2fsck", "e2fsprogs").args(["-fn", &device.disk]));
    device.detach();
}
