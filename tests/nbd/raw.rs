//! A client of bytes: it says what it is told to, and reads replies by the letter of the protocol.

#![allow(dead_code, reason = "each test has its part")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::{PATIENCE, Rig};

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISCONNECT: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

pub(crate) const FUA: u16 = 1;
pub(crate) const NO_HOLE: u16 = 2;
pub(crate) const DF: u16 = 4;
pub(crate) const REQ_ONE: u16 = 8;

/// A stream of either kind.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// The client.
pub(crate) struct Raw(pub(crate) Box<dyn Wire + Send>);

/// A reply, or a chunk of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple { cookie: u64, error: u32 },
    Chunk { cookie: u64, done: bool, kind: u16, data: Vec<u8> },
}

impl Reply {
    /// The number of a failure, 0 for none; panics for a chunk with content.
    pub(crate) fn error(&self) -> (u64, u32) {
        match self {
            Self::Simple { cookie, error } => (*cookie, *error),
            Self::Chunk { cookie, kind: 0x8001 | 0x8002, data, .. } => {
                (*cookie, u32::from_be_bytes(data[..4].try_into().unwrap()))
            }
            Self::Chunk { cookie, kind: 0, .. } => (*cookie, 0),
            Self::Chunk { .. } => panic!("content: {self:?}"),
        }
    }
}

/// A request with its payload.
pub(crate) fn request(
    flags: u16,
    number: u16,
    cookie: u64,
    (offset, len): (u64, u32),
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(crate) fn write(flags: u16, cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    request(flags, WRITE, cookie, (offset, u32::try_from(payload.len()).unwrap()), payload)
}

pub(crate) fn read(cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    request(0, READ, cookie, (offset, len), &[])
}

pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// All that a client says before its requests, for the disk `disk` with structured replies and block status.
pub(crate) fn negotiation() -> Vec<u8> {
    let selection = b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation";
    let go = b"\0\0\0\x04disk\0\0";
    [b"\0\0\0\x03", &option(8, &[])[..], &option(10, selection), &option(7, go)].concat()
}

impl Raw {
    /// Connects to the Unix socket, and says nothing.
    pub(crate) fn stranger(rig: &Rig) -> Self {
        let stream = UnixStream::connect(rig.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(Box::new(stream))
    }

    /// The same by TCP.
    pub(crate) fn stranger_by_tcp(rig: &Rig) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", rig.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(Box::new(stream))
    }

    /// With structured replies and block status.
    pub(crate) fn structured(rig: &Rig) -> Self {
        let mut raw = Self::stranger(rig);
        raw.send(&negotiation());
        raw.finish_negotiation();
        raw
    }

    /// The same by TCP.
    pub(crate) fn structured_by_tcp(rig: &Rig) -> Self {
        let mut raw = Self::stranger_by_tcp(rig);
        raw.send(&negotiation());
        raw.finish_negotiation();
        raw
    }

    /// As the oldest clients of the protocol.
    pub(crate) fn simple(rig: &Rig) -> Self {
        let mut raw = Self::stranger(rig);
        raw.send(&[b"\0\0\0\x03", &option(1, b"disk")[..]].concat());
        assert_eq!(raw.bytes(18), b"NBDMAGICIHAVEOPT\0\x03");
        raw.bytes(10);
        raw
    }

    /// Reads what `negotiation` is answered.
    pub(crate) fn finish_negotiation(&mut self) {
        assert_eq!(self.bytes(18), b"NBDMAGICIHAVEOPT\0\x03");
        let mut found = Vec::new();
        while found.last() != Some(&(7, 1)) {
            let header = self.bytes(20);
            let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            found.push((word(8), word(12)));
            self.bytes(word(16) as usize);
        }
        assert_eq!(found, [(8, 1), (10, 4), (10, 1), (7, 3), (7, 1)]);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next reply or chunk; without structured replies its data is not taken.
    pub(crate) fn reply(&mut self) -> Reply {
        read_reply(&mut self.0)
    }

    /// A read's bytes, whatever the chunks; `None` when it failed.
    pub(crate) fn read(&mut self, offset: u64, len: u32) -> Option<Vec<u8>> {
        self.send(&read(99, offset, len));
        let mut content = vec![0xee; len as usize];
        loop {
            let Reply::Chunk { cookie: 99, done, kind, data } = self.reply() else {
                panic!("not structured")
            };
            let at = data.first_chunk().map(|at| usize::try_from(u64::from_be_bytes(*at) - offset).unwrap());
            match (kind, at) {
                (1, Some(at)) => content[at..at + data.len() - 8].copy_from_slice(&data[8..]),
                (2, Some(at)) => {
                    let len = u32::from_be_bytes(data[8..12].try_into().unwrap()) as usize;
                    content[at..at + len].fill(0);
                }
                _ => return None,
            }
            if done {
                return Some(content);
            }
        }
    }

    /// Whether the other side has hung up, with nothing more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            // Of what was sent to it something was not read.
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

pub(crate) fn read_reply(from: &mut impl Read) -> Reply {
    let mut header = [0; 16];
    from.read_exact(&mut header).unwrap();
    let cookie = u64::from_be_bytes(header[8..].try_into().unwrap());
    match header[..4] {
        [0x67, 0x44, 0x66, 0x98] => {
            Reply::Simple { cookie, error: u32::from_be_bytes(header[4..8].try_into().unwrap()) }
        }
        [0x66, 0x8e, 0x33, 0xef] => {
            let mut len = [0; 4];
            from.read_exact(&mut len).unwrap();
            let mut data = vec![0; u32::from_be_bytes(len) as usize];
            from.read_exact(&mut data).unwrap();
            let kind = u16::from_be_bytes(header[6..8].try_into().unwrap());
            assert!(header[4] == 0 && header[5] <= 1, "flags {:?}", &header[4..6]);
            Reply::Chunk { cookie, done: header[5] == 1, kind, data }
        }
        _ => panic!("no reply begins with {header:?}"),
    }
}
