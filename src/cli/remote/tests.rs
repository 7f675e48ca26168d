//! What is shown, without a node.

use mirrorbus::serve::admin::{
    DatasetStatus, DiskState, LatencyStatus, NodeStatus, Reason, ReplicationState, ResyncProgress, Role,
    VolumeStatus,
};

use super::table::{WIDTH, render};
use super::{events, plain};

fn status() -> NodeStatus {
    let latency = LatencyStatus {
        count: 12_345_678,
        p50_ns: 4_900,
        p99_ns: 41_000,
        p999_ns: 950,
        max_ns: 2_100_000_000,
        ..LatencyStatus::default()
    };
    let volume = |name: &str| VolumeStatus {
        name: name.into(),
        bytes: 10 << 30,
        block_bytes: 4096,
        ..VolumeStatus::default()
    };
    let mut dataset = DatasetStatus {
        name: "vm1".into(),
        role: Role::Primary,
        disk_state: DiskState::UpToDate,
        replication_state: ReplicationState::Alone,
        reason: Reason { code: "peer-gone".into(), text: "the peer did not answer, ".repeat(9) },
        unreplicated_bytes: 4096,
        volumes: vec![volume("root"), volume(&"long".repeat(40))],
        ..DatasetStatus::default()
    };
    dataset.latency.write = latency;
    dataset.counters.damaged_blocks = 2;
    dataset.lsn.appended = u64::MAX / 4;
    NodeStatus {
        name: "alpha".into(),
        version: "0.1.0".into(),
        uptime_ms: 90_061_000,
        age_ms: 0,
        datasets: vec![dataset],
    }
}

#[test]
fn a_status_is_text_of_bounded_width() {
    let text = render(&status());
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(WIDTH), "{widest:?}:\n{text}");
    for words in [
        "node alpha, mirrorbus 0.1.0, up 1 d 1 h",
        "vm1: Primary, UpToDate, Alone",
        "serves clients; its copy has all that was acknowledged; it goes on without",
        "(peer-gone)",
        "4 KiB are on this node only",
        "2 blocks did not match",
        "p50 4.9 µs, p99 41 µs, p99.9 950 ns, max 2.1 s, of 12345678",
        "10 GiB    4096",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    assert!(!text.contains("HANGS") && !text.contains("in sync"));
    let mut resyncs = status();
    let progress = ResyncProgress {
        total_bytes: 4 << 30,
        left_bytes: 1 << 30,
        in_sync_hundredths: 7503,
        bytes_per_second: 64 << 20,
        seconds_left: Some(16),
    };
    resyncs.datasets[0].resync = Some(progress);
    let text = render(&resyncs);
    assert!(text.contains("75.03 % in sync, 1 GiB of 4 GiB to go, 64 MiB a second, 16 s left"), "{text}");
    resyncs.datasets[0].resync = Some(ResyncProgress { seconds_left: None, ..progress });
    assert!(render(&resyncs).contains("nothing moves"));
    let hangs = render(&NodeStatus { age_ms: 61_000, ..status() });
    assert!(hangs.contains("THE NODE HANGS: this is 61 s old"), "{hangs}");
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    assert_eq!(plain("a\x1b[2J\nb"), "a?[2J?b");
    let mut status = status();
    status.datasets[0].volumes[0].name = "\x1b]0;x\x07".into();
    status.datasets[0].reason.text = "\x1b[31m".into();
    assert!(!render(&status).contains('\x1b'));
}

#[test]
fn moments_are_written_in_utc() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_799, "2000-02-29T23:59:59.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000Z"),
    ] {
        assert_eq!(events::utc(seconds * 1000), text);
    }
    assert_eq!(events::utc(1234), "1970-01-01T00:00:01.234Z");
}
