//! The transmission over a channel that gives what is sent in pieces of every size: the same requests have the same effect
//! and the same replies, and long payloads go straight into the disk's memory where they are there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mirrorbus::serve::nbd::{Channel, Chosen, Ended, Input, Transmission};

use crate::common::Random;
use crate::memory::Memory;
use crate::raw::{
    BLOCK_STATUS, CACHE, DISCONNECT, FLUSH, NO_HOLE, Reply, TRIM, WRITE_ZEROES, read, read_reply, request,
    write,
};

const SIZE: u64 = 4 << 20;

/// A client that has sent everything already.
struct Script {
    sent: Vec<u8>,
    at: usize,
    /// Given at a time.
    most: usize,
    /// Whether it is known what has come.
    tells: bool,
    replies: Vec<u8>,
    sends: usize,
}

impl Channel for Script {
    fn receive(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = target.len().min(self.most).min(self.sent.len() - self.at);
        target[..count].copy_from_slice(&self.sent[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.replies.extend_from_slice(bytes);
        self.sends += 1;
        Ok(())
    }

    fn available(&self) -> usize {
        if self.tells { self.sent.len() - self.at } else { 0 }
    }

    fn gone(&self) -> bool {
        false
    }
}

fn run(disk: &Arc<Memory>, sent: &[u8], most: usize, tells: bool, structured: bool) -> (Script, Ended) {
    let mut script = Script { sent: sent.to_vec(), at: 0, most, tells, replies: Vec::new(), sends: 0 };
    let export = Arc::clone(disk) as Arc<_>;
    let chosen =
        Chosen { export, name: "disk".into(), structured, allocation: structured, unreplicated: false };
    let ended = Transmission::new(&mut script, chosen, Input::new()).run();
    (script, ended)
}

/// All replies in the order of their cookies, each with its content put together. Where one read is cut into chunks may differ.
fn replies(script: &Script) -> Vec<(u64, Vec<u8>)> {
    let mut from = &script.replies[..];
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut put = |cookie, part: &[u8]| match found.iter_mut().find(|(named, _)| *named == cookie) {
        Some((_, content)) => content.extend_from_slice(part),
        None => found.push((cookie, part.to_vec())),
    };
    while !from.is_empty() {
        match read_reply(&mut from) {
            Reply::Simple { cookie, error } => put(cookie, &error.to_be_bytes()),
            Reply::Chunk { cookie, kind: 1, data, .. } => put(cookie, &data[8..]),
            Reply::Chunk { cookie, kind: 2, data, .. } => {
                let len = u32::from_be_bytes(data[8..12].try_into().unwrap());
                put(cookie, &vec![0; len as usize]);
            }
            Reply::Chunk { cookie, data, .. } => put(cookie, &data),
        }
    }
    found.sort_unstable();
    found
}

/// Requests of all kinds and lengths, some of them refused.
fn requests(seed: u64, count: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::new();
    for cookie in 0..count {
        let len = match random.below(6) {
            0 => 1 + random.below(600),
            1 => 200_000 + random.below(400_000),
            2 => 131_000 + random.below(200),
            _ => 512 * (1 + random.below(32)),
        };
        let offset = random.below(4 << 20) as u64;
        let small = u32::try_from(len).unwrap();
        let payload: Vec<u8> = (0..len).map(|at| (at as u64 * 31 + cookie).to_le_bytes()[0]).collect();
        bytes.extend(match random.below(10) {
            0..4 => write(0, cookie, offset, &payload),
            4..6 => read(cookie, offset, small),
            6 => request(0, TRIM, cookie, (offset, small), &[]),
            7 => request(NO_HOLE, WRITE_ZEROES, cookie, (offset, small), &[]),
            8 => request(0, BLOCK_STATUS, cookie, (offset, small), &[]),
            _ => request(0, if random.below(2) == 0 { FLUSH } else { CACHE }, cookie, (0, 512), &[]),
        });
    }
    bytes.extend(request(0, DISCONNECT, count, (0, 0), &[]));
    bytes
}

#[test]
fn pieces_of_any_size_make_no_difference() {
    for seed in 1..=4 {
        let sent = requests(seed, 60);
        let whole_disk = Memory::new(SIZE, false);
        let (whole, ended) = run(&whole_disk, &sent, usize::MAX, false, true);
        assert!(matches!(ended, Ended::Disconnected), "seed {seed}: {ended}");
        let expected = replies(&whole);
        assert_eq!(expected.len(), 60, "seed {seed}: each request has a reply");
        for (most, tells) in
            [(1, false), (7, true), (28, false), (4096, true), (50_000, true), (131_072, false)]
        {
            let disk = Memory::new(SIZE, false);
            let (script, ended) = run(&disk, &sent, most, tells, true);
            assert!(matches!(ended, Ended::Disconnected), "seed {seed}: {ended}");
            assert!(replies(&script) == expected, "seed {seed}, pieces of {most}: other replies");
            assert!(disk.content() == whole_disk.content(), "seed {seed}, pieces of {most}: another disk");
            let fills = disk.fills.load(Ordering::Relaxed);
            assert_eq!(fills > 0, tells, "{fills} payloads went straight into memory");
        }
    }
}

#[test]
fn an_end_at_any_byte_takes_no_half_of_a_piece() {
    let disk = Memory::new(SIZE, false);
    let sent = [write(0, 1, 0, &[1; 100]), write(0, 2, 4096, &[2; 100])].concat();
    for len in 0..sent.len() {
        let (script, ended) = run(&disk, &sent[..len], 13, true, true);
        match len {
            0 | 128 => assert!(matches!(ended, Ended::Closed), "{len}: {ended}"),
            _ => assert!(matches!(ended, Ended::Truncated), "{len}: {ended}"),
        }
        assert_eq!(replies(&script).len(), usize::from(len >= 128));
    }
    assert!(disk.content()[4096..8192].iter().all(|&byte| byte == 0));
}

#[test]
fn pipelined_requests_take_one_send() {
    let disk = Memory::new(SIZE, false);
    for structured in [false, true] {
        let sent: Vec<u8> =
            (0..32)
                .flat_map(|cookie| {
                    if cookie % 2 == 0 { write(0, cookie, 0, &[1; 4096]) } else { read(cookie, 0, 4096) }
                })
                .collect();
        let commits = disk.commits.load(Ordering::Relaxed);
        let (script, _) = run(&disk, &sent, usize::MAX, true, structured);
        assert_eq!((script.sends, disk.commits.load(Ordering::Relaxed) - commits), (1, 1));
    }
}

#[test]
fn a_long_read_is_sent_as_it_is_read_and_holes_are_not_sent() {
    let disk = Memory::new(SIZE, false);
    let (script, _) = run(&disk, &read(1, 0, 4 << 20), usize::MAX, true, true);
    assert!(script.replies.len() < 4096, "{} bytes for nothing but a hole", script.replies.len());
    disk.put(0, &vec![3; 4 << 20]);
    let (script, _) = run(&disk, &read(1, 0, 4 << 20), usize::MAX, true, true);
    assert!(script.sends > 8, "{} sends", script.sends);
    assert_eq!(replies(&script)[0].1, vec![3; 4 << 20]);
}
