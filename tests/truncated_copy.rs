//! Somebody cuts the holder's file: whoever takes over is told, and gets no copy with zeroes where stores were.

mod common;

use common::{Fabric, Pair, soon};
use mirrorbus::node::FenceError;
use mirrorbus::{LaneConfig, Level};

#[test]
fn a_fence_does_not_pass_zeroes_off_as_the_copy() {
    for fabric in [Fabric::Shm, Fabric::Tcp] {
        let pair = Pair::with(fabric, 1 << 20, |config, scratch| config.file = Some(scratch.path("copy")));
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        let ticket = lane.store(500_000, b"acknowledged").unwrap();
        lane.wait(ticket, Level::Visible, soon()).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(pair.scratch.path("copy")).unwrap();
        file.set_len(4096).unwrap();
        for attempt in 0..2 {
            let error = pair.holder.fence(soon()).expect_err("the acknowledged store is gone");
            assert!(matches!(error, FenceError::Truncated(_)), "{fabric:?} {attempt}: {error}");
        }
    }
}
