//! Roles: how soon an owner is told that its holder's process was killed, by one clock.
//!
//! ```text
//! owner       word ──────────────────────────▶ told        (its clock, from the word on)
//! executioner       └─▶ kills the holder ──┘
//! ```
//!
//! The clocks of two machines differ, so the owner gives the word itself: what it measures is the time that it takes to
//! be told and, on top, the word's way to the other machine. The true time is shorter.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mirrorbus::mirror::{StoreError, WaitError};
use mirrorbus::{Attach, Deadline, Lane, Level};
use rustix::process::{Pid, Signal};

use crate::child::{PATIENCE, variable};
use crate::region::{MUST, open, patient_lane, stores};

/// Role: kills the process group `TEST_PROCESS` when the word comes.
pub(crate) fn executioner() {
    let process = Pid::from_raw(variable("TEST_PROCESS")).unwrap();
    let listener = TcpListener::bind(variable::<String>("TEST_LISTEN")).unwrap();
    println!("waits at {}", listener.local_addr().unwrap());
    let (mut word, _) = listener.accept().unwrap();
    word.set_read_timeout(Some(PATIENCE)).unwrap();
    word.read_exact(&mut [0]).unwrap();
    rustix::process::kill_process_group(process, Signal::KILL).unwrap();
    println!("killed");
}

/// Role: stores, gives the word after `TEST_DELAY_MS`, and says how much later it knew that the link is lost.
pub(crate) fn told() {
    let region = open(Attach::Push { replace: true }).unwrap();
    let mut lane = region.lane(patient_lane()).unwrap();
    let mut word = TcpStream::connect(variable::<String>("TEST_EXECUTIONER")).unwrap();
    word.set_nodelay(true).unwrap();
    println!("attached");
    let given = Mutex::new(None);
    let delay = Duration::from_millis(variable("TEST_DELAY_MS"));
    let (reason, told) = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(delay);
            *given.lock().unwrap() = Some(Instant::now());
            word.write_all(b"k").unwrap();
        });
        (until_lost(&mut lane), Instant::now())
    });
    let given = given.into_inner().unwrap().expect("the link is lost before the word");
    let marks = lane.watermarks();
    println!("lost after {} of {} stores: {reason}", marks.acked, marks.last);
    println!("told within {} us", told.saturating_duration_since(given).as_micros());
}

/// Stores and waits until the link is lost: why it was.
fn until_lost(lane: &mut Lane) -> String {
    let until = Instant::now() + PATIENCE;
    for store in stores() {
        let lost = match lane.store(store.offset, &store.bytes) {
            Ok(ticket) => lane.wait(ticket, Level::Acked, Deadline::within(MUST)),
            Err(StoreError::LinkLost { reason, acked, last }) => {
                Err(WaitError::LinkLost { reason, acked, last })
            }
            Err(error) => panic!("{error}"),
        };
        match lost {
            Ok(()) => {}
            Err(WaitError::LinkLost { reason, .. }) => return reason.to_string(),
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < until, "the link is not lost");
    }
    unreachable!("stores do not end")
}
