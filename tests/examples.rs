//! The examples do what they say: each runs as a user would run it, and its output is read.
//!
//! They are built here, by the cargo that runs this test and into its folder: `cargo test` builds examples only when no
//! target is chosen, and as test programs when they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The folder of the built examples.
fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/PROFILE/deps/examples-HASH
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap();
        let profile = match folder.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => "dev",
            other => other,
        };
        // As this test was built: a machine without the libraries of verbs cannot build them otherwise.
        let features: &[&str] = if cfg!(feature = "rdma") { &[] } else { &["--no-default-features"] };
        let mut cargo = Command::new(env!("CARGO"));
        // What it has put into our environment some build scripts look at: their crates, and the library on top
        // of them, would be built anew, here and by whoever builds next.
        let outer = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "OUT_DIR" || outer.iter().any(|beginning| text.starts_with(beginning)) {
                cargo.env_remove(&name);
            }
        }
        let Output { status, stderr, .. } = cargo
            .args(["build", "--package", "mirrorbus", "--examples", "--profile", profile])
            .args(features)
            .arg("--target-dir")
            .arg(folder.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        folder.join("examples")
    })
}

fn run(name: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        Command::new(examples().join(name)).args(arguments).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{name} {arguments:?}: {status}\n{stdout}\n{stderr}");
    stdout
}

/// The number in front of ` what`.
fn number_before(output: &str, what: &str) -> u64 {
    let before = output.split(what).next().filter(|before| before.len() < output.len());
    let before = before.unwrap_or_else(|| panic!("{what:?} is not in {output:?}"));
    before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn map_and_mirror_over_tcp_and_over_shared_memory() {
    let socket = std::env::temp_dir().join(format!("mirrorbus-example-01-{}.sock", std::process::id()));
    let shm = format!("shm:{}", socket.display());
    for url in ["tcp://127.0.0.1:0", "tcp://127.0.0.1:0?encrypt=1", &shm] {
        let output = run("01_map_and_mirror", &[url]);
        assert!(output.contains("stores to 3 are visible, among them store 1"), "{output}");
        assert!(output.contains("local:  \"first and second\""), "{output}");
        assert!(output.contains("holder: \"first and second\""), "{output}");
        assert!(output.contains("not durable: Durable is not supported here"), "{output}");
    }
    assert!(!socket.exists(), "the holder removes its socket");
}

#[test]
fn many_threads_leave_equal_copies() {
    let output = run("02_many_threads", &[]);
    assert_eq!(number_before(&output, " stores through one shared lane"), 8_000, "{output}");
    let (requests, doorbells) =
        (number_before(&output, " requests and"), number_before(&output, " doorbells"));
    assert!((1..=16_000).contains(&requests) && (1..=16_000).contains(&doorbells), "{output}");
    assert!(output.contains("both copies are equal: true"), "{output}");
}

#[test]
fn every_acknowledged_record_survives_the_owner() {
    let output = run("03_survive_the_owners_death", &[]);
    let acknowledged = number_before(&output, " records as acknowledged");
    let found = number_before(&output, " whole records");
    assert!(acknowledged >= 2_000 && found >= acknowledged, "{output}");
    assert!(output.contains("signal: 9"), "{output}");
    assert!(output.contains("nothing lies behind them"), "{output}");
    assert_eq!(number_before(&format!("{}|", output.trim_end()), "|"), found + 1, "{output}");
}

#[test]
fn plain_stores_are_mirrored_by_epochs() {
    let output = run("04_epochs", &[]);
    let (changed, shipped) = (number_before(&output, " bytes changed"), number_before(&output, " shipped"));
    assert!(changed > 4000 && shipped <= changed + 64 + 16 * number_before(&output, " ranges"), "{output}");
    assert!(output.contains("taken over: epoch 1, the first counter is 0"), "{output}");
}
