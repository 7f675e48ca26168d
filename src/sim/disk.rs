//! A disk with files, of which a power cut leaves what was synced, and of the rest anything.
//!
//! ```text
//!  write ─▶ live ── sync ──▶ durable
//!            │                 ▲
//!            └── power cut: each sector that was written and not synced gets there or not, in any order
//! ```
//!
//! Sectors are whole: a write of several may be torn between any two. A new file is there after a cut only if its directory was synced,
//! or by luck. After a sync that failed nobody knows what is durable, and a later one that succeeds says nothing about it.

use std::collections::BTreeMap;

use super::Random;

/// Why the disk does not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskError {
    /// The power is off, since this operation or one before.
    PowerCut,
    /// The sync failed.
    SyncFailed,
}

#[derive(Debug, Clone, Default)]
struct File {
    live: BTreeMap<u64, Vec<u8>>,
    durable: BTreeMap<u64, Vec<u8>>,
    /// What was done and not synced, in order.
    pending: Vec<Change>,
    /// As it was set last, and as it is on the disk.
    length_live: u64,
    length_durable: u64,
    /// Whether its name is durable.
    linked: bool,
}

/// What a power cut may leave undone.
#[derive(Debug, Clone)]
enum Change {
    Sector(u64, Vec<u8>),
    Length(u64),
}

/// A change of a name that a power cut may leave undone: those that came last go first.
#[derive(Debug, Clone)]
enum Name {
    Removed(u64, File),
    Renamed { from: u64, to: u64, replaced: Option<File> },
}

/// Files by number, sectors, and a countdown.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    sector_bytes: u64,
    files: BTreeMap<u64, File>,
    random: Random,
    /// Writes and syncs done, or begun at the cut.
    steps: u64,
    cut_at: Option<u64>,
    fail_sync_at: Option<u64>,
    off: bool,
    /// Changes of names since the directory was synced, in order.
    names: Vec<Name>,
    /// Sectors written, each time that one was.
    written: BTreeMap<(u64, u64), u32>,
}

impl Disk {
    pub(crate) const fn new(sector_bytes: u64, seed: u64) -> Self {
        Self {
            sector_bytes,
            files: BTreeMap::new(),
            random: Random::new(seed),
            steps: 0,
            cut_at: None,
            fail_sync_at: None,
            off: false,
            names: Vec::new(),
            written: BTreeMap::new(),
        }
    }

    /// Goes on with other luck.
    pub(crate) const fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// Cuts the power in the middle of the operation with this number; the first is 1.
    pub(crate) const fn cut_at(&mut self, step: u64) {
        self.cut_at = Some(step);
    }

    /// Cuts the power in one of the next operations: after so many more.
    pub(crate) const fn cut_in(&mut self, more: u64) {
        self.cut_at = Some(self.steps + 1 + more);
    }

    /// The power stays on.
    pub(crate) const fn cut_never(&mut self) {
        self.cut_at = None;
    }

    /// Makes the operation with this number fail if it is a sync.
    pub(crate) const fn fail_sync_at(&mut self, step: u64) {
        self.fail_sync_at = Some(step);
    }

    pub(crate) const fn steps(&self) -> u64 {
        self.steps
    }

    /// The most that any sector was written.
    pub(crate) fn most_written(&self) -> u32 {
        self.written.values().copied().max().unwrap_or_default()
    }

    /// One more operation; whether the power is cut in it.
    fn step(&mut self) -> Result<bool, DiskError> {
        if self.off {
            return Err(DiskError::PowerCut);
        }
        self.steps += 1;
        self.off = self.cut_at == Some(self.steps);
        Ok(self.off)
    }

    /// Writes whole sectors; makes the file if it is not there.
    pub(crate) fn write(&mut self, file: u64, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let cut = self.step()?;
        let sector_bytes = usize::try_from(self.sector_bytes).expect("small");
        assert!(
            offset.is_multiple_of(self.sector_bytes) && bytes.len().is_multiple_of(sector_bytes),
            "whole sectors"
        );
        let target = self.files.entry(file).or_default();
        for (sector, content) in (offset / self.sector_bytes..).zip(bytes.chunks(sector_bytes)) {
            target.live.insert(sector, content.to_vec());
            target.pending.push(Change::Sector(sector, content.to_vec()));
            *self.written.entry((file, sector)).or_default() += 1;
        }
        if cut { Err(DiskError::PowerCut) } else { Ok(()) }
    }

    /// Makes durable what was written to the file.
    pub(crate) fn sync(&mut self, file: u64) -> Result<(), DiskError> {
        if self.step()? {
            return Err(DiskError::PowerCut);
        }
        let Some(target) = self.files.get_mut(&file) else { return Ok(()) };
        if self.fail_sync_at == Some(self.steps) {
            target.settle_some(&mut self.random, 50, self.sector_bytes);
            return Err(DiskError::SyncFailed);
        }
        for change in std::mem::take(&mut target.pending) {
            target.settle(change, self.sector_bytes);
        }
        Ok(())
    }

    /// Sets the file's length, to whole sectors; makes the file if it is not there. What is cut off is zeroes when it comes again.
    pub(crate) fn set_length(&mut self, file: u64, bytes: u64) -> Result<(), DiskError> {
        let cut = self.step()?;
        assert!(bytes.is_multiple_of(self.sector_bytes), "whole sectors");
        let target = self.files.entry(file).or_default();
        target.live.retain(|sector, _| *sector < bytes / self.sector_bytes);
        target.length_live = bytes;
        target.pending.push(Change::Length(bytes));
        if cut { Err(DiskError::PowerCut) } else { Ok(()) }
    }

    /// The length that was set; 0 when none was.
    pub(crate) fn length(&self, file: u64) -> u64 {
        self.files.get(&file).map_or(0, |file| file.length_live)
    }

    /// Makes durable which files there are.
    pub(crate) fn sync_directory(&mut self) -> Result<(), DiskError> {
        if self.step()? {
            return Err(DiskError::PowerCut);
        }
        self.files.values_mut().for_each(|file| file.linked = true);
        self.names.clear();
        Ok(())
    }

    /// Makes durable whether there is this file, where no other's name is among those of its directory.
    pub(crate) fn sync_name(&mut self, file: u64) -> Result<(), DiskError> {
        if self.step()? {
            return Err(DiskError::PowerCut);
        }
        if let Some(found) = self.files.get_mut(&file) {
            found.linked = true;
        }
        self.names.retain(|name| !matches!(name, Name::Removed(gone, _) if *gone == file));
        Ok(())
    }

    /// Removes the file. After a cut it may be there again.
    pub(crate) fn remove(&mut self, file: u64) -> Result<(), DiskError> {
        let cut = self.step()?;
        if let Some(gone) = self.files.remove(&file) {
            self.names.push(Name::Removed(file, gone));
        }
        if cut { Err(DiskError::PowerCut) } else { Ok(()) }
    }

    /// Gives the file another name, in place of whatever has that. After a cut it is as it was, or as it is.
    pub(crate) fn rename(&mut self, from: u64, to: u64) -> Result<(), DiskError> {
        let cut = self.step()?;
        let Some(moved) = self.files.remove(&from) else { panic!("no file {from}") };
        let replaced = self.files.insert(to, moved);
        self.names.push(Name::Renamed { from, to, replaced });
        if cut { Err(DiskError::PowerCut) } else { Ok(()) }
    }

    /// Whether the power is off.
    pub(crate) const fn is_off(&self) -> bool {
        self.off
    }

    /// Undoes the last changes of names, as many as luck will have it.
    fn undo_names(&mut self) {
        while !self.names.is_empty() && self.random.chance(50) {
            match self.names.pop().expect("there is one") {
                Name::Removed(file, gone) => {
                    self.files.insert(file, gone);
                }
                Name::Renamed { from, to, replaced } => {
                    let moved = self.files.remove(&to).expect("what was renamed since was undone");
                    self.files.insert(from, moved);
                    if let Some(replaced) = replaced {
                        self.files.insert(to, replaced);
                    }
                }
            }
        }
        self.names.clear();
    }

    /// Power comes back: what is live is what was durable, and of the rest what the seed says.
    pub(crate) fn restart(&mut self) {
        // Nothing, everything and something of what was not synced are all worth a look.
        let percent = [0, 100, 50, 10, 90][usize::try_from(self.random.below(5)).expect("small")];
        self.undo_names();
        let mut files = std::mem::take(&mut self.files);
        files.retain(|_, file| file.linked || self.random.chance(percent));
        for file in files.values_mut() {
            file.settle_some(&mut self.random, percent, self.sector_bytes);
            file.live = file.durable.clone();
            file.length_live = file.length_durable;
            file.linked = true;
        }
        self.files = files;
        self.off = false;
        self.cut_at = None;
    }

    /// The files that are there.
    pub(crate) fn files(&self) -> Vec<u64> {
        self.files.keys().copied().collect()
    }

    /// Reads anywhere; what was never written is zeroes.
    pub(crate) fn read(&self, file: u64, offset: u64, target: &mut [u8]) {
        let live = self.files.get(&file).map(|file| &file.live);
        let (mut at, mut rest) = (offset, target);
        while !rest.is_empty() {
            let place = usize::try_from(at % self.sector_bytes).expect("small");
            let count = rest.len().min(usize::try_from(self.sector_bytes).expect("small") - place);
            let (part, behind) = rest.split_at_mut(count);
            match live.and_then(|live| live.get(&(at / self.sector_bytes))) {
                Some(sector) => part.copy_from_slice(&sector[place..place + count]),
                None => part.fill(0),
            }
            (at, rest) = (at + count as u64, behind);
        }
    }

    /// Flips a bit of what is on the disk.
    pub(crate) fn flip(&mut self, file: u64, offset: u64, bit: u32) {
        let Some(file) = self.files.get_mut(&file) else { panic!("no file {file}") };
        let place = usize::try_from(offset % self.sector_bytes).expect("small");
        for state in [&mut file.live, &mut file.durable] {
            if let Some(sector) = state.get_mut(&(offset / self.sector_bytes)) {
                sector[place] ^= 1 << bit;
            }
        }
    }

    /// Offsets of the sectors of the file that were ever written.
    pub(crate) fn sectors(&self, file: u64) -> Vec<u64> {
        self.files[&file].live.keys().map(|sector| sector * self.sector_bytes).collect()
    }
}

impl File {
    /// Of what is pending each change becomes durable or not.
    fn settle_some(&mut self, random: &mut Random, percent: u64, sector_bytes: u64) {
        for change in std::mem::take(&mut self.pending) {
            if random.chance(percent) {
                self.settle(change, sector_bytes);
            }
        }
    }

    fn settle(&mut self, change: Change, sector_bytes: u64) {
        match change {
            Change::Sector(sector, content) => {
                self.durable.insert(sector, content);
            }
            Change::Length(bytes) => {
                self.durable.retain(|sector, _| *sector < bytes / sector_bytes);
                self.length_durable = bytes;
            }
        }
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
