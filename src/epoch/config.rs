//! How a region of epochs is opened.

use super::EpochLayout;
use crate::memory::TrackingMethod;
use crate::mirror::LaneConfig;
use crate::node::RegionConfig;

/// How an owner opens a region of epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochConfig {
    /// How the mirrored region below is opened: where the holder is, what the two sides hold, locking, patience. Its size is that of
    /// the layout, whatever it says here.
    ///
    /// [`Attach::Push`](crate::node::Attach) makes the memory's content epoch 0; until that has come whole, the holder has nothing.
    /// [`Attach::Pull`](crate::node::Attach) takes the holder's last whole epoch into the memory. `Equal` is the same: the content is
    /// never assumed.
    pub region: RegionConfig,
    /// Sizes of memory and ring, as the holder has them.
    pub layout: EpochLayout,
    /// How stores are found; `None`: the best that works here.
    pub method: Option<TrackingMethod>,
    /// How the lane is made.
    pub lane: LaneConfig,
}

impl EpochConfig {
    /// The usual: what is best for finding stores, a lane as any.
    #[must_use]
    pub fn new(region: RegionConfig, layout: EpochLayout) -> Self {
        Self { region, layout, method: None, lane: LaneConfig::default() }
    }
}

/// How a region was connected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnected {
    /// The holder knew this owner: the epoch under way goes on.
    Resumed,
    /// It did not, and the region was opened anew with the holder's last whole epoch.
    Anew {
        /// The last epoch that was cut, if the holder has it not: it was dropped, and with it all behind the holder's. What they
        /// changed is in the memory still, and in the next epoch that is cut.
        dropped: Option<u64>,
    },
}

/// What a cut found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// The epoch's number; that of the one before when nothing changed, for then none is made.
    pub epoch: u64,
    /// Pages that were looked at.
    pub pages: usize,
    /// Ranges that are shipped.
    pub ranges: usize,
    /// Runs of changed words in them, which small unchanged gaps may lie between.
    pub runs: usize,
    /// Bytes of the words that changed.
    pub changed_bytes: usize,
    /// Bytes that are shipped for it: content, heads of ranges, commit record.
    pub shipped_bytes: usize,
}
