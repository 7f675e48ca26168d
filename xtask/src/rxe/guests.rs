//! Two guests and the link between them.
//!
//! The link is a pair of Unix datagram sockets, one frame a datagram. Moving a socket's file aside loses what is sent to
//! it, and nobody is told.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::failure::{Context, Result};

use super::guest::Guest;
use super::image::Image;
use super::qemu::{Card, Hardware};

/// How large a guest is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// One without a disk has its files in here too.
    pub(crate) memory_mib: u32,
    /// With one alone, a program that polls without a pause keeps the kernel from receiving what is polled for.
    pub(crate) processors: u32,
    /// Each guest is on a processor of this host's where the other is not.
    pub(crate) apart: bool,
}

impl Size {
    /// For tests.
    pub(crate) const TESTED: Self = Self { memory_mib: 1024, processors: 2, apart: false };
    /// For what is measured within: rings and the files of nodes take memory.
    pub(crate) const MEASURED: Self = Self { memory_mib: 2048, ..Self::TESTED };
    /// For what is compared with each other. Where four emulated processors share two, who waits for whom is the host's luck: nothing
    /// compares to itself within tens of percent.
    pub(crate) const COMPARED: Self = Self { processors: 1, apart: true, ..Self::MEASURED };
}

/// Ways for the link to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both network cards lose their carrier, which their kernels see.
    Carrier,
    /// What is sent vanishes, both ways.
    Silent,
    /// What is sent to guest `a` vanishes.
    ToA,
    /// What is sent to guest `b` vanishes.
    ToB,
}

impl Cut {
    /// Every way.
    pub(crate) const ALL: [Self; 4] = [Self::Carrier, Self::Silent, Self::ToA, Self::ToB];
}

/// The two guests. They are off when this is dropped, or this process has ended in whatever way.
#[derive(Debug)]
pub(crate) struct Guests {
    pub(crate) a: Guest,
    pub(crate) b: Guest,
    /// The project's program, for what runs on this host.
    pub(crate) program: PathBuf,
    /// From power to soft-RoCE in both, the first time.
    pub(crate) first_start: Duration,
    _only: File,
}

impl Guests {
    /// Starts both, with their files in `directory`, and waits until soft-RoCE is active in each.
    pub(crate) fn up(image: &Image, directory: &Path, size: Size, program: PathBuf) -> Result<Self> {
        let what = || format!("making {}", directory.display());
        fs::create_dir_all(directory).context(what)?;
        let only = File::create(directory.join("lock")).context(what)?;
        flock(&only, FlockOperation::NonBlockingLockExclusive)
            .context(|| format!("another run has its guests in {}", directory.display()))?;
        let guest = |name: &'static str, number: u8, peer: &str| {
            let hardware = Hardware {
                number,
                size,
                image: image.clone(),
                directory: directory.join(name),
                peer: directory.join(peer).join("link"),
            };
            if hardware.directory.exists() {
                fs::remove_dir_all(&hardware.directory)
                    .context(|| format!("removing {}", hardware.directory.display()))?;
            }
            Ok(Guest::new(name, hardware))
        };
        let (a, b) = (guest("a", 1, "b")?, guest("b", 2, "a")?);
        let mut guests = Self { a, b, program, first_start: Duration::ZERO, _only: only };
        let began = Instant::now();
        guests.mend()?;
        guests.first_start = began.elapsed();
        Ok(guests)
    }

    /// Keeps what they are now: from here on each start goes on from it. Where that cannot be done each start is one from nothing.
    pub(crate) fn save(&self) {
        let start = Instant::now();
        match self.both().into_iter().try_for_each(Guest::save) {
            Ok(()) => println!("guests a and b saved in {:.1} s", start.elapsed().as_secs_f64()),
            Err(failure) => println!("{failure}: they are started from nothing each time"),
        }
    }

    /// Forgets what was kept.
    pub(crate) fn forget(&self) {
        for guest in self.both() {
            let _ = fs::remove_file(guest.hardware.saved());
        }
    }

    /// Both.
    pub(crate) const fn both(&self) -> [&Guest; 2] {
        [&self.a, &self.b]
    }

    /// Makes the link fail.
    pub(crate) fn cut(&self, how: Cut) -> Result<()> {
        match how {
            Cut::Carrier => {
                self.both().into_iter().try_for_each(|guest| guest.set_carrier(Card::Link, false))
            }
            Cut::Silent => self.both().into_iter().try_for_each(deafen),
            Cut::ToA => deafen(&self.a),
            Cut::ToB => deafen(&self.b),
        }
    }

    /// Makes the link whole, in whatever way it failed, and what else was taken from a guest.
    pub(crate) fn heal(&self) -> Result<()> {
        for guest in self.both() {
            let (aside, link) = (guest.hardware.link_aside(), guest.hardware.link());
            if aside.exists() {
                fs::rename(&aside, &link).context(|| format!("healing {}", link.display()))?;
            }
            guest.set_carrier(Card::Link, true)?;
            guest.set_carrier(Card::Aside, true)?;
            guest.set_running(true)?;
        }
        Ok(())
    }

    /// Heals the link, ends what still runs in the guests, and starts those that are off: what each test
    /// finds.
    pub(crate) fn mend(&self) -> Result<()> {
        self.heal()?;
        for guest in self.both() {
            if let Err(failure) = guest.end_all() {
                println!("{failure}: it is started again");
                guest.kill();
            }
        }
        let off: Vec<_> = self.both().into_iter().filter(|guest| !guest.is_on()).collect();
        let start = Instant::now();
        off.iter().try_for_each(|guest| guest.power_on())?;
        off.iter().try_for_each(|guest| guest.until_up())?;
        if !off.is_empty() {
            println!("guests {} up in {:.1} s", names(&off), start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Cuts the power of both.
    pub(crate) fn kill(&self) {
        self.both().into_iter().for_each(Guest::kill);
    }

    /// Removes the files of their disks; a guest that is on keeps its own until it is off.
    pub(crate) fn remove_disks(&self) {
        for guest in self.both() {
            let _ = fs::remove_file(guest.hardware.disk());
        }
    }

    /// Copies what tells of a failure into `logs`: both consoles, what QEMU said, and the kernels' messages if they can
    /// still be had.
    pub(crate) fn keep_logs(&self, logs: &Path, test: &str) -> Result<()> {
        fs::create_dir_all(logs).context(|| format!("making {}", logs.display()))?;
        for guest in self.both() {
            let path = |what: &str| logs.join(format!("{test}.{}.{what}", guest.name));
            for (from, what) in [(guest.hardware.console(), "console"), (guest.hardware.errors(), "qemu")] {
                fs::copy(&from, path(what)).context(|| format!("copying {}", from.display()))?;
            }
            let messages = guest.exec("dmesg; ps; ip address", Duration::from_secs(10));
            let text = messages.map_or_else(|failure| failure.to_string(), |output| output.text());
            fs::write(path("kernel"), text).context(|| format!("writing into {}", logs.display()))?;
        }
        println!("logs of both guests: {}/{test}.*", logs.display());
        Ok(())
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Loses what is sent to this guest. Lost once is lost: a second time changes nothing.
fn deafen(guest: &Guest) -> Result<()> {
    let (link, aside) = (guest.hardware.link(), guest.hardware.link_aside());
    if aside.exists() {
        return Ok(());
    }
    fs::rename(&link, &aside).context(|| format!("cutting {}", link.display()))
}

fn names(guests: &[&Guest]) -> String {
    guests.iter().map(|guest| guest.name).collect::<Vec<_>>().join(" and ")
}
