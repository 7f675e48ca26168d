//! A client's read that met bad data: served from the peer, and what was bad is mended soon.

use std::sync::Arc;

use super::{Broken, block_bytes, pieces};
use crate::base::{BlockSize, Lsn};
use crate::store::counters::count;
use crate::store::engine::Engine;
use crate::store::error::IoError;
use crate::store::sums::Table;

impl Engine {
    /// Reads blocks of one segment of which some are bad, those from the peer. Nobody may hold the state; it ends in bounded time.
    ///
    /// # Errors
    /// `why`, when the peer cannot help.
    pub(in crate::store) fn read_from_peer(
        &self,
        broken: &Broken,
        target: &mut [u8],
        why: IoError,
    ) -> Result<(), IoError> {
        let Broken { volume, first, lsn, size, blocks } = *broken;
        assert_eq!(target.len() as u64, blocks << size.shift(), "bytes of {blocks} blocks");
        let mut rest = target;
        for (at, count) in pieces(lsn, size, blocks) {
            let (piece, behind) =
                rest.split_at_mut(usize::try_from(count << size.shift()).expect("at most 32 KiB"));
            rest = behind;
            for (number, bad) in self.bad_runs(at, size, piece) {
                let lsn = at.plus(number << size.shift());
                let start = usize::try_from(number << size.shift()).expect("at most 32 KiB");
                let len = usize::try_from(bad << size.shift()).expect("at most 32 KiB");
                let block = first + (lsn.since(broken.lsn) >> size.shift());
                let run = Broken { volume, first: block, lsn, size, blocks: bad };
                if let Err(error) = self.fetch(lsn, size, &mut piece[start..start + len]) {
                    self.health.note_damage(lsn, || format!("{}: {why}; {error}", self.describe(&run)));
                    return Err(why);
                }
                self.health.mend_soon(run);
            }
        }
        count(&self.shared.counters.masked_reads, 1);
        Ok(())
    }

    /// Reads what is good; runs of blocks that are not, by their numbers.
    fn bad_runs(&self, lsn: Lsn, size: BlockSize, target: &mut [u8]) -> Vec<(u64, u64)> {
        let mut bad: Vec<(u64, u64)> = Vec::new();
        if self.read_file(lsn, size, target).is_ok() {
            return bad;
        }
        for (number, piece) in (0..).zip(target.chunks_exact_mut(block_bytes(size))) {
            if self.read_file(lsn.plus(number << size.shift()), size, piece).is_ok() {
                continue;
            }
            match bad.last_mut().filter(|(first, count)| first + count == number) {
                Some((_, count)) => *count += 1,
                None => bad.push((number, 1)),
            }
        }
        bad
    }

    /// A few blocks from the peer, compared with their checksums: those of the own table, or of the peer's if that is bad too.
    fn fetch(&self, lsn: Lsn, size: BlockSize, target: &mut [u8]) -> Result<(), String> {
        let peer = &self.health.peer;
        peer.is_resting().map_err(|error| error.to_string())?;
        let blocks = (target.len() / block_bytes(size)) as u64;
        let base = self.layout().base(lsn);
        // Kept to the end: who mends has the tables at hand forgotten.
        let table = match self.sums.knowing(&self.files, lsn, size, blocks) {
            Some(table) => table,
            None => {
                let fetched = self.whole_table(base)?;
                let Ok(table) = Table::of(fetched.head, &fetched);
                let table = Arc::new(table);
                self.sums.adopt(table.clone());
                table
            }
        };
        // It may be that the table alone was bad, or that it is mended by now.
        if self.files.read(base, lsn.since(base), target).is_ok() && table.verify(lsn, size, target).is_ok() {
            return Ok(());
        }
        let fetched = peer.blocks(lsn, size, blocks).map_err(|error| error.to_string())?;
        let has_all = fetched.good == u64::MAX >> (64 - blocks);
        if !has_all || table.verify(lsn, size, &fetched.bytes).is_err() {
            return Err("the peer's copy is damaged too".into());
        }
        target.copy_from_slice(&fetched.bytes);
        Ok(())
    }

    /// Which blocks they are, for people.
    pub(in crate::store) fn describe(&self, broken: &Broken) -> String {
        let state = self.shared.lock();
        let name = state.volumes.get(broken.volume).map_or("?", |entry| entry.name.as_str());
        match broken.blocks {
            1 => format!("volume {name:?}, block {}", broken.first),
            blocks => format!("volume {name:?}, blocks {} to {}", broken.first, broken.first + blocks - 1),
        }
    }
}
