//! The kernel: each feature that the fabrics use, by using it.

use std::io::Write;
use std::sync::Arc;

use mirrorbus::base::Generation;
use mirrorbus::fabric::shm::{GrantPage, LifeWord};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Resource, getrlimit};

use super::{Finding, State};

/// A holder serves strangers, owners and their lanes with a descriptor each.
const DESCRIPTORS_MIN: u64 = 1024;

/// A feature does not do what it should.
type Trial = Result<&'static str, String>;

/// Looks at all of it.
pub(super) fn look() -> Vec<Finding> {
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut findings = vec![Finding::ok("kernel", format!("Linux {}", version.trim()))];
    let trials: [(_, fn() -> Trial, _); 5] = [
        (
            "memfd sealing",
            sealing,
            "shm needs it, so that a peer cannot take memory away: Linux 3.17 or later",
        ),
        (
            "memfd sealed against writers",
            future_write,
            "shm needs it for what a peer may only read: Linux 5.1 or later",
        ),
        (
            "pidfd_open",
            pidfd,
            "shm needs it to know an owner's death for certain: Linux 5.3 or later, or let the \
                               container's seccomp profile allow it",
        ),
        (
            "robust futex list",
            robust_list,
            "shm needs it, so that an owner learns of its holder's death: a kernel \
                                            with CONFIG_FUTEX, and a seccomp profile that allows set_robust_list",
        ),
        ("eventfd", eventfd, "all fabrics need it: let the container's seccomp profile allow it"),
    ];
    findings.extend(trials.into_iter().map(|(what, trial, fix)| match trial() {
        Ok(found) => Finding::ok(what, found),
        Err(why) => Finding::fail(what, why, fix),
    }));
    findings.push(descriptors());
    findings
}

fn failed(call: &'static str) -> impl Fn(Errno) -> String {
    move |error| format!("{call}: {error}")
}

fn sealed_memfd(seals: SealFlags) -> Result<std::fs::File, String> {
    let fd = rustix::fs::memfd_create("doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(failed("memfd_create"))?;
    rustix::fs::ftruncate(&fd, 4096).map_err(failed("ftruncate"))?;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(failed("F_ADD_SEALS"))?;
    Ok(fd.into())
}

fn sealing() -> Trial {
    let file = sealed_memfd(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    match rustix::fs::ftruncate(&file, 0) {
        Err(Errno::PERM) => Ok("a sealed memfd refused to shrink"),
        other => Err(format!("a sealed memfd did not refuse to shrink: {other:?}")),
    }
}

fn future_write() -> Trial {
    let mut file = sealed_memfd(SealFlags::FUTURE_WRITE)?;
    match file.write(b"x").map_err(|error| error.raw_os_error()) {
        Err(Some(error)) if error == Errno::PERM.raw_os_error() => Ok("F_SEAL_FUTURE_WRITE refused a write"),
        other => Err(format!("F_SEAL_FUTURE_WRITE did not refuse a write: {other:?}")),
    }
}

fn pidfd() -> Trial {
    let process = rustix::process::getpid();
    let fd = rustix::process::pidfd_open(process, PidfdFlags::empty()).map_err(failed("pidfd_open"))?;
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(0) => Ok("one of this process says that it lives"),
        other => Err(format!("one of this process says that it is dead: {other:?}")),
    }
}

fn robust_list() -> Trial {
    let page = GrantPage::new(Generation(1)).map_err(|error| error.to_string())?;
    let life = LifeWord::arm(Arc::new(page)).map_err(|error| format!("set_robust_list: {error}"))?;
    drop(life);
    Ok("a life word was armed and disarmed")
}

fn eventfd() -> Trial {
    let fd = rustix::event::eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(failed("eventfd"))?;
    let mut counter = [0; 8];
    rustix::io::read(&fd, &mut counter).map_err(failed("read"))?;
    if u64::from_ne_bytes(counter) == 1 {
        Ok("one was signaled and read")
    } else {
        Err("it lost its count".into())
    }
}

fn descriptors() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |count| count.to_string());
    Finding::judged(
        limit.current.is_none_or(|count| count >= DESCRIPTORS_MIN),
        State::Warn,
        "open files",
        format!("limit soft {}, hard {}", text(limit.current), text(limit.maximum)),
        "`ulimit -n 4096`, or LimitNOFILE=4096 in the systemd unit",
    )
}
