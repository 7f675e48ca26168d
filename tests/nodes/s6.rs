//! What is promised of markers and of nodes that were away, as far as it is seen from outside of real nodes only: by the calls of the system
//! that they make, and by what a node finds that was killed. The rest is in `tests/store/s6.rs`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mirrorbus::serve::admin::ReplicationState;

use crate::child::say;
use crate::client::{BLOCK, Client, content};
use crate::rig::{Medium, NAMES, PATIENCE, Plan, Rig};
use crate::tool::tool;

/// Blocks of one write where many are needed.
const BATCH: u64 = 64;

fn write(client: &mut Client, blocks: std::ops::Range<u64>, number: u32) {
    let bytes: Vec<u8> = blocks.clone().flat_map(|block| content(block, number)).collect();
    assert_eq!(client.write(blocks.start * BLOCK as u64, &bytes), 0, "{blocks:?}");
}

fn write_all(client: &mut Client, blocks: std::ops::Range<u64>, number: u32) {
    let mut first = blocks.start;
    while first < blocks.end {
        let end = blocks.end.min(first + BATCH);
        write(client, first..end, number);
        first = end;
    }
}

fn assert_written(client: &mut Client, blocks: std::ops::Range<u64>, number: u32) {
    for block in blocks {
        let found = client.read(block * BLOCK as u64, 4096);
        assert!(found == Ok(content(block, number).to_vec()), "block {block} is not that of write {number}");
    }
}

/// The other one, which is gone, is done without.
fn go_alone(rig: &Rig) {
    rig.wait(0, "without a link", |status| status.replication_state == ReplicationState::LinkLost);
    rig.told(0, &["alone", "vm"]);
}

/// The calls in what strace has written down, those that it wrote in two halves joined; without the thread's number.
fn calls(trace: &Path, from: u64) -> Vec<String> {
    let bytes = std::fs::read(trace).unwrap();
    let text = String::from_utf8_lossy(&bytes[usize::try_from(from).unwrap()..]).into_owned();
    let mut begun = HashMap::new();
    let mut calls = Vec::new();
    for (thread, call) in text.lines().filter_map(|line| line.split_once(' ')) {
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread.to_owned(), first.to_owned());
        } else if let Some((_, rest)) = call.split_once(" resumed>") {
            calls.extend(begun.remove(thread).map(|first| first + rest));
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

fn strace(words: &[&str]) -> Vec<String> {
    drop(tool("strace", "strace"));
    let all = [&["strace", "-f", "-qq", "-y", "-e", "signal=none", "-o", "NODE.trace"], words].concat();
    all.into_iter().map(str::to_owned).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// From when to when a node was syncing its marker, each time.
fn syncs_of_the_marker(rig: &Rig, node: usize) -> Vec<(f64, f64)> {
    let calls = calls(&rig.path(NAMES[node]).with_extension("trace"), 0);
    let syncs = calls.iter().filter(|call| call.contains("marker.redb") && call.contains("sync("));
    let window = |call: &String| {
        let from: f64 = call.split_once(' ')?.0.parse().ok()?;
        let took: f64 = call.rsplit_once('<')?.1.strip_suffix('>')?.parse().ok()?;
        Some((from, from + took))
    };
    syncs.filter_map(window).collect()
}

/// Each sync of a marker, on either node, takes a second; meanwhile writes are asked for, and acknowledged.
fn no_write_waits_for_the_end_of_a_phase(medium: Medium) {
    let paths = ["-P", "SCRATCH/NODE.d/marker.redb", "-ttt", "-T", "-e", "trace=fsync,fdatasync"];
    let under = strace(&[&paths[..], &["-e", "inject=fsync,fdatasync:delay_enter=1000000"]].concat());
    let rig = Rig::pair(Plan { under, ..Plan::new(medium) });
    let mut client = rig.client(0);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let began = now();
    // When each was asked for, and when it was acknowledged.
    let writes = Arc::new(Mutex::new(Vec::new()));
    let answered = writes.clone();
    let writer = std::thread::spawn(move || {
        for number in 1.. {
            let (block, asked) = (u64::from(number) % 2000, now());
            write(&mut client, block..block + 1, number);
            answered.lock().unwrap().push((asked, now()));
            if stopped.load(Ordering::SeqCst) {
                break;
            }
        }
    });
    // Of each sync since how many writes came and went meanwhile. On a machine that does much else a second may be short.
    let meanwhile = |node| {
        let syncs = syncs_of_the_marker(&rig, node).into_iter().filter(|sync| sync.0 > began);
        let writes = writes.lock().unwrap();
        let within = |(from, to): (f64, f64)| {
            writes.iter().filter(|(asked, acknowledged)| *asked > from && *acknowledged < to).count()
        };
        syncs.map(within).collect::<Vec<_>>()
    };
    let waited = Instant::now();
    let counts = loop {
        let counts = [meanwhile(0), meanwhile(1)];
        if counts.iter().all(|counts| {
            counts.len() >= 2 && 2 * counts.iter().filter(|count| **count > 0).count() > counts.len()
        }) {
            break counts;
        }
        let late = waited.elapsed() >= PATIENCE;
        assert!(!late, "no phase ends, or none with a write in its midst: {counts:?}\n{}", rig.logs());
        std::thread::sleep(Duration::from_millis(100));
    };
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    say(&format!("{medium:?}: writes while {NAMES:?} sync their markers for a second each: {counts:?}"));
}

#[test]
fn no_write_waits_for_the_end_of_a_phase_over_shm() {
    no_write_waits_for_the_end_of_a_phase(Medium::Shm);
}

#[test]
fn no_write_waits_for_the_end_of_a_phase_over_tcp() {
    no_write_waits_for_the_end_of_a_phase(Medium::Tcp);
}

/// What a node wrote into files, by what kind of file: calls and bytes. What makes something durable or changes a name is a call too.
fn written(rig: &Rig, node: usize, from: u64) -> BTreeMap<String, (u64, u64)> {
    let scratch = rig.path("");
    let mut written = BTreeMap::new();
    for call in calls(&rig.path(NAMES[node]).with_extension("trace"), from) {
        let Some((_, rest)) = call.split_once(scratch.to_str().unwrap()) else { continue };
        let end = rest.find(['>', '"']).unwrap_or(rest.len());
        let kind = if rest[..end].contains("/segments") { "segments" } else { &rest[..end] };
        let bytes = match call.rsplit_once(" = ") {
            Some((_, bytes)) if call.contains("write") => bytes.parse().unwrap_or(0),
            _ => 0,
        };
        let (calls, all) = written.entry(kind.to_owned()).or_insert((0_u64, 0_u64));
        (*calls, *all) = (*calls + 1, *all + bytes);
    }
    written
}

fn traced(rig: &Rig, node: usize) -> u64 {
    rig.path(NAMES[node]).with_extension("trace").metadata().unwrap().len()
}

/// Nothing notes what a peer lacks: mirrored or alone, a write is written once, into its segment. Alone, a mark of where the log ends goes with
/// each sync.
#[test]
fn no_write_costs_a_log_of_what_changed() {
    let names = "trace=write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,ftruncate,fallocate,fsync,fdatasync,\
                 sync_file_range,msync,rename,renameat,renameat2,unlink,unlinkat";
    let mut rig = Rig::pair(Plan { under: strace(&["-e", names]), ..Plan::new(Medium::Tcp) });
    let mut client = rig.client(0);
    let (writes, data) = (2000, 2000 * BLOCK as u64);
    let judge = |rig: &Rig, node: usize, from, how: &str, began: Instant| {
        let mut written = written(rig, node, from);
        say(&format!("{} {how}: {written:?}", NAMES[node]));
        let (calls, bytes) = written.remove("segments").expect("segments");
        assert!(bytes >= data && bytes <= 2 * data + (1 << 20), "{how}: {bytes} bytes for {data} of data");
        // Data, its record, and a sync; and segments that are made or sealed.
        assert!(calls <= 4 * writes, "{how}: {calls} calls for {writes} writes");
        // To where the disk has the log: the same whatever was written, once a sync, and only where that disk decides.
        let (marks, bytes) = written.remove(&format!("{}.d/durable", NAMES[node])).unwrap_or_default();
        assert!(bytes <= 4096 * marks && marks <= writes + 10, "{how}: {marks} marks of {bytes} bytes");
        assert_eq!(bytes > 0, how == "alone", "{how}: {marks} marks of {bytes} bytes");
        let others: u64 = written.values().map(|(calls, _)| calls).sum();
        // Checkpoints and their like come by the clock.
        let by_the_clock = began.elapsed().as_secs() * 20;
        assert!(
            others < writes / 5 + by_the_clock,
            "{how}: {others} calls beside the segments for {writes} writes: {written:?}"
        );
    };
    let (from, began) = ([0, 1].map(|node| traced(&rig, node)), Instant::now());
    for block in 0..writes {
        write(&mut client, block..block + 1, 1);
    }
    assert_eq!(client.flush(), 0);
    rig.wait(0, "destaged", |status| status.lsn.durable_peer >= status.lsn.committed);
    [0, 1].into_iter().for_each(|node| judge(&rig, node, from[node], "mirrored", began));
    rig.kill(1);
    go_alone(&rig);
    let (from, began) = (traced(&rig, 0), Instant::now());
    for block in 0..writes {
        write(&mut client, block..block + 1, 2);
    }
    judge(&rig, 0, from, "alone", began);
}

/// When each node wrote its checkpoint and its marker last.
fn checkpoints_written(rig: &Rig) -> Vec<SystemTime> {
    let files = ["checkpoint.redb", "marker.redb"];
    let paths = [0, 1].into_iter().flat_map(|node| files.map(|file| rig.directory(node).join(file)));
    // Alone, a primary writes checkpoints, which matters to nobody.
    paths.skip(1).map(|path| path.metadata().unwrap().modified().unwrap()).collect()
}

/// The other node is killed when a phase is not over, and its disk has not all of that phase: the marker before counts, and what came after it
/// is sent again, beside what was written alone.
fn a_crash_between_markers_goes_back_to_the_older_one(medium: Medium) {
    const RING: u64 = 4 << 20;
    const SEGMENT: u64 = 1 << 20;
    let mut rig = Rig::pair(Plan { volume_mib: 32, ring_mib: RING >> 20, ..Plan::new(medium) });
    let mut client = rig.client(0);
    write_all(&mut client, 0..1024, 1);
    assert_eq!(client.flush(), 0);
    // They met, which ended a phase.
    [0, 1].into_iter().for_each(|node| _ = rig.wait(node, "marked", |status| status.lsn.marker > 0));
    // Less than it takes for a checkpoint.
    let (phase, alone) = (1024..2560, 4096..6656);
    let began = Instant::now();
    let (before, checkpoint, phase_bytes) = loop {
        // What is being written meanwhile is not in the status yet.
        std::thread::sleep(Duration::from_millis(500));
        let written = checkpoints_written(&rig);
        let [primary, secondary] = [0, 1].map(|node| rig.status(node).unwrap().lsn);
        write_all(&mut client, phase.clone(), 2);
        assert_eq!(client.flush(), 0);
        let phase_bytes = rig.status(0).unwrap().lsn.appended - primary.marker;
        rig.kill(1);
        go_alone(&rig);
        if written == checkpoints_written(&rig) {
            break ([primary.marker, secondary.marker], secondary.checkpoint, phase_bytes);
        }
        assert!(began.elapsed() < PATIENCE, "a phase ends each time");
        rig.start(1);
        rig.wait_for_pair();
    };
    // As if these had not come to its disk: the segments behind those that it knows to have there.
    let kept = before[0].max(before[1]).max(checkpoint) / SEGMENT * SEGMENT;
    let mut lost = 0;
    for path in rig.segments(1) {
        let base = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16);
        let is_begun = std::fs::read(&path).unwrap().starts_with(b"MBSEGM01");
        if base.is_ok_and(|base| base > kept) && is_begun {
            std::fs::remove_file(path).unwrap();
            lost += 1;
        }
    }
    assert!(lost >= 3, "only {lost} segments of a phase");
    write_all(&mut client, alone.clone(), 3);
    let status = rig.status(0).unwrap();
    assert_eq!(status.lsn.marker, before[0], "it stays");
    rig.start(1);
    let of_its_own = rig.wait(1, "up", |status| status.lsn.marker > 0).lsn.marker;
    assert_eq!(rig.wait_for_pair(), 0);
    let moved = rig.status(0).unwrap().counters.resync_data_bytes - status.counters.resync_data_bytes;
    let (changed, lost) = ((alone.end - alone.start) * BLOCK as u64, (lost - 1) * SEGMENT * 9 / 10);
    say(&format!("{medium:?}: markers {before:?}, {changed} bytes alone, {lost} lost before: {moved} moved"));
    assert!(of_its_own >= before[1], "{of_its_own} after {before:?}");
    assert!(moved + SEGMENT >= changed + lost, "{moved} bytes moved, {changed} changed and {lost} lost");
    let most = changed * 11 / 10 + 2 * phase_bytes;
    assert!(moved <= most, "{moved} bytes moved, at most {most}");
    rig.told(0, &["verify", "vm"]);
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    let mut client = rig.client(1);
    assert_written(&mut client, 0..1024, 1);
    assert_written(&mut client, phase, 2);
    assert_written(&mut client, alone, 3);
    rig.told(1, &["scrub", "vm"]);
}

#[test]
fn a_crash_between_markers_goes_back_to_the_older_one_over_shm() {
    a_crash_between_markers_goes_back_to_the_older_one(Medium::Shm);
}

#[test]
fn a_crash_between_markers_goes_back_to_the_older_one_over_tcp() {
    a_crash_between_markers_goes_back_to_the_older_one(Medium::Tcp);
}

/// Nothing is live of the segment that the log ends in, and the primary goes on in another one: who is brought up to date has that segment all the
/// same, and finds the end of its log there when it starts again.
#[test]
fn a_node_that_lacked_no_data_at_the_end_of_the_log_starts_again() {
    const BLOCKS: u64 = 4096;
    let mut rig = Rig::pair(Plan { volume_mib: 32, ring_mib: 4, ..Plan::new(Medium::Tcp) });
    let mut client = rig.client(0);
    write_all(&mut client, 0..16, 1);
    rig.kill(1);
    go_alone(&rig);
    // More than the ring has.
    write_all(&mut client, 16..BLOCKS, 2);
    assert_eq!(client.trim(16 * BLOCK as u64, u32::try_from((BLOCKS - 16) * BLOCK as u64).unwrap()), 0);
    assert_eq!(client.flush(), 0);
    rig.kill(0);
    rig.start(0);
    rig.wait(0, "alone", |status| status.replication_state == ReplicationState::Alone);
    for _ in 0..2 {
        rig.start(1);
        assert_eq!(rig.wait_for_pair(), 0);
        rig.kill(1);
        go_alone(&rig);
    }
    assert!(rig.status(0).unwrap().counters.resync_table_bytes > 0, "it came by the ring");
    rig.start(1);
    assert_eq!(rig.wait_for_pair(), 0);
    assert_written(&mut rig.client(0), 0..16, 1);
    rig.told(0, &["verify", "vm"]);
}
