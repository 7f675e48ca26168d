//! A slow network between two nodes that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mirrorbus::FabricUrl;

/// Passes bytes on, at most so many a second on each connection, until it is cut: then all connections break. New ones are let through.
pub(crate) struct Proxy {
    pub(crate) url: FabricUrl,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of `target`, which may come and go.
    pub(crate) fn new(target: &FabricUrl, bytes_a_second: u64) -> Self {
        let target = target.to_string().trim_start_matches("tcp://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let entered = open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(&target) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let mut entered = entered.lock().unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    entered.push(from.try_clone().unwrap());
                    pump(from.try_clone().unwrap(), to.try_clone().unwrap(), bytes_a_second);
                }
            }
        });
        Self { url, open }
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, bytes_a_second: u64) {
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_micros(count as u64 * 1_000_000 / bytes_a_second));
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
