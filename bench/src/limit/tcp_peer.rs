//! The other side of the tcp limit: receives stores into memory and acknowledges them. One thread for each connection.
//!
//! It ends with the process that started it. Started by hand, for a run from another host, it serves until killed;
//! there is no authentication, so it belongs on a trusted network only, and its memory is bounded.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mirrorbus::base::crc32c;

use super::wire::{ACK_BYTES, HEADER_BYTES, HELLO_BYTES, Hello, Mode, Patience, Wire, fold};
use crate::Failure;
use crate::options::LimitPeerOptions;
use crate::workload::{LARGE_BYTES, Offsets, Pattern, Polling};

/// Most bytes received at once.
const CHUNK_BYTES: usize = 256 << 10;
/// A connection that sends no hello for this long is closed.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Most connections at a time.
const CONNECTIONS_MAX: usize = 256;

/// What all connections together may use.
#[derive(Debug)]
struct Budget {
    bytes: AtomicUsize,
    connections: AtomicUsize,
}

/// A part of the budget, given back when dropped.
struct Claim<'a> {
    counter: &'a AtomicUsize,
    amount: usize,
}

impl<'a> Claim<'a> {
    fn take(counter: &'a AtomicUsize, amount: usize) -> Result<Self, String> {
        counter
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(amount))
            .map_err(|left| format!("{amount} asked, {left} left"))?;
        Ok(Self { counter, amount })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.counter.fetch_add(self.amount, Ordering::SeqCst);
    }
}

/// Serves until it fails.
///
/// # Errors
/// The address could not be listened on.
pub(crate) fn serve(options: &LimitPeerOptions) -> Result<(), Failure> {
    let listener = TcpListener::bind(&options.listen)
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    println!("listening on {}", listener.local_addr()?);
    accept(&listener, options.memory)
}

/// Serves all who connect.
pub(super) fn accept(listener: &TcpListener, memory: usize) -> Result<(), Failure> {
    let budget =
        Arc::new(Budget { bytes: AtomicUsize::new(memory), connections: AtomicUsize::new(CONNECTIONS_MAX) });
    loop {
        let (stream, from) = listener.accept()?;
        let budget = Arc::clone(&budget);
        std::thread::spawn(move || {
            if let Err(error) = connection(stream, &budget) {
                eprintln!("limit-peer: connection from {from}: {error}");
            }
        });
    }
}

fn connection(stream: TcpStream, budget: &Budget) -> Result<(), Failure> {
    let _connection =
        Claim::take(&budget.connections, 1).map_err(|why| format!("too many connections: {why}"))?;
    stream.set_read_timeout(Some(HELLO_WITHIN))?;
    let mut bytes = [0; HELLO_BYTES];
    let mut wire = Wire::new(stream.try_clone()?, Polling::Block, Patience::Serving)?;
    if !wire.read_all(&mut bytes)? {
        return Ok(());
    }
    let hello = Hello::decode(&bytes)?;
    let memory = Claim::take(&budget.bytes, hello.reach)
        .map_err(|why| format!("not enough memory: {why} (limit-peer --memory)"))?;
    stream.set_read_timeout(None)?;
    let mut wire = Wire::new(stream, hello.polling, Patience::Serving)?;
    match hello.mode {
        Mode::PingPong => ping_pong(&mut wire, &hello)?,
        Mode::Window | Mode::Checked => receive(&mut wire, &hello)?,
    }
    drop(memory);
    Ok(())
}

fn ping_pong(wire: &mut Wire, hello: &Hello) -> Result<(), Failure> {
    let mut message = vec![0; HEADER_BYTES + hello.size];
    let answer = [0x5a; HEADER_BYTES];
    while wire.read_all(&mut message)? {
        wire.write_all(&answer)?;
    }
    Ok(())
}

/// Counts stores, and acknowledges each batch once.
struct Acks {
    batch: u64,
    received: u64,
    said: u64,
    fold: u64,
}

impl Acks {
    fn say(&mut self, wire: &mut Wire) -> Result<(), Failure> {
        let whole = self.received - self.received % self.batch;
        if whole == self.said {
            return Ok(());
        }
        self.said = whole;
        let mut ack = [0; ACK_BYTES];
        ack[..8].copy_from_slice(&whole.to_le_bytes());
        ack[8..].copy_from_slice(&self.fold.to_le_bytes());
        Ok(wire.write_all(&ack)?)
    }
}

fn receive(wire: &mut Wire, hello: &Hello) -> Result<(), Failure> {
    // Not zeros, so that the pages are really there.
    let mut memory = vec![1; hello.reach];
    let mut offsets = Offsets::new(hello.pattern, 0, hello.reach, hello.size, hello.seed);
    let mut acks = Acks { batch: hello.batch as u64, received: 0, said: 0, fold: 0 };
    if hello.size >= LARGE_BYTES {
        return one_by_one(wire, hello, &mut memory, &mut offsets, &mut acks);
    }
    if hello.pattern == Pattern::Append {
        return contiguous(wire, hello, &mut memory, &mut acks);
    }
    scattered(wire, hello, &mut memory, &mut offsets, &mut acks)
}

/// Large stores, each received straight to its place.
fn one_by_one(
    wire: &mut Wire,
    hello: &Hello,
    memory: &mut [u8],
    offsets: &mut Offsets,
    acks: &mut Acks,
) -> Result<(), Failure> {
    loop {
        let place = &mut memory[offsets.next()..][..hello.size];
        if !wire.read_all(place)? {
            return Ok(());
        }
        if hello.mode == Mode::Checked {
            acks.fold = fold(acks.fold, crc32c(place));
        }
        acks.received += 1;
        acks.say(wire)?;
    }
}

/// Small contiguous stores, as many at once as have come, straight to their place.
fn contiguous(wire: &mut Wire, hello: &Hello, memory: &mut [u8], acks: &mut Acks) -> Result<(), Failure> {
    let end = memory.len() / hello.size * hello.size;
    let mut cursor = 0;
    let mut partial = 0;
    loop {
        let length = CHUNK_BYTES.min(end - cursor);
        let count = wire.read_some(&mut memory[cursor..cursor + length])?;
        if count == 0 {
            return Ok(());
        }
        cursor = if cursor + count == end { 0 } else { cursor + count };
        partial += count;
        acks.received += (partial / hello.size) as u64;
        partial %= hello.size;
        acks.say(wire)?;
    }
}

/// Small stores to scattered places, copied there from where they were received.
fn scattered(
    wire: &mut Wire,
    hello: &Hello,
    memory: &mut [u8],
    offsets: &mut Offsets,
    acks: &mut Acks,
) -> Result<(), Failure> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut filled = 0;
    loop {
        let count = wire.read_some(&mut chunk[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let whole = filled / hello.size * hello.size;
        for store in chunk[..whole].chunks_exact(hello.size) {
            memory[offsets.next()..][..hello.size].copy_from_slice(store);
            acks.received += 1;
        }
        chunk.copy_within(whole..filled, 0);
        filled -= whole;
        acks.say(wire)?;
    }
}
