//! Questions and answers survive the wire, and are bounded.

use super::*;
use crate::store::stored::BlockState;

#[test]
fn questions_and_answers_survive() {
    for asked in [
        Asked::Digest { pass: u64::MAX, volume: 1, first: 2, count: 3 },
        Asked::Detail { pass: 1, volume: u32::MAX, first: u64::MAX, count: 256 },
        Asked::Blocks { lsn: 1 << 60, shift: 12, count: 8 },
        Asked::Table { base: 0, from: Some(7) },
        Asked::Table { base: 0, from: None },
        Asked::Mend { volume: 0, first: 0, count: 1 },
    ] {
        let envelope = Envelope { dataset: "d".into(), node: "a\"".into(), asked };
        let bytes = encode_asked(&envelope);
        let json = question(&bytes).expect("a question");
        assert_eq!(serde_json::from_slice::<Envelope>(json).unwrap(), envelope);
    }
    assert!(question(b"{\"Hello\":{}}").is_none());
    let told = Told::Blocks { good: u64::MAX };
    assert_eq!(decode_told(&encode_told(&told, b"data")), Ok((told, b"data".to_vec())));
    for bad in [&b""[..], b"\xff\xff\xff\xff{}", b"\x02\0\0\0{}", b"\0\0\0\0"] {
        assert!(decode_told(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_largest_answers_have_room() {
    let look = BlockLook { lsn: u64::MAX, state: BlockState::Moving, digest: u64::MAX };
    let blocks = vec![look; usize::try_from(DETAIL_BLOCKS_MAX).unwrap()];
    assert!(encode_told(&Told::Detail { blocks }, &[]).len() <= 48 << 10);
    let table = Told::Table { head: vec![255; HEAD_BYTES], start: u64::MAX, is_closed: false };
    assert!(encode_told(&table, &[0; PIECE_BYTES_MAX]).len() <= 48 << 10);
}
