//! What `mirrorbus-bench store` says. How fast anything is, is not tested: a run of half a second on a busy machine tells nothing about it.

use std::process::Command;

#[test]
fn the_latency_of_a_write_is_told_beside_that_of_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    for (fabric, depth) in [("shm", "1"), ("shm", "16"), ("tcp", "1")] {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_mirrorbus-bench"));
        bench.args(["store", "--fabric", fabric, "--depth", depth, "--seconds", "0.3", "--empty"]);
        bench.args(["--volume", "16M", "--ring", "32M", "--directory"]).arg(directory.path());
        let output = bench.arg("--json").arg(&json).output().unwrap();
        // 3: measured, and the machine was too unsteady.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
        let table = String::from_utf8(output.stdout).unwrap();
        for line in ["\nmessages ", "\nrate / messages", "\np50 / messages"] {
            assert!(table.contains(line), "{line:?} is not in\n{table}");
        }
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        for key in
            ["/ratio/p50_messages/median", "/ratio/rate_messages/low", "/messages/p50_ns", "/store/p50_ns"]
        {
            assert!(
                report.pointer(key).and_then(serde_json::Value::as_f64).is_some_and(|found| found > 0.0),
                "{key}"
            );
        }
    }
}
