//! What the client of a volume was answered, kept outside of the machines that lose their power.
//!
//! The lines are those of the role `disk-writer` of `tests/across.rs`. Writes have rising numbers, and a block has one in flight at most:
//! a block that has the content of a later write than the last acknowledged one has it by a write that was not answered.

use crate::failure::{Failure, Result};

/// Numbers of writes that were asked for, and of whose answers nothing was read.
const UNHEARD_MAX: u32 = 1 << 16;

/// What must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// All that was acknowledged.
    Acknowledged,
    /// All that was flushed.
    Flushed,
}

/// The ledger: of each block, by number, the last write.
#[derive(Debug)]
pub(super) struct Ledger {
    acknowledged: Vec<u32>,
    flushed: Vec<u32>,
    /// What a flush that was asked for covers.
    flushing: Option<Vec<u32>>,
    /// Writes and flushes that were acknowledged.
    pub(super) writes: u64,
    pub(super) flushes: u64,
}

impl Ledger {
    /// Of a volume in which nothing was written.
    pub(super) fn new(blocks: usize) -> Self {
        let none = vec![0; blocks];
        Self { acknowledged: none.clone(), flushed: none, flushing: None, writes: 0, flushes: 0 }
    }

    /// A number that no write had.
    pub(super) fn next(&self) -> u32 {
        self.acknowledged.iter().max().copied().unwrap_or(0) + UNHEARD_MAX
    }

    /// Of each block the last write that was acknowledged.
    pub(super) fn acknowledged(&self) -> Vec<u32> {
        self.acknowledged.clone()
    }

    /// Blocks that were written since `acknowledged` was so.
    pub(super) fn changed_since(&self, acknowledged: &[u32]) -> usize {
        self.acknowledged.iter().zip(acknowledged).filter(|(now, then)| now != then).count()
    }

    /// Takes what a client has printed.
    pub(super) fn take_all(&mut self, output: &str) -> Result<()> {
        self.flushing = None;
        output.lines().try_for_each(|line| self.take(line))
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["w", number, first, count] => {
                let wrong = || Failure::new(format!("a client said {line:?}"));
                let parse = |word: &str| word.parse::<u32>().map_err(|_| wrong());
                let (first, count) = (parse(first)? as usize, parse(count)? as usize);
                let written = self.acknowledged.get_mut(first..first + count).ok_or_else(wrong)?;
                written.fill(parse(number)?);
                self.writes += 1;
            }
            ["f"] => self.flushing = Some(self.acknowledged.clone()),
            ["F"] => {
                let covered = self.flushing.take();
                self.flushed = covered.ok_or_else(|| Failure::new("a flush that nobody asked for".into()))?;
                self.flushes += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares what was found, a number for each block, with what must be there; how many blocks have later writes. What was found is
    /// all that counts afterwards, and must have been flushed.
    pub(super) fn judge(&mut self, found: &str, kept: Kept) -> Result<usize> {
        let found: std::result::Result<Vec<u32>, _> = found.split(' ').map(str::parse).collect();
        let found = found.map_err(|error| Failure::new(format!("what was found is no numbers: {error}")))?;
        let least = match kept {
            Kept::Acknowledged => &self.acknowledged,
            Kept::Flushed => &self.flushed,
        };
        if found.len() != least.len() {
            return Err(Failure::new(format!("{} blocks were found, not {}", found.len(), least.len())));
        }
        let lost: Vec<_> = (0..least.len()).filter(|&block| found[block] < least[block]).collect();
        if let Some(&block) = lost.first() {
            let (has, must) = (found[block], least[block]);
            return Err(Failure::new(format!(
                "{} blocks lost what was to be kept ({kept:?}); the first, {block}, has write {has}, not {must}",
                lost.len()
            )));
        }
        let last = self.next();
        if let Some(block) = found.iter().position(|&number| number >= last) {
            return Err(Failure::new(format!("block {block} has write {}, which nobody made", found[block])));
        }
        let later = (0..least.len()).filter(|&block| found[block] > self.acknowledged[block]).count();
        self.acknowledged.clone_from(&found);
        self.flushed = found;
        Ok(later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Ledger {
        let mut ledger = Ledger::new(3);
        ledger.take_all("writing\nw 5 0 2\nf\nw 7 1 1\nF\nf\nw 8 2 1\nlost\n").unwrap();
        assert_eq!((ledger.writes, ledger.flushes), (3, 1));
        ledger
    }

    #[test]
    fn what_was_lost_is_found() {
        for (found, acknowledged, flushed) in [
            ("5 7 8", true, true),
            ("5 9 8", true, true),
            ("5 5 0", false, true),
            ("5 0 8", false, false),
            ("0 7 8", false, false),
        ] {
            assert_eq!(told().judge(found, Kept::Acknowledged).is_ok(), acknowledged, "{found}");
            assert_eq!(told().judge(found, Kept::Flushed).is_ok(), flushed, "{found}");
        }
        for wrong in ["5 7", "5 7 8 9", "5 7 x", "", "5 7 99999"] {
            assert!(told().judge(wrong, Kept::Flushed).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_was_found_counts_afterwards() {
        let mut ledger = told();
        let before = ledger.acknowledged();
        assert_eq!((before.as_slice(), ledger.changed_since(&[5, 7, 7])), (&[5, 7, 8][..], 1));
        assert_eq!(ledger.judge("5 9 8", Kept::Acknowledged).unwrap(), 1);
        assert_eq!(ledger.changed_since(&before), 1);
        assert!(ledger.judge("5 7 8", Kept::Flushed).unwrap_err().to_string().contains("block"));
        assert!(ledger.take_all("w 5 2 2\n").is_err() && ledger.take_all("w 5 x 1\n").is_err());
        assert!(ledger.take_all("F\n").is_err(), "nobody asked for it");
    }
}
