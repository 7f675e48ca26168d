//! How long the other node is not heard before it is missed.

use std::time::Duration;

use super::error::Mistake;
use super::raw::Dataset;
use super::value::Outcome;
use super::{SILENCE_MAX, SILENCE_MIN};
use crate::store;

/// What is written, or the usual.
pub(super) fn silence(raw: &Dataset) -> Outcome<Duration> {
    let Some(written) = &raw.silence_ms else { return Ok(store::DatasetConfig::SILENCE) };
    let found = u64::try_from(*written.get_ref()).ok().map(Duration::from_millis);
    found.filter(|time| (SILENCE_MIN..=SILENCE_MAX).contains(time)).ok_or_else(|| {
        let (least, most) = (SILENCE_MIN.as_millis(), SILENCE_MAX.as_millis());
        let why = format!("{} milliseconds: {least} to {most}", written.get_ref());
        Mistake::new(written.span(), "silence-ms", why)
    })
}
