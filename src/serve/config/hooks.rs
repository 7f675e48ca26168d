//! Commands that a node runs: their words.

use std::time::Duration;

use toml::Spanned;

use super::error::Mistake;
use super::raw::{Dataset, Text};
use super::value::{self, Outcome};
use super::{HOOK_TIME, HOOK_TIME_MAX, HOOK_WORDS_MAX, HooksConfig};

/// What is run for a dataset.
pub(super) fn hooks(raw: &Dataset) -> Outcome<HooksConfig> {
    let time_max = match &raw.hook_seconds {
        None => HOOK_TIME,
        Some(seconds) => {
            let found = u64::try_from(*seconds.get_ref()).ok().map(Duration::from_secs);
            let is_allowed = |time: &Duration| !time.is_zero() && *time <= HOOK_TIME_MAX;
            found.filter(is_allowed).ok_or_else(|| {
                let why = format!("{} seconds: 1 to {}", seconds.get_ref(), HOOK_TIME_MAX.as_secs());
                Mistake::new(seconds.span(), "hook-seconds", why)
            })?
        }
    };
    Ok(HooksConfig {
        on_promote: words(raw.on_promote.as_ref(), "on-promote")?,
        on_demote: words(raw.on_demote.as_ref(), "on-demote")?,
        time_max,
    })
}

fn words(raw: Option<&Spanned<Vec<Text>>>, key: &str) -> Outcome<Vec<String>> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let words = raw.get_ref();
    let Some(program) = words.first().filter(|_| words.len() <= HOOK_WORDS_MAX) else {
        let why =
            format!("{} words: the path of a program, and at most {} more", words.len(), HOOK_WORDS_MAX - 1);
        return Err(Mistake::new(raw.span(), key, why));
    };
    value::path(program, key)?;
    if let Some(word) = words.iter().find(|word| word.get_ref().contains('\0')) {
        return Err(Mistake::new(word.span(), key, "a word with a zero byte in it"));
    }
    Ok(words.iter().map(|word| word.get_ref().clone()).collect())
}
