//! From a node's status to its metrics. Names and labels are an interface: `docs/operations.md` lists them.
//!
//! Prometheus keeps values as floating-point numbers, of which those beyond 2^53 are rounded. Positions of the log grow for years, so
//! their distances, which are what is watched, are computed here, exactly.

use super::text::{Kind, Page};
use crate::serve::admin::{CheckStatus, DatasetStatus, DiskState, NodeStatus, ReplicationState, Role};

/// The metrics of `status`, in Prometheus' text format.
#[must_use]
pub fn metrics_page(status: &NodeStatus) -> String {
    let mut page = Page::default();
    node(&mut page, status);
    states(&mut page, &status.datasets);
    log(&mut page, &status.datasets);
    checks(&mut page, &status.datasets);
    resync(&mut page, &status.datasets);
    holds(&mut page, &status.datasets);
    volumes(&mut page, &status.datasets);
    counters(&mut page, &status.datasets);
    latencies(&mut page, &status.datasets);
    page.finish()
}

fn node(page: &mut Page, status: &NodeStatus) {
    page.family(Kind::Gauge, "mirrorbus_build_info", "Always 1; the labels say which program this is.")
        .sample(&[("node", &status.name), ("version", &status.version)], 1);
    page.family(Kind::Gauge, "mirrorbus_uptime_seconds", "Since the node's start.")
        .seconds(&[], status.uptime_ms.saturating_mul(1_000_000));
    page.family(
        Kind::Gauge,
        "mirrorbus_status_age_seconds",
        "Since the values on this page were taken; above 1 something in the node hangs.",
    )
    .seconds(&[], status.age_ms.saturating_mul(1_000_000));
}

/// Roles and states: of each dataset one word has 1, the others 0.
fn states(page: &mut Page, datasets: &[DatasetStatus]) {
    let mut family = page.family(Kind::Gauge, "mirrorbus_role", "What this node is for the dataset.");
    for dataset in datasets {
        for role in Role::ALL {
            let labels = [("dataset", &*dataset.name), ("role", role.word())];
            family.sample(&labels, u64::from(dataset.role == *role));
        }
    }
    let mut family = page.family(Kind::Gauge, "mirrorbus_disk_state", "What this node's copy is worth.");
    for dataset in datasets {
        for state in DiskState::ALL {
            let labels = [("dataset", &*dataset.name), ("state", state.word())];
            family.sample(&labels, u64::from(dataset.disk_state == *state));
        }
    }
    let mut family =
        page.family(Kind::Gauge, "mirrorbus_replication_state", "How it is between the two nodes.");
    for dataset in datasets {
        for state in ReplicationState::ALL {
            let labels = [("dataset", &*dataset.name), ("state", state.word())];
            family.sample(&labels, u64::from(dataset.replication_state == *state));
        }
    }
}

/// One value of a dataset.
type Of = fn(&DatasetStatus) -> u64;

fn log(page: &mut Page, datasets: &[DatasetStatus]) {
    let single: [(&'static str, &'static str, Of); 7] = [
        ("mirrorbus_generation", "The writer's uninterrupted part of the log.", |dataset| dataset.generation),
        ("mirrorbus_log_end_bytes", "The end of the log on this node.", |dataset| dataset.lsn.appended),
        ("mirrorbus_unreplicated_bytes", "Bytes of the log that the peer is not known to have.", |dataset| {
            dataset.unreplicated_bytes
        }),
        ("mirrorbus_ring_bytes", "The ring.", |dataset| dataset.ring.bytes),
        ("mirrorbus_ring_used_bytes", "Bytes still needed in the ring.", |dataset| dataset.ring.used_bytes),
        ("mirrorbus_ring_places", "Segments for which the ring has room.", |dataset| dataset.ring.places),
        ("mirrorbus_ring_used_places", "Segments still needed in the ring.", |dataset| {
            dataset.ring.used_places
        }),
    ];
    for (name, help, value) in single {
        let mut family = page.family(Kind::Gauge, name, help);
        datasets.iter().for_each(|dataset| {
            family.sample(&[("dataset", &dataset.name)], value(dataset));
        });
    }
    let help = "Bytes from a position of the log to its end: what is not yet committed, durable here or at the \
                peer, applied, in the checkpoint, in the marker.";
    let mut family = page.family(Kind::Gauge, "mirrorbus_log_behind_bytes", help);
    for dataset in datasets {
        for (position, lsn) in dataset.lsn.named() {
            let behind = dataset.lsn.appended.saturating_sub(lsn);
            family.sample(&[("dataset", &dataset.name), ("position", position)], behind);
        }
    }
}

/// One value of a check.
type OfCheck = fn(&CheckStatus) -> u64;

/// Scrubs and comparisons; there are samples while one is under way.
fn checks(page: &mut Page, datasets: &[DatasetStatus]) {
    let value: [(&'static str, &'static str, OfCheck); 2] = [
        ("mirrorbus_check_done_bytes", "Bytes that the check under way has looked at.", |check| {
            check.done_bytes
        }),
        ("mirrorbus_check_total_bytes", "Bytes that it is to look at.", |check| check.total_bytes),
    ];
    for (name, help, value) in value {
        let mut family = page.family(Kind::Gauge, name, help);
        for dataset in datasets {
            if let Some(check) = &dataset.check {
                family.sample(&[("dataset", &dataset.name), ("check", check.kind.word())], value(check));
            }
        }
    }
}

/// Of datasets that are being resynced only.
fn resync(page: &mut Page, datasets: &[DatasetStatus]) {
    let under_way = || datasets.iter().filter_map(|dataset| Some((&*dataset.name, dataset.resync?)));
    let help = "Bytes of data that were lacking when the resync began; 0 while that is not known.";
    let mut family = page.family(Kind::Gauge, "mirrorbus_resync_bytes", help);
    under_way().for_each(|(name, resync)| {
        family.sample(&[("dataset", name)], resync.total_bytes);
    });
    let help = "Bytes of them that are lacking now.";
    let mut family = page.family(Kind::Gauge, "mirrorbus_resync_left_bytes", help);
    under_way().for_each(|(name, resync)| {
        family.sample(&[("dataset", name)], resync.left_bytes);
    });
    let help = "How long the rest takes at the rate of late; absent while that is not known.";
    let mut family = page.family(Kind::Gauge, "mirrorbus_resync_left_seconds", help);
    under_way().for_each(|(name, resync)| {
        if let Some(left) = resync.seconds_left {
            family.sample(&[("dataset", name)], left);
        }
    });
}

/// Requests that are held, of all datasets: 0 where none are.
fn holds(page: &mut Page, datasets: &[DatasetStatus]) {
    let help = "How long requests have been held, as it is not decided which node goes on.";
    let mut family = page.family(Kind::Gauge, "mirrorbus_held_seconds", help);
    for dataset in datasets {
        let held_ms = dataset.hold.as_ref().map_or(0, |hold| hold.held_ms);
        family.seconds(&[("dataset", &dataset.name)], held_ms.saturating_mul(1_000_000));
    }
    let help = "1 while that is longer than was allowed.";
    let mut family = page.family(Kind::Gauge, "mirrorbus_held_too_long", help);
    for dataset in datasets {
        let is_over = dataset.hold.as_ref().is_some_and(|hold| hold.is_over);
        family.sample(&[("dataset", &dataset.name)], u64::from(is_over));
    }
}

fn volumes(page: &mut Page, datasets: &[DatasetStatus]) {
    let mut family = page.family(Kind::Gauge, "mirrorbus_volume_bytes", "The volume's size.");
    for dataset in datasets {
        for volume in &dataset.volumes {
            family.sample(&[("dataset", &dataset.name), ("volume", &volume.name)], volume.bytes);
        }
    }
    let help = "Bytes of the volume that have data.";
    let mut family = page.family(Kind::Gauge, "mirrorbus_volume_mapped_bytes", help);
    for dataset in datasets {
        for volume in &dataset.volumes {
            family.sample(&[("dataset", &dataset.name), ("volume", &volume.name)], volume.mapped_bytes);
        }
    }
}

/// Names of the counters' families, in the order of `Counters::named`.
const COUNTERS: [(&str, &str); 21] = [
    ("mirrorbus_reads_total", "Read requests."),
    ("mirrorbus_read_bytes_total", "Bytes read."),
    ("mirrorbus_writes_total", "Write requests."),
    ("mirrorbus_write_bytes_total", "Bytes written."),
    ("mirrorbus_trims_total", "Trims and zeroed ranges."),
    ("mirrorbus_flushes_total", "Flushes that clients asked for."),
    ("mirrorbus_destaged_bytes_total", "Bytes written to the segments' files."),
    ("mirrorbus_syncs_total", "Syncs of the segments' files."),
    ("mirrorbus_checkpoints_total", "Checkpoints written."),
    ("mirrorbus_segments_removed_total", "Segments removed because all in them was dead."),
    ("mirrorbus_punched_bytes_total", "Bytes of dead blocks given back to the filesystem."),
    ("mirrorbus_damaged_blocks_total", "Blocks that did not match their checksum, as scrubs found."),
    ("mirrorbus_repaired_blocks_total", "Blocks written again from good data."),
    ("mirrorbus_masked_reads_total", "Reads answered from the peer's data, because this node's was bad."),
    ("mirrorbus_resync_questions_total", "Questions of a peer that is brought up to date."),
    ("mirrorbus_resync_pieces_total", "Answers with data to a peer that is brought up to date."),
    ("mirrorbus_resync_data_bytes_total", "Bytes of data that it was sent."),
    ("mirrorbus_resync_table_bytes_total", "Bytes of maps and of segments' tables that it was sent."),
    ("mirrorbus_hold_failures_total", "Times that a request failed because it was held for too long."),
    ("mirrorbus_hook_runs_total", "Commands run because this node began to serve, or ceased to."),
    ("mirrorbus_hook_failures_total", "Those that failed, or took too long."),
];

fn counters(page: &mut Page, datasets: &[DatasetStatus]) {
    for (at, (name, help)) in COUNTERS.into_iter().enumerate() {
        let mut family = page.family(Kind::Counter, name, help);
        for dataset in datasets {
            let (_, value) = dataset.counters.named()[at];
            family.sample(&[("dataset", &dataset.name)], value);
        }
    }
}

fn latencies(page: &mut Page, datasets: &[DatasetStatus]) {
    let help = "How long clients waited for their answers.";
    let mut family = page.family(Kind::Histogram, "mirrorbus_latency_seconds", help);
    for dataset in datasets {
        for (operation, latency) in dataset.latency.named() {
            let buckets = latency.buckets.iter().map(|bucket| (bucket.at_most_ns, bucket.count));
            let labels = [("dataset", &*dataset.name), ("operation", operation)];
            family.histogram(&labels, buckets, latency.count, latency.sum_ns);
        }
    }
}

#[cfg(test)]
pub(super) const COUNTER_NAMES: [(&str, &str); 21] = COUNTERS;
