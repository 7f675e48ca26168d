//! A shared lane whose peer's disk is as slow as a test wants.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::super::shared_lane::tests::{Rig, queue, rig_with};
use super::*;
use crate::mirror::{PeerSync, Ticket};

const PATIENCE: Duration = Duration::from_secs(10);

/// Syncs that end when a test says how.
#[derive(Default)]
struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: usize,
    /// How each ended, in the order in which they were asked.
    ended: Vec<Result<(), String>>,
}

impl PeerSync for Disk {
    fn sync(&self, deadline: &mut Deadline) -> Result<bool, String> {
        let mut state = self.state.lock().unwrap();
        let mine = state.asked;
        state.asked += 1;
        self.changed.notify_all();
        loop {
            if let Some(end) = state.ended.get(mine) {
                return end.clone().map(|()| true);
            }
            let Some(left) = deadline.remaining() else {
                state.ended.resize(mine + 1, Ok(()));
                return Ok(false);
            };
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Disk {
    fn end(&self, how: Result<(), String>) {
        self.state.lock().unwrap().ended.push(how);
        self.changed.notify_all();
    }

    fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// Waits until so many were asked for.
    fn wait_asked(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.asked() < count {
            assert!(Instant::now() < end, "{} syncs of {count} were asked for", self.asked());
            std::thread::yield_now();
        }
    }
}

fn rig() -> (Rig, Arc<Disk>) {
    let rig = rig_with(Ok(()));
    let disk = Arc::new(Disk::default());
    rig.core.restore(disk.clone());
    rig.complete_everything();
    (rig, disk)
}

fn soon() -> Deadline {
    Deadline::within(PATIENCE)
}

fn stored(rig: &Rig) -> Ticket {
    let ticket = rig.lane.store(0, b"x").unwrap();
    rig.lane.wait(ticket, Level::Visible, soon()).unwrap();
    ticket
}

#[test]
fn others_go_on_while_one_waits_for_the_disk() {
    let (rig, disk) = rig();
    let ticket = stored(&rig);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| rig.lane.wait(ticket, Level::Durable, soon()));
        disk.wait_asked(1);
        let (tell, told) = std::sync::mpsc::channel();
        let rig = &rig;
        scope.spawn(move || tell.send(stored(rig)));
        let other = told.recv_timeout(PATIENCE / 5);
        disk.end(Ok(()));
        assert_eq!(waiter.join().unwrap(), Ok(()));
        let other = other.expect("a store waits for another's sync");
        assert_eq!(rig.lane.watermarks().durable, ticket.sequence());
        assert_eq!(rig.lane.watermarks().visible, other.sequence());
    });
}

#[test]
fn a_sync_covers_what_was_visible_when_it_was_asked_and_is_shared() {
    let (rig, disk) = rig();
    let first = stored(&rig);
    std::thread::scope(|scope| {
        let wait = |ticket| rig.lane.wait(ticket, Level::Durable, soon());
        let early = scope.spawn(move || wait(first));
        disk.wait_asked(1);
        let later: Vec<_> = (0..4).map(|_| stored(&rig)).collect();
        let last = later[3].sequence();
        let late: Vec<_> = later.into_iter().map(|ticket| scope.spawn(move || wait(ticket))).collect();
        let flusher = scope.spawn(|| rig.lane.flush(Level::Durable, soon()));
        let end = Instant::now() + PATIENCE;
        while rig.lane.shared.syncs.followers() < 5 {
            assert!(Instant::now() < end, "not all of them wait");
            std::thread::yield_now();
        }
        assert_eq!(disk.asked(), 1, "one sync at a time");
        disk.end(Ok(()));
        early.join().unwrap().unwrap();
        disk.wait_asked(2);
        assert!(late.iter().all(|thread| !thread.is_finished()), "the first sync began before those stores");
        assert_eq!(rig.lane.watermarks().durable, first.sequence());
        disk.end(Ok(()));
        for thread in late {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(flusher.join().unwrap(), Ok(last));
        assert_eq!(disk.asked(), 2, "four waiters and a flush share a sync");
        assert_eq!(rig.lane.watermarks().durable, last);
    });
    rig.lane.wait(first, Level::Durable, soon()).unwrap();
    assert_eq!(disk.asked(), 2, "what is durable needs no sync");
    disk.end(Ok(()));
    rig.lane.flush(Level::Durable, soon()).unwrap();
    assert_eq!(disk.asked(), 3, "a flush always asks");
}

#[test]
fn who_gives_up_leaves_the_others_a_sync_and_an_error_is_for_all() {
    let (rig, disk) = rig();
    let ticket = stored(&rig);
    std::thread::scope(|scope| {
        let hasty = scope
            .spawn(|| rig.lane.wait(ticket, Level::Durable, Deadline::within(Duration::from_millis(100))));
        disk.wait_asked(1);
        let patient = scope.spawn(|| rig.lane.wait(ticket, Level::Durable, soon()));
        let error = hasty.join().unwrap().unwrap_err();
        assert!(matches!(error, WaitError::Deadline { level: Level::Durable, .. }), "{error}");
        disk.wait_asked(2);
        disk.end(Ok(()));
        patient.join().unwrap().unwrap();
    });
    let ticket = stored(&rig);
    std::thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..3).map(|_| scope.spawn(|| rig.lane.wait(ticket, Level::Durable, soon()))).collect();
        for number in 3..6 {
            disk.wait_asked(number);
            disk.end(Err("no space".into()));
        }
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Err(WaitError::SyncFailed("no space".into())));
        }
    });
}

/// A reconnection cuts the sync off that is under way; what was to be durable is visible after it, and asks again.
#[test]
fn a_sync_that_a_reconnection_cut_off_is_asked_again() {
    let (rig, disk) = rig();
    let ticket = stored(&rig);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| rig.lane.wait(ticket, Level::Durable, soon()));
        disk.wait_asked(1);
        rig.lane
            .exclusively(|lane| {
                let queue = queue(Arc::default(), Arc::default(), Ok(()));
                lane.resume(queue, crate::fabric::WindowId(1));
                disk.end(Err("the control connection ended".into()));
            })
            .unwrap();
        disk.wait_asked(2);
        disk.end(Ok(()));
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
}
