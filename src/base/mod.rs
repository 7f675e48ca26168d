//! Ids, levels, addresses, units and checksums: what every room above speaks of. No I/O, no unsafe.

mod checksum;
pub mod clock;
mod deadline;
mod ids;
mod level;
#[cfg(feature = "store")]
pub(crate) mod locks;
mod log;
pub mod sync;
#[cfg(feature = "store")]
pub(crate) mod threads;
mod units;
mod url;

pub use checksum::{crc32c, crc32c_append};
pub use deadline::Deadline;
pub use ids::{DatasetId, Generation, LifeId, RegionId, Sequence, SessionId};
pub use level::{Level, Unsupported};
pub use log::{BlockNumber, BlockSize, LogGeneration, Lsn, Phase, VolumeId};
pub use units::{format_bytes, parse_bytes};
pub use url::{FabricUrl, Medium, UrlError};
