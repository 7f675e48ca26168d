//! The limits of tcp, with a process of its own as the other side, waiting the same way.
//!
//! * depth 1: a header of 48 bytes and the store out, 48 bytes back;
//! * small stores, depth > 1: batches of store bytes, sent from where they are hot; the peer receives them into a memory
//!   of the region's size (scattered, where the pattern scatters) and sends cumulative acks of 16 bytes;
//! * stores of [`LARGE_BYTES`] and more: as before, and the sender copies each store into a local region, both ends
//!   compute its CRC32C, and the sender compares them. The same without copy and checksums is measured beside.
//!
//! Receivers always receive straight into place where stores are contiguous or large.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::rc::Rc;

use mirrorbus::base::crc32c;

use super::wire::{ACK_BYTES, HEADER_BYTES, Hello, Mode, Patience, Wire, fold};
use super::{Limit, Team};
use crate::Failure;
use crate::child::Peer;
use crate::driver::Side;
use crate::pair::Contender;
use crate::workload::{LARGE_BYTES, Workload};

/// Most ack bytes read at once.
const ACK_BUFFER_BYTES: usize = 64 * ACK_BYTES;

/// One connection.
struct TcpSide {
    wire: Wire,
    mode: Mode,
    /// Ping-pong: header and store. Large stores: one store. Else: one batch.
    source: Vec<u8>,
    /// The local copy, and where in the region it begins; empty when none is made.
    local: Vec<u8>,
    start: usize,
    /// Large stores go out one by one, small ones a batch at a time.
    send_each: bool,
    stored: u64,
    acked: u64,
    fold: u64,
    /// Checksums that the next acks must carry, with their counts.
    expected: VecDeque<(u64, u64)>,
    acks: [u8; ACK_BUFFER_BYTES],
    acks_filled: usize,
}

impl TcpSide {
    fn connect(address: &str, mode: Mode, workload: &Workload, index: usize) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)
            .map_err(|error| format!("cannot reach the other side of the limit at {address}: {error}"))?;
        let mut wire = Wire::new(stream, workload.polling, Patience::Storing)?;
        let hello = Hello {
            mode,
            size: workload.size,
            batch: workload.batch(),
            reach: workload.reach(),
            pattern: workload.pattern,
            seed: index as u64,
            polling: workload.polling,
        };
        wire.write_all(&hello.encode())?;
        let send_each = workload.size >= LARGE_BYTES;
        let bytes = match mode {
            Mode::PingPong => HEADER_BYTES + workload.size,
            Mode::Window | Mode::Checked if send_each => workload.size,
            Mode::Window | Mode::Checked => workload.size * workload.batch(),
        };
        // Not zeros, so that the pages are really there.
        let local = if mode == Mode::Checked { vec![1; workload.reach()] } else { Vec::new() };
        Ok(Self {
            wire,
            mode,
            source: vec![0xa5; bytes],
            local,
            start: workload.share() * index,
            send_each,
            stored: 0,
            acked: 0,
            fold: 0,
            expected: VecDeque::with_capacity(4),
            acks: [0; ACK_BUFFER_BYTES],
            acks_filled: 0,
        })
    }

    fn read_acks(&mut self) -> Result<(), Failure> {
        let count = self.wire.read_some(&mut self.acks[self.acks_filled..])?;
        if count == 0 {
            return Err("the other side of the limit closed the connection".into());
        }
        self.acks_filled += count;
        let whole = self.acks_filled / ACK_BYTES * ACK_BYTES;
        for ack in self.acks[..whole].chunks_exact(ACK_BYTES) {
            let (count, checksums) = ack.split_at(8);
            let count = u64::from_le_bytes(count.try_into()?);
            if count <= self.acked || count > self.stored {
                return Err(format!("ack of {count} after {}, with {} sent", self.acked, self.stored).into());
            }
            self.acked = count;
            if self.mode == Mode::Checked {
                let checksums = u64::from_le_bytes(checksums.try_into()?);
                let expected = self.expected.pop_front();
                if expected != Some((count, checksums)) {
                    return Err(
                        format!("store {count}: checksums {checksums:#x}, expected {expected:?}").into()
                    );
                }
            }
        }
        self.acks.copy_within(whole..self.acks_filled, 0);
        self.acks_filled -= whole;
        Ok(())
    }
}

impl Side for TcpSide {
    type Mark = u64;

    #[inline]
    fn store(&mut self, offset: usize) -> Result<u64, Failure> {
        self.stored += 1;
        if self.mode == Mode::Checked {
            let size = self.source.len();
            let place = &mut self.local[offset - self.start..][..size];
            place.copy_from_slice(&self.source);
            self.fold = fold(self.fold, crc32c(place));
            self.wire.write_all(place)?;
        } else if self.send_each {
            self.wire.write_all(&self.source)?;
        }
        Ok(self.stored)
    }

    #[inline]
    fn post(&mut self, last: u64, _more: bool) -> Result<u64, Failure> {
        match self.mode {
            Mode::PingPong | Mode::Window if !self.send_each => self.wire.write_all(&self.source)?,
            Mode::PingPong | Mode::Window => {}
            Mode::Checked => self.expected.push_back((last, self.fold)),
        }
        Ok(last)
    }

    #[inline]
    fn wait(&mut self, mark: u64) -> Result<(), Failure> {
        if self.mode == Mode::PingPong {
            let mut answer = [0; HEADER_BYTES];
            if !self.wire.read_all(&mut answer)? {
                return Err("the other side of the limit closed the connection".into());
            }
            self.acked = mark;
            return Ok(());
        }
        while self.acked < mark {
            self.read_acks()?;
        }
        Ok(())
    }

    fn calls(&self) -> Option<u64> {
        Some(self.wire.calls())
    }
}

/// The limit of `workload`, against `peer` or, without one, against a child of this process.
///
/// # Errors
/// The other side could not be started or reached.
pub(crate) fn limit(workload: &Workload, peer: Option<&str>) -> Result<Limit, Failure> {
    let (address, child) = match peer {
        Some(address) => (address.to_owned(), None),
        None => {
            // Both the limit and the bare one have memory there.
            let memory = (2 * workload.region).to_string();
            let arguments = ["limit-peer", "--with-stdin", "--memory", &memory].map(str::to_owned);
            let child = Peer::start(&arguments)?;
            (child.ready().trim_start_matches("listening on ").to_owned(), Some(child))
        }
    };
    let child = Rc::new(child);
    let team = |mode| -> Result<Box<dyn Contender>, Failure> {
        let sides: Result<Vec<_>, _> =
            (0..workload.threads).map(|index| TcpSide::connect(&address, mode, workload, index)).collect();
        Ok(Box::new(Team::new(sides?, workload, Rc::clone(&child))))
    };
    if workload.depth == 1 {
        return Ok(Limit {
            contender: team(Mode::PingPong)?,
            bare: None,
            does: "bare ping-pong: 48 bytes and the store out, 48 bytes back",
            copies_per_byte: 0.0,
        });
    }
    if workload.size < LARGE_BYTES {
        return Ok(Limit {
            contender: team(Mode::Window)?,
            bare: None,
            does: "bare windowed loop: store bytes in batches, received into a region, cumulative acks of 16 bytes",
            copies_per_byte: 0.0,
        });
    }
    Ok(Limit {
        contender: team(Mode::Checked)?,
        bare: Some(team(Mode::Window)?),
        does: "stream with the sender's local copy and CRC32C at both ends, received straight into a region",
        copies_per_byte: 1.0,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::tcp_peer;
    use super::*;
    use crate::workload::{Fabric, Pattern, Polling};

    fn peer(memory: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || tcp_peer::accept(&listener, memory).unwrap());
        address
    }

    fn workload(size: usize, depth: usize, pattern: Pattern, polling: Polling) -> Workload {
        // Threads that spin would fight for the processors of a small machine.
        let threads = if polling == Polling::Spin { 1 } else { 2 };
        Workload {
            fabric: Fabric::Tcp,
            size,
            depth,
            lanes: threads,
            threads,
            pattern,
            region: 1 << 20,
            polling,
        }
    }

    #[test]
    fn every_kind_moves_stores_and_acknowledges_them() {
        let address = peer(64 << 20);
        for polling in [Polling::Spin, Polling::Block] {
            for (size, depth) in [(64, 1), (64, 64), (100, 5), (LARGE_BYTES, 1), (LARGE_BYTES, 8)] {
                for pattern in [Pattern::Append, Pattern::Random] {
                    let mut limit = limit(&workload(size, depth, pattern, polling), Some(&address)).unwrap();
                    let (contender, bare) = limit.contenders();
                    for contender in [Some(contender), bare].into_iter().flatten() {
                        let slice = contender.slice(Duration::from_millis(5)).unwrap();
                        assert!(slice.stores > 0 && slice.latencies.count() > 0, "{size} {depth} {pattern}");
                        assert!(slice.calls > Some(0));
                    }
                    assert_eq!(limit.bare.is_some(), size == LARGE_BYTES && depth > 1);
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_found() {
        let address = peer(64 << 20);
        let workload = workload(LARGE_BYTES, 2, Pattern::Random, Polling::Block);
        let mut side = TcpSide::connect(&address, Mode::Checked, &workload, 0).unwrap();
        let last = side.store(0).unwrap();
        side.fold ^= 1;
        let mark = side.post(last, false).unwrap();
        let error = side.wait(mark).unwrap_err().to_string();
        assert!(error.contains("checksums"), "{error}");
    }

    #[test]
    fn a_peer_keeps_to_its_memory() {
        let address = peer(4096);
        let workload = workload(64, 2, Pattern::Append, Polling::Block);
        let mut side = TcpSide::connect(&address, Mode::Window, &workload, 0).unwrap();
        let gone = (0..1000).find_map(|_| {
            let last = side.store(0).unwrap();
            side.post(last, false).and_then(|mark| side.wait(mark)).err()
        });
        assert!(gone.is_some(), "a megabyte was had of a peer with 4096 bytes");
    }
}
