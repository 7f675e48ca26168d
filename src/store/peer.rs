//! The peer's stored data, asked for over the control connection.
//!
//! Each question is one call of its own that ends by a deadline; nobody holds a lock over it. What comes is compared with checksums by
//! whoever asked: the peer is believed nothing that can be computed.

use std::sync::PoisonError;
use std::time::Duration;

use super::pair::compare::{Asked, Envelope, PIECE_BYTES_MAX, Told, decode_told, encode_asked};
use super::stored::{BlockLook, RangeDigest};
use crate::base::clock::Instant;
use crate::base::locks::poisoning::Mutex;
use crate::base::{BlockSize, DatasetId, FabricUrl, Lsn, VolumeId};
use crate::node::{CallError, KeySet};
use crate::segment::{HEAD_BYTES, SegmentHead, SegmentLayout, SegmentSource};

/// How long a question about a few blocks may take.
const PIECE_TIME: Duration = Duration::from_secs(2);
/// How long one about a range may take: the peer reads some megabytes for it.
const RANGE_TIME: Duration = Duration::from_secs(20);
/// How long one that has the peer mend blocks may take.
const MEND_TIME: Duration = Duration::from_secs(120);
/// A peer that did not answer is not asked again by a client's read for so long.
const REST_TIME: Duration = Duration::from_secs(1);

/// Why the peer did not help.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("the peer does not answer: {0}")]
    Call(#[from] CallError),
    #[error("the peer did not answer a moment ago")]
    Resting,
    #[error("the peer refuses ({code}): {text}")]
    Refused { code: String, text: String },
    #[error("the peer's answer is none: {0}")]
    Unclear(String),
}

/// The other node, as far as its data is asked for.
#[derive(Debug)]
pub(super) struct Peer {
    url: FabricUrl,
    keys: KeySet,
    dataset: DatasetId,
    node: String,
    layout: SegmentLayout,
    silent_since: Mutex<Option<Instant>>,
}

/// The head and the table of a segment of the peer's.
#[derive(Debug)]
pub(super) struct FetchedTable {
    pub(super) head: SegmentHead,
    /// Where in the segment the table begins.
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    /// Nothing more comes into the segment.
    pub(super) is_closed: bool,
}

/// Blocks of the peer's: their bytes, and which of them it has, a bit for each.
#[derive(Debug)]
pub(super) struct FetchedBlocks {
    pub(super) good: u64,
    pub(super) bytes: Vec<u8>,
}

impl SegmentSource for FetchedTable {
    type Error = std::convert::Infallible;

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Self::Error> {
        target.fill(0);
        if let Some(at) = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok()) {
            let part = self.bytes.get(at..).unwrap_or_default();
            let len = part.len().min(target.len());
            target[..len].copy_from_slice(&part[..len]);
        }
        Ok(())
    }
}

impl Peer {
    pub(super) const fn new(
        url: FabricUrl,
        keys: KeySet,
        dataset: DatasetId,
        node: String,
        layout: SegmentLayout,
    ) -> Self {
        Self { url, keys, dataset, node, layout, silent_since: Mutex::new(None) }
    }

    fn ask(&self, asked: Asked, within: Duration) -> Result<(Told, Vec<u8>), PeerError> {
        let envelope = Envelope { dataset: self.dataset.to_string(), node: self.node.clone(), asked };
        let answer = super::medium::ask(&self.url, &self.keys, &encode_asked(&envelope), within);
        let mut silent = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        *silent = answer.is_err().then(Instant::now);
        drop(silent);
        match decode_told(&answer?).map_err(PeerError::Unclear)? {
            (Told::Refused { code, text }, _) => Err(PeerError::Refused { code, text }),
            other => Ok(other),
        }
    }

    /// For a client that waits: not asked while it is known to be silent.
    pub(super) fn is_resting(&self) -> Result<(), PeerError> {
        let silent = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.is_some_and(|since| since.elapsed() < REST_TIME) { Err(PeerError::Resting) } else { Ok(()) }
    }

    /// Whether it did not answer the last question, which was asked since then.
    pub(super) fn is_silent_since(&self, began: Instant) -> bool {
        let silent = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|since| since >= began)
    }

    /// The digest of blocks as they are stored there.
    pub(super) fn digest(
        &self,
        pass: u64,
        volume: VolumeId,
        first: u64,
        count: u64,
    ) -> Result<RangeDigest, PeerError> {
        match self.ask(Asked::Digest { pass, volume: volume.0, first, count }, RANGE_TIME)? {
            (Told::Digest(digest), _) => Ok(digest),
            (other, _) => Err(unclear(&other)),
        }
    }

    /// Each of a few blocks as it is stored there.
    pub(super) fn detail(
        &self,
        pass: u64,
        volume: VolumeId,
        first: u64,
        count: u64,
    ) -> Result<Vec<BlockLook>, PeerError> {
        match self.ask(Asked::Detail { pass, volume: volume.0, first, count }, RANGE_TIME)? {
            (Told::Detail { blocks }, _) if blocks.len() as u64 == count => Ok(blocks),
            (other, _) => Err(unclear(&other)),
        }
    }

    /// Has the peer mend what of these blocks is bad there.
    pub(super) fn mend(&self, volume: VolumeId, first: u64, count: u64) -> Result<(), PeerError> {
        match self.ask(Asked::Mend { volume: volume.0, first, count }, MEND_TIME)? {
            (Told::Mended {}, _) => Ok(()),
            (other, _) => Err(unclear(&other)),
        }
    }

    /// The data of a few blocks of one segment.
    pub(super) fn blocks(&self, lsn: Lsn, size: BlockSize, count: u64) -> Result<FetchedBlocks, PeerError> {
        let asked = Asked::Blocks { lsn: lsn.0, shift: size.shift(), count };
        match self.ask(asked, PIECE_TIME)? {
            (Told::Blocks { good }, bytes) if bytes.len() as u64 == count << size.shift() => {
                Ok(FetchedBlocks { good, bytes })
            }
            (other, _) => Err(unclear(&other)),
        }
    }

    /// The head and the whole table of a segment, not looked at yet but for the head.
    pub(super) fn table(&self, base: Lsn) -> Result<FetchedTable, PeerError> {
        let mut found: Option<FetchedTable> = None;
        loop {
            let from = found.as_ref().map(|found| found.start + found.bytes.len() as u64);
            let (told, bytes) = self.ask(Asked::Table { base: base.0, from }, PIECE_TIME)?;
            let Told::Table { head, start, is_closed } = told else { return Err(unclear(&told)) };
            let wrong =
                |why: String| PeerError::Unclear(format!("the table of the segment at {base}: {why}"));
            let head: [u8; HEAD_BYTES] =
                head.try_into().map_err(|_| wrong("its head is not whole".into()))?;
            let head = SegmentHead::decode_at(&head, self.dataset, base);
            let head = head.map_err(|error| wrong(error.to_string()))?;
            let end = self.layout.segment_bytes();
            if head.layout != self.layout || !(self.layout.payload_start()..=end).contains(&start) {
                return Err(wrong(format!("it begins at {start}")));
            }
            let found = found.get_or_insert(FetchedTable { head, start, bytes: Vec::new(), is_closed });
            found.bytes.extend_from_slice(&bytes);
            let have = start + found.bytes.len() as u64;
            if head != found.head || start != found.start || have > end {
                return Err(wrong("it changed meanwhile".into()));
            }
            if have == end {
                break;
            }
            if bytes.len() != PIECE_BYTES_MAX {
                return Err(wrong(format!("{} bytes of it came", bytes.len())));
            }
        }
        found.ok_or_else(|| PeerError::Unclear("no table".into()))
    }
}

fn unclear(told: &Told) -> PeerError {
    PeerError::Unclear(format!("{told:?}").chars().take(100).collect())
}
