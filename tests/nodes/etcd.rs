//! etcd in place of a mediator: the server of Debian, one member, in a directory that ends with the test.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process, while there is one. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    child: Option<Child>,
    /// Where it listens: an address and a port, for clients and, which there are none of, for other members.
    pub(crate) address: String,
    peers: String,
    directory: PathBuf,
    log: PathBuf,
    /// Files of TLS: its certificate, its key, who signed it and its clients.
    tls: Option<[PathBuf; 3]>,
}

fn free_address() -> String {
    format!("127.0.0.1:{}", crate::common::free_port())
}

impl Etcd {
    /// One that does not run yet, with its files in `scratch`.
    pub(crate) fn new(scratch: &Path) -> Self {
        let path = |ending: &str| scratch.join("etcd").with_extension(ending);
        let (address, peers) = (free_address(), free_address());
        Self { child: None, address, peers, directory: path("d"), log: path("log"), tls: None }
    }

    /// The same, asked by TLS only, and only by those with a certificate.
    pub(crate) fn with_tls(mut self, files: [PathBuf; 3]) -> Self {
        self.tls = Some(files);
        self
    }

    /// Where it is asked.
    pub(crate) fn url(&self) -> String {
        format!("http{}://{}", if self.tls.is_some() { "s" } else { "" }, self.address)
    }

    fn command(&self) -> Command {
        let there =
            Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let is_there = there.is_ok_and(|status| status.success());
        assert!(is_there, "etcd is missing: apt-get install etcd-server, or `cargo xtask test`");
        let (url, peers) = (self.url(), format!("http://{}", self.peers));
        let mut command = Command::new("etcd");
        command.args(["--name", "one", "--log-level", "warn", "--data-dir"]).arg(&self.directory);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("one={peers}")]);
        // It is alone, and need not wait for others at its start.
        command.args(["--heartbeat-interval", "20", "--election-timeout", "200"]);
        if let Some([certificate, key, ca]) = &self.tls {
            command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
            command.arg("--trusted-ca-file").arg(ca).arg("--client-cert-auth");
        }
        command
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        assert!(self.child.replace(command.spawn().unwrap()).is_none(), "it runs");
        let began = Instant::now();
        while !self.is_ready() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "etcd does not start: {ended:?}\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_ready(&self) -> bool {
        if self.tls.is_some() {
            // Whoever asks by TLS finds out.
            return TcpStream::connect(&self.address).is_ok();
        }
        get(&self.address, "/health").is_some_and(|answer| answer.contains("\"health\":\"true\""))
    }

    /// Asks it something, as nobody; the whole answer.
    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        exchange(&self.address, request.as_bytes()).unwrap()
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// It has lost all that it knew. It must not run.
    pub(crate) fn forget(&self) {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(&self.directory).unwrap();
    }

    /// Where its data is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn get(address: &str, path: &str) -> Option<String> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Sends a request; all that comes back.
pub(crate) fn exchange(address: &str, request: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
