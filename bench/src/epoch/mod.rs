//! `mirrorbus-bench epoch`: what mirroring plain stores by epochs costs.
//!
//! ```text
//!  first store   a byte to each of some pages, protected by each method or not
//!  commit        ours:  EpochRegion::commit
//!                parts: the same pages collected, compared with a twin, and their changes stored through a bare lane
//! ```
//!
//! The two take turns, each with memories and a holder of its own, on equal changes; the ratio is that of each turn.

mod commit;
mod first_store;
mod options;

use std::process::ExitCode;

use crate::Failure;
use crate::machine::Machine;
pub(crate) use options::EpochOptions;

/// Measures.
///
/// # Errors
/// No memory, or a side failed.
pub(crate) fn run(options: &EpochOptions) -> Result<ExitCode, Failure> {
    let machine = Machine::here();
    println!("{}, {} cores, Linux {}, load {}\n", machine.cpu, machine.cores, machine.kernel, machine.load);
    let first = first_store::run(options)?;
    let commit = commit::run(options)?;
    if let Some(path) = &options.json {
        let report = serde_json::json!({ "first_store_ns": first, "commit": commit });
        std::fs::write(path, format!("{report:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
