//! `mirrorbus demo`: the whole thing at work, with a proof.
//!
//! ```text
//!  parent ── starts, keeps the ledger, SIGKILLs the first owner half-way
//!    │ pipes
//!    ├─▶ owner   (demo-own)   files ─▶ log entries ─▶ stores ══ fabric ══▶ holder's copy
//!    └─▶ holder  (demo-hold)  fences, proves its copy against ledger and files
//! ```
//!
//! It succeeds only if, over each fabric: every store that was acknowledged when the owner was killed is in the
//! holder's copy; that copy is a prefix of the stream, byte for byte; the files complete in it equal those on disk; and
//! a new owner, which pulls the copy, goes on from exactly there to the end, where all of it is proven again.

pub(crate) mod holder;
pub(crate) mod owner;

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
use remote::Over;
use scratch::Scratch;
use table::Table;

/// Least input: with less, an owner can be done before it is killed.
const BYTES_MIN: u64 = 2 << 20;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Over which fabric, within this machine.
    #[arg(long, value_enum, default_value = "both")]
    fabric: Fabrics,
    /// Over this address of the holder instead, such as tcp://HOST:PORT: the fabric is the address's.
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
    /// Bytes of files at most, 2M at least.
    #[arg(long, default_value = "256M", value_parser = super::hold::size)]
    bytes: usize,
    /// Of the sizes of the stores and the order of the files.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    let plan = trees::choose(&trees, bytes, arguments.seed)?;
    if plan.file_bytes() < BYTES_MIN {
        let found = format_bytes(plan.file_bytes());
        return Err(format!("{} has {found} of files, {BYTES_MIN} bytes are needed", trees.what).into());
    }
    let scratch = Arc::new(Scratch::new("demo")?);
    tidy_up_on_signals(&scratch)?;
    // Both processes read it from there; it is gone with the directory.
    drop(KeySet::create(&scratch.path("key"))?);
    plan.save(&scratch.path("plan"))?;
    println!(
        "input: {} files, {}, of {} (seed {})",
        plan.files.len(),
        format_bytes(plan.file_bytes()),
        trees.what,
        plan.seed
    );
    let mut outcomes = Vec::new();
    for listen in addresses(arguments, &scratch)? {
        let over = arguments.over.clone().map(Over);
        let fabric = name(listen.medium());
        outcomes.push(Run { plan: &plan, scratch: &scratch, fabric, listen, over }.run()?);
    }
    println!("\n{}", Table(&outcomes));
    println!("everything held; {:.1} s in all", begun.elapsed().as_secs_f64());
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

const fn name(medium: Medium) -> &'static str {
    match medium {
        Medium::Shm => "shm",
        Medium::Tcp => "tcp",
        Medium::Rdma => "rdma",
    }
}

/// On SIGINT and SIGTERM the directory goes, and with this process, whose pipes they hear, the children.
fn tidy_up_on_signals(scratch: &Arc<Scratch>) -> std::io::Result<()> {
    let directory = scratch.directory().to_path_buf();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _ = std::fs::remove_dir_all(&directory);
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
