//! The run over one fabric: starts the processes, keeps the ledger, kills, asks for proofs and compares.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use mirrorbus::FabricUrl;
use mirrorbus::base::format_bytes;

use super::child::Child;
use super::lines::Line;
use super::plan::Plan;
use super::prover::{Ledger, Proof};
use super::remote::Over;
use super::scratch::Scratch;
use super::table::Outcome;

/// How long any process may be silent: a push or pull of the region, a proof of all of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run works with.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) scratch: &'a Scratch,
    pub(super) fabric: &'static str,
    pub(super) listen: FabricUrl,
    /// Where the holder is, if not on this machine.
    pub(super) over: Option<Over>,
}

impl Run<'_> {
    /// Streams, kills half-way, proves, recovers, goes on to the end, proves.
    ///
    /// # Errors
    /// The first thing that does not hold. No process is left.
    pub(super) fn run(&self) -> Result<Outcome, String> {
        let begun = Instant::now();
        let log_bytes = self.plan.end().position;
        let (mut holder, url) = self.start_holder()?;
        let mut owner = self.start_owner(&url, false)?;
        attached(&mut owner, Ledger::default())?;
        self.tell(&format!("holder and owner run; streaming {}", format_bytes(log_bytes as u64)));

        let killed_at = stream_until(&mut owner, log_bytes / 2)?;
        owner.kill()?;
        let acknowledged = last_words(&mut owner, killed_at)?;
        drop(owner);
        self.tell(&format!("owner killed; {} stores are acknowledged", acknowledged.entries));

        let found = proof(&mut holder, acknowledged)?;
        self.tell(&format!(
            "holder proves {} stores, {} files, {} beyond the acknowledged",
            found.entries,
            found.files,
            format_bytes((found.position - acknowledged.position) as u64)
        ));

        let recovering = Instant::now();
        let mut owner = self.start_owner(&url, true)?;
        let place = Ledger { entries: found.entries, position: found.position, file: 0 };
        attached(&mut owner, place)?;
        let recovered_in = recovering.elapsed();
        self.tell("a new owner has recovered the region and goes on");
        let last = stream_until(&mut owner, log_bytes)?;
        match owner.answer(PATIENCE)? {
            Line::Done => owner.finish()?,
            other => return Err(format!("the owner said {other:?} at the end")),
        }
        let whole = proof(&mut holder, last)?;
        self.check_whole(whole)?;
        holder.end()?;
        self.tell("holder proves all of it");
        Ok(Outcome {
            fabric: self.fabric,
            files: self.plan.files.len(),
            file_bytes: self.plan.file_bytes(),
            log_bytes,
            killed_at,
            acknowledged,
            found,
            recovered_in,
            whole,
            took: begun.elapsed(),
        })
    }

    fn tell(&self, what: &str) {
        println!("{}: {what}", self.fabric);
    }

    fn start_holder(&self) -> Result<(Child, FabricUrl), String> {
        let listen = self.listen.to_string();
        let (key, plan) = (self.scratch.path("key"), self.scratch.path("plan"));
        let arguments = ["demo-hold", "--listen", &listen, "--key"].map(OsStr::new);
        let rest = [key.as_os_str(), OsStr::new("--plan"), plan.as_os_str()];
        let mut holder = match &self.over {
            Some(over) => over.start_holder(&self.listen, &key, &plan)?,
            None => Child::start("holder", &[&arguments[..], &rest].concat())?,
        };
        match holder.answer(PATIENCE)? {
            Line::Listening(url) => Ok((holder, url)),
            other => Err(format!("the holder said {other:?} first")),
        }
    }

    fn start_owner(&self, url: &FabricUrl, pull: bool) -> Result<Child, String> {
        let peer = url.to_string();
        let (key, plan) = (self.scratch.path("key"), self.scratch.path("plan"));
        let arguments = ["demo-own", "--peer", &peer, "--key"].map(OsStr::new);
        let rest = [key.as_os_str(), OsStr::new("--plan"), plan.as_os_str(), OsStr::new("--pull")];
        let rest = &rest[..if pull { rest.len() } else { rest.len() - 1 }];
        Child::start("owner", &[&arguments[..], rest].concat())
    }

    fn check_whole(&self, proof: Proof) -> Result<(), String> {
        let (end, files) = (self.plan.end(), self.plan.files.len() as u64);
        let whole = Proof {
            position: end.position,
            entries: end.entries,
            files,
            file_bytes: self.plan.file_bytes(),
            torn_bytes: 0,
        };
        if proof == whole { Ok(()) } else { Err(format!("the end is {proof:?}, it should be {whole:?}")) }
    }
}

/// Waits until `owner` is attached with the log that ends at `place`.
fn attached(owner: &mut Child, place: Ledger) -> Result<(), String> {
    match owner.answer(PATIENCE)? {
        Line::Attached { position, entries } if (position, entries) == (place.position, place.entries) => {
            Ok(())
        }
        other => Err(format!("the owner said {other:?}, its log should end at byte {}", place.position)),
    }
}

/// Keeps the ledger until `goal` bytes of log are acknowledged.
fn stream_until(owner: &mut Child, goal: usize) -> Result<Ledger, String> {
    loop {
        match owner.answer(PATIENCE)? {
            Line::Acked(ledger) => {
                owner.say(&Line::Noted(ledger.position));
                if ledger.position >= goal {
                    return Ok(ledger);
                }
            }
            other => return Err(format!("the owner said {other:?} while it streamed")),
        }
    }
}

/// What the killed owner had said before its end.
fn last_words(owner: &mut Child, mut ledger: Ledger) -> Result<Ledger, String> {
    while let Some(line) = owner.hear(PATIENCE)? {
        match line {
            Line::Acked(later) => ledger = later,
            Line::Done => {
                return Err("the owner was done before it could be killed: give more --bytes".into());
            }
            other => return Err(format!("the owner said {other:?} while it streamed")),
        }
    }
    Ok(ledger)
}

/// Has the holder fence and prove what `ledger` says.
fn proof(holder: &mut Child, ledger: Ledger) -> Result<Proof, String> {
    holder.say(&Line::Prove(ledger));
    match holder.answer(PATIENCE)? {
        Line::Proof(proof) if proof.position >= ledger.position && proof.entries >= ledger.entries => {
            Ok(proof)
        }
        other => Err(format!("the holder said {other:?}, acknowledged was {ledger:?}")),
    }
}
