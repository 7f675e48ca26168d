//! `--host`: soft-RoCE of this host's own kernel, where it can be had, in place of a guest's.
//!
//! The device stands on a dummy network card, so that nothing of the host's network is touched; both are removed in the
//! end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Context, Failure, Result};
use crate::install;
use crate::shell::{program, succeeds};

use super::artifacts::Artifact;
use super::machine::Machine;
use super::port::{End, Output};

/// A network card that receives what it sends.
const CARD: &str = "mirrorbus0";

const ADDRESS: &str = "10.77.1.1";

/// This host.
#[derive(Debug)]
pub(crate) struct Host {
    /// Where the project's programs are, by the names that they have in guests.
    programs: PathBuf,
}

impl Host {
    /// Makes the device `rxe0`.
    pub(crate) fn up(cache: &Path, artifacts: &[Artifact]) -> Result<Self> {
        install::soft_roce()?;
        let programs = cache.join("host");
        std::fs::create_dir_all(&programs).context(|| format!("making {}", programs.display()))?;
        for artifact in artifacts {
            let link = programs.join(&artifact.name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&artifact.path, &link)
                .context(|| format!("making {}", link.display()))?;
        }
        // Asked for by name when `rdma_rxe` starts; some kernels have it built in, which `modprobe` may call missing.
        let _ = as_root(&["modprobe", "crc32_generic"]);
        for module in ["rdma_rxe", "rdma_ucm", "ib_uverbs", "dummy"] {
            as_root(&["modprobe", module]).map_err(|failure| {
                let way_out = "use a kernel that has soft-RoCE, or leave out --host for emulated machines";
                Failure::new(format!("this host's kernel cannot have soft-RoCE: {failure}; {way_out}"))
            })?;
        }
        if Path::new("/sys/class/infiniband/rxe0").exists() {
            let why =
                "this host has a device rxe0 already, which is not touched: `rdma link delete rxe0` first";
            return Err(Failure::new(why.to_owned()));
        }
        let host = Self { programs };
        as_root(&["ip", "link", "add", CARD, "mtu", "9000", "type", "dummy"])?;
        as_root(&["ip", "address", "add", &format!("{ADDRESS}/24"), "dev", CARD])?;
        as_root(&["ip", "link", "set", CARD, "up"])?;
        as_root(&["rdma", "link", "add", "rxe0", "type", "rxe", "netdev", CARD])?;
        Ok(host)
    }
}

impl Machine for Host {
    fn address(&self) -> String {
        ADDRESS.to_owned()
    }

    fn run(&self, command: &str, limit: Duration) -> Result<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let seconds = limit.as_secs().max(1).to_string();
        let output = program("timeout", &["--signal=KILL", &seconds, "sh", "-c"])
            .arg(format!("exec 2>&1; {command}"))
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .output()
            .context(|| command.to_owned())?;
        let end = End::Exit(output.status.code().unwrap_or(137));
        Output { bytes: output.stdout, end }.success().context(|| command.to_owned())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = as_root(&["rdma", "link", "delete", "rxe0"]);
        let _ = as_root(&["ip", "link", "delete", CARD]);
    }
}

fn as_root(words: &[&str]) -> Result<()> {
    let root = succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]);
    let words = if root { words.to_vec() } else { [&["sudo", "-n"], words].concat() };
    let output = program(words[0], &words[1..]).output().context(|| words.join(" "))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{}: {}", words.join(" "), errors.trim())))
}
