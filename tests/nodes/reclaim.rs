//! Room of what was written anew is given back on both nodes, and nothing that counts goes with it.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::client::{BLOCK, Client, content};
use crate::common::Random;
use crate::rig::{Medium, NAMES, Plan, Rig};

/// Of the volume, and of the ring.
const VOLUME_MIB: u64 = 16;
const RING_MIB: u64 = 8;

/// Room is given back behind the marker, which moves every two seconds at most: long before this is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Blocks that are written at once, at most.
const BLOCKS_MAX: usize = 8;

fn assert_all(client: &mut Client, numbers: &[u32], when: &str) {
    for (block, number) in (0_u64..).zip(numbers) {
        let found = client.read(block * BLOCK as u64, 4096);
        assert!(
            found == Ok(content(block, *number).to_vec()),
            "{when}: block {block} is not that of write {number}"
        );
    }
}

#[test]
fn holes_are_punched_on_both_nodes_and_everything_reads_back_after_a_restart() {
    let mut rig = Rig::pair(Plan { volume_mib: VOLUME_MIB, ring_mib: RING_MIB, ..Plan::new(Medium::Shm) });
    let blocks = usize::try_from(VOLUME_MIB << 20).unwrap() / BLOCK;
    let mut client = rig.client(0);
    let mut random = Random(0x0bad_cafe);
    let mut numbers = vec![0; blocks];
    let mut number = 0;
    let mut write = |client: &mut Client, numbers: &mut [u32], first: usize, count: usize| {
        number += 1;
        let bytes: Vec<u8> = (first..first + count).flat_map(|block| content(block as u64, number)).collect();
        assert_eq!(client.write((first * BLOCK) as u64, &bytes), 0);
        numbers[first..first + count].fill(number);
    };
    for first in (0..blocks).step_by(BLOCKS_MAX) {
        write(&mut client, &mut numbers, first, BLOCKS_MAX);
    }
    let (mut written, began) = (0, Instant::now());
    let given_back = |node: usize| {
        let counters = rig.status(node).unwrap().counters;
        counters.punched_bytes > 0 && counters.segments_removed > 0
    };
    while !(written > 4 * blocks && given_back(0) && given_back(1)) {
        for _ in 0..256 {
            let count = 1 + random.below(BLOCKS_MAX);
            // One half of the volume is written anew more often: so some segments have little that lives, and some nothing.
            let within = if random.below(4) == 0 { blocks } else { blocks / 2 };
            write(&mut client, &mut numbers, random.below(within - count), count);
            written += count;
        }
        assert!(began.elapsed() < PATIENCE, "{:?} {:?}\n{}", rig.status(0), rig.status(1), rig.logs());
    }
    assert_all(&mut client, &numbers, "while they run");
    assert_eq!(client.flush(), 0);
    for node in [0, 1] {
        // One that is given back meanwhile is no file any more.
        let files: Vec<_> = rig.segments(node).iter().filter_map(|path| path.metadata().ok()).collect();
        let lengths: u64 = files.iter().map(MetadataExt::size).sum();
        let rooms: u64 = files.iter().map(|file| 512 * file.blocks()).sum();
        assert!(rooms < lengths, "{}: no file has a hole: {rooms} of {lengths} bytes", NAMES[node]);
    }
    // With nothing but the files, right after.
    rig.kill(0);
    rig.kill(1);
    rig.start(0);
    rig.start(1);
    let serving = rig.wait_for_pair();
    assert_all(&mut rig.client(serving), &numbers, "after a restart of both");
    [0, 1].into_iter().for_each(|node| rig.told(node, &["scrub", "vm"]));
    rig.kill(serving);
    rig.told(1 - serving, &["promote", "vm"]);
    assert_all(&mut rig.client(1 - serving), &numbers, "on the other node");
}
