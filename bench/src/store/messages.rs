//! The other way to have a write on two machines: a message with the payload goes out, a process over there receives it, an answer comes back.
//!
//! It is the tcp limit of the region, as bare as it can be: no log, no map, nothing that would be done with what was received. A store
//! that answers sooner than this does so because nothing of the peer's runs.

use super::options::StoreOptions;
use crate::Failure;
use crate::limit::Limit;
use crate::options::AskedLevel;
use crate::workload::{Fabric, Pattern, Polling, Workload};

/// Where the other process receives to, at most.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Messages of the size of the run's writes, as many in flight, to a process of this machine.
pub(super) fn messages(options: &StoreOptions) -> Result<Limit, Failure> {
    let workload = Workload {
        fabric: Fabric::Tcp,
        size: usize::try_from(options.size)?,
        depth: options.depth,
        lanes: 1,
        threads: 1,
        pattern: Pattern::Append,
        region: usize::try_from(options.ring.min(MEMORY_BYTES_MAX).max(options.size))?,
        polling: Polling::Spin,
    };
    Limit::new(&workload, AskedLevel::Acked, None)
}
