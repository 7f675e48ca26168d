//! The demonstration: it succeeds, its tables add up, and nothing is left of it, however it ends.
//!
//! That its proofs can fail is shown beside the prover and the second writer. Its second part, the block store, needs `qemu-img`, `mke2fs` and `e2fsck`; where
//! one is missing its tests fail and name the package.

mod common;
#[path = "common/program.rs"]
mod program;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Scratch;
use program::{Program, command, refusal};
use rustix::process::Signal;

/// A demonstration whose temporary files lie in `scratch`.
fn demo(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = command(&[&["demo"], arguments].concat());
    command.env("TMPDIR", &scratch.0);
    command
}

/// A tree of files that is the same everywhere.
fn tree(bytes: usize) -> Scratch {
    let scratch = Scratch::new();
    for file in 0..16_u8 {
        let content: Vec<u8> = (0..bytes / 16).map(|at| (at / 7).to_le_bytes()[0] ^ file).collect();
        std::fs::write(scratch.path(&format!("file {file}")), content).unwrap();
    }
    scratch
}

/// The table's rows by their names, a value for each fabric.
fn table(output: &str) -> HashMap<String, Vec<String>> {
    let rows =
        output.lines().skip_while(|line| !line.starts_with("  fabric")).take_while(|line| !line.is_empty());
    rows.map(|row| {
        let mut cells = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned);
        (cells.next().unwrap(), cells.collect())
    })
    .collect()
}

/// The number before `unit`, or after it.
fn number(cell: &str, unit: &str) -> u64 {
    let words: Vec<_> = cell.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == unit).unwrap();
    let found = if unit == "byte" { words[at + 1] } else { words[at - 1] };
    found.parse().unwrap()
}

/// Processes that were told of `scratch`.
fn left_over(scratch: &Scratch) -> Vec<String> {
    let path = scratch.0.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(path))
        .collect()
}

fn files_in(scratch: &Scratch) -> usize {
    std::fs::read_dir(&scratch.0).unwrap().count()
}

#[test]
fn both_fabrics_hold_and_the_table_adds_up() {
    let (scratch, tree) = (Scratch::new(), tree(8 << 20));
    let arguments = ["--part", "region", "--bytes", "8M", "--tree", tree.0.to_str().unwrap()];
    let output = demo(&scratch, &arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let table = table(&text);
    assert_eq!(table["fabric"], ["shm", "tcp"], "{text}");
    for (column, fabric) in table["fabric"].iter().enumerate() {
        let cell = |row: &str| table[row][column].as_str();
        assert!(text.contains(&format!("{fabric}: holder proves all of it")), "{text}");
        assert_eq!(cell("files"), "16", "{text}");
        assert_eq!(cell("bytes"), "8388608 (8 MiB)", "{text}");
        let stores: u64 = cell("stores").parse().unwrap();
        let percent = number(cell("owner killed at"), "%");
        assert!((50..60).contains(&percent), "{text}");
        let (acknowledged, found) = (cell("acknowledged at the kill"), cell("found on the holder"));
        assert!(number(acknowledged, "byte") >= number(cell("owner killed at"), "byte"), "{text}");
        for unit in ["stores", "byte"] {
            assert!(number(acknowledged, unit) <= number(found, unit), "{text}");
        }
        assert!(number(found, "stores") < stores && number(found, "byte") < 8 << 20, "{text}");
        let (half_way, end) = cell("files proven").split_once(", in the end ").unwrap();
        assert!((1..16).contains(&half_way.parse::<u32>().unwrap()), "{text}");
        assert_eq!(end, "16 of 16", "{text}");
        assert!(cell("recovered in").ends_with(" ms") && cell("total").ends_with(" s"), "{text}");
    }
    assert!(text.lines().last().unwrap().starts_with("everything held"), "{text}");
    assert_eq!((files_in(&scratch), left_over(&scratch)), (0, Vec::new()));
}

/// The demonstration with its holder on another machine, which here is this one: the command runs what it is given.
fn demo_over(scratch: &Scratch, tree: &Scratch) -> Command {
    let path = tree.0.to_str().unwrap();
    let mut command = demo(scratch, &["--tree", path, "--listen", "tcp://127.0.0.1:0", "--over", "sh -c"]);
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_mirrorbus")).parent().unwrap().display();
    command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()));
    command
}

/// What a holder elsewhere had for its run.
fn elsewhere(of: u32) -> usize {
    let beginning = format!("mirrorbus-demo-{of}-");
    let entries = std::fs::read_dir("/tmp").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&beginning)).count()
}

#[test]
fn a_holder_elsewhere_holds() {
    let (scratch, tree) = (Scratch::new(), tree(4 << 20));
    let run = demo_over(&scratch, &tree).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = run.id();
    let output = run.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(table(&text)["fabric"], ["tcp"], "{text}");
    assert!(text.contains("tcp: holder proves all of it"), "{text}");
    assert_eq!((files_in(&scratch), elsewhere(process)), (0, 0));
}

#[test]
fn a_holder_elsewhere_ends_with_a_killed_parent() {
    let (scratch, tree) = (Scratch::new(), tree(64 << 20));
    let run = Program::of(demo_over(&scratch, &tree));
    let process = run.id();
    run.line_after("tcp: holder and owner run");
    assert_eq!(elsewhere(process), 1);
    run.signal(Signal::KILL);
    run.end();
    let until = Instant::now() + Duration::from_secs(20);
    while elsewhere(process) > 0 {
        assert!(Instant::now() < until, "its directory stays");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_default_input_is_there_and_another_seed_streams_otherwise() {
    let scratch = Scratch::new();
    let stores = |seed: &str| {
        let arguments = ["--part", "region", "--bytes", "4M", "--fabric", "shm", "--seed", seed];
        let output = demo(&scratch, &arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.starts_with("input: ") && text.contains("the project's source"), "{text}");
        let table = table(&text);
        assert_eq!(table["fabric"], ["shm"], "{text}");
        table["stores"][0].clone()
    };
    // Two may need as many stores by chance, four do not.
    let counts = ["1", "2", "3", "4"].map(stores);
    assert!(counts.iter().any(|count| *count != counts[0]), "{counts:?}");
}

/// Ends or kills a demonstration when it has printed a line that begins so.
fn nothing_is_left_after(line: &str, part: &str) {
    for (signal, code) in [(Signal::TERM, Some(128 + 15)), (Signal::INT, Some(128 + 2)), (Signal::KILL, None)]
    {
        let (scratch, tree) = (Scratch::new(), tree(64 << 20));
        let run = Program::of(demo(&scratch, &["--part", part, "--tree", tree.0.to_str().unwrap()]));
        run.line_after(line);
        run.signal(signal);
        let (status, errors) = run.end();
        assert_eq!(status.code(), code, "{signal:?}: {status}, {errors}");
        let until = Instant::now() + Duration::from_secs(20);
        while !left_over(&scratch).is_empty() {
            assert!(Instant::now() < until, "{signal:?} leaves {:?}", left_over(&scratch));
            std::thread::sleep(Duration::from_millis(5));
        }
        if signal != Signal::KILL {
            assert_eq!(files_in(&scratch), 0, "{signal:?}");
        }
    }
}

#[test]
fn nothing_is_left_when_it_is_ended_or_killed() {
    nothing_is_left_after("shm: holder and owner run", "region");
}

#[test]
fn nothing_is_left_of_two_nodes_when_it_is_ended_or_killed() {
    nothing_is_left_after("shm: two nodes are mirrored", "store");
}

#[test]
fn the_block_store_holds_over_both_fabrics() {
    let (scratch, tree) = (Scratch::new(), tree(16 << 20));
    let arguments = ["--part", "store", "--bytes", "16M", "--tree", tree.0.to_str().unwrap()];
    let output = demo(&scratch, &arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let table = table(&text);
    assert_eq!(table["fabric"], ["shm", "tcp"], "{text}");
    for (column, fabric) in table["fabric"].iter().enumerate() {
        let cell = |row: &str| table[row][column].as_str();
        assert_eq!(cell("image"), "53 MiB, 16 files, 16 MiB", "{text}");
        let percent = number(cell("primary killed at"), "%");
        assert!((50..100).contains(&percent), "{text}");
        let acknowledged = number(cell("acknowledged at the kill"), "writes");
        assert!(acknowledged >= 16, "{text}");
        assert_eq!(number(cell("found on the other node"), "writes"), acknowledged, "{text}");
        assert_eq!(cell("compare, e2fsck"), "identical, clean", "{text}");
        for (row, unit) in [("promoted in", " ms"), ("copied again in", " s"), ("mirrored again in", " ms")] {
            assert!(cell(row).ends_with(unit), "{text}");
        }
        assert!(text.contains(&format!("{fabric}: beta killed, alpha promoted: it has all of it")), "{text}");
    }
    assert!(text.lines().last().unwrap().starts_with("everything held"), "{text}");
    assert_eq!((files_in(&scratch), left_over(&scratch)), (0, Vec::new()));
}

#[test]
fn a_missing_tool_is_named_with_its_package_before_anything_is_shown() {
    let (scratch, tree, empty) = (Scratch::new(), tree(4 << 20), Scratch::new());
    let mut run = demo(&scratch, &["--tree", tree.0.to_str().unwrap()]);
    // System programs are looked for beside the path, too; qemu-img is none.
    let output = run.env("PATH", &empty.0).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("qemu-utils"), "{errors}");
    assert_eq!((output.stdout.len(), files_in(&scratch)), (0, 0));
}

#[test]
fn bad_arguments_are_refused() {
    let empty = Scratch::new();
    let path = empty.0.to_str().unwrap();
    for (arguments, part) in [
        (&["demo", "--bytes", "1K"][..], "2097152"),
        (&["demo", "--bytes", "lots"], "lots"),
        (&["demo", "--fabric", "rdma"], "rdma"),
        (&["demo", "--seed", "-1"], "-1"),
        (&["demo", "--part", "kernel"], "kernel"),
        (&["demo", "--part", "store", "--listen", "tcp://127.0.0.1:0"], "--listen"),
        (&["demo", "--tree", "/no/such/tree"], "/no/such/tree"),
        (&["demo", "--tree", path], path),
        (&["demo", "--over", "ssh nowhere"], "--listen"),
        (&["demo", "--listen", "carrier-pigeon:7"], "carrier-pigeon"),
        (
            &["demo", "--bytes", "4M", "--listen", "tcp://127.0.0.1:0", "--over", "false"],
            "the holder ended early",
        ),
    ] {
        let error = refusal(arguments);
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    std::fs::write(empty.path("small"), "not enough").unwrap();
    assert!(refusal(&["demo", "--tree", path]).contains("10 B"));
}
