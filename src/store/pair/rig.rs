//! A node of a pair for tests, without its threads and without a peer.

use std::path::Path;
use std::sync::Arc;

use super::Pair;
use crate::base::{DatasetId, Lsn};
use crate::memory::LockPolicy;
use crate::node::KeySet;
use crate::segment::SegmentLayout;
use crate::store::checkpoint::Checkpoint;
use crate::store::config::{ArbiterConfig, DatasetConfig};
use crate::store::directory::Directory;
use crate::store::durable_mark::DurableMark;
use crate::store::engine::Engine;
use crate::store::health::Health;
use crate::store::marker::Marker;
use crate::store::peer::Peer;
use crate::store::register::{LocalRegister, Position};
use crate::store::resync::Note;
use crate::store::segment_files::SegmentFiles;
use crate::store::state::{Reason, Role, State};
use crate::store::sums::{SUMS_BYTES_MAX, Sums};
use crate::store::volumes::Volumes;

/// A new node in `directory`, which is nothing yet.
pub(in crate::store) fn pair(directory: &Path) -> Pair {
    pair_with(directory, None)
}

/// The same, with this arbiter.
pub(in crate::store) fn pair_with(directory: &Path, arbiter: Option<ArbiterConfig>) -> Pair {
    std::fs::create_dir_all(directory).unwrap();
    let url = |name: &str| format!("shm:{}/{name}.sock", directory.display()).parse().unwrap();
    let (path, id) = (directory.join("node"), DatasetId::from_bytes([5; 16]));
    let mut config = DatasetConfig::new("test", id, "alpha", path, url("a"), url("b"));
    config.layout = SegmentLayout::new(1 << 20, 4096).unwrap();
    config.lock = LockPolicy::Off;
    config.arbiter = arbiter;
    let place = Directory::open(&config.directory, id, &config.node, config.layout, true).unwrap();
    let files = SegmentFiles::open(&place.segments(), config.layout).unwrap();
    let checkpoint = Checkpoint::open(&place.checkpoint(), id, true).unwrap();
    let marker = Marker::open(&place.marker(), id, true).unwrap();
    let note = Note::open(&config.directory).unwrap();
    let register = LocalRegister::open(&config.directory).unwrap();
    let state = State {
        role: Role::Undecided,
        volumes: Volumes::restore(Vec::new(), 0),
        position: Position::default(),
        epoch: 1,
        reason: Reason::new("starting", "looks for the peer"),
        checkpoint: Lsn::ZERO,
        marker: None,
        stopping: false,
    };
    let mark = DurableMark::open(&config.directory, id);
    let sums = Sums::new(config.layout, SUMS_BYTES_MAX);
    let keys = KeySet::from_bytes(&[[9; 32]]).unwrap();
    let peer = Peer::new(config.peer.clone(), keys.clone(), config.id, config.node.clone(), config.layout);
    let engine = Arc::new(Engine::new(config, state, files, mark, sums, Health::new(peer)));
    Pair::new(engine, keys, register, checkpoint, marker, note)
}
