//! The demonstration: it succeeds, its table adds up, and nothing is left of it, however it ends.
//!
//! That its proof can fail is shown beside the prover.

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
    let output = demo(&scratch, &["--bytes", "8M", "--tree", tree.0.to_str().unwrap()]).output().unwrap();
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
        let output = demo(&scratch, &["--bytes", "4M", "--fabric", "shm", "--seed", seed]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.starts_with("input: ") && text.contains("the project's source"), "{text}");
        let table = table(&text);
        assert_eq!(table["fabric"], ["shm"], "{text}");
        table["stores"][0].clone()
    };
    assert_ne!(stores("1"), stores("2"));
}

#[test]
fn nothing_is_left_when_it_is_ended_or_killed() {
    for (signal, code) in [(Signal::TERM, Some(128 + 15)), (Signal::INT, Some(128 + 2)), (Signal::KILL, None)]
    {
        let (scratch, tree) = (Scratch::new(), tree(64 << 20));
        let run = Program::of(demo(&scratch, &["--tree", tree.0.to_str().unwrap()]));
        run.line_after("shm: holder and owner run");
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
fn bad_arguments_are_refused() {
    let empty = Scratch::new();
    let path = empty.0.to_str().unwrap();
    for (arguments, part) in [
        (&["demo", "--bytes", "1K"][..], "2097152"),
        (&["demo", "--bytes", "lots"], "lots"),
        (&["demo", "--fabric", "rdma"], "rdma"),
        (&["demo", "--seed", "-1"], "-1"),
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
