//! What a guest is once it has come up, kept in a file: its next start goes on from there, a second in place of eight.
//!
//! It is the state of before any test: memory, processors, devices, and no disk, which is plugged in afterwards. All that a power cut takes is
//! gone. Two things must not be as they were: the clock on the wall, which is set, and what random numbers are made from. The device `vmgenid`
//! tells the kernel that it is another machine now, and it draws anew (docs/specs/vmgenid of QEMU).

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::failure::{Context, Failure, Result};

use super::qemu::Qemu;

/// Writing or reading a gigabyte, most of which is zeros, on a machine that does much else.
const LONG: Duration = Duration::from_secs(60);

/// Between two looks at how far that is.
const LOOK: Duration = Duration::from_millis(20);

/// The device by which a kernel knows that it goes on as another machine.
pub(super) const IDENTITY: &str = "vmgenid,guid=auto";

/// In a guest that is to be saved: until its kernel has what random numbers are made from. It would draw nothing anew before.
pub(super) const READY: &str = "head -c 1 /dev/random >/dev/null";

/// In a guest that goes on: the time of now, random numbers of its own, and its disk if it has one.
pub(super) fn greeting(has_disk: bool) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let disk = if has_disk { "sh /bin/disk-up" } else { "true" };
    let drawn = "until dmesg | grep -q 'crng reseeded due to virtual machine fork'; do sleep 0.05; done";
    format!("date -s @{now} >/dev/null; {drawn}; {disk}")
}

/// QEMU's arguments to go on from what is in `path`.
pub(super) fn incoming(path: &Path) -> [String; 2] {
    ["-incoming".to_owned(), format!("exec:cat {}", path.display())]
}

impl Qemu {
    /// Writes the state of the whole machine into `path`; it stands still meanwhile.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        self.set_running(false)?;
        // As fast as the file takes it.
        self.command(r#"{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":10000000000}}"#)?;
        let uri = format!("exec:cat >{}", path.display());
        self.command(&format!(r#"{{"execute":"migrate","arguments":{{"uri":"{uri}"}}}}"#))?;
        let ended = self.until("query-migrate", |answer| {
            ["completed", "failed", "cancelled"]
                .iter()
                .any(|end| answer.contains(&format!(r#""status": "{end}""#)))
        });
        let ended = ended.and_then(|answer| {
            let done = answer.contains(r#""status": "completed""#);
            if done { Ok(()) } else { Err(Failure::new(format!("QEMU could not save a guest: {answer}"))) }
        });
        self.set_running(true)?;
        ended.context(|| format!("saving into {}", path.display()))
    }

    /// Lets a machine whose state was read go on, with its disk if it has one.
    pub(super) fn go_on(&self, has_disk: bool) -> Result<()> {
        self.until("query-status", |answer| !answer.contains("inmigrate"))?;
        if has_disk {
            self.command(
                r#"{"execute":"device_add","arguments":{"driver":"virtio-blk-pci","drive":"disk","id":"plugged"}}"#,
            )?;
        }
        self.set_running(true)
    }

    /// Asks again and again until the answer will do.
    fn until(&self, question: &str, will_do: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + LONG;
        loop {
            let answer = self.command(&format!(r#"{{"execute":"{question}"}}"#))?;
            if will_do(&answer) {
                return Ok(answer);
            }
            if Instant::now() > until {
                return Err(Failure::new(format!("{question}: {answer}")));
            }
            std::thread::sleep(LOOK);
        }
    }
}
