//! What stands in a ring may be anything.

use proptest::prelude::*;

use super::super::layout::{EpochLayout, Position};
use super::super::testing::{LOG, Owner, image, pushed};
use super::*;

fn layout() -> EpochLayout {
    EpochLayout::with_ring(20_000, EpochLayout::RING_BYTES_MIN).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn one_changed_byte_anywhere_in_an_epoch_leaves_the_one_before(
        changes in prop::collection::vec((0..20_000usize, 1..3000usize, 1u8..), 1..6), at in any::<u32>(), flip in 1u8..,
    ) {
        let (region, mut owner) = (pushed(layout()), Owner::new(layout()));
        changes.iter().for_each(|&(offset, len, byte)| owner.change(offset, len, byte));
        let stores = owner.cut(0).unwrap();
        stores.iter().for_each(|(offset, bytes)| region.slice().write(*offset, bytes));
        let all: usize = stores.iter().map(|(_, bytes)| bytes.len()).sum();
        let place = layout().place(Position(0)).0 + at as usize % all;
        let mut byte = [0];
        region.slice().read(place, &mut byte);
        region.slice().write(place, &[byte[0] ^ flip]);
        prop_assert_eq!(recover(region.slice(), layout()), Ok((LOG, Applied::default())));
        prop_assert!(image(region.slice(), layout()).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn garbage_is_no_epoch_and_harms_nothing(
        noise in prop::collection::vec((0..EpochLayout::RING_BYTES_MIN - 64, prop::collection::vec(any::<u8>(), 1..64)), 0..40),
        body in 0..EpochLayout::RING_BYTES_MIN - 64, ranges in 0..4u32,
    ) {
        let region = pushed(layout());
        let start = layout().place(Position(0)).0;
        noise.iter().for_each(|(offset, bytes)| region.slice().write(start + offset, bytes));
        // With a commit record and a checksum that are right, too.
        let mut content = vec![0; body];
        region.slice().read(start + 64, &mut content);
        let body_crc = crc32c_append(0, &content);
        let (incarnation, before) = (3, 0);
        let commit = Commit { position: Position(0), number: 1, body, ranges, body_crc, incarnation, before };
        region.slice().write(start, &commit.encode(LOG));
        match next_epoch(region.slice(), layout(), LOG, Applied::default()) {
            Next::Epoch(found) => prop_assert_eq!((found.body, found.ranges), (body, ranges)),
            other => prop_assert!(matches!(other, Next::Bad(_))),
        }
    }
}

/// What `fuzz/` runs is known to reach every outcome.
#[test]
fn the_fuzzed_ring_finds_applies_and_refuses() {
    use super::super::fuzzing::{Found, run};
    assert_eq!(run(&[7; 64], false), Found::Nothing);
    assert_eq!(run(&[], true), Found::Applied);
    assert_eq!(run(&[1, 8, 3, 9, 0, 0, 31, 9], true), Found::Applied);
    for odd in 0..3 {
        assert_eq!(run(&[1, 8, 3, 9, 9, 4, 31, odd], true), Found::Bad, "{odd}");
    }
}
