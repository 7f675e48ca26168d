//! An owner that ignores the generation: it finds the holder's memory in its own address space and writes there by
//! itself, before, during and after the fence.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use mirrorbus::memory::Mapping;
use mirrorbus::{Attach, Deadline, Holder, LaneConfig, Level, Region};

use crate::child::{Child, PATIENCE, Watchdog, line_to_parent, rounds, say, variable};
use crate::common::{Fabric, Scratch, holder_config, keys, region_config, soon};
use crate::roles::pull;

const SIZE: usize = 1 << 20;
/// Bytes that the rogue stores as it should, acknowledged before it goes wild.
const GOOD: usize = SIZE / 2;
const STORE: usize = 512;

/// A line of /proc/PID/maps that names the holder's copy: where it is mapped, and the inode.
fn copies_in(process: &str) -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let copies = maps.lines().filter(|line| line.contains("memfd:mirrorbus-copy"));
    copies
        .map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let start = fields[0].split_once('-').unwrap().0;
            (u64::from_str_radix(start, 16).unwrap(), fields[4].parse().unwrap())
        })
        .collect()
}

fn good_store(number: usize) -> [u8; STORE] {
    std::array::from_fn(|index| ((number * 7 + index) % 255 + 1).to_le_bytes()[0])
}

/// Role: an honest owner up to the middle of the region; then one that writes past the library, and says how often.
pub(crate) fn write_regardless() {
    let url = variable("TEST_URL");
    let region = Region::open(region_config(&url, SIZE, Attach::Push { replace: false }), keys()).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    for number in 0..GOOD / STORE {
        lane.store(number * STORE, &good_store(number)).unwrap();
    }
    lane.flush(Level::Visible, soon()).unwrap();
    let copies = copies_in("self");
    let [(start, _)] = copies[..] else { panic!("{copies:?} are mapped") };
    let memory = File::options().write(true).open("/proc/self/mem").unwrap();
    let mut line = line_to_parent();
    writeln!(line, "ready").unwrap();
    for number in 0u64.. {
        // Other bytes each time that it comes to a page.
        let junk = [(number / (GOOD as u64 / 4096)).to_le_bytes()[0]; 4096];
        let page = GOOD as u64 + number % (GOOD as u64 / 4096) * 4096;
        memory.write_all_at(&junk, start + page).unwrap();
        // Many rounds a report, so that the parent is not what sets the pace.
        if number.is_multiple_of(4096) && writeln!(line, "{number}").is_err() {
            return;
        }
    }
}

fn digest(memory: &Mapping) -> [u8; 32] {
    memory.slice().digest()
}

/// Follows the rogue's reports until it has written `more` times since the first that is read now.
fn watch_writing(reports: &mut impl BufRead, more: u64) -> u64 {
    let mut read = || {
        let mut text = String::new();
        reports.read_line(&mut text).unwrap();
        text.trim().parse::<u64>().unwrap()
    };
    let from = read();
    loop {
        let now = read();
        if now >= from + more {
            return now;
        }
    }
}

#[test]
fn an_owner_that_ignores_the_generation_changes_nothing() {
    let watchdog = Watchdog::new("rogue owner");
    let mut written = 0;
    let mut inexact = 0;
    let count = rounds(5, 30);
    for round in 0..count {
        watchdog.feed(format!("{round} rounds"));
        let scratch = Scratch::new();
        let holder = Holder::start(holder_config(Fabric::Shm.url(&scratch), SIZE), keys()).unwrap();
        let child = Child::spawn("rogue", &[("TEST_URL", holder.url().to_string())]);
        assert_eq!(child.read_text(), "ready");
        let old = holder.memory();
        let mut reports = BufReader::new(child.line.try_clone().unwrap());
        watch_writing(&mut reports, 4096);
        // In the middle of its writing.
        let fenced = holder.fence(soon()).unwrap();
        let before = digest(&fenced.memory);
        let (old_before, mut changed) = (digest(&old), false);
        let until = Instant::now() + PATIENCE;
        for _ in 0..20 {
            written = watch_writing(&mut reports, 20_000);
            changed |= digest(&old) != old_before;
            assert!(digest(&fenced.memory) == before, "the fenced copy has changed");
            assert!(Instant::now() < until, "the rogue is slow");
        }
        assert!(changed, "the rogue does not write into the pages it had");
        let held = fenced.memory.slice().to_vec();
        for number in 0..GOOD / STORE {
            let at = number * STORE;
            assert!(held[at..at + STORE] == good_store(number), "acknowledged store {number} is lost");
        }
        inexact += usize::from(!fenced.exact);
        // A new owner takes over what was fenced while the old one goes on writing.
        let next = pull(holder.url(), SIZE);
        assert!(next.memory().to_vec() == held);
        watch_writing(&mut reports, 4096);
        assert!(digest(&holder.memory()) == before);
    }
    say(&format!(
        "rogue owner: {count} fences, {inexact} called inexact, {written} writes past the library in the last"
    ));
}

#[test]
fn both_processes_map_the_same_inode() {
    let scratch = Scratch::new();
    let holder = Holder::start(holder_config(Fabric::Shm.url(&scratch), SIZE), keys()).unwrap();
    let child = Child::spawn("rogue", &[("TEST_URL", holder.url().to_string())]);
    assert_eq!(child.read_text(), "ready");
    let (own, theirs) = (std::process::id(), child.id());
    assert_ne!(own, theirs);
    let copies = copies_in(&theirs.to_string());
    let [(_, inode)] = copies[..] else { panic!("{copies:?} are mapped") };
    // Other tests of this process hold copies too.
    let ours: Vec<_> = copies_in("self").into_iter().map(|(_, inode)| inode).collect();
    assert!(ours.contains(&inode), "{inode} is not in {ours:?}");
    say(&format!("shm: inode {inode} is mapped by the holder {own} and by the owner {theirs}"));
    // After the fence the holder's copy is another.
    let fenced = holder.fence(Deadline::within(Duration::from_secs(20))).unwrap();
    drop(fenced);
    let kept: Vec<_> = copies_in("self").into_iter().map(|(_, inode)| inode).collect();
    assert!(!kept.contains(&inode), "the holder still maps what the owner writes");
    assert_eq!(copies_in(&theirs.to_string())[0].1, inode);
}
