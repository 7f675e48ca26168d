//! What a killed process leaves is judged here: stores that can be made again from a seed, a ledger of how far they had
//! come, kept outside the killed process, and the prefix rule.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use crate::common::Random;

/// Bytes of a store that are not a repetition.
const BLOCK_BYTES: usize = 16 << 10;

/// A store: `bytes` at `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) offset: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Store {
    pub(crate) fn apply(&self, memory: &mut [u8]) {
        memory[self.offset..self.offset + self.bytes.len()].copy_from_slice(&self.bytes);
    }
}

/// Endless stores into `start..start + span`, all derived from a seed: sizes from one length to another, mostly small;
/// some continue the one before, some overlap it, some go anywhere.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    random: Random,
    start: usize,
    span: usize,
    lens: (usize, usize),
    last: (usize, usize),
}

impl Stores {
    pub(crate) fn new(seed: u64, start: usize, span: usize, lens: (usize, usize)) -> Self {
        assert!(0 < lens.0 && lens.0 <= lens.1 && lens.1 <= span);
        let mut random = Random(seed ^ 0x5851_f42d_4c95_7f2d | 1);
        (0..8).for_each(|_| _ = random.next());
        Self { random, start, span, lens, last: (start, 0) }
    }
}

impl Iterator for Stores {
    type Item = Store;

    fn next(&mut self) -> Option<Store> {
        let Self { random, start, span, lens: (least, most), last } = self;
        let (small, large) = ((*least * 8).min(*most), (*least * 128).min(*most));
        let len = match random.below(10) {
            0..4 => *least + random.below(small - *least + 1),
            4..8 => small + random.below(large - small + 1),
            _ => large + random.below(*most - large + 1),
        };
        let anywhere = *start + random.below(*span - len + 1);
        let wanted = match random.below(10) {
            0..4 => last.0 + last.1,
            4..7 => last.0 + random.below(last.1 + 1),
            _ => anywhere,
        };
        let offset = if wanted + len <= *start + *span { wanted } else { anywhere };
        *last = (offset, len);
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len.min(BLOCK_BYTES) {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        // A long one repeats itself: an owner should spend its time in storing.
        while bytes.len() < len {
            bytes.extend_from_within(..BLOCK_BYTES.min(len - bytes.len()));
        }
        bytes.truncate(len);
        Some(Store { offset, bytes })
    }
}

/// Finds the prefix of `stores` that `copy`, which began as `model`, holds in `start..start + span`: at least `acked` of
/// them. Of the store behind the prefix any part may be there too.
///
/// `stores` must end with the last one that can have been begun.
pub(crate) fn find_prefix(
    copy: &[u8],
    model: &mut [u8],
    range: std::ops::Range<usize>,
    mut stores: impl Iterator<Item = Store>,
    acked: u64,
) -> Result<u64, String> {
    assert_eq!(copy.len(), model.len());
    for number in 1..=acked {
        let store = stores.next().ok_or(format!("store {number} is acknowledged and was never begun"))?;
        store.apply(model);
    }
    let mut nearest = String::new();
    for count in acked.. {
        let torn = stores.next();
        match first_difference(copy, model, range.clone(), torn.as_ref()) {
            None => return Ok(count),
            Some(at) if nearest.is_empty() => nearest = format!("byte {at} differs from {count} stores"),
            Some(_) => {}
        }
        match torn {
            Some(store) => store.apply(model),
            None => {
                return Err(format!(
                    "the copy is no prefix of {count} stores that has the {acked} acknowledged ones: {nearest}"
                ));
            }
        }
    }
    unreachable!("stores do not end")
}

fn first_difference(
    copy: &[u8],
    model: &[u8],
    range: std::ops::Range<usize>,
    torn: Option<&Store>,
) -> Option<usize> {
    let (from, to) =
        torn.map_or((range.end, range.end), |store| (store.offset, store.offset + store.bytes.len()));
    let outside = [range.start..from, to..range.end];
    for part in outside {
        if copy[part.clone()] != model[part.clone()] {
            return part.into_iter().find(|&at| copy[at] != model[at]);
        }
    }
    let torn = torn?;
    (from..to).find(|&at| copy[at] != model[at] && copy[at] != torn.bytes[at - from])
}

/// One line of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    /// The lane, or [`Entry::END`] and more.
    pub(crate) lane: u64,
    /// Stores taken.
    pub(crate) taken: u64,
    /// Stores acknowledged.
    pub(crate) acked: u64,
}

impl Entry {
    const BYTES: usize = 24;
    /// Added to the lane when it found its access revoked: its last entry.
    pub(crate) const REVOKED: u64 = 1000;
    /// Added to the lane when it found the link lost otherwise: its last entry.
    pub(crate) const LOST: u64 = 2000;

    /// Writes it to the ledger, in one piece.
    pub(crate) fn write(self, mut line: &UnixStream) -> std::io::Result<()> {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.lane.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.taken.to_le_bytes());
        bytes[16..].copy_from_slice(&self.acked.to_le_bytes());
        line.write_all(&bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        Self { lane: word(0), taken: word(8), acked: word(16) }
    }
}

/// The last entry of each lane.
pub(crate) type Last = BTreeMap<u64, Entry>;

/// A thread that keeps the ledger of a child until the child is gone, or has ended all its `lanes`.
#[derive(Debug)]
pub(crate) struct Ledger(JoinHandle<Last>);

impl Ledger {
    /// Starts to read. `first` is told of the first entry.
    pub(crate) fn keep(mut line: UnixStream, lanes: usize, first: Sender<()>) -> Self {
        Self(std::thread::spawn(move || {
            let mut last = Last::new();
            let mut bytes = Vec::new();
            let mut part = [0; 1 << 15];
            // A reset is an end too: the child left something unread.
            while let Ok(len @ 1..) = line.read(&mut part) {
                bytes.extend_from_slice(&part[..len]);
                let whole = bytes.len() / Entry::BYTES * Entry::BYTES;
                for entry in bytes[..whole].chunks_exact(Entry::BYTES).map(Entry::from_bytes) {
                    if last.is_empty() {
                        let _ = first.send(());
                    }
                    let before = last.insert(entry.lane, entry).unwrap_or_default();
                    assert!(entry.acked <= entry.taken, "{entry:?}");
                    assert!(
                        entry.taken >= before.taken && entry.acked >= before.acked,
                        "{before:?}, {entry:?}"
                    );
                }
                bytes.drain(..whole);
                if last.keys().filter(|&&lane| lane >= Entry::REVOKED).count() == lanes {
                    break;
                }
            }
            last
        }))
    }

    /// What it says in the end.
    pub(crate) fn close(self) -> Last {
        self.0.join().unwrap()
    }
}

/// Counts in powers of two, for people to read.
#[derive(Debug, Default)]
pub(crate) struct Histogram(BTreeMap<u64, usize>);

impl Histogram {
    pub(crate) fn add(&mut self, value: u64) {
        *self.0.entry(value.checked_ilog2().map_or(0, |power| 1 << power)).or_default() += 1;
    }

    /// How many were not 0, and how many there are.
    pub(crate) fn non_zero(&self) -> (usize, usize) {
        let all = self.0.values().sum::<usize>();
        (all - self.0.get(&0).copied().unwrap_or(0), all)
    }

    /// Whether more than half were not 0.
    pub(crate) fn is_mostly_non_zero(&self) -> bool {
        let (non_zero, all) = self.non_zero();
        2 * non_zero > all
    }

    /// One line per power of two.
    pub(crate) fn print(&self, title: &str) {
        let mut text = format!("{title}\n");
        for (&from, &count) in &self.0 {
            let bar = "#".repeat(count.min(60));
            text += &format!("  {from:>7} .. {:<7} {count:>4} {bar}\n", (2 * from).max(1) - 1);
        }
        super::child::say(text.trim_end());
    }
}
