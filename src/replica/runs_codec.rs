//! Runs as bytes: frames of bounded size, each of which can be asked for by where it begins.
//!
//! ```text
//!  0 u32 crc32c of the rest   4 u32 runs   8 run …
//!  run: u8 tag (1 has data, 2 names its volume)   volume, if named   gap   count   data's distance, if any
//! ```
//!
//! *Gap*: blocks since the run before of the same volume, or since block 0. *Distance*: from where the data of the run before began, or from
//! position 0, in steps of 512 bytes, its sign in the lowest bit. Tag apart, numbers have seven bits a byte, lowest first, the highest
//! bit of all but the last byte set, and no byte more than they need.

use super::runs::{MapRun, MapRuns, RunError};
use crate::base::{BlockNumber, Lsn, VolumeId, crc32c};
use crate::segment::LSN_STEP;
use crate::volume::BlockMap;

const FRONT_BYTES: usize = 8;
const HAS_DATA: u8 = 1;
const NAMES_VOLUME: u8 = 2;
/// A tag and four numbers.
const RUN_BYTES_MAX: usize = 1 + 4 * NUMBER_BYTES_MAX;
const NUMBER_BYTES_MAX: usize = 10;
/// A tag and two numbers.
const RUN_BYTES_MIN: usize = 3;

/// Bytes in which one run always has room.
pub const FRAME_BYTES_MIN: usize = FRONT_BYTES + RUN_BYTES_MAX;

/// From which block of which volume on a difference is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    /// Volumes before were told.
    pub volume: VolumeId,
    /// And blocks before of this one.
    pub block: BlockNumber,
}

/// As many runs of what makes the old maps to the new ones as fit in `bytes_max`, from `from` on, and where the next frame begins; `None` when
/// nothing is left. A volume without an old map is compared with an empty one.
///
/// # Panics
/// When `bytes_max` is less than [`FRAME_BYTES_MIN`], or the volumes do not rise.
pub fn frame<'a>(
    maps: impl IntoIterator<Item = (VolumeId, Option<&'a BlockMap>, &'a BlockMap)>,
    from: Cursor,
    bytes_max: usize,
) -> (Vec<u8>, Option<Cursor>) {
    assert!(bytes_max >= FRAME_BYTES_MIN, "{bytes_max} bytes for a frame, at least {FRAME_BYTES_MIN}");
    let mut encoder = Encoder::new();
    for (volume, old, new) in maps.into_iter().filter(|(volume, ..)| *volume >= from.volume) {
        let first = if volume == from.volume { from.block } else { BlockNumber(0) };
        let empty = BlockMap::new(new.block_size(), 0);
        for run in MapRuns::new(volume, old.unwrap_or(&empty), new, first) {
            if encoder.bytes.len() + RUN_BYTES_MAX > bytes_max {
                return (encoder.finish(), Some(Cursor { volume, block: run.block }));
            }
            encoder.push(&run);
        }
    }
    (encoder.finish(), None)
}

/// The frame with these runs.
///
/// # Panics
/// When they do not rise, or are no runs of any map.
#[must_use]
pub fn encode_runs(runs: &[MapRun]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    runs.iter().for_each(|run| encoder.push(run));
    encoder.finish()
}

struct Encoder {
    bytes: Vec<u8>,
    count: u32,
    last: Last,
}

/// What numbers are told relative to.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    volume: Option<VolumeId>,
    /// The block behind the last run.
    end: u64,
    /// Steps to where the last data began.
    step: i64,
}

impl Encoder {
    fn new() -> Self {
        Self { bytes: vec![0; FRONT_BYTES], count: 0, last: Last::default() }
    }

    fn push(&mut self, run: &MapRun) {
        let MapRun { volume, block, count, lsn } = *run;
        let names_volume = self.last.volume != Some(volume);
        assert!(self.last.volume <= Some(volume), "volume {volume} after {:?}", self.last.volume);
        self.last =
            Last { volume: Some(volume), end: if names_volume { 0 } else { self.last.end }, ..self.last };
        assert!(block.0 >= self.last.end && count > 0, "{run:?} after block {}", self.last.end);
        let tag = if lsn.is_some() { HAS_DATA } else { 0 } | if names_volume { NAMES_VOLUME } else { 0 };
        self.bytes.push(tag);
        if names_volume {
            self.number(volume.0.into());
        }
        self.number(block.0 - self.last.end);
        self.number(count);
        self.last.end = block.0 + count;
        if let Some(lsn) = lsn {
            assert!(lsn.0.is_multiple_of(LSN_STEP) && lsn > Lsn::ZERO && lsn < Lsn::MAX, "data at {lsn}");
            let step = i64::try_from(lsn.0 / LSN_STEP).expect("below 2^54");
            let distance = step - self.last.step;
            self.number(distance.unsigned_abs() << 1 | u64::from(distance < 0));
            self.last.step = step;
        }
        self.count += 1;
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c(&self.bytes[4..]);
        self.bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// The runs of a frame from a peer, in order, none overlapping another.
///
/// # Errors
/// It is damaged, or says what no sender writes.
pub fn decode_runs(bytes: &[u8]) -> Result<Vec<MapRun>, RunError> {
    let front = bytes.first_chunk::<FRONT_BYTES>();
    let front = front.ok_or(RunError::Short { at: bytes.len(), field: "front" })?;
    let [found, count] =
        [0, 4].map(|at| u32::from_le_bytes(front[at..at + 4].try_into().expect("four bytes")));
    let computed = crc32c(&bytes[4..]);
    if found != computed {
        return Err(RunError::Checksum { found, computed });
    }
    let most = (bytes.len() - FRONT_BYTES) / RUN_BYTES_MIN;
    let count = usize::try_from(count).ok().filter(|count| *count <= most);
    let count = count.ok_or(RunError::Short { at: bytes.len(), field: "runs" })?;
    let mut decoder = Decoder { bytes, at: FRONT_BYTES, last: Last::default() };
    let runs = (0..count).map(|_| decoder.run()).collect::<Result<Vec<_>, _>>()?;
    if decoder.at < bytes.len() {
        return Err(decoder.refuse("bytes behind the last run,", (bytes.len() - decoder.at) as u64));
    }
    Ok(runs)
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    last: Last,
}

impl Decoder<'_> {
    const fn refuse(&self, field: &'static str, value: u64) -> RunError {
        RunError::Field { at: self.at, field, value }
    }

    fn run(&mut self) -> Result<MapRun, RunError> {
        let tag = self.byte("tag")?;
        if tag & !(HAS_DATA | NAMES_VOLUME) != 0 {
            return Err(self.refuse("tag", tag.into()));
        }
        if tag & NAMES_VOLUME != 0 {
            let value = self.number("volume")?;
            let volume = u32::try_from(value).ok().map(VolumeId);
            let volume = volume.filter(|volume| self.last.volume.is_none_or(|last| last < *volume));
            let volume = volume.ok_or_else(|| self.refuse("volume", value))?;
            self.last = Last { volume: Some(volume), end: 0, ..self.last };
        }
        let volume = self.last.volume.ok_or_else(|| self.refuse("tag", tag.into()))?;
        let (gap, count) = (self.number("gap")?, self.number("count")?);
        let block = self.last.end.checked_add(gap);
        let end = block.and_then(|block| block.checked_add(count)).filter(|end| *end <= BlockMap::BLOCKS_MAX);
        let (Some(block), Some(end)) = (block, end) else { return Err(self.refuse("gap", gap)) };
        if count == 0 {
            return Err(self.refuse("count", count));
        }
        self.last.end = end;
        let lsn = if tag & HAS_DATA == 0 { None } else { Some(self.lsn()?) };
        Ok(MapRun { volume, block: BlockNumber(block), count, lsn })
    }

    fn lsn(&mut self) -> Result<Lsn, RunError> {
        let value = self.number("distance")?;
        let size = i64::try_from(value >> 1).expect("63 bits");
        let step = self.last.step.checked_add(if value & 1 == 0 { size } else { -size });
        let canonical = value != 1;
        let step = step.filter(|step| {
            canonical && (1..Lsn::MAX.0 / LSN_STEP).contains(&step.unsigned_abs()) && *step > 0
        });
        self.last.step = step.ok_or_else(|| self.refuse("distance", value))?;
        Ok(Lsn(self.last.step.unsigned_abs() * LSN_STEP))
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, RunError> {
        let byte = self.bytes.get(self.at).ok_or(RunError::Short { at: self.at, field })?;
        self.at += 1;
        Ok(*byte)
    }

    fn number(&mut self, field: &'static str) -> Result<u64, RunError> {
        let mut value = 0_u64;
        for place in 0..NUMBER_BYTES_MAX {
            let byte = self.byte(field)?;
            let part = u64::from(byte & 0x7f);
            let shifted = part << (7 * place);
            if shifted >> (7 * place) != part || (place > 0 && byte == 0) {
                return Err(self.refuse(field, part));
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.refuse(field, value))
    }
}

#[cfg(test)]
#[path = "runs_codec_tests.rs"]
mod tests;
