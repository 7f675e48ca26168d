//! The owner's process, as the holder knows it: whether it is dead for certain.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

/// Of `getsockopt`, since Linux 6.5 (include/uapi/asm-generic/socket.h).
const SO_PEERPIDFD: libc::c_int = 77;

/// A process at the other end of a Unix socket.
#[derive(Debug)]
pub struct OwnerProcess {
    pidfd: OwnedFd,
}

impl OwnerProcess {
    /// The process that connected `socket`, while it still lives.
    ///
    /// # Errors
    /// It ended already; or, before Linux 6.5, it has no number in the PID namespace of this process.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let pidfd = match peer_pidfd(socket.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                rustix::process::pidfd_open(peer_pid(socket.as_fd())?, PidfdFlags::empty())?
            }
            other => other?,
        };
        Ok(Self { pidfd })
    }

    /// Whether it has ended: it will never write again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::IN)
    }
}

/// The kernel's own handle: right even when the number was given to another process since, or does not exist here.
fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd: libc::c_int = peer_option(socket, SO_PEERPIDFD, -1)?;
    // SAFETY: made for us by the kernel just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<Pid> {
    let peer = peer_option(socket, libc::SO_PEERCRED, libc::ucred { pid: 0, uid: 0, gid: 0 })?;
    // 0 is a process of a PID namespace that is not visible from here.
    Pid::from_raw(peer.pid).filter(|_| peer.pid > 0).ok_or_else(|| {
        io::Error::other(
            "it is in a PID namespace that this process does not see, and this kernel (before 6.5) tells of it by \
             number only: run both in one PID namespace",
        )
    })
}

/// What a socket says of the process at its other end; `T` is what the kernel writes for `option`.
fn peer_option<T: Copy>(socket: BorrowedFd<'_>, option: libc::c_int, mut value: T) -> io::Result<T> {
    let size = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let mut written = size;
    // SAFETY: the kernel writes at most `written` bytes to `value`, which has them; both options are plain integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut written,
        )
    };
    match result {
        0 if written == size => Ok(value),
        0 => Err(io::Error::other(format!("option {option} of a socket has {written} bytes, not {size}"))),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!OwnerProcess::of(&ours).unwrap().is_dead());
        drop(theirs);
    }

    const CHILD: &str = "MIRRORBUS_TEST_OTHER_PIDS";

    /// Runs again as a child that cannot see this process's number. Where no such child can be made (no `unshare`, or not
    /// allowed) there is nothing to see.
    #[test]
    fn a_process_without_a_number_here_is_known_all_the_same() {
        if std::env::var_os(CHILD).is_some() {
            // The stream was made by the parent, so that is the process at its other end.
            let process = OwnerProcess::of(io::stdin()).unwrap();
            assert!(!process.is_dead());
            return;
        }
        let unshare = |program: &std::ffi::OsStr| {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--kill-child"]).arg(program);
            command
        };
        if !unshare("true".as_ref()).status().is_ok_and(|status| status.success()) {
            eprintln!("no PID namespace can be made here");
            return;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let name = "fabric::shm::owner::tests::a_process_without_a_number_here_is_known_all_the_same";
        let output = unshare(std::env::current_exe().unwrap().as_os_str())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .output()
            .unwrap();
        drop(ours);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }
}
