//! Serving: to begin it, and to let the peer in.

use std::sync::Arc;
use std::time::Duration;

use super::hello::{Hello, RoleWord};
use super::meet::diverged;
use super::{FOLLOW_TIME, Pair};
use crate::base::clock::Instant;
use crate::base::{Lsn, Phase};
use crate::memory::{MapOptions, Mapping};
use crate::mirror::LaneConfig;
use crate::node::{Attach, RegionConfig, random_bytes};
use crate::segment::{GenerationBegin, Salt, SegmentHead};
use crate::store::bring_back::bring_back;
use crate::store::config::{CommandError, OpenError};
use crate::store::durable_mark::Marked;
use crate::store::link::Link;
use crate::store::log::{Begin, Log};
use crate::store::medium::Region;
use crate::store::primary::Primary;
use crate::store::register::{Fork, Position, Register};
use crate::store::ring_memory::RingMemory;
use crate::store::state::{Reason, Role, State};

/// How long the ring's way to the peer may stand still.
const PUSH_TIME: Duration = Duration::from_secs(10);
/// Stores in flight to the peer at most.
const LANE_DEPTH: usize = 1024;

impl Pair {
    /// Begins to serve, alone for now, with a generation of its own. `theirs` is what the peer has, if it could be asked.
    ///
    /// The role was settled before: whoever calls this holds `moves`, and the register names this node.
    pub(super) fn become_primary(&self, theirs: Option<Position>) -> Result<(), CommandError> {
        let memory = self.new_ring().map_err(CommandError::Open)?;
        self.become_primary_in(memory, theirs)
    }

    /// The same, with this memory for its ring.
    pub(super) fn become_primary_in(
        &self,
        memory: RingMemory,
        theirs: Option<Position>,
    ) -> Result<(), CommandError> {
        let engine = &self.engine;
        // What came is in the files before it is called durable there, and what came of a resync that has not ended is void.
        self.drain()?;
        self.forget_resync()?;
        let ours = super::position(&engine.shared.lock());
        let last = self.register().contents().history.last().map_or(0, |fork| fork.generation);
        let theirs = theirs.unwrap_or_default();
        let begin = GenerationBegin {
            generation: crate::base::LogGeneration(ours.generation.max(theirs.generation).max(last) + 1),
            predecessor: ours.generation(),
            fork: ours.end(),
            #[cfg(test)]
            ring_bytes: if crate::store::world::breaks(crate::store::world::Defect::BeginsTooNear) {
                0
            } else {
                engine.config.ring_bytes()
            },
            highest_known: Lsn(ours.highest.max(ours.end).max(theirs.highest).max(theirs.end)),
            #[cfg(not(test))]
            ring_bytes: engine.config.ring_bytes(),
        };
        self.outlast_leases();
        self.end_rest();
        let head = SegmentHead::first(engine.config.id, engine.layout(), begin, Phase(1), salt());
        engine.files.create(head.base).map_err(|error| CommandError::Open(error.into()))?;
        let fork = Fork {
            generation: begin.generation.0,
            predecessor: begin.predecessor.0,
            fork: begin.fork.0,
            by: engine.config.node.clone(),
        };
        {
            let mut register = self.register();
            let next = register.contents().with_fork(fork);
            let id = register.id();
            register.compare_and_set(id, next)?;
        }
        // What it has is acknowledged from its own disk from now on.
        engine.mark.write(Marked { generation: begin.predecessor, durable: begin.fork });
        let log = Log::begin(memory, Begin { head, durable: ours.end() }, salt);
        let mut state = engine.shared.lock();
        // Its files or its checkpoint may have failed since it was drained.
        state.still_in_service()?;
        state.role = Role::Primary(Box::new(Primary::new(log, begin.generation, ours.end())));
        state.epoch += 1;
        state.reason =
            Reason::new("alone", "serves alone: every write is durable here before it is acknowledged");
        let is_new = state.volumes.entries().is_empty() && ours.end == 0;
        let epoch = state.epoch;
        drop(state);
        engine.shared.tell();
        log::info!("{}: primary, generation {}, from {}", engine.config.name, begin.generation, head.base);
        if is_new {
            for spec in &engine.config.volumes {
                engine.create_volume(epoch, &spec.name, spec.bytes, spec.block_size)?;
            }
        }
        Ok(())
    }

    pub(super) fn new_ring(&self) -> Result<RingMemory, OpenError> {
        let config = &self.engine.config;
        let bytes = RingMemory::region_bytes(config.layout, config.places);
        let memory = Mapping::anonymous(bytes, MapOptions { huge_pages: true })?;
        memory.lock(config.lock)?;
        #[cfg(test)]
        let populates = !crate::sim::scheduler::is_simulated();
        #[cfg(not(test))]
        let populates = true;
        if populates {
            memory.populate();
        }
        Ok(RingMemory::new(Arc::new(memory), config.layout, config.places))
    }

    /// Looks for a peer that could follow, and lets it in.
    pub(super) fn invite(&self) {
        if let Err(reason) = self.try_to_invite() {
            self.explain(reason);
        }
    }

    fn try_to_invite(&self) -> Result<(), Reason> {
        self.end_carrier();
        if !self.refresh() {
            return Ok(());
        }
        if self.rests() {
            return Ok(());
        }
        let (_, theirs) = self.ask_hello()?;
        let _moves = self.moves();
        match theirs.role {
            RoleWord::Primary => {
                let text = format!("{} serves too: stop one of the two", theirs.node);
                return Err(Reason::new("two-primaries", text));
            }
            RoleWord::Failed => {
                return Err(Reason::new(
                    "peer-failed",
                    format!("{} is out of service: restart it", theirs.node),
                ));
            }
            RoleWord::Undecided | RoleWord::Secondary { .. } => {}
        }
        if let Some(reason) = self.refuse_empty(&theirs) {
            return Err(reason);
        }
        let fork = self.common(&theirs).ok_or_else(|| diverged(&theirs))?;
        let Some(configuration) = self.configuration() else {
            return Err(Reason::new("cannot-serve", "the register is empty"));
        };
        if !self.served_alone() {
            // Whoever follows under it would take itself for a member.
            let text =
                format!("the register names {:?}, though this node serves alone", configuration.members);
            return Err(Reason::new("cannot-serve", text));
        }
        let question = self.follow_question(self.hello(), configuration, fork);
        let end = self.ask_to_follow(&question, FOLLOW_TIME)?;
        self.attach(&theirs, end)
    }

    /// Pushes the ring, while nothing is appended, and opens the way for what comes. A peer that lacks more than the ring has is
    /// resynced.
    fn attach(&self, theirs: &Hello, end: Lsn) -> Result<(), Reason> {
        let engine = &self.engine;
        // Nobody waits for files to be looked through that are more than a ring has places for. What lies between two generations has none.
        let bases = engine.files.list().map_err(|error| Reason::new("cannot-read", error.to_string()))?;
        let behind =
            bases.iter().rev().take_while(|base| base.plus(engine.layout().segment_bytes()) > end).count();
        if behind as u64 > engine.config.places + 1 {
            return self.resync(theirs, end);
        }
        let frozen = Instant::now();
        let (memory, resident, epoch) = {
            let mut state = engine.shared.lock();
            let epoch = state.epoch;
            let State { role: Role::Primary(primary), .. } = &mut *state else { return Ok(()) };
            primary.log.set_frozen(true);
            (primary.log.memory().clone(), primary.log.resident().copied().collect::<Vec<_>>(), epoch)
        };
        let brought = bring_back(&engine.files, engine.config.id, &memory, end, &resident);
        let met = {
            let mut state = engine.shared.lock();
            let State { role: Role::Primary(primary), .. } = &mut *state else { return Ok(()) };
            brought.map_err(|error| Reason::new("cannot-read", error.to_string())).map(|heads| {
                primary.log.adopt(heads);
                primary.meet(engine.config.id, end, end)
            })
        };
        match met {
            Ok(true) => {
                let link = self.push(memory.mapping().clone());
                self.attached(epoch, frozen, link, |primary, link| {
                    primary.attach(link);
                    Reason::new("catching-up", format!("{} follows, and lacks some of the log", theirs.node))
                })
            }
            Ok(false) => {
                self.thaw();
                let waited = frozen.elapsed();
                self.resync(theirs, end).inspect_err(|_| self.rest_after_freeze(waited))
            }
            Err(reason) => {
                self.thaw();
                Err(reason)
            }
        }
    }

    /// Whatever was frozen goes on.
    pub(super) fn thaw(&self) {
        if let Role::Primary(primary) = &mut self.engine.shared.lock().role {
            primary.log.set_frozen(false);
        }
        self.engine.shared.tell();
    }

    /// The ring, frozen since then, was pushed, and goes on; with the way to the peer, if there is one, `attach` does, under the lock of the state.
    /// A peer that answers questions and takes no data is left alone for longer than it kept clients waiting.
    pub(super) fn attached<T>(
        &self,
        epoch: u64,
        frozen: Instant,
        link: Result<T, String>,
        attach: impl FnOnce(&mut Primary, T) -> Reason,
    ) -> Result<(), Reason> {
        let mut state = self.engine.shared.lock();
        let is_same = state.epoch == epoch;
        let State { role: Role::Primary(primary), reason, .. } = &mut *state else { return Ok(()) };
        primary.log.set_frozen(false);
        self.engine.shared.tell();
        match link {
            Ok(link) if is_same => {
                self.end_rest();
                *reason = attach(primary, link);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                primary.log.part();
                self.rest_after_freeze(frozen.elapsed());
                Err(Reason::new("attach-failed", format!("the peer cannot be attached: {error}")))
            }
        }
    }

    pub(super) fn push(&self, mapping: Arc<Mapping>) -> Result<Link, String> {
        let config = &self.engine.config;
        let mut region =
            RegionConfig::new(config.peer.clone(), mapping.len(), Attach::Push { replace: true });
        region.timeout = PUSH_TIME;
        region.lock = config.lock;
        region.silence = region.silence.max(config.silence);
        let region =
            Region::open_over(region, self.keys.clone(), mapping).map_err(|error| error.to_string())?;
        let lane = LaneConfig { depth: LANE_DEPTH, ..LaneConfig::default() };
        let lane = region.lane(lane).map_err(|error| error.to_string())?;
        Ok(Link::new(region, lane))
    }
}

/// Random bytes for a segment's checksums.
fn salt() -> Salt {
    Salt(random_bytes().expect("the system has random bytes"))
}
