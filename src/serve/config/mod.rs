//! What a node is told: one TOML file, read once at its start.
//!
//! ```text
//!  bytes ─▶ TOML ─▶ values, each with its place (raw) ─▶ meaning, and what fits together (check) ─▶ NodeConfig
//! ```
//!
//! A mistake is found before anything is opened, and is told with file, line, column, key, what was read and what is allowed. Keys
//! that mean nothing are mistakes too: a misspelled key that fell back to its default would be found out by a lost disk.
//!
//! Invariant: whatever text comes in, the outcome is a [`NodeConfig`] of which every part is within its bounds, or one
//! [`ConfigError`]; never a panic. What only a look at the machine tells (does the directory exist, is the key readable) is left
//! to whoever opens it.

use std::time::Duration;

mod arbiter;
mod check;
mod claims;
mod dataset_id;
mod error;
mod hold;
mod hooks;
mod raw;
mod silence;
mod types;
mod value;

pub use dataset_id::{new_dataset_id, parse_dataset_id};
pub use error::ConfigError;
pub use types::{
    AfterHold, DatasetConfig, Durability, EtcdConfig, HoldConfig, HooksConfig, MediatorConfig, NbdAddress,
    NodeConfig, Reads, TlsConfig, VolumeConfig,
};

/// Bytes of the file at most.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Datasets of a node at most.
pub const DATASETS_MAX: usize = 64;

/// Addresses at which one dataset's volumes are served, at most.
pub const NBD_ADDRESSES_MAX: usize = 16;

/// Words of a command that a node runs, at most.
pub const HOOK_WORDS_MAX: usize = 64;

/// How long such a command may take, unless the file says otherwise, and at most.
pub const HOOK_TIME: Duration = Duration::from_secs(30);
/// See [`HOOK_TIME`].
pub const HOOK_TIME_MAX: Duration = Duration::from_secs(600);
/// For how long requests are held, where that is bounded, at most: a day.
pub const HOLD_TIME_MAX: Duration = Duration::from_secs(86_400);
/// How long the other node is not heard before it is missed, at least: several questions, of which one may be late.
pub const SILENCE_MIN: Duration = crate::store::DatasetConfig::SILENCE_MIN;
/// And at most: a minute.
pub const SILENCE_MAX: Duration = crate::store::DatasetConfig::SILENCE_MAX;
/// Endpoints of an etcd at most.
pub const ENDPOINTS_MAX: usize = 16;

/// Volumes of a dataset at most.
pub const VOLUMES_MAX: usize = 1024;

/// Bytes of a node's and of a dataset's name at most.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a volume's name at most.
pub const VOLUME_NAME_BYTES_MAX: usize = 255;

/// Bytes of a ring at most.
pub const REGION_BYTES_MAX: u64 = 1 << 40;

/// Bytes of a Unix socket's path at most: what the kernel's address has room for.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod etcd_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
