//! What it takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mirrorbus::base::parse_bytes;

/// `mirrorbus-bench nbd`
#[derive(Debug, Clone, Args)]
pub(crate) struct NbdOptions {
    /// Bytes of the volume.
    #[arg(long, value_parser = bytes, default_value = "1G")]
    pub volume: u64,
    /// Bytes of the ring: whole segments of 16 MiB, two at least.
    #[arg(long, value_parser = bytes, default_value = "256M")]
    pub ring: u64,
    /// Where all keep their files; a directory on tmpfs leaves the disk out.
    #[arg(long, default_value = "/dev/shm")]
    pub directory: PathBuf,
    /// Rounds of each job.
    #[arg(long, default_value_t = 20)]
    pub rounds: u32,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Seconds for which each volume is written at random before it is measured.
    #[arg(long, default_value_t = 15.0)]
    pub wear: f64,
    /// Leave the mirroring qemu-storage-daemon out.
    #[arg(long)]
    pub no_qemu: bool,
    /// The program `mirrorbus`; beside this one if not given.
    #[arg(long)]
    pub program: Option<PathBuf>,
    /// Write the figures here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl NbdOptions {
    pub(super) fn slice(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.1, 3600.0))
    }

    pub(super) fn wear(&self) -> Duration {
        Duration::from_secs_f64(self.wear.clamp(0.1, 3600.0))
    }

    /// Why they make no sense, if they do not.
    pub(crate) fn mistake(&self) -> Option<String> {
        if self.rounds == 0 {
            return Some("--rounds 0: one at least".to_owned());
        }
        if !self.ring.is_multiple_of(16 << 20) || self.ring < 32 << 20 {
            return Some(format!("--ring {}: whole segments of 16 MiB, two at least", self.ring));
        }
        if self.volume < 4 * self.ring || !self.volume.is_multiple_of(1 << 20) {
            return Some(format!(
                "--volume {}: whole MiB, four rings of {} at least, so that what is measured has left memory",
                self.volume, self.ring
            ));
        }
        None
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text)
}
