//! The bench over RDMA between the guests: the mirrored region beside bare verbs in the same run.
//!
//! Speed is not what is tested: under emulation, on a machine that does much else, a figure may be void, and says so. That
//! every workload runs, and that its report has its figures, is.

use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::port::{End, Running};

use super::{KEY, ensure, share_key, start_holder};

/// When one run must be over.
const LIMIT: Duration = Duration::from_secs(120);

const SOON: Duration = Duration::from_secs(30);

/// Bytes of the region, here and there.
const REGION: &str = "16M";

/// The part of one processor that an idle region may take.
const IDLE_MAX: f64 = 0.02;

/// In one of so many measurements.
const IDLE_TRIES: usize = 5;

/// Seconds of idleness, in the run that measures it.
const IDLE_SECONDS: f64 = 2.0;

/// What is measured.
#[derive(Debug)]
struct Workload {
    size: u32,
    depth: u32,
    pattern: &'static str,
    level: &'static str,
    /// Whether the idle region is measured too.
    idle: bool,
    /// Whether it is among the few that show that everything runs.
    brief: bool,
}

const WORKLOADS: &[Workload] = &[
    Workload { size: 8, depth: 1, pattern: "random", level: "acked", idle: true, brief: true },
    Workload { size: 4096, depth: 1, pattern: "random", level: "acked", idle: false, brief: false },
    Workload { size: 8, depth: 1, pattern: "random", level: "visible", idle: false, brief: true },
    Workload { size: 64, depth: 64, pattern: "append", level: "acked", idle: false, brief: true },
    Workload { size: 64, depth: 64, pattern: "random", level: "acked", idle: false, brief: false },
    Workload { size: 65536, depth: 16, pattern: "append", level: "acked", idle: false, brief: false },
];

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// A few, of each kind one.
    Brief,
    /// One store at a time.
    Single,
    /// Several in flight.
    Deep,
}

/// How long is measured, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    /// All slices of one side.
    all: f64,
    slice: f64,
}

/// Shows that everything runs: four slices.
pub(super) const SHORT: Length = Length { all: 0.4, slice: 0.1 };

/// Makes a median latency: 48 slices. The emulator stalls now and then; the more slices, the fewer of them that spoils.
pub(super) const SINGLE: Length = Length { all: 12.0, slice: 0.25 };

/// Makes a rate: 36 slices. A batch takes up to 20 ms there, and a slice needs many of them.
pub(super) const DEEP: Length = Length { all: 18.0, slice: 0.5 };

/// Runs the workloads, each for so long.
pub(super) fn rdma(guests: &Guests, part: Part, length: Length, perftest: bool) -> Result<()> {
    share_key(guests)?;
    let header =
        ["workload", "rate", "p50", "rate/bare", "ours/s", "limit/s", "bare/s", "p50 µs", "doorbells"];
    println!("{}", line(&header.map(str::to_owned)));
    let chosen = |workload: &&Workload| match part {
        Part::All => true,
        Part::Brief => workload.brief,
        Part::Single => workload.depth == 1,
        Part::Deep => workload.depth > 1,
    };
    WORKLOADS.iter().filter(chosen).try_for_each(|workload| {
        let what = || format!("{workload:?}");
        until_idle(guests, workload, length, perftest).context(what)
    })
}

/// Runs it, again where the idle region took too much of a processor: on a machine that does much else the least of several counts.
fn until_idle(guests: &Guests, workload: &Workload, length: Length, perftest: bool) -> Result<()> {
    let mut shares = Vec::new();
    while let Some(share) = run(guests, workload, length, perftest)?.filter(|share| *share > IDLE_MAX) {
        shares.push(share);
        ensure(shares.len() < IDLE_TRIES, || {
            format!("an idle region took {shares:.4?} of a processor, more than {IDLE_MAX}")
        })?;
    }
    Ok(())
}

/// Without `--peer` the bench is its own holder, and its own other side of the limit: all in one machine.
pub(super) fn alone(machine: &dyn Machine) -> Result<()> {
    let Length { all: seconds, slice } = SHORT;
    for depth in [1, 64] {
        let command = format!(
            "mirrorbus-bench region --fabric rdma --region {REGION} --size 64 --depth {depth} --block --seconds {seconds} \
             --slice {slice} --json /tmp/bench.json; end=$?; ls -d /tmp/mirrorbus-bench-*; [ $end = 0 ] || [ $end = 3 ]"
        );
        let output = machine.run(&command, LIMIT)?;
        let figures: Vec<_> = output.lines().filter(|line| line.contains("ours/limit")).collect();
        println!("depth {depth}: {}", figures.join("; "));
        ensure(figures.len() == 2, || output.clone())?;
        // What the shell says of a pattern that matches nothing.
        ensure(output.contains("/tmp/mirrorbus-bench-*"), || format!("something is left behind: {output}"))?;
    }
    Ok(())
}

/// The part of a processor that the idle region took, if that is measured.
fn run(guests: &Guests, workload: &Workload, length: Length, perftest: bool) -> Result<Option<f64>> {
    let Length { all: seconds, slice } = length;
    let Workload { size, depth, pattern, level, idle, .. } = workload;
    let (holder, url) = start_holder(guests, "rdma", REGION, 2 * LIMIT)?;
    let before = processor_ticks(guests, &holder)?;
    let limit_peer = format!("{}:7171", guests.b.address());
    let beside = if perftest { format!("--perftest {size}") } else { String::new() };
    let mut peer = guests.b.spawn(
        &format!(
            "exec mirrorbus-bench limit-peer --fabric rdma --listen {limit_peer} --memory {REGION} {beside}"
        ),
        2 * LIMIT,
    )?;
    peer.line_after("listening on ", SOON)?;
    let mut command = format!(
        "mirrorbus-bench region --fabric rdma --peer {url} --key {KEY} --limit-peer {limit_peer} --region {REGION} \
         --size {size} --depth {depth} --pattern {pattern} --level {level} --block --seconds {seconds} \
         --slice {slice} --json /tmp/bench.json"
    );
    if *idle {
        command += &format!(" --idle {IDLE_SECONDS}");
    }
    if perftest {
        command += " --perftest";
    }
    let output = guests.a.exec(&command, LIMIT)?;
    // 3: measured, but the figure that counts is void.
    ensure(matches!(output.end, End::Exit(0 | 3)), || format!("{:?}: {}", output.end, output.text()))?;
    let json = guests.a.pull("/tmp/bench.json")?;
    let report: Value = serde_json::from_slice(&json).context(|| "the report".to_owned())?;
    let after = processor_ticks(guests, &holder)?;
    let share = tell(workload, &report)?;
    if *idle {
        println!("  the holder took {} ms of a processor for the whole run", (after - before) * 10);
    }
    guests.b.signal(&peer, "KILL")?;
    guests.b.signal(&holder, "TERM")?;
    holder.wait()?.success().map(|_| share)
}

/// Prints the figures, which must all be there; the part of a processor that the idle region took.
fn tell(workload: &Workload, report: &Value) -> Result<Option<f64>> {
    let number = |path: &str| {
        let value = report.pointer(path).and_then(Value::as_f64);
        value.ok_or_else(|| Failure::new(format!("the report has no {path}: {report:#}")))
    };
    let deep = workload.depth > 1;
    let or_none = |path: &str, digits: usize| {
        if deep { number(path).map(|value| format!("{value:.digits$}")) } else { Ok("-".to_owned()) }
    };
    let Workload { size, depth, pattern, level, .. } = workload;
    let columns = [
        format!("{size} B {pattern}, depth {depth}, {level}"),
        format!("{:.3}", number("/ratio/rate")?),
        format!("{:.3}", number("/ratio/p50")?),
        or_none("/ratio/rate_bare", 2)?,
        format!("{:.0}", number("/stores_per_s")?),
        format!("{:.0}", number("/limit/stores_per_s")?),
        or_none("/bare/stores_per_s", 0)?,
        format!("{:.1}", number("/latency_ns/p50")? / 1e3),
        format!("{:.3}", number("/doorbells_per_store")?),
    ];
    println!("{}", line(&columns));
    let with_control = |name: &str, control: &str| -> Result<String> {
        let interval = |name: &str| -> Result<String> {
            let [low, high] = [0, 1].map(|end| number(&format!("/ratio_interval/{name}/{end}")));
            Ok(format!("[{:.3}, {:.3}]", low?, high?))
        };
        let median = number(&format!("/ratio/{control}"))?;
        Ok(format!("{name} {}, its control {median:.3} {}", interval(name)?, interval(control)?))
    };
    let (rate, p50) = (with_control("rate", "control")?, with_control("p50", "control_p50")?);
    println!("  {rate}; {p50}; {} rounds", number("/rounds")?);
    for figure in ["rate", "p50"] {
        if let Some(why) = report[format!("void_{figure}_why")].as_str() {
            println!("  VOID: the {figure}: {why}");
        }
    }
    for (program, said) in report["perftest"].as_object().into_iter().flatten() {
        println!("  {program}: {} {} {}", said["value"], said["figure"], said["why"]);
    }
    if !workload.idle {
        return Ok(None);
    }
    let share = number("/idle_cpu")?;
    println!("  an idle region took {:.2} % of a processor", share * 100.0);
    Ok(Some(share))
}

fn line(columns: &[String; 9]) -> String {
    let (first, rest) = columns.split_first().expect("nine columns");
    rest.iter().fold(format!("{first:<34}"), |line, column| format!("{line}{column:>10}"))
}

/// Processor time that a holder took so far, in hundredths of a second.
fn processor_ticks(guests: &Guests, holder: &Running) -> Result<u64> {
    let command = format!("cat /proc/$(cat /run/process.{})/stat", holder.id);
    let text = guests.b.run(&command, SOON)?;
    // Behind the name in parentheses: state is the first field, user and system time the 12th and 13th.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let times: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ensure(times.len() == 2, || format!("no times in {text:?}"))?;
    Ok(times.iter().sum())
}
