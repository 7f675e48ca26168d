//! Roles: a client of a volume that writes and says what it was answered, and one that says what is there.
//!
//! The ledger is kept by whoever started them, for whom this machine may lose its power at any moment: what he has read
//! is what counts. Lines of the writer, in the order of what happened:
//!
//! ```text
//! w NUMBER FIRST COUNT     the write with this number was acknowledged: so many blocks from the first
//! f                        a flush is asked for: it covers the writes before this line
//! F                        it was acknowledged
//! lost · stopped           the connection broke off; or it was told to stop, and has every answer
//! ```
//!
//! Numbers rise, and a block has one write in flight at most: its content after a restart is that of the last acknowledged write or of a
//! later one.

use std::collections::HashMap;
use std::io::{Write, stdout};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::child::{optional, variable};
use crate::client::{BLOCK, Client, Command, content, number_of};
use crate::common::Random;

/// Requests in flight at most.
const DEPTH: usize = 8;

/// Of so many requests one is a flush.
const FLUSH_ONE_IN: usize = 24;

/// Blocks of a write at most, unless `TEST_MOST` says otherwise.
const BLOCKS_MAX: usize = 8;

/// Blocks that are read at once.
const BLOCKS_READ: usize = 256;

enum Asked {
    Write { number: u32, first: usize, count: usize },
    Flush,
}

/// A client at work.
pub(crate) struct Work {
    client: Client,
    random: Random,
    /// Of the blocks that it writes to the first.
    first: usize,
    busy: Vec<bool>,
    most: usize,
    asked: HashMap<u64, Asked>,
    flushes: bool,
    flushing: bool,
    next: u32,
}

/// Role: writes to the volume `TEST_VOLUME` at the socket `TEST_SOCKET`, of `TEST_BLOCKS` blocks, with numbers from `TEST_FIRST` on, until
/// the connection is lost or it is told to stop.
pub(crate) fn disk_writer() {
    let mut work = Work::new(connect().unwrap(), 0..variable("TEST_BLOCKS"), true, variable("TEST_FIRST"));
    println!("writing");
    println!("{}", if work.run(&go()).is_ok() { "stopped" } else { "lost" });
}

/// The file whose making tells a role to go on.
pub(crate) fn go() -> PathBuf {
    PathBuf::from(variable::<String>("TEST_GO"))
}

/// A connection to the volume, where it is served.
pub(crate) fn connect() -> std::io::Result<Client> {
    let socket = variable::<String>("TEST_SOCKET");
    Client::connect(Path::new(&socket), &variable::<String>("TEST_VOLUME"))
}

impl Work {
    /// Writes to these blocks, with numbers from `next` on.
    pub(crate) fn new(client: Client, blocks: Range<usize>, flushes: bool, next: u32) -> Self {
        Self {
            client,
            // Another one for each.
            random: Random(variable::<u64>("TEST_SEED") ^ u64::from(next) | 1),
            first: blocks.start,
            busy: vec![false; blocks.len()],
            most: optional("TEST_MOST").unwrap_or(BLOCKS_MAX),
            asked: HashMap::new(),
            flushes,
            flushing: false,
            next,
        }
    }

    /// The number of the next write.
    pub(crate) const fn next(&self) -> u32 {
        self.next
    }

    /// Until the connection is lost, or `go` is there and everything answered.
    pub(crate) fn run(&mut self, go: &Path) -> std::io::Result<()> {
        loop {
            let stops = go.exists();
            for _ in self.asked.len()..if stops { 0 } else { DEPTH } {
                self.ask()?;
            }
            if self.asked.is_empty() && stops {
                return Ok(());
            }
            // As many answers as there were requests: looking for the file costs more than one of them.
            for _ in 0..self.asked.len() {
                self.answer()?;
            }
            stdout().flush()?;
        }
    }

    fn ask(&mut self) -> std::io::Result<()> {
        if self.flushes && !self.flushing && self.random.below(FLUSH_ONE_IN) == 0 {
            // Said before it is asked for: what is said to be covered was acknowledged before.
            println!("f");
            let asked = self.client.ask(Command::Flush, 0, 0, &[])?;
            self.asked.insert(asked, Asked::Flush);
            self.flushing = true;
            return Ok(());
        }
        let count = if self.random.below(4) == 0 { 1 + self.random.below(self.most) } else { 1 };
        let first = self.random.below(self.busy.len() - count);
        if self.busy[first..first + count].contains(&true) {
            return Ok(());
        }
        self.busy[first..first + count].fill(true);
        let first = self.first + first;
        let number = self.next;
        self.next += 1;
        let payload: Vec<u8> =
            (first..first + count).flat_map(|block| content(block as u64, number)).collect();
        let len = u32::try_from(payload.len()).unwrap();
        let asked = self.client.ask(Command::Write, (first * BLOCK) as u64, len, &payload)?;
        self.asked.insert(asked, Asked::Write { number, first, count });
        Ok(())
    }

    fn answer(&mut self) -> std::io::Result<()> {
        let (answered, error) = self.client.answer()?;
        assert_eq!(error, 0, "a request failed");
        match self.asked.remove(&answered).expect("an answer to a question") {
            Asked::Write { number, first, count } => {
                self.busy[first - self.first..][..count].fill(false);
                println!("w {number} {first} {count}");
            }
            Asked::Flush => {
                self.flushing = false;
                println!("F");
            }
        }
        Ok(())
    }
}

/// Role: says of each block after which write it has its content, flushes, and says so.
pub(crate) fn disk_reader() {
    let mut client = connect().unwrap();
    let blocks: usize = variable("TEST_BLOCKS");
    let mut numbers = Vec::with_capacity(blocks);
    for first in (0..blocks).step_by(BLOCKS_READ) {
        let count = BLOCKS_READ.min(blocks - first);
        let bytes = client.read((first * BLOCK) as u64, u32::try_from(count * BLOCK).unwrap());
        let bytes =
            bytes.unwrap_or_else(|error| panic!("reading {count} blocks from {first} on: error {error}"));
        for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK)) {
            let number = number_of(block as u64, bytes);
            numbers.push(number.unwrap_or_else(|| panic!("block {block} has the content of no write of it")));
        }
    }
    println!("found {}", numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    assert_eq!(client.flush(), 0);
    println!("flushed");
}

#[cfg(feature = "serve")]
mod tests {
    use super::BLOCK;
    use crate::Stage;
    use crate::memory::{Disks, Memory};
    use mirrorbus::serve::nbd::{Server, ServerConfig};

    const BLOCKS: usize = 600;

    #[test]
    fn a_writer_says_what_was_acknowledged_and_a_reader_what_is_there() {
        let stage = Stage::new();
        let socket = stage.scratch.path("nbd.sock");
        let disk = Memory::new((BLOCKS * BLOCK) as u64, false);
        let server = Server::start(&ServerConfig::new(socket.clone()), Disks::one(&disk)).unwrap();
        let (socket, blocks) = (socket.display().to_string(), BLOCKS.to_string());
        let told = [
            ("TEST_SOCKET", socket.as_str()),
            ("TEST_VOLUME", "disk"),
            ("TEST_BLOCKS", &blocks),
            ("TEST_FIRST", "1000"),
        ];
        let mut writer = stage.start("disk-writer", &told);
        writer.told("writing");
        let (mut expected, mut flushes) = (vec![0; BLOCKS], 0);
        let mut writes = 0;
        while let Some(line) = writer.line_after("") {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["w", number, first, count] => {
                    let [number, first, count] = [number, first, count].map(|word| word.parse().unwrap());
                    expected[first..first + count].fill(number);
                    writes += 1;
                }
                ["F"] => flushes += 1,
                ["stopped"] => break,
                _ => {}
            }
            if flushes == 10 {
                stage.go("");
            }
        }
        writer.ends_well();
        assert!(writes > 100, "{writes} writes and {flushes} flushes");
        let mut reader = stage.start("disk-reader", &told);
        let found: Vec<usize> =
            reader.told("found ").split(' ').map(|number| number.parse().unwrap()).collect();
        reader.told("flushed");
        reader.ends_well();
        assert_eq!(found, expected);
        // Its connection is its end.
        std::fs::remove_file(stage.scratch.path("go")).unwrap();
        let mut writer = stage.start("disk-writer", &told);
        writer.told("w ");
        server.stop();
        writer.told("lost");
        // What is of no write is not passed over.
        let at = 77 * BLOCK as u64 + 5;
        disk.put(at, b"x");
        let server = Server::start(&ServerConfig::new(&socket), Disks::one(&disk)).unwrap();
        assert_eq!(stage.start("disk-reader", &told).line_after("found "), None);
        server.stop();
    }
}
