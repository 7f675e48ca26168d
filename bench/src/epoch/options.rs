//! What it takes.

use std::path::PathBuf;

use clap::Args;
use mirrorbus::base::parse_bytes;
use mirrorbus::memory::TrackingMethod;

use crate::store::StoreFabric;

/// `mirrorbus-bench epoch`
#[derive(Debug, Clone, Args)]
pub(crate) struct EpochOptions {
    /// The medium between owner and holder.
    #[arg(long, value_enum, default_value = "shm")]
    pub fabric: StoreFabric,
    /// Bytes of the memory. Six times as many are needed.
    #[arg(long, value_parser = bytes, default_value = "1G")]
    pub region: usize,
    /// Pages that are stored to for each commit, in hundredths of all.
    #[arg(long, default_value_t = 1.0)]
    pub dirty_percent: f64,
    /// Bytes that change in each of them, in one run at random.
    #[arg(long, value_parser = bytes, default_value = "512")]
    pub changed: usize,
    /// Commits of each side.
    #[arg(long, default_value_t = 40)]
    pub rounds: usize,
    /// How stores are found: wp-async, soft-dirty or mprotect; the best that works here unless given.
    #[arg(long)]
    pub method: Option<TrackingMethod>,
    /// Write the figures here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl EpochOptions {
    /// What makes no sense, if anything does.
    pub(crate) fn mistake(&self) -> Option<String> {
        let page = rustix::param::page_size();
        if self.region < 16 * page || !self.region.is_multiple_of(page) {
            return Some(format!("--region {}: at least 16 pages of {page}, and whole ones", self.region));
        }
        if !(0.0..=100.0).contains(&self.dirty_percent) || self.pages() == 0 {
            return Some(format!(
                "--dirty-percent {} of {} pages is none",
                self.dirty_percent,
                self.region / page
            ));
        }
        if self.changed == 0 || self.changed > page {
            return Some(format!("--changed {}: 1 to {page} bytes of a page change", self.changed));
        }
        (self.rounds == 0).then(|| "--rounds 0 measures nothing".to_owned())
    }

    /// Pages that are stored to for each commit.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to 100 percent of pages"
    )]
    pub(crate) fn pages(&self) -> usize {
        ((self.region / rustix::param::page_size()) as f64 * self.dirty_percent / 100.0) as usize
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|_| format!("{text:?} does not fit in memory"))
}

/// A small fast generator: the same changes for both sides.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or(0)
    }
}
