//! Requests that are larger than a record may be.
//!
//! Each piece is a record of its own, so a crash may leave the first ones without the rest: no more is promised than by any
//! disk, of which a write of several blocks is not atomic either.

use crate::base::BlockNumber;

/// The pieces of a request for `blocks` blocks from `block`, each of at most `most`.
///
/// # Panics
/// When `most` is 0, or the request goes beyond the last block number.
pub fn split(block: BlockNumber, blocks: u64, most: u32) -> impl Iterator<Item = (BlockNumber, u32)> {
    assert!(most > 0, "a piece has at least one block");
    let end = block.0.checked_add(blocks);
    let end = end.unwrap_or_else(|| panic!("{blocks} blocks from {block} go beyond the last number"));
    let mut next = block.0;
    std::iter::from_fn(move || {
        let count = u32::try_from(end - next).map_or(most, |left| left.min(most));
        let piece = (BlockNumber(next), count);
        next += u64::from(count);
        (count > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_request_once_and_in_order() {
        let pieces = |block, blocks, most| split(BlockNumber(block), blocks, most).collect::<Vec<_>>();
        assert_eq!(pieces(7, 0, 4), []);
        assert_eq!(pieces(7, 4, 4), [(BlockNumber(7), 4)]);
        assert_eq!(pieces(7, 9, 4), [(BlockNumber(7), 4), (BlockNumber(11), 4), (BlockNumber(15), 1)]);
        let huge = pieces(0, (1 << 33) + 1, u32::MAX);
        assert_eq!(huge.iter().map(|(_, count)| u64::from(*count)).sum::<u64>(), (1 << 33) + 1);
        assert_eq!(huge.len(), 3);
    }
}
