//! What goes wrong before a queue exists, or while one is taken away: with numbers, and the way out.

use std::io;

use rustix::process::{Resource, getrlimit};

use super::QueuePairState;
use crate::base::format_bytes;

/// A call to the verbs libraries that did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerbsError {
    /// A call failed.
    #[error("{call} failed: {}{}", io::Error::from_raw_os_error(*errno), hint(call, *errno))]
    Call {
        /// The function.
        call: &'static str,
        /// What it said.
        errno: i32,
    },
    /// No RDMA device is behind an address.
    #[error(
        "no RDMA device has the address {address}: `rdma link show` lists devices with their network interfaces, \
         `mirrorbus doctor` says what is missing"
    )]
    NoDevice {
        /// The address, on this side or of the peer.
        address: String,
    },
    /// Memory cannot be registered because too much would be pinned.
    #[error(
        "cannot register {asked} bytes of memory with the RDMA device: {pinned} bytes are pinned and this process may \
         pin {} (RLIMIT_MEMLOCK soft {}, hard {}): raise it with `ulimit -l`, in /etc/security/limits.d \
         (`USER - memlock unlimited`) or LimitMEMLOCK=infinity of the systemd unit, or give CAP_IPC_LOCK",
        limit_text(*soft), limit_text(*soft), limit_text(*hard)
    )]
    Memlock {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that the process has pinned already.
        pinned: u64,
        /// RLIMIT_MEMLOCK in force; `None` is unlimited.
        soft: Option<u64>,
        /// What it may be raised to without privilege.
        hard: Option<u64>,
    },
    /// Memory cannot be registered for another reason.
    #[error("cannot register {asked} bytes of {kind} memory with the RDMA device: {}{}",
             io::Error::from_raw_os_error(*errno), file_hint(*errno))]
    Register {
        /// Bytes asked for.
        asked: usize,
        /// What is mapped.
        kind: String,
        /// What the system said.
        errno: i32,
    },
    /// A queue pair was asked to go where it cannot.
    #[error("a queue pair cannot go from {from} to {to}")]
    BadTransition {
        /// Where it is.
        from: QueuePairState,
        /// Where it was to go.
        to: QueuePairState,
    },
    /// A device gives less than is needed.
    #[error("{device} gives {most} {what}, {asked} are needed")]
    Limit {
        /// The device.
        device: String,
        /// Of what.
        what: &'static str,
        /// Needed.
        asked: usize,
        /// Given.
        most: usize,
    },
    /// A step of connecting did not end in time.
    #[error("{step} did not end within the deadline")]
    Deadline {
        /// The step.
        step: &'static str,
    },
    /// A step of connecting failed.
    #[error("{step} failed: {event} ({status})")]
    Connect {
        /// The step.
        step: &'static str,
        /// The event that came instead.
        event: String,
        /// Its status: an errno below 0, or a reason of the connection manager.
        status: i32,
    },
    /// The peer turned the connection down.
    #[error("the peer turned the RDMA connection down: {why}")]
    Rejected {
        /// What it said.
        why: String,
    },
    /// What the peer sent while connecting makes no sense, or is not from whom it should be.
    #[error("broken protocol while connecting: {why}")]
    Peer {
        /// What was expected and what came.
        why: String,
    },
    /// A queue pair that was revoked is not in the error state.
    #[error("queue pair {number} was told to stop and is in state {state}")]
    NotStopped {
        /// Its number.
        number: u32,
        /// The state that the device reports.
        state: QueuePairState,
    },
}

impl VerbsError {
    /// Of the `errno` that a call left.
    pub(super) fn last(call: &'static str) -> Self {
        Self::Call { call, errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }

    /// Of the number that a call returned, which is 0 for success.
    pub(super) fn check(call: &'static str, returned: i32) -> Result<(), Self> {
        match returned {
            0 => Ok(()),
            // Some calls return the number, others −1 and leave it in errno; a few negate it.
            -1 => Err(Self::last(call)),
            errno => Err(Self::Call { call, errno: errno.abs() }),
        }
    }

    /// Of a descriptor that the kernel did not give.
    pub(super) fn system(call: &'static str, error: rustix::io::Errno) -> Self {
        Self::Call { call, errno: error.raw_os_error() }
    }

    /// As it is told to a peer, which has room for 148 bytes.
    pub(super) fn to_peer(&self) -> String {
        match self {
            Self::Memlock { asked, soft, .. } => format!(
                "the holder may pin {} (RLIMIT_MEMLOCK), not {asked} bytes more: raise its `ulimit -l` or LimitMEMLOCK",
                soft.map_or_else(|| "any amount".into(), |bytes| format!("{bytes} bytes"))
            ),
            error => error.to_string(),
        }
    }

    /// Of a registration that failed with `errno`.
    pub(super) fn register(asked: usize, kind: String, errno: i32) -> Self {
        let limit = getrlimit(Resource::Memlock);
        let pinned = pinned_bytes();
        let over = limit.current.is_some_and(|soft| pinned.saturating_add(asked as u64) > soft);
        if errno == libc::ENOMEM && over {
            return Self::Memlock { asked, pinned, soft: limit.current, hard: limit.maximum };
        }
        Self::Register { asked, kind, errno }
    }
}

fn pinned_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let kilobytes = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".into(), |bytes| format!("{bytes} bytes = {}", format_bytes(bytes)))
}

fn hint(call: &str, errno: i32) -> &'static str {
    match (call, errno) {
        ("rdma_create_event_channel", _) => {
            ": is the module rdma_ucm loaded, and may this user open /dev/infiniband/rdma_cm? `mirrorbus doctor` says more"
        }
        ("ibv_open_device", _) => {
            ": may this user open /dev/infiniband/uverbs*? `mirrorbus doctor` says more"
        }
        ("rdma_bind_addr", libc::EADDRNOTAVAIL | libc::ENODEV) | ("rdma_resolve_addr", libc::ENODEV) => {
            ": no RDMA device has this address; `rdma link show` lists devices with their network interfaces"
        }
        _ => "",
    }
}

fn file_hint(errno: i32) -> &'static str {
    match errno {
        // What the kernel says of pages that it may not pin for long.
        libc::EFAULT | libc::EOPNOTSUPP | libc::EINVAL => {
            ": a file on most file systems cannot be pinned since Linux 6.5: keep it on tmpfs or a DAX device"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_small_a_limit_is_named_with_the_size_and_the_way_out() {
        let error =
            VerbsError::Memlock { asked: 1 << 20, pinned: 4096, soft: Some(65536), hard: Some(131_072) };
        let text = error.to_string();
        for part in ["1048576 bytes", "RLIMIT_MEMLOCK", "65536 bytes", "131072 bytes", "ulimit -l"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let told = error.to_peer();
        assert!(told.len() <= 148 && told.contains("1048576") && told.contains("65536"), "{told}");
    }

    #[test]
    fn calls_that_return_and_calls_that_set_errno_are_both_understood() {
        assert_eq!(VerbsError::check("ibv_x", 0), Ok(()));
        let invalid = VerbsError::Call { call: "ibv_x", errno: libc::EINVAL };
        assert_eq!(VerbsError::check("ibv_x", libc::EINVAL), Err(invalid.clone()));
        assert_eq!(VerbsError::check("ibv_x", -libc::EINVAL), Err(invalid));
        let text = VerbsError::Call { call: "rdma_bind_addr", errno: libc::ENODEV }.to_string();
        assert!(text.contains("rdma link show"), "{text}");
    }
}
