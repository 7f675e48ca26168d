//! The report for programs. The keys are an interface: a test has the list of them.

use serde_json::{Map, Value, json};

use super::Report;
use crate::histogram::LatencySummary;
use crate::outcome::{Figure, Total};
use crate::ratio::Ratio;
use crate::workload::Fabric;

/// `report` as one JSON object.
pub(crate) fn render(report: &Report) -> Value {
    let (workload, outcome) = (&report.workload, &report.outcome);
    let calls = |total: &Total, doorbells: bool| {
        total.calls_per_store().filter(|_| doorbells == (workload.fabric == Fabric::Rdma))
    };
    let mut root = json!({
        "fabric": workload.fabric.to_string(),
        "pattern": workload.pattern.to_string(),
        "size_bytes": workload.size,
        "depth": workload.depth,
        "lanes": workload.lanes,
        "threads": workload.threads,
        "level": report.level.name(),
        "seconds": outcome.ours.seconds,
        "ratio": {
            "rate": outcome.rate.median,
            "p50": outcome.p50.median,
            "control": outcome.control.median,
            "control_p50": outcome.control_p50.median,
            "rate_bare": outcome.rate_bare.map(|ratio| ratio.median),
        },
        "machine": {
            "cpu": report.machine.cpu,
            "cores": report.machine.cores,
            "kernel": report.machine.kernel,
            "memory": report.machine.memory_bytes,
            "clock_source": report.machine.clock_source,
            "huge_pages": report.machine.huge_pages,
            "load": report.machine.load,
        },
        "ratio_interval": {
            "rate": interval(outcome.rate),
            "p50": interval(outcome.p50),
            "control": interval(outcome.control),
            "control_p50": interval(outcome.control_p50),
            "rate_bare": outcome.rate_bare.map(interval),
            "confidence": 0.95,
        },
        "ratio_p50_net_of_timer": outcome.p50_net.median,
        "judged_by": report.judged_by().name(),
        "void": report.void().is_some(),
        "void_why": report.void(),
        "void_rate_why": outcome.void(Figure::Rate),
        "void_p50_why": outcome.void(Figure::P50),
        "polling": workload.polling.to_string(),
        "region_bytes": workload.region,
        "rounds": outcome.schedule.rounds,
        "slice_seconds": outcome.schedule.slice.as_secs_f64(),
        "timer_ns": report.timer_ns,
        "latency_samples": outcome.ours.latencies.count(),
        "latency_method": report.latency_method(),
        "ours_does": report.ours_does,
        "limit_does": report.limit_does,
        "copies_per_byte": report.ours_copies_per_byte,
        "idle_cpu": report.idle_cpu,
        "perftest": perftest(report),
        "syscalls_per_store": calls(&outcome.ours, false),
        "doorbells_per_store": calls(&outcome.ours, true),
        "limit_copies_per_byte": report.limit_copies_per_byte,
        "limit_syscalls_per_store": calls(&outcome.limit, false),
        "limit_doorbells_per_store": calls(&outcome.limit, true),
        "limit": Value::Object(figures(&outcome.limit, workload.size)),
        "bare": outcome.bare.as_ref().map(|bare| Value::Object(figures(bare, workload.size))),
    });
    if let Some(object) = root.as_object_mut() {
        object.append(&mut figures(&outcome.ours, workload.size));
    }
    root
}

#[allow(clippy::cast_precision_loss, reason = "a size needs no 53 bits")]
fn figures(total: &Total, size: usize) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("stores_per_s".into(), total.stores_per_s().into());
    map.insert("bytes_per_s".into(), (total.stores_per_s() * size as f64).into());
    map.insert("cpu_ns_per_store".into(), total.cpu_ns_per_store().into());
    map.insert("latency_ns".into(), latency(total.latency()));
    map
}

fn latency(summary: LatencySummary) -> Value {
    let LatencySummary { min, p50, p90, p99, p999, p9999, max } = summary;
    json!({ "min": min, "p50": p50, "p90": p90, "p99": p99, "p999": p999, "p9999": p9999, "max": max })
}

fn perftest(report: &Report) -> Value {
    let entries = report.perftest.iter().map(|beside| {
        let (value, why) = (beside.result.as_ref().ok(), beside.result.as_ref().err());
        (beside.program.to_owned(), json!({ "figure": beside.figure, "value": value, "why": why }))
    });
    Value::Object(entries.collect())
}

fn interval(ratio: Ratio) -> Value {
    json!([ratio.low, ratio.high])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    const PROMISED: [&str; 15] = [
        "bytes_per_s",
        "cpu_ns_per_store",
        "depth",
        "fabric",
        "lanes",
        "latency_ns",
        "level",
        "limit",
        "machine",
        "pattern",
        "ratio",
        "seconds",
        "size_bytes",
        "stores_per_s",
        "threads",
    ];
    const BESIDE: [&str; 25] = [
        "bare",
        "copies_per_byte",
        "doorbells_per_store",
        "idle_cpu",
        "judged_by",
        "latency_method",
        "latency_samples",
        "limit_copies_per_byte",
        "limit_does",
        "limit_doorbells_per_store",
        "limit_syscalls_per_store",
        "ours_does",
        "perftest",
        "polling",
        "ratio_interval",
        "ratio_p50_net_of_timer",
        "region_bytes",
        "rounds",
        "slice_seconds",
        "syscalls_per_store",
        "timer_ns",
        "void",
        "void_p50_why",
        "void_rate_why",
        "void_why",
    ];

    #[test]
    fn the_keys_are_those_promised() {
        let json = render(&super::super::sample::report());
        let mut expected: Vec<&str> = PROMISED.iter().chain(&BESIDE).copied().collect();
        expected.sort_unstable();
        assert_eq!(keys(&json), expected);
        let latency = ["max", "min", "p50", "p90", "p99", "p999", "p9999"];
        assert_eq!(keys(&json["latency_ns"]), latency);
        assert_eq!(keys(&json["limit"]), ["bytes_per_s", "cpu_ns_per_store", "latency_ns", "stores_per_s"]);
        assert_eq!(keys(&json["limit"]["latency_ns"]), latency);
        assert_eq!(keys(&json["ratio"]), ["control", "control_p50", "p50", "rate", "rate_bare"]);
        let intervals = ["confidence", "control", "control_p50", "p50", "rate", "rate_bare"];
        assert_eq!(keys(&json["ratio_interval"]), intervals);
        assert_eq!(
            keys(&json["machine"]),
            ["clock_source", "cores", "cpu", "huge_pages", "kernel", "load", "memory"]
        );
    }

    #[test]
    fn the_figures_are_those_measured() {
        let json = render(&super::super::sample::report());
        let close = |value: &Value, expected: f64| (value.as_f64().unwrap() / expected - 1.0).abs() < 0.01;
        assert!(close(&json["stores_per_s"], 16e6) && close(&json["bytes_per_s"], 1024e6));
        assert!(close(&json["limit"]["stores_per_s"], 20e6) && close(&json["ratio"]["rate"], 0.8));
        assert!(close(&json["ratio"]["p50"], 2.0) && close(&json["ratio"]["control"], 1.0));
        assert!(close(&json["cpu_ns_per_store"], 62.5) && close(&json["latency_ns"]["p50"], 2000.0));
        assert_eq!(
            (&json["void"], &json["bare"], &json["syscalls_per_store"]),
            (&json!(false), &Value::Null, &json!(0.0))
        );
        assert!(close(&json["ratio"]["control_p50"], 1.0));
        assert_eq!(json["judged_by"], "p50");
        for why in ["void_why", "void_rate_why", "void_p50_why"] {
            assert_eq!(json[why], Value::Null);
        }
    }

    #[test]
    fn a_void_figure_does_not_make_the_others_void() {
        let mut report = super::super::sample::report();
        report.outcome.control.median = 0.9;
        let json = render(&report);
        assert!(json["void_rate_why"].as_str().unwrap().contains("control of the rate 0.900"));
        assert_eq!((&json["void"], &json["void_p50_why"]), (&json!(false), &Value::Null));
        report.workload.depth = 64;
        let json = render(&report);
        assert_eq!((&json["void"], &json["judged_by"]), (&json!(true), &json!("rate")));
        assert_eq!(json["void_why"], json["void_rate_why"]);
    }
}
