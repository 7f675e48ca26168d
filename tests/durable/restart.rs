//! A holder that is killed and starts again on its file; files and records that it must not trust.

use std::path::{Path, PathBuf};

use mirrorbus::base::crc32c;
use mirrorbus::node::{CallError, Content, HolderError, OpenError, ReconnectError, RefusalCode};
use mirrorbus::{Attach, Holder, HolderConfig, LaneConfig, Level, Region};

use crate::common::{Fabric, Random, Scratch, holder_config, keys, region_config, soon};
use crate::wire::{PUSH_REPLACE, Peer, attach};
use crate::{FABRICS, SIZE, disk, hold, open};

#[test]
fn a_killed_holder_has_everything_when_it_is_back() {
    for fabric in FABRICS {
        let (scratch, disk) = (Scratch::new(), disk());
        let first = hold(fabric, &scratch, &disk, &[]);
        let region = open(&first.url, Attach::Push { replace: false });
        let mut lane = region.lane(LaneConfig::default()).unwrap();
        let mut random = Random(0x5eed_0006);
        for _ in 0..500 {
            let data = crate::wire::random_bytes(&mut random, 200);
            lane.store(random.below(SIZE - 200), &data).unwrap();
        }
        lane.flush(Level::Durable, soon()).unwrap();
        // The page cache outlives the process: what is visible is there as well.
        lane.store(77, b"visible, not durable").unwrap();
        lane.flush(Level::Visible, soon()).unwrap();
        let (expected, id) = (region.memory().to_vec(), region.id());
        first.kill();

        let second = hold(fabric, &scratch, &disk, &[]);
        if fabric == Fabric::Shm {
            // It is another life: nothing is resumed, the region is opened anew.
            let error = region.reconnect(&mut [&mut lane], soon()).unwrap_err();
            let code = match &error {
                ReconnectError::Call(CallError::Refused { code, .. }) => *code,
                _ => panic!("{error}"),
            };
            assert_eq!(code, RefusalCode::NotResumable);
        }
        drop((lane, region));
        let again = open(&second.url, Attach::Pull);
        assert_eq!(again.id(), id);
        assert!(again.memory().to_vec() == expected, "{fabric:?}: another content came back");
        let mut lane = again.lane(LaneConfig::default()).unwrap();
        lane.store(0, b"on we go").unwrap();
        lane.flush(Level::Durable, soon()).unwrap();
        assert_eq!(&std::fs::read(disk.path("copy")).unwrap()[..8], b"on we go");
    }
}

/// A holder's file after one region was pushed and one store made, with nobody holding it any more.
pub(crate) struct Left {
    pub(crate) disk: Scratch,
    pub(crate) scratch: Scratch,
}

impl Left {
    pub(crate) fn new() -> Self {
        let left = Self { disk: disk(), scratch: Scratch::new() };
        let holder = Holder::start(left.config(), keys()).unwrap();
        let region = open(holder.url(), Attach::Push { replace: false });
        let mut lane = region.lane(LaneConfig::default()).unwrap();
        lane.store(5, b"kept").unwrap();
        lane.flush(Level::Durable, soon()).unwrap();
        drop((lane, region));
        holder.stop();
        left
    }

    pub(crate) fn config(&self) -> HolderConfig {
        let mut config = holder_config(Fabric::Tcp.url(&self.scratch), SIZE);
        config.file = Some(self.file());
        config
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.disk.path("copy")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.disk.path("copy.state")
    }

    /// The words with which a holder refuses to start; neither file was touched.
    pub(crate) fn refused(&self, config: HolderConfig) -> String {
        let before = (std::fs::read(self.file()).ok(), std::fs::read(self.state()).ok());
        let error = Holder::start(config, keys()).expect_err("a holder started on what it must not trust");
        assert!(matches!(error, HolderError::File { .. }), "{error}");
        let after = (std::fs::read(self.file()).ok(), std::fs::read(self.state()).ok());
        assert!(before == after, "a refusal changed a file");
        let text = error.to_string();
        assert!(text.contains(&self.file().display().to_string()), "{text} names no file");
        text
    }

    /// A holder starts, and what was kept is pulled from it.
    pub(crate) fn accepted(&self, config: HolderConfig) {
        let holder = Holder::start(config, keys()).unwrap();
        assert_eq!(holder.status().content, Content::Complete);
        assert_eq!(&open(holder.url(), Attach::Pull).memory().to_vec()[5..9], b"kept");
    }
}

/// Changes a record as `change` says and makes its checksum right again.
pub(crate) fn forge(record: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = std::fs::read(record).unwrap();
    change(&mut bytes);
    let sum = crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(record, bytes).unwrap();
}

#[test]
fn after_a_reboot_the_content_is_uncertain_and_must_be_accepted() {
    let left = Left::new();
    left.accepted(left.config());
    forge(&left.state(), |record| record[32] ^= 1);
    let why = left.refused(left.config());
    assert!(why.contains("has rebooted") && why.contains("accept uncertain content"), "{why}");
    let mut config = left.config();
    config.accept_uncertain = true;
    left.accepted(config);
    // Accepted once, it is this boot's.
    left.accepted(left.config());
}

/// It writes down that the file is empty before it makes it.
#[test]
fn a_holder_that_was_killed_while_it_made_its_file_starts_again() {
    for made in [None, Some(0), Some(SIZE as u64 / 2)] {
        let left = Left::new();
        forge(&left.state(), |record| record[8..32].fill(0));
        std::fs::remove_file(left.file()).unwrap();
        if let Some(bytes) = made {
            std::fs::File::create(left.file()).unwrap().set_len(bytes).unwrap();
        }
        let holder = Holder::start(left.config(), keys()).unwrap();
        assert_eq!(holder.status().content, Content::Empty);
        drop(open(holder.url(), Attach::Push { replace: false }));
    }
    // The record comes first: it is there when the file cannot be made.
    let (disk, scratch) = (disk(), Scratch::new());
    let mut config = holder_config(Fabric::Tcp.url(&scratch), SIZE);
    config.file = Some(disk.path("copy"));
    std::os::unix::fs::symlink(disk.path("missing/copy"), disk.path("copy")).unwrap();
    Holder::start(config, keys()).unwrap_err();
    assert!(disk.path("copy.state").exists());
}

#[test]
fn another_size_is_refused_with_the_numbers() {
    let left = Left::new();
    let mut config = left.config();
    config.size = SIZE * 2;
    let why = left.refused(config);
    assert!(why.contains("262144") && why.contains("524288"), "{why}");
    // The file was cut, or grew, while nobody held it.
    for len in [0, SIZE as u64 - 1, SIZE as u64 + 4096] {
        let file = std::fs::OpenOptions::new().write(true).open(left.file()).unwrap();
        file.set_len(len).unwrap();
        let why = left.refused(left.config());
        assert!(why.contains(&format!("in {len},")), "{why}");
    }
    std::fs::remove_file(left.file()).unwrap();
    let why = left.refused(left.config());
    assert!(why.contains("in 0,"), "{why}");
}

#[test]
fn a_file_that_no_holder_wrote_is_refused() {
    let left = Left::new();
    std::fs::remove_file(left.state()).unwrap();
    let why = left.refused(left.config());
    assert!(why.contains("262144 bytes and no record of a holder: move it away"), "{why}");
    std::fs::write(left.file(), b"somebody's diary").unwrap();
    let why = left.refused(left.config());
    assert!(why.contains("16 bytes and no record"), "{why}");
}

#[test]
fn a_damaged_record_is_refused() {
    let left = Left::new();
    let good = std::fs::read(left.state()).unwrap();
    assert_eq!(good.len(), 64);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(left.state(), &bad).unwrap();
        let why = left.refused(left.config());
        assert!(why.contains("is damaged (its checksum is wrong)"), "byte {at}: {why}");
        std::fs::write(left.state(), &good[..at]).unwrap();
        let why = left.refused(left.config());
        assert!(why.contains("is damaged (it has another size)"), "cut to {at}: {why}");
    }
    // A good sum over what is no content.
    std::fs::write(left.state(), &good).unwrap();
    forge(&left.state(), |record| record[8] = 9);
    let why = left.refused(left.config());
    assert!(why.contains("unknown content"), "{why}");
    std::fs::write(left.state(), &good).unwrap();
    left.accepted(left.config());
}

#[test]
fn a_push_that_did_not_end_is_worth_nothing_after_a_restart_either() {
    let left = Left::new();
    let holder = Holder::start(left.config(), keys()).unwrap();
    let mut peer = Peer::connect(holder.url(), &keys());
    assert_eq!(peer.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0))[0], 129);
    assert_eq!(holder.status().content, Content::Partial);
    drop(peer);
    holder.stop();
    let holder = Holder::start(left.config(), keys()).unwrap();
    assert_eq!(holder.status().content, Content::Partial);
    let error = Region::open(region_config(holder.url(), SIZE, Attach::Pull), keys()).unwrap_err();
    let OpenError::Call(CallError::Refused { code, why }) = &error else { panic!("{error}") };
    assert_eq!(*code, RefusalCode::Nothing);
    assert!(why.contains("Partial"), "{why}");
    // A push makes it whole again.
    let region = open(holder.url(), Attach::Push { replace: false });
    assert_eq!(holder.status().content, Content::Complete);
    drop(region);
}
