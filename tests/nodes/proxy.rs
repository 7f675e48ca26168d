//! A TCP proxy that can be cut, so that those behind it notice or so that they do not.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What a proxy lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// All.
    Open,
    /// Nothing, and nobody is told: connections stay, new ones are taken, and what is said waits until it is open again.
    Silent,
    /// All, until something is asked that has at least so many bytes; from then on it is [`Mute`](Self::Mute).
    MuteBehind(usize),
    /// What is asked, and no answer: that waits until it is open again, and is lost if the connection ends before.
    Mute,
    /// Nothing: connections end, and new ones do at once.
    Closed,
}

/// Listens at a port of its own and passes all on to a target, which may come and go. Its threads end with the process.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    passage: Mutex<Passage>,
    changed: Condvar,
    connections: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// So many bytes are asked.
    fn note_asked(&self, count: usize) {
        let mut passage = self.passage.lock().unwrap();
        if matches!(*passage, Passage::MuteBehind(least) if count >= least) {
            *passage = Passage::Mute;
        }
    }

    /// Waits while it is silent for what goes this way; whether it may pass then.
    fn pass(&self, is_answer: bool) -> bool {
        let waits = |passage: &mut Passage| match passage {
            Passage::Silent => true,
            Passage::Mute => is_answer,
            Passage::Open | Passage::MuteBehind(_) | Passage::Closed => false,
        };
        let passage = self.passage.lock().unwrap();
        *self.changed.wait_while(passage, waits).unwrap() != Passage::Closed
    }
}

impl Proxy {
    /// In front of `target`, an address and a port.
    pub(crate) fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let passage = Mutex::new(Passage::Open);
        let gate = Arc::new(Gate { passage, changed: Condvar::new(), connections: Mutex::default() });
        let (kept, target) = (gate.clone(), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, gate, target) = (client.unwrap(), kept.clone(), target.clone());
                std::thread::spawn(move || connect(&client, &gate, &target));
            }
        });
        Self { address, gate }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    pub(crate) fn set(&self, passage: Passage) {
        *self.gate.passage.lock().unwrap() = passage;
        if passage == Passage::Closed {
            for stream in self.gate.connections.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.gate.changed.notify_all();
    }
}

fn connect(client: &TcpStream, gate: &Arc<Gate>, target: &str) {
    if !gate.pass(false) {
        return;
    }
    let Ok(server) = TcpStream::connect(target) else { return };
    {
        // With the lock, so that whoever closes it meanwhile finds both.
        let passage = gate.passage.lock().unwrap();
        if *passage == Passage::Closed {
            return;
        }
        let mut connections = gate.connections.lock().unwrap();
        for stream in [client, &server] {
            stream.set_nodelay(true).unwrap();
            connections.push(stream.try_clone().unwrap());
        }
    }
    for (from, to, is_answer) in [(client, &server, false), (&server, client, true)] {
        let (from, to, gate) = (from.try_clone().unwrap(), to.try_clone().unwrap(), gate.clone());
        std::thread::spawn(move || pump(from, to, &gate, is_answer));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, gate: &Gate, is_answer: bool) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        if !is_answer {
            gate.note_asked(count);
        }
        // That a connection ended is not told in silence, either.
        if !gate.pass(is_answer) || count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn a_proxy_is_cut_with_and_without_a_word() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(&listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut from, mut to) = (stream.as_ref().unwrap().try_clone().unwrap(), stream.unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    let connect = || TcpStream::connect(proxy.address).unwrap();
    let echo = |stream: &mut TcpStream, millis| {
        stream.set_read_timeout(Some(std::time::Duration::from_millis(millis))).unwrap();
        let mut byte = [0];
        stream.read(&mut byte).map(|count| byte[..count].to_vec())
    };
    let mut stream = connect();
    stream.write_all(&[1]).unwrap();
    assert_eq!(echo(&mut stream, 10_000).unwrap(), [1]);
    proxy.set(Passage::Silent);
    let mut later = connect();
    for stream in [&mut stream, &mut later] {
        stream.write_all(&[2]).unwrap();
        assert!(echo(stream, 100).is_err(), "it is silent");
    }
    proxy.set(Passage::Open);
    assert_eq!(echo(&mut stream, 10_000).unwrap(), [2]);
    assert_eq!(echo(&mut later, 10_000).unwrap(), [2]);
    proxy.set(Passage::Closed);
    assert!(echo(&mut stream, 10_000).map_or(true, |bytes| bytes.is_empty()));
    assert!(echo(&mut connect(), 10_000).map_or(true, |bytes| bytes.is_empty()));
    proxy.set(Passage::Open);
    let mut stream = connect();
    stream.write_all(&[3]).unwrap();
    assert_eq!(echo(&mut stream, 10_000).unwrap(), [3]);
}
