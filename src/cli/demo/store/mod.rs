//! The block store at work: two nodes, a disk image copied to them by `qemu-img`, the primary killed half-way.
//!
//! ```text
//!  qemu-img convert ──NBD─▶ volume "disk"   ┐ primary  ═ shm or tcp ═▶ secondary
//!  second writer ───NBD─▶ volume "ledger" ┘  ▲ SIGKILL                 ▲ mirrorbus promote
//! ```
//!
//! It succeeds only if, over each medium: the node that is promoted has every write that the second writer was acknowledged; the
//! image, copied again to it, is read back identical and its filesystem is clean; the killed node, started again, is caught up;
//! and that one, promoted when the other is killed in turn, has all of it too.

pub(crate) mod node;

mod image;
mod nbd;
mod nodes;
mod process;
mod table;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mirrorbus::base::format_bytes;

use super::plan::Plan;
use super::scratch::Scratch;
use super::table::Table;
use image::{Image, copied};
use nodes::{DISK, LEDGER, Nodes, Which};
use process::Process;
use table::{Outcome, ROWS};
use writer::{Found, Ledger, Writer};

/// Bytes of files in the image at most: what is written while a node is away must fit the ring.
pub(super) const FILE_BYTES_MAX: u64 = 48 << 20;

/// How much of the image is copied when the primary is killed.
const PERCENT: f64 = 50.0;

/// That what it needs is there.
///
/// # Errors
/// Names the package that is missing.
pub(super) fn check(scratch: &Arc<Scratch>) -> Result<(), String> {
    Image::check_tools(scratch)
}

/// Shows it over each of `fabrics`, and prints what came of it.
///
/// # Errors
/// The first thing that does not hold. No process is left.
pub(super) fn run(plan: &Plan, scratch: &Arc<Scratch>, fabrics: &[&'static str]) -> Result<(), String> {
    let image = Image::make(plan, scratch)?;
    println!(
        "image: {}, ext4 by mke2fs, with {} files, {}",
        format_bytes(image.bytes),
        image.files,
        format_bytes(image.file_bytes)
    );
    let mut outcomes = Vec::new();
    for fabric in fabrics {
        outcomes.push(Run { image: &image, scratch, fabric, seed: plan.seed }.run()?);
    }
    println!("\n{}", Table(&ROWS, &outcomes));
    Ok(())
}

/// What a run works with.
#[derive(Debug)]
struct Run<'a> {
    image: &'a Image,
    scratch: &'a Arc<Scratch>,
    fabric: &'static str,
    seed: u64,
}

impl Run<'_> {
    fn run(&self) -> Result<Outcome, String> {
        let begun = Instant::now();
        let mut nodes = Nodes::new(self.scratch, self.fabric, self.image.bytes)?;
        nodes.start(Which::First)?;
        nodes.start(Which::Second)?;
        let first = nodes.mirrored()?;
        let second = first.other();
        let (one, other) = (first.name(), second.name());
        self.tell(&format!("two nodes are mirrored, {one} serves; the image is copied to it"));

        let (killed_at, ledger, promoted_in) = self.kill_half_way(&mut nodes, first)?;
        let acknowledged = ledger.acknowledged.len();
        self.tell(&format!("{one} killed, {other} promoted; {acknowledged} writes are acknowledged"));
        let found = ledger.prove(&nodes.socket(second), LEDGER)?;
        self.tell(&format!("{other} has all of them, and {} that were under way", found.in_doubt));

        let copying = Instant::now();
        self.image.copy_to(&nodes.disk_url(second))?;
        let copied_in = copying.elapsed();
        self.image.compare_with(&nodes.disk_url(second))?;
        self.image.check_filesystem(&nodes.disk_url(second))?;
        self.tell("the image is copied again: identical, and its filesystem is clean");

        let returned_in = self.bring_back(&mut nodes, first)?;
        self.tell(&format!("{one} is back, and mirrored"));
        nodes.kill(second);
        nodes.promote(first)?;
        self.prove_again(&nodes, first, &ledger, found)?;
        self.tell(&format!("{other} killed, {one} promoted: it has all of it"));
        drop(nodes);
        let files = self.scratch.path(self.fabric);
        std::fs::remove_dir_all(&files).map_err(|error| format!("{}: {error}", files.display()))?;
        Ok(Outcome {
            fabric: self.fabric,
            image_bytes: self.image.bytes,
            files: self.image.files,
            file_bytes: self.image.file_bytes,
            killed_at,
            acknowledged,
            found,
            promoted_in,
            copied_in,
            returned_in,
            took: begun.elapsed(),
        })
    }

    fn tell(&self, what: &str) {
        println!("{}: {what}", self.fabric);
    }

    /// Copies, writes, kills the node that serves, and promotes the other: how far the copy was, the ledger, and how long it took from
    /// the kill.
    fn kill_half_way(&self, nodes: &mut Nodes, first: Which) -> Result<(f64, Ledger, Duration), String> {
        let writer = Writer::start(&nodes.socket(first), LEDGER, self.seed)
            .map_err(|error| format!("the volume {LEDGER:?} cannot be written: {error}"))?;
        let mut copy: Process = self.image.begin_to_copy(&nodes.disk_url(first))?;
        let killed_at = copied(&mut copy, PERCENT)?;
        let killed = Instant::now();
        nodes.kill(first);
        nodes.promote(first.other())?;
        let promoted_in = killed.elapsed();
        let ledger = writer.ledger()?;
        if copy.end()?.status.success() {
            return Err(format!("the copy to {DISK:?} was done before its node was killed"));
        }
        Ok((killed_at, ledger, promoted_in))
    }

    /// Starts the node that was killed, and waits until the two are mirrored; how long that took.
    fn bring_back(&self, nodes: &mut Nodes, first: Which) -> Result<Duration, String> {
        let begun = Instant::now();
        nodes.start(first)?;
        let serving = nodes.mirrored()?;
        if serving == first {
            return Err(format!("{} serves, though the other was promoted", first.name()));
        }
        Ok(begun.elapsed())
    }

    /// That a node has what the other had.
    fn prove_again(&self, nodes: &Nodes, which: Which, ledger: &Ledger, before: Found) -> Result<(), String> {
        let found = ledger.prove(&nodes.socket(which), LEDGER)?;
        if found != before {
            return Err(format!("{} has {found:?}, it should be {before:?}", which.name()));
        }
        self.image.compare_with(&nodes.disk_url(which))
    }
}
