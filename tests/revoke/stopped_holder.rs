//! The holder stands still: shared memory takes stores all the same, tcp gives an answer in time.

use std::time::{Duration, Instant};

use mirrorbus::mirror::{StoreError, WaitError};
use mirrorbus::node::LinkStatus;
use mirrorbus::{Attach, Deadline, Lane, LaneConfig, Level, Region};

use crate::child::{PATIENCE, Watchdog, say};
use crate::common::{Fabric, Scratch, keys, region_config, soon};
use crate::ledger::Stores;
use crate::roles::{HolderChild, pull};

const SIZE: usize = 1 << 20;
const SILENCE: Duration = Duration::from_millis(500);

fn start(fabric: Fabric, scratch: &Scratch) -> (crate::child::Child, Region) {
    let told = HolderChild { url: fabric.url(scratch), size: SIZE, file: None, silence: SILENCE };
    let (holder, url) = told.start();
    let mut config = region_config(&url, SIZE, Attach::Push { replace: false });
    config.silence = SILENCE;
    config.heartbeat = SILENCE / 5;
    (holder, Region::open(config, keys()).unwrap())
}

#[test]
fn shm_stores_reach_visible_while_the_holder_is_stopped() {
    let _watchdog = Watchdog::new("stopped holder, shm");
    let scratch = Scratch::new();
    let (holder, region) = start(Fabric::Shm, &scratch);
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    let mut model = vec![0; SIZE];
    let mut stores = Stores::new(5, 0, SIZE, (8, 9000));
    holder.stop();
    let began = Instant::now();
    let mut count = 0;
    // Past the silence time, and until this side has noticed the silence.
    while began.elapsed() < Duration::from_secs(1).max(3 * SILENCE) || region.link() == LinkStatus::Up {
        let store = stores.next().unwrap();
        let ticket = lane.store(store.offset, &store.bytes).unwrap();
        lane.wait(ticket, Level::Visible, soon()).unwrap();
        store.apply(&mut model);
        count += 1;
        assert!(began.elapsed() < PATIENCE, "the silence is not noticed");
    }
    assert!(matches!(region.link(), LinkStatus::Silent(_)), "{:?}", region.link());
    let visible = lane.watermarks().visible.0;
    assert_eq!(visible, count);
    say(&format!("holder stopped for {:?}: {count} shm stores reached Visible", began.elapsed()));
    holder.go_on();
    while region.link() != LinkStatus::Up {
        assert!(began.elapsed() < PATIENCE, "the holder is not heard again: {:?}", region.link());
        std::thread::sleep(Duration::from_millis(10));
    }
    // The same link goes on.
    let store = stores.next().unwrap();
    store.apply(&mut model);
    lane.store(store.offset, &store.bytes).unwrap();
    assert_eq!(lane.flush(Level::Visible, soon()).unwrap().0, count + 1);
    let url = format!("shm:{}", scratch.path("holder.sock").display()).parse().unwrap();
    drop((lane, region));
    assert!(pull(&url, SIZE).memory().to_vec() == model, "the holder has other bytes");
}

/// Connects again and stores. The holder may be silent for half a second once more, on a machine that does much else.
fn go_on(region: &Region, lane: &mut Lane) {
    let (began, mut third) = (Instant::now(), None);
    loop {
        let mut why =
            region.reconnect(&mut [&mut *lane], soon()).map(drop).map_err(|error| error.to_string());
        if why.is_ok() && third.is_none() {
            assert_eq!(lane.watermarks().acked.0, 2);
            third = lane.store(200, &[3; 100]).ok();
        }
        if let (Ok(()), Some(third)) = (&why, third) {
            assert_eq!(third.sequence().0, 3);
            why = lane.wait(third, Level::Visible, soon()).map_err(|error| error.to_string());
            if why.is_ok() {
                return;
            }
        }
        assert!(began.elapsed() < PATIENCE, "it does not go on: {why:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn tcp_waits_end_in_time_while_the_holder_is_stopped() {
    for fabric in [Fabric::Tcp, Fabric::TcpSealed] {
        let _watchdog = Watchdog::new("stopped holder, tcp");
        let scratch = Scratch::new();
        let (holder, region) = start(fabric, &scratch);
        let mut lane = region.lane(LaneConfig::default()).unwrap();
        lane.store(0, &[1; 100]).unwrap();
        lane.flush(Level::Visible, soon()).unwrap();
        holder.stop();
        let ticket = lane.store(100, &[2; 100]).unwrap();
        // Long before the silence time: the deadline is what ends it, unless this machine was slow.
        match lane.wait(ticket, Level::Acked, Deadline::within(Duration::from_millis(20))).unwrap_err() {
            WaitError::Deadline { level: Level::Acked, wanted, reached } => {
                assert_eq!((wanted.0, reached.0), (2, 1));
            }
            WaitError::LinkLost { acked, last, .. } => assert_eq!((acked.0, last.0), (1, 2)),
            other => panic!("{other}"),
        }
        // A long deadline is cut short by the silence, which is loss where stores need the holder's processor.
        let began = Instant::now();
        let error = lane.wait(ticket, Level::Visible, Deadline::within(PATIENCE)).unwrap_err();
        let WaitError::LinkLost { acked, last, .. } = error else { panic!("{error}") };
        assert_eq!((acked.0, last.0), (1, 2));
        assert!(began.elapsed() < PATIENCE, "the deadline, not the silence, ended the wait");
        assert!(matches!(lane.store(0, b"x"), Err(StoreError::LinkLost { .. })));
        let unknown = lane.unknown();
        assert_eq!((unknown.acked.0, unknown.last.0), (1, 2));
        assert_eq!(unknown.ranges.len(), 1);
        holder.go_on();
        go_on(&region, &mut lane);
    }
}
