//! `mirrorbus-bench store-turns`: the store in process, between two machines, measured whenever it is told to.
//!
//! Whoever compares it with what no program of ours can run, a disk of the kernel's, keeps the turns itself. A line `store DEPTH
//! MILLISECONDS`, `bare DEPTH MILLISECONDS` or `record DEPTH MILLISECONDS` on stdin is one turn; its figures are a line of JSON. `bare` is the
//! limit of the region over RDMA: writes of the same size by bare verbs, which no store can be faster than. `record` is the same with as many
//! bytes as a write takes in the log, and their checksum, which is what no log can be faster than that sends each by itself.
//!
//! The other side is two processes over there: `store-peer`, and `limit-peer --fabric rdma`.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use mirrorbus::segment::SLOT_BYTES;
use serde_json::json;

use super::options::StoreTurnsOptions;
use super::subject::Subject;
use crate::Failure;
use crate::driver::Slice;
use crate::limit::Limit;
use crate::options::AskedLevel;
use crate::pair::Contender;
use crate::workload::{Fabric, Pattern, Polling, Workload};

/// Bytes of a write.
const SIZE: usize = 4096;

/// Takes turns until stdin ends.
///
/// # Errors
/// The two nodes did not find each other, or a write failed.
pub(crate) fn run(options: &StoreTurnsOptions) -> Result<ExitCode, Failure> {
    let mut subject = Subject::join(options, SIZE as u64)?;
    let mut bare = Vec::new();
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let turn: Turn = line?.parse()?;
        let slice = match turn.what {
            What::Store => subject.at_depth(turn.depth).slice(turn.duration)?,
            What::Bare(what) => bare_at(&mut bare, options, what, turn.depth)?.slice(turn.duration)?,
        };
        println!("{}", told(&slice));
    }
    Ok(ExitCode::SUCCESS)
}

/// The limit of this size and depth; it stays connected once it was asked for.
fn bare_at<'a>(
    all: &'a mut Vec<((Bare, usize), Limit)>,
    options: &StoreTurnsOptions,
    what: Bare,
    depth: usize,
) -> Result<&'a mut dyn Contender, Failure> {
    let at = match all.iter().position(|(had, _)| *had == (what, depth)) {
        Some(at) => at,
        None => {
            let workload = Workload {
                fabric: Fabric::Rdma,
                size: what.bytes(),
                depth,
                lanes: 1,
                threads: 1,
                pattern: Pattern::Random,
                region: usize::try_from(options.limit_memory)?,
                polling: Polling::Block,
            };
            let peer = Some(options.limit_peer.as_str());
            let limit = match what {
                Bare::Write => Limit::new(&workload, AskedLevel::Acked, peer)?,
                Bare::Record => Limit::of_records(&workload, peer)?,
            };
            all.push(((what, depth), limit));
            all.len() - 1
        }
    };
    Ok(all[at].1.contenders().0)
}

#[allow(clippy::cast_precision_loss, reason = "latencies have three digits")]
fn told(slice: &Slice) -> serde_json::Value {
    let at = |quantile: f64| slice.latencies.at(quantile) as f64 / 1e3;
    json!({ "iops": slice.rate(), "p50_us": at(0.5), "p99_us": at(0.99) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Store,
    Bare(Bare),
}

/// What is sent by bare verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// The bytes of a write.
    Write,
    /// With what names them in the log.
    Record,
}

impl Bare {
    fn bytes(self) -> usize {
        match self {
            Self::Write => SIZE,
            Self::Record => SIZE + usize::try_from(SLOT_BYTES).expect("a slot is short"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    what: What,
    depth: usize,
    duration: Duration,
}

impl std::str::FromStr for Turn {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [what, depth, milliseconds] = words[..] else {
            return Err(format!("{line:?} is no turn: store|bare|record DEPTH MILLISECONDS").into());
        };
        let what = match what {
            "store" => What::Store,
            "bare" => What::Bare(Bare::Write),
            "record" => What::Bare(Bare::Record),
            _ => return Err(format!("{what:?} takes no turns: store, bare or record does").into()),
        };
        let depth: usize = depth.parse()?;
        if !(1..=256).contains(&depth) {
            return Err(format!("depth {depth}: 1 to 256").into());
        }
        Ok(Self { what, depth, duration: Duration::from_millis(milliseconds.parse()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_read_and_what_is_none_is_refused() {
        let turn: Turn = "bare 16 500".parse().unwrap();
        assert_eq!(
            turn,
            Turn { what: What::Bare(Bare::Write), depth: 16, duration: Duration::from_millis(500) }
        );
        for line in ["", "bare 16", "disk 1 500", "store 0 500", "store 257 500", "store 1 -1", "store 1 1 1"]
        {
            assert!(line.parse::<Turn>().is_err(), "{line:?}");
        }
    }
}
