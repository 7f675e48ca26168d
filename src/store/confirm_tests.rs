//! What confirms an answer, over a medium that does what it is told, when it is told.

use std::sync::{Arc, Mutex};

use super::*;
use crate::base::{BlockNumber, BlockSize, DatasetId, LogGeneration, Phase, Sequence, VolumeId};
use crate::memory::{MapOptions, Mapping};
use crate::segment::{GenerationBegin, RecordKind, Request, Salt, SegmentHead, SegmentLayout};
use crate::store::link::Link;
use crate::store::log::{Begin, Log, Payload};
use crate::store::ring_memory::RingMemory;

const PLACES: u64 = 4;
const DATASET: DatasetId = DatasetId::from_bytes([4; 16]);

#[derive(Debug, Default)]
pub(in crate::store) struct Medium {
    handed: u64,
    acked: u64,
    looks: u32,
    is_under_way: bool,
    /// Looks are done as soon as they are begun, as in shared memory.
    is_near: bool,
    is_lost: bool,
}

#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Told(Arc<Mutex<Medium>>);

impl Told {
    fn medium<T>(&self, work: impl FnOnce(&mut Medium) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    fn used<T>(&self, work: impl FnOnce(&mut Medium) -> T) -> Result<T, String> {
        self.medium(|medium| if medium.is_lost { Err("lost".into()) } else { Ok(work(medium)) })
    }

    fn looks(&self) -> u32 {
        self.medium(|medium| medium.looks)
    }

    /// The look under way is done.
    fn bring(&self) {
        self.medium(|medium| assert!(std::mem::take(&mut medium.is_under_way), "none is under way"));
    }
}

impl Wire for Told {
    fn hand_over(&mut self, _: usize, _: usize) -> Result<Option<Sequence>, String> {
        self.used(|medium| {
            medium.handed += 1;
            Some(Sequence(medium.handed))
        })
    }

    fn store(&mut self, _: usize, _: &[u8]) -> Result<bool, String> {
        self.used(|medium| {
            medium.handed += 1;
            true
        })
    }

    fn acked(&mut self) -> Result<Sequence, String> {
        self.used(|medium| Sequence(medium.acked))
    }

    fn fetch(&mut self, _: usize, _: usize) -> Result<bool, String> {
        self.used(|medium| {
            assert!(!medium.is_under_way, "two at a time");
            medium.looks += 1;
            medium.is_under_way = !medium.is_near;
            true
        })
    }

    fn has_fetched(&mut self) -> Result<bool, String> {
        self.used(|medium| !medium.is_under_way)
    }
}

/// A primary with its member beside it.
pub(in crate::store) fn mirrored() -> (Primary<(), Told>, Told) {
    let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
    let bytes = RingMemory::region_bytes(layout, PLACES);
    let memory = Arc::new(Mapping::anonymous(bytes, MapOptions::default()).unwrap());
    let begin = GenerationBegin {
        generation: LogGeneration(1),
        predecessor: LogGeneration(0),
        fork: Lsn::ZERO,
        highest_known: Lsn::ZERO,
        ring_bytes: PLACES << 16,
    };
    let salt = || Salt([7; 16]);
    let head = SegmentHead::first(DATASET, layout, begin, Phase(1), salt());
    let log = Log::begin(RingMemory::new(memory, layout, PLACES), Begin { head, durable: Lsn::ZERO }, salt);
    let mut primary = Primary::new(log, LogGeneration(1), Lsn::ZERO);
    append(&mut primary);
    assert!(primary.meet(DATASET, Lsn::ZERO, Lsn::ZERO));
    let told = Told::default();
    primary.attach(Link::new((), told.clone()));
    primary.mode = Mode::Mirrored;
    primary.push();
    (primary, told)
}

fn append(primary: &mut Primary<(), Told>) -> Lsn {
    let (kind, volume, block) = (RecordKind::Write, VolumeId(0), BlockNumber(0));
    let request = Request { kind, volume, block, blocks: 1, block_size: BlockSize::Large };
    primary.log.append(request, &mut Payload::Bytes(&[7; 4096])).unwrap().end
}

fn ack(primary: &mut Primary<(), Told>, told: &Told) {
    told.medium(|medium| medium.acked = medium.handed);
    primary.push();
}

#[test]
fn a_read_is_confirmed_by_a_look_that_was_begun_behind_it() {
    let (mut primary, told) = mirrored();
    let seen = primary.committed();
    // One that was asked for before says nothing of what comes now.
    primary.ask_peer();
    let proof = primary.proof(seen);
    assert_eq!(proof, Proof::Look(2));
    told.bring();
    assert!(!primary.is_confirmed(proof), "by a look of before");
    assert_eq!(told.looks(), 2, "the next is under way");
    assert!(!primary.is_confirmed(proof));
    assert_eq!(told.looks(), 2, "and no further one");
    told.bring();
    assert!(primary.is_confirmed(proof));
    assert!(!primary.is_confirmed(primary.proof(seen)), "the next read takes another");
}

#[test]
fn one_look_confirms_all_that_wait_for_it() {
    let (mut primary, told) = mirrored();
    let seen = primary.committed();
    let all = [primary.proof(seen), primary.proof(seen), primary.proof(Lsn::ZERO)];
    assert!(all.iter().all(|proof| !primary.is_confirmed(*proof)));
    told.bring();
    assert!(all.iter().all(|proof| primary.is_confirmed(*proof)));
    assert_eq!(told.looks(), 1);
}

#[test]
fn in_shared_memory_it_is_there_at_once() {
    let (mut primary, told) = mirrored();
    told.medium(|medium| medium.is_near = true);
    for looks in 1..4 {
        let proof = primary.proof(primary.committed());
        assert!(primary.is_confirmed(proof) && primary.is_confirmed(proof));
        assert_eq!(told.looks(), looks);
    }
}

#[test]
fn a_write_is_confirmed_by_its_own_placing_if_it_was_handed_over_since() {
    let (mut primary, told) = mirrored();
    let written = append(&mut primary);
    let proof = primary.proof(written);
    assert_eq!(proof, Proof::Placing);
    primary.push();
    assert!(primary.committed() < written, "it is not there yet");
    // A read of it, or of anything else, that comes now: the medium may say of a time before that it is placed.
    let read = primary.proof(written);
    assert_eq!((read, primary.proof(Lsn::ZERO)), (Proof::Look(1), Proof::Look(1)));
    ack(&mut primary, &told);
    assert!(primary.committed() >= written && primary.is_confirmed(proof));
    assert!(!primary.is_confirmed(read));
    assert_eq!(told.looks(), 1);
}

#[test]
fn what_came_with_the_ring_is_not_taken_for_handed_over_since() {
    let (primary, _) = mirrored();
    assert!(primary.log.end() > Lsn::ZERO);
    assert_eq!(primary.proof(primary.log.end()), Proof::Look(1));
}

#[test]
fn while_the_own_disk_counts_too_a_write_takes_a_look() {
    let (mut primary, _) = mirrored();
    primary.mode = Mode::SettingIn;
    let written = append(&mut primary);
    assert_eq!(primary.proof(written), Proof::Look(1));
}

#[test]
fn nothing_is_confirmed_without_the_link() {
    let (mut primary, told) = mirrored();
    let proof = primary.proof(primary.committed());
    told.medium(|medium| medium.is_lost = true);
    assert!(!primary.is_confirmed(proof));
    assert!(matches!(primary.mode, Mode::Held { .. }), "its access was taken away");
    // Whatever can be read: it is held until it is decided who goes on.
    told.medium(|medium| (medium.is_lost, medium.is_near) = (false, true));
    assert!(!primary.is_confirmed(proof) && !primary.is_confirmed(primary.proof(Lsn::ZERO)));
    let link = primary.link.take().unwrap();
    assert!(!primary.is_confirmed(primary.proof(primary.committed())), "while it reconnects");
    primary.be_reconnected(link);
    primary.mode = Mode::Mirrored;
    assert!(primary.is_confirmed(proof));
}

#[test]
fn looks_of_an_earlier_link_do_not_count_for_a_later_one() {
    let (mut primary, told) = mirrored();
    primary.ask_peer();
    let proof = primary.proof(primary.committed());
    primary.be_alone();
    told.bring();
    assert!(primary.meet(DATASET, Lsn::ZERO, Lsn::ZERO));
    let next = Told::default();
    primary.attach(Link::new((), next.clone()));
    primary.mode = Mode::Mirrored;
    assert!(!primary.is_confirmed(proof));
    next.bring();
    assert!(primary.is_confirmed(proof), "it was begun later than the proof was wanted");
}
