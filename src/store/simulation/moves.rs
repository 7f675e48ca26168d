//! Who serves, and how the other comes to follow: what the operator and the threads of the pair do, with the shipped parts of it.

use std::cell::RefCell;
use std::rc::Rc;

use super::node::{Node, Role, new_memory};
use super::wire::SimulatedWire;
use super::world::{BLOCKS, Done, NAMES, VOLUME, World, trace};
use super::{DATASET, Defect, PLACES, layout};
use crate::base::{BlockNumber, BlockSize, Generation, Lsn};
use crate::segment::{RecordKind, Request};
use crate::sim::Network;
use crate::store::bring_back::bring_back;
use crate::store::checkpoint::Snapshot;
use crate::store::follower::{Secondary, Stage};
use crate::store::link::Link;
use crate::store::log::Payload;
use crate::store::log_files::LogFiles;
use crate::store::primary::Mode;
use crate::store::recover::{recover, start_before};
use crate::store::register::Position;
use crate::store::ring_memory::{RingMemory, WINDOW_BYTES};
use crate::store::volumes::VolumeChange;

impl World {
    /// A step of whoever decides: the operator, and the pairs' threads.
    pub(super) fn decide(&mut self) {
        let any = usize::from(self.random.chance(50));
        if !self.is_up(any) {
            let _ = self.nodes[any].start();
            return;
        }
        let Some(at) = self.serving.filter(|at| self.nodes[*at].primary().is_some()) else {
            let _ = self.choose();
            return;
        };
        let mode = self.nodes[at].primary().map(|primary| primary.mode.clone());
        match mode {
            Some(Mode::Alone) if self.is_up(1 - at) => {
                let _ = self.invite(at);
            }
            Some(Mode::CatchingUp { .. }) => {
                self.push();
                let primary = self.nodes[at].primary().expect("it serves");
                if primary.is_caught_up() && primary.begin_to_set_in() {
                    self.members = [true; 2];
                }
            }
            Some(Mode::SettingIn) => {
                let primary = self.nodes[at].primary().expect("it serves");
                if primary.be_mirrored() {
                    self.counts.set_in += 1;
                }
            }
            Some(Mode::Held { .. }) if self.random.chance(40) => {
                let _ = self.go_alone(at);
            }
            Some(Mode::Alone | Mode::Mirrored | Mode::Held { .. }) | None => {}
        }
    }

    /// The own disk has what was acknowledged before the register says that it counts alone.
    fn go_alone(&mut self, at: usize) -> Done {
        self.lose_link();
        self.network = None;
        let node = &mut self.nodes[at];
        let committed = node.primary().expect("it serves").begin_to_leave();
        while node.primary().expect("it serves").log.own_durable() < committed {
            let primary = node.primary().expect("it serves");
            primary.log.pad();
            primary.push();
            while node.write_one(u64::MAX)? {}
            node.sync()?;
        }
        let marked = node.primary().expect("it serves").marked();
        node.files.mark(&mut node.places, marked)?;
        // It may die with more on its disk than the other has, which goes on then.
        if self.random.chance(40) {
            self.crash(at);
            return Ok(());
        }
        self.members = [at == 0, at == 1];
        self.nodes[at].primary().expect("it serves").be_alone();
        Ok(())
    }

    /// Nobody serves: whoever may and can begins.
    fn choose(&mut self) -> Done {
        let follows =
            |node: &mut Node| node.secondary().is_some_and(|s| matches!(s.stage, Stage::Following(_)));
        let up = [self.is_up(0), self.is_up(1)];
        let kept = [0, 1].map(|at| follows(&mut self.nodes[at]));
        let alone = self.members.iter().filter(|member| **member).count() == 1;
        let may = |at: usize| self.members[at] && up[at];
        let position = |world: &Self, at: usize| {
            let position = world.nodes[at].position();
            (position.generation, position.end)
        };
        let (chosen, least) = match (may(0), may(1)) {
            (true, false) | (false, true) if alone => (usize::from(may(1)), self.acked),
            // One whose memory has everything takes over from one that is gone.
            (true, _) if kept[0] && self.serving == Some(1) => (0, self.acked),
            (_, true) if kept[1] && self.serving == Some(0) => (1, self.acked),
            (true, true) => (usize::from(position(self, 1) > position(self, 0)), self.flushed),
            (true | false, false) | (false, true) => return Ok(()),
        };
        self.deliver(0);
        self.nodes[chosen].drain()?;
        let theirs = if up[1 - chosen] { self.nodes[1 - chosen].position() } else { Position::default() };
        self.nodes[chosen].serve(theirs, NAMES[chosen])?;
        let end = self.nodes[chosen].up().position.end();
        assert!(end >= least, "{} has the log to {end}, promised was {least}", NAMES[chosen]);
        trace(|| format!("{} serves from {end}", NAMES[chosen]));
        self.counts.promotions += u64::from(self.serving == Some(1 - chosen));
        (self.serving, self.members) = (Some(chosen), [chosen == 0, chosen == 1]);
        self.network = None;
        // What nobody was promised and did not come through is void.
        self.ops.retain(|op| op.end <= end);
        (self.acked, self.flushed, self.flush_to) = (end, end, end);
        if end == Lsn::ZERO {
            self.create_volume(chosen);
        }
        Ok(())
    }

    fn create_volume(&mut self, at: usize) {
        let change =
            VolumeChange::Create { name: "root".into(), block_size: BlockSize::Small, blocks: BLOCKS };
        let (kind, block_size) = (RecordKind::Volume, BlockSize::Large);
        let request = Request { kind, volume: VOLUME, block: BlockNumber(0), blocks: 1, block_size };
        let up = self.nodes[at].up();
        let Role::Primary(primary) = &mut up.role else { return };
        let appended = primary.log.append(request, &mut Payload::Bytes(&change.encode()));
        let record = appended.expect("the ring is empty").record(&request);
        up.volumes.apply(&record, Some(change)).expect("there is none");
    }

    /// Lets the other node in, as far as it goes: by the ring, or by a resync.
    fn invite(&mut self, at: usize) -> Done {
        let other = 1 - at;
        let generation = self.nodes[at].position().generation();
        self.nodes[other].drain()?;
        let theirs = self.nodes[other].position();
        let fork = self.nodes[at].register.common(&theirs, generation);
        let fork = fork.expect("the register lets nobody diverge");
        self.truncate(other, fork)?;
        let register = self.nodes[at].register.clone();
        let node = &mut self.nodes[other];
        node.register = node.register.with_history(&register.history);
        let position = node.position();
        let end = position.end();
        let secondary = Secondary::new(end, position.generation(), Lsn(position.highest), Generation(0));
        (node.up().role, node.up().position) = (Role::Secondary(Box::new(secondary)), position);
        let Node { files, up, .. } = &mut self.nodes[at];
        let Some(Role::Primary(primary)) = up.as_mut().map(|up| &mut up.role) else { return Ok(()) };
        let memory = primary.log.memory().clone();
        let resident: Vec<_> = primary.log.resident().copied().collect();
        let brought = bring_back(files, DATASET, &memory, end, &resident).expect("it reads");
        primary.log.adopt(brought);
        let noted = self.nodes[other].note.is_some();
        let primary = self.nodes[at].primary().expect("it serves");
        if !noted && primary.meet(DATASET, end, end) {
            return self.attach(at);
        }
        self.resync(at, end)
    }

    fn truncate(&mut self, at: usize, fork: Lsn) -> Done {
        let node = &mut self.nodes[at];
        let before = node.position();
        if self.defect == Defect::KeepsVoid {
            return Ok(());
        }
        if before.end() <= fork {
            return if node.note.is_some() { Ok(()) } else { node.set_aside(before) };
        }
        let start = start_before(&node.checkpoint, Some(&node.marker), fork);
        let start = start.unwrap_or_else(|error| panic!("no way back: {error}"));
        let found = recover(&node.files, DATASET, layout(), start.clone(), Some(fork), None);
        let found = node.unless_off(found)?;
        let highest = before.highest.max(found.position.highest);
        let position = Position { highest, ..found.position };
        self.counts.unmarked += u64::from(node.places.marked().is_some_and(|marked| marked.durable > fork));
        node.write_note(position)?;
        if node.checkpoint.position > fork {
            node.checkpoint = start;
            self.counts.went_back += 1;
        }
        for base in node.files.list()?.into_iter().rev() {
            if found.heads.iter().all(|head| head.base != base) {
                node.files.remove(base)?;
            }
        }
        node.set_aside(position)?;
        let up = node.up();
        up.pending = None;
        (up.volumes, up.position, up.role) = (found.volumes, position, Role::Undecided);
        self.counts.truncated += 1;
        trace(|| format!("{} truncated to {fork}", NAMES[at]));
        Ok(())
    }

    /// The ring goes over as it is, and from then on what is appended.
    fn attach(&mut self, at: usize) -> Done {
        let primary = self.nodes[at].primary().expect("it serves");
        let (from, to) = (primary.log.memory().clone(), new_memory());
        let mut bytes = vec![0; RingMemory::region_bytes(layout(), PLACES) - WINDOW_BYTES];
        from.mapping().slice().read(0, &mut bytes);
        to.mapping().slice().write(0, &bytes);
        let network = Network::new(from.mapping().clone(), to.mapping().clone());
        let network = Rc::new(RefCell::new(network));
        self.nodes[1 - at].attach(to)?;
        let wire = SimulatedWire { network: network.clone(), defect: self.defect };
        self.nodes[at].primary().expect("it serves").attach(Link::new((), wire));
        self.network = Some(network);
        self.counts.attached += 1;
        trace(|| format!("{} attached", NAMES[1 - at]));
        Ok(())
    }

    /// Goes over everything that is lacking, by the plan, before the other follows. It may be cut at any write.
    fn resync(&mut self, at: usize, end: Lsn) -> Done {
        let (from, to) = if at == 0 {
            let [from, to] = &mut self.nodes;
            (from, to)
        } else {
            let [to, from] = &mut self.nodes;
            (from, to)
        };
        let position = from.primary().expect("it serves").log.pad();
        while from.primary().expect("it serves").log.own_durable() < position {
            from.primary().expect("it serves").push();
            while from.write_one(u64::MAX)? {}
            from.sync()?;
        }
        let note = to.note.unwrap_or(to.up.as_ref().expect("it is up").position);
        to.write_note(note)?;
        assert_eq!(note.end(), end, "what it had is what it has");
        let random = &mut self.random;
        let moved = super::resync::go_over(from, to, (end, position), random, self.defect);
        if moved.is_err() {
            self.counts.resync_cut += 1;
        }
        let volumes = moved?;
        let generation = from.position().generation();
        // What was void in the last segment must not count again. The checkpoint is what makes an end of it.
        to.cut(position)?;
        to.checkpoint = Snapshot { position, generation, volumes: volumes.clone() };
        to.note = None;
        let highest = Lsn(from.position().highest.max(to.position().highest));
        let up = to.up();
        up.volumes = volumes;
        up.position = Position { generation: generation.0, end: position.0, highest: highest.0 };
        let secondary = Secondary::new(position, generation, highest, Generation(0));
        (up.role, up.pending) = (Role::Secondary(Box::new(secondary)), None);
        let primary = from.primary().expect("it serves");
        let durable = primary.log.open_from(position);
        assert!(primary.meet(DATASET, position, durable), "the ring has the log's end");
        self.counts.resyncs += 1;
        trace(|| format!("{} resynced {end} to {position}", NAMES[1 - at]));
        self.attach(at)
    }
}
