//! No request of an NBD client allocates, once the first ones were answered.

use std::io;
use std::sync::Arc;

use mirrorbus::serve::nbd::{Channel, Chosen, Ended, Input, Transmission};

use crate::allocations;
use crate::memory::Memory;

/// A client that sends the same requests again and again, as many at a time as fit.
struct Client {
    requests: Vec<u8>,
    rounds: usize,
    answered: usize,
}

impl Channel for Client {
    fn receive(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.rounds == 0 {
            return Ok(0);
        }
        self.rounds -= 1;
        target[..self.requests.len()].copy_from_slice(&self.requests);
        Ok(self.requests.len())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answered += bytes.len();
        Ok(())
    }

    fn available(&self) -> usize {
        0
    }

    fn gone(&self) -> bool {
        false
    }
}

fn request(flags: u16, command: u16, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend([0; 16]);
    bytes.extend(len.to_be_bytes());
    bytes.resize(bytes.len() + if command == 1 { len as usize } else { 0 }, 7);
    bytes
}

/// Allocations of a client with so many rounds.
fn of(rounds: usize, structured: bool) -> u64 {
    let kinds =
        [request(0, 1, 4096), request(0, 0, 4096), request(1, 1, 512), request(0, 6, 8192), request(0, 3, 0)];
    let mut client = Client { requests: kinds.concat().repeat(8), rounds, answered: 0 };
    let export = Memory::new(1 << 20, false) as Arc<_>;
    let chosen =
        Chosen { export, name: String::new(), structured, allocation: structured, unreplicated: false };
    let count = allocations(|| {
        let ended = Transmission::new(&mut client, chosen, Input::new()).run();
        assert!(matches!(ended, Ended::Closed), "{ended}");
    });
    // 5 headers of simple replies, or one of them with the header of a chunk; and the data of a read.
    let least = rounds * 8 * (5 * 16 + 4096);
    assert!(client.answered >= least, "{} bytes of replies, {least} expected", client.answered);
    count
}

#[test]
fn requests_allocate_nothing() {
    for structured in [false, true] {
        let (few, many) = (of(10, structured), of(1000, structured));
        assert_eq!(few, many, "allocations of 400 requests and of 40000");
    }
}
