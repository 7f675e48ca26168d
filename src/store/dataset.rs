//! A dataset on this node: opened, served or followed, and ended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::checkpoint::Checkpoint;
use super::config::{CommandError, DatasetConfig, OpenError};
use super::directory::Directory;
use super::durable_mark::DurableMark;
use super::engine::Engine;
use super::error::IoError;
use super::health::{self, Health};
use super::io::{Mark, Volume};
use super::keeper::Keeper;
use super::log::Payload;
use super::marker::Marker;
use super::medium::Holder;
use super::pair::{CanStop, Pair, PairGate, Switched};
use super::peer::Peer;
use super::recover::recover_noted;
use super::register::{LocalRegister, Position};
use super::resync::{Note, Puller};
use super::ring_memory::RingMemory;
use super::scrub::Scrubbed;
use super::segment_files::SegmentFiles;
use super::state::{Reason, Role, State};
use super::status::{self, DatasetStatus};
use super::sums::{SUMS_BYTES_MAX, Sums};
use super::tender::Tender;
use super::verify::Verified;
use super::volumes::{CHANGE_BYTES, VolumeChange, VolumeError, VolumeInfo, Volumes, blocks_of};
use crate::base::locks::poisoning::Mutex;
use crate::base::threads::{Builder, JoinHandle};
use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId};
use crate::node::{HolderConfig, KeySet};
use crate::segment::{RecordKind, Request};

/// A dataset, open on this node. Ends when dropped; [`stop`](Self::stop) ends it in good order.
#[derive(Debug)]
pub struct Dataset {
    pub(super) pair: Arc<Pair>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Keeps every other process out of the directory.
    _directory: Directory,
}

impl Dataset {
    /// Opens the directory, replays the log, and begins to look for the peer. Serves nothing yet: see
    /// [`status`](Self::status).
    ///
    /// On return everything that the log had on this node's storage is in the maps.
    ///
    /// # Errors
    /// The directory is somebody else's, what is in it is damaged, or the ring or the silence cannot be.
    pub fn open(config: DatasetConfig, keys: KeySet) -> Result<Self, OpenError> {
        if !(2..=DatasetConfig::PLACES_MAX).contains(&config.places) {
            return Err(OpenError::Places { places: config.places });
        }
        if !(DatasetConfig::SILENCE_MIN..=DatasetConfig::SILENCE_MAX).contains(&config.silence) {
            return Err(OpenError::Silence { silence: config.silence });
        }
        let directory = Directory::open(&config.directory, config.id, &config.node, config.layout, true)?;
        let files = SegmentFiles::open(&directory.segments(), config.layout)?;
        // It is made before any segment is, and never goes: a log without one has lost it.
        let is_empty = files.list()?.is_empty();
        let path = directory.checkpoint();
        let mark = DurableMark::open(&config.directory, config.id);
        let mut note = Note::open(&config.directory)?;
        // Segments that were brought here before the node was: it lacks less of the peer's log then, and has none of its own. That is noted
        // before there is a checkpoint, with which they would be its own after a crash.
        let was_seeded = note.from() == Some(Position::default()) && !path.exists();
        let is_seeded = !is_empty && (directory.is_new() || was_seeded);
        if is_seeded {
            note.write(Position::default(), &mark)?;
        }
        let is_new = is_empty || is_seeded;
        let checkpoint = Checkpoint::open(&path, config.id, is_new);
        let checkpoint = checkpoint.map_err(|error| OpenError::Checkpoint { path, error })?;
        let path = directory.marker();
        let begins = is_new && checkpoint.snapshot().position == Lsn::ZERO;
        let marker = Marker::open(&path, config.id, begins);
        let marker = marker.map_err(|error| OpenError::Checkpoint { path, error })?;
        let start = checkpoint.snapshot().clone();
        let position = start.position;
        let found = recover_noted(&files, &config, start, &mut note, &mark)?;
        let register = LocalRegister::open(&config.directory)?;
        let mut holder =
            HolderConfig::new(config.listen.clone(), RingMemory::region_bytes(config.layout, config.places));
        holder.lock = config.lock;
        holder.silence = holder.silence.max(config.silence);
        let state = State {
            role: Role::Undecided,
            volumes: found.volumes,
            position: found.position,
            epoch: 1,
            reason: Reason::new("starting", "looks for the peer"),
            checkpoint: position,
            marker: marker.position(),
            stopping: false,
        };
        let sums = Sums::new(config.layout, SUMS_BYTES_MAX);
        let peer =
            Peer::new(config.peer.clone(), keys.clone(), config.id, config.node.clone(), config.layout);
        let engine = Arc::new(Engine::new(config, state, files, mark, sums, Health::new(peer)));
        let pair = Arc::new(Pair::new(engine, keys.clone(), register, checkpoint, marker, note));
        pair.set_holder(Holder::start_with(holder, keys, Arc::new(PairGate(Arc::downgrade(&pair))))?);
        let dataset = Self { pair, threads: Mutex::default(), _directory: directory };
        dataset.start("mirrorbus-tender", |pair| Tender::new(pair.engine.config.ring_bytes()).run(pair))?;
        dataset.start("mirrorbus-keeper", |pair| Keeper::new(pair).run(pair))?;
        dataset.start("mirrorbus-resync", |pair| Puller::new().run(pair))?;
        dataset.start("mirrorbus-mender", Pair::run_mender)?;
        if dataset.config().arbiter.is_some() {
            dataset.start("mirrorbus-lease", Pair::run_lease)?;
            dataset.start("mirrorbus-looks", Pair::run_looks)?;
        }
        dataset.start("mirrorbus-pair", |pair| {
            while !pair.stopping.load(Ordering::SeqCst) {
                let rest = pair.tick();
                pair.bell.nap(rest);
            }
        })?;
        Ok(dataset)
    }

    fn start(&self, name: &str, work: impl FnOnce(&Pair) + Send + 'static) -> std::io::Result<()> {
        let pair = self.pair.clone();
        let thread = Builder::new().name(name.into()).spawn(move || work(&pair))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.pair.engine
    }

    /// How it was opened.
    #[must_use]
    pub fn config(&self) -> &DatasetConfig {
        &self.engine().config
    }

    /// How it is. Does not wait for anything that may hang.
    #[must_use]
    pub fn status(&self) -> DatasetStatus {
        status::of(&self.pair)
    }

    /// Whether a checkpoint is being written or room given back just now: for those who want to know what that costs.
    #[must_use]
    pub fn is_keeping(&self) -> bool {
        self.engine().shared.keeping.load(Ordering::Relaxed)
    }

    /// The volumes, served here or not.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let state = self.engine().shared.lock();
        state.volumes.entries().iter().map(super::volumes::Entry::info).collect()
    }

    /// Opens a volume, where this node serves.
    ///
    /// # Errors
    /// It does not serve, or has no such volume.
    pub fn volume(&self, name: &str) -> Result<Volume, IoError> {
        let mut state = self.engine().shared.lock();
        let epoch = state.epoch;
        state.serving(epoch)?;
        let entry = state.volumes.find(name)?;
        let (id, block_size) = (entry.id, entry.map.block_size());
        Ok(Volume { engine: self.engine().clone(), epoch, id, block_size })
    }

    /// Makes a volume of `bytes`, all zeroes. On return both nodes have it, as they have a write that was acknowledged.
    ///
    /// # Errors
    /// This node does not serve, or the name or size cannot be.
    pub fn create_volume(&self, name: &str, bytes: u64, block_size: BlockSize) -> Result<(), CommandError> {
        let epoch = self.engine().shared.lock().epoch;
        self.engine().create_volume(epoch, name, bytes, block_size)
    }

    /// Gives a volume another size; what is cut off is gone, what is added reads as zeroes.
    ///
    /// # Errors
    /// As [`create_volume`](Self::create_volume).
    pub fn resize_volume(&self, name: &str, bytes: u64) -> Result<(), CommandError> {
        let engine = self.engine();
        let (epoch, id, blocks) = {
            let state = engine.shared.lock();
            let entry = state.volumes.find(name)?;
            (state.epoch, entry.id, blocks_of(bytes, entry.map.block_size())?)
        };
        engine.change(epoch, id, &VolumeChange::Resize { blocks })
    }

    /// Ends a volume; its room is given back.
    ///
    /// # Errors
    /// As [`create_volume`](Self::create_volume).
    pub fn delete_volume(&self, name: &str) -> Result<(), CommandError> {
        let engine = self.engine();
        let (epoch, id) = {
            let state = engine.shared.lock();
            (state.epoch, state.volumes.find(name)?.id)
        };
        engine.change(epoch, id, &VolumeChange::Delete)
    }

    /// Makes this node serve, by the operator's word that the peer does not. See `docs/operations.md`.
    ///
    /// # Errors
    /// The peer serves, or this node may lack acknowledged writes.
    pub fn promote(&self, flushed_only: bool) -> Result<(), CommandError> {
        self.pair.promote(flushed_only)
    }

    /// Makes this primary go on without the peer, by the operator's word that that does not serve. On return everything that was
    /// acknowledged is durable here, and every write is from then on before it is, until the peer has come back.
    ///
    /// # Errors
    /// The peer serves, or this node does not, or its disk failed: then nothing is decided.
    pub fn alone(&self) -> Result<(), CommandError> {
        self.pair.go_alone()
    }

    /// Hands the service over to the member that follows. On return the other node serves, and this one has ended its clients' requests, unanswered,
    /// and has on its disk what it took. What was acknowledged is with both; the other one acknowledges what is on its own disk, until this one has
    /// followed and caught up, which comes by itself.
    ///
    /// # Errors
    /// This node serves on, if it can: there is no mediator, or it does not answer; the peer is no member, or did not take over.
    pub fn switch(&self) -> Result<Switched, CommandError> {
        self.pair.switch()
    }

    /// Lets a peer without any log in although there was one that had it, by the operator's word that it is a new node. Holds until it
    /// has become a member.
    ///
    /// # Errors
    /// The peer has a log, or follows already; or this node has none to give it.
    pub fn replace_peer(&self) -> Result<(), CommandError> {
        self.pair.replace_peer()
    }

    /// Gives the mediator this node's configuration, by the operator's word that it is the one that counts: for a mediator that lost its
    /// state. On return the mediator has it on its disk.
    ///
    /// # Errors
    /// There is no mediator, or none answers, or it has a configuration of its own; or this node has none to give.
    pub fn seed(&self) -> Result<(), CommandError> {
        self.pair.seed()
    }

    /// Whether this node may be stopped now without that the volumes lose service or data. Asks the peer and the mediator; changes nothing.
    #[must_use]
    pub fn can_stop(&self) -> CanStop {
        self.pair.can_stop()
    }

    /// Reads all that is stored on this node and compares it with its checksums, while it is served. With `repairs` what is bad is written
    /// again from the peer's data, wherever that matches its checksum. Takes as long as reading takes.
    ///
    /// # Errors
    /// Another check is under way, or the dataset ends.
    pub fn scrub(&self, repairs: bool) -> Result<Scrubbed, CommandError> {
        self.pair.scrub(repairs)
    }

    /// Compares what both nodes have stored, of one volume or of all, while it is served. With `repairs` what is bad on one side is
    /// written again from the other, where that matches its checksum.
    ///
    /// # Errors
    /// There is no peer in step, it does not answer, or another check is under way.
    pub fn verify(&self, volume: Option<&str>, repairs: bool) -> Result<Verified, CommandError> {
        self.pair.verify(volume, repairs)
    }

    /// What happened to stored data since the last call, for operators.
    #[must_use]
    pub fn take_notes(&self) -> Vec<health::Note> {
        self.engine().health.take_notes()
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        self.pair.stopping.store(true, Ordering::SeqCst);
        self.engine().shared.lock().stopping = true;
        self.engine().shared.tell();
        self.engine().shared.bell().ring();
        self.pair.bell.ring();
        self.pair.leases.ring();
        self.pair.looks.ring();
        self.pair.keeper.ring();
        self.engine().health.bell.ring();
        self.engine().health.resting.ring();
        self.pair.puller.ring();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
        // The link is closed before the holder ends, so that the peer is told.
        self.engine().shared.lock().role = Role::Failed { why: "the dataset was closed".into() };
    }
}

impl Engine {
    pub(super) fn create_volume(
        &self,
        epoch: u64,
        name: &str,
        bytes: u64,
        block_size: BlockSize,
    ) -> Result<(), CommandError> {
        let (id, blocks) = {
            let state = self.shared.lock();
            (VolumeId(state.volumes.next()), state.volumes.check_new(name, bytes, block_size)?)
        };
        self.change(epoch, id, &VolumeChange::Create { name: name.to_owned(), block_size, blocks })
    }

    /// Writes a change of the table of volumes to the log, and waits until it is committed.
    fn change(&self, epoch: u64, id: VolumeId, change: &VolumeChange) -> Result<(), CommandError> {
        let bytes: [u8; CHANGE_BYTES] = change.encode();
        let request = Request {
            kind: RecordKind::Volume,
            volume: id,
            block: BlockNumber(0),
            blocks: 1,
            block_size: BlockSize::Large,
        };
        let mut state = self.shared.lock();
        let end = loop {
            self.hold(epoch, state.serving(epoch)?)?;
            let State { role: Role::Primary(primary), volumes, .. } = &mut *state else {
                return Err(IoError::RoleChanged.into());
            };
            check(volumes, id, change)?;
            match primary.log.append(request, &mut Payload::Bytes(&bytes)) {
                Ok(appended) => {
                    volumes.apply(&appended.record(&request), Some(change.clone()))?;
                    primary.emptied = appended.end;
                    break appended.end;
                }
                Err(full) => state = self.wait_for_room(state, epoch, full, &|| false)?,
            }
        };
        drop(state);
        Ok(self.commit(epoch, Mark(end.0), &|| false)?)
    }
}

/// Whether a change still fits, after the lock was let go.
fn check(volumes: &Volumes, id: VolumeId, change: &VolumeChange) -> Result<(), VolumeError> {
    match change {
        VolumeChange::Create { name, block_size, blocks } => {
            volumes.check_new(name, blocks << block_size.shift(), *block_size)?;
            if id.0 < volumes.next() { Err(VolumeError::Again(id)) } else { Ok(()) }
        }
        VolumeChange::Resize { .. } | VolumeChange::Delete => {
            volumes.get(id).map(|_| ()).ok_or(VolumeError::UnknownId(id))
        }
    }
}
