//! The two roles: store until the link is lost, connect again, go on; and judge a copy by what its owner had said.

use std::time::{Duration, Instant};

use mirrorbus::memory::LockPolicy;
use mirrorbus::mirror::{Lane, StoreError, WaitError};
use mirrorbus::node::{CallError, OpenError, ReconnectError, RefusalCode};
use mirrorbus::{Attach, Deadline, FabricUrl, KeySet, LaneConfig, Level, Region, RegionConfig};

use crate::child::{PATIENCE, variable};
use crate::ledger::{Stores, find_prefix};

/// Bytes of the region: the judge compares all of it many times.
pub(crate) const SIZE: usize = 256 << 10;

const STORE_LENS: (usize, usize) = (8, 4096);

/// One store in so many is waited for.
const WAIT_EACH: u64 = 16;

/// How long one store or wait may take by what it was told.
const CALL: Duration = Duration::from_secs(3);

/// How much later than told a call may return, on a machine that does much else.
const LATE_MAX: Duration = Duration::from_secs(1);

/// A line that tells how far it is comes this often.
const REPORT: Duration = Duration::from_millis(50);

/// How long it stores on after the link was whole again.
const GO_ON: Duration = Duration::from_millis(500);

/// Stores that a lane has in flight at most: what may be there beyond what was said is acknowledged is judged up to
/// this and what was done since the last line.
const DEPTH: usize = 64;
const BEYOND_MAX: usize = 200_000;

/// Role: stores, and says how many are acknowledged; when the link is lost says so, connects again, stores on, and proves
/// both copies equal. No call may return later than it was told to.
pub(crate) fn store() {
    // The test harness has begun a line.
    println!();
    let region = open(Attach::Push { replace: true }).unwrap();
    let config = LaneConfig { depth: DEPTH, store_timeout: CALL, ..LaneConfig::default() };
    let mut lane = region.lane(config).unwrap();
    let mut stores = stores();
    println!("attached");
    let why = store_until(&mut lane, &mut stores, Instant::now() + PATIENCE);
    let marks = lane.watermarks();
    println!("acked {}", marks.acked);
    let why = why.expect("the link is lost before the end of patience");
    println!("lost after {} of {} stores: {why}", marks.acked, marks.last);
    resume(&region, &mut lane);
    println!("resumed");
    assert_eq!(store_until(&mut lane, &mut stores, Instant::now() + GO_ON), None);
    lane.flush(Level::Visible, Deadline::within(CALL)).unwrap();
    println!("acked {}", lane.watermarks().acked);
}

/// Stores until then, or until the link is lost: why it was.
fn store_until(lane: &mut Lane, stores: &mut Stores, until: Instant) -> Option<String> {
    let mut reported = Instant::now();
    for (number, store) in (1..).zip(stores) {
        let began = Instant::now();
        let ticket = match lane.store(store.offset, &store.bytes) {
            Ok(ticket) => ticket,
            Err(StoreError::LinkLost { reason, .. }) => return Some(in_time(began, reason.to_string())),
            Err(error) => panic!("{error}"),
        };
        let began = Instant::now();
        if number % WAIT_EACH == 0 {
            match lane.wait(ticket, Level::Acked, Deadline::within(CALL)) {
                Ok(()) => {}
                Err(WaitError::LinkLost { reason, .. }) => return Some(in_time(began, reason.to_string())),
                Err(error) => panic!("{error}"),
            }
        }
        if reported.elapsed() > REPORT {
            println!("acked {}", lane.watermarks().acked);
            reported = Instant::now();
        }
        if Instant::now() > until {
            return None;
        }
    }
    unreachable!("stores do not end")
}

fn in_time(began: Instant, why: String) -> String {
    let took = began.elapsed();
    assert!(took < CALL + LATE_MAX, "the call returned after {took:?}: {why}");
    format!("{why}, {} ms into the call", took.as_millis())
}

/// Connects again as soon as it can be.
fn resume(region: &Region, lane: &mut Lane) {
    let until = Instant::now() + PATIENCE;
    loop {
        let began = Instant::now();
        match region.reconnect(&mut [lane], Deadline::within(CALL)) {
            Ok(_) => return,
            Err(error @ ReconnectError::Call(_)) => {
                assert!(began.elapsed() < CALL + LATE_MAX, "{:?}: {error}", began.elapsed());
                assert!(Instant::now() < until, "{error}");
            }
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Role: takes the copy over, and says how many stores it is a prefix of, which are at least those that were said to be
/// acknowledged.
pub(crate) fn judge() {
    println!();
    let acked = variable("TEST_ACKED");
    let until = Instant::now() + PATIENCE;
    let region = loop {
        match open(Attach::Pull) {
            Ok(region) => break region,
            // The holder has not yet found that the last owner is gone.
            Err(OpenError::Call(CallError::Refused { code: RefusalCode::Busy, why })) => {
                assert!(Instant::now() < until, "{why}");
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    };
    let count = usize::try_from(acked).unwrap() + BEYOND_MAX;
    let found =
        find_prefix(&region.memory().to_vec(), &mut vec![0; SIZE], 0..SIZE, stores().take(count), acked);
    println!("prefix of {}", found.unwrap());
}

fn stores() -> Stores {
    Stores::new(variable("TEST_SEED"), 0, SIZE, STORE_LENS)
}

fn open(attach: Attach) -> Result<Region, OpenError> {
    let keys = KeySet::load(&variable::<std::path::PathBuf>("TEST_KEY")).unwrap();
    let mut config = RegionConfig::new(variable::<FabricUrl>("TEST_URL"), SIZE, attach);
    config.lock = LockPolicy::Try;
    Region::open(config, keys)
}
