//! fio, the client of every disk: the same job, by the engine that reaches it.

use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::rxe::guest::Guest;
use crate::rxe::machine::Machine;

use super::contender::{Job, SOON, Sample, VOLUME};

/// A turn.
pub(super) fn run(guest: &Guest, engine: &str, job: Job, duration: Duration) -> Result<Sample> {
    let (depth, runtime) = (job.depth, duration.as_millis());
    let output = fio(
        guest,
        engine,
        &format!("--rw=randwrite --bs=4k --iodepth={depth} --runtime={runtime}ms --time_based --norandommap"),
        duration + SOON,
    )?;
    sample(&output)
}

/// Everything once, in order.
pub(super) fn fill(guest: &Guest, engine: &str) -> Result<()> {
    fio(guest, engine, "--rw=write --bs=64k --iodepth=4 --refill_buffers", SOON).map(drop)
}

fn fio(guest: &Guest, engine: &str, job: &str, limit: Duration) -> Result<String> {
    let always = format!("--name=bench --size={VOLUME} --output-format=json --randrepeat=0");
    guest.run(&format!("fio {always} {engine} {job}"), limit)
}

/// The figures in what fio prints; its engine for NBD greets in front of the report.
fn sample(output: &str) -> Result<Sample> {
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
    let iops = number(&side["iops"])?;
    Ok(Sample { iops, p50_us: number(&side["clat_ns"]["percentile"]["50.000000"])? / 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_found_behind_a_greeting() {
        let report = r#"{ "jobs": [ { "write": { "iops": 812.5, "clat_ns": { "percentile": { "50.000000": 1204000 } } } } ] }"#;
        let expected = Sample { iops: 812.5, p50_us: 1204.0 };
        assert_eq!(sample(report).unwrap(), expected);
        assert_eq!(sample(&format!("fio: connected to NBD server\n{report}\nbye\n")).unwrap(), expected);
    }

    #[test]
    fn a_run_that_did_nothing_is_a_failure() {
        let idle = r#"{ "jobs": [ { "write": { "iops": 0.0 } } ] }"#;
        for (output, why) in
            [(idle, "did nothing"), ("fio: no such file", "no report"), ("{\"jobs\"", "report")]
        {
            let failure = sample(output).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        }
    }
}
