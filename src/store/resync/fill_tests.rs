//! Segments are filled in by what they lack, and nothing that counts is lost to a table that has less.

use super::*;
use crate::base::{BlockSize, VolumeId};
use crate::segment::SegmentLayout;
use crate::volume::BlockMap;

const SEGMENT: u64 = 1 << 20;

fn layout() -> SegmentLayout {
    SegmentLayout::new(SEGMENT, 4096).unwrap()
}

/// Sixteen blocks in each of these segments.
fn plan(segments: &[u64]) -> Plan {
    let mut map = BlockMap::new(BlockSize::Large, 1000);
    for (at, segment) in (0..).step_by(16).zip(segments) {
        map.write(BlockNumber(at), 16, Lsn(segment * SEGMENT + 8192));
    }
    Plan::new(layout(), &(Lsn::ZERO..Lsn::MAX), [(VolumeId(0), None, &map)])
}

#[test]
fn what_earlier_attempts_left_goes_and_nothing_else() {
    let bases: Vec<_> = (1..=12).map(|number| Lsn(number * SEGMENT)).collect();
    let gone = |old_end| {
        let session = Session::for_tests(Lsn(old_end), Lsn(9 * SEGMENT));
        leftovers(&bases, &session, &plan(&[5, 7]))
            .into_iter()
            .map(|base| base.0 / SEGMENT)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        gone(4 * SEGMENT + 4096),
        [6, 8],
        "the segment with the log's end stays, and what the ring brings"
    );
    assert_eq!(gone(4 * SEGMENT), [4, 6, 8]);
    assert_eq!(gone(0), [1, 2, 3, 4, 6, 8]);
}

#[test]
fn what_is_there_needs_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let files = SegmentFiles::open(directory.path(), layout()).unwrap();
    let (plan, piece) = (plan(&[5, 7]), 16 * 4096);
    assert_eq!(lacking_bytes(&files, &plan).unwrap(), 2 * piece);
    let base = Lsn(5 * SEGMENT);
    files.create_sparse(base).unwrap();
    assert_eq!(lacking_bytes(&files, &plan).unwrap(), 2 * piece);
    files.fill(base, 8192, &vec![7; usize::try_from(piece / 2).unwrap()]).unwrap();
    files.sync_filled(&[base]).unwrap();
    let lacking = lacking_bytes(&files, &plan).unwrap();
    assert!((piece..=2 * piece - piece / 2).contains(&lacking), "{lacking}");
    files.create(Lsn(7 * SEGMENT)).unwrap();
    assert!(lacking_bytes(&files, &plan).unwrap() <= piece / 2, "it was given all of its room");
}

#[test]
fn a_piece_is_halved_until_a_single_block_is_left() {
    let run = |block, count| DataRun {
        volume: VolumeId(3),
        block: BlockNumber(block),
        count,
        lsn: Lsn(SEGMENT + block * 4096),
        block_size: BlockSize::Large,
    };
    let mut whole = vec![Piece::new(vec![run(10, 5), run(20, 1), run(30, 1)])];
    let mut blocks = Vec::new();
    while let Some(piece) = whole.pop() {
        match piece.halves() {
            Ok(halves) => {
                assert_eq!(halves.iter().map(|half| half.bytes).sum::<u64>(), piece.bytes);
                whole.extend(halves.into_iter().rev());
            }
            Err(block) => blocks.push(block),
        }
    }
    let wanted: Vec<_> = [10, 11, 12, 13, 14, 20, 30].map(|block| run(block, 1)).to_vec();
    assert_eq!(blocks, wanted);
}
