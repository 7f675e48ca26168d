//! What memory allows: two copies and one checksum of each byte, and a fence for each acknowledged batch.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use mirrorbus::base::crc32c;
use mirrorbus::memory::{MapOptions, Mapping};

use super::measure::{CHECK, measure, payload};
use super::options::StoreOptions;
use crate::Failure;
use crate::driver::Slice;
use crate::pair::Contender;

/// Two rings, written through from end to end.
pub(super) struct Limit {
    rings: [Mapping; 2],
    payload: Vec<u8>,
    at: usize,
    depth: usize,
    sum: u32,
}

impl Limit {
    pub(super) fn new(options: &StoreOptions) -> Result<Self, Failure> {
        let bytes = usize::try_from(options.ring)?;
        let ring = || -> Result<Mapping, Failure> {
            let ring = Mapping::anonymous(bytes, MapOptions { huge_pages: true })?;
            ring.populate();
            Ok(ring)
        };
        let rings = [ring()?, ring()?];
        Ok(Self { rings, payload: payload(options.size), at: 0, depth: options.depth, sum: 0 })
    }

    fn batch(&mut self) {
        for _ in 0..self.depth {
            if self.at + self.payload.len() > self.rings[0].len() {
                self.at = 0;
            }
            self.payload[..8].copy_from_slice(&(self.at as u64 | 1).to_le_bytes());
            self.sum ^= crc32c(&self.payload);
            self.rings[0].slice().write(self.at, &self.payload);
            let written = self.rings[0].slice().subslice(self.at, self.payload.len());
            if let Some(written) = written {
                self.rings[1].slice().copy_from(self.at, written);
            }
            self.at += self.payload.len();
        }
        fence(Ordering::SeqCst);
        std::hint::black_box(self.sum);
    }
}

impl Contender for Limit {
    fn slice(&mut self, duration: Duration) -> Result<Slice, Failure> {
        let depth = self.depth as u64;
        measure(duration, depth, CHECK, || {
            self.batch();
            Ok(())
        })
    }
}
