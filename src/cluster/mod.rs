//! Who serves: the configuration of a pair, how it is changed, and what follows from it. Pure: no I/O, no clock, no thread.
//!
//! The scheme is that of `PacificA` (Lin and others, Microsoft Research, 2008): a configuration is changed by compare-and-set at one arbiter, and
//! whoever must have a write before it is acknowledged is a member of it.

mod arbiter;
mod client;
mod configuration;
mod lease;
mod mediation;
mod race;
mod sight;

pub(crate) use arbiter::refused;
pub use arbiter::{Arbiter, DATASETS_MAX, Decision, Entry, GRACE_PERIODS, NAME_BYTES_MAX, is_dataset};
pub use client::{ArbiterClient, ArbiterError};
pub use configuration::Configuration;
pub use lease::{Grants, LEASE, Lease, Moment, PATIENCE};
pub use mediation::{Asked, NOT_KNOWN, Question, Request, Told, Verdict, decode, encode};
pub use race::{RACE_DELAY, delay, is_only_member};
pub use sight::{LOOK_STEP, STEADY, Sight};
