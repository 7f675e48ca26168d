//! One QEMU process: how it is started, told of its link, and ended for certain.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::failure::{Context, Failure, Result};

use super::disk;
use super::guests::Size;
use super::image::Image;
use super::saved;

/// Commands that a guest can carry out at the same time.
pub(crate) const PORTS: usize = 8;

/// QEMU answers at once, or not at all.
const ANSWER: Duration = Duration::from_secs(10);

/// Runs a program until stdin ends: whatever becomes of us, the pipe behind it closes, and the guest is gone.
pub(super) const GUARD: &str = r#""$@" & read -r _; kill -KILL $!; wait $!"#;

/// A network card of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Card {
    /// To the other guest; soft-RoCE is on this one.
    Link,
    /// To this host.
    Aside,
}

/// What a guest is made of.
#[derive(Debug, Clone)]
pub(crate) struct Hardware {
    /// 1 or 2: its address on the link is 10.77.0.1 or 10.77.0.2.
    pub(crate) number: u8,
    pub(crate) size: Size,
    pub(crate) image: Image,
    /// Its own files: console, ports, the socket of its end of the link.
    pub(crate) directory: PathBuf,
    /// The socket of the other end.
    pub(crate) peer: PathBuf,
}

impl Hardware {
    /// The socket to which the other guest sends what is for this one.
    pub(crate) fn link(&self) -> PathBuf {
        self.directory.join("link")
    }

    /// Where that socket is moved to so that what is sent to it is lost.
    pub(crate) fn link_aside(&self) -> PathBuf {
        self.directory.join("link.cut")
    }

    /// What the guest's kernel and first process print.
    pub(crate) fn console(&self) -> PathBuf {
        self.directory.join("console")
    }

    /// What QEMU itself prints.
    pub(crate) fn errors(&self) -> PathBuf {
        self.directory.join("qemu.log")
    }

    /// Its disk, of which there is one when this file is there at its start.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// What it goes on from at its start when this file is there.
    pub(crate) fn saved(&self) -> PathBuf {
        self.directory.join("saved")
    }

    /// The socket at which QEMU finds the disk.
    fn disk_socket(&self) -> PathBuf {
        self.directory.join("disk.nbd")
    }

    /// A pair of FIFOs, to the guest and from it.
    pub(crate) fn port(&self, number: usize) -> [PathBuf; 2] {
        ["in", "out"].map(|way| self.directory.join(format!("port{number}.{way}")))
    }

    /// What goes in front of QEMU's command, so that the guest has a processor of this host's for itself.
    fn on_its_processor(&self) -> Result<Vec<String>> {
        if !self.size.apart {
            return Ok(Vec::new());
        }
        let allowed = sched_getaffinity(None).context(|| "the processors that may be used".to_owned())?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let own = allowed.nth(usize::from(self.number) - 1).ok_or_else(|| {
            let why = "two guests need two processors, one each, to be compared with anything";
            Failure::new(why.to_owned())
        })?;
        Ok(["taskset", "--cpu-list", &own.to_string()].map(str::to_owned).into())
    }

    fn arguments(&self, has_disk: bool, goes_on: bool) -> Vec<String> {
        let Self { number, size, image, directory, peer } = self;
        let Size { memory_mib, processors, .. } = size;
        let directory = directory.display();
        // `guest` and `disk` are no words of the kernel's, so they become variables of the first process. On a host that does much else the
        // kernel's check of the timer finds it broken, and goes on without one for ever. Tests of its own algorithms and the protection
        // of its code are no matter here, and take a tenth of a start.
        let disk = if has_disk { "yes" } else { "no" };
        let kernel = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc nowatchdog \
             no_timer_check random.trust_cpu=on rodata=off cryptomgr.notests \
             guest={number} disk={disk}"
        );
        let mut all: Vec<String> = [
            // KVM is never tried: there are hosts on which the attempt hangs.
            // Without the oldest timer the kernel measures its clock by the HPET: right, also where the host does much else.
            // The processor has neither AVX nor the bit by which kernel and C library copy with `rep movsb`: the emulator does that byte for
            // byte. Nor has it SSE 4.2, whose checksum the emulator computes bit for bit: that takes three times as long as tables do.
            "-machine pc,usb=off,vmport=off,pit=off -accel tcg,thread=multi -cpu Westmere,-sse4.2 -nodefaults -no-user-config",
            "-display none -no-reboot",
            &format!("-smp {processors} -m {memory_mib}"),
            &format!("-chardev file,id=console,append=on,path={directory}/console -serial chardev:console"),
            &format!("-qmp unix:{directory}/qmp,server=on,wait=off"),
            &format!("-kernel {} -initrd {}", image.kernel.display(), image.initrd.display()),
            &format!(
                "-netdev dgram,id=wire,local.type=unix,local.path={directory}/link,remote.type=unix,remote.path={}",
                peer.display()
            ),
            &format!(
                "-device virtio-net-pci,id=nic,netdev=wire,mac=52:54:00:77:00:0{number},host_mtu=9000,romfile="
            ),
            // What is outside of both guests is reached at 10.0.2.2, which is this host.
            "-netdev user,id=outside,ipv6=off",
            &format!("-device virtio-net-pci,id=aside,netdev=outside,mac=52:54:00:78:00:0{number},romfile="),
            &format!("-device virtio-serial-pci,max_ports={}", PORTS + 1),
            &format!("-device {}", saved::IDENTITY),
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::to_owned)
        .collect();
        for port in 0..PORTS {
            all.extend(["-chardev".to_owned(), format!("pipe,id=port{port},path={directory}/port{port}")]);
            let device = format!("virtserialport,chardev=port{port},name=port{port},nr={}", port + 1);
            all.extend(["-device".to_owned(), device]);
        }
        if has_disk {
            let socket = self.disk_socket();
            // The guest's flushes go through, and nothing is kept here.
            let drive = format!("file=nbd:unix:{},format=raw,if=none,id=disk,cache=none", socket.display());
            all.extend(["-drive".to_owned(), drive]);
            // One that goes on had none, and gets it then.
            if !goes_on {
                all.extend(["-device".to_owned(), "virtio-blk-pci,drive=disk".to_owned()]);
            }
        }
        if goes_on {
            all.extend(saved::incoming(&self.saved()));
        }
        all.extend(["-append".to_owned(), kernel]);
        all
    }
}

/// The process. Dropping it is the guest's power loss.
#[derive(Debug)]
pub(crate) struct Qemu {
    /// QEMU's, and that of the disk behind it.
    guards: Vec<Child>,
    /// While it is open they run.
    power: Option<PipeWriter>,
    control: PathBuf,
}

impl Qemu {
    /// Starts a guest with no memory of an earlier one, or with what was saved before any test; only the console's file goes on.
    pub(crate) fn start(hardware: &Hardware) -> Result<Self> {
        let directory = &hardware.directory;
        if directory.display().to_string().contains([' ', ',']) {
            return Err(Failure::new(format!("QEMU takes no space or comma in {}", directory.display())));
        }
        fs::create_dir_all(directory).context(|| format!("making {}", directory.display()))?;
        let control = directory.join("qmp");
        let stale = [hardware.link(), hardware.link_aside(), hardware.disk_socket(), control.clone()];
        let ports = (0..PORTS).flat_map(|port| hardware.port(port));
        for path in ports.clone().chain(stale) {
            if path.exists() {
                fs::remove_file(&path).context(|| format!("removing {}", path.display()))?;
            }
        }
        for path in ports {
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).context(|| format!("making {}", path.display()))?;
        }
        let (ends, power) = std::io::pipe().context(|| "a pipe".to_owned())?;
        let mut qemu = Self { guards: Vec::new(), power: Some(power), control };
        let disk = hardware.disk();
        let has_disk = disk.exists();
        if has_disk {
            let socket = hardware.disk_socket();
            qemu.guards.push(guarded(&disk::server(&disk, &socket), &ends, hardware)?);
            disk::until_served(&socket)
                .context(|| fs::read_to_string(hardware.errors()).unwrap_or_default())?;
        }
        let goes_on = hardware.saved().exists();
        let mut words = hardware.on_its_processor()?;
        words.push("qemu-system-x86_64".to_owned());
        words.extend(hardware.arguments(has_disk, goes_on));
        qemu.guards.push(guarded(&words, &ends, hardware)?);
        Ok(qemu)
    }

    /// Raises or drops the carrier of a network card.
    pub(crate) fn set_carrier(&self, card: Card, up: bool) -> Result<()> {
        let name = match card {
            Card::Link => "nic",
            Card::Aside => "aside",
        };
        self.command(&format!(r#"{{"execute":"set_link","arguments":{{"name":"{name}","up":{up}}}}}"#))
            .map(drop)
    }

    /// Has the whole machine stand still, its clocks too, or go on.
    pub(crate) fn set_running(&self, runs: bool) -> Result<()> {
        let command = if runs { "cont" } else { "stop" };
        self.command(&format!(r#"{{"execute":"{command}"}}"#)).map(drop)
    }

    /// Where its processors stand: for whoever looks for why it does not go on.
    pub(crate) fn registers(&self) -> Result<String> {
        let words = r#""arguments":{"command-line":"info registers -a"}"#;
        let said = self.command(&format!(r#"{{"execute":"human-monitor-command",{words}}}"#))?;
        Ok(said.replace(r"\r\n", "\n"))
    }

    /// Says one thing to QEMU's control socket, after the greeting: the answer.
    pub(super) fn command(&self, line: &str) -> Result<String> {
        let what = || format!("telling QEMU {line}");
        let mut stream = UnixStream::connect(&self.control).context(what)?;
        stream.set_read_timeout(Some(ANSWER)).context(what)?;
        let mut answers = BufReader::new(stream.try_clone().context(what)?).lines();
        let mut last = String::new();
        for request in [r#"{"execute":"qmp_capabilities"}"#, line] {
            writeln!(stream, "{request}").context(what)?;
            loop {
                // The greeting, and events that come in between, are neither.
                let answer = answers.next().unwrap_or_else(|| Ok(r#""error": no answer"#.to_owned()));
                let answer = answer.context(what)?;
                if answer.contains(r#""return""#) {
                    last = answer;
                    break;
                }
                if answer.contains(r#""error""#) {
                    return Err(Failure::new(format!("{}: {answer}", what())));
                }
            }
        }
        Ok(last)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // All of them at once: what is on its way from one to the other is lost too.
        drop(self.power.take());
        for guard in &mut self.guards {
            let _ = guard.wait();
        }
    }
}

/// A program of this guest, which is killed when `ends` ends.
fn guarded(words: &[String], ends: &PipeReader, hardware: &Hardware) -> Result<Child> {
    let what = || format!("starting {}", words[0]);
    let output = File::options().create(true).append(true).open(hardware.errors()).context(what)?;
    let guard = Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .args(words)
        .env("TMPDIR", &hardware.directory)
        .stdin(ends.try_clone().context(what)?)
        .stdout(output.try_clone().context(what)?)
        .stderr(output)
        // Ctrl-C ends us, and by that QEMU: it should not take itself what we were to see first.
        .process_group(0)
        .spawn();
    guard.context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Stdio;

    #[test]
    fn the_guard_ends_its_program_when_the_pipe_ends() {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "sh", "sleep", "1000"])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", guard.id());
        let child = loop {
            let found = fs::read_to_string(&children).unwrap();
            if let Some(child) = found.split_whitespace().next() {
                break child.to_owned();
            }
        };
        drop(guard.stdin.take());
        guard.wait().unwrap();
        assert!(!Path::new("/proc").join(child).exists());
    }
}
