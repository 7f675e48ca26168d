//! For how long requests are held.

use std::time::Duration;

use super::error::Mistake;
use super::raw::Dataset;
use super::value::Outcome;
use super::{AfterHold, HOLD_TIME_MAX, HoldConfig};

/// The bound, if there is one.
pub(super) fn hold(raw: &Dataset) -> Outcome<Option<HoldConfig>> {
    let after = match &raw.after_hold {
        None => AfterHold::default(),
        Some(text) => match text.get_ref().as_str() {
            "suspend" => AfterHold::Suspend,
            "error" => AfterHold::Error,
            other => {
                let why =
                    format!("{other:?} is nothing that becomes of requests: write \"suspend\" or \"error\"");
                return Err(Mistake::new(text.span(), "after-hold", why));
            }
        },
    };
    match (&raw.hold_seconds, &raw.after_hold) {
        (Some(seconds), _) => {
            let found = u64::try_from(*seconds.get_ref()).ok().map(Duration::from_secs);
            let time = found.filter(|time| !time.is_zero() && *time <= HOLD_TIME_MAX).ok_or_else(|| {
                let why = format!("{} seconds: 1 to {}", seconds.get_ref(), HOLD_TIME_MAX.as_secs());
                Mistake::new(seconds.span(), "hold-seconds", why)
            })?;
            Ok(Some(HoldConfig { time, after }))
        }
        (None, Some(text)) => {
            let why = "it needs `hold-seconds`: without that requests are held for as long as it takes";
            Err(Mistake::new(text.span(), "after-hold", why))
        }
        (None, None) => Ok(None),
    }
}
