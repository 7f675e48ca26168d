//! Role: connect again and again under load. What each connection had must be given back: whoever started this counts on
//! both sides, before and after, while nothing is under way.

use mirrorbus::{Attach, Deadline, Level};

use crate::child::variable;
use crate::region::{MUST, open, patient_lane, stores, until_told_to_go};

/// Reconnections before the first count, so that what is made once is made.
const WARM_UP: usize = 3;

/// Stores in flight, not waited for, when a reconnection begins.
const LOAD: usize = 48;

/// Role: says `settled` before and after `TEST_RECONNECTS` reconnections, each time until it is told to go on.
pub(crate) fn reconnects() {
    let region = open(Attach::Push { replace: true }).unwrap();
    let mut lane = region.lane(patient_lane()).unwrap();
    let mut stores = stores();
    println!("attached");
    let mut again = |count: usize| {
        for _ in 0..count {
            for store in stores.by_ref().take(LOAD) {
                lane.store(store.offset, &store.bytes).unwrap();
            }
            region.reconnect(&mut [&mut lane], Deadline::within(MUST)).unwrap();
        }
        for store in stores.by_ref().take(LOAD) {
            lane.store(store.offset, &store.bytes).unwrap();
        }
        lane.flush(Level::Visible, Deadline::within(MUST)).unwrap();
        println!("acked {}", lane.watermarks().acked);
    };
    again(WARM_UP);
    println!("settled");
    until_told_to_go("1");
    again(variable("TEST_RECONNECTS"));
    println!("settled");
    until_told_to_go("2");
}
