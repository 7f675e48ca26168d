//! Lines over a stream, with bounds on their length and on the time they take.
//!
//! Time is bounded for the whole of a line, not for each piece of it: whoever sends a byte now and then is not waited for any longer
//! than whoever sends none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::base::Deadline;

/// Bytes taken from the stream at a time.
const PIECE_BYTES: usize = 16 << 10;

/// Why a line could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::serve) enum LineError {
    #[error("a line of more than {0} bytes")]
    TooLong(usize),
    #[error("deadline passed")]
    TimedOut,
    #[error("the other side hung up within a line")]
    Cut,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for LineError {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// How a silence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum Silence {
    /// It did not: the deadline came.
    Lasted,
    /// There is something to read, or the end.
    Broken,
}

/// A stream of lines.
#[derive(Debug)]
pub(in crate::serve) struct Lines<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are known to hold no line's end.
    searched: usize,
    bytes_max: usize,
}

impl<S: AsFd> Lines<S> {
    /// Of lines of at most `bytes_max` bytes, their ends not counted.
    pub(in crate::serve) const fn new(stream: S, bytes_max: usize) -> Self {
        Self { stream, buffer: Vec::new(), searched: 0, bytes_max }
    }

    /// The next line without its end; `None` when the other side has hung up.
    pub(in crate::serve) fn read(&mut self, deadline: &mut Deadline) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                if line.len() > self.bytes_max {
                    return Err(LineError::TooLong(self.bytes_max));
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > self.bytes_max {
                return Err(LineError::TooLong(self.bytes_max));
            }
            let mut piece = [0; PIECE_BYTES];
            match rustix::net::recv(&self.stream, &mut piece, RecvFlags::DONTWAIT) {
                Ok((_, 0)) if self.buffer.is_empty() => return Ok(None),
                Ok((_, 0)) => return Err(LineError::Cut),
                Ok((_, count)) => self.buffer.extend_from_slice(&piece[..count]),
                Err(Errno::AGAIN) => wait(self.stream.as_fd(), PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) if self.buffer.is_empty() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of `bytes`.
    pub(in crate::serve) fn write(&self, bytes: &[u8], deadline: &mut Deadline) -> Result<(), LineError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::AGAIN) => wait(self.stream.as_fd(), PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until the other side says something or hangs up.
    pub(in crate::serve) fn silence(&self, deadline: &mut Deadline) -> Result<Silence, LineError> {
        if !self.buffer.is_empty() {
            return Ok(Silence::Broken);
        }
        match wait(self.stream.as_fd(), PollFlags::IN, deadline) {
            Ok(()) => Ok(Silence::Broken),
            Err(LineError::TimedOut) => Ok(Silence::Lasted),
            Err(error) => Err(error),
        }
    }
}

/// Sleeps until the stream is ready.
fn wait(stream: BorrowedFd<'_>, flags: PollFlags, deadline: &mut Deadline) -> Result<(), LineError> {
    loop {
        let left = deadline.remaining().ok_or(LineError::TimedOut)?;
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::from_borrowed_fd(stream, flags)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    fn within(milliseconds: u64) -> Deadline {
        Deadline::within(Duration::from_millis(milliseconds))
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        let (mut there, here) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(here, 5);
        there.write_all(b"one\n\n12345\nhal").unwrap();
        for line in ["one", "", "12345"] {
            assert_eq!(lines.read(&mut within(10_000)).unwrap().unwrap(), line.as_bytes());
        }
        assert!(matches!(lines.read(&mut within(20)), Err(LineError::TimedOut)));
        assert_eq!(lines.silence(&mut within(10_000)).unwrap(), Silence::Broken);
        there.write_all(b"f\n").unwrap();
        assert_eq!(lines.read(&mut within(10_000)).unwrap().unwrap(), b"half");
        assert_eq!(lines.silence(&mut within(20)).unwrap(), Silence::Lasted);
        there.write_all(b"cut").unwrap();
        drop(there);
        assert!(matches!(lines.read(&mut within(10_000)), Err(LineError::Cut)));
    }

    #[test]
    fn a_long_line_is_refused_before_it_is_all_there() {
        for text in [&b"123456\n"[..], b"123456"] {
            let (mut there, here) = UnixStream::pair().unwrap();
            there.write_all(text).unwrap();
            assert!(matches!(Lines::new(here, 5).read(&mut within(10_000)), Err(LineError::TooLong(5))));
        }
    }

    #[test]
    fn a_trickle_is_not_waited_for_any_longer() {
        let (mut there, here) = UnixStream::pair().unwrap();
        let trickle = std::thread::spawn(move || {
            while there.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let begun = Instant::now();
        let mut lines = Lines::new(here, 1 << 20);
        assert!(matches!(lines.read(&mut within(100)), Err(LineError::TimedOut)));
        assert!(begun.elapsed() < Duration::from_secs(10));
        drop(lines);
        trickle.join().unwrap();
    }

    #[test]
    fn a_reader_that_reads_nothing_is_given_up() {
        let (_there, here) = UnixStream::pair().unwrap();
        let lines = Lines::new(here, 5);
        assert!(matches!(lines.write(&[0; 8 << 20], &mut within(50)), Err(LineError::TimedOut)));
    }
}
