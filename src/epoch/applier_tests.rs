//! Whole epochs only, whatever is cut: the owner's stores between any two, the holder's steps between any two, the power at
//! any moment.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::super::layout::Position;
use super::super::log::recover;
use super::super::testing::{Owner, Stores, free, image, pushed};
use super::*;

/// A copy in a file: what the memory has, and what the disk has. It fails when its steps are used up.
struct File {
    live: Arc<Mapping>,
    disk: RefCell<Vec<u8>>,
    steps: Cell<usize>,
    /// Syncs until one fails.
    syncs: Cell<usize>,
    generation: Cell<u32>,
    durable: bool,
}

impl File {
    fn new(live: Mapping, durable: bool) -> Self {
        let disk = RefCell::new(live.slice().to_vec());
        Self {
            live: Arc::new(live),
            disk,
            steps: Cell::new(usize::MAX),
            syncs: Cell::new(usize::MAX),
            generation: Cell::new(1),
            durable,
        }
    }

    fn step(&self) -> bool {
        let left = self.steps.get();
        self.steps.set(left.saturating_sub(1));
        left > 0
    }

    fn store(&self, stores: &Stores) {
        stores.iter().for_each(|(offset, bytes)| self.live.slice().write(*offset, bytes));
    }

    /// What is on the disk after the power was lost: of each sector the new or the old content.
    fn after_power_loss(&self, mut seed: u64) -> Mapping {
        const SECTOR: usize = 512;
        let (live, disk) = (self.live.slice().to_vec(), self.disk.borrow());
        let left = Mapping::anonymous(live.len(), crate::memory::MapOptions::default()).unwrap();
        for at in (0..live.len()).step_by(SECTOR) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let from = if seed >> 63 == 0 { &live } else { &*disk };
            left.slice().write(at, &from[at..live.len().min(at + SECTOR)]);
        }
        left
    }
}

impl Copy for File {
    fn look(&self) -> Option<(Arc<Mapping>, Generation)> {
        Some((self.live.clone(), Generation(self.generation.get())))
    }

    fn change<T>(&self, generation: Generation, action: impl FnOnce(VolatileSlice<'_>) -> T) -> Option<T> {
        (generation.0 == self.generation.get() && self.step()).then(|| action(self.live.slice()))
    }

    fn outlives_power(&self) -> bool {
        self.durable
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.set(self.syncs.get().wrapping_sub(1));
        if !self.step() || self.syncs.get() == usize::MAX {
            return Err(io::Error::other("the power is gone"));
        }
        *self.disk.borrow_mut() = self.live.slice().to_vec();
        Ok(())
    }
}

fn layout() -> EpochLayout {
    EpochLayout::with_ring(40_000, EpochLayout::RING_BYTES_MIN).unwrap()
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    Change {
        offset: usize,
        len: usize,
        byte: u8,
    },
    Commit,
    /// The owner's Durable: all that the copy holds now is on the disk.
    Sync,
    Apply,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let change = (0..40_000usize, 1..6000usize, any::<u8>()).prop_map(|(offset, len, byte)| Act::Change {
        offset,
        len,
        byte,
    });
    let act = prop_oneof![4 => change, 3 => Just(Act::Commit), 1 => Just(Act::Sync), 2 => Just(Act::Apply)];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_cut_the_image_is_an_epoch_and_no_synced_one_is_lost(
        acts in acts(), steps in 0..200usize, cut in 0..80usize, seed in any::<u64>(), durable in any::<bool>(),
    ) {
        let file = File::new(pushed(layout()), durable);
        let (mut owner, mut applier) = (Owner::new(layout()), Applier::new(layout()));
        let (mut synced, mut committed) = (0, 0);
        file.steps.set(steps);
        for act in acts {
            match act {
                Act::Change { offset, len, byte } => owner.change(offset, len, byte),
                Act::Commit => {
                    if let Some(stores) = owner.cut(free(file.live.slice())) {
                        file.store(&stores);
                        committed = owner.number;
                    }
                }
                Act::Sync if file.steps.get() > 0 => {
                    file.sync().unwrap();
                    synced = committed;
                }
                Act::Sync => {}
                Act::Apply => {
                    applier.step(&file);
                }
            }
            if file.steps.get() == 0 {
                break;
            }
        }
        // An epoch of which only a part has come.
        owner.change(0, 5000, 0xee);
        if let Some(stores) = owner.cut(free(file.live.slice())) {
            let cut = cut % stores.len();
            file.store(&stores[..cut].to_vec());
        }
        // The holder's process is gone, its file is not.
        let killed = Mapping::anonymous(file.live.len(), crate::memory::MapOptions::default()).unwrap();
        killed.slice().copy_from(0, file.live.slice());
        let number = recover(killed.slice(), layout()).unwrap().1.number;
        prop_assert_eq!(number, committed);
        prop_assert!(image(killed.slice(), layout()) == owner.history[usize::try_from(number).unwrap()]);
        // The power is gone.
        if durable {
            let left = file.after_power_loss(seed);
            let number = recover(left.slice(), layout()).unwrap().1.number;
            prop_assert!(synced <= number && number <= committed, "{synced} {number} {committed}");
            prop_assert!(image(left.slice(), layout()) == owner.history[usize::try_from(number).unwrap()], "epoch {number}");
        }
    }
}

fn one() -> Step {
    Step::Applied { count: 1, all: true }
}

#[test]
fn room_is_given_back_when_it_may_be_overwritten_and_laps_go_on() {
    for durable in [false, true] {
        let file = File::new(pushed(layout()), durable);
        let (mut owner, mut applier) = (Owner::new(layout()), Applier::new(layout()));
        for round in 0..40_u8 {
            owner.change(0, 30_000, round + 1);
            let stores = owner.cut(free(file.live.slice())).expect("room");
            file.store(&stores);
            assert_eq!(applier.step(&file), one());
            if durable {
                assert!(free(file.live.slice()) < owner.at.0, "not before the position is on the disk");
                assert_eq!(applier.step(&file), Step::Nothing);
            }
            assert_eq!(free(file.live.slice()), owner.at.0);
            assert!(image(file.live.slice(), layout()) == owner.history[round as usize + 1]);
        }
        assert!(owner.at.0 > 10 * layout().ring_bytes() as u64);
        // Without room nothing is cut.
        owner.change(0, 40_000, 99);
        file.store(&owner.cut(free(file.live.slice())).unwrap());
        owner.change(0, 40_000, 98);
        assert!(owner.cut(free(file.live.slice())).is_none());
    }
}

#[test]
fn another_generation_ends_a_step_and_the_next_does_it_again() {
    let file = File::new(pushed(layout()), false);
    let (mut owner, mut applier) = (Owner::new(layout()), Applier::new(layout()));
    owner.change(7, 9000, 3);
    file.store(&owner.cut(0).unwrap());
    // The words that are published first, a part of the image.
    file.steps.set(3);
    assert_eq!(applier.step(&file), Step::Again);
    assert!(!applier.between_epochs());
    assert_eq!(applier.step(&file), Step::Again);
    file.steps.set(usize::MAX);
    file.generation.set(2);
    assert_eq!((applier.step(&file), applier.trouble()), (one(), None));
    assert!(applier.between_epochs());
    assert!(image(file.live.slice(), layout()) == owner.history[1]);
}

#[test]
fn a_whole_epoch_that_no_owner_makes_is_not_applied_and_is_told() {
    let file = File::new(pushed(layout()), false);
    let mut applier = Applier::new(layout());
    let body = super::super::record::encode_range(40_000, 8);
    let mut content = body.to_vec();
    content.extend([1; 8]);
    let body_crc = crate::base::crc32c(&content);
    let (incarnation, before) = (1, 0);
    let commit =
        Commit { position: Position(0), number: 1, body: 24, ranges: 1, body_crc, incarnation, before };
    file.store(&vec![
        (layout().place(Position(64)).0, content),
        (layout().place(Position(0)).0, commit.encode(super::super::testing::LOG).to_vec()),
    ]);
    assert_eq!(applier.step(&file), Step::Nothing);
    assert!(applier.trouble().unwrap().contains("epoch 1"), "{applier:?}");
    assert!(image(file.live.slice(), layout()).iter().all(|&byte| byte == 0));
    // A region of something else.
    file.live.slice().write(0, &[0; 64]);
    assert_eq!(applier.step(&file), Step::Nothing);
    assert!(applier.trouble().unwrap().contains("does not begin"), "{applier:?}");
    // A new push is another log.
    file.live.slice().copy_from(0, pushed(layout()).slice());
    let other = LogId([6; 16]);
    file.live.slice().write(0, &super::super::layout::encode_head(layout(), other));
    file.live.slice().write(words::APPLIED[0], &Applied::default().encode(other));
    assert_eq!((applier.step(&file), applier.trouble()), (Step::Nothing, None));
}

/// A sync that fails in the middle leaves no epoch half applied, nor one that came to nobody.
#[test]
fn a_failed_sync_ends_the_syncs_and_not_the_applying() {
    for steps in 0..12 {
        let file = File::new(pushed(layout()), true);
        let (mut owner, mut applier) = (Owner::new(layout()), Applier::new(layout()));
        owner.change(7, 9000, 3);
        file.store(&owner.cut(0).unwrap());
        file.syncs.set(steps);
        assert!(applier.apply_all(&file, || false));
        assert!(applier.between_epochs() && applier.trouble().is_none());
        assert!(image(file.live.slice(), layout()) == owner.history[1]);
        assert_eq!(read_applied(file.live.slice(), layout(), super::super::testing::LOG).unwrap().number, 1);
    }
}

#[test]
fn there_is_an_end_where_an_owner_goes_on_and_when_time_is_up() {
    let file = File::new(pushed(layout()), false);
    let (mut owner, mut applier) = (Owner::new(layout()), Applier::new(layout()));
    for byte in 1..=TOGETHER_MAX + 1 {
        owner.change(byte, 8, 1);
        file.store(&owner.cut(0).unwrap());
    }
    assert!(!applier.apply_all(&file, || true), "more than what is applied together, and no time");
    assert!(applier.between_epochs());
    assert!(applier.apply_all(&file, || true));
    assert!(image(file.live.slice(), layout()) == *owner.history.last().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The power goes with whole epochs behind one that is not. The next owner's epochs come to where these stand, byte by byte, and
    /// they are applied by nobody: not by the holder, nor by an owner that takes what is there.
    #[test]
    fn what_an_owner_before_left_further_on_in_the_ring_is_not_applied(
        whole in 0..6usize, lost in 1..6usize, same in any::<bool>(), lens in prop::collection::vec(8..900usize, 20),
    ) {
        let file = File::new(pushed(layout()), false);
        let mut owner = Owner::new(layout());
        let cut = |owner: &mut Owner, at: usize| {
            let byte = u8::try_from(owner.incarnation + 3 * at as u64).unwrap();
            owner.change(at * 1000, lens[at % lens.len()], byte);
            owner.cut(0).unwrap()
        };
        (0..whole).for_each(|at| file.store(&cut(&mut owner, at)));
        let torn = layout().place(owner.at).0;
        (whole..12).for_each(|at| file.store(&cut(&mut owner, at)));
        let mut applier = Applier::new(layout());
        // Up to where it is whole; the commit record behind that is lost.
        file.live.slice().write(torn, &[0; 64]);
        applier.apply_all(&file, || false);
        prop_assert!(image(file.live.slice(), layout()) == owner.history[whole]);
        let mut next = Owner::pull(file.live.slice(), layout(), 2);
        prop_assert_eq!(next.number, whole as u64);
        // The same lengths at the same places, so that each ends where an old one begins; or others.
        for at in whole..whole + lost {
            let stores = cut(&mut next, if same { at } else { at + 1 });
            file.store(&stores);
            applier.apply_all(&file, || false);
            let found = read_applied(file.live.slice(), layout(), super::super::testing::LOG).unwrap();
            prop_assert_eq!((found.number, found.incarnation), (next.number, 2));
            prop_assert!(image(file.live.slice(), layout()) == *next.history.last().unwrap());
            prop_assert_eq!(Owner::pull(file.live.slice(), layout(), 3).number, next.number);
        }
    }
}
