//! In front of etcd: lets requests through, loses the answers to changes, or keeps changes back until they are let go.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::server::exchange;

/// What becomes of a change. All else goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changes {
    GoThrough,
    /// etcd carries it out, and whoever asked finds the connection ended.
    LoseTheirAnswers,
    /// Whoever asked finds the connection ended, and etcd has not heard of it yet.
    AreKept,
}

#[derive(Debug)]
struct Shared {
    changes: Mutex<Changes>,
    kept: Mutex<Vec<Vec<u8>>>,
    target: String,
}

/// Its threads end with the process.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// In front of an address and a port.
    pub(crate) fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let changes = Mutex::new(Changes::GoThrough);
        let shared = Arc::new(Shared { changes, kept: Mutex::default(), target: target.to_owned() });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), of_thread.clone());
                std::thread::spawn(move || pass(stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, changes: Changes) {
        *self.shared.changes.lock().unwrap() = changes;
    }

    /// Lets go what was kept, one after the other; what etcd says to each.
    pub(crate) fn let_go(&self) -> Vec<String> {
        let kept = std::mem::take(&mut *self.shared.kept.lock().unwrap());
        kept.iter().map(|request| exchange(&self.shared.target, request).unwrap()).collect()
    }
}

/// One request a connection.
fn pass(mut client: TcpStream, shared: &Shared) {
    let Some(request) = request(&client) else { return };
    let changes = *shared.changes.lock().unwrap();
    let is_change = request.starts_with(b"POST /v3/kv/txn ");
    if is_change && changes == Changes::AreKept {
        shared.kept.lock().unwrap().push(request);
        return;
    }
    let Some(answer) = exchange(&shared.target, &request) else { return };
    if !(is_change && changes == Changes::LoseTheirAnswers) {
        let _ = client.write_all(answer.as_bytes());
    }
}

/// The whole of it, after which the connection is to end.
fn request(client: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "connection" => continue,
            _ => {}
        }
        head.extend_from_slice(line.as_bytes());
    }
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some([head, body].concat())
}
