//! A client that goes to whichever node serves, and writes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::Client;
use crate::common::Random;
use crate::ledger::Ledger;
use crate::rig::Rig;
use crate::writer::{Ended, Writer};

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(2);

/// The client: a [`Writer`] after the other, each until it loses its connection.
pub(crate) struct Roamer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Roamed>,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Roamed {
    /// Connections that it had.
    pub(crate) connections: u32,
    /// The numbers of what it was told that failed.
    pub(crate) failed: Vec<u32>,
}

impl Roamer {
    pub(crate) fn start(rig: &Rig, ledger: &Arc<Mutex<Ledger>>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sockets, ledger, stopped) = ([0, 1].map(|node| rig.socket(node)), ledger.clone(), stop.clone());
        let thread = std::thread::spawn(move || roam(&sockets, &ledger, &stopped, Random(seed | 1)));
        Self { stop, thread }
    }

    /// Waits until all is answered that was asked.
    pub(crate) fn stop(self) -> Roamed {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn roam(
    sockets: &[PathBuf; 2],
    ledger: &Arc<Mutex<Ledger>>,
    stop: &AtomicBool,
    mut random: Random,
) -> Roamed {
    let mut roamed = Roamed::default();
    while !stop.load(Ordering::SeqCst) {
        for socket in sockets {
            let Ok(client) = Client::connect(socket, "root") else { continue };
            roamed.connections += 1;
            let writer = Writer::start(client, ledger.clone(), random.next());
            while !writer.is_finished() && !stop.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
            }
            match writer.stop() {
                Ended::Failed(error) => roamed.failed.push(error),
                // That it lost its connection is what it is here for.
                Ended::Lost | Ended::Stopped => {}
            }
        }
        std::thread::sleep(LOOK);
    }
    roamed
}
