//! The mirrored region under one of epochs, as an owner opens it.

use std::sync::Arc;

use super::EpochError;
use super::applied::{APPLIED_BYTES, Applied};
use super::config::EpochConfig;
use super::layout::{HEAD_BYTES, LogId, encode_head, words};
use super::ship::check_ring;
use crate::base::{Deadline, FabricUrl};
use crate::memory::{MapOptions, Mapping, VolatileSlice};
use crate::mirror::Lane;
use crate::node::{KeySet, Region, random_bytes};

/// The mirrored region and the lane into it.
pub(super) struct Link {
    pub(super) lane: Lane,
    pub(super) region: Region,
}

impl Link {
    /// The twin.
    pub(super) fn image(&self, config: &EpochConfig) -> VolatileSlice<'_> {
        let layout = config.layout;
        let image = self.region.memory().subslice(layout.image_offset(), layout.image_bytes());
        image.expect("the region has the layout's size")
    }
}

/// Refuses what a holder cannot be fenced on.
pub(super) fn check_url(url: &FabricUrl) -> Result<(), EpochError> {
    match url {
        FabricUrl::ShmDevice { .. } => Err(EpochError::Unsupported(url.clone())),
        _ => Ok(()),
    }
}

/// Takes what the holder has.
pub(super) fn pull(config: &EpochConfig, keys: &KeySet) -> Result<Link, EpochError> {
    let region = Region::open(config.region.clone(), keys.clone())?;
    link(region, config)
}

/// Makes what `content` holds now epoch 0 of a new log.
pub(super) fn push(
    config: &EpochConfig,
    keys: &KeySet,
    content: VolatileSlice<'_>,
) -> Result<Link, EpochError> {
    let options = MapOptions { huge_pages: config.region.huge_pages };
    let mapping = Mapping::anonymous(config.layout.region_bytes(), options)?;
    mapping.lock(config.region.lock)?;
    let log = LogId(random_bytes()?);
    mapping.slice().write(0, &encode_head(config.layout, log));
    mapping.slice().write(words::APPLIED[0], &Applied::default().encode(log));
    mapping.slice().copy_from(config.layout.image_offset(), content);
    let region = Region::open_over(config.region.clone(), keys.clone(), Arc::new(mapping))?;
    link(region, config)
}

/// Puts a lane on it, and looks whether its holder is one of epochs with this ring.
fn link(region: Region, config: &EpochConfig) -> Result<Link, EpochError> {
    let mut lane = region.lane(config.lane).map_err(|error| EpochError::Open(error.into()))?;
    check_ring(&mut lane, region.memory(), config.layout, Deadline::within(config.region.timeout))?;
    Ok(Link { lane, region })
}

const _: () = assert!(HEAD_BYTES > words::APPLIED[1] + APPLIED_BYTES);
