//! A mediator on this host: outside of both guests, as it has to be, and reached by a network card of its own.

use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader, PipeWriter};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::failure::{Context, Failure, Result};
use crate::shell::run;

use super::qemu::GUARD;

/// The process. It ends with this, or with this process in whatever way.
#[derive(Debug)]
pub(crate) struct Mediator {
    guard: Child,
    /// While it is open the mediator runs.
    power: Option<PipeWriter>,
    port: u16,
    directory: PathBuf,
}

impl Mediator {
    /// Starts one that knows of nothing, with its files in `directory`; it listens on return.
    pub(crate) fn start(program: &Path, directory: &Path) -> Result<Self> {
        let what = || format!("a mediator in {}", directory.display());
        let _ = fs::remove_dir_all(directory);
        DirBuilder::new().mode(0o700).create(directory).context(what)?;
        let free = TcpListener::bind("127.0.0.1:0").context(what)?;
        let port = free.local_addr().context(what)?.port();
        drop(free);
        let (ends, power) = std::io::pipe().context(what)?;
        run(Command::new(program).arg("keygen").arg(directory.join("key")))?;
        DirBuilder::new().mode(0o700).create(directory.join("state")).context(what)?;
        let log = File::create(directory.join("log")).context(what)?;
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "sh"]).arg(program).args(["mediator", "--listen"]);
        guard.arg(format!("tcp://127.0.0.1:{port}")).arg("--key").arg(directory.join("key"));
        guard.arg("--directory").arg(directory.join("state")).env("RUST_LOG", "info");
        guard.stdin(ends).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut guard = guard.spawn().context(what)?;
        let mut line = String::new();
        let mut output = BufReader::new(guard.stdout.take().expect("it is piped"));
        output.read_line(&mut line).context(what)?;
        // It is not to find its output closed.
        guard.stdout = Some(output.into_inner());
        let mediator = Self { guard, power: Some(power), port, directory: directory.to_owned() };
        if line.starts_with("listening on ") {
            return Ok(mediator);
        }
        let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
        Err(Failure::new(format!("the mediator does not start: {line:?} {log}")))
    }

    /// Where the guests reach it.
    pub(crate) fn url(&self) -> String {
        format!("tcp://10.0.2.2:{}", self.port)
    }

    /// The file with its key.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.join("key")
    }
}

impl Drop for Mediator {
    fn drop(&mut self) {
        drop(self.power.take());
        let _ = self.guard.wait();
    }
}
