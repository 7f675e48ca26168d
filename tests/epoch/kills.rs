//! Kills: of owners at random moments and within commits, of holders at random moments.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mirrorbus::epoch::{EpochConfig, EpochCopy, EpochHolder, EpochRegion};
use mirrorbus::memory::{MapOptions, TrackingMethod};
use mirrorbus::{Attach, Level, Mapping};

use crate::child::{Child, PATIENCE, Watchdog, rounds, say, seed};
use crate::common::{Fabric, RDMA_ADDRESS, Random, Scratch, holder_config, keys, region_config, soon};
use crate::roles::{OwnerChild, SIZE, Said, layout, open, start_holder, store_epoch};

#[test]
fn killed_owners_leave_whole_epochs_over_shm() {
    kill_owners(Fabric::Shm, None, rounds(24, 200));
}

#[test]
fn killed_owners_leave_whole_epochs_over_a_network() {
    kill_owners(network(), None, rounds(24, 200));
}

/// TCP, or RDMA where the environment names a device: `cargo xtask rxe epoch-kills` does.
fn network() -> Fabric {
    if std::env::var_os(RDMA_ADDRESS).is_some() { Fabric::Rdma } else { Fabric::Tcp }
}

#[test]
fn killed_owners_leave_whole_epochs_by_faults() {
    kill_owners(Fabric::Shm, Some(TrackingMethod::Mprotect), rounds(6, 50));
}

/// What the owners are to have stored, epoch by epoch.
struct Model {
    memory: Mapping,
    epoch: u64,
}

impl Model {
    fn new() -> Self {
        Self { memory: Mapping::anonymous(SIZE, MapOptions::default()).unwrap(), epoch: 0 }
    }

    /// Goes on to the epoch of `copy` with this seed, and compares.
    fn check(&mut self, copy: &EpochCopy, seed: u64, context: &str) {
        assert!(copy.epoch >= self.epoch, "{context}: epoch {} after {}", copy.epoch, self.epoch);
        while self.epoch < copy.epoch {
            self.epoch += 1;
            store_epoch(self.memory.slice(), seed, self.epoch);
        }
        let differs = copy.slice().first_difference(self.memory.slice());
        assert_eq!(differs, None, "{context}: it is not epoch {}", copy.epoch);
    }
}

/// Lets an owner commit for a random while, and kills it: at any moment, or `within` a commit for certain. What it said.
fn commit_and_kill(owner: &OwnerChild, random: &mut Random, within: bool) -> Said {
    let mut child = owner.start();
    let mut first = [0; 16];
    child.line.read_exact(&mut first).unwrap();
    let mut said = Said::of(&first);
    std::thread::sleep(Duration::from_micros(random.below(30_000) as u64));
    if within {
        said = stop_within_commit(&child, said, random);
    }
    let mut line = child.line.try_clone().unwrap();
    child.kill();
    said.read(&mut line)
}

/// Stops an owner again and again until it stands still within a commit. What it said until then.
fn stop_within_commit(child: &Child, mut said: Said, random: &mut Random) -> Said {
    let until = Instant::now() + PATIENCE;
    loop {
        child.stop();
        said = said.heard(&child.line);
        if said.begun > said.done {
            return said;
        }
        assert!(Instant::now() < until, "the owner is never within a commit");
        child.go_on();
        std::thread::sleep(Duration::from_micros(random.below(3000) as u64));
    }
}

/// One holder lives through all rounds; the owner of each recovers what the one before left.
fn kill_owners(fabric: Fabric, method: Option<TrackingMethod>, count: usize) {
    let title = format!("epochs, owner killed, {fabric:?}");
    let watchdog = Watchdog::new(&title);
    let mut random = Random(seed(&title));
    let scratch = Scratch::new();
    let holder = EpochHolder::start(holder_config(fabric.url(&scratch), 1), layout(), keys()).unwrap();
    let (mut model, mut midway, mut ahead) = (Model::new(), 0, 0);
    for round in 0..count {
        watchdog.feed(format!("{round} rounds"));
        let seed = random.next();
        let url = holder.holder().url().clone();
        let owner = OwnerChild { url, pull: round > 0, seed, method, durable: false };
        let said = commit_and_kill(&owner, &mut random, round % 2 == 1);
        let context = format!("{title}, round {round}, {said:?}");
        // Every fourth is not taken over: the next owner finds what is there.
        let copy = if round % 4 == 3 { recovered(&holder) } else { holder.take_over(soon()).unwrap() };
        assert!(said.done <= copy.epoch && copy.epoch <= said.begun, "{context}: {copy:?}");
        midway += usize::from(said.begun > said.done);
        ahead += usize::from(copy.epoch > said.done);
        model.check(&copy, seed, &context);
    }
    say(&format!(
        "{title}: {count} kills, {midway} within a commit, of which {ahead} were whole at the peer; {} epochs",
        model.epoch
    ));
    assert!(midway >= count / 2, "{midway} of {count} kills fell within a commit");
}

/// What the next owner gets, without a fence.
fn recovered(holder: &EpochHolder) -> EpochCopy {
    let config = EpochConfig::new(region_config(holder.holder().url(), 1, Attach::Pull), layout());
    let owner = open(&config);
    let content = owner.memory().slice().to_vec();
    let epoch = owner.epoch();
    drop(owner);
    let copy = holder.take_over(soon()).unwrap();
    assert!(copy.epoch == epoch && copy.slice().to_vec() == content, "the next owner has other bytes");
    copy
}

#[test]
fn a_killed_holder_comes_back_with_a_whole_epoch_over_shm() {
    kill_holders(Fabric::Shm, rounds(6, 50));
}

#[test]
fn a_killed_holder_comes_back_with_a_whole_epoch_over_a_network() {
    kill_holders(network(), rounds(6, 50));
}

/// The owner lives through all rounds; the holder of each has the file of the one before.
fn kill_holders(fabric: Fabric, count: usize) {
    let title = format!("epochs, holder killed, {fabric:?}");
    let watchdog = Watchdog::new(&title);
    let mut random = Random(seed(&title));
    let scratch = Scratch::new();
    // On a disk, where the temporary directory may be memory.
    let disk = Scratch(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(scratch.0.file_name().unwrap()));
    std::fs::create_dir_all(&disk.0).unwrap();
    let file = disk.path("copy");
    // Those that come back are found where the first was.
    let port = format!(":{}", crate::common::free_port());
    let listen = fabric.url(&scratch).to_string().replace(":0", &port).parse().unwrap();
    let (mut holder, url) = start_holder(&listen, &file);
    let attach = Attach::Push { replace: false };
    let mut config = EpochConfig::new(region_config(&url, 1, attach), layout());
    config.region.silence = Duration::from_millis(500);
    config.region.heartbeat = Duration::from_millis(100);
    let mut owner = open(&config);
    let seed = random.next();
    // Epochs go back to the last whole one at the holder; stores do not.
    let mut stored = 0;
    for round in 0..count {
        watchdog.feed(format!("{round} rounds"));
        let level = if round % 2 == 0 { Level::Durable } else { Level::Acked };
        let kill = spawn_killer(holder, Duration::from_micros(random.below(40_000) as u64));
        let mut history: Vec<(u64, Vec<u8>)> = vec![(owner.epoch(), owner.memory().slice().to_vec())];
        let mut acked = owner.epoch();
        loop {
            stored += 1;
            store_epoch(owner.memory().slice(), seed, stored);
            history.push((owner.epoch() + 1, owner.memory().slice().to_vec()));
            match owner.commit(level, soon()) {
                Ok(cut) => acked = cut.epoch,
                Err(_) => break,
            }
        }
        kill.join().unwrap();
        let restarted = start_holder(&listen, &file);
        holder = restarted.0;
        owner = reconnected(owner, &mut history, acked, &format!("{title}, round {round}"));
    }
    drop(holder);
}

fn spawn_killer(mut holder: Child, after: Duration) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(after);
        holder.kill();
    })
}

/// Looks at what the restarted holder has, and brings it to what the owner has.
fn reconnected(
    mut owner: EpochRegion,
    history: &mut [(u64, Vec<u8>)],
    acked: u64,
    context: &str,
) -> EpochRegion {
    owner.reconnect(soon()).unwrap();
    let found = owner.epoch();
    assert!(acked <= found, "{context}: epoch {acked} was acknowledged, {found} is there");
    let local = owner.region().memory();
    let image = local.subslice(layout().image_offset(), SIZE).unwrap().to_vec();
    let (_, content) = history
        .iter()
        .find(|(epoch, _)| *epoch == found)
        .unwrap_or_else(|| panic!("{context}: no epoch {found}"));
    assert!(*content == image, "{context}: what is there is not epoch {found}");
    owner.commit(Level::Visible, soon()).unwrap();
    owner
}
