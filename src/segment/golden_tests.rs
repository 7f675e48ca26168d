//! Version 1 of the format, byte for byte. A change that breaks this test is a new version.

use super::head::tests::sample;
use super::testing::{append, file, memory, records, request, write};
use super::{Append, HEAD_BYTES, RecordKind, SegmentHead};
use crate::base::{BlockSize, Lsn};

/// Head, and what of the table is used, of a segment with each kind of record. Computed by another program, from what
/// `docs/formats.md` says.
const GOLDEN: &str = include_str!("golden/version1.txt");

fn image() -> Vec<u8> {
    let head = sample();
    let (memory, mut log) = (memory(&head), Append::new(head));
    memory.slice().write(0, &head.encode());
    let small = |kind, block, blocks| request(kind, block, blocks, BlockSize::Small);
    assert!(append(&mut log, &memory, write(0x1234, 1), 0x11));
    assert!(append(&mut log, &memory, small(RecordKind::Write, 5, 24), 0x22));
    log.pad();
    log.set_durable(Lsn(head.base.0 + 8192));
    assert!(append(&mut log, &memory, small(RecordKind::Trim, 1 << 33, 77), 0));
    assert!(append(&mut log, &memory, small(RecordKind::WriteZeroes, 9, u32::MAX), 0));
    assert!(append(&mut log, &memory, small(RecordKind::PhaseMarker, 8, 0), 0));
    let place = log.reserve(write(6, 1)).unwrap();
    log.void(place, memory.slice());
    file(&head, &memory)
}

/// The lines that are not all zero, sixteen bytes each, with their offsets.
fn dump(image: &[u8]) -> String {
    let line = |(number, bytes): (usize, &[u8])| {
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        (bytes.iter().any(|byte| *byte != 0)).then(|| format!("{:05x}  {text}\n", number * 16))
    };
    image.chunks(16).enumerate().filter_map(line).collect()
}

fn parse(text: &str) -> Vec<u8> {
    let mut image = vec![0; 1 << 16];
    for line in text.lines() {
        let (offset, bytes) = line.split_once("  ").unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (place, byte) in image[offset..].iter_mut().zip(bytes.split(' ')) {
            *place = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    image
}

/// Payloads are plain bytes and left out of the file.
fn without_payloads(mut image: Vec<u8>) -> Vec<u8> {
    image[4096..1 << 15].fill(0);
    image
}

#[test]
fn version_1_is_written_as_ever() {
    assert_eq!(dump(&without_payloads(image())), GOLDEN);
}

#[test]
fn version_1_is_read_as_ever() {
    let mut golden = parse(GOLDEN);
    golden[4096..8192].fill(0x11);
    golden[8192..8192 + 24 * 512].fill(0x22);
    let head = SegmentHead::decode(golden[..HEAD_BYTES].try_into().unwrap()).unwrap();
    assert_eq!(head, sample());
    let (found, _, _) = records(head, &golden);
    let told: Vec<_> =
        found.iter().map(|record| (record.kind, record.block.0, record.blocks, record.sequence)).collect();
    assert_eq!(
        told,
        [
            (RecordKind::Write, 0x1234, 1, 0),
            (RecordKind::Write, 5, 24, 1),
            (RecordKind::Trim, 1 << 33, 77, 2),
            (RecordKind::WriteZeroes, 9, u32::MAX, 3),
            (RecordKind::PhaseMarker, 8, 0, 4),
            (RecordKind::Void, 6, 1, 5),
        ]
    );
    assert_eq!(found[2].durable, Lsn(head.base.0 + 8192));
}
