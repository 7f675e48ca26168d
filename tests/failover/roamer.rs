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
use crate::writer::Writer;

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(2);

/// The client: a [`Writer`] after the other, each until it loses its connection.
pub(crate) struct Roamer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Roamer {
    pub(crate) fn start(rig: &Rig, ledger: &Arc<Mutex<Ledger>>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sockets, ledger, stopped) = ([0, 1].map(|node| rig.socket(node)), ledger.clone(), stop.clone());
        let thread = std::thread::spawn(move || roam(&sockets, &ledger, &stopped, Random(seed | 1)));
        Self { stop, thread }
    }

    /// Waits until all is answered that was asked; how many connections it had.
    pub(crate) fn stop(self) -> u32 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn roam(sockets: &[PathBuf; 2], ledger: &Arc<Mutex<Ledger>>, stop: &AtomicBool, mut random: Random) -> u32 {
    let mut connections = 0;
    while !stop.load(Ordering::SeqCst) {
        for socket in sockets {
            let Ok(client) = Client::connect(socket, "root") else { continue };
            connections += 1;
            let writer = Writer::start(client, ledger.clone(), random.next());
            while !writer.is_finished() && !stop.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
            }
            // That it lost its connection is what it is here for.
            let _ = writer.stop();
        }
        std::thread::sleep(LOOK);
    }
    connections
}
