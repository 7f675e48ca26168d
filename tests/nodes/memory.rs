//! What is in the memory of a node's process, seen from outside: the mirrored region, where it has it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::client::BLOCK;

/// How a region begins.
const MAGIC: &[u8] = b"MBRING02";
/// Records begin at multiples of this.
const SLOT: usize = 64;

/// The bytes of every region that a process has mapped, each from its beginning: its own, and, over shared memory, its peer's.
pub(crate) fn regions(process: u32, region_bytes: usize) -> Vec<Vec<u8>> {
    found(process, region_bytes).into_iter().map(|(_, bytes)| bytes).collect()
}

/// Flips a bit of a block of this content, wherever a process has it in such a region; in how many places.
pub(crate) fn damage(process: u32, region_bytes: usize, content: &[u8]) -> usize {
    let memory = File::options().write(true).open(format!("/proc/{process}/mem")).unwrap();
    let mut count = 0;
    for (start, bytes) in found(process, region_bytes) {
        for place in places(&bytes, content) {
            memory.write_all_at(&[content[0] ^ 1], start + place as u64).unwrap();
            count += 1;
        }
    }
    count
}

/// Such regions: where each begins, and its bytes.
fn found(process: u32, region_bytes: usize) -> Vec<(u64, Vec<u8>)> {
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let [start, end] =
            [0, 1].map(|side| u64::from_str_radix(range.split('-').nth(side).unwrap(), 16).unwrap());
        if !rest.starts_with("rw") || end - start < region_bytes as u64 {
            continue;
        }
        // It may have been joined with a neighbour: a region begins on a page.
        let mut at = start;
        while at + region_bytes as u64 <= end {
            let mut head = [0; 8];
            if memory.read_exact_at(&mut head, at).is_ok() && head == *MAGIC {
                let mut bytes = vec![0; region_bytes];
                memory.read_exact_at(&mut bytes, at).unwrap();
                found.push((at, bytes));
                at += region_bytes as u64;
            } else {
                at += BLOCK as u64;
            }
        }
    }
    found
}

/// Where a block of this content lies: behind its record's slots.
pub(crate) fn places(region: &[u8], content: &[u8]) -> Vec<usize> {
    let starts = (0..region.len() - content.len()).step_by(SLOT);
    starts.filter(|start| region[*start..].starts_with(content)).collect()
}

/// The processor time that a process has taken so far, in the kernel's ticks.
pub(crate) fn processor_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // What follows the name, which is in parentheses: state is the first, user and system time the 12th and 13th.
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
