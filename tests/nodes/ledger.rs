//! What a writer was told: for each block the contents that it may have, by what was issued, acknowledged and flushed.
//!
//! Each write has a number, and the content of a block tells its own number and that of the write. A block has one write in flight
//! at most, so its contents have an order. Events (issue, acknowledgment) are counted over all blocks: since the log has an order too, a
//! write that was acknowledged before another was issued cannot be lost while that one is kept.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::client::Client;
pub(crate) use crate::client::{BLOCK, content};

/// What must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All that was acknowledged.
    Acknowledged,
    /// All that was flushed; of the rest the first part.
    Flushed,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    number: u32,
    is_zero: bool,
    issued: u64,
    acknowledged: Option<u64>,
}

/// The ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Of each block its contents, from the last that was flushed on.
    blocks: Vec<VecDeque<Version>>,
    events: u64,
    numbers: u32,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Requests that were asked for and not answered.
    pub(crate) in_flight: u64,
    /// Flushes that were acknowledged.
    pub(crate) flushes: u64,
}

impl Ledger {
    /// Of a volume in which nothing was written.
    pub(crate) fn new(blocks: usize) -> Self {
        let empty = Version { number: 0, is_zero: true, issued: 0, acknowledged: Some(0) };
        let blocks = vec![VecDeque::from([empty]); blocks];
        Self { blocks, events: 0, numbers: 0, acknowledged: 0, in_flight: 0, flushes: 0 }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Whether a write of one of the blocks is under way.
    pub(crate) fn is_busy(&self, first: usize, count: usize) -> bool {
        self.blocks[first..first + count]
            .iter()
            .any(|block| block.back().is_some_and(|last| last.acknowledged.is_none()))
    }

    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// A write of these blocks is about to be asked for; its number.
    pub(crate) fn issue(&mut self, first: usize, count: usize, is_zero: bool) -> u32 {
        self.numbers += 1;
        let version = Version { number: self.numbers, is_zero, issued: self.event(), acknowledged: None };
        self.blocks[first..first + count].iter_mut().for_each(|block| block.push_back(version));
        self.in_flight += 1;
        self.numbers
    }

    pub(crate) fn acknowledge(&mut self, first: usize, count: usize) {
        let now = self.event();
        for block in &mut self.blocks[first..first + count] {
            let last = block.back_mut().unwrap();
            assert!(last.acknowledged.replace(now).is_none(), "acknowledged twice");
        }
        self.in_flight -= 1;
        self.acknowledged += 1;
    }

    /// A flush is about to be asked for: what it covers.
    pub(crate) fn begin_flush(&mut self) -> u64 {
        self.in_flight += 1;
        self.event()
    }

    /// The flush that began then was acknowledged.
    pub(crate) fn flushed(&mut self, began: u64) {
        self.in_flight -= 1;
        self.flushes += 1;
        for block in &mut self.blocks {
            let covered = |version: &Version| version.acknowledged.is_some_and(|at| at <= began);
            while block.get(1).is_some_and(covered) {
                block.pop_front();
            }
        }
    }

    /// Compares what was found with what may be; what was found is all that counts afterwards.
    ///
    /// # Errors
    /// The first block that has what it must not have.
    pub(crate) fn judge(&mut self, found: &[u8], kept: Kept) -> Result<(), String> {
        assert_eq!(found.len(), self.blocks.len() * BLOCK);
        let (mut first_lost, mut last_kept) = (u64::MAX, (0, 0));
        for (index, (bytes, versions)) in found.chunks_exact(BLOCK).zip(&self.blocks).enumerate() {
            let may_be_lost = match kept {
                Kept::Acknowledged => versions.iter().rposition(|version| version.acknowledged.is_some()),
                Kept::Flushed => Some(0),
            };
            let least = may_be_lost.unwrap();
            let place = versions.iter().rposition(|version| has(bytes, index as u64, version));
            let Some(place) = place.filter(|place| *place >= least) else {
                return Err(format!(
                    "block {index} has {}, of {versions:?} the first {least} are not allowed",
                    describe(bytes)
                ));
            };
            let lost = versions.iter().skip(place + 1).filter_map(|version| version.acknowledged);
            first_lost = lost.fold(first_lost, u64::min);
            // Zeroes may be of several writes.
            if !versions[place].is_zero {
                last_kept = last_kept.max((versions[place].issued, index));
            }
        }
        if last_kept.0 > first_lost {
            return Err(format!(
                "block {} has a write that was issued at {}, and one is lost that was acknowledged at {first_lost}",
                last_kept.1, last_kept.0
            ));
        }
        let now = self.event();
        for (index, (bytes, versions)) in found.chunks_exact(BLOCK).zip(&mut self.blocks).enumerate() {
            let place = versions.iter().rposition(|version| has(bytes, index as u64, version)).unwrap();
            let version = Version { acknowledged: Some(now), ..versions[place] };
            *versions = VecDeque::from([version]);
        }
        self.in_flight = 0;
        Ok(())
    }
}

/// Reads all that the ledger is of, and compares it; afterwards it is flushed. No write is under way.
///
/// # Errors
/// What cannot be read, or the first block that has what it must not have.
pub(crate) fn judge(client: &mut Client, ledger: &Mutex<Ledger>, kept: Kept) -> Result<(), String> {
    let blocks = ledger.lock().unwrap().blocks();
    let mut found = Vec::with_capacity(blocks * BLOCK);
    let piece = 256 * BLOCK;
    for offset in (0..blocks * BLOCK).step_by(piece) {
        let bytes = client.read(offset as u64, u32::try_from(piece.min(blocks * BLOCK - offset)).unwrap());
        found.extend(bytes.map_err(|error| format!("reading at {offset}: {error}"))?);
    }
    ledger.lock().unwrap().judge(&found, kept)?;
    match client.flush() {
        0 => {}
        error => return Err(format!("flushing: {error}")),
    }
    let mut ledger = ledger.lock().unwrap();
    let began = ledger.begin_flush();
    ledger.flushed(began);
    Ok(())
}

fn has(bytes: &[u8], block: u64, version: &Version) -> bool {
    if version.is_zero {
        bytes.iter().all(|byte| *byte == 0)
    } else {
        bytes[8..12] == version.number.to_le_bytes() && bytes == content(block, version.number)
    }
}

fn describe(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return "zeroes".into();
    }
    let block = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let number = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    let whole = bytes == content(block, number);
    let kind = if whole { "the content" } else { "garbage that begins like the content" };
    format!("{kind} of block {block} after write {number}")
}

#[test]
fn a_ledger_knows_what_may_be_lost() {
    let disk = |numbers: [u32; 3]| {
        let mut bytes = Vec::new();
        for (block, number) in (0_u64..).zip(numbers) {
            bytes.extend(if number == 0 { [0; BLOCK] } else { content(block, number) });
        }
        bytes
    };
    let told = || {
        let mut ledger = Ledger::new(3);
        assert_eq!(ledger.issue(0, 1, false), 1);
        ledger.acknowledge(0, 1);
        let began = ledger.begin_flush();
        assert_eq!(ledger.issue(0, 2, false), 2);
        ledger.acknowledge(0, 2);
        ledger.flushed(began);
        assert_eq!(ledger.issue(2, 1, false), 3);
        assert!(ledger.is_busy(1, 2) && !ledger.is_busy(0, 2));
        ledger
    };
    for (found, acknowledged, flushed) in [
        ([2, 2, 0], true, true),
        ([2, 2, 3], true, true),
        ([1, 0, 0], false, true),
        ([0, 0, 0], false, false),
        ([1, 0, 3], false, false),
        ([2, 2, 2], false, false),
    ] {
        assert_eq!(told().judge(&disk(found), Kept::Acknowledged).is_ok(), acknowledged, "{found:?}");
        assert_eq!(told().judge(&disk(found), Kept::Flushed).is_ok(), flushed, "{found:?}");
    }
    let mut garbage = disk([2, 2, 0]);
    garbage[BLOCK - 1] ^= 1;
    assert!(told().judge(&garbage, Kept::Flushed).unwrap_err().contains("garbage"));
}
