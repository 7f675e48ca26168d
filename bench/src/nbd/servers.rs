//! The servers: started, named by a URI, ended when dropped.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::options::NbdOptions;
use crate::Failure;

/// How long a server may take to come up.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks whether it did.
const LOOK: Duration = Duration::from_millis(20);

/// A server of one volume.
pub(super) trait Server {
    fn name(&self) -> &'static str;
    /// Where fio finds it.
    fn uri(&self) -> &str;
    /// Whether reading from it says anything.
    fn reads(&self) -> bool {
        true
    }
}

/// A process that ends with this value.
#[derive(Debug)]
struct Running(Child);

impl Running {
    fn start(program: &Path, package: &str, arguments: &[String], log: &Path) -> Result<Self, Failure> {
        let log_file = std::fs::File::create(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .map_err(|error| format!("cannot run {} ({error}): install {package}", program.display()))?;
        Ok(Self(child))
    }

    /// Waits until a socket is there.
    fn listens(&mut self, socket: &Path, log: &Path) -> Result<(), Failure> {
        let began = Instant::now();
        while UnixStream::connect(socket).is_err() {
            let ended = self.0.try_wait()?;
            if ended.is_some() || began.elapsed() > READY_WITHIN {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("nobody listens at {} ({ended:?}): {log}", socket.display()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What ours counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written_bytes: u64,
    pub(super) destaged_bytes: u64,
}

/// Two nodes on this machine, mirrored over shared memory.
#[derive(Debug)]
pub(super) struct Mirrorbus {
    _nodes: [Running; 2],
    program: PathBuf,
    admin: PathBuf,
    uri: String,
}

impl Mirrorbus {
    /// # Errors
    /// The program is missing, or the two do not find each other.
    pub(super) fn start(options: &NbdOptions, directory: &Path) -> Result<Self, Failure> {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("mirrorbus"),
        };
        let key = directory.join("key");
        let made = Command::new(&program).arg("keygen").arg(&key).output();
        let made = made.map_err(|error| {
            format!("cannot run {} ({error}): build it, or name it by --program", program.display())
        })?;
        if !made.status.success() {
            return Err(format!("keygen: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let start = |name: &str, other: &str| -> Result<Running, Failure> {
            let config = directory.join(format!("{name}.toml"));
            std::fs::write(&config, config_of(options, directory, name, other)?)?;
            let arguments = ["node".to_owned(), "--config".to_owned(), config.display().to_string()];
            let log = directory.join(format!("{name}.log"));
            let mut node = Running::start(&program, "mirrorbus", &arguments, &log)?;
            node.listens(&directory.join(format!("{name}.admin")), &log)?;
            Ok(node)
        };
        let nodes = [start("alpha", "beta")?, start("beta", "alpha")?];
        let uri = format!("nbd+unix:///bench?socket={}", directory.join("alpha.nbd").display());
        let ours = Self { _nodes: nodes, program, admin: directory.join("alpha.admin"), uri };
        let began = Instant::now();
        loop {
            let dataset = ours.status()?;
            if dataset["role"] == "Primary" && dataset["replication_state"] == "Established" {
                return Ok(ours);
            }
            if began.elapsed() > READY_WITHIN {
                return Err(
                    format!("the two nodes are not mirrored within {READY_WITHIN:?}: {dataset}").into()
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    fn status(&self) -> Result<Value, Failure> {
        let output =
            Command::new(&self.program).args(["status", "--json", "--admin"]).arg(&self.admin).output()?;
        if !output.status.success() {
            return Err(format!("status: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let mut status: Value = serde_json::from_slice(&output.stdout)?;
        Ok(status["datasets"][0].take())
    }

    /// # Errors
    /// The node does not answer.
    pub(super) fn counts(&self) -> Result<Counts, Failure> {
        let status = self.status()?;
        let number = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
        Ok(Counts { written_bytes: number("write_bytes"), destaged_bytes: number("destaged_bytes") })
    }
}

fn config_of(options: &NbdOptions, directory: &Path, name: &str, other: &str) -> Result<String, Failure> {
    let at = |file: &str| directory.join(file).display().to_string();
    // The first of two new nodes by name serves.
    let mut text = String::new();
    write!(
        text,
        "[node]\nname = {name:?}\nadmin = {:?}\n\n[[dataset]]\nname = \"bench\"\nid = \"00112233445566778899aabbccddeeff\"\n\
         directory = {:?}\nkey = {:?}\nlisten = \"shm:{}\"\npeer = \"shm:{}\"\nregion = \"{}\"\nsegment = \"16MiB\"\n\
         durability = \"memory\"\nlock = \"try\"\nnbd = [{:?}]\n\n[[dataset.volume]]\nname = \"bench\"\nsize = \"{}\"\nblock = 4096\n",
        at(&format!("{name}.admin")),
        at(name),
        at("key"),
        at(&format!("{name}.sock")),
        at(&format!("{other}.sock")),
        options.ring,
        format!("unix:{}", at(&format!("{name}.nbd"))),
        options.volume,
    )?;
    Ok(text)
}

impl Server for Mirrorbus {
    fn name(&self) -> &'static str {
        "mirrorbus"
    }

    fn uri(&self) -> &str {
        &self.uri
    }
}

/// nbdkit's memory plugin: nothing is replicated, nothing destaged.
#[derive(Debug)]
pub(super) struct Nbdkit {
    _server: Running,
    uri: String,
}

impl Nbdkit {
    /// # Errors
    /// It is missing.
    pub(super) fn start(options: &NbdOptions, directory: &Path) -> Result<Self, Failure> {
        let (socket, log) = (directory.join("nbdkit.sock"), directory.join("nbdkit.log"));
        let arguments = [
            "--foreground".to_owned(),
            "--unix".to_owned(),
            socket.display().to_string(),
            "memory".to_owned(),
            format!("size={}", options.volume),
        ];
        let mut server = Running::start(Path::new("nbdkit"), "package nbdkit", &arguments, &log)?;
        server.listens(&socket, &log)?;
        Ok(Self { _server: server, uri: format!("nbd+unix://?socket={}", socket.display()) })
    }
}

impl Server for Nbdkit {
    fn name(&self) -> &'static str {
        "nbdkit memory"
    }

    fn uri(&self) -> &str {
        &self.uri
    }
}

/// A qemu-storage-daemon that mirrors each write to a second one before it acknowledges it.
#[derive(Debug)]
pub(super) struct Qemu {
    _daemons: [Running; 2],
    uri: String,
}

impl Qemu {
    /// # Errors
    /// It is missing, or does not begin to mirror.
    pub(super) fn start(options: &NbdOptions, directory: &Path) -> Result<Self, Failure> {
        let at = |file: &str| directory.join(file);
        let daemon = |name: &str, more: &[String]| -> Result<Running, Failure> {
            let image = at(&format!("qemu-{name}.img"));
            std::fs::File::create(&image)?.set_len(options.volume)?;
            let socket = at(&format!("qemu-{name}.sock"));
            let mut arguments = vec![
                "--blockdev".to_owned(),
                format!("driver=file,node-name=disk,filename={}", image.display()),
                "--nbd-server".to_owned(),
                format!("addr.type=unix,addr.path={}", socket.display()),
                "--export".to_owned(),
                "type=nbd,id=export,node-name=disk,name=bench,writable=on".to_owned(),
            ];
            arguments.extend_from_slice(more);
            let log = at(&format!("qemu-{name}.log"));
            let program = Path::new("qemu-storage-daemon");
            let mut daemon = Running::start(program, "package qemu-system-common", &arguments, &log)?;
            daemon.listens(&socket, &log)?;
            Ok(daemon)
        };
        let second = daemon("b", &[])?;
        let monitor = at("qemu.monitor");
        let first = daemon(
            "a",
            &[
                "--blockdev".to_owned(),
                format!(
                    "driver=nbd,node-name=peer,export=bench,server.type=unix,server.path={}",
                    at("qemu-b.sock").display()
                ),
                "--chardev".to_owned(),
                format!("socket,id=monitor,server=on,wait=off,path={}", monitor.display()),
                "--monitor".to_owned(),
                "chardev=monitor".to_owned(),
            ],
        )?;
        mirror(&monitor)?;
        let uri = format!("nbd+unix:///bench?socket={}", at("qemu-a.sock").display());
        Ok(Self { _daemons: [first, second], uri })
    }
}

/// Begins to mirror, and waits until both disks are the same.
fn mirror(monitor: &Path) -> Result<(), Failure> {
    let stream = UnixStream::connect(monitor)?;
    stream.set_read_timeout(Some(READY_WITHIN))?;
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
    let mut ask = |command: Value| -> Result<(), Failure> {
        writeln!(writer, "{command}")?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                return Err(format!("qemu-storage-daemon: {command}: {error}").into());
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    };
    ask(json!({ "execute": "qmp_capabilities" }))?;
    ask(json!({ "execute": "blockdev-mirror", "arguments": {
        "job-id": "mirror", "device": "disk", "target": "peer", "sync": "full", "copy-mode": "write-blocking" } }))?;
    let began = Instant::now();
    while began.elapsed() < READY_WITHIN {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if serde_json::from_str::<Value>(&line)?["event"] == "BLOCK_JOB_READY" {
            return Ok(());
        }
    }
    Err(format!("qemu-storage-daemon does not mirror within {READY_WITHIN:?}").into())
}

impl Server for Qemu {
    fn name(&self) -> &'static str {
        "qemu mirror"
    }

    fn uri(&self) -> &str {
        &self.uri
    }

    fn reads(&self) -> bool {
        false // it reads its own disk
    }
}
