//! Clients that try to write at both nodes all the time: at most one of these may acknowledge.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{BLOCK, Client, content, number_of};
use crate::rig::Rig;

/// How long a probe waits for one answer before it begins anew: what is held is not all that it can try.
const ANSWER_TIME: Duration = Duration::from_millis(400);

/// Blocks of a probe.
const BLOCKS: u64 = 1024;

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) node: usize,
    block: u64,
    number: u32,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

/// The clients, one at each node. Each writes blocks of its own, with rising numbers.
pub(crate) struct Probes {
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Taken>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Probes {
    pub(crate) fn start(rig: &Rig) -> Self {
        Self::start_behind(rig, 0)
    }

    /// Whose writes have numbers behind this one, which those of earlier ones had.
    pub(crate) fn start_behind(rig: &Rig, last: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let probe = |node| {
            let (socket, stop, taken) = (rig.socket(node), stop.clone(), taken.clone());
            let probe = Probe { node, last, socket, stop, taken };
            std::thread::spawn(move || probe.run())
        };
        Self { threads: [0, 1].map(probe).into(), stop, taken }
    }

    /// What was asked for after that, and acknowledged so far by a node. When it was answered is not known so well: a probe may read that late.
    pub(crate) fn taken(&self, node: usize, after: Instant) -> usize {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|taken| taken.node == node && taken.asked > after).count()
    }

    /// Ends them; all that was acknowledged.
    pub(crate) fn stop(self) -> Vec<Taken> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.taken.lock().unwrap().clone()
    }
}

struct Probe {
    node: usize,
    last: u32,
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Probe {
    fn run(&self) {
        let node = self.node;
        let (mut number, mut block) = (self.last, node as u64 * BLOCKS);
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
            let Ok(mut client) = Client::connect(&self.socket, "root") else { continue };
            client.set_patience(ANSWER_TIME);
            let written = loop {
                number += 1;
                let asked = Instant::now();
                let written = client.try_write(block * BLOCK as u64, &content(block, number));
                let Ok(0) = written else { break written };
                let taken = Taken { node, block, number, asked, answered: Instant::now() };
                self.taken.lock().unwrap().push(taken);
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            // What was not answered may be carried out later than what is asked from now on.
            block += u64::from(written.is_err());
        }
    }
}

/// Nothing of what was acknowledged is lost: each block has it, or what was asked for after it.
pub(crate) fn assert_there(client: &mut Client, taken: &[Taken]) {
    let last: HashMap<_, _> = taken.iter().map(|taken| (taken.block, *taken)).collect();
    for taken in last.values() {
        let found = client.read(taken.block * BLOCK as u64, 4096).unwrap();
        let found = number_of(taken.block, &found);
        assert!(found >= Some(taken.number), "{taken:?} was acknowledged, and {found:?} is there");
    }
}
