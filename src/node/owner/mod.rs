//! The owner's side: a region, attached to its holder.
//!
//! ```text
//! open ─▶ control connection ─▶ attach ─▶ bulk (push, pull, compare) ─▶ complete ─▶ lanes
//!                                                                                    │ link lost
//!        lanes go on ◀─ apply ◀─ unknown ranges into staging ◀─ resume ◀─ reconnect ◀┘
//! ```

mod ask;
mod attach;
mod call;
mod config;
mod data_stream;
#[cfg(feature = "rdma")]
mod rdma;
mod reconnect;
mod region;
mod session;
mod transfer;

pub use ask::{Inquirer, ask};
pub use call::CallError;
pub use config::{Attach, OpenError, RegionConfig};
pub(super) use data_stream::{PURPOSE_PLAIN, PURPOSE_SEALED};
pub use reconnect::{ReconnectError, Reconnected};
pub use region::{LinkStatus, Region};
