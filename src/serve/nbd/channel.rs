//! The connection as the transmission sees it: bytes in, bytes out.

use std::io::{self, ErrorKind};

use crate::memory::VolatileSlice;

/// Bytes copied at a time into memory that cannot be received into.
const BOUNCE_BYTES: usize = 16 << 10;

/// A stream to one client.
pub trait Channel {
    /// Waits for bytes and takes as many as there are; 0 when there will be no more.
    ///
    /// # Errors
    /// The connection broke.
    fn receive(&mut self, target: &mut [u8]) -> io::Result<usize>;

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The connection broke.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Bytes that [`receive`](Self::receive) would give without waiting; 0 when that is not known.
    fn available(&self) -> usize;

    /// Whether nobody waits for a reply any more.
    fn gone(&self) -> bool;

    /// Receives into all of `target`, memory of which no reference may be made: by way of a small buffer, unless the channel knows better.
    ///
    /// # Errors
    /// The connection broke, or ended before `target` was full.
    fn receive_into(&mut self, target: VolatileSlice<'_>) -> io::Result<()> {
        let mut bounce = [0; BOUNCE_BYTES];
        let mut done = 0;
        while done < target.len() {
            let count = (target.len() - done).min(BOUNCE_BYTES);
            match self.receive(&mut bounce[..count])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => {
                    target.write(done, &bounce[..count]);
                    done += count;
                }
            }
        }
        Ok(())
    }
}
