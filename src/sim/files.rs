//! What becomes of files in a simulated world: syncs take their time, or fail, a process that was killed changes nothing any more, and what was
//! not synced may be lost with the power.
//!
//! Files are real. Of each that is synced its bytes are kept as they were then, of each directory its names. When the power is lost a directory has the
//! names that it had when it was synced last, or those that it has; and a file the bytes that it had then, or of each block the ones or the others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::scheduler::{self, ProcessId};

/// Bytes that a disk writes as a whole.
const BLOCK_BYTES: usize = 4096;

/// The disk of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disk {
    /// How much longer a sync takes than usual.
    pub(crate) slow: Duration,
    pub(crate) fails: bool,
    pub(crate) is_full: bool,
    /// Says that it synced, and did not.
    pub(crate) lies: bool,
}

/// What a sync of a file or directory made durable.
#[derive(Debug, Clone)]
enum Durable {
    Bytes(Vec<u8>),
    /// Files of a directory, by number.
    Names(BTreeMap<String, u64>),
}

#[derive(Default)]
struct Files {
    disks: BTreeMap<ProcessId, Disk>,
    /// By number of the file, with the number of the sync that made it so: one that began earlier may end later.
    durable: BTreeMap<u64, (u64, Durable)>,
    syncs: u64,
    /// Of files that tell of each write, what was written since they were synced, by number.
    written: BTreeMap<u64, Vec<Range<u64>>>,
    /// Power may be lost.
    keeps: bool,
    /// How much longer each sync takes.
    slow: Duration,
}

thread_local! {
    static FILES: RefCell<Files> = RefCell::new(Files::default());
}

fn with<T>(work: impl FnOnce(&mut Files) -> T) -> T {
    FILES.with_borrow_mut(work)
}

/// What the disk of this process is like from now on.
pub(crate) fn set(process: ProcessId, disk: Disk) {
    with(|files| files.disks.insert(process, disk));
}

/// Begins a world, in which power may be lost or not (to be ready for that costs time), and in which syncs take so much longer.
pub(crate) fn begin(loses_power: bool, slow: Duration) {
    FILES.set(Files { keeps: loses_power, slow, ..Files::default() });
}

fn disk() -> Option<Disk> {
    let process = scheduler::current_process()?;
    Some(with(|files| files.disks.get(&process).copied().unwrap_or_default()))
}

/// Whether the disk of the process that runs has no room.
pub(crate) fn is_full() -> bool {
    disk().is_some_and(|disk| disk.is_full)
}

/// A sync of the process that runs, if one does: its time, and what becomes of it.
pub(crate) fn sync(file: &File) -> Option<io::Result<()>> {
    let disk = disk()?;
    if disk.fails {
        return Some(Err(io::Error::other("the simulated disk failed")));
    }
    let began = begin_sync();
    let found = look(file);
    let micros = scheduler::random(|random| match random.below(20) {
        0 => random.below(8000),
        _ => 30 + random.below(300),
    });
    scheduler::sleep(Duration::from_micros(micros) + disk.slow + with(|files| files.slow));
    Some(found.map(|(number, durable)| keep(disk, began, number, durable)))
}

fn begin_sync() -> u64 {
    with(|files| {
        files.syncs += 1;
        files.syncs
    })
}

/// The same for whoever holds a lock meanwhile that is none of this world's: it takes no time. He tells of each write ([`wrote`]).
pub(crate) fn sync_at_once(file: &File) -> Option<io::Result<()>> {
    let disk = disk()?;
    if disk.lies || !with(|files| files.keeps) {
        return Some(Ok(()));
    }
    Some(keep_at_once(file))
}

/// Notes of a file that is synced at once what of it is written.
pub(crate) fn wrote(file: &File, range: Range<u64>) {
    if with(|files| files.keeps)
        && let Ok(metadata) = file.metadata()
    {
        with(|files| files.written.entry(metadata.ino()).or_default().push(range));
    }
}

fn keep_at_once(file: &File) -> io::Result<()> {
    let began = begin_sync();
    let metadata = file.metadata()?;
    let number = metadata.ino();
    let written = with(|files| files.written.remove(&number)).unwrap_or_default();
    let before = with(|files| files.durable.remove(&number));
    let (mut bytes, ranges) = match before {
        Some((_, Durable::Bytes(bytes))) => (bytes, written),
        Some((_, Durable::Names(_))) | None => (Vec::new(), std::iter::once(0..metadata.len()).collect()),
    };
    bytes.resize(usize::try_from(metadata.len()).expect("a small file"), 0);
    for range in ranges {
        let end = range.end.min(metadata.len());
        let place =
            usize::try_from(range.start.min(end)).expect("small")..usize::try_from(end).expect("small");
        file.read_exact_at(&mut bytes[place], range.start)?;
    }
    with(|files| files.durable.insert(number, (began, Durable::Bytes(bytes))));
    Ok(())
}

fn keep(disk: Disk, began: u64, number: u64, durable: Durable) {
    with(|files| {
        let is_later = files.durable.get(&number).is_none_or(|(other, _)| *other < began);
        if is_later && !disk.lies {
            files.durable.insert(number, (began, durable));
        }
    });
}

/// What there is of it now.
fn look(file: &File) -> io::Result<(u64, Durable)> {
    if !with(|files| files.keeps) {
        return Ok((0, Durable::Bytes(Vec::new())));
    }
    let metadata = file.metadata()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let durable = if metadata.is_dir() {
        Durable::Names(names(Path::new(&path))?)
    } else {
        Durable::Bytes(fs::read(path)?)
    };
    Ok((metadata.ino(), durable))
}

fn names(directory: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        names.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.ino());
    }
    Ok(names)
}

/// The power is lost: what of the files in a directory was not synced may be gone.
///
/// # Errors
/// The system's.
pub(crate) fn lose_power(directory: &Path) -> io::Result<()> {
    let now = names(directory)?;
    let number = fs::metadata(directory)?.ino();
    let synced = with(|files| files.durable.get(&number).cloned());
    let durable = match synced {
        Some((_, Durable::Names(names))) if scheduler::random(|random| random.chance(50)) => names,
        _ => now.clone(),
    };
    let mut bytes = BTreeMap::new();
    for (name, number) in &now {
        let path = directory.join(name);
        if path.is_dir() {
            lose_power(&path)?;
        } else {
            bytes.insert(*number, fs::read(&path)?);
            fs::remove_file(&path)?;
        }
    }
    for (name, number) in durable {
        let path = directory.join(name);
        if path.is_dir() {
            continue;
        }
        let old = match with(|files| files.durable.get(&number).cloned()) {
            Some((_, Durable::Bytes(old))) => old,
            Some((_, Durable::Names(_))) | None => Vec::new(),
        };
        // It may have gone since it was synced.
        let new = bytes.remove(&number).unwrap_or_else(|| old.clone());
        let left = mix(&old, new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&left)?;
        let number = file.metadata()?.ino();
        let began = begin_sync();
        with(|files| files.durable.insert(number, (began, Durable::Bytes(left))));
    }
    let (number, left) = (fs::metadata(directory)?.ino(), names(directory)?);
    let began = begin_sync();
    with(|files| files.durable.insert(number, (began, Durable::Names(left))));
    Ok(())
}

/// What is left of a file that had these bytes durably, and has those.
fn mix(old: &[u8], mut new: Vec<u8>) -> Vec<u8> {
    let how = scheduler::random(|random| random.below(4));
    match how {
        0 => old.to_vec(),
        1 => new,
        _ => {
            for (number, block) in new.chunks_mut(BLOCK_BYTES).enumerate() {
                let at = number * BLOCK_BYTES;
                if scheduler::random(|random| random.chance(50))
                    && let Some(old) = old.get(at..at + block.len())
                {
                    block.copy_from_slice(old);
                }
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scheduler::Clock;

    /// What a file has when the power was lost: it was synced with ones, and then written with twos.
    fn left(seed: u64, syncs_name: bool) -> Option<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        scheduler::begin(seed);
        begin(true, Duration::ZERO);
        let process = scheduler::process(Clock::default());
        let (file, parent) = (path.clone(), directory.path().to_owned());
        scheduler::spawn_in(process, "test", move || {
            sync(&File::open(&parent).unwrap()).unwrap().unwrap();
            fs::write(&file, [1; 2 * BLOCK_BYTES]).unwrap();
            sync(&File::open(&file).unwrap()).unwrap().unwrap();
            if syncs_name {
                sync(&File::open(&parent).unwrap()).unwrap().unwrap();
            }
            let mut file = OpenOptions::new().write(true).open(&file).unwrap();
            file.write_all(&[2; 2 * BLOCK_BYTES]).unwrap();
        });
        scheduler::run(Duration::from_secs(1), &mut || false);
        lose_power(directory.path()).unwrap();
        assert!(scheduler::failures().is_empty());
        scheduler::end();
        fs::read(&path).ok()
    }

    #[test]
    fn what_was_synced_is_left_and_of_the_rest_some() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let bytes = left(seed, true).expect("its name was synced");
            let blocks: Vec<_> = bytes.chunks(BLOCK_BYTES).map(|block| block[0]).collect();
            assert!(bytes.chunks(BLOCK_BYTES).all(|block| block.iter().all(|byte| *byte == block[0])));
            seen.insert(blocks);
        }
        assert_eq!(seen, [[1, 1], [1, 2], [2, 1], [2, 2]].map(Vec::from).into());
        let there = (0..20).filter(|seed| left(*seed, false).is_some()).count();
        assert!((1..20).contains(&there), "a name that was not synced is there {there} times of 20");
    }
}
