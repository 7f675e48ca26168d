//! Clients: they connect to whichever node serves, write, read, flush and trim, and note what they asked for and were told.
//!
//! ```text
//!  client ─▶ line ─▶ a thread of the node's: writes and reads, then one commit for all ─▶ line ─▶ client
//! ```
//!
//! As that of a node's door, the thread answers a request when all before it is committed, and hangs up without an answer where it fails.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::history::{History, Kind, Token, Value};
use super::node::{Node, VOLUME};
use super::oracle;
use super::trace::{fail, tell};
use crate::sim::{Random, scheduler};
use crate::store::error::IoError;
use crate::store::io::{Mark, Source, Volume};
use std::sync::Arc;

/// Bytes of a cell; half a block, so that some writes have to read first.
const CELL_BYTES: usize = 2048;
const CELLS_OF_BLOCK: usize = 2;
pub(super) const CELLS: usize = 40;
/// That many of them are written more than the others.
const HOT_CELLS: usize = 8;
pub(super) const VOLUME_BYTES: u64 = (CELLS * CELL_BYTES) as u64;

/// What a client may ask for, of some cells.
#[derive(Debug, Clone)]
enum Request {
    /// Each cell's value.
    Write(usize, Vec<Value>),
    Read(usize, usize),
    Trim(usize, usize),
    Flush,
}

/// A connection of a client's.
#[derive(Default)]
pub(super) struct Line {
    requests: Option<Vec<Request>>,
    /// What was read, request by request.
    answers: Option<Vec<Vec<Value>>>,
    is_open: bool,
    is_closed: bool,
    /// The client is gone.
    is_left: bool,
}

type Shared = Rc<RefCell<Line>>;

fn client_key(line: &Shared) -> usize {
    Rc::as_ptr(line).addr()
}

fn server_key(line: &Shared) -> usize {
    client_key(line) + 1
}

/// The node hangs up.
pub(super) fn close(line: &Shared) {
    line.borrow_mut().is_closed = true;
    scheduler::wake(client_key(line), usize::MAX);
}

/// A node's thread for one client.
fn serve(dataset: &Rc<RefCell<Option<Arc<crate::store::Dataset>>>>, line: &Shared) {
    let opened = dataset.borrow().clone();
    let Some(Ok(volume)) = opened.map(|dataset| dataset.volume(VOLUME)) else { return close(line) };
    line.borrow_mut().is_open = true;
    scheduler::wake(client_key(line), usize::MAX);
    loop {
        let requests = line.borrow_mut().requests.take();
        if line.borrow().is_left || volume.moved() {
            return close(line);
        }
        let Some(requests) = requests else {
            scheduler::wait(server_key(line), Some(scheduler::after(Duration::from_millis(100))));
            continue;
        };
        match execute(&volume, &requests, line) {
            Ok(answers) => line.borrow_mut().answers = Some(answers),
            Err(error) => {
                if let IoError::Damaged(_) | IoError::Medium(_) = &error {
                    fail(format!("a client is told of damage, and no disk does any: {error}"));
                }
                tell(|| format!("a client is hung up on: {error}"));
                return close(line);
            }
        }
        scheduler::wake(client_key(line), usize::MAX);
    }
}

fn offset(cell: usize) -> u64 {
    (cell * CELL_BYTES) as u64
}

fn execute(volume: &Volume, requests: &[Request], line: &Shared) -> Result<Vec<Vec<Value>>, IoError> {
    let gone = || line.borrow().is_left;
    let mut mark = Mark::default();
    let mut answers = Vec::new();
    for request in requests {
        let mut answer = Vec::new();
        match request {
            Request::Write(first, values) => {
                let cell = |value: &Value| value.to_le_bytes().repeat(CELL_BYTES / 8);
                let bytes = values.iter().map(cell).collect::<Vec<_>>().concat();
                mark = mark.max(volume.write(offset(*first), Source::Bytes(&bytes), &gone)?);
            }
            Request::Read(first, count) => {
                let mut bytes = vec![0; count * CELL_BYTES];
                mark = mark.max(volume.read(offset(*first), &mut bytes)?);
                answer = bytes.chunks(CELL_BYTES).map(value_of).collect();
            }
            Request::Trim(first, count) => {
                let bytes = (count * CELL_BYTES) as u64;
                mark = mark.max(volume.trim(offset(*first), bytes, &gone)?);
            }
            Request::Flush => {
                volume.commit(mark, &gone)?;
                let until = oracle::answered();
                volume.flush(&gone)?;
                oracle::flushes(scheduler::current_process().expect("a thread of a node"), until);
            }
        }
        answers.push(answer);
    }
    volume.commit(mark, &gone)?;
    oracle::answers(scheduler::current_process().expect("a thread of a node"), mark);
    Ok(answers)
}

/// What a cell has: one value, all over.
fn value_of(bytes: &[u8]) -> Value {
    let word = |bytes: &[u8]| Value::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let value = word(&bytes[..8]);
    if bytes[8..] != bytes[..bytes.len() - 8] {
        let other = bytes.chunks(8).map(word).find(|other| *other != value).unwrap_or_default();
        fail(format!("a cell has {value:x} and {other:x}"));
    }
    value
}

/// What clients share.
pub(super) struct Clients {
    pub(super) nodes: RefCell<Vec<Node>>,
    pub(super) history: RefCell<History>,
    pub(super) stopping: Cell<bool>,
    /// How long they think at most, in microseconds.
    pub(super) thinks: Cell<u64>,
    /// Requests that were answered.
    pub(super) answered: Cell<u64>,
}

struct Client {
    number: usize,
    random: Random,
    next: u64,
    at: usize,
}

impl Client {
    fn value(&mut self) -> Value {
        self.next += 1;
        (self.number as u64 + 1) << 32 | self.next
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("it was one")
    }

    fn request(&mut self) -> Request {
        // Most of the time about a few of them, so that clients meet.
        let cells = if self.random.chance(60) { HOT_CELLS } else { CELLS };
        let block = self.below(cells / CELLS_OF_BLOCK) * CELLS_OF_BLOCK;
        let most = (CELLS - block) / CELLS_OF_BLOCK;
        match self.random.below(100) {
            0..28 => {
                let value = self.value();
                Request::Write(block + self.below(CELLS_OF_BLOCK), vec![value])
            }
            28..56 => {
                let count = CELLS_OF_BLOCK * (1 + self.below(most.min(3)));
                Request::Write(block, (0..count).map(|_| self.value()).collect())
            }
            56..94 => Request::Read(block, CELLS_OF_BLOCK * (1 + self.below(most.min(3)))),
            94..97 => Request::Trim(block, CELLS_OF_BLOCK),
            _ => Request::Flush,
        }
    }
}

impl Clients {
    /// Connects to a node, if it serves.
    fn connect(&self, node: usize) -> Option<Shared> {
        let line = Shared::default();
        {
            let nodes = self.nodes.borrow();
            let process = nodes[node].process?;
            nodes[node].lines.borrow_mut().retain(|line| line.strong_count() > 0);
            nodes[node].lines.borrow_mut().push(Rc::downgrade(&line));
            let (dataset, served) = (nodes[node].dataset.clone(), line.clone());
            scheduler::spawn_in(process, "door", move || serve(&dataset, &served));
        }
        let until = scheduler::after(Duration::from_millis(300));
        while !line.borrow().is_open && !line.borrow().is_closed {
            if !scheduler::wait(client_key(&line), Some(until)) {
                break;
            }
        }
        let is_open = line.borrow().is_open && !line.borrow().is_closed;
        line.borrow_mut().is_left |= !is_open;
        is_open.then_some(line)
    }

    /// Whether a node still has a thread for any of them: what a client has given up on may yet be done.
    pub(super) fn are_served(&self) -> bool {
        let nodes = self.nodes.borrow();
        nodes.iter().any(|node| node.lines.borrow().iter().any(|line| line.strong_count() > 0))
    }

    /// Begins one.
    pub(super) fn begin(
        self: &Rc<Self>,
        process: scheduler::ProcessId,
        number: usize,
        seed: u64,
    ) -> scheduler::TaskId {
        let clients = self.clone();
        scheduler::spawn_in(process, "client", move || {
            let mut client = Client { number, random: Random::new(seed), next: 0, at: number % 2 };
            let mut line = None;
            while !clients.stopping.get() {
                let thinks = match client.random.below(4) {
                    0 => 0,
                    _ => client.random.below(clients.thinks.get().max(1)),
                };
                scheduler::sleep(Duration::from_micros(thinks));
                if line.is_none() {
                    line = clients.connect(client.at);
                }
                let Some(served) = &line else {
                    client.at = 1 - client.at;
                    scheduler::sleep(Duration::from_millis(5 + client.random.below(30)));
                    continue;
                };
                let count = if client.random.chance(20) { 1 + client.below(4) } else { 1 };
                let requests: Vec<_> = (0..count).map(|_| client.request()).collect();
                let patience = Duration::from_millis(200 + client.random.below(2500));
                if clients.ask(&client, served, &requests, patience).is_none() {
                    line = None;
                    client.at = client.below(2);
                }
            }
            if let Some(line) = line {
                line.borrow_mut().is_left = true;
            }
        })
    }

    /// Has requests carried out, and notes what came of it; `None` where the line is of no use any more.
    fn ask(&self, client: &Client, line: &Shared, requests: &[Request], patience: Duration) -> Option<()> {
        let asked = scheduler::time();
        let tokens: Vec<Vec<Token>> =
            requests.iter().map(|request| self.note(client.number, request, asked)).collect();
        line.borrow_mut().requests = Some(requests.to_vec());
        scheduler::wake(server_key(line), usize::MAX);
        let until = scheduler::after(patience);
        let answers = loop {
            if let Some(answers) = line.borrow_mut().answers.take() {
                break answers;
            }
            let is_closed = line.borrow().is_closed;
            if is_closed || !scheduler::wait(client_key(line), Some(until)) {
                // What comes at this very moment comes too late.
                line.borrow_mut().is_left = true;
                self.history.borrow_mut().unknown += 1;
                return None;
            }
        };
        let now = scheduler::time();
        self.answered.set(self.answered.get() + 1);
        let mut history = self.history.borrow_mut();
        for ((request, tokens), answer) in requests.iter().zip(tokens).zip(answers) {
            tell(|| format!("client {} is answered: {request:x?} {answer:x?}", client.number));
            for (number, token) in tokens.into_iter().enumerate() {
                history.answer(token, answer.get(number).copied().unwrap_or_default(), now);
            }
            if matches!(request, Request::Flush) {
                history.flushed(asked);
            }
        }
        Some(())
    }

    fn note(&self, client: usize, request: &Request, asked: Duration) -> Vec<Token> {
        let mut history = self.history.borrow_mut();
        let mut note = |cell: usize, kind, value| history.ask(client, cell, kind, value, asked);
        match request {
            Request::Write(first, values) => {
                (*first..).zip(values).map(|(cell, value)| note(cell, Kind::Write, *value)).collect()
            }
            Request::Read(first, count) => {
                (*first..first + count).map(|cell| note(cell, Kind::Read, 0)).collect()
            }
            Request::Trim(first, count) => {
                (*first..first + count).map(|cell| note(cell, Kind::Write, 0)).collect()
            }
            Request::Flush => Vec::new(),
        }
    }

    /// Begins one that only reads, what others write most, and always at the same node, whoever serves.
    pub(super) fn watch(
        self: &Rc<Self>,
        process: scheduler::ProcessId,
        number: usize,
        seed: u64,
    ) -> scheduler::TaskId {
        let clients = self.clone();
        scheduler::spawn_in(process, "watcher", move || {
            let mut watcher = Client { number, random: Random::new(seed), next: 0, at: number % 2 };
            let mut line = None;
            while !clients.stopping.get() {
                scheduler::sleep(Duration::from_micros(watcher.random.below(150_000)));
                if line.is_none() {
                    line = clients.connect(watcher.at);
                }
                let Some(served) = &line else { continue };
                let first = watcher.below(HOT_CELLS / 4) * 4;
                let request = [Request::Read(first, 4)];
                let patience = Duration::from_millis(30 + watcher.random.below(300));
                if clients.ask(&watcher, served, &request, patience).is_none() {
                    line = None;
                }
            }
            if let Some(line) = line {
                line.borrow_mut().is_left = true;
            }
        })
    }

    /// Reads all there is at a node, on a thread of the world's; `None` where it does not serve.
    pub(super) fn read_all(&self, node: usize) -> Option<Vec<Value>> {
        let line = self.connect(node)?;
        let reader = Client { number: 99, random: Random::new(0), next: 0, at: node };
        let before = self.answered.get();
        let mut all = Vec::new();
        for first in (0..CELLS).step_by(8) {
            let request = [Request::Read(first, 8)];
            self.ask(&reader, &line, &request, Duration::from_secs(10))?;
            let history = self.history.borrow();
            all.extend((first..first + 8).map(|cell| history.last(cell)));
        }
        assert!(self.answered.get() > before);
        line.borrow_mut().is_left = true;
        Some(all)
    }
}
