//! `cargo xtask instructions`: how many instructions a store costs the owner, held to a limit.
//!
//! Time on a shared machine is noise; a count of instructions is not. `store-loop` (in `bench/`) opens a region over
//! shm, makes N stores of 64 bytes, each waited for until Acked, and ends. It is run under callgrind with N and with
//! 2 N stores: the difference, divided by N, is one store, and what starting and ending cost falls out. The holder is
//! a process of its own that is not counted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::demo::{self, BINARY};
use crate::failure::{Context, Failure, Result};
use crate::install;
use crate::shell::{cargo, program, run as run_program, tee};

/// Stores of the shorter run. A heartbeat in the background then weighs less than one instruction per store.
const STORES: u64 = 100_000;

/// What a 64-byte store over shm may cost the owner, in instructions, by lane.
const LIMITS: &[(&str, u64)] = &[("exclusive", 160), ("shared", 250)];

/// How long the holder may take until it listens.
const HOLDER_START_MAX: Duration = Duration::from_secs(20);

const STORE_LOOP: &str = "target/release/store-loop";

/// Counts each lane and compares with its limit.
pub(crate) fn run() -> Result<()> {
    install::c_compiler()?;
    install::valgrind()?;
    // The holder is not counted.
    demo::build()?;
    // Without RDMA, of which a store over shm has nothing and the build much.
    let store_loop = ["--package", "mirrorbus-bench", "--no-default-features", "--bin", "store-loop"];
    run_program(cargo(&["build", "--release"]).args(store_loop))?;
    let scratch = Scratch::new()?;
    let key = scratch.path("key");
    run_program(&mut program(BINARY, &["keygen", &key]))?;
    let mut lines = Vec::new();
    let mut above = Vec::new();
    for (lane, limit) in LIMITS {
        let count = per_store(lane, &scratch, &key)?;
        lines.push(format!("{lane} lane: {count:.1} instructions per store of 64 bytes, at most {limit}"));
        #[allow(clippy::cast_precision_loss, reason = "limits are small numbers")]
        if count > *limit as f64 {
            above.push(format!("{lane} lane {count:.1} > {limit}"));
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
    if above.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("instructions per store: {}", above.join(", "))))
    }
}

fn per_store(lane: &str, scratch: &Scratch, key: &str) -> Result<f64> {
    let [once, twice] = [STORES, 2 * STORES].map(|stores| collected(lane, stores, scratch, key));
    difference(once?, twice?, STORES)
}

/// Instructions per store, from a run of `stores` and one of twice as many.
fn difference(once: u64, twice: u64, stores: u64) -> Result<f64> {
    // A store copies 64 bytes and fences: a figure near zero means that nothing was stored.
    match twice.checked_sub(once) {
        #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
        Some(more) if more > stores => Ok(more as f64 / stores as f64),
        _ => Err(Failure::new(format!(
            "{once} instructions for {stores} stores, {twice} for twice as many: not plausible"
        ))),
    }
}

/// Instructions of a whole run of `store-loop`, against a holder of its own.
fn collected(lane: &str, stores: u64, scratch: &Scratch, key: &str) -> Result<u64> {
    let holder = Holder::start(&scratch.path(&format!("{lane}-{stores}.sock")), key)?;
    let output_file = scratch.path("callgrind.out");
    let callgrind = ["--tool=callgrind".to_owned(), format!("--callgrind-out-file={output_file}")];
    let stores = stores.to_string();
    let arguments = ["--lane", lane, "--stores", &stores, "--url", &holder.url, "--key", key];
    let ended = tee(program("valgrind", &[]).args(callgrind).arg(STORE_LOOP).args(arguments))?;
    if !ended.success {
        return Err(Failure::new(format!("store-loop failed under callgrind, {lane} lane")));
    }
    let profile = fs::read_to_string(&output_file).context(|| format!("reading {output_file}"))?;
    total(&profile).ok_or_else(|| Failure::new(format!("{output_file} has no totals")))
}

/// The sum that a callgrind profile ends with.
fn total(profile: &str) -> Option<u64> {
    let line =
        profile.lines().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A holder process; killed when dropped.
struct Holder {
    child: Child,
    url: String,
}

impl Holder {
    fn start(socket: &str, key: &str) -> Result<Self> {
        let listen = format!("shm:{socket}");
        let arguments = ["hold", "--listen", &listen, "--size", "16M", "--key", key, "--mlock", "try"];
        let mut command = program(BINARY, &arguments);
        let mut child =
            command.stdout(Stdio::piped()).spawn().context(|| format!("starting {BINARY} hold"))?;
        let output = child.stdout.take().expect("it is piped");
        let mut holder = Self { child, url: String::new() };
        let (sender, receiver) = mpsc::channel();
        // Reads to the end, so that the holder never writes into a closed pipe; ends with the holder.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                let _ = sender.send(line);
            }
        });
        while let Ok(line) = receiver.recv_timeout(HOLDER_START_MAX) {
            if let Some(url) = line.strip_prefix("listening on ") {
                url.trim().clone_into(&mut holder.url);
                return Ok(holder);
            }
        }
        Err(Failure::new(format!(
            "the holder did not say `listening on` within {} s",
            HOLDER_START_MAX.as_secs()
        )))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do about it then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for the key, the sockets and the profiles; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        // Under the temporary directory, not target/: the path of a socket has to be short.
        let path = std::env::temp_dir().join(format!("mirrorbus-instructions-{}", std::process::id()));
        fs::create_dir_all(&path).context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> String {
        Path::new(&self.0).join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is small and in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_starting_falls_out() {
        let start = 5_000_000;
        let count = difference(start + 150 * STORES, start + 300 * STORES, STORES).unwrap();
        assert!((count - 150.0).abs() < 1e-9);
    }

    #[test]
    fn a_run_that_stored_nothing_is_refused() {
        assert!(difference(5_000_000, 5_000_000, STORES).is_err());
        assert!(difference(5_000_000, 5_000_900, STORES).is_err());
        assert!(difference(5_000_000, 4_000_000, STORES).is_err());
    }

    #[test]
    fn totals_are_read_from_a_profile() {
        assert_eq!(total("version: 1\nevents: Ir\nfn=(1)\n0 12\ntotals: 34567\n"), Some(34_567));
        assert_eq!(total("summary: 99\n"), Some(99));
        assert_eq!(total("events: Ir\n"), None);
    }
}
