//! A shared lane whose peer's disk is as slow as a test wants.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::super::shared_lane::tests::{Rig, queue, rig_with};
use super::*;
use crate::mirror::{PeerSync, PendingSync, Ticket};

const PATIENCE: Duration = Duration::from_secs(10);

/// Syncs that end when a test says how.
#[derive(Clone, Default)]
struct Disk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: usize,
    /// How each ended, in the order in which they were asked.
    ended: Vec<Result<(), String>>,
}

/// A sync that was asked for, by its number.
struct Pending {
    disk: Disk,
    number: usize,
}

impl PeerSync for Disk {
    fn begin(&self, _deadline: &mut Deadline) -> Result<Box<dyn PendingSync>, String> {
        let mut state = self.0.state.lock().unwrap();
        let number = state.asked;
        state.asked += 1;
        self.0.changed.notify_all();
        Ok(Box::new(Pending { disk: self.clone(), number }))
    }
}

impl PendingSync for Pending {
    fn wait(&mut self, deadline: &mut Deadline) -> Result<bool, String> {
        let mut state = self.disk.0.state.lock().unwrap();
        loop {
            if let Some(end) = state.ended.get(self.number) {
                return end.clone().map(|()| true);
            }
            let Some(left) = deadline.remaining() else { return Ok(false) };
            state = self.disk.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Disk {
    fn end(&self, how: Result<(), String>) {
        self.0.state.lock().unwrap().ended.push(how);
        self.0.changed.notify_all();
    }

    fn asked(&self) -> usize {
        self.0.state.lock().unwrap().asked
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

fn rig() -> (Rig, Disk) {
    let rig = rig_with(Ok(()));
    let disk = Disk::default();
    rig.core.restore(Arc::new(disk.clone()));
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

fn hasty() -> Deadline {
    Deadline::within(Duration::from_millis(5))
}

fn is_late(result: Result<(), WaitError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, WaitError::Deadline { level: Level::Durable, .. }), "{error}");
}

#[test]
fn who_is_hastier_than_the_disk_is_served_by_the_sync_that_others_gave_up() {
    let (rig, disk) = rig();
    let first = stored(&rig);
    for _ in 0..5 {
        is_late(rig.lane.wait(first, Level::Durable, hasty()));
    }
    assert_eq!(disk.asked(), 1, "another sync would only begin behind this one");
    let second = stored(&rig);
    is_late(rig.lane.wait(second, Level::Durable, hasty()));
    assert_eq!(disk.asked(), 1);
    disk.end(Ok(()));
    rig.lane.wait(first, Level::Durable, hasty()).unwrap();
    assert_eq!((disk.asked(), rig.lane.watermarks().durable), (1, first.sequence()));
    is_late(rig.lane.wait(second, Level::Durable, hasty()));
    assert_eq!(disk.asked(), 2, "the first began before that store");
    disk.end(Ok(()));
    rig.lane.wait(second, Level::Durable, hasty()).unwrap();
    is_late(rig.lane.flush(Level::Durable, hasty()).map(drop));
    assert_eq!(disk.asked(), 3, "a flush asks always");
    disk.end(Ok(()));
    is_late(rig.lane.flush(Level::Durable, hasty()).map(drop));
    assert_eq!(disk.asked(), 4, "and is not served by what began before it");
}

#[test]
fn what_was_given_up_over_another_link_serves_nobody() {
    let (rig, disk) = rig();
    let ticket = stored(&rig);
    is_late(rig.lane.wait(ticket, Level::Durable, hasty()));
    rig.lane
        .exclusively(|lane| {
            let queue = queue(Arc::default(), Arc::default(), Ok(()));
            lane.resume(queue, crate::fabric::WindowId(1));
        })
        .unwrap();
    disk.end(Ok(()));
    is_late(rig.lane.flush(Level::Durable, hasty()).map(drop));
    assert_eq!((disk.asked(), rig.lane.watermarks().durable.0), (2, 0));
}

#[test]
fn an_exclusive_lane_goes_on_waiting_for_the_sync_that_it_gave_up() {
    let (rig, disk) = rig();
    let ticket = stored(&rig);
    rig.lane
        .exclusively(|lane| {
            for _ in 0..3 {
                is_late(lane.wait(ticket, Level::Durable, hasty()));
            }
            assert_eq!(disk.asked(), 1);
            disk.end(Ok(()));
            lane.wait(ticket, Level::Durable, hasty()).unwrap();
            assert_eq!((disk.asked(), lane.watermarks().durable), (1, ticket.sequence()));
            is_late(lane.flush(Level::Durable, hasty()).map(drop));
            disk.end(Ok(()));
            is_late(lane.flush(Level::Durable, hasty()).map(drop));
            assert_eq!(disk.asked(), 3, "a flush is not served by what began before it");
        })
        .unwrap();
}

#[test]
fn who_gives_up_leaves_the_others_his_sync_and_an_error_is_for_all() {
    let (rig, disk) = rig();
    let ticket = stored(&rig);
    std::thread::scope(|scope| {
        let hasty = scope
            .spawn(|| rig.lane.wait(ticket, Level::Durable, Deadline::within(Duration::from_millis(100))));
        disk.wait_asked(1);
        let patient = scope.spawn(|| rig.lane.wait(ticket, Level::Durable, soon()));
        is_late(hasty.join().unwrap());
        disk.end(Ok(()));
        patient.join().unwrap().unwrap();
        assert_eq!(disk.asked(), 1, "it covers the same store");
    });
    let ticket = stored(&rig);
    std::thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..3).map(|_| scope.spawn(|| rig.lane.wait(ticket, Level::Durable, soon()))).collect();
        for number in 2..5 {
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
