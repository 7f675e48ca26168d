//! A slow network between two nodes that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mirrorbus::FabricUrl;

/// Passes bytes on, at most so many a second on each connection, until it is cut: then all connections break. New ones are let through.
pub(crate) struct Proxy {
    pub(crate) url: FabricUrl,
    open: Arc<Mutex<Vec<TcpStream>>>,
    passed: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of `target`, which may come and go.
    pub(crate) fn new(target: &FabricUrl, bytes_a_second: u64) -> Self {
        let target = target.to_string().trim_start_matches("tcp://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let passed = Arc::<AtomicU64>::default();
        let closed = Arc::<AtomicBool>::default();
        let (entered, counted, is_closed) = (open.clone(), passed.clone(), closed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if is_closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let mut entered = entered.lock().unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    entered.push(from.try_clone().unwrap());
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    pump(from, to, bytes_a_second, counted.clone());
                }
            }
        });
        Self { url, open, passed, closed }
    }

    /// Breaks all connections, and lets none through; or lets them through again.
    pub(crate) fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::SeqCst);
        if closed {
            self.cut();
        }
    }

    /// Bytes that were passed on, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, bytes_a_second: u64, passed: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
            passed.fetch_add(count as u64, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(count as u64 * 1_000_000 / bytes_a_second));
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
