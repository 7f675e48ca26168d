//! Segments' files that are damaged behind the back of running nodes: found with exact ranges, served from the peer, repaired from the good
//! side, and from that only.

use std::collections::BTreeSet;

use mirrorbus::store::{IoError, Outcome, Side};

use super::rig::{Medium, Rig, here, pattern, read, wait_for, write};
use super::spoil::{ALL, BLOCK, BLOCKS, Damage, SEGMENT_BYTES, Written, blocks, content, damage, segments};

fn scrub_finds_and_repairs(node: usize, medium: Medium) {
    let written = Written::new(medium);
    let scrub = |repairs| written.nodes[node].scrub(repairs).unwrap();
    assert_eq!(scrub(true).damaged_blocks, 0);
    for how in ALL {
        let (path, lives) = written.first(node);
        let expected = damage(how, &path, &written.stale[node], &lives);
        let found = scrub(false);
        assert_eq!(blocks(&found.ranges, Side::Here, Outcome::Found), expected, "{how:?} on {node}");
        assert_eq!((found.damaged_blocks, found.repaired_blocks), (expected.len() as u64, 0), "{how:?}");
        let found = scrub(true);
        assert_eq!(blocks(&found.ranges, Side::Here, Outcome::Repaired), expected, "{how:?} on {node}");
        assert_eq!(found.repaired_blocks, expected.len() as u64, "{how:?}");
        let found = scrub(false);
        assert_eq!((found.damaged_blocks, found.ranges), (0, Vec::new()), "{how:?} on {node}");
        assert_eq!(written.nodes[1 - node].scrub(false).unwrap().damaged_blocks, 0, "{how:?}: the other one");
        assert_eq!(written.nodes[0].verify(None, false).unwrap().differing_blocks, 0, "{how:?} on {node}");
    }
    assert!(written.nodes[node].status().counts.repaired_blocks > 1000);
    written.check_all();
    // And what was repaired is there after a restart, on this node alone.
    let Written { rig, nodes, .. } = written;
    drop(nodes);
    let again = rig.open(node);
    wait_for(&again, |status| status.reason.code == "peer-unreachable");
    again.promote(true).unwrap();
    let volume = again.volume("root").unwrap();
    for block in 0..BLOCKS {
        assert!(read(&volume, block * BLOCK as u64, BLOCK) == content(block), "block {block}");
    }
}

#[test]
fn a_scrub_of_the_primary_finds_and_repairs() {
    scrub_finds_and_repairs(0, Medium::Shm);
}

#[test]
fn a_scrub_of_the_secondary_finds_and_repairs() {
    scrub_finds_and_repairs(1, Medium::Tcp);
}

#[test]
fn a_comparison_names_the_side_and_repairs_it() {
    let written = Written::new(Medium::Shm);
    for (node, asks) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let side = if node == asks { Side::Here } else { Side::Peer };
        for how in ALL {
            let (path, lives) = written.first(node);
            let expected = damage(how, &path, &written.stale[node], &lives);
            let verify = |volume, repairs| written.nodes[asks].verify(volume, repairs).unwrap();
            let what = format!("{how:?} on {node}, asked at {asks}");
            let found = verify(None, false);
            assert_eq!(blocks(&found.ranges, side, Outcome::Found), expected, "{what}");
            let other = std::fs::read(written.first(1 - node).0).unwrap();
            let found = verify(Some("root"), true);
            assert_eq!(blocks(&found.ranges, side, Outcome::Repaired), expected, "{what}");
            assert_eq!(found.repaired_blocks, expected.len() as u64, "{what}");
            assert!(
                std::fs::read(written.first(1 - node).0).unwrap() == other,
                "{what}: the good side was written"
            );
            let found = verify(None, false);
            assert_eq!((found.differing_blocks, found.moving_blocks), (0, 0), "{what}: {found:?}");
        }
    }
    written.check_all();
    assert!(written.nodes[0].verify(Some("nothing"), false).is_err());
}

/// A segment of which the dead blocks were given back on both nodes: nobody has them, and nobody needs them.
#[test]
fn a_segment_with_holes_is_made_again_without_what_is_dead() {
    let written = Written::new(Medium::Tcp);
    let volume = written.nodes[0].volume("root").unwrap();
    for round in 0..8 {
        for block in (0..BLOCKS).filter(|block| block % 6 != 1) {
            write(&volume, block * BLOCK as u64, &pattern(block + 10_000 * (round + 1), BLOCK));
        }
        volume.flush(&here).unwrap();
    }
    for node in &written.nodes {
        wait_for(node, |status| status.counts.punched_bytes > 0);
    }
    let lives = |node| {
        let path = segments(&written.rig, node).remove(0);
        let bytes = std::fs::read(&path).unwrap();
        let is_there = |block: &u64| {
            let wanted = content(*block);
            bytes.chunks_exact(BLOCK).any(|found| found == wanted)
        };
        (path, (0..300).filter(|block| block % 6 == 1).filter(is_there).collect::<BTreeSet<_>>())
    };
    for node in [1, 0] {
        let (path, expected) = lives(node);
        assert!(expected.len() > 40, "{expected:?}");
        std::fs::remove_file(&path).unwrap();
        let found = written.nodes[node].scrub(true).unwrap();
        assert_eq!(found.ranges.len(), expected.len(), "each is a range of its own");
        assert_eq!(blocks(&found.ranges, Side::Here, Outcome::Repaired), expected);
        assert_eq!(lives(node), (path.clone(), expected));
        use std::os::unix::fs::MetadataExt;
        let taken = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(taken < SEGMENT_BYTES * 3 / 4, "{taken} bytes of {SEGMENT_BYTES}: its holes are filled");
        assert_eq!(written.nodes[node].verify(None, false).unwrap().differing_blocks, 0);
    }
    // Replay finds what it needs.
    drop(volume);
    let Written { rig, nodes, .. } = written;
    drop(nodes);
    let [primary, _secondary] = rig.pair();
    assert_eq!(read(&primary.volume("root").unwrap(), BLOCK as u64, BLOCK), content(1));
}

#[test]
fn what_is_bad_on_both_sides_is_told_and_left() {
    let written = Written::new(Medium::Tcp);
    for node in [0, 1] {
        let (path, lives) = written.first(node);
        damage(Damage::Bit, &path, &written.stale[node], &lives);
    }
    let block = written.first(0).1[0].0 + 37;
    let (before, lives) = (std::fs::read(written.first(0).0).unwrap(), written.first(0).1.len());
    for repairs in [false, true] {
        let found = written.nodes[0].verify(None, repairs).unwrap();
        assert_eq!(blocks(&found.ranges, Side::Both, Outcome::Unrecoverable), BTreeSet::from([block]));
        assert_eq!((found.unrecoverable_blocks, found.repaired_blocks), (1, 0));
    }
    let found = written.nodes[0].scrub(true).unwrap();
    assert_eq!(blocks(&found.ranges, Side::Here, Outcome::Unrepaired), BTreeSet::from([block]));
    let volume = written.nodes[0].volume("root").unwrap();
    let refused = volume.read(block * BLOCK as u64, &mut [0; BLOCK]);
    assert!(matches!(refused, Err(IoError::Damaged(_))), "{refused:?}");
    assert!(written.nodes[0].take_notes().iter().any(|note| note.code == "damaged"));
    assert!(
        std::fs::read(written.first(0).0).unwrap() == before && lives > 200,
        "nobody has anything better"
    );
    // Written anew it is whole again.
    write(&volume, block * BLOCK as u64, &content(block));
    volume.flush(&here).unwrap();
    assert_eq!(written.nodes[0].verify(None, false).unwrap().differing_blocks, 0);
}

#[test]
fn a_client_reads_what_is_bad_here_from_the_peer() {
    let written = Written::new(Medium::Tcp);
    let volume = written.nodes[0].volume("root").unwrap();
    for how in ALL {
        let (path, lives) = written.first(0);
        let expected = damage(how, &path, &written.stale[0], &lives);
        let block = *expected.iter().next_back().unwrap();
        // The tables and files that lie in memory are as good as before; a scrub that only looks forgets them.
        assert_eq!(written.nodes[0].scrub(false).unwrap().damaged_blocks, expected.len() as u64);
        let before = written.nodes[0].status().counts;
        assert!(read(&volume, block * BLOCK as u64, BLOCK) == content(block), "{how:?}: block {block}");
        // In the middle of a large read, and of a block that is written in part.
        let first = (block - 20) * BLOCK as u64;
        let mut large = vec![0; 40 * BLOCK];
        let mark = volume.read(first, &mut large);
        let mark =
            mark.unwrap_or_else(|error| panic!("{how:?}: {error}: {:?}", written.nodes[0].take_notes()));
        volume.commit(mark, &here).unwrap();
        for number in 0..40 {
            let at = usize::try_from(number).unwrap() * BLOCK;
            assert!(large[at..at + BLOCK] == content(block - 20 + number), "{how:?}: {number}");
        }
        wait_for(&written.nodes[0], |status| status.counts.repaired_blocks > before.repaired_blocks);
        let after = written.nodes[0].status().counts;
        assert!(after.masked_reads > before.masked_reads, "{how:?}: {after:?}");
        let notes = written.nodes[0].take_notes();
        assert!(
            notes.iter().any(|note| note.code == "repaired" && note.text.contains("\"root\"")),
            "{notes:?}"
        );
        // What nobody read is still to be mended.
        let found = written.nodes[0].scrub(true).unwrap();
        assert_eq!(found.repaired_blocks, found.damaged_blocks, "{how:?}: {found:?}");
        assert_eq!(written.nodes[0].scrub(false).unwrap().damaged_blocks, 0, "{how:?}");
    }
    let (path, lives) = written.first(0);
    let block = *damage(Damage::Bit, &path, &written.stale[0], &lives).first().unwrap();
    write(&volume, block * BLOCK as u64 + 100, b"some bytes");
    let mut whole = content(block);
    whole[100..110].copy_from_slice(b"some bytes");
    assert!(read(&volume, block * BLOCK as u64, BLOCK) == whole);
}

#[test]
fn without_the_peer_damage_is_an_error_and_others_go_on() {
    let Written { rig, nodes: [primary, secondary], stale } = Written::new(Medium::Tcp);
    drop(secondary);
    primary.alone().unwrap();
    let written = Written { rig, nodes: [primary, Rig::new(Medium::Tcp).open(0)], stale };
    let (path, lives) = written.first(0);
    let block = *damage(Damage::Bit, &path, &written.stale[0], &lives).first().unwrap();
    let volume = written.nodes[0].volume("root").unwrap();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let refused = volume.read(block * BLOCK as u64, &mut [0; BLOCK]);
            assert!(matches!(refused, Err(IoError::Damaged(_))), "{refused:?}");
        });
        for other in 0..200 {
            if other != block {
                assert!(read(&volume, other * BLOCK as u64, BLOCK) == content(other));
            }
        }
    });
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    let found = written.nodes[0].scrub(true).unwrap();
    assert_eq!(blocks(&found.ranges, Side::Here, Outcome::Unrepaired), BTreeSet::from([block]));
    assert!(written.nodes[0].verify(None, true).is_err(), "there is nobody to compare with");
}

#[test]
fn a_comparison_while_clients_write_finds_what_is_bad_and_nothing_else() {
    let written = Written::new(Medium::Shm);
    let (path, lives) = written.first(1);
    let expected = damage(Damage::Zeroes, &path, &written.stale[1], &lives);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let volume = written.nodes[0].volume("root").unwrap();
            for round in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let block = 400 + round * 37 % 1600;
                write(&volume, block * BLOCK as u64, &pattern(round, BLOCK));
                if round % 100 == 99 {
                    volume.flush(&here).unwrap();
                }
            }
        });
        for _ in 0..3 {
            let found = written.nodes[0].verify(None, false).unwrap();
            assert_eq!(blocks(&found.ranges, Side::Peer, Outcome::Found), expected, "{found:?}");
        }
        let found = written.nodes[0].verify(None, true).unwrap();
        assert_eq!(blocks(&found.ranges, Side::Peer, Outcome::Repaired), expected, "{found:?}");
        let found = written.nodes[1].verify(None, false).unwrap();
        assert_eq!(found.differing_blocks, 0, "{found:?}");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
