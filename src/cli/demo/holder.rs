//! `mirrorbus demo-hold`: the holder of the demonstration. Fences and proves when asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use mirrorbus::memory::LockPolicy;
use mirrorbus::{Deadline, FabricUrl, Holder, HolderConfig, KeySet};

use super::lines::{Line, hear, say};
use super::plan::Plan;
use super::prover::{Proof, prove};

/// How long a fence may take: the copy of a region may have to be moved.
const FENCE_TIME_MAX: Duration = Duration::from_secs(20);

/// What the parent says.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    listen: FabricUrl,
    #[arg(long)]
    key: PathBuf,
    #[arg(long)]
    plan: PathBuf,
}

/// Holds until the parent ends its input.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    serve(arguments).inspect_err(|error| {
        let _ = say(&Line::Failed(error.to_string()));
    })
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let plan = Plan::load(&arguments.plan)?;
    let mut config = HolderConfig::new(arguments.listen.clone(), plan.region_bytes());
    config.lock = LockPolicy::Try;
    let holder = Holder::start(config, KeySet::load(&arguments.key)?)?;
    say(&Line::Listening(holder.url().clone()))?;
    let mut input = io::stdin().lock();
    while let Some(line) = hear(&mut input)? {
        let Line::Prove(ledger) = line else { return Err(format!("not for a holder: {line}").into()) };
        let fenced = holder.fence(Deadline::within(FENCE_TIME_MAX))?;
        if !fenced.exact {
            return Err("the owner went on storing after it was fenced: the copy is no exact prefix".into());
        }
        let proof: Proof =
            prove(fenced.memory.slice(), &plan, ledger).map_err(|disproof| disproof.to_string())?;
        say(&Line::Proof(proof))?;
    }
    holder.stop();
    Ok(())
}
