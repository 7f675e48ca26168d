//! fio, the client of all servers, by its own engine for NBD.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::Failure;

/// What is asked of a server: 4 KiB at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) writes: bool,
    pub(super) depth: u32,
}

impl Job {
    pub(super) const ALL: [Self; 4] = [
        Self { writes: true, depth: 1 },
        Self { writes: true, depth: 32 },
        Self { writes: false, depth: 1 },
        Self { writes: false, depth: 32 },
    ];

    pub(super) fn name(self) -> String {
        format!("4 KiB random {}, depth {}", if self.writes { "write" } else { "read" }, self.depth)
    }
}

/// What fio says of a turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) iops: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// A turn.
///
/// # Errors
/// fio is missing or fails.
pub(super) fn run(uri: &str, job: Job, time: Duration) -> Result<Sample, Failure> {
    let (mode, kind) = if job.writes { ("randwrite", "write") } else { ("randread", "read") };
    let depth = format!("--iodepth={}", job.depth);
    let (mode, runtime) = (format!("--rw={mode}"), format!("--runtime={}ms", time.as_millis()));
    let report = fio(uri, &[&mode, "--bs=4k", &depth, &runtime, "--time_based", "--norandommap"])?;
    let side = &report["jobs"][0][kind];
    let number = |value: &Value| value.as_f64().ok_or("fio's report lacks a number");
    let latency = &side["clat_ns"]["percentile"];
    let sample = Sample {
        iops: number(&side["iops"])?,
        p50_us: number(&latency["50.000000"])? / 1e3,
        p99_us: number(&latency["99.000000"])? / 1e3,
    };
    if sample.iops > 0.0 { Ok(sample) } else { Err(format!("{uri}: fio did nothing: {side}").into()) }
}

/// Writes everything once, in order, with bytes that nobody makes less of; then at random for a while, so that what gives room back has
/// begun to.
///
/// # Errors
/// As [`run`].
pub(super) fn fill(uri: &str, wear: Duration) -> Result<(), Failure> {
    fio(uri, &["--rw=write", "--bs=1m", "--iodepth=4", "--refill_buffers"])?;
    let worn = format!("--runtime={}ms", wear.as_millis());
    fio(uri, &["--rw=randwrite", "--bs=4k", "--iodepth=32", "--norandommap", "--time_based", &worn]).map(drop)
}

fn fio(uri: &str, arguments: &[&str]) -> Result<Value, Failure> {
    let output = Command::new("fio")
        .args([
            "--name=bench",
            "--ioengine=nbd",
            &format!("--uri={uri}"),
            "--output-format=json",
            "--randrepeat=0",
        ])
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run fio ({error}): install package fio"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("fio {arguments:?} at {uri}: {}: {text}{why}", output.status).into());
    }
    // Its engine greets in front of the report.
    let start = if text.starts_with('{') { 0 } else { text.find("\n{").map_or(0, |at| at + 1) };
    Ok(serde_json::from_str(&text[start..]).map_err(|error| format!("fio's report: {error}: {text}"))?)
}
