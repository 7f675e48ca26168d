//! Comparison with the twin, by generated changes.

use proptest::prelude::*;

use super::*;
use crate::memory::{MapOptions, Mapping};

const PAGE: usize = 512;
const PAGES: usize = 6;

fn mapping(bytes: &[u8]) -> Mapping {
    let mapping = Mapping::anonymous(bytes.len(), MapOptions::default()).unwrap();
    mapping.slice().write(0, bytes);
    mapping
}

/// The body of what differs in these pages.
fn body_of(memory: &Mapping, twin: &Mapping, pages: impl Iterator<Item = usize>) -> Body {
    let mut body = Body::default();
    for page in pages {
        let len = PAGE.min(memory.len() - page * PAGE);
        body.add_page(page * PAGE, len, memory.slice(), twin.slice());
    }
    body
}

/// Offset and bytes of each range.
fn ranges(body: &Body, image: usize) -> Vec<(usize, usize)> {
    let (mut rest, mut ranges) = (body.bytes(), Vec::new());
    while let Some((head, content)) = rest.split_first_chunk::<RANGE_BYTES>() {
        let (offset, len) = super::super::record::decode_range(*head, image, content.len()).unwrap();
        ranges.push((offset, len));
        rest = &content[len..];
    }
    assert!(rest.is_empty());
    ranges
}

proptest! {
    #[test]
    fn what_differs_is_in_the_body_and_little_else(
        old in prop::collection::vec(any::<u8>(), PAGES * PAGE - 24),
        changes in prop::collection::vec((0..PAGES * PAGE - 24, 1usize..200, any::<u8>()), 0..40),
    ) {
        let mut new = old.clone();
        for (offset, len, byte) in changes {
            let end = (offset + len).min(new.len());
            new[offset..end].fill(byte);
        }
        let (memory, twin) = (mapping(&new), mapping(&old));
        let body = body_of(&memory, &twin, 0..PAGES);
        let (words, _) = new.as_chunks::<WORD>();
        let (before, _) = old.as_chunks::<WORD>();
        let differs: Vec<_> = words.iter().zip(before).map(|(new, old)| new != old).collect();
        let changed = WORD * differs.iter().filter(|word| **word).count();
        prop_assert_eq!(body.changed(), changed);
        // Content begins and ends with what differs, and ranges that touch are one.
        let ranges = ranges(&body, new.len());
        for &(offset, len) in &ranges {
            prop_assert!(differs[offset / WORD] && differs[(offset + len) / WORD - 1]);
        }
        prop_assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
        prop_assert_eq!(body.ranges() as usize, ranges.len());
        let runs = body.runs() as usize;
        prop_assert!(runs >= ranges.len() && (changed == 0) == (runs == 0));
        prop_assert!(body.len() <= changed + 32 * runs, "{} bytes of {changed} in {runs} runs", body.len());
        body.apply(twin.slice());
        prop_assert_eq!(twin.slice().to_vec(), new);
    }
}

#[test]
fn pages_that_are_not_looked_at_and_equal_ones_add_nothing() {
    let (memory, twin) = (mapping(&[1; PAGES * PAGE]), mapping(&[0; PAGES * PAGE]));
    let body = body_of(&memory, &twin, [1, 4].into_iter());
    assert_eq!(ranges(&body, PAGES * PAGE), [(PAGE, PAGE), (4 * PAGE, PAGE)]);
    assert_eq!(body_of(&memory, &memory, 0..PAGES).len(), 0);
}

#[test]
fn neighbours_are_one_range_and_small_gaps_go_along() {
    let mut bytes = vec![0; PAGES * PAGE];
    // The end of one page and the beginning of the next; a gap of two words; one of three.
    bytes[PAGE - 8..PAGE + 8].fill(1);
    bytes[PAGE + 24..PAGE + 32].fill(1);
    bytes[PAGE + 56..PAGE + 64].fill(1);
    let (memory, twin) = (mapping(&bytes), mapping(&[0; PAGES * PAGE]));
    let mut body = body_of(&memory, &twin, 0..PAGES);
    assert_eq!(ranges(&body, bytes.len()), [(PAGE - 8, 40), (PAGE + 56, 8)]);
    assert_eq!((body.changed(), body.len()), (32, 2 * RANGE_BYTES + 48));
    let crc = body.crc();
    body.clear();
    assert_eq!((body.len(), body.ranges(), body.changed(), body.runs()), (0, 0, 0, 0));
    (0..PAGES).for_each(|page| body.add_page(page * PAGE, PAGE, memory.slice(), twin.slice()));
    assert_eq!(body.crc(), crc, "the room is used again");
}
