//! What the nodes of a pair ask of each other's stored data: digests of ranges, a few blocks, the table of a segment; and that the other
//! mend what is bad there.
//!
//! ```text
//!  question:  "MBDATA01"  JSON                         answer:  u32 bytes of JSON   JSON   data
//! ```
//!
//! LSNs are names: equal LSN, equal data, on both nodes and for life. So no position of the log need be held still to compare: each
//! answer says which LSN each block has, and a block that has another on the other side was written meanwhile, and is looked at again.
//!
//! Whoever answers gives out only what matches its record's checksum, and whoever asked compares it with its own. Questions and answers are
//! of at most 48 KiB, and what one costs is bounded. Input is a peer's: nothing of it is asserted.

use serde::{Deserialize, Serialize};

use super::Pair;
use crate::base::{BlockSize, Lsn, VolumeId};
use crate::segment::HEAD_BYTES;
use crate::store::health::Seen;
use crate::store::mend::Broken;
use crate::store::segment_files::SegmentFileError;
use crate::store::stored::{BlockLook, Found, RangeDigest};

/// What a question begins with.
const MAGIC: &[u8; 8] = b"MBDATA01";
/// Bytes of data in one answer at most.
pub(in crate::store) const PIECE_BYTES_MAX: usize = 32 << 10;
/// Blocks that are told of one by one in an answer at most.
pub(in crate::store) const DETAIL_BLOCKS_MAX: u64 = 256;
/// Blocks with data that one digest covers at most.
const DIGEST_BLOCKS_MAX: u64 = 8192;

const _: () = assert!(PIECE_BYTES_MAX + 8192 <= crate::node::REQUEST_BYTES_MAX);

/// A question, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Envelope {
    pub(in crate::store) dataset: String,
    pub(in crate::store) node: String,
    pub(in crate::store) asked: Asked,
}

/// A question. Questions of one *pass* are of one comparison: in each a segment's file is looked at anew once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) enum Asked {
    /// The digest of these blocks of a volume.
    Digest { pass: u64, volume: u32, first: u64, count: u64 },
    /// Each of these blocks.
    Detail { pass: u64, volume: u32, first: u64, count: u64 },
    /// The data of blocks of one segment, one behind the other.
    Blocks { lsn: u64, shift: u8, count: u64 },
    /// A segment's head, and a piece of its table: from this offset in the segment on, or the first piece.
    Table { base: u64, from: Option<u64> },
    /// Mend what of these blocks is bad with you.
    Mend { volume: u32, first: u64, count: u64 },
}

/// An answer, without its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) enum Told {
    Digest(RangeDigest),
    Detail {
        blocks: Vec<BlockLook>,
    },
    /// Which of the blocks are good, a bit for each; the data of all follows, zeroes for the others.
    Blocks {
        good: u64,
    },
    /// The head's bytes, where the table begins; a piece of it follows.
    Table {
        head: Vec<u8>,
        start: u64,
        is_closed: bool,
    },
    Mended {},
    /// A word for machines, and a sentence.
    Refused {
        code: String,
        text: String,
    },
}

pub(in crate::store) fn encode_asked(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    serde_json::to_writer(&mut bytes, envelope).expect("names and numbers");
    bytes
}

fn encode_told(told: &Told, data: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(told).expect("names and numbers");
    let len = u32::try_from(json.len()).expect("an answer is bounded");
    [&len.to_le_bytes(), json.as_slice(), data].concat()
}

/// An answer and its data.
pub(in crate::store) fn decode_told(bytes: &[u8]) -> Result<(Told, Vec<u8>), String> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or("it has no length")?;
    let len = u32::from_le_bytes(*len) as usize;
    let (json, data) = rest.split_at_checked(len).ok_or_else(|| format!("{len} bytes were announced"))?;
    let told = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok((told, data.to_vec()))
}

fn refused(code: &str, text: impl Into<String>) -> (Told, Vec<u8>) {
    (Told::Refused { code: code.to_owned(), text: text.into() }, Vec::new())
}

/// What is asked in `request`, if it is a question of this kind.
pub(super) fn question(request: &[u8]) -> Option<&[u8]> {
    request.strip_prefix(MAGIC)
}

impl Pair {
    /// Answers a question about stored data. Takes no lock of the pair's, so it is answered whatever moves are under way.
    pub(super) fn compare(&self, json: &[u8]) -> Vec<u8> {
        let (told, data) = match serde_json::from_slice::<Envelope>(json) {
            Ok(envelope) => self.tell(envelope),
            Err(error) => refused("unclear", error.to_string()),
        };
        encode_told(&told, &data)
    }

    fn tell(&self, Envelope { dataset, node, asked }: Envelope) -> (Told, Vec<u8>) {
        let config = &self.engine.config;
        if dataset != config.id.to_string() || node == config.node {
            let text = format!(
                "node {node:?} asks about dataset {dataset}, this is {:?} of {}",
                config.node, config.id
            );
            return refused("wrong-peer", text);
        }
        match asked {
            Asked::Digest { pass, volume, first, count } => {
                let found = self.with_pass(pass, |seen| {
                    let look = self.engine.look(VolumeId(volume))?;
                    Some(self.engine.digest(
                        &look,
                        first..first.saturating_add(count),
                        DIGEST_BLOCKS_MAX,
                        seen,
                    ))
                });
                found.map_or_else(|| no_volume(volume), |digest| (Told::Digest(digest), Vec::new()))
            }
            Asked::Detail { pass, volume, first, count } => {
                let found = self.with_pass(pass, |seen| {
                    let look = self.engine.look(VolumeId(volume))?;
                    let range = first..first.saturating_add(count.min(DETAIL_BLOCKS_MAX));
                    Some(self.engine.detail(&look, range, seen))
                });
                found.map_or_else(|| no_volume(volume), |blocks| (Told::Detail { blocks }, Vec::new()))
            }
            Asked::Blocks { lsn, shift, count } => self.tell_blocks(Lsn(lsn), shift, count),
            Asked::Table { base, from } => self.tell_table(Lsn(base), from),
            Asked::Mend { volume, first, count } => self.mend_here(volume, first, count),
        }
    }

    fn with_pass<T>(&self, pass: u64, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.engine.health.answering(pass).1)
    }

    fn tell_blocks(&self, lsn: Lsn, shift: u8, count: u64) -> (Told, Vec<u8>) {
        let layout = self.engine.layout();
        let Some(size) = BlockSize::from_shift(shift) else {
            return refused("unclear", format!("blocks of 2^{shift} bytes"));
        };
        let is_possible = lsn.0 < Lsn::MAX.0 - layout.segment_bytes()
            && lsn.0.is_multiple_of(size.bytes())
            && (1..=(PIECE_BYTES_MAX as u64 >> shift)).contains(&count)
            && lsn.since(layout.base(lsn)) + (count << shift) <= layout.segment_bytes();
        if !is_possible {
            return refused("unclear", format!("{count} blocks of {} bytes at {lsn}", size.bytes()));
        }
        let mut data = vec![0; usize::try_from(count << shift).expect("at most 32 KiB")];
        let good = self.engine.stored_blocks(lsn, size, &mut data);
        (Told::Blocks { good }, data)
    }

    fn tell_table(&self, base: Lsn, from: Option<u64>) -> (Told, Vec<u8>) {
        let layout = self.engine.layout();
        if layout.base(base) != base || base.0 >= Lsn::MAX.0 - layout.segment_bytes() {
            return refused("unclear", format!("no segment begins at {base}"));
        }
        let found = self.engine.stored_head(base).and_then(|(head, start, is_closed)| {
            let from = from.unwrap_or(start).clamp(start, layout.segment_bytes());
            let len = (layout.segment_bytes() - from).min(PIECE_BYTES_MAX as u64);
            let mut piece = vec![0; usize::try_from(len).expect("at most 32 KiB")];
            self.engine.files.read(base, from, &mut piece).map_err(|error| error.to_string())?;
            let head: [u8; HEAD_BYTES] = head.encode();
            Ok((Told::Table { head: head.to_vec(), start, is_closed }, piece))
        });
        found.unwrap_or_else(|why| refused("no-table", why))
    }

    /// Looks at the blocks, and mends those that are bad from the data of whoever asked.
    fn mend_here(&self, volume: u32, first: u64, count: u64) -> (Told, Vec<u8>) {
        let Some(look) = self.engine.look(VolumeId(volume)) else { return no_volume(volume) };
        let mut broken = Vec::new();
        let range = first..first.saturating_add(count.min(DETAIL_BLOCKS_MAX));
        self.engine.each_stored(&look, range, u64::MAX, &mut Seen::new(), &mut |block, lsn, found| {
            if let Found::Bad(_) = found {
                Broken::add(&mut broken, &look, block, lsn, self.engine.layout());
            }
        });
        self.mend_all(&broken);
        (Told::Mended {}, Vec::new())
    }

    /// Does `work` if the node's role has not changed since `epoch`, nor changes meanwhile, and nobody fills in its files: what a copy was made
    /// of may have got more by then.
    pub(in crate::store) fn unmoved(
        &self,
        epoch: u64,
        work: impl FnOnce() -> Result<(), SegmentFileError>,
    ) -> Result<(), String> {
        let _moves = self.moves();
        if self.engine.shared.lock().epoch != epoch {
            return Err("the node's role changed meanwhile".into());
        }
        let _filling = self.filling();
        if self.note().from().is_some() {
            return Err("this node is being brought up to date, which gives it what it lacks".into());
        }
        work().map_err(|error| error.to_string())
    }
}

fn no_volume(volume: u32) -> (Told, Vec<u8>) {
    refused("no-volume", format!("there is no volume of number {volume}"))
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
