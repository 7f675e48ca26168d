//! SQLite on a region (examples/sqlite_vfs.c): killed at any moment, nothing that was committed is missing, and the database is whole.
//!
//! `MIRRORBUS_FULL=1` kills 50 times in 10 000 transactions.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::rig::{self, Compiled, Program, installed};

/// A holder with a file, as a program of its own.
struct Holder {
    child: Child,
    url: String,
}

impl Holder {
    fn start(url: &str, file: &Path) -> Self {
        let mut command = Command::new(installed().prefix.join("bin/mirrorbus"));
        command.args([
            "hold",
            "--listen",
            url,
            "--size",
            "32M",
            "--mlock",
            "off",
            "--key",
            &installed().key(),
            "--file",
        ]);
        let mut child = command.arg(file).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, url }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with what it needs of its environment.
fn command(program: &Program, arguments: &[&str]) -> Command {
    let mut command = Command::new(&program.path);
    rig::with_library(&mut command).args(arguments);
    command
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Writes until it is killed, at a random moment behind `least` transactions; the last that was told.
fn write_and_kill(program: &Program, url: &str, level: &str, least: u64, random: &mut Random) -> u64 {
    let key = installed().key();
    let mut writer =
        command(program, &[url, &key, level, "write", "1000000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut last = 0;
    for _ in 0..least {
        let line = lines.next().unwrap_or_else(|| panic!("the writer ended by itself: {:?}", writer.wait()));
        last = line.unwrap().parse().unwrap();
    }
    std::thread::sleep(Duration::from_micros(random.below(3000)));
    writer.kill().unwrap();
    writer.wait().unwrap();
    for line in lines {
        // The last may have been cut off.
        last = line.unwrap().parse().unwrap_or(last).max(last);
    }
    last
}

fn survives(medium: &str, level: &str, kills: u64, transactions: u64) {
    let program = rig::compile("sqlite_vfs.c", Compiled::Shared);
    let folder = tempfile::tempdir_in(&installed().work).unwrap();
    let file = folder.path().join("copy");
    let listen = match medium {
        "shm" => format!("shm:{}", folder.path().join("holder.sock").display()),
        _ => "tcp://127.0.0.1:0".to_owned(),
    };
    let mut holder = Holder::start(&listen, &file);
    let key = installed().key();
    rig::said_by(&mut command(&program, &[&holder.url, &key, level, "new"]));
    let seed = u64::from(std::process::id()) << 20 | kills;
    println!("seed {seed}");
    let (mut random, mut found) = (Random(seed), 0);
    for round in 0..kills {
        // The writer goes on while it is about to be killed, and the database has its bounds.
        let share = (transactions.saturating_sub(found) / (kills - round)).max(2);
        let told = write_and_kill(&program, &holder.url, level, share / 2 + random.below(share), &mut random);
        if round % 3 == 2 {
            // The holder too, and the next starts on its file.
            drop(holder);
            holder = Holder::start(&listen, &file);
        }
        let said = rig::said_by(&mut command(&program, &[&holder.url, &key, level, "check"]));
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[0], "ok", "{said}");
        let numbers: Vec<u64> = words[1..].iter().map(|word| word.parse().unwrap()).collect();
        // All to the last, and at most one that was committed and not told.
        assert_eq!(numbers, [numbers[1]; 3], "{said}");
        assert!((told..=told + 1).contains(&numbers[1]), "round {round}: {told} was told, {said}");
        assert!(numbers[1] >= found + share / 2, "{said}");
        found = numbers[1];
    }
    println!("{medium}, {level}: {kills} kills in {found} transactions");
}

#[test]
fn what_was_committed_survives_kills() {
    let is_full = std::env::var_os("MIRRORBUS_FULL").is_some();
    let (kills, transactions) = if is_full { (50, 10_500) } else { (4, 160) };
    survives("shm", "acked", kills, transactions);
    survives("tcp", "acked", kills, transactions);
    survives("tcp", "durable", 3, 30);
}
