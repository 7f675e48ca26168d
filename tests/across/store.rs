//! Roles: store until the link is lost, connect again, go on; store while the holder stands still; and judge a copy by
//! what its owner had said.

use std::iter::Peekable;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mirrorbus::mirror::{SharedLane, StoreError, Ticket, WaitError};
use mirrorbus::node::{CallError, OpenError, ReconnectError, RefusalCode};
use mirrorbus::{Attach, Deadline, Level, Region};

use crate::child::{PATIENCE, optional, variable};
use crate::ledger::{Stores, find_prefix};
use crate::region::{CALL, MUST, REPORT, SIZE, in_time, lane_config, open, patient_lane, stores, walk};

/// One store in so many is waited for by the thread that stores.
const WAIT_EACH: u64 = 16;

/// What further threads wait for all the time.
const WAITERS: [Level; 3] = [Level::Acked, Level::Visible, Level::Visible];

/// How long it stores on after the link was whole again.
const GO_ON: Duration = Duration::from_millis(500);

/// What may be in a copy beyond what was said is acknowledged is judged up to so many stores: what was done since the
/// last line.
const BEYOND_MAX: usize = 200_000;

/// Role: stores, and says how many are acknowledged, while other threads wait; when the link is lost says so, connects
/// again, stores on, and proves both copies equal. No call of any thread may return later than it was told to.
pub(crate) fn store() {
    let region = open(Attach::Push { replace: true }).unwrap();
    let lane = region.lane(lane_config()).unwrap().into_shared().unwrap();
    let mut stores = stores().peekable();
    println!("attached");
    let why =
        with_waiters(&lane, |latest| store_until(&lane, &mut stores, Instant::now() + PATIENCE, latest));
    let marks = lane.watermarks();
    println!("acked {}", marks.acked);
    let why = why.expect("the link is lost before the end of patience");
    println!("lost after {} of {} stores: {why}", marks.acked, marks.last);
    resume(&region, &lane);
    println!("resumed");
    let why = with_waiters(&lane, |latest| store_until(&lane, &mut stores, Instant::now() + GO_ON, latest));
    assert_eq!(why, None);
    lane.flush(Level::Visible, Deadline::within(MUST)).unwrap();
    println!("acked {}", lane.watermarks().acked);
}

/// The last store, for those that wait.
type Latest = Mutex<Option<Ticket>>;

/// Stores with other threads waiting. What any of them was told is acknowledged, the lane must say is acknowledged.
fn with_waiters(lane: &SharedLane, store: impl FnOnce(&Latest) -> Option<String>) -> Option<String> {
    let (latest, ended) = (Latest::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let waiters = WAITERS.map(|level| {
            let (latest, ended) = (&latest, &ended);
            scope.spawn(move || wait_on(lane, level, latest, ended))
        });
        let why = store(&latest);
        ended.store(true, Ordering::Release);
        let proven = waiters.map(|waiter| waiter.join().unwrap()).into_iter().max().unwrap_or(0);
        let acked = lane.watermarks().acked.0;
        assert!(proven <= acked, "a waiter was told of store {proven}, the lane says {acked}");
        why
    })
}

/// Waits for one store after the other; the last that was reached.
fn wait_on(lane: &SharedLane, level: Level, latest: &Latest, ended: &AtomicBool) -> u64 {
    let mut reached = 0;
    loop {
        // Looked at first: what is the last store then is waited for once more.
        let last = ended.load(Ordering::Acquire);
        let ticket = *latest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ticket) = ticket.filter(|ticket| ticket.sequence().0 > reached) else {
            if last {
                return reached;
            }
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let began = Instant::now();
        match lane.wait(ticket, level, Deadline::within(CALL)) {
            Ok(()) => reached = ticket.sequence().0,
            Err(error @ WaitError::Deadline { .. }) => drop(in_time(began, &error.to_string())),
            Err(WaitError::LinkLost { reason, acked, .. }) => {
                println!("a waiter for {level} is told: {}", in_time(began, &reason.to_string()));
                assert!(reached <= acked.0, "told of store {reached}, then that {acked} are acknowledged");
                return reached;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Stores until then, or until the link is lost: why it was.
fn store_until(
    lane: &SharedLane,
    stores: &mut Peekable<Stores>,
    until: Instant,
    latest: &Latest,
) -> Option<String> {
    let mut reported = Instant::now();
    for number in 1.. {
        let store = stores.peek().expect("stores do not end");
        let began = Instant::now();
        let ticket = match lane.store(store.offset, &store.bytes) {
            Ok(ticket) => ticket,
            Err(StoreError::LinkLost { reason, .. }) => return Some(in_time(began, &reason.to_string())),
            Err(error) => panic!("{error}"),
        };
        // One that was not taken is the first to be stored when the link is whole again.
        stores.next();
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticket);
        let began = Instant::now();
        if number % WAIT_EACH == 0 {
            match lane.wait(ticket, Level::Acked, Deadline::within(CALL)) {
                Ok(()) => {}
                Err(WaitError::LinkLost { reason, .. }) => return Some(in_time(began, &reason.to_string())),
                Err(error @ WaitError::Deadline { .. }) => drop(in_time(began, &error.to_string())),
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

/// Connects again as soon as it can be.
fn resume(region: &Region, lane: &SharedLane) {
    let until = Instant::now() + PATIENCE;
    loop {
        let began = Instant::now();
        let result = lane.exclusively(|lane| region.reconnect(&mut [lane], Deadline::within(CALL))).unwrap();
        match result {
            Ok(_) => return,
            Err(error @ ReconnectError::Call(_)) => {
                let late = in_time(began, &error.to_string());
                assert!(Instant::now() < until, "{late}");
            }
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Role: stores, each waited for until it is `Visible`, and says how many are; ends when told to.
pub(crate) fn visible() {
    let region = open(Attach::Push { replace: true }).unwrap();
    let mut lane = region.lane(patient_lane()).unwrap();
    println!("attached");
    let go = variable::<String>("TEST_GO");
    let (until, mut reported) = (Instant::now() + PATIENCE, Instant::now());
    for store in stores() {
        let ticket = lane.store(store.offset, &store.bytes).unwrap();
        lane.wait(ticket, Level::Visible, Deadline::within(MUST)).unwrap();
        if reported.elapsed() > REPORT {
            println!("visible {}", ticket.sequence());
            reported = Instant::now();
            if Path::new(&go).exists() {
                break;
            }
        }
        assert!(Instant::now() < until, "nobody ends it");
    }
    println!("acked {}", lane.watermarks().acked);
}

/// Role: takes the copy over, and says how many stores it is a prefix of, which are at least those that were said to be
/// acknowledged.
pub(crate) fn judge() {
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
    let (copy, mut model) = (region.memory().to_vec(), vec![0; SIZE]);
    let found = match optional::<String>("TEST_STORES").as_deref() {
        Some("walk") => find_prefix(&copy, &mut model, 0..SIZE, walk().take(count), acked),
        _ => find_prefix(&copy, &mut model, 0..SIZE, stores().take(count), acked),
    };
    println!("prefix of {}", found.unwrap());
}
