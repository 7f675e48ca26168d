//! A ring that is full while the peer is away: who waits for a place in it is let go with its client, and with the dataset, which ends at
//! once and has on its own disk what was acknowledged; and takes what others wrote meanwhile for what it is.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use mirrorbus::store::{Dataset, IoError, ReplicationState, Source, Volume};

use super::rig::{Medium, Rig, SECONDS, here, pattern, read, wait_for, write};

const PIECE: u64 = 64 << 10;

/// Writes behind the first blocks until one is not taken; why.
fn fill(volume: &Volume, gone: &dyn Fn() -> bool) -> IoError {
    let bytes = pattern(2, usize::try_from(PIECE).unwrap());
    let refused = (0_u64..10_000).find_map(|number| {
        let offset = (16 + number % 64) * PIECE;
        volume.write(offset, Source::Bytes(&bytes), gone).err()
    });
    refused.expect("a ring of 4 MiB ends")
}

/// Writes until the ring is full, by a client that leaves then. For a file one waits too, but not for long.
fn fill_the_ring(primary: &Dataset, volume: &Volume) {
    let asked = Cell::new(0);
    let leaves = || {
        let (used, places) = primary.status().ring_places;
        used == places && asked.replace(asked.get() + 1) == 3
    };
    assert_eq!(fill(volume, &leaves), IoError::Gone);
    assert_eq!(asked.get(), 4, "it is asked each time");
}

#[test]
fn who_waits_for_a_place_is_let_go_with_its_client_and_with_the_dataset() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    // Their slots share a block with those of what is never acknowledged.
    (0..10).for_each(|block| write(&volume, block * 4096, &pattern(block + 1, 4096)));
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    fill_the_ring(&primary, &volume);
    // What takes no payload finds some places longer.
    let refused = (0..10_000).find_map(|_| volume.trim(PIECE * 16, 4096, &|| true).err());
    assert_eq!(refused, Some(IoError::Gone));
    let refused = volume.write_zeroes(PIECE * 16, 4096, &|| true);
    assert_eq!(refused, Err(IoError::Gone));
    let acknowledged = primary.status().committed;
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| fill(&volume, &here));
        let resizes = scope.spawn(|| primary.resize_volume("root", 16 << 20).unwrap_err().to_string());
        primary.settle();
        assert_eq!(waits.join().unwrap(), IoError::Stopping);
        assert_eq!(resizes.join().unwrap(), IoError::Stopping.to_string());
    });
    let status = primary.status();
    assert_eq!(status.committed, acknowledged, "nothing was acknowledged without the peer");
    assert!(status.durable_own >= status.appended, "{status:#?}");
    drop((volume, primary));
    let primary = rig.open(0);
    primary.promote(true).unwrap();
    let volume = primary.volume("root").unwrap();
    (0..10).for_each(|block| assert_eq!(read(&volume, block * 4096, 4096), pattern(block + 1, 4096)));
}

#[test]
fn parts_of_one_block_that_waited_for_a_place_are_all_there() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    write(&volume, 0, &[1; 4096]);
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    fill_the_ring(&primary, &volume);
    let looks: [AtomicU32; 4] = Default::default();
    std::thread::scope(|scope| {
        for (part, looks) in (0..).zip(&looks) {
            let volume = &volume;
            scope.spawn(move || {
                let began = Instant::now();
                let gone = || looks.fetch_add(1, Ordering::SeqCst) > 0 && began.elapsed() > SECONDS;
                let bytes = vec![10 + part; 1024];
                let mark = volume.write(u64::from(part) * 1024, Source::Bytes(&bytes), &gone).unwrap();
                volume.commit(mark, &gone).unwrap();
            });
        }
        wait_for(&primary, |_| looks.iter().all(|looks| looks.load(Ordering::SeqCst) > 0));
        primary.alone().unwrap();
    });
    let wanted: Vec<u8> = (10..14).flat_map(|byte| [byte; 1024]).collect();
    assert_eq!(read(&volume, 0, 4096), wanted);
}
