//! `mirrorbus demo`: the whole thing at work, with a proof. First the mirrored region, then the block store on it ([`store`]).
//!
//! ```text
//!  parent ── starts, keeps the ledger, SIGKILLs the first owner half-way
//!    │ pipes
//!    ├─▶ owner   (demo-own)   files ─▶ log entries ─▶ stores ══ fabric ══▶ holder's copy
//!    └─▶ holder  (demo-hold)  fences, proves its copy against ledger and files
//! ```
//!
//! Of the region it succeeds only if, over each fabric: every store that was acknowledged when the owner was killed is in the
//! holder's copy; that copy is a prefix of the stream, byte for byte; the files complete in it equal those on disk; and
//! a new owner, which pulls the copy, goes on from exactly there to the end, where all of it is proven again.

pub(crate) mod holder;
pub(crate) mod owner;
pub(crate) mod store;

mod child;
mod lines;
mod log_format;
mod parent;
mod plan;
mod prover;
mod remote;
mod scratch;
mod source;
mod table;
mod trees;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mirrorbus::base::{Medium, UrlError, format_bytes};
use mirrorbus::{FabricUrl, KeySet};
use signal_hook::consts::{SIGINT, SIGTERM};

use parent::Run;
use plan::Plan;
use remote::Over;
use scratch::Scratch;
use table::{ROWS, Table};
use trees::Trees;

/// Least input: with less, an owner can be done before it is killed.
const BYTES_MIN: u64 = 2 << 20;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What is shown: mirrored memory, the block store, or one after the other.
    #[arg(long, value_enum, default_value = "both", conflicts_with = "listen")]
    part: Part,
    /// Over which fabric, within this machine.
    #[arg(long, value_enum, default_value = "both")]
    fabric: Fabrics,
    /// Over this address of the holder instead, such as tcp://HOST:PORT: the fabric is the address's. Shows mirrored memory only.
    #[arg(long, conflicts_with = "fabric")]
    listen: Option<FabricUrl>,
    /// Start the holder on another machine, whose address `--listen` is: a command that runs there what it is given as its
    /// last word, such as `ssh HOST`. It needs `mirrorbus` on its path, and the same files at the same paths.
    #[arg(long, requires = "listen")]
    over: Option<String>,
    /// Stream the files of this directory tree; may be given more than once. Otherwise the project's own source and the
    /// Rust toolchain's library files, where they are.
    #[arg(long)]
    tree: Vec<PathBuf>,
    /// Bytes of files at most, 2M at least. The disk image of the block store has 48M of them at most.
    #[arg(long, default_value = "256M", value_parser = super::hold::size)]
    bytes: usize,
    /// Of the sizes of the stores and the order of the files.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Region,
    Store,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fabrics {
    Shm,
    Tcp,
    Both,
}

/// Shows it, and proves it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let bytes = arguments.bytes as u64;
    if bytes < BYTES_MIN {
        return Err(format!("--bytes {bytes}: at least {BYTES_MIN}, to be killed half-way").into());
    }
    let trees = trees::find(&arguments.tree)?;
    let scratch = Arc::new(Scratch::new("demo")?);
    tidy_up_on_signals(&scratch)?;
    // All processes read it from there; it is gone with the directory.
    drop(KeySet::create(&scratch.path("key"))?);
    let part = if arguments.listen.is_some() { Part::Region } else { arguments.part };
    if part != Part::Region {
        store::check(&scratch)?;
    }
    if part != Part::Store {
        show_region(arguments, &choose(&trees, bytes, arguments.seed)?, &scratch)?;
    }
    if part != Part::Region {
        let plan = choose(&trees, bytes.min(store::FILE_BYTES_MAX), arguments.seed)?;
        store::run(&plan, &scratch, arguments.fabric.names())?;
    }
    println!("everything held; {:.1} s in all", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Files of `trees`, enough to be killed half-way, and says which.
fn choose(trees: &Trees, bytes: u64, seed: u64) -> Result<Plan, String> {
    let plan = trees::choose(trees, bytes, seed)?;
    let found = format_bytes(plan.file_bytes());
    if plan.file_bytes() < BYTES_MIN {
        return Err(format!("{} has {found} of files, {BYTES_MIN} bytes are needed", trees.what));
    }
    println!("input: {} files, {found}, of {} (seed {seed})", plan.files.len(), trees.what);
    Ok(plan)
}

/// The mirrored region, over each fabric.
fn show_region(
    arguments: &Arguments,
    plan: &Plan,
    scratch: &Scratch,
) -> Result<(), Box<dyn std::error::Error>> {
    plan.save(&scratch.path("plan"))?;
    let mut outcomes = Vec::new();
    for listen in addresses(arguments, scratch)? {
        let over = arguments.over.clone().map(Over);
        let fabric = name(listen.medium());
        outcomes.push(Run { plan, scratch, fabric, listen, over }.run()?);
    }
    println!("\n{}", Table(&ROWS, &outcomes));
    Ok(())
}

/// Where the holders listen, one after another.
fn addresses(arguments: &Arguments, scratch: &Scratch) -> Result<Vec<FabricUrl>, UrlError> {
    if let Some(listen) = &arguments.listen {
        return Ok(vec![listen.clone()]);
    }
    let shm = FabricUrl::Shm { socket: scratch.path("holder.sock") };
    let tcp = "tcp://127.0.0.1:0".parse()?;
    Ok(match arguments.fabric {
        Fabrics::Shm => vec![shm],
        Fabrics::Tcp => vec![tcp],
        Fabrics::Both => vec![shm, tcp],
    })
}

impl Fabrics {
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Shm => &["shm"],
            Self::Tcp => &["tcp"],
            Self::Both => &["shm", "tcp"],
        }
    }
}

const fn name(medium: Medium) -> &'static str {
    match medium {
        Medium::Shm => "shm",
        Medium::Tcp => "tcp",
        Medium::Rdma => "rdma",
    }
}

/// On SIGINT and SIGTERM the processes in the directory end, it goes, and with this process, whose pipes they hear, the other
/// children.
fn tidy_up_on_signals(scratch: &Arc<Scratch>) -> std::io::Result<()> {
    // Not kept alive by this: it goes when the run ends.
    let scratch = Arc::downgrade(scratch);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let scratch = scratch.upgrade();
            let _cleared = scratch.as_ref().map(|scratch| scratch.clear_away());
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
