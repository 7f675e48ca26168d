//! The owner's process, as the holder knows it: whether it is dead for certain.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

/// A process at the other end of a Unix socket.
#[derive(Debug)]
pub struct OwnerProcess {
    pidfd: OwnedFd,
    pid: Pid,
}

impl OwnerProcess {
    /// The process that connected `socket`, while it still lives.
    ///
    /// # Errors
    /// It ended already, or the kernel has no pidfds.
    pub fn of(socket: impl AsFd) -> std::io::Result<Self> {
        let pid = rustix::net::sockopt::socket_peercred(socket)?.pid;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pidfd, pid })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has ended: it will never write again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::IN)
    }
}
