//! The owner that works: two lanes under load, reconnected whenever the link is lost or the parent says so.

use std::io::{BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use mirrorbus::mirror::{StoreError, WaitError};
use mirrorbus::{Attach, Lane, LaneConfig, Level, Region};

use crate::child::{PATIENCE, line_to_parent, variable};
use crate::common::{keys, region_config, soon};
use crate::ledger::Stores;
use crate::roles::pull;

/// A lane, what it stores, and what its half of the region must hold.
struct Worker {
    lane: Lane,
    stores: Stores,
    model: Vec<u8>,
    start: usize,
    taken: u64,
}

/// Role: carries out what the parent says on the line.
pub(crate) fn work() {
    let (url, size, seed) =
        (variable("TEST_URL"), variable::<usize>("TEST_SIZE"), variable::<u64>("TEST_SEED"));
    let region = Region::open(region_config(&url, size, Attach::Push { replace: false }), keys()).unwrap();
    let half = size / 2;
    let mut workers = [0, 1].map(|number| Worker {
        lane: region.lane(LaneConfig::default()).unwrap(),
        stores: Stores::new(seed + number as u64, number * half, half, (8, 9000)),
        model: vec![0; half],
        start: number * half,
        taken: 0,
    });
    let line = line_to_parent();
    let (orders, ordered) = channel();
    let reader = line.try_clone().unwrap();
    std::thread::spawn(move || {
        for order in BufReader::new(reader).lines() {
            if orders.send(order.unwrap()).is_err() {
                return;
            }
        }
    });
    let mut reconnections = 0;
    loop {
        match ordered.recv().expect("the parent is there").as_str() {
            "work" => {
                reconnections += work_until_paused(&region, &mut workers, &ordered);
                writeln!(&line, "paused").unwrap();
            }
            "once" => {
                reconnections += reconnect(&region, &mut workers);
                writeln!(&line, "paused").unwrap();
            }
            // Meant for work that was over already.
            "reconnect" => {}
            "end" => break,
            other => panic!("{other}?"),
        }
    }
    let (taken, model) = (workers.iter().map(|worker| worker.taken).sum::<u64>(), local_model(&workers));
    assert!(region.memory().to_vec() == model, "the local copy is not what was stored");
    drop((workers, region));
    assert!(pull(&url, size).memory().to_vec() == model, "the holder has other bytes");
    writeln!(&line, "{taken} stores, {reconnections} reconnections").unwrap();
}

fn local_model(workers: &[Worker]) -> Vec<u8> {
    workers.iter().flat_map(|worker| worker.model.iter().copied()).collect()
}

/// Returns how often it reconnected.
fn work_until_paused(region: &Region, workers: &mut [Worker; 2], ordered: &Receiver<String>) -> usize {
    let mut reconnections = 0;
    loop {
        let stop = AtomicBool::new(false);
        let paused = std::thread::scope(|scope| {
            let threads: Vec<_> =
                workers.iter_mut().map(|worker| scope.spawn(|| worker.store_until(&stop))).collect();
            let order = loop {
                match ordered.recv_timeout(Duration::from_millis(10)) {
                    Ok(order) => break Some(order),
                    Err(_) if threads.iter().any(|thread| thread.is_finished()) => break None,
                    Err(_) => {}
                }
            };
            stop.store(true, Ordering::Relaxed);
            order.is_some_and(|order| order == "pause")
        });
        reconnections += reconnect(region, workers);
        if paused {
            return reconnections;
        }
    }
}

/// Connects again, however often that is cut too. Afterwards all that was taken is acknowledged.
fn reconnect(region: &Region, workers: &mut [Worker; 2]) -> usize {
    let until = std::time::Instant::now() + PATIENCE;
    let [first, second] = workers;
    while let Err(error) = region.reconnect(&mut [&mut first.lane, &mut second.lane], soon()) {
        assert!(std::time::Instant::now() < until, "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    for worker in workers {
        let marks = worker.lane.watermarks();
        assert_eq!(
            (marks.last.0, marks.acked.0, marks.visible.0),
            (worker.taken, worker.taken, worker.taken)
        );
    }
    1
}

impl Worker {
    /// Stores until told to stop, or until the link is lost.
    fn store_until(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let store = self.stores.next().unwrap();
            let ticket = match self.lane.store(store.offset, &store.bytes) {
                Ok(ticket) => ticket,
                // Not taken, on neither side.
                Err(StoreError::LinkLost { .. }) => return,
                Err(error) => panic!("{error}"),
            };
            self.taken += 1;
            assert_eq!(ticket.sequence().0, self.taken, "a sequence was left out or came twice");
            let at = store.offset - self.start;
            self.model[at..at + store.bytes.len()].copy_from_slice(&store.bytes);
            if self.taken.is_multiple_of(100) {
                match self.lane.wait(ticket, Level::Visible, soon()) {
                    Ok(()) => {}
                    Err(WaitError::LinkLost { .. }) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}
