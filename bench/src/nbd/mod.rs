//! `mirrorbus-bench nbd`: a volume of a mirrored pair over NBD, beside other servers of NBD, with fio as the client of all.
//!
//! ```text
//!  fio ── Unix socket ──▶ mirrorbus node ══ shm ══ mirrorbus node          two processes, two directories
//!  fio ── Unix socket ──▶ nbdkit memory                                     nothing replicated
//!  fio ── Unix socket ──▶ qemu-storage-daemon ── NBD ──▶ another one        blockdev-mirror, copy-mode=write-blocking
//! ```
//!
//! In each round every server has its turn at the same job, the peer that is compared with twice: its ratio to itself says what the
//! machine makes of equal things. Every volume was written once before, in order, and then for a while at random.

mod fio;
mod options;
mod report;
mod servers;

use std::process::ExitCode;

use crate::Failure;
use crate::machine::Machine;
use crate::ratio::{Ratio, median};
use fio::{Job, Sample};
pub(crate) use options::NbdOptions;
use servers::{Mirrorbus, Nbdkit, Qemu, Server};

/// What one server did at one job.
#[derive(Debug)]
struct Figures {
    iops: f64,
    p50_us: f64,
    p99_us: f64,
}

/// One peer at one job.
#[derive(Debug)]
struct Against {
    peer: &'static str,
    theirs: Figures,
    /// Ours / theirs.
    rate: Ratio,
    p50: Ratio,
    /// Theirs / theirs.
    control: Ratio,
}

/// One job.
#[derive(Debug)]
struct Row {
    job: Job,
    ours: Figures,
    against: Vec<Against>,
}

/// Measures.
///
/// # Errors
/// A program is missing, or a server or the client failed.
pub(crate) fn run(options: &NbdOptions) -> Result<ExitCode, Failure> {
    let machine = Machine::here();
    let directory = options.directory.join(format!("mirrorbus-bench-nbd-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let result = measure(options, &directory);
    drop(std::fs::remove_dir_all(&directory));
    let (rows, counts) = result?;
    let report = report::Report { options, machine: &machine, rows: &rows, counts: &counts };
    print!("{}", report.table());
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let void = rows.iter().flat_map(|row| &row.against).any(Against::is_void);
    Ok(if void { ExitCode::from(crate::EXIT_VOID) } else { ExitCode::SUCCESS })
}

fn measure(
    options: &NbdOptions,
    directory: &std::path::Path,
) -> Result<(Vec<Row>, servers::Counts), Failure> {
    let ours = Mirrorbus::start(options, directory)?;
    let mut peers: Vec<Box<dyn Server>> = vec![Box::new(Nbdkit::start(options, directory)?)];
    if !options.no_qemu {
        peers.push(Box::new(Qemu::start(options, directory)?));
    }
    for server in std::iter::once(&ours as &dyn Server).chain(peers.iter().map(|peer| &**peer)) {
        fio::fill(server.uri(), options.wear())?;
    }
    let mut rows = Vec::new();
    for job in Job::ALL {
        let peers: Vec<_> = peers.iter().filter(|peer| job.writes || peer.reads()).collect();
        let mut all = vec![Vec::new(); 1 + 2 * peers.len()];
        for round in 0..options.rounds {
            // Back and forth, so that a drift of the machine falls on both sides alike.
            let mut turns: Vec<_> = (0..all.len()).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for turn in turns {
                let server = if turn == 0 { &ours as &dyn Server } else { &**peers[(turn - 1) / 2] };
                all[turn].push(fio::run(server.uri(), job, options.slice())?);
            }
        }
        let against = peers.iter().zip(all[1..].chunks_exact(2));
        let against =
            against.map(|(peer, pair)| Against::new(peer.name(), &all[0], &pair[0], &pair[1])).collect();
        rows.push(Row { job, ours: Figures::of(&all[0]), against });
    }
    Ok((rows, ours.counts()?))
}

impl Figures {
    fn of(samples: &[Sample]) -> Self {
        let figure = |of: fn(&Sample) -> f64| median(samples.iter().map(of).collect()).median;
        Self {
            iops: figure(|sample| sample.iops),
            p50_us: figure(|sample| sample.p50_us),
            p99_us: figure(|sample| sample.p99_us),
        }
    }
}

impl Against {
    fn new(peer: &'static str, ours: &[Sample], first: &[Sample], second: &[Sample]) -> Self {
        let ratio = |a: &[Sample], b: &[Sample], of: fn(&Sample) -> f64| {
            median(a.iter().zip(b).map(|(a, b)| of(a) / of(b)).collect())
        };
        Self {
            peer,
            theirs: Figures::of(first),
            rate: ratio(ours, first, |sample| sample.iops),
            p50: ratio(ours, first, |sample| sample.p50_us),
            control: ratio(first, second, |sample| sample.iops),
        }
    }

    /// Whether the peer differed from itself by more than 5 %.
    fn is_void(&self) -> bool {
        (self.control.median - 1.0).abs() > 0.05
    }
}
