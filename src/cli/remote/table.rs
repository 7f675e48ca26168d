//! A status as text for people, at most 100 columns wide.

use std::fmt::Write;

use mirrorbus::base::format_bytes;
use mirrorbus::serve::admin::{
    DatasetStatus, DiskState, HoldProgress, LatencyStatus, NodeStatus, ReplicationState, ResyncProgress,
    Role, VolumeStatus,
};

use super::plain;

/// Columns.
pub(super) const WIDTH: usize = 100;

/// Columns of what stands before each line of a dataset.
const INDENT: usize = 14;

/// A status older than this was not taken when it was asked for.
const AGE_MAX_MS: u64 = 1000;

/// The whole text.
pub(super) fn render(status: &NodeStatus) -> String {
    let mut text = String::new();
    let head = format!(
        "node {}, mirrorbus {}, up {}",
        plain(&status.name),
        plain(&status.version),
        duration(status.uptime_ms)
    );
    line(&mut text, &head);
    if status.age_ms > AGE_MAX_MS {
        let seconds = status.age_ms / 1000;
        line(&mut text, &format!("THE NODE HANGS: this is {seconds} s old; look at its log"));
    }
    status.datasets.iter().for_each(|status| dataset(&mut text, status));
    text
}

fn dataset(text: &mut String, status: &DatasetStatus) {
    let DatasetStatus { role, disk_state, replication_state, lsn, ring, .. } = status;
    text.push('\n');
    line(text, &format!("{}: {role}, {disk_state}, {replication_state}", plain(&status.name)));
    row(text, "state", &words(*role, *disk_state, *replication_state));
    row(text, "why", &format!("{} ({})", plain(&status.reason.text), plain(&status.reason.code)));
    row(text, "id", &plain(&status.id));
    let end = format_bytes(lsn.appended);
    row(text, "log", &format!("generation {}, end {:#x} ({end})", status.generation, lsn.appended));
    let behind = |position: u64| format_bytes(lsn.appended.saturating_sub(position));
    let distances = format!(
        "committed {}, durable here {}, durable at the peer {}, applied {}, checkpoint {}",
        behind(lsn.committed),
        behind(lsn.durable_own),
        behind(lsn.durable_peer),
        behind(lsn.applied),
        behind(lsn.checkpoint)
    );
    row(text, "behind it", &distances);
    let used = [ring.used_bytes, ring.bytes].map(format_bytes);
    row(
        text,
        "ring",
        &format!("{} of {} used, {} of {} places", used[0], used[1], ring.used_places, ring.places),
    );
    if status.unreplicated_bytes > 0 {
        row(text, "missing", &format!("{} are on this node only", format_bytes(status.unreplicated_bytes)));
    }
    if let Some(check) = &status.check {
        let [done, total] = [check.done_bytes, check.total_bytes].map(format_bytes);
        row(text, "check", &format!("{}: {done} of {total}", check.kind.word()));
    }
    if let Some(progress) = &status.resync {
        row(text, "resync", &resync(progress));
    }
    if let Some(hold) = &status.hold {
        row(text, "held", &held(hold));
    }
    if let Some(hook) = &status.hook {
        row(text, "command", &format!("on-{}: {}", plain(&hook.on), plain(&hook.text)));
    }
    counters(text, status);
    for (operation, latency) in status.latency.named() {
        if latency.count > 0 {
            row(text, operation, &latencies(latency));
        }
    }
    volumes(text, &status.volumes);
}

/// What the three words mean together.
fn words(role: Role, disk: DiskState, replication: ReplicationState) -> String {
    let role = match role {
        Role::Primary => "serves clients",
        Role::Secondary => "follows the primary",
        Role::Undecided => "serves nobody: it does not know yet what it is",
    };
    let disk = match disk {
        DiskState::UpToDate => "its copy has all that was acknowledged",
        DiskState::Consistent => "its copy is whole, perhaps not the newest",
        DiskState::Outdated => "its copy is whole and older than another",
        DiskState::Failed => "its copy is out of service",
    };
    let replication = match replication {
        ReplicationState::Established => "the peer is in step",
        ReplicationState::Alone => "it goes on without the peer",
        ReplicationState::WaitingForPeer => "the peer has not been heard",
        ReplicationState::CatchingUp => "one is being given what it lacks",
        ReplicationState::SyncSource => "the peer is given what it lacks out of this node's files",
        ReplicationState::SyncTarget => "it is given what it lacks out of the primary's files",
        ReplicationState::LinkLost => "the link to the peer is lost",
    };
    format!("{role}; {disk}; {replication}")
}

fn resync(progress: &ResyncProgress) -> String {
    if progress.total_bytes == 0 {
        return "finding out what is lacking".to_owned();
    }
    let [left, total, rate] =
        [progress.left_bytes, progress.total_bytes, progress.bytes_per_second].map(format_bytes);
    let (whole, part) = (progress.in_sync_hundredths / 100, progress.in_sync_hundredths % 100);
    let rest = match progress.seconds_left {
        Some(seconds) => format!("{} left", duration(seconds * 1000)),
        None => "nothing moves".to_owned(),
    };
    format!("{whole}.{part:02} % in sync, {left} of {total} to go, {rate} a second, {rest}")
}

fn held(hold: &HoldProgress) -> String {
    let now = match (hold.is_over, hold.after.as_str()) {
        (false, _) => "",
        (true, "error") => "; longer than hold-seconds: requests fail",
        (true, _) => "; longer than hold-seconds",
    };
    format!("requests, for {}{now}", duration(hold.held_ms))
}

fn counters(text: &mut String, status: &DatasetStatus) {
    let counters = &status.counters;
    let clients = format!(
        "{} reads ({}), {} writes ({}), {} flushes, {} trims",
        counters.reads,
        format_bytes(counters.read_bytes),
        counters.writes,
        format_bytes(counters.write_bytes),
        counters.flushes,
        counters.trims
    );
    row(text, "clients", &clients);
    let disk = format!(
        "{} destaged in {} syncs, {} checkpoints, {} segments removed, {} punched",
        format_bytes(counters.destaged_bytes),
        counters.syncs,
        counters.checkpoints,
        counters.segments_removed,
        format_bytes(counters.punched_bytes)
    );
    row(text, "disk", &disk);
    if counters.damaged_blocks > 0 {
        row(text, "DAMAGE", &format!("{} blocks did not match their checksums", counters.damaged_blocks));
    }
    if counters.masked_reads + counters.repaired_blocks > 0 {
        let mended = format!(
            "{} blocks repaired, {} reads answered from the peer's data",
            counters.repaired_blocks, counters.masked_reads
        );
        row(text, "mended", &mended);
    }
}

fn latencies(latency: &LatencyStatus) -> String {
    let [p50, p99, p999, max] =
        [latency.p50_ns, latency.p99_ns, latency.p999_ns, latency.max_ns].map(nanoseconds);
    format!("p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}, of {}", latency.count)
}

/// A table of volumes. A long name stands on a line of its own.
pub(super) fn volumes(text: &mut String, volumes: &[VolumeStatus]) {
    if volumes.is_empty() {
        row(text, "volumes", "none");
        return;
    }
    let header = ["volume", "size", "block", "mapped"];
    volume_row(text, header.map(str::to_owned));
    for volume in volumes {
        let name = plain(&volume.name);
        let [size, mapped] = [volume.bytes, volume.mapped_bytes].map(format_bytes);
        volume_row(text, [name, size, volume.block_bytes.to_string(), mapped]);
    }
}

fn volume_row(text: &mut String, [name, size, block, mapped]: [String; 4]) {
    const NAME: usize = 40;
    if name.chars().count() > NAME {
        wrapped(text, "    ", &name);
        add(text, format_args!("    {:NAME$} {size:>12} {block:>7} {mapped:>12}\n", ""));
        return;
    }
    add(text, format_args!("    {name:NAME$} {size:>12} {block:>7} {mapped:>12}\n"));
}

/// A line that is cut into several where it is too long.
fn line(text: &mut String, content: &str) {
    wrapped(text, "", content);
}

/// A line with a word in front.
fn row(text: &mut String, name: &str, content: &str) {
    wrapped(text, &format!("  {name:<width$}", width = INDENT - 2), content);
}

/// `content` behind `front`, cut between words; what follows stands under the first.
fn wrapped(text: &mut String, front: &str, content: &str) {
    let room = WIDTH - front.chars().count();
    let mut line = String::new();
    let mut lines = Vec::new();
    for word in content.split(' ') {
        let (have, more) = (line.chars().count(), word.chars().count());
        if have > 0 && have + 1 + more > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        while line.chars().count() > room {
            let at = line.char_indices().nth(room).map_or(line.len(), |(at, _)| at);
            let rest = line.split_off(at);
            lines.push(std::mem::replace(&mut line, rest));
        }
    }
    lines.push(line);
    let blank = " ".repeat(front.chars().count());
    for (at, line) in lines.iter().enumerate() {
        let front = if at == 0 { front } else { &blank };
        add(text, format_args!("{}\n", format!("{front}{line}").trim_end()));
    }
}

fn add(text: &mut String, content: std::fmt::Arguments<'_>) {
    text.write_fmt(content).expect("a text takes all that is written");
}

/// Days, hours, minutes and seconds, from the first that is not 0.
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// With the unit that keeps it at or above 1, and one decimal below 10.
fn nanoseconds(nanoseconds: u64) -> String {
    let (unit, name) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (whole, tenth) = (nanoseconds / unit, nanoseconds % unit * 10 / unit);
    if whole < 10 && tenth > 0 { format!("{whole}.{tenth} {name}") } else { format!("{whole} {name}") }
}
