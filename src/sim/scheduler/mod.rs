//! Threads that take turns by a seed, in virtual time: all of them on one thread of the system, one at a time, until each waits.
//!
//! ```text
//!  [ run: the next of what is due ] ─▶ a call, at once, outside of all threads
//!                                  └─▶ a thread, until it waits for a lock, a time, or to be told
//! ```
//!
//! What is due has a moment; when nobody can go on, time jumps to the next. A *process* is a number of threads that end as one: killed, each
//! unwinds where it waits, and nothing that it does then waits for anybody. A process that is paused has no turns; its clock goes on.

mod core;
#[cfg(feature = "store")]
mod tests;

use std::cell::{Cell, RefCell};
use std::time::Duration;

pub(crate) use self::core::{Clock, ProcessId, TaskId};
use self::core::{Core, Due, Killed};
use super::Random;

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
    /// What runs is the end of a process that was killed.
    static DYING: Cell<bool> = const { Cell::new(false) };
    /// The simulated thread that runs.
    static CURRENT: Cell<Option<TaskId>> = const { Cell::new(None) };
}

/// Bytes of the stack of a simulated thread; what is not touched costs nothing.
const STACK_BYTES: usize = 512 << 10;
/// What it costs to read the clock, at least: who looks at it again and again gets somewhere.
const LOOK_NANOS: u64 = 40;
/// A thread that is told goes on within so long.
const WAKE_NANOS_MAX: u64 = 6000;
/// One that looks again, after so long.
const YIELD_NANOS_MAX: u64 = 8000;

fn with<T>(work: impl FnOnce(&mut Core) -> T) -> T {
    CORE.with_borrow_mut(|core| work(core.as_mut().expect("a world")))
}

/// Whether the code that asks runs on a simulated thread.
pub(crate) fn is_simulated() -> bool {
    CURRENT.get().is_some()
}

/// Begins a world on this thread.
pub(crate) fn begin(seed: u64) {
    CORE.set(Some(Core::new(seed)));
}

/// Ends it: every thread unwinds. How many turns there were.
pub(crate) fn end() -> u64 {
    for process in 0..with(|core| core.processes.len()) {
        kill(ProcessId(process), || ());
    }
    let core = CORE.take().expect("a world");
    let turns = core.turns;
    let idle = core.idle;
    for mut thread in idle {
        CURRENT.set(None);
        let _ = thread.resume();
    }
    turns
}

/// A new process, whose machine has this clock.
pub(crate) fn process(clock: Clock) -> ProcessId {
    with(|core| core.add_process(clock))
}

/// The process whose thread runs.
pub(crate) fn current_process() -> Option<ProcessId> {
    let task = CURRENT.get()?;
    Some(with(|core| core.tasks[task.0].process))
}

pub(crate) fn is_dead(process: ProcessId) -> bool {
    with(|core| core.processes[process.0].is_dead)
}

pub(crate) fn is_paused(process: ProcessId) -> bool {
    with(|core| core.processes[process.0].stashed.is_some())
}

/// The virtual time, of no clock.
pub(crate) fn time() -> Duration {
    Duration::from_nanos(CORE.with_borrow(|core| core.as_ref().map_or(0, |core| core.now)))
}

/// The time by the clock of the process that runs, if one does. It takes a little.
pub(crate) fn local_now() -> Option<Duration> {
    let task = CURRENT.get()?;
    Some(with(|core| {
        core.now += LOOK_NANOS;
        let clock = core.processes[core.tasks[task.0].process.0].clock;
        Duration::from_nanos(clock.read(core.now))
    }))
}

/// The moment that is so far off by the clock of the process that runs.
pub(crate) fn after(duration: Duration) -> u64 {
    let task = CURRENT.get();
    with(|core| {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        let clock = task.map(|task| core.processes[core.tasks[task.0].process.0].clock);
        core.now + clock.map_or(nanos, |clock| clock.real(nanos))
    })
}

/// A number of the seed's.
pub(crate) fn random<T>(work: impl FnOnce(&mut Random) -> T) -> T {
    with(|core| work(&mut core.random))
}

/// Bytes of the seed's, for a thread that runs in it.
pub(crate) fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    is_simulated().then(|| {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random(Random::next).to_le_bytes()[..chunk.len()]);
        }
        bytes
    })
}

/// Calls it after `delay`, outside of all threads.
pub(crate) fn call_after(delay: Duration, work: impl FnOnce() + 'static) {
    with(|core| {
        let at = core.now + u64::try_from(delay.as_nanos()).expect("a short delay");
        core.push(at, Due::Call(Box::new(work)));
    });
}

/// Begins a thread of the process that runs.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + 'static) -> TaskId {
    spawn_in(current_process().expect("a simulated thread"), name, work)
}

/// Begins a thread of a process.
pub(crate) fn spawn_in(process: ProcessId, name: &str, work: impl FnOnce() + 'static) -> TaskId {
    with(|core| core.add_task(process, name, Box::new(work)))
}

pub(crate) fn is_done(task: TaskId) -> bool {
    with(|core| core.tasks[task.0].is_done)
}

/// Waits for its end. Outside of all threads it does not wait.
pub(crate) fn join(task: TaskId) {
    while is_simulated() && !is_done(task) {
        if is_ending() {
            return;
        }
        wait(task.key(), None);
    }
}

/// Whether the thread that runs unwinds: it waits for nobody.
fn is_ending() -> bool {
    std::thread::panicking()
}

/// Lets others run until somebody wakes `key`, or the moment `until` comes; whether it was woken.
pub(crate) fn wait(key: usize, until: Option<u64>) -> bool {
    assert!(!is_ending(), "a thread that was killed waits for a lock that another one has");
    park(Some(key), until)
}

fn park(key: Option<usize>, until: Option<u64>) -> bool {
    let task = CURRENT.get().expect("a simulated thread");
    with(|core| core.park(task, key, until));
    CURRENT.set(None);
    #[allow(deprecated, reason = "the other way passes an object through every call")]
    generator::yield_with(());
    let (is_killed, is_told) = with(|core| (core.is_killed(task), core.tasks[task.0].is_told));
    if is_killed {
        std::panic::resume_unwind(Box::new(Killed));
    }
    is_told
}

/// Lets others run for so long.
pub(crate) fn sleep(duration: Duration) {
    if is_simulated() && !is_ending() {
        park(None, Some(after(duration)));
    }
}

/// Lets others run, for as long as it takes to look once more.
pub(crate) fn look_again() {
    let nanos = random(|random| 500 + random.below(YIELD_NANOS_MAX));
    sleep(Duration::from_nanos(nanos));
}

/// A thread may be set aside wherever it locks something.
pub(crate) fn may_lose_turn() {
    if is_ending() {
        return;
    }
    let nanos = with(|core| {
        let (often, random) = (core.interrupts, &mut core.random);
        match random.below(4096) {
            0 if often > 0 => random.below(3_000_000),
            number if number < often => random.below(40_000),
            _ => 0,
        }
    });
    if nanos > 0 {
        sleep(Duration::from_nanos(nanos));
    }
}

/// How often in 4096 a thread is set aside where it locks something.
pub(crate) fn interrupt(often: u64) {
    with(|core| core.interrupts = often);
}

/// Wakes so many of those that wait for `key`, those first that came first.
pub(crate) fn wake(key: usize, most: usize) {
    CORE.with_borrow_mut(|core| {
        if let Some(core) = core {
            core.wake(key, most);
        }
    });
}

/// No thread of it runs until it is resumed.
pub(crate) fn pause(process: ProcessId) {
    with(|core| {
        core.processes[process.0].stashed.get_or_insert_default();
    });
}

pub(crate) fn resume(process: ProcessId) {
    with(|core| core.resume(process));
}

/// Ends a process: each of its threads unwinds where it is, and then `rest` drops what else it had. Not to be called by one of them.
pub(crate) fn kill(process: ProcessId, rest: impl FnOnce()) {
    assert!(!is_simulated());
    let tasks = with(|core| core.condemn(process));
    DYING.set(true);
    for task in tasks {
        turn(task);
    }
    rest();
    DYING.set(false);
}

/// Whether what runs changes nothing any more outside of its process.
pub(crate) fn is_dying() -> bool {
    DYING.get()
}

/// Runs what is due until `until`, or `stop` says so.
pub(crate) fn run(until: Duration, stop: &mut dyn FnMut() -> bool) {
    let end = u64::try_from(until.as_nanos()).expect("a short run");
    loop {
        match with(|core| core.next(end)) {
            None => return,
            Some(Due::Call(work)) => work(),
            Some(Due::Wake(task, _)) => turn(task),
        }
        if stop() {
            return;
        }
    }
}

/// What went wrong on simulated threads.
pub(crate) fn failures() -> Vec<String> {
    with(|core| core.failures.clone())
}

/// A thread runs until it waits.
fn turn(task: TaskId) {
    let mut thread = with(|core| core.thread(task));
    CURRENT.set(Some(task));
    let _ = thread.get_or_insert_with(begin_thread).resume();
    CURRENT.set(None);
    let Some(thread) = thread else { return };
    with(|core| core.put_back(task, thread));
}

/// A thread of the system's world: it does one task after the other.
fn begin_thread() -> core::Thread {
    generator::Gn::new_opt(STACK_BYTES / size_of::<usize>(), || {
        while let Some(task) = CURRENT.get() {
            let work = with(|core| core.tasks[task.0].work.take());
            if let Some(work) = work {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                with(|core| core.ended(task, ended));
            }
            CURRENT.set(None);
            #[allow(deprecated, reason = "the other way passes an object through every call")]
            generator::yield_with(());
        }
    })
}
