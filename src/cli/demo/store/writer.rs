//! The second writer: numbered blocks all over a volume, and a ledger of those that were acknowledged.
//!
//! Block `n` is written once, to a place that only it has, with content that only it has. So after the server's death it can be
//! said of each whether it is there: an acknowledged one must be, one that was under way may be, as a whole.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::plan::mix;
use super::nbd::Client;

/// Bytes of a block.
const BLOCK_BYTES: usize = 4096;
/// Blocks of the volume: more than are written before the kill.
const BLOCKS: u64 = 1 << 18;
/// Bytes of the volume.
pub(super) const VOLUME_BYTES: u64 = BLOCKS * BLOCK_BYTES as u64;
/// Odd, so that its multiples reach every block of the volume once.
const STRIDE: u64 = 0x9e37_79b1;
/// Writes under way at a time.
const WRITES_AT_A_TIME: u64 = 16;
/// Rest after so many writes: the demonstration is of a machine at work, not of its limits.
const REST: Duration = Duration::from_millis(1);

/// What is known of the writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Seeds the content.
    seed: u64,
    /// Numbers of the acknowledged, in the order in which they were.
    pub(super) acknowledged: Vec<u64>,
    /// Numbers of those that were asked for and not acknowledged.
    in_doubt: Vec<u64>,
}

/// What was found of a ledger's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Acknowledged writes: all of them.
    pub(super) acknowledged: usize,
    /// Of those in doubt.
    pub(super) in_doubt: usize,
}

/// The writer, while it writes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    go_on: Sender<()>,
    thread: JoinHandle<(Ledger, io::Error)>,
}

impl Writer {
    /// Begins to write into `volume` of the server at `path`.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(super) fn start(path: &Path, volume: &str, seed: u64) -> io::Result<Self> {
        let client = Client::connect(path, volume)?;
        let (go_on, told) = channel();
        let ledger = Ledger { seed, acknowledged: Vec::new(), in_doubt: Vec::new() };
        let thread = std::thread::Builder::new();
        let thread = thread.name("second-writer".into()).spawn(move || write(client, ledger, &told))?;
        Ok(Self { go_on, thread })
    }

    /// The ledger, when the server was killed.
    ///
    /// # Errors
    /// The writer had ended before, or wrote nothing.
    pub(super) fn ledger(self) -> Result<Ledger, String> {
        let (ledger, why) = self.thread.join().map_err(|_| "the second writer panicked".to_owned())?;
        drop(self.go_on);
        match why.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {}
            _ => return Err(format!("the second writer failed: {why}")),
        }
        if ledger.acknowledged.is_empty() {
            return Err(format!("no write of the second writer was acknowledged: {why}"));
        }
        Ok(ledger)
    }
}

/// Writes until that fails, or nobody wants it.
fn write(mut client: Client, mut ledger: Ledger, told: &Receiver<()>) -> (Ledger, io::Error) {
    let mut next = 0;
    loop {
        if let Err(error) = write_some(&mut client, &mut ledger, next) {
            return (ledger, error);
        }
        next += WRITES_AT_A_TIME;
        if told.recv_timeout(REST) != Err(RecvTimeoutError::Timeout) {
            return (ledger, io::Error::other("nobody wants it"));
        }
        if next == BLOCKS {
            return (ledger, io::Error::other("its volume was full before the kill"));
        }
    }
}

/// Writes as many as may be under way, and waits for all of them.
fn write_some(client: &mut Client, ledger: &mut Ledger, first: u64) -> io::Result<()> {
    let sent = (first..first + WRITES_AT_A_TIME).try_for_each(|number| {
        ledger.in_doubt.push(number);
        client.send_write(number, offset(number), &content(ledger.seed, number))
    });
    // What a server said before it was gone is heard, even if it took no more.
    while !ledger.in_doubt.is_empty() {
        let number = client.reply()?;
        let Some(at) = ledger.in_doubt.iter().position(|asked| *asked == number) else {
            return Err(io::Error::other(format!("write {number} is acknowledged, and was not asked for")));
        };
        ledger.in_doubt.remove(at);
        ledger.acknowledged.push(number);
    }
    sent
}

impl Ledger {
    /// Looks for all of it in `volume` of the server at `path`.
    ///
    /// # Errors
    /// An acknowledged write is not there as it was written, or one in doubt is neither there nor not.
    pub(super) fn prove(&self, path: &Path, volume: &str) -> Result<Found, String> {
        let failed = |error: io::Error| format!("the ledger's volume cannot be read: {error}");
        let mut client = Client::connect(path, volume).map_err(failed)?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut look = |number: u64| {
            client.read(offset(number), &mut block).map_err(failed)?;
            if block == content(self.seed, number) {
                return Ok(true);
            }
            let is_zero = block.iter().all(|byte| *byte == 0);
            if is_zero { Ok(false) } else { Err(format!("write {number} is there in part")) }
        };
        for (at, number) in self.acknowledged.iter().enumerate() {
            if !look(*number)? {
                let count = self.acknowledged.len();
                return Err(format!(
                    "write {number}, acknowledged as number {at} of {count}, is lost: its block at byte {} is empty",
                    offset(*number)
                ));
            }
        }
        let mut found = Found { acknowledged: self.acknowledged.len(), in_doubt: 0 };
        for number in &self.in_doubt {
            found.in_doubt += usize::from(look(*number)?);
        }
        Ok(found)
    }
}

/// Where block `number` is written.
const fn offset(number: u64) -> u64 {
    (number.wrapping_mul(STRIDE) % BLOCKS) * BLOCK_BYTES as u64
}

/// What is written there.
fn content(seed: u64, number: u64) -> Vec<u8> {
    let words = BLOCK_BYTES as u64 / 8;
    (0..words).flat_map(|word| mix(seed ^ mix(number * words + word)).to_le_bytes()).collect()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
