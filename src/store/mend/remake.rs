//! A segment's file made again: when it is missing, or its head or table is not what it was, so that nobody knows what the rest is worth.
//!
//! Head and table come from the ring or from the peer: both nodes have the same. Each block of each record is taken from what is left of
//! the old file if it matches, else from the ring or the peer; so replay finds the records that it needs, whether their blocks live or not.
//! What nobody has is dead on the peer, and its room is given back, or is damaged on both.

use std::cell::OnceCell;
use std::ops::Range;

use super::{Broken, Source, block_bytes, pieces};
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::segment::{HEAD_BYTES, RecordKind, Scan, SegmentHead, Verify};
use crate::store::engine::Engine;
use crate::store::pair::Pair;
use crate::store::peer::FetchedTable;
use crate::store::segment_files::{Remade, SegmentFileError};
use crate::store::sums::Table;

/// Which device blocks of a segment were filled.
struct Filled {
    block_bytes: u64,
    blocks: Vec<bool>,
}

impl Pair {
    /// Makes the segment's file again, as far as anybody has it; why not all of it, where blocks are on neither node: some may be dead.
    ///
    /// # Errors
    /// Why it cannot be: the old file, if there is one, is as it was.
    pub(super) fn remake(
        &self,
        base: Lsn,
        epoch: u64,
        broken: &[Broken],
        gone: &OnceCell<String>,
    ) -> Result<Option<String>, String> {
        if let Some(why) = gone.get().filter(|_| self.engine.ring_bytes(base).is_none()) {
            return Err(why.clone());
        }
        let began = Instant::now();
        let fetched = self.engine.whole_table(base).inspect_err(|why| {
            if self.engine.health.peer.is_silent_since(began) {
                gone.get_or_init(|| why.clone());
            }
        })?;
        let Ok(table) = Table::of(fetched.head, &fetched);
        if !broken.iter().all(|one| table.knows(one.lsn, one.size, one.blocks)) {
            return Err("the peer's table of the segment does not have the blocks either".into());
        }
        let said = |error: SegmentFileError| error.to_string();
        let files = &self.engine.files;
        let remade = files.remake(base).map_err(said)?;
        let (filled, lacks) = self.fill(&fetched, &table, &remade, gone)?;
        remade.put(fetched.start, &fetched.bytes).map_err(said)?;
        remade.put(0, &fetched.head.encode()).map_err(said)?;
        remade.sync().map_err(said)?;
        self.unmoved(epoch, || remade.finish())?;
        for range in filled.gaps(fetched.head.layout.payload_start()..fetched.start) {
            if let Err(error) = files.punch(base, range) {
                log::debug!("{error}"); // room is not given back, and nothing else is wrong
                break;
            }
        }
        Ok(lacks)
    }

    /// Puts the payloads of all records that anybody has; what was filled, and why not all that is needed.
    fn fill(
        &self,
        fetched: &FetchedTable,
        table: &Table,
        remade: &Remade<'_>,
        gone: &OnceCell<String>,
    ) -> Result<(Filled, Option<String>), String> {
        let layout = fetched.head.layout;
        let mut filled = Filled::new(layout.segment_bytes(), layout.device_block_bytes());
        let ring = self.engine.ring_segment(fetched.head.base);
        let source = Source { table, ring, silent: OnceCell::new(), gone };
        let mut lacks = None;
        let mut scan = Scan::new(fetched.head, Verify::Slots);
        loop {
            let Ok(next) = scan.next(fetched);
            let Ok((record, _)) = next else { break };
            if !matches!(record.kind, RecordKind::Write | RecordKind::Volume) {
                continue;
            }
            let size = record.block_size;
            for (lsn, blocks) in pieces(record.lsn, size, record.blocks.into()) {
                let mut buffer = vec![0; usize::try_from(blocks << size.shift()).expect("at most 32 KiB")];
                let had = self.own(&source, lsn, size, &mut buffer);
                let (good, why) = self.obtain(&source, lsn, size, &mut buffer, had);
                if let Some(why) = source.silent.get() {
                    return Err(why.clone());
                }
                lacks = why.or(lacks);
                for (number, piece) in (0..blocks).zip(buffer.chunks_exact(block_bytes(size))) {
                    if good >> number & 1 == 1 {
                        let at = lsn.since(fetched.head.base) + (number << size.shift());
                        remade.put(at, piece).map_err(|error| error.to_string())?;
                        filled.fill(at, size.bytes());
                    }
                }
            }
        }
        if scan.table_start() != fetched.start {
            return Err(format!(
                "the peer's table begins at {}, its records' at {}",
                fetched.start,
                scan.table_start()
            ));
        }
        Ok((filled, lacks))
    }
}

impl Engine {
    /// The head and the table of a segment that is complete, from the ring or from the peer, of the same segment as the own file as far as that
    /// has a head.
    pub(super) fn whole_table(&self, base: Lsn) -> Result<FetchedTable, String> {
        let fetched = match self.ring_bytes(base) {
            Some(fetched) => fetched,
            None => self.health.peer.table(base).map_err(|error| error.to_string())?,
        };
        if !fetched.is_closed {
            return Err("the peer is still writing the segment: try again when it is full there".into());
        }
        let mut bytes = [0; HEAD_BYTES];
        if self.files.read(base, 0, &mut bytes).is_ok()
            && let Ok(own) = SegmentHead::decode_at(&bytes, self.config.id, base)
            && own != fetched.head
        {
            return Err(format!("the peer's segment at {base} is another one"));
        }
        Ok(fetched)
    }

    /// The same from the ring, if it is there to its end.
    fn ring_bytes(&self, base: Lsn) -> Option<FetchedTable> {
        let durable = crate::store::keeper::durable(&self.shared.lock());
        let ring = self.ring_segment(base).filter(|_| self.is_closed(base, durable))?;
        let (start, bytes) = ring.table();
        let fetched = FetchedTable { head: ring.head, start, bytes, is_closed: true };
        // Another segment may have come there meanwhile: what was copied has to have all that was found.
        let mut again = Scan::new(ring.head, Verify::Slots);
        loop {
            let Ok(next) = again.next(&fetched);
            if next.is_err() {
                break;
            }
        }
        (again.end() == ring.end()).then_some(fetched)
    }
}

impl Filled {
    fn new(segment_bytes: u64, block_bytes: u64) -> Self {
        let count = usize::try_from(segment_bytes / block_bytes).expect("at most 2^21");
        Self { block_bytes, blocks: vec![false; count] }
    }

    fn fill(&mut self, offset: u64, bytes: u64) {
        let at = |offset: u64| usize::try_from(offset / self.block_bytes).expect("at most 2^21");
        let (first, last) = (at(offset), at(offset + bytes - 1));
        self.blocks[first..=last].fill(true);
    }

    /// Ranges of whole device blocks within `area` in which nothing was filled.
    fn gaps(&self, area: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps: Vec<Range<u64>> = Vec::new();
        for (number, is_filled) in (0..).zip(&self.blocks) {
            let (start, end) = (number * self.block_bytes, (number + 1) * self.block_bytes);
            if *is_filled || start < area.start || end > area.end {
                continue;
            }
            match gaps.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end = end,
                None => gaps.push(start..end),
            }
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_was_not_filled() {
        let mut filled = Filled::new(10 * 4096, 4096);
        filled.fill(4096, 4096);
        filled.fill(4 * 4096 + 512, 512);
        filled.fill(6 * 4096 - 512, 1024);
        let gaps = filled.gaps(4096..9 * 4096);
        assert_eq!(gaps, [2 * 4096..4 * 4096, 7 * 4096..9 * 4096]);
    }
}
