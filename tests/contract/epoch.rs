//! Epochs: what was stored through a pointer is at the peer after a commit, whole epochs only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use mirrorbus::epoch::{EpochConfig, EpochError, EpochHolder, EpochLayout, EpochRegion, Reconnected};
use mirrorbus::memory::{LockPolicy, TrackError, TrackedMemory, TrackingMethod};
use mirrorbus::node::{CallError, OpenError, RefusalCode};
use mirrorbus::{Attach, Deadline, Level, VolatileSlice};

use crate::common::{Fabric, Random, Scratch, holder_config, keys, region_config, soon};

const SIZE: usize = 1 << 20;

/// Each test, by every way of finding stores that this kernel has, in turn.
macro_rules! by_every_method {
    ($($name:ident),* $(,)?) => {
        mod each {
            use crate::common::Fabric;

            on_every_fabric!($($name),*);

            $(fn $name(fabric: Fabric) {
                super::methods().into_iter().for_each(|method| super::$name(fabric, method));
            })*
        }
    };
}

by_every_method!(
    each_commit_makes_the_peer_equal,
    nothing_is_sent_that_did_not_change,
    an_epoch_that_is_not_committed_is_nowhere,
    many_laps_of_a_small_ring_go_by,
    an_epoch_larger_than_the_ring_is_refused_and_forgets_nothing,
    a_restarted_owner_has_the_last_epoch,
    epochs_go_on_over_a_reconnection,
    a_fenced_owner_comes_back_and_ships_what_differs,
    threads_that_hold_still_at_the_cut_make_it_consistent,
    durable_is_what_the_holder_can,
    what_another_owner_made_is_not_overwritten,
    an_owner_with_another_ring_does_not_open,
    an_epoch_that_arrived_before_the_fence_is_not_dropped,
);

struct Rig {
    holder: EpochHolder,
    method: TrackingMethod,
    layout: EpochLayout,
    _scratch: Scratch,
}

impl Rig {
    fn new(fabric: Fabric, method: TrackingMethod, layout: EpochLayout) -> Self {
        let _ = env_logger::try_init();
        let scratch = Scratch::new();
        let config = holder_config(fabric.url(&scratch), 1);
        let holder = EpochHolder::start(config, layout, keys()).unwrap();
        Self { holder, method, layout, _scratch: scratch }
    }

    fn config(&self, attach: Attach) -> EpochConfig {
        let region = region_config(self.holder.holder().url(), 1, attach);
        let mut config = EpochConfig::new(region, self.layout);
        config.method = Some(self.method);
        config
    }

    fn owner(&self) -> EpochRegion {
        EpochRegion::open(self.config(Attach::Push { replace: true }), keys()).unwrap()
    }

    /// Attaches as soon as the holder knows that the owner before is gone.
    fn next_owner(&self) -> EpochRegion {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match EpochRegion::open(self.config(Attach::Pull), keys()) {
                Ok(region) => return region,
                Err(EpochError::Open(OpenError::Call(
                    error @ CallError::Refused { code: RefusalCode::Busy, .. },
                ))) => {
                    assert!(Instant::now() < until, "{error}");
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until the holder has applied this epoch; what it has then.
    fn held(&self, epoch: u64) -> Vec<u8> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let copy = self.holder.snapshot().unwrap();
            if copy.epoch == epoch {
                return copy.slice().to_vec();
            }
            assert!(copy.epoch < epoch && Instant::now() < until, "{copy:?}, {:?}", self.holder.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn usual() -> EpochLayout {
    EpochLayout::new(SIZE).unwrap()
}

/// Stores at random.
fn scribble(memory: VolatileSlice<'_>, random: &mut Random, stores: usize, longest: usize) {
    for _ in 0..stores {
        let len = 1 + random.below(longest);
        let offset = random.below(memory.len() - len);
        memory.fill(offset, len, random.next() as u8);
    }
}

fn methods() -> Vec<TrackingMethod> {
    let works = |method: &TrackingMethod| match method.probe() {
        Ok(()) => true,
        Err(error @ TrackError::System { .. }) => {
            println!("skipped: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    };
    TrackingMethod::ALL.into_iter().filter(works).collect()
}

fn each_commit_makes_the_peer_equal(fabric: Fabric, method: TrackingMethod) {
    let mut random = Random(0x1234_5678_9abc_def1);
    let rig = Rig::new(fabric, method, usual());
    let config = rig.config(Attach::Push { replace: false });
    let mut owner = EpochRegion::open(config, keys()).unwrap();
    assert_eq!((owner.method().0, owner.epoch()), (method, 0));
    assert!(rig.held(0).iter().all(|&byte| byte == 0));
    for epoch in 1..=20 {
        scribble(owner.memory().slice(), &mut random, 30, 9000);
        let cut = owner.commit(Level::Visible, soon()).unwrap();
        assert_eq!((cut.epoch, owner.epoch(), owner.unshipped()), (epoch, epoch, None));
        assert!(cut.shipped_bytes * 10 <= cut.changed_bytes * 11 + 640 * (cut.runs + 1), "{cut:?}");
        assert!(rig.held(epoch) == owner.memory().slice().to_vec(), "{method}, epoch {epoch}");
        assert_eq!(owner.applied(soon()).unwrap(), epoch);
    }
}

fn nothing_is_sent_that_did_not_change(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let mut owner = rig.owner();
    let memory = owner.memory().slice();
    memory.write(5000, b"twice the same");
    memory.write(90_000, &[0; 5000]);
    let cut = owner.commit(Level::Acked, soon()).unwrap();
    assert!(
        cut.pages >= 3 && cut.ranges == 1 && cut.changed_bytes <= 24 && cut.shipped_bytes <= 64 + 16 + 24,
        "{cut:?}"
    );
    owner.memory().slice().write(5000, b"twice the same");
    let stores = owner.lane_stats().stores;
    let cut = owner.commit(Level::Acked, soon()).unwrap();
    assert_eq!(
        (cut.epoch, cut.ranges, cut.shipped_bytes, owner.lane_stats().stores),
        (1, 0, 0, stores),
        "no epoch is made"
    );
}

fn an_epoch_that_is_not_committed_is_nowhere(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let mut owner = rig.owner();
    owner.memory().slice().fill(0, SIZE, 1);
    owner.commit(Level::Acked, soon()).unwrap();
    owner.memory().slice().fill(0, SIZE, 2);
    owner.cut().unwrap();
    assert_eq!(owner.unshipped(), Some(2));
    let error = owner.cut().unwrap_err();
    assert!(matches!(error, EpochError::Unshipped(2)), "{error}");
    drop(owner);
    let copy = rig.holder.take_over(soon()).unwrap();
    assert!(copy.epoch == 1 && copy.slice().to_vec() == [1; SIZE]);
}

fn many_laps_of_a_small_ring_go_by(fabric: Fabric, method: TrackingMethod) {
    let layout = EpochLayout::with_ring(SIZE, EpochLayout::RING_BYTES_MIN).unwrap();
    let rig = Rig::new(fabric, method, layout);
    let (mut owner, mut random) = (rig.owner(), Random(77));
    let (mut bytes, mut epoch) = (0, 0);
    while bytes < 8 * layout.ring_bytes() {
        scribble(owner.memory().slice(), &mut random, 4, 5000);
        let cut = owner.commit(Level::Acked, soon()).unwrap();
        (bytes, epoch) = (bytes + cut.shipped_bytes, cut.epoch);
    }
    assert!(rig.held(epoch) == owner.memory().slice().to_vec());
}

fn an_epoch_larger_than_the_ring_is_refused_and_forgets_nothing(fabric: Fabric, method: TrackingMethod) {
    let layout = EpochLayout::with_ring(SIZE, EpochLayout::RING_BYTES_MIN).unwrap();
    let rig = Rig::new(fabric, method, layout);
    let mut owner = rig.owner();
    owner.memory().slice().fill(0, 40_000, 1);
    owner.commit(Level::Acked, soon()).unwrap();
    owner.memory().slice().fill(0, 200_000, 2);
    let error = owner.commit(Level::Acked, soon()).unwrap_err();
    assert!(matches!(error, EpochError::TooLarge { ring: 65_536, pages: 49, .. }), "{error}");
    assert!(error.to_string().contains("ring 65536"), "{error}");
    // What was stored before the error is found by the commit that has room for it.
    owner.memory().slice().fill(40_000, 160_000, 0);
    let cut = owner.commit(Level::Acked, soon()).unwrap();
    assert_eq!((cut.epoch, cut.changed_bytes), (2, 40_000));
    assert!(rig.held(2) == owner.memory().slice().to_vec());
    // A memory that was filled before is pushed past the ring.
    drop(owner);
    let memory = TrackedMemory::new(SIZE, method).unwrap();
    memory.mapping().lock(LockPolicy::Try).unwrap();
    memory.slice().fill(0, SIZE, 9);
    let owner =
        EpochRegion::open_over(rig.config(Attach::Push { replace: true }), keys(), Arc::new(memory)).unwrap();
    assert!(rig.held(0) == [9; SIZE] && owner.epoch() == 0);
}

fn a_restarted_owner_has_the_last_epoch(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let mut owner = rig.owner();
    let mut random = Random(5);
    let mut epoch = 0;
    for round in 0..6 {
        let mut content = Vec::new();
        for _ in 0..1 + round % 3 {
            scribble(owner.memory().slice(), &mut random, 20, 4000);
            content = owner.memory().slice().to_vec();
            epoch = owner.commit(Level::Acked, soon()).unwrap().epoch;
        }
        scribble(owner.memory().slice(), &mut random, 20, 4000);
        drop(owner);
        owner = rig.next_owner();
        assert!(owner.epoch() == epoch && owner.memory().slice().to_vec() == content, "round {round}");
        let cut = owner.commit(Level::Acked, soon()).unwrap();
        assert_eq!((cut.epoch, cut.ranges, cut.pages), (epoch, 0, SIZE / 4096), "nothing differs");
        assert_eq!(owner.commit(Level::Acked, soon()).unwrap().pages, 0);
    }
}

fn epochs_go_on_over_a_reconnection(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let (mut owner, mut random) = (rig.owner(), Random(11));
    for round in 1..=8 {
        scribble(owner.memory().slice(), &mut random, 40, 9000);
        let content = owner.memory().slice().to_vec();
        owner.cut().unwrap();
        if round % 2 == 0 {
            // As much of it is on its way as the lane takes without waiting.
            let _ = owner.ship(Level::Posted, Deadline::within(Duration::ZERO));
        }
        assert_eq!(owner.reconnect(soon()).unwrap(), Reconnected::Resumed);
        owner.ship(Level::Visible, soon()).unwrap();
        assert!(rig.held(round) == content, "round {round}");
    }
}

fn a_fenced_owner_comes_back_and_ships_what_differs(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let mut owner = rig.owner();
    owner.memory().slice().write(100, b"committed");
    owner.commit(Level::Acked, soon()).unwrap();
    owner.memory().slice().write(200_000, b"cut, not shipped");
    owner.cut().unwrap();
    let copy = rig.holder.take_over(soon()).unwrap();
    assert_eq!((copy.epoch, &copy.slice().to_vec()[100..109]), (1, &b"committed"[..]));
    owner.memory().slice().write(400_000, b"not even cut");
    let error = owner.ship(Level::Acked, soon()).unwrap_err();
    assert!(matches!(error, EpochError::Wait { .. } | EpochError::Store(_)), "{error}");
    assert_eq!(owner.reconnect(soon()).unwrap(), Reconnected::Anew { dropped: Some(2) });
    assert_eq!((owner.epoch(), owner.unshipped()), (1, None));
    let error = owner.ship(Level::Acked, soon()).unwrap_err();
    assert!(matches!(error, EpochError::Dropped(2)), "{error}");
    let cut = owner.commit(Level::Acked, soon()).unwrap();
    assert_eq!((cut.epoch, cut.ranges, cut.pages), (2, 2, SIZE / 4096));
    assert!(rig.held(2) == owner.memory().slice().to_vec());
    owner.memory().slice().write(0, b"and on");
    assert_eq!(owner.commit(Level::Acked, soon()).unwrap().pages, 1);
}

/// Each thread counts in two words, one after the other, which are equal whenever it holds still.
fn threads_that_hold_still_at_the_cut_make_it_consistent(fabric: Fabric, method: TrackingMethod) {
    const THREADS: usize = 3;
    let rig = Rig::new(fabric, method, usual());
    let mut owner = rig.owner();
    let (still, ending) = (RwLock::new(()), AtomicBool::new(false));
    let places = |thread: usize| [thread * 64, SIZE - 8 - thread * 4096];
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (still, ending, memory) = (&still, &ending, owner.memory().clone());
            scope.spawn(move || {
                let words = places(thread).map(|place| memory.slice().word_u64(place));
                while !ending.load(Ordering::Relaxed) {
                    let _storing = still.read().unwrap();
                    words.iter().for_each(|word| _ = word.fetch_add(1, Ordering::Relaxed));
                    memory.slice().fill(
                        100_000 + thread * 10_000,
                        5000,
                        words[0].load(Ordering::Relaxed) as u8,
                    );
                }
            });
        }
        for _ in 0..60 {
            let held = still.write().unwrap();
            let cut = owner.cut().unwrap();
            let content = owner.memory().slice().to_vec();
            drop(held);
            owner.ship(Level::Acked, soon()).unwrap();
            let copy = rig.held(cut.epoch);
            assert!(copy == content, "{method}");
            for thread in 0..THREADS {
                let [first, second] = places(thread).map(|place| &copy[place..place + 8]);
                assert_eq!(first, second, "{method}");
            }
        }
        ending.store(true, Ordering::Relaxed);
    });
    // What was stored while nobody held still is in the next, and nothing is lost.
    let epoch = owner.commit(Level::Acked, soon()).unwrap().epoch;
    assert!(rig.held(epoch) == owner.memory().slice().to_vec(), "{method}");
}

fn durable_is_what_the_holder_can(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let mut owner = rig.owner();
    owner.memory().slice().write(0, b"x");
    let error = owner.commit(Level::Durable, soon()).unwrap_err();
    assert!(error.to_string().contains("start it with a file"), "{error}");
    assert!(rig.held(1) == owner.memory().slice().to_vec(), "it is in the peer's memory all the same");
    owner.commit(Level::Visible, soon()).unwrap();
}

fn what_another_owner_made_is_not_overwritten(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let mut first = rig.owner();
    first.memory().slice().write(0, b"first");
    first.commit(Level::Acked, soon()).unwrap();
    first.memory().slice().write(100, b"cut by the first");
    first.cut().unwrap();
    rig.holder.take_over(soon()).unwrap();
    // One that makes no epoch changes nothing.
    drop(rig.next_owner());
    rig.holder.take_over(soon()).unwrap();
    assert_eq!(first.reconnect(soon()).unwrap(), Reconnected::Anew { dropped: Some(2) });
    first.commit(Level::Acked, soon()).unwrap();
    rig.holder.take_over(soon()).unwrap();
    let mut second = rig.next_owner();
    second.memory().slice().write(200, b"second");
    assert_eq!(second.commit(Level::Acked, soon()).unwrap().epoch, 3);
    let content = second.memory().slice().to_vec();
    drop(second);
    rig.holder.take_over(soon()).unwrap();
    // As many epochs, and more.
    first.memory().slice().write(300, b"third of the first");
    for _ in 0..2 {
        let error = first.reconnect(soon()).unwrap_err();
        assert!(matches!(error, EpochError::Superseded { own: 2, found: 3 }), "{error}");
        rig.holder.take_over(soon()).unwrap();
    }
    assert!(rig.held(3) == content);
    // Another push.
    drop(rig.owner());
    rig.holder.take_over(soon()).unwrap();
    let error = first.reconnect(soon()).unwrap_err();
    assert!(matches!(error, EpochError::Superseded { found: 0, .. } | EpochError::Open(_)), "{error}");
}

fn an_owner_with_another_ring_does_not_open(fabric: Fabric, method: TrackingMethod) {
    let layout = EpochLayout::with_ring(SIZE, EpochLayout::RING_BYTES_MIN).unwrap();
    let rig = Rig::new(fabric, method, layout);
    let other = EpochLayout::with_ring(SIZE, 2 * EpochLayout::RING_BYTES_MIN).unwrap();
    assert_eq!(layout.region_bytes(), other.region_bytes());
    for attach in [Attach::Push { replace: true }, Attach::Pull] {
        let mut config = rig.config(attach);
        config.layout = other;
        let error = EpochRegion::open(config, keys()).unwrap_err().to_string();
        assert!(error.contains("65536") && error.contains("131072"), "{error}");
        rig.holder.holder().fence(soon()).unwrap();
        // As it should be, for the next.
        drop(rig.owner());
        rig.holder.take_over(soon()).unwrap();
    }
}

fn an_epoch_that_arrived_before_the_fence_is_not_dropped(fabric: Fabric, method: TrackingMethod) {
    let rig = Rig::new(fabric, method, usual());
    let mut owner = rig.owner();
    owner.memory().slice().write(100, b"committed");
    owner.commit(Level::Acked, soon()).unwrap();
    rig.holder.take_over(soon()).unwrap();
    assert_eq!(owner.reconnect(soon()).unwrap(), Reconnected::Anew { dropped: None });
    owner.ship(Level::Acked, soon()).unwrap();
    assert_eq!(owner.commit(Level::Acked, soon()).unwrap().epoch, 1);
}
