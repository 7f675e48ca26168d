//! Ids, levels, addresses, units and checksums: what every room above speaks of. No I/O, no unsafe.

mod checksum;
mod deadline;
mod ids;
mod level;
mod log;
pub mod sync;
mod units;
mod url;

pub use checksum::{crc32c, crc32c_append};
pub use deadline::Deadline;
pub use ids::{DatasetId, Generation, LifeId, RegionId, Sequence, SessionId};
pub use level::{Level, Unsupported};
pub use log::{BlockNumber, BlockSize, LogGeneration, Lsn, Phase, VolumeId};
pub use units::{format_bytes, parse_bytes};
pub use url::{FabricUrl, Medium, UrlError};
