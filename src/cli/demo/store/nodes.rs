//! The two nodes: processes of this very program, their configurations, and what an operator does with them.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mirrorbus::Deadline;
use mirrorbus::serve::admin::{
    AdminClient, DatasetStatus, DiskState, ReplicationState, Reply, Request, Role,
};
use mirrorbus::serve::config::new_dataset_id;

use super::super::scratch::Scratch;
use super::process::{PATIENCE, Process};
use super::writer;

/// What the dataset is called.
const DATASET: &str = "demo";
/// The volume of the image.
pub(super) const DISK: &str = "disk";
/// The volume of the second writer.
pub(super) const LEDGER: &str = "ledger";

/// The ring of each node: it must reach back over all that is written while one is away.
const REGION: &str = "128MiB";
const SEGMENT: &str = "8MiB";

/// Between two looks at a node's status.
const LOOK_TIME: Duration = Duration::from_millis(10);

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Second,
}

impl Which {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::First => "alpha",
            Self::Second => "beta",
        }
    }
}

/// Both.
#[derive(Debug)]
pub(super) struct Nodes {
    scratch: Arc<Scratch>,
    /// Where files of this run are.
    directory: PathBuf,
    processes: [Option<Process>; 2],
}

impl Nodes {
    /// Writes their configurations into a directory of `scratch`, for the medium `fabric`; none is started.
    ///
    /// # Errors
    /// The files cannot be written, or there is no free port.
    pub(super) fn new(scratch: &Arc<Scratch>, fabric: &str, disk_bytes: u64) -> Result<Self, String> {
        let directory = scratch.path(fabric);
        let made = || -> io::Result<()> {
            std::fs::create_dir(&directory)?;
            let id = new_dataset_id()?;
            let urls = [url(&directory, fabric, Which::First)?, url(&directory, fabric, Which::Second)?];
            for (which, urls) in [(Which::First, [&urls[0], &urls[1]]), (Which::Second, [&urls[1], &urls[0]])]
            {
                let text = config(scratch, &directory, which, urls, &id.to_string(), disk_bytes);
                std::fs::write(directory.join(format!("{}.toml", which.name())), text)?;
            }
            Ok(())
        };
        made().map_err(|error| format!("the nodes' configurations in {}: {error}", directory.display()))?;
        Ok(Self { scratch: scratch.clone(), directory, processes: [None, None] })
    }

    /// Starts one; on return it can be asked.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(&mut self, which: Which) -> Result<(), String> {
        let config = self.path(which, "toml");
        let words = [OsStr::new("demo-node"), OsStr::new("--config"), config.as_os_str()];
        let mut process = self.program(which.name(), &words)?;
        loop {
            match process.piece()? {
                Some(piece) if piece.starts_with("node ") => break,
                Some(_) => {}
                None => {
                    process.end()?.in_good_order()?;
                    return Err(format!("the node {} ended before it ran", which.name()));
                }
            }
        }
        self.processes[which as usize] = Some(process);
        Ok(())
    }

    /// Kills one, with SIGKILL.
    pub(super) fn kill(&mut self, which: Which) {
        if let Some(process) = self.processes[which as usize].take() {
            process.kill();
        }
    }

    /// `mirrorbus promote`, as an operator does it.
    ///
    /// # Errors
    /// The node refuses.
    pub(super) fn promote(&self, which: Which) -> Result<(), String> {
        let admin = self.path(which, "admin");
        let words = [OsStr::new("promote"), OsStr::new("--admin"), admin.as_os_str(), OsStr::new(DATASET)];
        self.program("mirrorbus promote", &words)?.end()?.in_good_order()
    }

    /// Waits until the two are mirrored; the one that serves.
    ///
    /// # Errors
    /// They are not in time. Says how they are.
    pub(super) fn mirrored(&self) -> Result<Which, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (first, second) = (self.status(Which::First)?, self.status(Which::Second)?);
            for (which, serving, following) in
                [(Which::First, &first, &second), (Which::Second, &second, &first)]
            {
                if is_mirrored(serving, Role::Primary) && is_mirrored(following, Role::Secondary) {
                    return Ok(which);
                }
            }
            if Instant::now() >= until {
                let (first, second) = (describe(&first), describe(&second));
                return Err(format!("not mirrored within {PATIENCE:?}: alpha is {first}; beta is {second}"));
            }
            std::thread::sleep(LOOK_TIME);
        }
    }

    /// The NBD socket of one.
    pub(super) fn socket(&self, which: Which) -> PathBuf {
        self.path(which, "nbd")
    }

    /// The address of the image's volume at one, for `qemu-img`.
    pub(super) fn disk_url(&self, which: Which) -> String {
        format!("nbd+unix:///{DISK}?socket={}", encoded(&self.socket(which)))
    }

    fn status(&self, which: Which) -> Result<DatasetStatus, String> {
        let failed = |why: String| format!("the node {} does not say how it is: {why}", which.name());
        let deadline = Deadline::within(PATIENCE);
        let client = AdminClient::connect(&self.path(which, "admin"), deadline);
        let reply = client.and_then(|mut client| client.ask(&Request::Status {}, deadline));
        match reply.map_err(|error| failed(error.to_string()))? {
            Reply::Status(mut status) => status.datasets.pop().ok_or_else(|| failed("no dataset".into())),
            other => Err(failed(format!("{other:?}"))),
        }
    }

    fn path(&self, which: Which, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", which.name()))
    }

    /// Starts this very program again.
    fn program(&self, name: &'static str, words: &[&OsStr]) -> Result<Process, String> {
        let start = || {
            let mut command = Command::new(std::env::current_exe()?);
            if std::env::var_os("RUST_LOG").is_none() {
                // A node that is killed is an alarm elsewhere; here it is the point.
                command.env("RUST_LOG", "error");
            }
            Process::start(name, &self.scratch, command.args(words))
        };
        start().map_err(|error| format!("{name} does not start: {error}"))
    }
}

fn is_mirrored(status: &DatasetStatus, role: Role) -> bool {
    status.role == role
        && status.replication_state == ReplicationState::Established
        && status.disk_state == DiskState::UpToDate
}

fn describe(status: &DatasetStatus) -> String {
    let DatasetStatus { role, disk_state, replication_state, reason, .. } = status;
    format!("{role}, {disk_state}, {replication_state} ({})", reason.text)
}

/// Where a node listens to the other.
fn url(directory: &Path, fabric: &str, which: Which) -> io::Result<String> {
    if fabric == "shm" {
        return Ok(format!("shm:{}", directory.join(format!("{}.ring", which.name())).display()));
    }
    // Free now, and likely still when the node starts: the system gives such ports in turn.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(format!("{fabric}://127.0.0.1:{port}"))
}

fn config(
    scratch: &Scratch,
    directory: &Path,
    which: Which,
    [listen, peer]: [&String; 2],
    id: &str,
    disk_bytes: u64,
) -> String {
    let name = which.name();
    let path = |kind: &str| quoted(&directory.join(format!("{name}.{kind}")).to_string_lossy());
    let nbd = format!("unix:{}", directory.join(format!("{name}.nbd")).display());
    let (key, ledger_bytes) = (scratch.path("key"), writer::VOLUME_BYTES);
    format!(
        "[node]\nname = \"{name}\"\nadmin = {admin}\n\n\
         [[dataset]]\nname = \"{DATASET}\"\nid = \"{id}\"\ndirectory = {files}\nkey = {key}\n\
         listen = {listen}\npeer = {peer}\nregion = \"{REGION}\"\nsegment = \"{SEGMENT}\"\nlock = \"try\"\n\
         nbd = [{nbd}]\n\n\
         [[dataset.volume]]\nname = \"{DISK}\"\nsize = {disk_bytes}\n\n\
         [[dataset.volume]]\nname = \"{LEDGER}\"\nsize = {ledger_bytes}\n",
        admin = path("admin"),
        files = path("files"),
        key = quoted(&key.to_string_lossy()),
        listen = quoted(listen),
        peer = quoted(peer),
        nbd = quoted(&nbd),
    )
}

/// A text of TOML; one of JSON is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A path within a URL.
fn encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.as_os_str().as_encoded_bytes().iter().copied().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use mirrorbus::serve::config::NodeConfig;

    use super::*;

    #[test]
    fn the_configurations_are_right_and_match() {
        let scratch = Arc::new(Scratch::new("nodes \"odd\"").expect("a directory"));
        for fabric in ["shm", "tcp"] {
            let nodes = Nodes::new(&scratch, fabric, 64 << 20).expect("written");
            let load = |which| NodeConfig::load(&nodes.path(which, "toml")).expect("right");
            let (first, second) = (load(Which::First), load(Which::Second));
            let (first, second) = (&first.datasets[0], &second.datasets[0]);
            assert_eq!((&first.listen, &first.peer), (&second.peer, &second.listen));
            assert_eq!((first.id, first.volumes.len()), (second.id, 2));
        }
        assert_eq!(encoded(Path::new("/a b/é?.nbd")), "/a%20b/%C3%A9%3F.nbd");
    }
}
