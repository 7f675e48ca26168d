//! What `fuzz/` needs of the pure parts: a ring of which one knows what must stay as it is.

use std::cell::RefCell;

use super::applied::Applied;
use super::layout::{EpochLayout, LogId, Position, encode_head};
use super::log::{Cursor, Next, next_epoch};
use super::record::{COMMIT_BYTES, Commit, encode_range};
use crate::base::crc32c;
use crate::memory::{MapOptions, Mapping, VolatileSlice};

const LOG: LogId = LogId([1; 16]);
const IMAGE: usize = 1 << 14;

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No epoch.
    Nothing,
    /// One that was refused.
    Bad,
    /// One that was applied.
    Applied,
}

fn layout() -> EpochLayout {
    EpochLayout::with_ring(IMAGE, EpochLayout::RING_BYTES_MIN).expect("good sizes")
}

thread_local! {
    static REGION: RefCell<Mapping> =
        RefCell::new(Mapping::anonymous(layout().region_bytes(), MapOptions::default()).expect("a MiB"));
}

/// What `input`, the bytes of the ring from its beginning, leads to. With `built` it is a list of ranges in four bytes each, which get
/// right checksums and a commit record, and of which some are wrong.
///
/// # Panics
/// When anything but the image was changed.
pub fn run(input: &[u8], built: bool) -> Found {
    let bytes = if built { build(input) } else { input.to_vec() };
    let bytes = &bytes[..bytes.len().min(layout().ring_bytes())];
    REGION.with_borrow(|region| {
        let region = region.slice();
        region.fill(0, region.len(), 0);
        region.write(0, &encode_head(layout(), LOG));
        region.write(layout().place(Position(0)).0, bytes);
        let before = outside(region);
        let found = match next_epoch(region, layout(), LOG, Applied::default()) {
            Next::Nothing => Found::Nothing,
            Next::Bad(_) => Found::Bad,
            Next::Epoch(commit) => {
                let mut cursor = Cursor::new(&commit);
                while !cursor.apply(region, layout(), 100).expect("it was found good") {}
                Found::Applied
            }
        };
        assert_eq!(outside(region), before, "something outside the image was changed");
        found
    })
}

/// Checksum of all but the image.
fn outside(region: VolatileSlice<'_>) -> Option<u32> {
    region.subslice(0, layout().image_offset()).map(|part| part.crc32c())
}

fn build(input: &[u8]) -> Vec<u8> {
    let (mut body, mut ranges) = (Vec::new(), 0_u32);
    for &[high, low, words, odd] in input.as_chunks::<4>().0 {
        let mut len = 8 * (1 + usize::from(words % 32));
        let mut offset = 8 * (usize::from(high) << 8 | usize::from(low)) % (IMAGE - len + 8);
        match odd {
            0 => offset += 1 + usize::from(low),
            1 => len = len.wrapping_sub(8 * usize::from(high)),
            2 => ranges += 1,
            _ => {}
        }
        if body.len() > 40_000 {
            break;
        }
        body.extend(encode_range(offset, len));
        body.extend(std::iter::repeat_n(odd, if odd == 1 { 8 } else { len }));
        ranges += 1;
    }
    let commit = Commit {
        position: Position(0),
        number: 1,
        body: body.len(),
        ranges,
        body_crc: crc32c(&body),
        incarnation: 1,
        before: 0,
    };
    let mut bytes = commit.encode(LOG).to_vec();
    assert_eq!(bytes.len(), COMMIT_BYTES);
    bytes.extend(body);
    bytes
}
