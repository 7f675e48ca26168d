//! A guest: commands and files in and out, power off and on.
//!
//! All of it works from several threads at once: while one waits for a command, another may cut the power.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::failure::{Context, Failure, Result};

use super::machine::Machine;
use super::port::{End, Output, Port, Running};
use super::qemu::{Card, Hardware, PORTS, Qemu};
use super::saved;

/// How long a guest may take to answer after its start, on a machine that does much else.
const BOOT: Duration = Duration::from_secs(60);

/// Starts of a guest whose clock is too fast, or which does not come up.
const STARTS_MAX: u32 = 3;

/// How much faster than ours a guest's clock may be, as far as can be told.
const FASTER_MAX: f64 = 1.2;

/// How long a command waits for a port.
const FREE_PORT: Duration = Duration::from_secs(30);

/// A small command, a file.
const SHORT: Duration = Duration::from_secs(60);

/// A command that has ended gives its port back by then; one that was killed, unless it has only just begun.
const ENDED: Duration = Duration::from_millis(200);

/// Kills all that runs, in `/run` of `init.sh`, except for the script that this is.
const END_ALL: &str = r#"for process in /run/process.*; do
    test "${process##*.}" = "${0##*.}" || kill -KILL -$(cat "$process")
done 2>/dev/null
true"#;

/// One of the two.
#[derive(Debug)]
pub(crate) struct Guest {
    /// `a` or `b`.
    pub(crate) name: &'static str,
    pub(crate) hardware: Hardware,
    boot: Mutex<Option<Arc<Boot>>>,
    next_id: AtomicU64,
}

/// What ends with the power.
#[derive(Debug)]
struct Boot {
    began: Instant,
    /// From what was saved.
    goes_on: bool,
    qemu: Mutex<Option<Qemu>>,
    free: Mutex<Vec<Port>>,
    freed: Condvar,
}

impl Guest {
    /// A guest that is off.
    pub(crate) const fn new(name: &'static str, hardware: Hardware) -> Self {
        Self { name, hardware, boot: Mutex::new(None), next_id: AtomicU64::new(1) }
    }

    /// Starts it. [`Self::until_up`] waits for it.
    pub(crate) fn power_on(&self) -> Result<()> {
        let (qemu, free) = (Mutex::new(None), Mutex::new(Vec::new()));
        let goes_on = self.hardware.saved().exists();
        let boot = Boot { began: Instant::now(), goes_on, qemu, free, freed: Condvar::new() };
        *lock(&boot.qemu) = Some(Qemu::start(&self.hardware)?);
        let until = Instant::now() + SHORT;
        for number in 0..PORTS {
            let paths = self.hardware.port(number);
            // Without blocking it opens only once QEMU has the other end.
            let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
            while File::options().write(true).custom_flags(nonblocking).open(&paths[0]).is_err() {
                if Instant::now() > until {
                    let errors = fs::read_to_string(self.hardware.errors()).unwrap_or_default();
                    return Err(Failure::new(format!("QEMU does not start: {errors}")));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            lock(&boot.free).push(Port::open(&paths)?);
        }
        *lock(&self.boot) = Some(Arc::new(boot));
        Ok(())
    }

    /// Waits until soft-RoCE is active in it, with a clock that can be relied on.
    ///
    /// While a kernel starts, it measures its clock; on a host that does much else it may take it for several times slower than it is.
    /// Every time limit there would be over too early then. And one start in some hundreds stands still before anything of ours runs there.
    pub(crate) fn until_up(&self) -> Result<()> {
        for start in 1..=STARTS_MAX {
            match self.greeted() {
                Ok([ours, theirs]) if theirs <= ours * FASTER_MAX => return Ok(()),
                Ok([ours, theirs]) => println!("guest {} calls {ours:.1} s {theirs:.1} s", self.name),
                Err(failure) => {
                    println!("guest {} did not come up: {failure}\n{}", self.name, self.registers());
                    // The next one is from nothing.
                    let _ = fs::remove_file(self.hardware.saved());
                    if start == STARTS_MAX {
                        return Err(failure);
                    }
                }
            }
            println!("guest {} is started again", self.name);
            self.kill();
            self.power_on()?;
        }
        Err(Failure::new(format!("guest {} has no clock that can be relied on", self.name)))
    }

    /// Keeps what it is now for its later starts. It has no disk.
    pub(crate) fn save(&self) -> Result<()> {
        self.run(saved::READY, BOOT)?;
        // Whole or not at all under its name.
        let (saved, part) = (self.hardware.saved(), self.hardware.saved().with_extension("part"));
        self.told(|qemu| qemu.save(&part))?;
        fs::rename(&part, &saved).context(|| format!("naming {}", saved.display()))
    }

    /// How many seconds it has run once it is up, by our clock and by its own: the same of one that goes on, whose clock was found right.
    fn greeted(&self) -> Result<[f64; 2]> {
        let boot = lock(&self.boot).clone();
        let boot = boot.ok_or_else(|| Failure::new(format!("guest {} is off", self.name)))?;
        if boot.goes_on {
            let has_disk = self.hardware.disk().exists();
            self.told(|qemu| qemu.go_on(has_disk))?;
            self.exec(&saved::greeting(has_disk), BOOT).and_then(Output::success)?;
            return Ok([boot.began.elapsed().as_secs_f64(); 2]);
        }
        let script = "until test -e /run/up; do sleep 0.05; done; cat /proc/uptime";
        let uptime = self.exec(script, BOOT).and_then(Output::success)?;
        let theirs = uptime.split_whitespace().next().and_then(|word| word.parse().ok());
        Ok([boot.began.elapsed().as_secs_f64(), theirs.unwrap_or(f64::INFINITY)])
    }

    /// Where its processors stand, as far as QEMU tells.
    fn registers(&self) -> String {
        let Some(boot) = lock(&self.boot).clone() else { return "it is off".to_owned() };
        let qemu = lock(&boot.qemu);
        let said = qemu.as_ref().map(Qemu::registers);
        said.map_or_else(|| "it is off".to_owned(), |said| said.unwrap_or_else(|failure| failure.to_string()))
    }

    /// Cuts its power: nothing that it had in memory remains.
    pub(crate) fn kill(&self) {
        if let Some(boot) = lock(&self.boot).take() {
            drop(lock(&boot.qemu).take());
        }
    }

    /// Cuts its power if it is on, and starts it again.
    pub(crate) fn restart(&self) -> Result<()> {
        self.kill();
        self.power_on()?;
        self.until_up()
    }

    /// Whether its power is on.
    pub(crate) fn is_on(&self) -> bool {
        lock(&self.boot).is_some()
    }

    /// Raises or drops the carrier of a network card; nothing if its power is off.
    pub(crate) fn set_carrier(&self, card: Card, up: bool) -> Result<()> {
        self.told(|qemu| qemu.set_carrier(card, up))
    }

    /// Has it stand still, its clocks too, or go on; nothing if its power is off.
    pub(crate) fn set_running(&self, runs: bool) -> Result<()> {
        self.told(|qemu| qemu.set_running(runs))
    }

    fn told(&self, tell: impl FnOnce(&Qemu) -> Result<()>) -> Result<()> {
        let Some(boot) = lock(&self.boot).clone() else { return Ok(()) };
        let qemu = lock(&boot.qemu);
        qemu.as_ref().map_or(Ok(()), tell)
    }

    /// Starts a command of the shell, which is killed after `limit` with all that it started.
    pub(crate) fn spawn(&self, command: &str, limit: Duration) -> Result<Running> {
        self.start(command.as_bytes(), limit)
    }

    /// Runs a command to its end.
    pub(crate) fn exec(&self, command: &str, limit: Duration) -> Result<Output> {
        self.spawn(command, limit)?.wait()
    }

    /// Kills the commands that still run in it, with all that they started, and waits for their ends; nothing if
    /// its power is off.
    pub(crate) fn end_all(&self) -> Result<()> {
        let Some(boot) = lock(&self.boot).clone() else { return Ok(()) };
        let until = Instant::now() + SHORT;
        while let Some(running) = boot.still_run(ENDED) {
            println!("guest {}: of what was left behind {running} still run: they are killed", self.name);
            self.run(END_ALL, SHORT)?;
            if Instant::now() > until {
                return Err(Failure::new(format!("guest {}: what runs there cannot be killed", self.name)));
            }
        }
        Ok(())
    }

    /// Sends a signal, such as `TERM` or `STOP`, to a running command and all that it started.
    pub(crate) fn signal(&self, running: &Running, signal: &str) -> Result<()> {
        self.run(&format!("kill -{signal} -$(cat /run/process.{})", running.id), SHORT).map(drop)
    }

    /// Writes a file of the guest.
    pub(crate) fn push(&self, from: &Path, to: &str) -> Result<()> {
        let bytes = fs::read(from).context(|| format!("reading {}", from.display()))?;
        // The file follows the script's first line, which copies what is behind it.
        let first = format!("exec tail -n +2 \"$0\" >'{to}'\n");
        let pushed =
            self.start(&[first.as_bytes(), &bytes].concat(), SHORT)?.wait().and_then(Output::success);
        pushed.map(drop).context(|| format!("writing {to} in guest {}", self.name))
    }

    /// Reads a file of the guest.
    pub(crate) fn pull(&self, from: &str) -> Result<Vec<u8>> {
        let output = self.exec(&format!("cat '{from}'"), SHORT)?;
        match output.end {
            End::Exit(0) => Ok(output.bytes),
            end => Err(Failure::new(format!("reading {from} in guest {}: {end:?}", self.name))),
        }
    }

    fn start(&self, script: &[u8], limit: Duration) -> Result<Running> {
        let boot = lock(&self.boot).clone();
        let boot = boot.ok_or_else(|| Failure::new(format!("guest {} is off", self.name)))?;
        let port = boot.free_port().ok_or_else(|| {
            Failure::new(format!("guest {} runs {PORTS} commands already, which do not end", self.name))
        })?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        port.start(id, script, limit, move |port| {
            lock(&boot.free).push(port);
            boot.freed.notify_one();
        })
    }
}

impl Machine for Guest {
    fn address(&self) -> String {
        format!("10.77.0.{}", self.hardware.number)
    }

    fn run(&self, command: &str, limit: Duration) -> Result<String> {
        let output = self.exec(command, limit).and_then(Output::success);
        output.context(|| format!("guest {}: {command}", self.name))
    }
}

impl Boot {
    fn free_port(&self) -> Option<Port> {
        let free = lock(&self.free);
        let none = |free: &mut Vec<Port>| free.is_empty();
        let waited = self.freed.wait_timeout_while(free, FREE_PORT, none);
        waited.unwrap_or_else(PoisonError::into_inner).0.pop()
    }

    /// How many commands have not ended within so long; none if all have.
    fn still_run(&self, within: Duration) -> Option<usize> {
        let some = |free: &mut Vec<Port>| free.len() < PORTS;
        let waited = self.freed.wait_timeout_while(lock(&self.free), within, some);
        let free = waited.unwrap_or_else(PoisonError::into_inner).0.len();
        (free < PORTS).then_some(PORTS - free)
    }
}

/// A thread that panicked holding one of these left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::path::PathBuf;
    use std::process::Command;

    #[test]
    fn commands_have_ended_when_every_port_is_free() {
        let (qemu, free) = (Mutex::new(None), Mutex::new(Vec::new()));
        let boot = Boot { began: Instant::now(), goes_on: false, qemu, free, freed: Condvar::new() };
        let null = || Port::open(&["/dev/null", "/dev/null"].map(PathBuf::from)).unwrap();
        lock(&boot.free).extend((0..PORTS - 2).map(|_| null()));
        assert_eq!(boot.still_run(Duration::ZERO), Some(2));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    lock(&boot.free).push(null());
                    boot.freed.notify_one();
                });
            }
            assert_eq!(boot.still_run(SHORT), None);
        });
    }

    #[test]
    fn all_that_runs_is_ended_but_for_the_one_that_ends_it() {
        let run = std::env::temp_dir().join(format!("mirrorbus-end-all-{}", std::process::id()));
        fs::create_dir_all(&run).unwrap();
        let sleeps = |id: u32| {
            let group = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
            fs::write(run.join(format!("process.{id}")), format!("{}\n", group.id())).unwrap();
            group
        };
        let (mut left, mut own, mut other) = (sleeps(1), sleeps(12), sleeps(2));
        // One whose end is being told.
        fs::write(run.join("process.3"), "").unwrap();
        let script = run.join("script.12");
        fs::write(&script, END_ALL.replace("/run/", &format!("{}/", run.display()))).unwrap();
        assert!(Command::new("sh").arg(&script).status().unwrap().success());
        assert_eq!([&mut left, &mut other].map(|group| group.wait().unwrap().signal()), [Some(9), Some(9)]);
        assert!(own.try_wait().unwrap().is_none(), "the one that ends them ended itself");
        own.kill().unwrap();
        own.wait().unwrap();
        fs::remove_dir_all(&run).unwrap();
    }
}
