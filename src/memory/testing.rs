//! Tests that need a process of their own: lowered limits, signals, death.

use std::process::{Command, Output};

/// Names the test that the child is to run.
const CHILD: &str = "MIRRORBUS_TEST_CHILD";

/// Runs `body` in a child process, which is this test program asked for the test `name` alone; panics when the child
/// fails. The test calls this and nothing else, for in the child it is the same call that runs `body`.
pub(super) fn in_child(name: &str, body: impl FnOnce()) {
    let Some(output) = run_child(name, body) else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}:\n{text}\n{errors}", output.status);
}

/// As above, giving the outcome; `None` in the child, when `body` has returned.
pub(super) fn run_child(name: &str, body: impl FnOnce()) -> Option<Output> {
    if std::env::var(CHILD).is_ok_and(|wanted| wanted == name) {
        body();
        return None;
    }
    let program = std::env::current_exe().expect("the test program");
    let arguments = ["--exact", name, "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(arguments).env(CHILD, name).output().expect("starting the child");
    Some(output)
}
