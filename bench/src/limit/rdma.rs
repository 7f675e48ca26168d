//! The limits of RDMA: bare verbs, between registered memory here and there, over the same device and with the same way to
//! wait as the mirrored region.
//!
//! * depth 1, acked: a write, its completion;
//! * depth 1, visible: a write and a read behind it in one doorbell, the completion of the read;
//! * of a log's records: their checksums too;
//! * depth > 1: lists of writes, one doorbell for each list and a completion for its last, as many in flight as the depth
//!   allows. A loop with a doorbell for each write, which copies nothing, is measured beside, as "bare".
//!
//! A store is given bytes and puts them into the local memory, so the limit does that too; then the device reads them where they
//! lie. The bare loop sends what lies there.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mirrorbus::Deadline;
use mirrorbus::base::crc32c;
use mirrorbus::fabric::verbs::bare::{BarePeer, BareQueue};
use mirrorbus::fabric::verbs::{GidInfo, GidKind, devices};
use mirrorbus::memory::{MapOptions, Mapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wire::{STALL, Waiting};
use super::{Limit, Team};
use crate::Failure;
use crate::child::Peer;
use crate::driver::Side;
use crate::options::{AskedLevel, LimitPeerOptions, RegionOptions};
use crate::pair::Contender;
use crate::perftest::{self, Program};
use crate::report::Beside;
use crate::workload::{Polling, Workload};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Requests handed over in one list, at most: as many as a queue takes.
const LIST_MAX: usize = 128;

/// One queue.
struct RdmaSide {
    queue: BareQueue,
    local: Arc<Mapping>,
    /// What is stored; empty for a loop that sends what lies there.
    source: Vec<u8>,
    size: usize,
    /// The checksum of each store is computed, as far as these are records of a log.
    sums: bool,
    /// Of them all, so that none is left out.
    sum: u32,
    /// Stores until a completion is asked for.
    batch: usize,
    /// Stores since then.
    stored: usize,
    /// Requests that wait for a doorbell.
    waiting: usize,
    /// A doorbell for each store.
    each: bool,
    visible: bool,
    polling: Polling,
    /// Requests complete.
    complete: u64,
    doorbells: u64,
}

impl RdmaSide {
    fn ring(&mut self) -> Result<(), Failure> {
        if self.waiting > 0 {
            self.waiting = 0;
            self.doorbells += 1;
            self.queue.ring()?;
        }
        Ok(())
    }

    /// Takes what completed; whether anything did.
    #[inline(always)]
    fn reap(&mut self) -> Result<bool, Failure> {
        let last = self.queue.poll()?;
        if let Some(last) = last {
            self.complete = last + 1;
        }
        Ok(last.is_some())
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        self.queue.arm()?;
        if self.reap()? {
            return Ok(());
        }
        let stall = Timespec { tv_sec: i64::try_from(STALL.as_secs())?, tv_nsec: 0 };
        let mut interest = [PollFd::from_borrowed_fd(self.queue.event_fd(), PollFlags::IN)];
        match poll(&mut interest, Some(&stall)) {
            Ok(0) => Err(stalled()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn stalled() -> Failure {
    format!("no completion for {STALL:?}").into()
}

impl Side for RdmaSide {
    type Mark = u64;

    #[inline]
    fn store(&mut self, offset: usize) -> Result<u64, Failure> {
        self.stored += 1;
        let last = self.stored == self.batch;
        if self.sums {
            self.sum = std::hint::black_box(self.sum ^ crc32c(std::hint::black_box(&self.source)));
        }
        if !self.source.is_empty() {
            self.local.slice().write(offset, &self.source);
        }
        self.queue.write(offset, self.size, last && !self.visible);
        self.waiting += 1;
        // The last goes with the read behind it, if there is one.
        let goes = if self.each { !(last && self.visible) } else { self.waiting == LIST_MAX };
        if goes {
            self.ring()?;
        }
        Ok(self.queue.posted())
    }

    #[inline]
    fn post(&mut self, last: u64, _more: bool) -> Result<u64, Failure> {
        self.stored = 0;
        if self.visible {
            self.queue.flush();
            self.waiting += 1;
        }
        self.ring()?;
        Ok(last + u64::from(self.visible))
    }

    #[inline]
    fn wait(&mut self, mark: u64) -> Result<(), Failure> {
        let mut waiting = Waiting::new();
        while self.complete < mark {
            if self.reap()? {
                continue;
            }
            match self.polling {
                Polling::Block => self.sleep()?,
                Polling::Spin if waiting.look().is_some_and(|waited| waited > STALL) => return Err(stalled()),
                Polling::Spin => std::hint::spin_loop(),
            }
        }
        Ok(())
    }

    fn calls(&self) -> Option<u64> {
        Some(self.doorbells)
    }
}

/// The limit of `workload` at `level`, against `peer` or, without one, against a child of this process; `of_records`: of stores that are a log's.
///
/// # Errors
/// The other side could not be started or reached.
pub(super) fn limit(
    workload: &Workload,
    level: AskedLevel,
    peer: Option<&str>,
    of_records: bool,
) -> Result<Limit, Failure> {
    let (address, child) = match peer {
        Some(address) => (address.to_owned(), None),
        None => {
            let (listen, memory) = (own_address()?.to_string(), workload.region.to_string());
            let arguments =
                ["limit-peer", "--fabric", "rdma", "--with-stdin", "--listen", &listen, "--memory", &memory];
            let child = Peer::start(&arguments.map(str::to_owned))?;
            (child.ready().trim_start_matches("listening on ").to_owned(), Some(child))
        }
    };
    let target = resolve(&address)?;
    let local = Arc::new(Mapping::anonymous(workload.region, MapOptions::default())?);
    let child = Rc::new(child);
    let visible = level == AskedLevel::Visible;
    let team = |each: bool| -> Result<Box<dyn Contender>, Failure> {
        let sides: Result<Vec<_>, Failure> = (0..workload.threads)
            .map(|_| {
                // Two reads too: one behind each batch in flight.
                let depth = workload.depth + 2;
                let queue = BareQueue::connect(
                    target,
                    Arc::clone(&local),
                    depth,
                    &mut Deadline::within(CONNECT_WITHIN),
                )
                .map_err(|error| format!("the other side of the limit at {target}: {error}"))?;
                let (size, batch, polling) = (workload.size, workload.batch(), workload.polling);
                let counts = (0, 0, 0, 0);
                let (stored, waiting, complete, doorbells) = counts;
                Ok(RdmaSide {
                    queue,
                    local: Arc::clone(&local),
                    source: if each { Vec::new() } else { vec![0xa5; size] },
                    size,
                    sums: of_records && !each,
                    sum: 0,
                    batch,
                    stored,
                    waiting,
                    each,
                    visible,
                    polling,
                    complete,
                    doorbells,
                })
            })
            .collect();
        Ok(Box::new(Team::new(sides?, workload, Rc::clone(&child))))
    };
    Ok(Limit {
        contender: team(false)?,
        bare: if workload.depth > 1 { Some(team(true)?) } else { None },
        does: if of_records { RECORDS } else { does(workload.depth > 1, visible) },
        copies_per_byte: 1.0,
    })
}

/// What is done of records.
const RECORDS: &str = "checksums, copies into registered memory, bare writes and their completions";

const fn does(deep: bool, visible: bool) -> &'static str {
    match (deep, visible) {
        (false, false) => "copy into registered memory, bare write, its completion",
        (false, true) => "copy, bare write and read in one doorbell, the completion of the read",
        (true, false) => {
            "copies and bare writes in lists of half the depth, a completion for the last of each; bare: a doorbell for \
             each write, no copy"
        }
        (true, true) => {
            "copies and bare writes in lists of half the depth, each ended by a read whose completion is awaited; bare: a \
             doorbell for each write, no copy"
        }
    }
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let found = address.to_socket_addrs().map_err(|error| format!("{address}: {error}"))?.next();
    found.ok_or_else(|| format!("{address} names no address").into())
}

/// Serves memory until it fails.
///
/// # Errors
/// No device at the address, no memory.
pub(super) fn serve(options: &LimitPeerOptions) -> Result<(), Failure> {
    let memory = Mapping::anonymous(options.memory, MapOptions::default())?;
    let mut address = resolve(&options.listen)?;
    let mut peer = BarePeer::listen(address, Arc::new(memory))?;
    address.set_port(peer.port());
    if let Some(size) = options.perftest {
        let index = own_gid()?.index;
        for program in Program::ALL {
            std::thread::spawn(move || eprintln!("limit-peer: {}", perftest::serve(program, index, size)));
        }
    }
    println!("listening on {address}");
    Ok(peer.serve(&AtomicBool::new(false))?)
}

/// What the programs of package perftest say, with their other sides at the limit's peer, or here where that is.
pub(super) fn beside(options: &RegionOptions) -> Result<Vec<Beside>, Failure> {
    let gid = own_gid()?;
    let host = match &options.limit_peer {
        Some(address) => resolve(address)?.ip(),
        None => own_address()?.ip(),
    };
    let (index, size) = (gid.index, options.size);
    let measure = |program: Program| {
        if options.limit_peer.is_none() {
            // It ends with this process.
            std::thread::spawn(move || perftest::serve(program, index, size));
        }
        let result = perftest::measure(program, host, index, size);
        Beside { program: program.name(), figure: program.figure(), result }
    };
    Ok(Program::ALL.map(measure).into())
}

/// The first RoCE v2 address that is an IPv4 address.
fn own_gid() -> Result<GidInfo, Failure> {
    let all = devices().map_err(|error| format!("the RDMA devices cannot be listed: {error}"))?;
    let gids = all.into_iter().filter_map(|device| device.gids.ok()).flatten();
    let mut usable = gids.filter(|gid| gid.kind == GidKind::RoceV2 && gid.address.to_ipv4_mapped().is_some());
    usable.next().ok_or_else(|| {
        "no RDMA device here has a RoCE v2 address with an IPv4 address (see `mirrorbus doctor`): give --peer".into()
    })
}

/// See [`own_rdma_address`](super::own_rdma_address).
pub(super) fn own_address() -> Result<SocketAddr, Failure> {
    let gid = own_gid()?;
    let address = gid.address.to_ipv4_mapped().ok_or("no IPv4 address")?;
    Ok(SocketAddr::from((address, 0)))
}
