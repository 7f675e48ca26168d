//! Checksums against files that are damaged in every place.

use super::*;
use crate::base::{BlockNumber, DatasetId, LogGeneration, Phase, VolumeId};
use crate::memory::{MapOptions, Mapping};
use crate::segment::testing::file_with;
use crate::segment::{Append, GenerationBegin, RecordKind, Request, Salt};

const BYTES: u64 = 1 << 16;

fn layout() -> SegmentLayout {
    SegmentLayout::new(BYTES, 4096).unwrap()
}

fn head(number: u64) -> SegmentHead {
    let begin = GenerationBegin {
        generation: LogGeneration(1),
        predecessor: LogGeneration(0),
        fork: Lsn(0),
        highest_known: Lsn(0),
        ring_bytes: number * BYTES,
    };
    SegmentHead::first(DatasetId::from_bytes([5; 16]), layout(), begin, Phase(1), Salt([3; 16]))
}

/// A segment with two records of large blocks, a void one, and one of small blocks; the latter's position.
struct Segment {
    log: Append,
    memory: Mapping,
}

impl Segment {
    fn new(number: u64) -> Self {
        let memory = Mapping::anonymous(index(BYTES), MapOptions::default()).unwrap();
        memory.slice().write(0, &head(number).encode());
        Self { log: Append::new(head(number)), memory }
    }

    fn append(&mut self, blocks: u32, block_size: BlockSize, byte: u8) -> Lsn {
        self.append_kind(RecordKind::Write, blocks, block_size, byte)
    }

    fn append_kind(&mut self, kind: RecordKind, blocks: u32, block_size: BlockSize, byte: u8) -> Lsn {
        let (volume, block) = (VolumeId(1), BlockNumber(0));
        let request = Request { kind, volume, block, blocks, block_size };
        let place = self.log.reserve(request).unwrap();
        let (lsn, range) = (place.lsn(), place.payload());
        self.memory.slice().write(index(range.start), &vec![byte; index(range.end - range.start)]);
        if byte == 0 {
            self.log.void(place, self.memory.slice());
        } else {
            self.log.seal(place, self.memory.slice());
        }
        lsn
    }

    fn put(&self, files: &SegmentFiles) {
        let base = self.log.head().base;
        if !files.exists(base) {
            files.create(base).unwrap();
        }
        files.fill(base, 0, &file_with(self.log.head(), &self.memory, 0)).unwrap();
    }
}

/// Reads the blocks at `lsn` and compares them.
fn read_at(
    sums: &Sums,
    files: &SegmentFiles,
    lsn: Lsn,
    size: BlockSize,
    target: &mut [u8],
) -> Result<(), SumError> {
    let base = layout().base(lsn);
    let read = files.read(base, lsn.since(base), target);
    read.map_err(|error| SumError::Medium { base, error })?;
    sums.verify(files, lsn, size, target)
}

fn bytes(sums: &Sums) -> usize {
    sums.shards.iter().map(|shard| shard.read().unwrap().bytes).sum()
}

#[test]
fn no_flipped_bit_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let files = SegmentFiles::open(directory.path(), layout()).unwrap();
    let mut segment = Segment::new(1);
    let first = segment.append(2, BlockSize::Large, 7);
    let void = segment.append(1, BlockSize::Large, 0);
    let change = segment.append_kind(RecordKind::Volume, 1, BlockSize::Large, 5);
    let small = segment.append(9, BlockSize::Small, 9);
    segment.put(&files);
    let sums = Sums::new(layout(), SUMS_BYTES_MAX);
    let read = |sums: &Sums, lsn, size: BlockSize, blocks: u64| {
        let mut target = vec![1; index(blocks * size.bytes())];
        read_at(sums, &files, lsn, size, &mut target).map(|()| target)
    };
    assert_eq!(read(&sums, first, BlockSize::Large, 2).unwrap(), [7; 8192]);
    assert_eq!(read(&sums, first.plus(4096), BlockSize::Large, 1).unwrap(), [7; 4096]);
    assert_eq!(read(&sums, change, BlockSize::Large, 1).unwrap(), [5; 4096]);
    assert_eq!(read(&sums, small.plus(512), BlockSize::Small, 8).unwrap(), [9; 4096]);
    for (lsn, size) in
        [(void, BlockSize::Large), (first, BlockSize::Small), (small.plus(9 * 512), BlockSize::Small)]
    {
        assert!(matches!(read(&sums, lsn, size, 1), Err(SumError::Unknown { lsn: found }) if found == lsn));
    }
    // Whatever bit is flipped, what is served is what was written.
    let path = directory.path().join(crate::segment::segment_file_name(Lsn(BYTES)));
    let whole = std::fs::read(&path).unwrap();
    let mut found = 0;
    for at in (0..128).chain((4096..4096 + 8192).step_by(61)).chain(index(BYTES) - 256..index(BYTES)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&path, &damaged).unwrap();
        // With the table in memory, and after a restart.
        for sums in [&sums, &Sums::new(layout(), SUMS_BYTES_MAX)] {
            match read(sums, first, BlockSize::Large, 2) {
                Ok(target) => assert_eq!(target, [7; 8192], "byte {at}"),
                Err(_) => found += 1,
            }
        }
        assert!(
            read(&Sums::new(layout(), SUMS_BYTES_MAX), first, BlockSize::Large, 2).is_ok()
                || at < 4096 + 8192
                || at >= index(BYTES) - 64
        );
    }
    assert!(found > 200, "{found} were found");
    std::fs::write(&path, &whole).unwrap();
    files.punch(Lsn(BYTES), 4096..8192).unwrap();
    assert!(matches!(read(&sums, first, BlockSize::Large, 2), Err(SumError::Mismatch { .. })));
    assert!(
        read(&Sums::new(layout(), SUMS_BYTES_MAX), first.plus(4096), BlockSize::Large, 1).is_ok(),
        "its slot is there still"
    );
}

#[test]
fn what_was_written_since_is_found_and_memory_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let files = SegmentFiles::open(directory.path(), layout()).unwrap();
    let mut segment = Segment::new(1);
    let first = segment.append(1, BlockSize::Large, 1);
    segment.put(&files);
    let sums = Sums::new(layout(), 8 * 2000);
    let mut target = [0; 4096];
    read_at(&sums, &files, first, BlockSize::Large, &mut target).unwrap();
    let second = segment.append(1, BlockSize::Large, 2);
    segment.put(&files);
    read_at(&sums, &files, second, BlockSize::Large, &mut target).unwrap();
    assert_eq!(target, [2; 4096]);
    let mut positions = Vec::new();
    for number in 2..120 {
        let mut segment = Segment::new(number);
        positions.push(segment.append(1, BlockSize::Large, 3));
        segment.put(&files);
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (sums, files, positions) = (&sums, &files, &positions);
            scope.spawn(move || {
                let mut target = [0; 4096];
                for lsn in positions.iter().chain(positions.iter().rev()) {
                    read_at(sums, files, *lsn, BlockSize::Large, &mut target).unwrap();
                }
            });
        }
    });
    let kept = bytes(&sums);
    assert!(kept <= 8 * 2000 && kept > 4000, "{kept} bytes");
    (1..120).for_each(|number| sums.forget(Lsn(number * BYTES)));
    assert_eq!(bytes(&sums), 0);
    let missing = read_at(&sums, &files, Lsn(500 * BYTES + 4096), BlockSize::Large, &mut target);
    assert!(matches!(missing, Err(SumError::Medium { .. })));
}
