//! `mirrorbus hold`: be the peer, until SIGTERM or SIGINT.
//!
//! The end is in good order: the owner is told, so that it need not wait for a silence to know; a file keeps the copy.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirrorbus::base::{Deadline, format_bytes, parse_bytes};
use mirrorbus::epoch::{EpochHolder, EpochLayout};
use mirrorbus::memory::LockPolicy;
use mirrorbus::node::{Content, HolderStatus};
use mirrorbus::{FabricUrl, Holder, HolderConfig, KeySet};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Longest wait for a change of the status before a look at whether the end was asked for.
const LOOK: Duration = Duration::from_millis(250);

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen: tcp://HOST:PORT[?encrypt=1], rdma://HOST:PORT, shm:/PATH.sock or shm://HOST:PORT?device=PATH.
    #[arg(long)]
    listen: FabricUrl,
    /// Bytes of the copy: 4096, 64K, 1M, 1G.
    #[arg(long, value_parser = size)]
    size: usize,
    /// Hold epochs: SIZE is that of the owner's memory, and the copy is always a whole epoch of it.
    #[arg(long)]
    epochs: bool,
    /// Bytes of the ring of epochs, as the owner has it; a usual one for SIZE unless given.
    #[arg(long, value_parser = size, requires = "epochs")]
    ring: Option<usize>,
    /// The key file that both sides have.
    #[arg(long)]
    key: PathBuf,
    /// Keep the copy in this file: it outlives this process, and owners can have their stores Durable.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Use the file although the host has rebooted since it was written, or a sync of it failed.
    #[arg(long)]
    accept_uncertain: bool,
    /// Microseconds that a tcp receiver spins for more before it sleeps.
    #[arg(long, default_value_t = 20)]
    spin_us: u64,
    /// Lock the copy in memory: required, try or off.
    #[arg(long, default_value = "required")]
    mlock: LockPolicy,
    /// Ask for huge pages.
    #[arg(long)]
    huge_pages: bool,
}

/// Reads a size.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|_| format!("{text:?} does not fit in memory"))
}

/// What is held.
enum Held {
    Region(Holder),
    Epochs(EpochHolder),
}

impl Held {
    fn start(
        arguments: &Arguments,
        config: HolderConfig,
        keys: KeySet,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        if !arguments.epochs {
            return Ok(Self::Region(Holder::start(config, keys)?));
        }
        let layout = match arguments.ring {
            Some(ring) => EpochLayout::with_ring(arguments.size, ring)?,
            None => EpochLayout::new(arguments.size)?,
        };
        let held = EpochHolder::start(config, layout, keys)?;
        log::info!("a ring of {}; {:?}", format_bytes(layout.ring_bytes() as u64), held.status());
        Ok(Self::Epochs(held))
    }

    fn holder(&self) -> &Holder {
        match self {
            Self::Region(holder) => holder,
            Self::Epochs(held) => held.holder(),
        }
    }
}

/// Holds until it is told to end.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let keys = KeySet::load(&arguments.key)?;
    let mut config = HolderConfig::new(arguments.listen.clone(), arguments.size);
    config.file.clone_from(&arguments.file);
    config.accept_uncertain = arguments.accept_uncertain;
    config.huge_pages = arguments.huge_pages;
    config.lock = arguments.mlock;
    config.spin = Duration::from_micros(arguments.spin_us);
    // Caught from here on, so that whoever has read the line below can end it in good order.
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let held = Held::start(arguments, config, keys)?;
    let holder = held.holder();
    let status = holder.status();
    println!("listening on {}", holder.url());
    std::io::stdout().flush()?;
    log::info!("holding {}", format_bytes(arguments.size as u64));
    log::info!("{}", describe(&status));
    let signal = watch(holder, status, signals)?;
    log::info!("{signal}: the owner, if there is one, is told");
    drop(held);
    // Nobody may be left to read it; the end is in good order all the same.
    let _ = writeln!(std::io::stdout(), "stopped");
    Ok(())
}

/// Logs what changes until a signal asks for the end; its name.
fn watch(holder: &Holder, mut seen: HolderStatus, mut signals: Signals) -> std::io::Result<&'static str> {
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        std::thread::Builder::new().name("status".into()).spawn_scoped(scope, || {
            while !ending.load(Ordering::Relaxed) {
                let status = holder.wait_change(seen.changes, Deadline::within(LOOK));
                if status.changes != seen.changes {
                    log::info!("{}", describe(&status));
                }
                seen = status;
            }
        })?;
        let signal = signals.forever().next();
        ending.store(true, Ordering::Relaxed);
        Ok(signal.and_then(signal_hook::low_level::signal_name).unwrap_or("a signal"))
    })
}

fn describe(status: &HolderStatus) -> String {
    let owner = match (status.connected, status.silent) {
        (false, _) => "no owner is connected",
        (true, false) => "an owner is connected",
        (true, true) => "the owner is silent",
    };
    let region = status.region.map_or_else(|| "no region".to_owned(), |region| format!("region {region}"));
    let content = match status.content {
        Content::Empty => "nothing was pushed",
        Content::Partial => "a push is not complete",
        Content::Complete => "the copy is complete",
    };
    let HolderStatus { generation, streams, .. } = status;
    format!("{owner}; {region}, {content}; generation {generation}, {streams} data streams")
}
