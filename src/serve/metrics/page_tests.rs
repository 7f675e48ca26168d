//! The page says what the status says, in a form that a strict reader takes, and the documentation lists it.

use std::time::Duration;

use super::page::COUNTER_NAMES;
use super::{LatencyRecorder, format_tests, metrics_page};
use crate::serve::admin::{Counters, HoldProgress, NodeStatus, ResyncProgress, testing};

#[test]
fn a_status_is_a_page() {
    let mut status = testing::status();
    status.age_ms = 1500;
    let recorder = LatencyRecorder::new();
    (1..1000).for_each(|number| recorder.record(Duration::from_micros(number)));
    status.datasets[0].latency.flush = recorder.status();
    let mut second = status.datasets[0].clone();
    let left = ResyncProgress { total_bytes: 9 << 20, left_bytes: 3 << 20, ..ResyncProgress::default() };
    second.resync = Some(ResyncProgress { seconds_left: Some(7), ..left });
    second.hold = Some(HoldProgress { held_ms: 2500, is_over: true, after: "error".into() });
    second.name = "a \"b\" \\ \n".into();
    status.datasets.push(second);
    let read = format_tests::read(&metrics_page(&status)).unwrap();
    let value = |name: &str, labels: &[(&str, &str)]| read.value(name, labels);
    let is = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    is(value("mirrorbus_build_info", &[("node", "alpha"), ("version", "0.1.0")]), 1.0);
    is(value("mirrorbus_status_age_seconds", &[]), 1.5);
    is(value("mirrorbus_role", &[("dataset", "vm1"), ("role", "Primary")]), 1.0);
    is(value("mirrorbus_role", &[("dataset", "vm1"), ("role", "Secondary")]), 0.0);
    is(value("mirrorbus_disk_state", &[("dataset", "vm1"), ("state", "UpToDate")]), 1.0);
    is(value("mirrorbus_replication_state", &[("dataset", "vm1"), ("state", "Established")]), 1.0);
    let behind = [("dataset", "vm1"), ("position", "durable_peer")];
    is(value("mirrorbus_log_behind_bytes", &behind), f64::from(2 << 20));
    is(value("mirrorbus_ring_used_bytes", &[("dataset", "a \"b\" \\ \n")]), f64::from(32 << 20));
    is(
        value("mirrorbus_volume_mapped_bytes", &[("dataset", "vm1"), ("volume", "root")]),
        1.5 * f64::from(1 << 30),
    );
    is(value("mirrorbus_resync_left_bytes", &[("dataset", "a \"b\" \\ \n")]), f64::from(3 << 20));
    is(value("mirrorbus_resync_left_seconds", &[("dataset", "a \"b\" \\ \n")]), 7.0);
    is(value("mirrorbus_held_seconds", &[("dataset", "a \"b\" \\ \n")]), 2.5);
    is(value("mirrorbus_held_too_long", &[("dataset", "a \"b\" \\ \n")]), 1.0);
    is(value("mirrorbus_held_too_long", &[("dataset", "vm1")]), 0.0);
    is(value("mirrorbus_writes_total", &[("dataset", "vm1")]), 12.0);
    let flush = [("dataset", "vm1"), ("operation", "flush")];
    is(value("mirrorbus_latency_seconds_count", &flush), 999.0);
    is(value("mirrorbus_latency_seconds_sum", &flush), 0.499_5);
    let bucket = [("dataset", "vm1"), ("operation", "flush"), ("le", "0.0001")];
    is(value("mirrorbus_latency_seconds_bucket", &bucket), 100.0);
}

#[test]
fn an_empty_status_is_a_page_too() {
    assert!(format_tests::read(&metrics_page(&NodeStatus::default())).is_ok());
}

#[test]
fn families_of_counters_are_those_of_the_status() {
    assert_eq!(COUNTER_NAMES.len(), Counters::default().named().len());
    for ((family, _), (name, _)) in COUNTER_NAMES.into_iter().zip(Counters::default().named()) {
        assert_eq!(family, format!("mirrorbus_{name}_total"));
    }
}

#[test]
fn each_family_is_documented() {
    let documented = include_str!("../../../docs/operations.md");
    let read = format_tests::read(&metrics_page(&testing::status())).unwrap();
    for family in read.kinds.keys() {
        // Counters are listed by the status' keys.
        let name = family.strip_suffix("_total").map_or(family.as_str(), |name| &name["mirrorbus_".len()..]);
        assert!(documented.contains(&format!("`{name}`")), "docs/operations.md does not name {name}");
    }
}
