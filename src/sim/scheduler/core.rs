//! What the scheduler knows.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::{Random, WAKE_NANOS_MAX};

pub(super) type Thread = generator::Generator<'static, (), ()>;

/// A simulated thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId(pub(super) usize);

impl TaskId {
    /// What those wait for who wait for its end: no address.
    pub(super) const fn key(self) -> usize {
        usize::MAX - self.0
    }
}

/// Some of them that end as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessId(pub(super) usize);

/// With which a thread unwinds that was killed.
pub(super) struct Killed;

/// The clock of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Clock {
    /// What it shows at the beginning.
    pub(crate) offset: u64,
    /// By how much it is fast, in parts of a million.
    pub(crate) ppm: i64,
}

impl Clock {
    pub(super) fn read(self, now: u64) -> u64 {
        let drift = i128::from(now) * i128::from(self.ppm) / 1_000_000;
        u64::try_from(i128::from(self.offset) + i128::from(now) + drift).expect("it does not run backwards")
    }

    /// How long that is which this clock takes for `nanos`.
    pub(super) fn real(self, nanos: u64) -> u64 {
        let real = i128::from(nanos) * 1_000_000 / (1_000_000 + i128::from(self.ppm));
        u64::try_from(real).expect("it runs")
    }
}

/// What is due at a moment.
pub(super) enum Due {
    Call(Box<dyn FnOnce()>),
    /// A thread that waits, by the number of its wait.
    Wake(TaskId, u64),
}

/// What is due, by when, by chance, and by when it was asked for.
struct Entry {
    key: (u64, u64, u64),
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The first comes last.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

pub(super) struct Task {
    pub(super) process: ProcessId,
    name: String,
    thread: Option<Thread>,
    pub(super) work: Option<Box<dyn FnOnce()>>,
    /// Counts how often it waited and was woken.
    wait: u64,
    key: Option<usize>,
    pub(super) is_told: bool,
    pub(super) is_done: bool,
}

#[derive(Default)]
pub(super) struct Process {
    pub(super) clock: Clock,
    pub(super) is_dead: bool,
    /// Paused: who had a turn meanwhile.
    pub(super) stashed: Option<Vec<(TaskId, u64)>>,
}

/// Of a key, which is an address: each lock that is given back asks whether somebody waits for it.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, key: usize) {
        self.0 = (self.0 ^ key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

pub(super) struct Core {
    pub(super) now: u64,
    pub(super) random: Random,
    queue: BinaryHeap<Entry>,
    number: u64,
    pub(super) tasks: Vec<Task>,
    waiting: HashMap<usize, VecDeque<TaskId>, BuildHasherDefault<KeyHasher>>,
    pub(super) processes: Vec<Process>,
    pub(super) idle: Vec<Thread>,
    pub(super) failures: Vec<String>,
    pub(super) interrupts: u64,
    pub(super) turns: u64,
}

impl Core {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: 0,
            random: Random::new(seed),
            queue: BinaryHeap::new(),
            number: 0,
            tasks: Vec::new(),
            waiting: HashMap::default(),
            processes: Vec::new(),
            idle: Vec::new(),
            failures: Vec::new(),
            interrupts: 0,
            turns: 0,
        }
    }

    pub(super) fn add_process(&mut self, clock: Clock) -> ProcessId {
        self.processes.push(Process { clock, ..Process::default() });
        ProcessId(self.processes.len() - 1)
    }

    pub(super) fn add_task(&mut self, process: ProcessId, name: &str, work: Box<dyn FnOnce()>) -> TaskId {
        let task = TaskId(self.tasks.len());
        self.tasks.push(Task {
            process,
            name: name.to_owned(),
            thread: None,
            work: Some(work),
            wait: 0,
            key: None,
            is_told: false,
            is_done: false,
        });
        self.push_soon(task);
        task
    }

    /// What is due at one moment comes by chance.
    pub(super) fn push(&mut self, at: u64, due: Due) {
        self.number += 1;
        let order = match due {
            Due::Call(_) => 0, // as they were asked for
            Due::Wake(..) => self.random.next(),
        };
        self.queue.push(Entry { key: (at, order, self.number), due });
    }

    fn push_soon(&mut self, task: TaskId) {
        let at = self.now + self.random.below(WAKE_NANOS_MAX);
        let wait = self.tasks[task.0].wait;
        self.push(at, Due::Wake(task, wait));
    }

    pub(super) fn park(&mut self, task: TaskId, key: Option<usize>, until: Option<u64>) {
        let waits = &mut self.tasks[task.0];
        waits.wait += 1;
        (waits.key, waits.is_told) = (key, false);
        let wait = waits.wait;
        if let Some(key) = key {
            self.waiting.entry(key).or_default().push_back(task);
        }
        if let Some(until) = until {
            self.push(until.max(self.now), Due::Wake(task, wait));
        }
    }

    pub(super) fn wake(&mut self, key: usize, most: usize) {
        let Some(queue) = self.waiting.get_mut(&key) else { return };
        let count = queue.len().min(most);
        let woken: Vec<_> = queue.drain(..count).collect();
        if queue.is_empty() {
            self.waiting.remove(&key);
        }
        for task in woken {
            let waits = &mut self.tasks[task.0];
            (waits.key, waits.is_told) = (None, true);
            waits.wait += 1;
            self.push_soon(task);
        }
    }

    /// The next of what is due until `end`.
    pub(super) fn next(&mut self, end: u64) -> Option<Due> {
        loop {
            let at = self.queue.peek().map_or(u64::MAX, |entry| entry.key.0);
            if at > end {
                self.now = self.now.max(end);
                return None;
            }
            let Entry { due, .. } = self.queue.pop()?;
            self.now = self.now.max(at);
            let Due::Wake(task, wait) = due else { return Some(due) };
            let waits = &mut self.tasks[task.0];
            if waits.is_done || waits.wait != wait {
                continue;
            }
            let process = &mut self.processes[waits.process.0];
            if let Some(stashed) = &mut process.stashed {
                stashed.push((task, wait));
                continue;
            }
            self.turns += 1;
            self.leave_queue(task);
            return Some(due);
        }
    }

    /// It waits no more.
    fn leave_queue(&mut self, task: TaskId) {
        let Some(key) = self.tasks[task.0].key.take() else { return };
        if let Some(queue) = self.waiting.get_mut(&key) {
            queue.retain(|waits| *waits != task);
            if queue.is_empty() {
                self.waiting.remove(&key);
            }
        }
    }

    pub(super) fn resume(&mut self, process: ProcessId) {
        for (task, wait) in self.processes[process.0].stashed.take().unwrap_or_default() {
            let at = self.now + self.random.below(WAKE_NANOS_MAX);
            self.push(at, Due::Wake(task, wait));
        }
    }

    /// The process is dead; those of its threads that have begun, to be unwound.
    pub(super) fn condemn(&mut self, process: ProcessId) -> Vec<TaskId> {
        self.processes[process.0].is_dead = true;
        self.processes[process.0].stashed = None;
        let mut begun = Vec::new();
        for number in 0..self.tasks.len() {
            let task = &mut self.tasks[number];
            if task.process != process || task.is_done {
                continue;
            }
            if task.thread.is_some() {
                begun.push(TaskId(number));
                self.leave_queue(TaskId(number));
            } else {
                task.is_done = true;
                task.work = None;
                self.wake(TaskId(number).key(), usize::MAX);
            }
        }
        begun
    }

    pub(super) fn is_killed(&self, task: TaskId) -> bool {
        self.processes[self.tasks[task.0].process.0].is_dead
    }

    pub(super) fn thread(&mut self, task: TaskId) -> Option<Thread> {
        self.tasks[task.0].thread.take().or_else(|| self.idle.pop())
    }

    pub(super) fn put_back(&mut self, task: TaskId, thread: Thread) {
        if self.tasks[task.0].is_done {
            self.idle.push(thread);
        } else {
            self.tasks[task.0].thread = Some(thread);
        }
    }

    pub(super) fn ended(&mut self, task: TaskId, ended: Result<(), Box<dyn Any + Send>>) {
        let ending = &mut self.tasks[task.0];
        ending.is_done = true;
        if let Err(why) = ended
            && !why.is::<Killed>()
        {
            let text = why.downcast_ref::<String>().cloned();
            let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            self.failures.push(format!("{} panicked: {}", ending.name, text.unwrap_or_default()));
        }
        self.wake(task.key(), usize::MAX);
    }
}
