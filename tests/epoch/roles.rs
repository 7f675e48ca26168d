//! Children: an owner that commits epochs without end, and a holder with a file.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mirrorbus::epoch::{EpochConfig, EpochError, EpochHolder, EpochLayout, EpochRegion};
use mirrorbus::memory::TrackingMethod;
use mirrorbus::node::{CallError, OpenError, RefusalCode};
use mirrorbus::{Attach, FabricUrl, Level, VolatileSlice};

use crate::child::{Child, PATIENCE, line_to_parent, optional, variable};
use crate::common::{Random, holder_config, keys, region_config, soon};

/// Bytes of the memory.
pub(crate) const SIZE: usize = 512 << 10;

pub(crate) fn layout() -> EpochLayout {
    EpochLayout::with_ring(SIZE, 1 << 20).unwrap()
}

/// The stores of one epoch: they follow from the seed and its number.
pub(crate) fn stores(seed: u64, epoch: u64, mut each: impl FnMut(usize, usize, u8)) {
    let mut random = Random((seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
    let longest = [200, 9000, 60_000][random.below(3)];
    for _ in 0..1 + random.below(24) {
        let len = 1 + random.below(longest);
        each(random.below(SIZE - len), len, random.next() as u8);
    }
    // No epoch changes nothing.
    epoch.to_le_bytes().into_iter().enumerate().for_each(|(at, byte)| each(at, 1, byte));
}

/// A memory with what an epoch stores.
pub(crate) fn store_epoch(memory: VolatileSlice<'_>, seed: u64, epoch: u64) {
    stores(seed, epoch, |offset, len, byte| memory.fill(offset, len, byte));
}

/// What an owner that commits without end is told.
#[derive(Debug, Clone)]
pub(crate) struct OwnerChild {
    pub(crate) url: FabricUrl,
    /// Pull what the holder has; else push zeroes.
    pub(crate) pull: bool,
    pub(crate) seed: u64,
    pub(crate) method: Option<TrackingMethod>,
    pub(crate) durable: bool,
}

impl OwnerChild {
    pub(crate) fn start(&self) -> Child {
        let mut variables = vec![
            ("TEST_URL", self.url.to_string()),
            ("TEST_PULL", self.pull.to_string()),
            ("TEST_SEED", self.seed.to_string()),
            ("TEST_DURABLE", self.durable.to_string()),
        ];
        variables.extend(self.method.map(|method| ("TEST_METHOD", method.to_string())));
        Child::spawn("epoch-owner", &variables)
    }
}

/// What an owner said before its end: the last epoch that it began to commit, and the last that it was told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) begun: u64,
    pub(crate) done: u64,
}

impl Said {
    /// Reads all that stands in the line of an owner that is gone.
    pub(crate) fn read(mut self, line: &mut UnixStream) -> Self {
        let mut bytes = Vec::new();
        line.read_to_end(&mut bytes).unwrap();
        for entry in bytes.as_chunks::<16>().0 {
            self = Self::of(entry);
        }
        self
    }

    /// Reads what stands in the line of an owner that stands still.
    pub(crate) fn heard(mut self, mut line: &UnixStream) -> Self {
        line.set_nonblocking(true).unwrap();
        // Entries are written whole.
        let mut bytes = [0; 16 * 256];
        loop {
            match line.read(&mut bytes) {
                Ok(len) if len > 0 => {
                    assert!(len.is_multiple_of(16), "{len} bytes");
                    self = Self::of(bytes[..len].as_chunks().0.last().unwrap());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                end => panic!("the line of the owner: {end:?}"),
            }
        }
        line.set_nonblocking(false).unwrap();
        self
    }

    pub(crate) fn of(entry: &[u8; 16]) -> Self {
        let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
        Self { begun: word(0), done: word(8) }
    }

    fn write(self, mut line: &UnixStream) -> bool {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.begun.to_le_bytes());
        bytes[8..].copy_from_slice(&self.done.to_le_bytes());
        line.write_all(&bytes).is_ok()
    }
}

/// Opens, as soon as the holder knows that the owner before is gone.
pub(crate) fn open(config: &EpochConfig) -> EpochRegion {
    let until = Instant::now() + PATIENCE;
    loop {
        match EpochRegion::open(config.clone(), keys()) {
            Ok(region) => return region,
            Err(EpochError::Open(OpenError::Call(CallError::Refused { code: RefusalCode::Busy, why }))) => {
                assert!(Instant::now() < until, "{why}");
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Role: commits epochs until it is killed or its link is lost.
pub(crate) fn own() {
    let attach = if variable("TEST_PULL") { Attach::Pull } else { Attach::Push { replace: false } };
    let (url, seed, durable): (FabricUrl, u64, bool) =
        (variable("TEST_URL"), variable("TEST_SEED"), variable("TEST_DURABLE"));
    let mut config = EpochConfig::new(region_config(&url, 1, attach), layout());
    config.method = optional("TEST_METHOD");
    let mut owner = open(&config);
    let line = line_to_parent();
    let level = if durable { Level::Durable } else { Level::Acked };
    let mut said = Said { begun: owner.epoch(), done: owner.epoch() };
    loop {
        store_epoch(owner.memory().slice(), seed, said.begun + 1);
        said.begun += 1;
        if !said.write(&line) {
            return;
        }
        match owner.commit(level, soon()) {
            Ok(cut) => assert_eq!(cut.epoch, said.begun),
            Err(EpochError::Wait { .. } | EpochError::Store(_))
                if owner.region().link() != mirrorbus::node::LinkStatus::Up =>
            {
                return;
            }
            Err(error) => panic!("{error}"),
        }
        said.done = said.begun;
        if !said.write(&line) {
            return;
        }
    }
}

/// Starts a holder with a file in a process of its own; returns where it listens.
pub(crate) fn start_holder(url: &FabricUrl, file: &Path) -> (Child, FabricUrl) {
    let variables = [("TEST_URL", url.to_string()), ("TEST_FILE", file.display().to_string())];
    let child = Child::spawn("epoch-holder", &variables);
    let url = child.read_text().parse().unwrap();
    (child, url)
}

/// Role: holds until the line to the parent ends.
pub(crate) fn hold() {
    let mut config = holder_config(variable("TEST_URL"), 1);
    config.file = optional::<PathBuf>("TEST_FILE");
    let holder = EpochHolder::start(config, layout(), keys()).unwrap();
    let mut line = line_to_parent();
    writeln!(line, "{}", holder.holder().url()).unwrap();
    let mut text = String::new();
    while BufReader::new(&line).read_line(&mut text).is_ok_and(|len| len > 0) {}
}
