//! Fuzzes the NBD server against whatever a client may send: a negotiation, then requests.
//!
//! The first byte chooses. *Raw*: the rest is the client's stream as it is, in pieces of a size that the second byte gives; only the greeting and
//! the flags are put in front where its bits say so. *Built*: the rest is read as a list of options and requests with the
//! right magic numbers around fields of the fuzzer's choice, so that it comes past those.
//!
//! Of the replies every byte is read by the letter of the protocol: each request whose bytes are whole has one final reply, at
//! most one, and a read's chunks cover its range once. The disk is bounded and in memory. Executions that
//! got a reply to a request are counted and printed at each power of two.
#![no_main]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use mirrorbus::memory::{MapOptions, Mapping};
use mirrorbus::serve::nbd::{
    Channel, Chosen, Ended, Export, ExportError, ExportErrorKind, ExportName, Exports, ExtentRun, Extents,
    Handshake, Input, Mark, Payload, Progress, TlsMode, Transmission,
};

type Gone<'a> = &'a dyn Fn() -> bool;
const DISK_BYTES: usize = 1 << 18;
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);
static REPLIES: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((&[mode, piece], data)) = data.split_first_chunk::<2>() else { return };
    let piece = 1 + usize::from(piece).pow(2);
    let stream = if mode & 1 == 0 { raw(mode, data) } else { built(data) };
    let replies =
        serve(stream, piece, mode & 8 != 0, if mode & 4 == 0 { TlsMode::Off } else { TlsMode::Required });
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let all = REPLIES.fetch_add(replies, Ordering::Relaxed) + replies;
    let deep = DEEP.fetch_add(u64::from(replies > 0), Ordering::Relaxed) + u64::from(replies > 0);
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (executions with requests answered; {all} replies)");
    }
});

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn raw(mode: u8, data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    if mode & 2 != 0 {
        stream.extend(b"\0\0\0\x03");
    }
    if mode & 16 != 0 {
        stream.extend(option(8, &[]));
    }
    if mode & 32 != 0 {
        stream.extend(option(10, b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation"));
        stream.extend(option(7, b"\0\0\0\x04disk\0\0"));
    }
    stream.extend(data);
    stream
}

fn built(mut data: &[u8]) -> Vec<u8> {
    let mut stream = b"\0\0\0\x03".to_vec();
    let Some((&[options, structured], rest)) = data.split_first_chunk::<2>() else { return stream };
    data = rest;
    for _ in 0..options % 8 {
        let Some((&[number, len], rest)) = data.split_first_chunk::<2>() else { break };
        let (body, rest) = rest.split_at(rest.len().min(usize::from(len)));
        stream.extend(option(u32::from(number % 12), body));
        data = rest;
    }
    if structured & 1 != 0 {
        stream.extend(option(8, &[]));
        stream.extend(option(10, b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation"));
    }
    stream.extend(option(7, b"\0\0\0\0\0\0"));
    let mut cookie = 0_u64;
    while let Some((&[flags, command, at, shift, len, scale], rest)) = data.split_first_chunk::<6>() {
        data = rest;
        let offset = u64::from(at) << (shift % 64);
        let len = u32::from(len) << (scale % 25);
        // Of a long payload the fuzzer's bytes are the beginning only.
        let payload = if command % 10 == 1 && len <= 1 << 18 { len as usize } else { 0 };
        stream.extend(0x2560_9513_u32.to_be_bytes());
        stream.extend(u16::from(flags % 64).to_be_bytes());
        stream.extend(u16::from(command % 10).to_be_bytes());
        stream.extend(cookie.to_be_bytes());
        stream.extend(offset.to_be_bytes());
        stream.extend(len.to_be_bytes());
        let (text, _) = data.split_at(data.len().min(payload).min(16));
        let end = stream.len() + payload;
        stream.extend(text);
        stream.resize(end, at);
        cookie += 1;
        if stream.len() > 1 << 20 {
            break;
        }
    }
    stream
}

/// The client: what it sends, in pieces, and what it is answered.
struct Client {
    sent: Vec<u8>,
    at: usize,
    piece: usize,
    tells: bool,
    answered: Vec<u8>,
}

impl Channel for Client {
    fn receive(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = target.len().min(self.piece).min(self.sent.len() - self.at);
        target[..count].copy_from_slice(&self.sent[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answered.extend_from_slice(bytes);
        Ok(())
    }

    fn available(&self) -> usize {
        if self.tells { self.sent.len() - self.at } else { 0 }
    }

    fn gone(&self) -> bool {
        false
    }
}

/// Serves the client; how many requests were answered.
fn serve(sent: Vec<u8>, piece: usize, tells: bool, tls: TlsMode) -> u64 {
    let mut client = Client { sent, at: 0, piece, tells, answered: Vec::new() };
    let mut input = Input::new();
    let mut handshake = Handshake::new(tls);
    let exports = Disk(Arc::new(Memory::new()));
    let mut output = Vec::new();
    let chosen = loop {
        match handshake.handle(input.bytes(), &exports) {
            Progress::More => match input.receive(&mut client) {
                Ok(true) => {}
                Ok(false) | Err(_) => return 0,
            },
            Progress::Took(count) => input.consume(count),
            Progress::StartTls(count) => {
                input.consume(count);
                handshake.secured();
            }
            Progress::Begin(count, chosen) => {
                input.consume(count);
                break chosen;
            }
            Progress::End(_) => return 0,
        }
    };
    handshake.poll_transmit(&mut output);
    check_negotiation(&output);
    let structured = chosen.structured;
    let from = client.at - input.bytes().len();
    let Chosen { allocation, .. } = chosen;
    let ended = Transmission::new(&mut client, chosen, input).run();
    check(&client.sent[from..], &client.answered, structured, allocation, &ended)
}

/// The greeting, then replies to options, then perhaps the answer to EXPORT_NAME.
fn check_negotiation(output: &[u8]) {
    let mut rest = output.strip_prefix(b"NBDMAGICIHAVEOPT\0\x03").expect("the greeting");
    while let Some(after) = rest.strip_prefix(&0x0003_e889_0455_65a9_u64.to_be_bytes()) {
        let len = u32::from_be_bytes(after[8..12].try_into().expect("four bytes")) as usize;
        rest = &after[12 + len..];
    }
    assert!(matches!(rest.len(), 0 | 10 | 134), "{} bytes behind the replies", rest.len());
}

/// A request that awaits its reply.
#[derive(Clone, Copy)]
struct Asked {
    command: u16,
    offset: u64,
    len: u64,
    /// Bytes of content that came.
    covered: u64,
}

/// Requests that are whole, by their cookies; those with the same cookie cannot be told apart and are counted.
fn asked(mut sent: &[u8]) -> (BTreeMap<u64, Vec<Asked>>, bool) {
    let mut all: BTreeMap<u64, Vec<Asked>> = BTreeMap::new();
    while let Some((header, rest)) = sent.split_first_chunk::<28>() {
        let field = |at: usize, len: usize| {
            header[at..at + len].iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let (command, len) = (field(6, 2) as u16, field(24, 4));
        let payload = if command == 1 { len as usize } else { 0 };
        if field(0, 4) != 0x2560_9513 || command == 2 || payload > rest.len() {
            break;
        }
        let asked = Asked { command, offset: field(16, 8), len, covered: 0 };
        all.entry(field(8, 8)).or_default().push(asked);
        sent = &rest[payload..];
    }
    let unique = all.values().all(|of| of.len() == 1);
    (all, unique)
}

fn check(sent: &[u8], mut answered: &[u8], structured: bool, allocation: bool, ended: &Ended) -> u64 {
    let (mut waiting, unique) = asked(sent);
    let requests: usize = waiting.values().map(Vec::len).sum();
    let mut replies = 0;
    while !answered.is_empty() {
        let cookie = u64::from_be_bytes(answered[8..16].try_into().expect("eight bytes"));
        let open = waiting.get_mut(&cookie).expect("a reply to what was asked");
        let of = open.last_mut().expect("a reply to what was not answered");
        let done = if answered[..4] == [0x67, 0x44, 0x66, 0x98] {
            let failed = answered[4..8] != [0; 4];
            assert!(
                !structured || !(matches!(of.command, 0 | 7) || failed),
                "a simple reply to {}",
                of.command
            );
            // With equal cookies nobody knows whose data it is.
            let data = if of.command == 0 && !failed && unique { of.len as usize } else { 0 };
            answered = &answered[16 + data..];
            true
        } else {
            assert!(structured && answered[..4] == [0x66, 0x8e, 0x33, 0xef]);
            let len = u32::from_be_bytes(answered[16..20].try_into().expect("four bytes")) as usize;
            let (kind, done) = (u16::from_be_bytes([answered[6], answered[7]]), answered[5] == 1);
            if unique {
                chunk(of, kind, done, &answered[20..20 + len], allocation);
            }
            answered = &answered[20 + len..];
            done
        };
        if done {
            open.pop();
            replies += 1;
            if open.is_empty() && !unique {
                waiting.remove(&cookie);
            } else if open.is_empty() {
                waiting.insert(cookie, Vec::new());
            }
        }
        if !structured && !unique {
            return replies;
        }
    }
    let complete =
        matches!(ended, Ended::Disconnected | Ended::Closed | Ended::Truncated | Ended::NotARequest { .. });
    assert!(!complete || replies == requests as u64, "{replies} replies to {requests} requests: {ended}");
    replies
}

fn chunk(of: &mut Asked, kind: u16, done: bool, data: &[u8], allocation: bool) {
    let number = |at: usize, len: usize| {
        data[at..at + len].iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
    };
    let content = match kind {
        1 => Some((number(0, 8), data.len() as u64 - 8)),
        2 => Some((number(0, 8), number(8, 4))),
        5 => {
            assert!(of.command == 7 && allocation && done && data.len() % 8 == 4);
            let sum: u64 = data[4..]
                .chunks(8)
                .map(|run| u64::from(u32::from_be_bytes([run[0], run[1], run[2], run[3]])))
                .sum();
            assert!(sum > 0 && sum <= of.len);
            None
        }
        0x8001 | 0x8002 => {
            assert!(done && number(0, 4) != 0);
            None
        }
        _ => panic!("a chunk of kind {kind}"),
    };
    if let Some((offset, len)) = content {
        // In order and without gaps, as this server sends them.
        assert!(of.command == 0 && len > 0 && offset == of.offset + of.covered);
        of.covered += len;
        assert_eq!(done, of.covered == of.len);
    }
}

/// The only export.
struct Disk(Arc<Memory>);

impl Exports for Disk {
    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        matches!(name, "" | "disk").then(|| Arc::clone(&self.0) as Arc<dyn Export>)
    }

    fn list(&self) -> Vec<ExportName> {
        vec![ExportName { name: "disk".into(), description: "of the fuzzer".into() }]
    }
}

struct Memory {
    mapping: Mapping,
    /// Taken, and committed.
    marks: Mutex<(u64, u64)>,
}

impl Memory {
    fn new() -> Self {
        let mapping = Mapping::anonymous(DISK_BYTES, MapOptions::default()).expect("a small mapping");
        Self { mapping, marks: Mutex::new((0, 0)) }
    }

    fn range(&self, offset: u64, len: u64) -> usize {
        let end = offset.checked_add(len).expect("checked by the server");
        assert!(len > 0 && end <= DISK_BYTES as u64, "the server let {len} bytes at {offset} pass");
        offset as usize
    }

    fn mark(&self) -> Mark {
        let mut marks = self.marks.lock().expect("no panic before");
        marks.0 += 1;
        Mark(marks.0)
    }
}

impl Export for Memory {
    fn size(&self) -> u64 {
        DISK_BYTES as u64
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<Mark, ExportError> {
        let at = self.range(offset, target.len() as u64);
        self.mapping.slice().read(at, target);
        Ok(self.mark())
    }

    fn write(&self, offset: u64, payload: Payload<'_>, _: Gone<'_>) -> Result<Mark, ExportError> {
        let len = payload.bytes();
        let at = self.range(offset, len as u64);
        match payload {
            Payload::Bytes(bytes) => self.mapping.slice().write(at, bytes),
            Payload::Fill(fill) => {
                let target = self.mapping.slice().subslice(at, len).expect("checked");
                fill.fill(target)
                    .map_err(|error| ExportError::new(ExportErrorKind::Io, error.to_string()))?;
            }
        }
        Ok(self.mark())
    }

    fn trim(&self, offset: u64, len: u64, _: Gone<'_>) -> Result<Mark, ExportError> {
        self.range(offset, len);
        Err(ExportError::new(ExportErrorKind::Unsupported, "never"))
    }

    fn write_zeroes(&self, offset: u64, len: u64, _: bool, _: Gone<'_>) -> Result<Mark, ExportError> {
        let at = self.range(offset, len);
        self.mapping.slice().fill(at, len as usize, 0);
        Ok(self.mark())
    }

    fn commit(&self, mark: Mark, _: Gone<'_>) -> Result<(), ExportError> {
        let mut marks = self.marks.lock().expect("no panic before");
        assert!(mark.0 <= marks.0, "a mark that was not given");
        marks.1 = marks.1.max(mark.0);
        // Now and then one fails.
        if mark.0 % 13 == 5 {
            Err(ExportError::new(ExportErrorKind::NoSpace, "the thirteenth"))
        } else {
            Ok(())
        }
    }

    fn flush(&self, _: Gone<'_>) -> Result<(), ExportError> {
        Ok(())
    }

    fn extents(&self, offset: u64, len: u64, most: usize) -> Result<Extents, ExportError> {
        let start = self.range(offset, len) as u64;
        let mut runs: Vec<ExtentRun> = Vec::new();
        let mut at = start;
        while at < start + len && runs.len() < most {
            let end = ((at / 8192 + 1) * 8192).min(start + len);
            runs.push(ExtentRun { bytes: end - at, hole: at / 8192 % 2 == 0 });
            at = end;
        }
        Ok(Extents { runs, mark: self.mark() })
    }
}
