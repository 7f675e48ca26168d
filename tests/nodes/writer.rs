//! A thread that writes as fast as it is answered, and keeps the ledger.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::{Client, Command};
use crate::common::Random;
use crate::ledger::{BLOCK, Ledger, content};

/// Requests in flight at most.
const DEPTH_MAX: usize = 16;

/// The thread.
pub(crate) struct Writer {
    thread: JoinHandle<Ended>,
    stop: Arc<AtomicBool>,
    allowance: Arc<AtomicI64>,
}

/// How it came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to, and has every answer.
    Stopped,
    /// The connection was lost.
    Lost,
    /// A request failed, with this number.
    Failed(u32),
}

enum Asked {
    Write { first: usize, count: usize },
    Flush { began: u64 },
}

impl Writer {
    pub(crate) fn start(client: Client, ledger: Arc<Mutex<Ledger>>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let allowance = Arc::new(AtomicI64::new(i64::MAX));
        let mut work = Work {
            client,
            ledger,
            random: Random(seed | 1),
            asked: HashMap::new(),
            stop: stop.clone(),
            allowance: allowance.clone(),
        };
        Self { thread: std::thread::spawn(move || work.run()), stop, allowance }
    }

    /// It writes so many bytes more, and then waits.
    pub(crate) fn allow(&self, bytes: i64) {
        self.allowance.store(bytes, Ordering::SeqCst);
    }

    /// Whether it has written what it was allowed to.
    pub(crate) fn rests(&self) -> bool {
        self.allowance.load(Ordering::SeqCst) <= 0
    }

    /// Whether it has come to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(self) -> Ended {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }

    /// Waits until it has lost its connection.
    pub(crate) fn ended(self) -> Ended {
        self.thread.join().unwrap()
    }
}

struct Work {
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    random: Random,
    asked: HashMap<u64, Asked>,
    stop: Arc<AtomicBool>,
    allowance: Arc<AtomicI64>,
}

impl Work {
    fn run(&mut self) -> Ended {
        let mut depth = DEPTH_MAX;
        let mut rounds = 0_u64;
        loop {
            rounds += 1;
            if rounds.is_multiple_of(64) {
                depth = 1 + self.random.below(DEPTH_MAX);
            }
            let stops = self.stop.load(Ordering::SeqCst);
            let may_ask = !stops && self.allowance.load(Ordering::SeqCst) > 0;
            while may_ask && self.asked.len() < depth {
                match self.ask() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => return Ended::Lost,
                }
            }
            if self.asked.is_empty() {
                if stops {
                    return Ended::Stopped;
                }
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let Ok((number, error)) = self.client.answer() else { return Ended::Lost };
            if error != 0 {
                return Ended::Failed(error);
            }
            let mut ledger = self.ledger.lock().unwrap();
            match self.asked.remove(&number).expect("an answer to a question") {
                Asked::Write { first, count } => ledger.acknowledge(first, count),
                Asked::Flush { began } => ledger.flushed(began),
            }
        }
    }

    /// Asks for something; false when what was chosen is under way already.
    fn ask(&mut self) -> std::io::Result<bool> {
        if self.random.below(40) == 0 {
            let began = self.ledger.lock().unwrap().begin_flush();
            let number = self.client.ask(Command::Flush, 0, 0, &[])?;
            self.asked.insert(number, Asked::Flush { began });
            return Ok(true);
        }
        let command = match self.random.below(24) {
            0 => Command::Trim,
            1 => Command::WriteZeroes,
            _ => Command::Write,
        };
        let most = match self.random.below(10) {
            0..6 => 1,
            6..9 => 16,
            _ => 64,
        };
        let count = 1 + self.random.below(most);
        let (first, number) = {
            let mut ledger = self.ledger.lock().unwrap();
            let first = self.random.below(ledger.blocks() - count);
            if ledger.is_busy(first, count) {
                return Ok(false);
            }
            (first, ledger.issue(first, count, command != Command::Write))
        };
        let mut payload = Vec::new();
        if command == Command::Write {
            payload.reserve(count * BLOCK);
            (first..first + count).for_each(|block| payload.extend(content(block as u64, number)));
        }
        let bytes = count * BLOCK;
        self.allowance.fetch_sub(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
        let len = u32::try_from(bytes).unwrap();
        let number = self.client.ask(command, (first * BLOCK) as u64, len, &payload)?;
        self.asked.insert(number, Asked::Write { first, count });
        Ok(true)
    }
}
