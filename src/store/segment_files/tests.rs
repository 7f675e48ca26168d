//! Files of segments on a real file system.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::base::{DatasetId, LogGeneration, Phase};
use crate::memory::{MapOptions, Mapping, Piece};
use crate::segment::{
    Append, Destage, GenerationBegin, Known, Packed, RecordKind, Replay, Request, Salt, SegmentSource,
};

const DATASET: DatasetId = DatasetId::from_bytes([5; 16]);
const SEGMENT_BYTES: u64 = 1 << 16;

fn layout() -> SegmentLayout {
    SegmentLayout::new(SEGMENT_BYTES, 4096).unwrap()
}

fn base(number: u64) -> Lsn {
    Lsn(number * SEGMENT_BYTES)
}

fn open(directory: &tempfile::TempDir, calls: Calls) -> SegmentFiles {
    SegmentFiles::with_calls(directory.path(), layout(), calls).unwrap()
}

fn memory(byte: u8) -> Mapping {
    let bytes = usize::try_from(SEGMENT_BYTES).unwrap();
    let memory = Mapping::anonymous(bytes, MapOptions::default()).unwrap();
    memory.slice().write(0, &vec![byte; bytes]);
    memory
}

fn head(number: u64) -> SegmentHead {
    let begin = GenerationBegin {
        generation: LogGeneration(1),
        predecessor: LogGeneration(0),
        fork: Lsn(0),
        highest_known: Lsn(0),
        ring_bytes: number * SEGMENT_BYTES,
    };
    SegmentHead::first(DATASET, layout(), begin, Phase(1), Salt([3; 16]))
}

/// Writes a range of the memory to the same place of the file.
fn put(
    files: &SegmentFiles,
    base: Lsn,
    range: Range<u64>,
    memory: VolatileSlice<'_>,
) -> Result<(), SegmentFileError> {
    let index = |offset| usize::try_from(offset).unwrap();
    files.write(base, range.start, &[Piece::Memory(index(range.start)..index(range.end))], memory)
}

fn errno(error: Errno) -> io::Error {
    error.into()
}

#[test]
fn what_is_written_is_read_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, CALLS);
    files.create(base(2)).unwrap();
    let path = directory.path().join("0000000000020000.segment");
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!((found.len(), found.permissions().mode() & 0o7777), (SEGMENT_BYTES, 0o600));
    assert!(files.preallocates() && files.allocated_bytes(base(2)).unwrap() >= SEGMENT_BYTES);
    put(&files, base(2), 4096..12288, memory(7).slice()).unwrap();
    files.sync(&[base(2)]).unwrap();
    let mut bytes = [1; 8200];
    files.read(base(2), 4092, &mut bytes).unwrap();
    assert!(bytes[..4] == [0; 4] && bytes[4..8196] == [7; 8192] && bytes[8196..] == [0; 4]);
    files.punch(base(2), 4096..8192).unwrap();
    files.read(base(2), 4092, &mut bytes).unwrap();
    assert!(bytes[4..4100] == [0; 4096] && bytes[4100] == 7);
    assert!(files.allocated_bytes(base(2)).unwrap() < SEGMENT_BYTES);
    // Of what was never begun the file is made anew; of what was, never.
    files.create(base(2)).unwrap();
    files.read(base(2), 8192, &mut bytes[..1]).unwrap();
    assert_eq!((bytes[0], files.list().unwrap()), (0, vec![base(2)]));
    let memory = memory(0);
    memory.slice().write(0, &head(2).encode());
    put(&files, base(2), 0..4096, memory.slice()).unwrap();
    assert!(matches!(files.create(base(2)), Err(SegmentFileError::Exists { .. })));
    assert_eq!(files.heads(DATASET, Lsn::MAX).unwrap()[0].0, head(2));
    files.remove(base(2)).unwrap();
    files.remove(base(2)).unwrap();
    assert!(!files.exists(base(2)) && files.list().unwrap().is_empty());
    assert_eq!(files.read(base(2), 0, &mut bytes).unwrap_err().kind(), io::ErrorKind::NotFound);
    let missing = put(&files, base(2), 0..4096, memory.slice());
    assert!(matches!(missing, Err(SegmentFileError::Missing { .. })));
    files.sync(&[]).unwrap();
}

#[test]
fn a_full_disk_leaves_nothing_and_other_file_systems_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, Calls { allocate: |_, _| Err(errno(Errno::NOSPC)), ..CALLS });
    let refused = files.create(base(1));
    assert!(matches!(refused, Err(SegmentFileError::NoSpace { bytes: SEGMENT_BYTES, .. })), "{refused:?}");
    assert!(files.list().unwrap().is_empty());
    files.sync(&[]).unwrap();
    let files = open(&directory, Calls { allocate: |_, _| Err(errno(Errno::OPNOTSUPP)), ..CALLS });
    files.create(base(1)).unwrap();
    assert!(!files.preallocates());
    assert_eq!(std::fs::metadata(files.path_of(base(1))).unwrap().len(), SEGMENT_BYTES);
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    static FAILS: AtomicBool = AtomicBool::new(false);
    fn sync(file: &File) -> io::Result<()> {
        if FAILS.load(Ordering::SeqCst) { Err(errno(Errno::IO)) } else { file.sync_data() }
    }
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, Calls { sync, ..CALLS });
    files.create(base(1)).unwrap();
    put(&files, base(1), 4096..8192, memory(7).slice()).unwrap();
    files.sync(&[base(1)]).unwrap();
    FAILS.store(true, Ordering::SeqCst);
    let failed = files.sync(&[base(1)]).unwrap_err().to_string();
    FAILS.store(false, Ordering::SeqCst);
    let later = files.sync(&[base(1)]).unwrap_err().to_string();
    assert!(failed.contains("fdatasync") && failed == later, "{failed} {later}");
    assert!(put(&files, base(1), 4096..8192, memory(8).slice()).is_err() && files.sync(&[]).is_err());
    let mut byte = [0];
    files.read(base(1), 4096, &mut byte).unwrap();
    assert_eq!(byte, [7], "reads go on");
}

#[test]
fn the_directory_is_synced_when_there_are_new_names_only() {
    static DIRECTORIES: AtomicU64 = AtomicU64::new(0);
    fn sync(file: &File) -> io::Result<()> {
        DIRECTORIES.fetch_add(u64::from(file.metadata()?.is_dir()), Ordering::SeqCst);
        Ok(())
    }
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, Calls { sync, ..CALLS });
    files.create(base(1)).unwrap();
    let synced = |bases: &[Lsn]| {
        files.sync(bases).unwrap();
        DIRECTORIES.load(Ordering::SeqCst)
    };
    assert_eq!((synced(&[base(1)]), synced(&[base(1)])), (1, 1));
    files.create(base(2)).unwrap();
    assert_eq!((synced(&[base(1)]), synced(&[base(1), base(2)])), (2, 2));
}

#[test]
fn a_segment_is_written_anew_beside_itself() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, CALLS);
    let first = || {
        let mut byte = [0];
        files.read(base(1), 4096, &mut byte).unwrap();
        byte[0]
    };
    files.create(base(1)).unwrap();
    put(&files, base(1), 4096..8192, memory(1).slice()).unwrap();
    files.renew(base(1)).unwrap();
    put(&files, base(1), 4096..8192, memory(2).slice()).unwrap();
    files.sync(&[base(1)]).unwrap();
    assert_eq!(first(), 1);
    files.finish_renewal(base(1)).unwrap();
    assert_eq!(first(), 2);
    files.renew(base(1)).unwrap();
    let again = open(&directory, CALLS);
    assert_eq!(again.list().unwrap(), [base(1)]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "a renewal that broke off is gone");
}

#[test]
fn what_is_filled_in_beside_a_renewal_is_synced_and_an_abandoned_one_takes_nothing() {
    thread_local!(static SYNCED: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) });
    fn sync(file: &File) -> io::Result<()> {
        let inode = rustix::fs::fstat(file)?.st_ino;
        SYNCED.with_borrow_mut(|synced| synced.push(inode));
        Ok(())
    }
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, Calls { sync, ..CALLS });
    files.create(base(1)).unwrap();
    files.renew(base(1)).unwrap();
    files.fill(base(1), 4096, &[1; 4096]).unwrap();
    files.sync_filled(&[base(1)]).unwrap();
    let inode = |name: PathBuf| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(name).unwrap());
    let counts = inode(files.path_of(base(1)));
    assert!(SYNCED.take().contains(&counts), "what was filled in");
    files.abandon_renewals().unwrap();
    assert!(!files.renewal_path(base(1)).exists());
    put(&files, base(1), 4096..8192, memory(3).slice()).unwrap();
    files.sync(&[base(1)]).unwrap();
    assert_eq!(SYNCED.take(), [counts]);
    let mut byte = [0];
    files.read(base(1), 4096, &mut byte).unwrap();
    assert_eq!(byte, [3]);
    files.abandon_renewals().unwrap();
}

#[test]
fn descriptors_are_bounded_and_threads_read_while_one_writes() {
    let directory = tempfile::tempdir().unwrap();
    let files = SegmentFiles::open(directory.path(), SegmentLayout::new(1 << 15, 512).unwrap()).unwrap();
    let (count, bytes) = (OPEN_FILES_MAX as u64 + 40, 1 << 15);
    let source = memory(9);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=count {
                files.create(Lsn(number * bytes)).unwrap();
                put(&files, Lsn(number * bytes), 512..1024, source.slice()).unwrap();
                if number % 8 == 0 {
                    let bases: Vec<_> = (number - 7..=number).map(|number| Lsn(number * bytes)).collect();
                    files.sync(&bases).unwrap();
                }
                if let Some(old) = number.checked_sub(280) {
                    files.remove(Lsn(old * bytes)).unwrap();
                }
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                for number in (1..=count).cycle().take(3000) {
                    let mut target = [1; 512];
                    match files.read(Lsn(number * bytes), 512, &mut target) {
                        Ok(()) => assert!([0, 9].contains(&target[0]) && target == [target[0]; 512]),
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
                    }
                }
            });
        }
    });
    // Eight may have been dirty at once, and four are on their way in.
    assert!(files.cache.len() <= OPEN_FILES_MAX + 12, "{}", files.cache.len());
}

#[test]
fn replay_runs_on_files_and_strange_ones_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, CALLS);
    let (head, memory) = (head(2), memory(0));
    memory.slice().write(0, &head.encode());
    let (mut log, mut destage) = (Append::new(head), Destage::new(Lsn(0)));
    destage.open(head);
    let block_size = crate::base::BlockSize::Large;
    for block in 0..3 {
        let (volume, block) = (crate::base::VolumeId(1), crate::base::BlockNumber(block));
        let request = Request { kind: RecordKind::Write, volume, block, blocks: 2, block_size };
        let place = log.reserve(request).unwrap();
        memory.slice().write(usize::try_from(place.payload().start).unwrap(), &[7; 8192]);
        log.seal(place, memory.slice());
    }
    let mut extents = Vec::new();
    let batch = log.take_batch(&mut extents).unwrap();
    let mut packed = Packed::default();
    for extent in extents {
        packed.push(&extent);
        destage.append(extent);
    }
    destage.commit(batch.end);
    destage.pad(log.pad());
    files.create(head.base).unwrap();
    while let Some(write) = destage.next_write(1 << 20) {
        files.write(write.base, write.range.start, &write.pieces(&packed), memory.slice()).unwrap();
        destage.written(&write);
    }
    let sync = destage.begin_sync().unwrap();
    files.sync(&sync.bases().collect::<Vec<_>>()).unwrap();
    assert_eq!(destage.synced(sync), batch.end);
    // One that was never begun is left out.
    files.create(base(9)).unwrap();
    let known = Known { from: Lsn(0), durable: batch.end };
    let mut replay = Replay::new(files.heads(DATASET, Lsn::MAX).unwrap(), known).unwrap();
    assert_eq!(replay.by_ref().map(|record| record.unwrap().blocks).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(replay.outcome().unwrap().end, batch.end);
    assert_eq!(files.payload_area(&head, batch.end).unwrap(), Some(4096..SEGMENT_BYTES - 4096));
    assert_eq!(files.payload_area(&head, batch.end.plus(512)).unwrap(), None);
    // A flipped bit below what was durable is damage.
    let path = directory.path().join(segment_file_name(head.base));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 8192 + 5] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let damaged = Replay::new(files.heads(DATASET, Lsn::MAX).unwrap(), known).unwrap().find_map(Result::err);
    assert!(damaged.unwrap().to_string().contains("damaged"));
    let other = files.heads(DatasetId::from_bytes([6; 16]), Lsn::MAX);
    assert!(matches!(other, Err(SegmentFileError::Foreign { .. })));
}

#[test]
fn windows_give_what_the_file_has() {
    let directory = tempfile::tempdir().unwrap();
    let files = SegmentFiles::open(directory.path(), SegmentLayout::new(1 << 18, 4096).unwrap()).unwrap();
    files.create(Lsn(1 << 18)).unwrap();
    let bytes: Vec<u8> = (0..1_u32 << 18).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
    std::fs::write(files.path_of(Lsn(1 << 18)), &bytes).unwrap();
    let source = files.source(Lsn(1 << 18));
    for (offset, len) in
        [(0, 64), (65536 - 10, 64), (200_000, 64), (100, 4096), (199_000, 9), (0, 200_000), (262_080, 64)]
    {
        let mut target = vec![0; len];
        source.read(u64::try_from(offset).unwrap(), &mut target).unwrap();
        assert_eq!(target, bytes[offset..offset + len], "{offset} {len}");
    }
}

/// What the choice of `pwrite` rests on: printed, and asserted only far from what any machine gives.
#[test]
fn rate() {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let layout = SegmentLayout::new(16 << 20, 4096).unwrap();
    let files = SegmentFiles::open(directory.path(), layout).unwrap();
    let memory = Mapping::anonymous(16 << 20, MapOptions::default()).unwrap();
    memory.slice().write(0, &vec![1; 16 << 20]);
    let source = memory.slice().to_vec();
    let file = (1..5).map(|number| {
        files.create(Lsn(number << 24)).unwrap();
        files.file(Lsn(number << 24)).unwrap()
    });
    let file: Vec<_> = file.collect();
    for bytes in [4096, 65536, 1 << 20] {
        let begin = Instant::now();
        for open in &file {
            for at in (0..16 << 20).step_by(bytes) {
                open.file.write_all_at(&source[at..at + bytes], at as u64).unwrap();
            }
        }
        let took = begin.elapsed();
        let calls = (4 * (16 << 20) / bytes) as f64;
        let each = took.as_secs_f64() / calls;
        println!(
            "pwrite of {bytes}: {:.2} GB/s, {:.2} us a call",
            0.067_108_864 / took.as_secs_f64(),
            each * 1e6
        );
        assert!(took.as_secs() < 60);
    }
    let begin = Instant::now();
    (0..100_000).for_each(|_| assert!(file[0].file.read_at(&mut [0; 1], 1 << 30).unwrap() == 0));
    println!("a call that moves nothing: {:.3} us", begin.elapsed().as_secs_f64() * 10.0);
    let begin = Instant::now();
    for number in 1..5 {
        (0..16)
            .for_each(|at| put(&files, Lsn(number << 24), at << 20..(at + 1) << 20, memory.slice()).unwrap());
    }
    println!("by way of a buffer: {:.2} GB/s", 0.067_108_864 / begin.elapsed().as_secs_f64());
}

#[test]
fn a_file_is_mended_or_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, CALLS);
    files.create(base(2)).unwrap();
    put(&files, base(2), 4096..12288, memory(7).slice()).unwrap();
    files.put(base(2), 8192, &[9; 512]).unwrap();
    files.mended(base(2)).unwrap();
    let read = |files: &SegmentFiles, at| {
        let mut bytes = [0; 512];
        files.read(base(2), at, &mut bytes).map(|()| bytes)
    };
    assert_eq!((read(&files, 4096).unwrap(), read(&files, 8192).unwrap()), ([7; 512], [9; 512]));
    // Nothing is left of one that was not finished, by its end or by the process's.
    let remade = files.remake(base(2)).unwrap();
    remade.put(4096, &[5; 512]).unwrap();
    drop(remade);
    let entries = || std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!((entries(), read(&files, 4096).unwrap()), (1, [7; 512]));
    std::mem::forget(files.remake(base(2)).unwrap());
    assert_eq!(entries(), 2);
    let files = open(&directory, CALLS);
    assert_eq!((entries(), read(&files, 4096).unwrap()), (1, [7; 512]));
    // One that was is read from then on, also if the old file was open, or gone.
    let remade = files.remake(base(2)).unwrap();
    remade.put(4096, &[5; 512]).unwrap();
    remade.sync().unwrap();
    std::fs::remove_file(directory.path().join("0000000000020000.segment")).unwrap();
    assert_eq!(read(&files, 4096).unwrap(), [7; 512], "it is open still");
    files.revisit(base(2));
    assert_eq!(read(&files, 4096).unwrap_err().kind(), io::ErrorKind::NotFound);
    remade.finish().unwrap();
    assert_eq!((read(&files, 4096).unwrap(), read(&files, 8192).unwrap()), ([5; 512], [0; 512]));
    files.revisit(base(2));
    assert_eq!(read(&files, 4096).unwrap(), [5; 512]);
}

#[test]
fn a_sync_that_fails_after_mending_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&directory, Calls { sync: |_| Err(errno(Errno::IO)), ..CALLS });
    files.create(base(2)).unwrap();
    assert!(files.remake(base(2)).unwrap().sync().is_err(), "of no use, and no harm to others");
    files.put(base(2), 8192, &[9; 512]).unwrap();
    assert!(files.mended(base(2)).is_err());
    assert!(matches!(files.put(base(2), 8192, &[9; 512]), Err(SegmentFileError::Failed { .. })));
}
