//! What a volume holds is what was written to it, against a plain array, over both media and both block sizes.

use mirrorbus::base::BlockSize;
use mirrorbus::store::{ExtentRun, IoError, Mark, Source};

use super::rig::{Medium, Rig, SECONDS, here, pattern, read, write};

/// A seeded history of every kind of request, compared after each and at the end; then the same after a restart of both.
fn agrees_with_an_array(medium: Medium, block_size: BlockSize, seed: u64) {
    let mut rig = Rig::new(medium);
    rig.volume_bytes = 1 << 20;
    rig.block_size = block_size;
    let size = 1_usize << 20;
    let mut model = vec![0_u8; size];
    {
        let [primary, secondary] = rig.pair();
        let volume = primary.volume("root").unwrap();
        let mut random = seed;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % below
        };
        for round in 0..600_u64 {
            let aligned = next(3) > 0;
            let (mut offset, mut len) = (next(size), 1 + next(40_000));
            if aligned {
                (offset, len) = (offset / 4096 * 4096, len.next_multiple_of(4096));
            }
            let len = len.min(size - offset);
            match next(10) {
                0 => {
                    let mark = volume.trim(offset as u64, len as u64, &here).unwrap();
                    volume.commit(mark, &here).unwrap();
                    let block = 1 << block_size.shift();
                    let (first, end) = (offset.next_multiple_of(block), (offset + len) / block * block);
                    if first < end {
                        model[first..end].fill(0);
                    }
                }
                1 => {
                    let mark = volume.write_zeroes(offset as u64, len as u64, &here).unwrap();
                    volume.commit(mark, &here).unwrap();
                    model[offset..offset + len].fill(0);
                }
                2 => volume.flush(&here).unwrap(),
                3 => {
                    write(&volume, offset as u64, &vec![0; len]);
                    model[offset..offset + len].fill(0);
                }
                4..8 => {
                    let bytes = pattern(seed ^ round, len);
                    write(&volume, offset as u64, &bytes);
                    model[offset..offset + len].copy_from_slice(&bytes);
                }
                _ => assert_eq!(
                    read(&volume, offset as u64, len),
                    &model[offset..offset + len],
                    "round {round}"
                ),
            }
        }
        let _ = secondary;
        drop(volume);
        primary.stop();
    }
    let [primary, _secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    assert_eq!(read(&volume, 0, size), model);
}

#[test]
fn over_shared_memory_in_large_blocks() {
    agrees_with_an_array(Medium::Shm, BlockSize::Large, 1);
}

#[test]
fn over_tcp_in_small_blocks() {
    agrees_with_an_array(Medium::Tcp, BlockSize::Small, 2);
}

#[test]
fn what_is_beyond_the_end_is_refused() {
    let rig = Rig::new(Medium::Shm);
    let [primary, _secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    let end = rig.volume_bytes;
    for (offset, len) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX - 4096, 8192)] {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        assert!(matches!(volume.read(offset, &mut bytes), Err(IoError::OutOfRange { .. })), "{offset} {len}");
        let refused = volume.write(offset, Source::Bytes(&bytes), &here);
        assert!(matches!(refused, Err(IoError::OutOfRange { .. })), "{offset} {len}");
        assert!(volume.trim(offset, len, &here).is_err());
        assert!(volume.write_zeroes(offset, len, &here).is_err());
        assert!(volume.extents(offset, len, 5).is_err());
    }
}

#[test]
fn extents_tell_data_from_holes() {
    let rig = Rig::new(Medium::Shm);
    let [primary, _secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    write(&volume, 8192, &pattern(1, 4096));
    write(&volume, 12288, &pattern(2, 4096));
    let run = |bytes, hole| ExtentRun { bytes, hole };
    let end = rig.volume_bytes;
    let all = [run(8192, true), run(8192, false), run(end - 16384, true)];
    assert_eq!(volume.extents(0, end, 10).unwrap().0, all);
    assert_eq!(volume.extents(0, end, 2).unwrap().0, &all[..2]);
    assert_eq!(volume.extents(8200, 100, 2).unwrap().0, [run(100, false)]);
}

#[test]
fn volumes_come_grow_and_go_on_both_nodes() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    primary.create_volume("data", 1 << 20, BlockSize::Small).unwrap();
    assert!(primary.create_volume("data", 1 << 20, BlockSize::Small).is_err());
    primary.resize_volume("root", 16 << 20).unwrap();
    write(&primary.volume("root").unwrap(), (16 << 20) - 4096, &pattern(5, 4096));
    let data = primary.volume("data").unwrap();
    primary.delete_volume("data").unwrap();
    assert_eq!(data.read(0, &mut [0; 512]), Err(IoError::Deleted));
    let began = std::time::Instant::now();
    let names =
        || secondary.volumes().into_iter().map(|info| (info.name.clone(), info.bytes())).collect::<Vec<_>>();
    while names() != [("root".to_owned(), 16 << 20)] {
        assert!(began.elapsed() < SECONDS, "{:?}", names());
    }
    assert!(matches!(secondary.volume("root"), Err(IoError::RoleChanged)), "a secondary serves nothing");
}

#[test]
fn a_mark_that_no_write_of_this_service_gave_is_refused() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, _secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    let mark = volume.write(0, Source::Bytes(&pattern(1, 4096)), &here).unwrap();
    volume.check_mark(mark).unwrap();
    volume.check_mark(Mark::default()).unwrap();
    for strange in [1, mark.0 + 1] {
        assert!(matches!(volume.check_mark(Mark(strange)), Err(IoError::StrangeMark { .. })), "{strange}");
    }
}
