//! The ways between the machines, and what is on them: calls that are answered, or not.
//!
//! ```text
//!  caller ─▶ delay ─▶ a thread of whoever listens there ─▶ delay ─▶ caller
//!    cut with a word: both hear at once      cut in silence: what is on its way is gone, and nobody hears
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::base::FabricUrl;
use crate::node::CallError;
use crate::sim::scheduler::{self, ProcessId};

use super::holder::HolderCore;
use super::region::Session;

/// Machines: the two nodes and the mediator. Clients reach every node.
pub(super) const MACHINES: usize = 3;
pub(super) const MEDIATOR: usize = 2;
/// Virtual time that says so: a device gives a peer up that does not take a store.
pub(super) const GIVE_UP_TIME: Duration = Duration::from_millis(500);
/// A control connection is called silent after so long.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// How a way does not let anything through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Whoever tries is told.
    Loud,
    Silent,
}

/// From one machine to another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    pub(super) cut: Option<Cut>,
    since: Duration,
    /// How much slower than usual.
    pub(super) slow: Duration,
}

/// A connection, or a question on one.
#[derive(Debug)]
pub(super) struct Connection {
    from: usize,
    to: usize,
    /// Who listened when it was made.
    pub(super) server: ProcessId,
    client: ProcessId,
    is_broken: std::cell::Cell<bool>,
}

#[derive(Default)]
pub(super) struct Net {
    ways: [[Way; MACHINES]; MACHINES],
    machines: BTreeMap<ProcessId, usize>,
    /// Who listens, by its address.
    listeners: BTreeMap<String, (ProcessId, Arc<HolderCore>)>,
    connections: Vec<std::rc::Weak<Connection>>,
    sessions: Vec<Weak<Session>>,
    /// In 1000 messages so many end their connection.
    pub(super) losses: u64,
    /// How long everything takes, at least.
    slow: Duration,
}

thread_local! {
    static NET: RefCell<Net> = RefCell::new(Net::default());
    /// Calls under way, each with what ends it.
    static CALLS: RefCell<Vec<(Rc<Connection>, usize)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn with<T>(work: impl FnOnce(&mut Net) -> T) -> T {
    NET.with_borrow_mut(work)
}

pub(super) fn begin(losses: u64, slow: Duration) {
    NET.set(Net { losses, slow, ..Net::default() });
    CALLS.take();
}

/// The machine of an address: `tcp://127.0.0.1:1` is the first.
pub(super) fn machine_at(url: &FabricUrl) -> usize {
    let text = url.to_string();
    let port = text.rsplit(':').next().and_then(|port| port.parse::<usize>().ok());
    port.expect("an address of the world") - 1
}

pub(super) fn address(machine: usize) -> FabricUrl {
    format!("tcp://127.0.0.1:{}", machine + 1).parse().expect("an address")
}

/// The machine of the process that runs.
pub(super) fn here() -> usize {
    machine_of(scheduler::current_process().expect("a simulated thread"))
}

pub(super) fn machine_of(process: ProcessId) -> usize {
    with(|net| net.machines[&process])
}

pub(super) fn place(process: ProcessId, machine: usize) {
    with(|net| net.machines.insert(process, machine));
}

pub(super) fn listen(url: &FabricUrl, process: ProcessId, holder: Arc<HolderCore>) {
    with(|net| net.listeners.insert(url.to_string(), (process, holder)));
}

/// Nobody listens any more.
pub(super) fn unlisten(process: ProcessId) {
    with(|net| net.listeners.retain(|_, (listens, _)| *listens != process));
}

pub(super) fn add_session(session: &Arc<Session>) {
    with(|net| {
        net.sessions.retain(|session| session.strong_count() > 0);
        net.sessions.push(Arc::downgrade(session));
    });
}

/// How long something takes from one machine to another; why it does not come.
pub(super) fn delay(from: usize, to: usize) -> Result<Duration, Cut> {
    let (way, slow) = with(|net| (net.ways[from][to], net.slow));
    if let Some(cut) = way.cut {
        return Err(cut);
    }
    let jitter = scheduler::random(|random| match random.below(200) {
        0 => random.below(4_000_000),
        1..=10 => random.below(300_000),
        _ => random.below(20_000),
    });
    Ok(Duration::from_nanos(8_000 + jitter) + way.slow + slow)
}

/// Whether something comes from one machine to another, which has power.
pub(super) fn is_open(from: usize, to: usize) -> bool {
    with(|net| net.ways[from][to].cut.is_none()) && !is_off(from) && !is_off(to)
}

/// Whether the end of a connection is heard of there.
pub(super) fn is_heard(from: usize, to: usize) -> bool {
    with(|net| net.ways[from][to].cut != Some(Cut::Silent)) && !is_off(from)
}

/// The owner hears that its access was taken away, if it can.
pub(super) fn tell_revoked(number: u64, holder: usize) {
    let session =
        with(|net| net.sessions.iter().filter_map(Weak::upgrade).find(|session| session.number == number));
    let Some(session) = session else { return };
    let (owner, _) = session.machines();
    if let Ok(way) = delay(holder, owner) {
        scheduler::call_after(way, move || {
            if is_open(holder, owner) {
                session.lose("access was revoked");
            }
        });
    }
}

/// For how long nothing comes from a process to a machine, as far as that is more than a moment.
pub(super) fn silent_for(from: ProcessId, to: usize) -> Duration {
    let way = with(|net| net.ways[net.machines[&from]][to]);
    if way.cut.is_some() { scheduler::time().saturating_sub(way.since) } else { Duration::ZERO }
}

/// Whether the process there has ended, and its machine says so.
pub(super) fn says_vacant(to: &FabricUrl) -> bool {
    listener(to).is_none_or(|(process, _)| scheduler::is_dead(process))
}

fn listener(url: &FabricUrl) -> Option<(ProcessId, Arc<HolderCore>)> {
    with(|net| net.listeners.get(&url.to_string()).cloned())
}

/// Makes both ways between two machines so much slower than usual.
pub(super) fn slow(one: usize, other: usize, slow: Duration) {
    with(|net| (net.ways[one][other].slow, net.ways[other][one].slow) = (slow, slow));
}

/// From now on nothing comes from `from` to `to`.
pub(super) fn cut(from: usize, to: usize, cut: Cut) {
    with(|net| net.ways[from][to] = Way { cut: Some(cut), since: scheduler::time(), ..net.ways[from][to] });
    if cut == Cut::Loud {
        hang_up(&|one, other, _, _| (one, other) == (from, to) || (other, one) == (from, to));
    }
}

pub(super) fn mend(from: usize, to: usize) {
    with(|net| net.ways[from][to].cut = None);
}

/// A process has ended; its machine tells those who have connections, where a way is open. Without a word: a machine that lost power.
pub(super) fn ended(process: ProcessId, tells: bool) {
    if tells {
        let is_open = |from: usize, to: usize| with(|net| net.ways[from][to].cut.is_none());
        hang_up(&|from, to, client, server| {
            client == process && is_open(from, to) || server == process && is_open(to, from)
        });
    }
}

/// All connections between two machines end, and they may connect again at once.
pub(super) fn hang_up_between(one: usize, other: usize) {
    hang_up(&|from, to, _, _| (from, to) == (one, other) || (from, to) == (other, one));
}

/// Connections end of which `ends` says so, by machines and processes.
fn hang_up(ends: &dyn Fn(usize, usize, ProcessId, ProcessId) -> bool) {
    let connections: Vec<_> = with(|net| {
        net.connections.retain(|connection| connection.strong_count() > 0);
        net.connections.iter().filter_map(std::rc::Weak::upgrade).collect()
    });
    for connection in connections {
        if ends(connection.from, connection.to, connection.client, connection.server) {
            connection.is_broken.set(true);
        }
    }
    let woken: Vec<usize> = CALLS.with_borrow(|calls| {
        calls.iter().filter(|(connection, _)| connection.is_broken.get()).map(|(_, key)| *key).collect()
    });
    woken.into_iter().for_each(|key| scheduler::wake(key, usize::MAX));
    let sessions: Vec<_> = with(|net| net.sessions.iter().filter_map(Weak::upgrade).collect());
    for session in sessions {
        let (from, to) = session.machines();
        if ends(from, to, session.owner, session.server) {
            session.lose("the control connection ended");
        }
    }
}

fn ended_error(why: &str) -> CallError {
    CallError::Ended(why.to_owned())
}

/// Connects to whoever listens there.
pub(super) fn connect(to: &FabricUrl, within: Duration) -> Result<Rc<Connection>, CallError> {
    let (from, machine) = (here(), machine_at(to));
    let client = scheduler::current_process().expect("a simulated thread");
    let (way, back) = (delay(from, machine), delay(machine, from));
    match (way, back) {
        (Err(Cut::Silent), _) | (_, Err(Cut::Silent)) => {
            scheduler::sleep(within);
            return Err(CallError::Timeout);
        }
        (Err(Cut::Loud), _) | (_, Err(Cut::Loud)) => {
            scheduler::sleep(Duration::from_micros(100));
            return Err(ended_error("connection refused"));
        }
        (Ok(way), Ok(back)) => scheduler::sleep(way + back),
    }
    let Some((server, _)) = listener(to).filter(|(process, _)| !scheduler::is_dead(*process)) else {
        if is_off(machine) {
            scheduler::sleep(within);
            return Err(CallError::Timeout);
        }
        return Err(ended_error("connection refused"));
    };
    // The greeting takes its processor.
    let connection =
        Rc::new(Connection { from, to: machine, server, client, is_broken: std::cell::Cell::new(false) });
    with(|net| net.connections.push(Rc::downgrade(&connection)));
    Ok(connection)
}

thread_local! {
    /// Connections that are kept from one question to the next, by number.
    static KEPT: RefCell<BTreeMap<u64, Rc<Connection>>> = const { RefCell::new(BTreeMap::new()) };
}

pub(super) fn keep(connection: Rc<Connection>) -> u64 {
    KEPT.with_borrow_mut(|kept| {
        let number = kept.last_key_value().map_or(0, |(number, _)| *number) + 1;
        kept.insert(number, connection);
        number
    })
}

pub(super) fn kept(number: u64) -> Rc<Connection> {
    KEPT.with_borrow(|kept| kept[&number].clone())
}

pub(super) fn forget(number: u64) {
    KEPT.with_borrow_mut(|kept| kept.remove(&number));
}

thread_local! {
    /// Machines without power.
    static OFF: RefCell<[bool; MACHINES]> = const { RefCell::new([false; MACHINES]) };
}

pub(super) fn set_off(machine: usize, is_off: bool) {
    OFF.with_borrow_mut(|off| off[machine] = is_off);
}

fn is_off(machine: usize) -> bool {
    OFF.with_borrow(|off| off[machine])
}

type Reply<T> = Rc<RefCell<Option<T>>>;

/// Has the process at the other end do something, on a thread of its own, and waits for what comes of it.
pub(super) fn call<T: 'static>(
    connection: &Rc<Connection>,
    url: &FabricUrl,
    within: Duration,
    work: impl FnOnce(&Arc<HolderCore>) -> T + 'static,
) -> Result<T, CallError> {
    let reply: Reply<T> = Rc::default();
    let key = Rc::as_ptr(&reply).addr();
    let until = scheduler::after(within);
    if connection.is_broken.get() || scheduler::is_dead(connection.server) && !is_off(connection.to) {
        scheduler::sleep(Duration::from_micros(20));
        connection.is_broken.set(true);
        return Err(ended_error("it ended before"));
    }
    send(connection, url, reply.clone(), key, work);
    CALLS.with_borrow_mut(|calls| calls.push((connection.clone(), key)));
    let ended = UnderWay(key);
    let result = loop {
        if let Some(answer) = reply.borrow_mut().take() {
            break Ok(answer);
        }
        if connection.is_broken.get() {
            break Err(ended_error("the connection ended"));
        }
        if !scheduler::wait(key, Some(until)) && reply.borrow().is_none() {
            connection.is_broken.set(true);
            break Err(CallError::Timeout);
        }
    };
    drop(ended);
    result
}

/// A call, until it is over, however that comes about.
struct UnderWay(usize);

impl Drop for UnderWay {
    fn drop(&mut self) {
        CALLS.with_borrow_mut(|calls| calls.retain(|(_, key)| *key != self.0));
    }
}

fn is_lost(connection: &Rc<Connection>, key: usize) -> bool {
    let losses = with(|net| net.losses);
    let is_lost = scheduler::random(|random| random.below(1000) < losses);
    if is_lost {
        connection.is_broken.set(true);
        scheduler::wake(key, usize::MAX);
    }
    is_lost
}

fn send<T: 'static>(
    connection: &Rc<Connection>,
    url: &FabricUrl,
    reply: Reply<T>,
    key: usize,
    work: impl FnOnce(&Arc<HolderCore>) -> T + 'static,
) {
    let (from, to, server) = (connection.from, connection.to, connection.server);
    let Ok(way) = delay(from, to) else { return };
    if is_lost(connection, key) {
        return;
    }
    let (connection, url) = (connection.clone(), url.clone());
    scheduler::call_after(way, move || {
        // What is on its way when a way is cut does not arrive.
        if delay(from, to).is_err() {
            return;
        }
        if scheduler::is_dead(server) {
            if !is_off(to) && delay(to, from).is_ok() {
                connection.is_broken.set(true);
                scheduler::wake(key, usize::MAX);
            }
            return;
        }
        let Some((_, holder)) = listener(&url) else { return };
        scheduler::spawn_in(server, "serve", move || {
            let answer = work(&holder);
            let Ok(back) = delay(to, from) else { return };
            if is_lost(&connection, key) {
                return;
            }
            scheduler::call_after(back, move || {
                if delay(to, from).is_ok() {
                    reply.replace(Some(answer));
                    scheduler::wake(key, usize::MAX);
                }
            });
        });
    });
}
