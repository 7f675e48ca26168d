//! `mirrorbus demo-own`: the owner of the demonstration. Streams the files from where the log ends.
//!
//! What is acknowledged is told to the parent, which keeps the ledger: a killed process cannot be asked. The owner
//! stays within a sixteenth of the log of what the parent has noted, so that the ledger is never far behind the truth and
//! the parent can kill in the middle of a stream.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mirrorbus::memory::LockPolicy;
use mirrorbus::{Attach, Deadline, FabricUrl, KeySet, Lane, LaneConfig, Level, Region, RegionConfig};

use super::lines::{Line, hear, say};
use super::log_format::CHUNK_BYTES_MAX;
use super::plan::Plan;
use super::prover::{Ledger, log_end};
use super::source::Sources;

/// Bytes of log stored beyond what the parent has noted, at least: any entry has to fit.
const LEAD_BYTES_MIN: usize = 2 * CHUNK_BYTES_MAX;
/// The same, at most.
const LEAD_BYTES_MAX: usize = 8 << 20;
/// The lead is this part of the log, within those bounds.
const LEAD_PART: usize = 16;
/// Stores between two looks at what is acknowledged.
const STORES_PER_LOOK: u64 = 8;
/// How long the parent may take to note, and the holder to acknowledge.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the parent says.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    peer: FabricUrl,
    #[arg(long)]
    key: PathBuf,
    #[arg(long)]
    plan: PathBuf,
    /// Take the region over from the holder.
    #[arg(long)]
    pull: bool,
}

/// Streams to the end of the plan.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    stream(arguments).inspect_err(|error| {
        let _ = say(&Line::Failed(error.to_string()));
    })
}

fn stream(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let plan = Plan::load(&arguments.plan)?;
    let noted = Noted::listen()?;
    let attach = if arguments.pull { Attach::Pull } else { Attach::Push { replace: false } };
    let mut config = RegionConfig::new(arguments.peer.clone(), plan.region_bytes(), attach);
    config.lock = LockPolicy::Try;
    let region = Region::open(config, KeySet::load(&arguments.key)?)?;
    let mut cursor = log_end(region.memory(), &plan)
        .map_err(|position| format!("a strange entry stands at byte {position} of the log"))?;
    say(&Line::Attached { position: cursor.position, entries: cursor.entries })?;
    noted.note(cursor.position);
    let mut book = Book { lane: region.lane(LaneConfig::default())?, stores: VecDeque::new() };
    let lead = (plan.end().position / LEAD_PART).clamp(LEAD_BYTES_MIN, LEAD_BYTES_MAX);
    let (mut sources, mut payload) = (Sources::new(&plan), Vec::new());
    while let Some((entry, next)) = plan.next(cursor) {
        sources.payload(&entry, &mut payload)?;
        if next.position > noted.position() + lead {
            book.settle()?;
            noted.wait_for(next.position - lead)?;
        }
        let header = entry.header(&payload);
        let ticket = book.lane.store_v(entry.position, &[&header, &payload])?;
        let ledger = Ledger { entries: next.entries, position: next.position, file: cursor.file };
        book.stores.push_back((ticket.sequence(), ledger));
        if next.entries.is_multiple_of(STORES_PER_LOOK) {
            book.lane.poll()?;
            book.report()?;
        }
        cursor = next;
    }
    book.settle()?;
    say(&Line::Done)?;
    drop(book);
    region.close();
    Ok(())
}

/// The stores that are not known to be acknowledged.
struct Book {
    lane: Lane,
    stores: VecDeque<(mirrorbus::base::Sequence, Ledger)>,
}

impl Book {
    /// Waits until all are.
    fn settle(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.lane.flush(Level::Acked, Deadline::within(PATIENCE))?;
        Ok(self.report()?)
    }

    /// Tells the parent of those that are.
    fn report(&mut self) -> io::Result<()> {
        let acked = self.lane.watermarks().acked;
        let mut last = None;
        while let Some((sequence, ledger)) = self.stores.front()
            && *sequence <= acked
        {
            last = Some(*ledger);
            self.stores.pop_front();
        }
        last.map_or(Ok(()), |ledger| say(&Line::Acked(ledger)))
    }
}

/// How far the parent's ledger is.
#[derive(Debug, Clone, Default)]
struct Noted(Arc<(Mutex<usize>, Condvar)>);

impl Noted {
    /// Listens to the parent; this process ends when the parent has.
    fn listen() -> io::Result<Self> {
        let noted = Self::default();
        let kept = noted.clone();
        std::thread::Builder::new().name("hear-parent".into()).spawn(move || {
            let mut input = io::stdin().lock();
            while let Ok(Some(Line::Noted(position))) = hear(&mut input) {
                kept.note(position);
            }
            std::process::exit(1);
        })?;
        Ok(noted)
    }

    fn note(&self, position: usize) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
        self.0.1.notify_all();
    }

    fn position(&self) -> usize {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, position: usize) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let mut noted = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *noted < position {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("the ledger stands still at byte {} for {PATIENCE:?}", *noted));
            }
            noted = self.0.1.wait_timeout(noted, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}
