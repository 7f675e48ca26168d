//! The two nodes of a run: the same dataset, seen from either side.

use std::convert::Infallible;
use std::path::Path;

use mirrorbus::base::DatasetId;
use mirrorbus::memory::LockPolicy;
use mirrorbus::segment::SegmentLayout;
use mirrorbus::store::{ArbiterConfig, ArbiterKind, Dataset, DatasetConfig};
use mirrorbus::{FabricUrl, KeySet};

use super::options::{DURABILITY, StorePeerOptions};
use crate::{Failure, child};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Here, and the one that serves: its name comes first.
    Primary,
    /// The child.
    Secondary,
}

impl Side {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Primary => "a",
            Self::Secondary => "b",
        }
    }
}

/// The dataset of a run, from one side.
pub(super) fn config(
    side: Side,
    directory: &Path,
    listen: FabricUrl,
    peer: FabricUrl,
    ring: u64,
    mediator: Option<FabricUrl>,
) -> Result<DatasetConfig, Failure> {
    let id = DatasetId::from_bytes(*b"mirrorbus-bench!");
    let mut config = DatasetConfig::new("bench", id, side.name(), directory.join(side.name()), listen, peer);
    config.layout = SegmentLayout::DEFAULT;
    config.places = ring / config.layout.segment_bytes();
    config.durability = DURABILITY;
    config.lock = LockPolicy::Off;
    if let Some(url) = mediator {
        let kind = ArbiterKind::Mediator { url, keys: keys()? };
        config.arbiter = Some(ArbiterConfig { kind, preferred: None });
    }
    Ok(config)
}

/// A key that the two, and a mediator, have in common; they are processes of one user on one machine.
pub(super) fn keys() -> Result<KeySet, Failure> {
    Ok(KeySet::from_bytes(&[*b"a key of one run on one machine."])?)
}

/// Runs `mirrorbus-bench store-peer`: follows until the parent is gone.
///
/// # Errors
/// It did not start.
pub(crate) fn run(options: &StorePeerOptions) -> Result<Infallible, Failure> {
    let StorePeerOptions { directory, listen, peer, ring, mediator } = options.clone();
    let config = config(Side::Secondary, &directory, listen, peer, ring, mediator)?;
    let dataset = Dataset::open(config, keys()?)?;
    // Parent and child share the directory, and whoever ends last removes it.
    child::end_with_parent(move || drop(std::fs::remove_dir_all(&directory)));
    println!("following");
    let _dataset = dataset;
    loop {
        std::thread::park();
    }
}
