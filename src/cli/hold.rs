//! `mirrorbus hold`: be the peer.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use mirrorbus::base::{Deadline, format_bytes, parse_bytes};
use mirrorbus::memory::LockPolicy;
use mirrorbus::{FabricUrl, Holder, HolderConfig, KeySet};

/// How often the status is looked at between changes.
const LOOK: Duration = Duration::from_secs(3600);

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen: tcp://HOST:PORT[?encrypt=1], shm:/PATH.sock or shm://HOST:PORT?device=PATH.
    #[arg(long)]
    listen: FabricUrl,
    /// Bytes of the copy: 4096, 64K, 1M, 1G.
    #[arg(long, value_parser = size)]
    size: usize,
    /// The key file that both sides have.
    #[arg(long)]
    key: PathBuf,
    /// Keep the copy in this file: it outlives this process, and owners can have their stores Durable.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Use the file although the host has rebooted since it was written.
    #[arg(long)]
    accept_uncertain: bool,
    /// Microseconds that a tcp receiver spins for more before it sleeps.
    #[arg(long, default_value_t = 20)]
    spin_us: u64,
    /// Lock the copy in memory: required, try or off.
    #[arg(long, default_value = "required", value_parser = lock_policy)]
    mlock: LockPolicy,
    /// Ask for huge pages.
    #[arg(long)]
    huge_pages: bool,
}

/// Reads a size.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|_| format!("{text:?} does not fit in memory"))
}

/// Reads a lock policy.
pub(crate) fn lock_policy(text: &str) -> Result<LockPolicy, String> {
    match text {
        "required" => Ok(LockPolicy::Required),
        "try" => Ok(LockPolicy::Try),
        "off" => Ok(LockPolicy::Off),
        _ => Err("required, try or off".into()),
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
    let holder = Holder::start(config, keys)?;
    println!("listening on {}", holder.url());
    std::io::stdout().flush()?;
    log::info!("holding {}", format_bytes(arguments.size as u64));
    let mut seen = holder.status();
    loop {
        let status = holder.wait_change(seen.changes, Deadline::within(LOOK));
        if status.changes != seen.changes {
            log::info!("{status:?}");
        }
        seen = status;
    }
}
