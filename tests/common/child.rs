//! Tests that need a process of their own: lowered limits, counted descriptors, a holder that is killed.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mirrorbus::FabricUrl;

/// Names the test that the child is to run.
const CHILD: &str = "MIRRORBUS_TEST_CHILD";

/// Runs `body` in a child process, which is this test program asked for the test `name` alone; panics when the child
/// fails. The test calls this and nothing else, for in the child it is the same call that runs `body`.
pub fn in_child(name: &str, body: impl FnOnce()) {
    if std::env::var(CHILD).is_ok_and(|wanted| wanted == name) {
        return body();
    }
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", name, "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(arguments).env(CHILD, name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}:\n{text}\n{errors}", output.status);
}

/// `mirrorbus hold` as a process, killed on drop.
#[derive(Debug)]
pub struct HoldProcess {
    pub child: Child,
    pub url: FabricUrl,
}

impl HoldProcess {
    /// Starts `command`, which is or ends in a `mirrorbus hold`, and reads where it listens.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.strip_prefix("listening on ") else {
            let status = child.wait();
            panic!("the holder did not start ({status:?}): {line:?}");
        };
        Self { url: url.trim().parse().unwrap(), child }
    }

    /// The usual arguments.
    pub fn command(program: &mut Command, listen: &FabricUrl, size: usize, key: &Path, file: &Path) {
        program
            .arg("hold")
            .args(["--listen", &listen.to_string(), "--size", &size.to_string(), "--mlock", "off"])
            .arg("--key")
            .arg(key)
            .arg("--file")
            .arg(file);
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for HoldProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
