//! The ends of what can be asked for: the longest durations, the most lanes.

use std::time::{Duration, Instant};

use mirrorbus::mirror::{Lane, Polling};
use mirrorbus::node::{CallError, RefusalCode};
use mirrorbus::{Attach, Deadline, Holder, LaneConfig, Level, Region};

use super::link::fill;
use crate::common::{Fabric, Pair, Scratch, holder_config, keys, region_config, soon};

const SIZE: usize = 1 << 20;

on_every_fabric!(durations_may_be_as_long_as_there_are, one_lane_too_many_costs_nobody_his_link);

/// What is configured is a bound, not something to count with.
fn durations_may_be_as_long_as_there_are(fabric: Fabric) {
    let scratch = Scratch::new();
    let mut config = holder_config(fabric.url(&scratch), SIZE);
    config.spin = Duration::MAX;
    let holder = Holder::start(config, keys()).unwrap();
    let mut config = region_config(holder.url(), SIZE, Attach::Push { replace: false });
    config.timeout = Duration::MAX;
    let region = Region::open(config, keys()).unwrap();
    let forever = || Deadline::within(Duration::MAX);
    for polling in [Polling::Spin, Polling::Block, Polling::Adaptive(Duration::MAX)] {
        let config = LaneConfig { depth: 4, polling, store_timeout: Duration::MAX };
        let mut lane = region.lane(config).unwrap();
        fill(&mut lane, 3, 300);
        lane.flush(Level::Visible, forever()).unwrap();
        // Long enough to be waited for, whatever the processor.
        let ticket = lane.store(0, &vec![1; SIZE]).unwrap();
        lane.wait(ticket, Level::Visible, forever()).unwrap();
        region.reconnect(&mut [&mut lane], forever()).unwrap();
        let shared = lane.into_shared().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let shared = &shared;
                scope.spawn(move || {
                    for number in 0..100 {
                        let ticket = shared.store(thread * 4096 + number * 8, &[9; 8]).unwrap();
                        shared.wait(ticket, Level::Visible, forever()).unwrap();
                    }
                });
            }
        });
        assert_eq!(holder.memory().slice().to_vec(), region.memory().to_vec());
    }
    assert!(matches!(holder.fence(forever()), Ok(fenced) if fenced.exact));
}

/// Through memory there is no bound; over a stream each lane has a thread of the holder.
fn one_lane_too_many_costs_nobody_his_link(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    // The queue of the push may still be ending.
    let mut lanes: Vec<Lane> = Vec::new();
    let refused = (0..300).find_map(|_| match pair.region.lane(LaneConfig::default()) {
        Ok(lane) => {
            lanes.push(lane);
            None
        }
        Err(error) => Some(error),
    });
    match refused {
        None => assert_eq!(fabric, Fabric::Shm),
        Some(CallError::Refused { code: RefusalCode::Resources, why }) => {
            assert!(lanes.len() >= 255 && why.contains("queues are open"), "{}: {why}", lanes.len());
        }
        Some(error) => panic!("{error}"),
    }
    for (number, lane) in lanes.iter_mut().enumerate() {
        lane.store(number * 8, &[number as u8; 8]).unwrap();
        lane.flush(Level::Visible, soon()).unwrap();
    }
    assert_eq!(pair.held(), pair.local());
    // Those that end make room: a few more than the bound may have been promised.
    lanes.truncate(lanes.len() - 64);
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = pair.region.lane(LaneConfig::default()) {
        assert!(Instant::now() < until, "{error}");
    }
}
