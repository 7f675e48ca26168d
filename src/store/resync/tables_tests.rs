//! Tables that were asked for together: an answer counts as far as it can be right, and a primary that does not know the question is asked for one
//! at a time.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::base::{BlockNumber, BlockSize, FabricUrl, Generation, LogGeneration, VolumeId};
use crate::memory::LockPolicy;
use crate::node::{Attaching, HolderConfig, HolderGate};
use crate::replica::pack_sparse;
use crate::store::follower::Secondary;
use crate::store::medium::Holder;
use crate::store::pair::rig::pair;
use crate::store::register::Position;
use crate::store::resync::Staging;
use crate::store::resync::wire::{DAMAGED, UNCLEAR};
use crate::store::ring_memory::RingMemory;
use crate::store::state::Role;
use crate::volume::BlockMap;

const SEGMENT: u64 = 1 << 20;

fn wanted(segment: u64, digest: Option<&str>) -> WantedTable {
    WantedTable { base: segment * SEGMENT, digest: digest.map(str::to_owned) }
}

fn base(segment: u64) -> Lsn {
    Lsn(segment * SEGMENT)
}

#[test]
fn an_answer_tells_of_no_more_than_was_asked_for_and_the_window_has() {
    let asked = [wanted(1, Some("a")), wanted(2, None), wanted(3, Some("c"))];
    let told = |bytes: &[Option<usize>]| bytes_told(&asked, bytes).map_err(|error| error.to_string());
    assert_eq!(told(&[]), Ok(0));
    assert_eq!(told(&[None, Some(10), None]), Ok(10));
    assert_eq!(told(&[Some(1), Some(WINDOW_BYTES - 1)]), Ok(WINDOW_BYTES));
    for (bytes, why) in [
        (&[None, Some(1), None, None][..], "4 tables came, 3 were asked for"),
        (&[None, None], "the same"),
        (&[Some(1), Some(0)], "0 bytes"),
        (&[Some(WINDOW_BYTES), Some(1)], "in a window of 1048576"),
        (&[Some(usize::MAX), Some(usize::MAX)], "in a window of 1048576"),
    ] {
        let error = bytes_told(&asked, bytes).unwrap_err();
        assert!(matches!(&error, PullError::Wrong(text) if text.contains(why)), "{error}");
    }
}

#[test]
fn what_was_told_counts_once_and_beside_the_file_that_it_was_told_of() {
    let asked =
        || [(1, Some("a")), (2, None), (3, Some("c")), (4, None)].map(|(at, of)| wanted(at, of)).to_vec();
    let mut tables = Tables::default();
    tables.enter(asked(), &[None, Some(2), Some(3)], &[2, 2, 3, 3, 3]);
    assert_eq!(tables.untold, [wanted(4, None)]);
    assert!(tables.has(base(1)) && tables.has(base(3)) && !tables.has(base(4)));
    assert_eq!(tables.take(base(1), Some("a")).map(|told| told.bytes), Some(None));
    assert_eq!(tables.take(base(1), Some("a")), None, "it was given out");
    assert_eq!(tables.take(base(2), Some("changed")), None);
    assert_eq!(tables.take(base(3), Some("c")).map(|told| told.bytes), Some(Some(vec![3, 3, 3])));
    tables.enter(asked(), &[None, Some(2), Some(3)], &[2, 2, 3, 3, 3]);
    assert_eq!(tables.take(base(2), None).map(|told| told.bytes), Some(Some(vec![2, 2])));
    assert!(!tables.has(base(1)) && tables.has(base(3)), "what lies before is over");
    tables.clear();
    assert!(!tables.has(base(3)) && tables.untold.is_empty());
}

/// What a primary answers, or the word with which it refuses.
type Answers = dyn Fn(&Ask) -> Result<Reply, &'static str> + Send + Sync;

/// A primary that remembers what it was asked.
struct Primary {
    answers: Box<Answers>,
    asked: Arc<Mutex<Vec<Ask>>>,
}

impl HolderGate for Primary {
    fn may_attach(&self, _: Attaching) -> Result<(), String> {
        Err("there is nothing here".into())
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let question: serde_json::Value = serde_json::from_slice(request).unwrap();
        let ask: Ask = serde_json::from_value(question["Resync"]["ask"].clone()).unwrap();
        let answer = match (self.answers)(&ask) {
            Ok(reply) => serde_json::json!({ "Resync": reply }),
            Err(code) => serde_json::json!({ "Refused": { "code": code, "text": "a test says so" } }),
        };
        self.asked.lock().unwrap().push(ask);
        answer.to_string().into_bytes()
    }
}

/// A node that is resynced by such a primary, and lacks something of each of twenty segments.
struct Resynced {
    pair: Pair,
    session: Session,
    plan: Plan,
    puller: Puller,
    asked: Arc<Mutex<Vec<Ask>>>,
    _primary: Holder,
}

impl Resynced {
    fn new(
        directory: &Path,
        answers: impl Fn(&Ask) -> Result<Reply, &'static str> + Send + Sync + 'static,
    ) -> Self {
        let pair = pair(directory);
        let config = &pair.engine.config;
        let region_bytes = RingMemory::region_bytes(config.layout, config.places);
        let holder = |url: &FabricUrl, size, gate: Arc<dyn HolderGate>| {
            let mut config = HolderConfig::new(url.clone(), size);
            config.lock = LockPolicy::Off;
            Holder::start_with(config, pair.keys().clone(), gate).unwrap()
        };
        let asked = Arc::<Mutex<Vec<Ask>>>::default();
        let nobody = Primary { answers: Box::new(|_| Err("nobody")), asked: Arc::default() };
        let own = holder(&config.listen, region_bytes, Arc::new(nobody));
        let primary = Primary { answers: Box::new(answers), asked: asked.clone() };
        let primary = holder(&config.peer, 4096, Arc::new(primary));
        pair.set_holder(own);
        let (end, generation) = (Lsn(SEGMENT), LogGeneration(1));
        let mut secondary = Secondary::new(end, generation, end, Generation::default());
        secondary.resync = Some(Box::new(Staging::new(7, Position::default())));
        pair.engine.shared.lock().role = Role::Secondary(Box::new(secondary));
        let mut map = BlockMap::new(BlockSize::Large, 1000);
        (1..=20).for_each(|at| map.write(BlockNumber(at), 1, base(at).plus(8192)));
        let plan = Plan::new(pair.engine.layout(), &(Lsn::ZERO..Lsn::MAX), [(VolumeId(0), None, &map)]);
        let session = Session::for_tests(Lsn::ZERO, base(30));
        Self { pair, session, plan, puller: Puller::new(), asked, _primary: primary }
    }

    /// What lies in the window.
    fn put(&self, bytes: &[u8]) {
        let config = &self.pair.engine.config;
        let memory = self.pair.holder().unwrap().memory();
        RingMemory::new(memory, config.layout, config.places).window().1.write(0, bytes);
    }

    fn ask_for(&mut self, segment: u64) -> Result<(), PullError> {
        self.puller.ask_for_tables(&self.pair, &self.session, &self.plan, base(segment))
    }

    fn table(&mut self, segment: u64) -> Result<Option<Vec<u8>>, PullError> {
        self.puller.their_table(&self.pair, &self.session, base(segment), None)
    }

    /// The segments of each question since the last look; one alone says so.
    fn asked(&self) -> Vec<(&'static str, Vec<u64>)> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        let segments = |ask| match ask {
            Ask::Table { base, .. } => ("alone", vec![base / SEGMENT]),
            Ask::Tables { wanted } => {
                ("several", wanted.iter().map(|wanted| wanted.base / SEGMENT).collect())
            }
            other => panic!("{other:?}"),
        };
        asked.into_iter().map(segments).collect()
    }
}

#[test]
fn the_tables_of_several_segments_are_asked_for_once() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (vec![1; 128], [vec![2; 128], vec![0; 4096]].concat());
    let packed = [&first, &second].map(|table| pack_sparse(table, WINDOW_BYTES).unwrap());
    let bytes = packed.iter().map(|packed| Some(packed.len())).collect::<Vec<_>>();
    let mut node = Resynced::new(directory.path(), move |ask| match ask {
        Ask::Tables { .. } => Ok(Reply::Tables { bytes: bytes.clone() }),
        _ => Err(UNCLEAR),
    });
    node.put(&packed.concat());
    node.pair.verified().insert(base(5));
    node.ask_for(1).unwrap();
    assert_eq!(node.asked(), [("several", (1..=17).filter(|segment| *segment != 5).collect())]);
    node.put(&[0; 300]);
    assert_eq!(node.table(1).unwrap(), Some(first));
    node.ask_for(2).unwrap();
    assert_eq!(node.table(2).unwrap(), Some(second));
    assert!(node.asked().is_empty());
    // And on, to the end of the plan.
    node.ask_for(16).unwrap();
    assert_eq!(node.asked(), [("several", (16..=20).collect())]);
    // What was told counts no more when it is all looked at again.
    node.puller.give_up_gathered();
    node.ask_for(16).unwrap();
    assert_eq!(node.asked(), [("several", (16..=20).collect())]);
}

#[test]
fn a_table_that_is_not_told_with_others_is_asked_for_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Resynced::new(directory.path(), |ask| match ask {
        Ask::Tables { .. } => Ok(Reply::Tables { bytes: Vec::new() }),
        _ => Err(DAMAGED),
    });
    for segment in [1, 2] {
        node.ask_for(segment).unwrap();
        let error = node.table(segment).unwrap_err();
        assert!(matches!(&error, PullError::Refused { code, .. } if code == DAMAGED), "{error}");
        let several = (segment..segment + 16).collect();
        assert_eq!(node.asked(), [("several", several), ("alone", vec![segment])]);
    }
}

#[test]
fn an_older_primary_is_asked_for_one_table_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Resynced::new(directory.path(), |ask| match ask {
        Ask::Table { .. } => Ok(Reply::Table { bytes: 10, all: 10 }),
        _ => Err(UNCLEAR),
    });
    node.put(&[7; 10]);
    for segment in 1..=3 {
        node.ask_for(segment).unwrap();
        assert_eq!(node.table(segment).unwrap(), Some(vec![7; 10]));
        node.puller.give_up_gathered();
    }
    let alone = |segment| ("alone", vec![segment]);
    assert_eq!(node.asked(), [("several", (1..=16).collect()), alone(1), alone(2), alone(3)]);
}

#[test]
fn a_table_that_is_not_packed_or_longer_than_its_segment_is_refused() {
    for packed in [Some(vec![1; 10]), pack_sparse(&vec![0; 2 << 20], 8), pack_sparse(&[], 0)] {
        let packed = packed.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bytes = vec![Some(packed.len().max(1))];
        let mut node = Resynced::new(directory.path(), move |_| Ok(Reply::Tables { bytes: bytes.clone() }));
        node.put(&[&packed[..], &[0xff]].concat());
        node.ask_for(1).unwrap();
        let error = node.table(1).unwrap_err();
        assert!(matches!(&error, PullError::Wrong(text) if text.contains("packed")), "{error}");
    }
}

#[test]
fn what_a_primary_refuses_or_cannot_mean_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Resynced::new(directory.path(), |_| Err("no-session"));
    let error = node.ask_for(1).unwrap_err();
    assert!(matches!(&error, PullError::Refused { code, .. } if code == "no-session"), "{error}");
    for reply in [Reply::SameTable, Reply::Tables { bytes: vec![None] }] {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Resynced::new(directory.path(), move |_| Ok(reply.clone()));
        let error = node.ask_for(1).unwrap_err();
        assert!(matches!(error, PullError::Wrong(_)), "{error}");
        assert!(!node.puller.tables.has(base(1)));
    }
}
