//! No block twice, nothing uncommitted, and what is said to be durable is there.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::head::tests::sample;
use super::super::testing::{append, memory, records, request, write};
use super::*;
use crate::base::{BlockSize, Phase};
use crate::memory::Mapping;
use crate::segment::{Append, Packed, RecordKind, Salt};

fn copy(write: &DestageWrite, packed: &Packed, memory: &Mapping, disk: &mut [u8]) {
    let range = usize::try_from(write.range.start).unwrap()..usize::try_from(write.range.end).unwrap();
    disk[range].copy_from_slice(&memory.slice().gather(&write.pieces(packed)));
}

#[test]
fn a_partial_block_waits_for_a_flush() {
    let head = sample();
    let (memory, mut log) = (memory(&head), Append::new(head));
    let (mut destage, mut extents) = (Destage::new(head.previous_end), Vec::new());
    destage.open(head);
    assert!(append(&mut log, &memory, write(0, 1), 1));
    let batch = log.take_batch(&mut extents).unwrap();
    destage.append(extents[0].clone());
    assert_eq!(destage.next_write(u64::MAX), None, "not committed");
    destage.commit(batch.end);
    let payload = destage.next_write(u64::MAX).unwrap();
    assert_eq!(payload.range, 4096..8192);
    assert_eq!(
        destage.next_write(u64::MAX).map(|write| write.range),
        Some(0..4096),
        "the slots are no full block"
    );
    destage.pad(log.pad());
    let slots = destage.next_write(u64::MAX).unwrap();
    assert_eq!((slots.range.clone(), destage.next_write(u64::MAX)), (61440..65536, None));
    destage.written(&slots);
    let sync = destage.begin_sync().unwrap();
    assert_eq!(sync.bases().collect::<Vec<_>>(), [head.base]);
    assert_eq!(destage.synced(sync), head.previous_end, "the payload is still under way, and the head");
    destage.written(&payload);
    destage.written(&DestageWrite { base: head.base, range: 0..4096, part: Part::Head });
    let sync = destage.begin_sync().unwrap();
    assert_eq!(destage.synced(sync), batch.end);
    assert!(destage.begin_sync().is_none());
}

#[test]
fn a_head_waits_for_everything_before_it() {
    let head = sample();
    let (first, second) = (memory(&head), memory(&head));
    let mut log = Append::new(head);
    let (mut destage, mut extents) = (Destage::new(head.previous_end), Vec::new());
    destage.open(head);
    assert!(append(&mut log, &first, write(0, 2), 1));
    log.take_batch(&mut extents);
    let next = log.next(Phase(8), Salt([3; 16]));
    destage.open(next);
    let mut log = Append::new(next);
    assert!(append(&mut log, &second, write(1, 1), 1));
    let end = log.take_batch(&mut extents).unwrap().end;
    extents.drain(..).for_each(|extent| destage.append(extent));
    destage.pad(log.pad());
    destage.commit(end);
    let mut written = Vec::new();
    while let Some(write) = destage.next_write(4096) {
        written.push((write.base, write.range.start));
        destage.written(&write);
    }
    let expected =
        [(head.base, 4096), (head.base, 8192), (head.base, 61440), (head.base, 0), (next.base, 4096)];
    assert_eq!(written[..5], expected, "pieces are as small as was asked");
    assert!(!written.contains(&(next.base, 0)));
    let sync = destage.begin_sync().unwrap();
    assert_eq!(destage.synced(sync), next.previous_end);
    let write = destage.next_write(4096).unwrap();
    assert_eq!((write.base, write.range.clone()), (next.base, 0..4096));
    destage.written(&write);
    let sync = destage.begin_sync().unwrap();
    assert_eq!((sync.bases().count(), destage.synced(sync)), (1, end));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    /// Writes are done in any order, some late. After each sync a scan of the disk finds every record that is said to be durable.
    #[test]
    fn what_is_durable_is_on_the_disk(steps in prop::collection::vec((0_u8..12, 1_u32..6, any::<usize>()), 1..150)) {
        let head = sample();
        let (memory, mut log, mut packed) = (memory(&head), Append::new(head), Packed::default());
        let mut disk = vec![0xee; memory.slice().len()];
        let (mut destage, mut extents, mut ends) = (Destage::new(head.previous_end), Vec::new(), Vec::new());
        let (mut under_way, mut blocks) = (Vec::new(), BTreeSet::new());
        let (mut pads, mut committed) = (Vec::new(), head.previous_end);
        destage.open(head);
        for (step, blocks_wanted, which) in steps {
            match step {
                0..4 => {
                    let kind = if which % 3 == 0 { RecordKind::Trim } else { RecordKind::Write };
                    append(&mut log, &memory, request(kind, 0, blocks_wanted, BlockSize::Small), 7);
                    if let Some(batch) = log.take_batch(&mut extents) { ends.push(batch.end); }
                    extents.drain(..).for_each(|extent| {
                        packed.push(&extent);
                        destage.append(extent);
                    });
                }
                4 => {
                    pads.push(log.pad());
                    destage.pad(log.end());
                }
                5 if !ends.is_empty() => {
                    committed = committed.max(ends[which % ends.len()]);
                    destage.commit(committed);
                }
                6..9 => {
                    let Some(write) = destage.next_write(4096 * u64::from(blocks_wanted)) else { continue };
                    prop_assert!(write.range.start % 4096 == 0 && write.range.end % 4096 == 0);
                    prop_assert!(write.range.clone().step_by(4096).all(|block| blocks.insert(block)), "a block twice");
                    // What is written is as it is now: nothing is added to it later.
                    copy(&write, &packed, &memory, &mut disk);
                    under_way.push(write);
                }
                9..11 if !under_way.is_empty() => destage.written(&under_way.swap_remove(which % under_way.len())),
                11 => {
                    let Some(sync) = destage.begin_sync() else { continue };
                    let durable = destage.synced(sync);
                    let (_, _, scan) = records(head, &disk);
                    prop_assert!(scan.end() >= durable, "{} of {durable}", scan.end());
                }
                _ => {}
            }
        }
        under_way.drain(..).for_each(|write| destage.written(&write));
        let mut finish = |destage: &mut Destage| {
            while let Some(write) = destage.next_write(u64::MAX) {
                copy(&write, &packed, &memory, &mut disk);
                destage.written(&write);
            }
            if let Some(sync) = destage.begin_sync() { destage.synced(sync); }
            destage.durable()
        };
        // What a flush is waiting for does not wait for anything behind it, which may never be committed.
        let flushed = pads.into_iter().filter(|pad| *pad <= committed).max();
        prop_assert!(finish(&mut destage) >= flushed.unwrap_or(Lsn::ZERO));
        // A flush at the end makes all of it durable.
        destage.pad(log.pad());
        destage.commit(log.end());
        prop_assert_eq!(finish(&mut destage), log.end());
    }
}
