//! fio, the client of every disk that is measured: the same job, by the engine that reaches it.

use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Failure, Result};

use super::guest::Guest;
use super::machine::Machine;

/// How much longer than its job fio may take, on a host that does much else.
const MORE: Duration = Duration::from_secs(120);

/// What fio writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk<'a> {
    /// How fio reaches it: options of its engine.
    pub(crate) engine: &'a str,
    /// Bytes of it that are written to, as fio reads them.
    pub(crate) size: &'a str,
}

/// What a run gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) iops: f64,
    pub(crate) writes: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Disk<'_> {
    /// Writes 4 KiB at random for a while; `more` are further options. Latencies are from fio's call of its engine on: how much of the work the
    /// engine does in that call differs between engines.
    pub(crate) fn random_writes(
        self,
        guest: &Guest,
        depth: u32,
        duration: Duration,
        more: &str,
    ) -> Result<Figures> {
        let runtime = duration.as_millis();
        let job = format!(
            "--rw=randwrite --bs=4k --iodepth={depth} --runtime={runtime}ms --time_based --norandommap \
             --lat_percentiles=1 --clat_percentiles=0 {more}"
        );
        figures(&self.run(guest, &job, duration + MORE)?)
    }

    /// Everything once, in order.
    pub(crate) fn fill(self, guest: &Guest) -> Result<()> {
        self.run(guest, "--rw=write --bs=64k --iodepth=4 --refill_buffers", MORE).map(drop)
    }

    /// So many mebibytes at random, each block once, in long writes.
    pub(crate) fn change(self, guest: &Guest, mib: u64) -> Result<()> {
        let job = format!("--rw=randwrite --bs=128k --iodepth=4 --io_size={mib}M --refill_buffers");
        self.run(guest, &job, MORE).map(drop)
    }

    fn run(self, guest: &Guest, job: &str, limit: Duration) -> Result<String> {
        let Self { engine, size } = self;
        let always = format!("--name=bench --size={size} --output-format=json --randrepeat=0");
        // It leaves files beside itself, if it is told to.
        guest.run(&format!("cd /tmp && fio {always} {engine} {job}"), limit)
    }
}

/// The figures in what fio prints; its engine for NBD greets in front of the report.
fn figures(output: &str) -> Result<Figures> {
    let start = if output.starts_with('{') { Some(0) } else { output.find("\n{").map(|at| at + 1) };
    let start = start.ok_or_else(|| Failure::new(format!("fio has no report: {output}")))?;
    let mut values = serde_json::Deserializer::from_str(&output[start..]).into_iter::<Value>();
    let report = values.next().unwrap_or(Ok(Value::Null));
    let report = report.context(|| format!("fio's report: {output}"))?;
    let side = &report["jobs"][0]["write"];
    let number = |value: &Value| {
        let found = value.as_f64().filter(|&number| number > 0.0);
        found.ok_or_else(|| Failure::new(format!("fio did nothing: {side}")))
    };
    let microseconds = |percentile: &str| Ok(number(&side["lat_ns"]["percentile"][percentile])? / 1e3);
    Ok(Figures {
        iops: number(&side["iops"])?,
        writes: number(&side["total_ios"])?,
        p50_us: microseconds("50.000000")?,
        p99_us: microseconds("99.000000")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_found_behind_a_greeting() {
        let report = r#"{ "jobs": [ { "write": { "iops": 812.5, "total_ios": 406, "lat_ns": { "percentile": {
            "50.000000": 1204000, "99.000000": 4113000 } } } } ] }"#;
        let expected = Figures { iops: 812.5, writes: 406.0, p50_us: 1204.0, p99_us: 4113.0 };
        assert_eq!(figures(report).unwrap(), expected);
        assert_eq!(figures(&format!("fio: connected to NBD server\n{report}\nbye\n")).unwrap(), expected);
    }

    #[test]
    fn a_run_that_did_nothing_is_a_failure() {
        let idle = r#"{ "jobs": [ { "write": { "iops": 0.0 } } ] }"#;
        for (output, why) in
            [(idle, "did nothing"), ("fio: no such file", "no report"), ("{\"jobs\"", "report")]
        {
            let failure = figures(output).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        }
    }
}
