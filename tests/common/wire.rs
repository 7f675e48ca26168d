//! A peer made by hand: the cores of the control room driven over a real socket, so that a test can cut or alter any
//! byte on its way, and mirror messages written out byte by byte, so that it can send what no owner would.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mirrorbus::base::SessionId;
use mirrorbus::control::{
    Channel, Connection, ConnectionConfig, ControlError, DataHandshake, Event, Hello, Token,
};
use mirrorbus::{FabricUrl, KeySet};

/// What a read waits for before the test calls it a hang.
pub const READ_TIME_MAX: Duration = Duration::from_secs(15);

/// A stream to the holder at `url`; reads fail after [`READ_TIME_MAX`].
pub fn connect(url: &FabricUrl) -> File {
    let fd: OwnedFd = match url {
        FabricUrl::Shm { socket } => UnixStream::connect(socket).unwrap().into(),
        FabricUrl::Tcp { address, .. }
        | FabricUrl::ShmDevice { address, .. }
        | FabricUrl::Rdma { address } => TcpStream::connect(address).unwrap().into(),
    };
    with_timeout(fd)
}

pub fn with_timeout(fd: OwnedFd) -> File {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    rustix::io::ioctl_fionbio(&fd, false).unwrap();
    set_socket_timeout(&fd, Timeout::Recv, Some(READ_TIME_MAX)).unwrap();
    fd.into()
}

/// So many bytes of this generator.
pub fn random_bytes(random: &mut crate::common::Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// Reads until the other side hangs up; panics when it does not.
pub fn read_to_end(mut socket: &File) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("the other side does not hang up: {error}"),
        }
    }
}

pub fn hello() -> ConnectionConfig {
    let second = Duration::from_secs(1);
    ConnectionConfig::new(Hello::new(0, second, 10 * second, Vec::new()).unwrap())
}

/// What happens to the bytes on their way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abuse {
    None,
    /// Only so many are sent.
    Cut(usize),
    /// The byte at this offset is another.
    Flip(usize),
}

/// One end of a control connection.
#[derive(Debug)]
pub struct Peer {
    pub socket: File,
    pub connection: Connection,
    pub session: Option<SessionId>,
    /// Why it ended.
    pub ended: Option<String>,
    pub sent: usize,
    abuse: Abuse,
    messages: VecDeque<Vec<u8>>,
}

impl Peer {
    pub fn new(socket: File, connection: Connection, abuse: Abuse) -> Self {
        Self { socket, connection, session: None, ended: None, sent: 0, abuse, messages: VecDeque::new() }
    }

    /// An owner's connection, before its first byte.
    pub fn initiate(url: &FabricUrl, keys: &KeySet, abuse: Abuse) -> Self {
        Self::new(connect(url), Connection::initiate(hello(), keys, Instant::now()), abuse)
    }

    /// An owner's connection, authenticated.
    pub fn connect(url: &FabricUrl, keys: &KeySet) -> Self {
        let mut peer = Self::initiate(url, keys, Abuse::None);
        peer.shake_hands();
        assert!(peer.session.is_some(), "not established: {:?}", peer.ended);
        peer
    }

    /// Whether everything that the abuse lets through is out.
    pub fn is_cut(&self) -> bool {
        matches!(self.abuse, Abuse::Cut(len) if self.sent >= len)
    }

    /// Until established, ended, or cut.
    pub fn shake_hands(&mut self) {
        self.transmit();
        while self.session.is_none() && self.ended.is_none() && !self.is_cut() {
            self.receive();
        }
    }

    /// Sends what waits.
    pub fn transmit(&mut self) {
        let mut out = Vec::new();
        self.connection.poll_transmit(&mut out);
        let end = self.sent + out.len();
        match self.abuse {
            Abuse::Flip(at) if (self.sent..end).contains(&at) => out[at - self.sent] ^= 0x55,
            Abuse::Cut(len) => out.truncate(len.saturating_sub(self.sent)),
            Abuse::None | Abuse::Flip(_) => {}
        }
        self.sent += out.len();
        // Who was turned away cannot write any more; the reason is in what it reads.
        let _ = self.socket.write_all(&out);
    }

    /// Takes what comes, answers it.
    pub fn receive(&mut self) {
        let mut buffer = [0; 16384];
        let result = match self.socket.read(&mut buffer) {
            Ok(0) => self.connection.handle_eof(),
            Ok(count) => self.connection.handle_bytes(&buffer[..count], Instant::now()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => self.connection.handle_eof(),
            Err(error) => panic!("the other side neither answers nor hangs up: {error}"),
        };
        if let Err(error) = result {
            self.ended.get_or_insert(error.to_string());
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Established { session, .. } => self.session = Some(session),
                Event::Message { body, .. } => self.messages.push_back(body),
                Event::Closed { reason } => drop(self.ended.get_or_insert(reason.to_string())),
                _ => {}
            }
        }
        self.transmit();
    }

    pub fn send(&mut self, body: &[u8]) {
        self.connection.send(Channel::MIRROR, body).unwrap();
        self.transmit();
    }

    /// The next message; `None` when the connection ended first.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        while self.messages.is_empty() && self.ended.is_none() {
            self.receive();
        }
        self.messages.pop_front()
    }

    pub fn call(&mut self, body: &[u8]) -> Vec<u8> {
        self.send(body);
        self.next().unwrap_or_else(|| panic!("ended: {:?}", self.ended))
    }

    /// A token for a data stream.
    pub fn token(&mut self) -> Token {
        let answer = self.call(&open_queue(2));
        assert_eq!(answer[0], 130, "no token: {}", refusal(&answer));
        Token::from_bytes(&answer[5..37].try_into().unwrap())
    }
}

/// Mode bytes of an attach message.
pub const PUSH_REPLACE: u8 = 2;

/// An attach message.
pub fn attach(request: u32, mode: u8, size: u64, staging: u64) -> Vec<u8> {
    let mut body = vec![1];
    body.extend_from_slice(&request.to_le_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&[9; 16]);
    body.extend_from_slice(&[0; 32]);
    body.extend_from_slice(&size.to_le_bytes());
    body.extend_from_slice(&staging.to_le_bytes());
    body.extend_from_slice(&[mode, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(body.len(), 81);
    body
}

pub fn open_queue(request: u32) -> Vec<u8> {
    [&[2], &request.to_le_bytes()[..]].concat()
}

/// The words of a refusal, or what came in its place.
pub fn refusal(message: &[u8]) -> String {
    match message {
        [133, _, _, _, _, code, _, why @ ..] => format!("code {code}: {}", String::from_utf8_lossy(why)),
        other => format!("no refusal: {other:02x?}"),
    }
}

/// Opens a data stream as an owner would; says why it was not let in. A responder looks at the token once more when
/// the handshake is done, so a stream that is hung up on within `patience` was not let in either.
pub fn data_stream(
    url: &FabricUrl,
    session: SessionId,
    token: &Token,
    purpose: &[u8],
    patience: Duration,
) -> Result<File, String> {
    let mut socket = connect(url);
    let mut handshake = DataHandshake::initiate(session, token, purpose, Instant::now())
        .map_err(|error| error.to_string())?;
    let mut buffer = [0; 4096];
    loop {
        let mut out = Vec::new();
        handshake.poll_transmit(&mut out);
        socket.write_all(&out).map_err(|error| error.to_string())?;
        if handshake.is_done() {
            break;
        }
        let result: Result<(), ControlError> = match socket.read(&mut buffer) {
            Ok(0) => handshake.handle_eof(),
            Ok(count) => handshake.handle_bytes(&buffer[..count], Instant::now()),
            Err(error) => return Err(error.to_string()),
        };
        result.map_err(|error| error.to_string())?;
    }
    let mut fds = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec::try_from(patience).unwrap();
    if rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0 {
        let mut peeked = [0; 1];
        let flags = rustix::net::RecvFlags::PEEK;
        match rustix::net::recv(&socket, &mut peeked, flags) {
            Ok((_, 0)) | Err(_) => return Err("hung up after the handshake".into()),
            Ok(_) => {}
        }
    }
    Ok(socket)
}
