//! Programs in C and C++ as users build them: against what `cargo xtask install` installed, by what pkg-config says, and run.

#[path = "programs/rig.rs"]
mod rig;
#[path = "programs/sqlite.rs"]
mod sqlite;

use std::process::Command;

use rig::{Compiled, Program, installed, run};

/// The media that a process of this machine reaches another by.
fn urls(name: &str) -> [String; 3] {
    let socket = installed().work.join(format!("{name}.sock"));
    [
        "tcp://127.0.0.1:0".to_owned(),
        "tcp://127.0.0.1:0?encrypt=1".to_owned(),
        format!("shm:{}", socket.display()),
    ]
}

fn counter(program: &Program) {
    urls(&program.name).iter().for_each(|url| counter_at(program, url));
}

fn counter_at(program: &Program, url: &str) {
    let said = run(program, &[url, &installed().key()]);
    assert!(said.contains("4000 stores are visible at the holder"), "{said}");
    for (index, count) in [1000, 2000, 3000, 4000].iter().enumerate() {
        assert!(said.contains(&format!("copy: counter {index} is {count}\n")), "{said}");
    }
}

fn append_log(program: &Program, records: u64) {
    for url in urls(&program.name) {
        let said = run(program, &[&url, &installed().key(), &records.to_string()]);
        let numbers: Vec<u64> =
            said.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        assert!(numbers.len() == 2 && numbers[0] >= records && numbers[1] >= numbers[0], "{said}");
    }
}

fn epochs(program: &Program, commits: u64) {
    for url in urls(&program.name) {
        let said = run(program, &[&url, &installed().key(), &commits.to_string()]);
        let (_, numbers) = said.rsplit_once("acknowledged ").unwrap_or_else(|| panic!("{said}"));
        let numbers: Vec<u64> =
            numbers.split(", found ").map(|number| number.trim().parse().unwrap()).collect();
        assert!(numbers.len() == 2 && numbers[0] >= commits && numbers[1] >= numbers[0], "{said}");
        assert!(said.contains(", 20000000 in all accounts"), "{said}");
    }
}

fn volume(program: &Program) {
    let folder = tempfile::tempdir_in(&installed().work).unwrap();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let shm = ["a", "b"].map(|name| format!("shm:{}", path(name)));
    let tcp = [port(), port()].map(|port| format!("tcp://127.0.0.1:{port}"));
    for (name, [alpha, beta]) in [("shm", shm), ("tcp", tcp)] {
        std::fs::create_dir(path(name)).unwrap();
        let said = run(program, &[&path(name), &installed().key(), &alpha, &beta]);
        assert!(said.contains("16 writes are in both memories\nand on both disks\n"), "{said}");
        assert!(said.contains("the other node serves, and has all of it"), "{said}");
    }
}

#[test]
fn counters_are_in_the_other_process() {
    counter(&rig::compile("counter.c", Compiled::Shared));
}

/// Each side a program of its own, as on two machines.
#[test]
fn examples_run_as_two_programs() {
    let (counter, bank) =
        (rig::compile("counter.c", Compiled::Shared), rig::compile("epochs.c", Compiled::Shared));
    for url in urls("apart") {
        let (held, said) = rig::run_apart(&counter, &counter, &url, ("count", &[]));
        assert!(said.contains("4000 stores are visible at the holder"), "{said}");
        assert!(held.ends_with("copy: counter 3 is 4000\n"), "{held}");
        bank_apart(&bank, &bank, &url);
    }
}

fn bank_apart(hold: &Program, own: &Program, url: &str) {
    let (held, said) = rig::run_apart(hold, own, url, ("run", &["20"]));
    assert!(said.contains("acknowledged 20\n"), "{said}");
    assert!(held.contains("commit 20, 20000000 in all accounts\nfound 20\n"), "{held}");
}

#[test]
fn a_bank_is_balanced_when_it_is_killed() {
    epochs(&rig::compile("epochs.c", Compiled::Shared), 200);
}

#[test]
fn a_log_is_whole_when_its_writer_is_killed() {
    append_log(&rig::compile("append_log.c", Compiled::Shared), 500);
}

#[test]
fn a_volume_moves_to_the_other_node() {
    volume(&rig::compile("volume.cpp", Compiled::Shared));
}

#[test]
fn programs_can_have_the_library_in_them() {
    let program = rig::compile("counter.c", Compiled::Static);
    let needed = rig::said_by(Command::new("readelf").arg("-d").arg(&program.path));
    assert!(!needed.contains("libmirrorbus"), "{needed}");
    counter(&program);
}

#[test]
fn address_sanitizer_finds_nothing() {
    counter(&rig::compile("counter.c", Compiled::Sanitized));
    append_log(&rig::compile("append_log.c", Compiled::Sanitized), 200);
    epochs(&rig::compile("epochs.c", Compiled::Sanitized), 50);
    volume(&rig::compile("volume.cpp", Compiled::Sanitized));
}

#[test]
fn valgrind_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: examples in C under valgrind (it is not installed)");
        return;
    }
    let [tcp, _, shm] = urls("valgrind");
    counter_at(&rig::compile("counter.c", Compiled::Valgrind), &tcp);
    counter_at(&rig::compile("counter.c", Compiled::Valgrind), &shm);
    // Not its owner: valgrind does not deliver a SIGSEGV to the main thread's stack.
    let owner = rig::compile("epochs.c", Compiled::Shared);
    bank_apart(&rig::compile("epochs.c", Compiled::Valgrind), &owner, &shm);
}

#[test]
fn nothing_but_what_the_header_has_is_exported() {
    let library = installed().prefix.join("lib/libmirrorbus.so");
    let header = std::fs::read_to_string(installed().prefix.join("include/mirrorbus.h")).unwrap();
    let symbols = rig::said_by(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let names: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(names.len() >= 30, "{symbols}");
    for name in names {
        assert!(header.contains(&format!("{name}(")), "{name} is exported, and not in the header");
    }
    let dynamic = rig::said_by(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("Library soname: [libmirrorbus.so.0]"), "{dynamic}");
}

#[test]
fn everything_is_where_a_system_looks_for_it() {
    let prefix = &installed().prefix;
    for path in [
        "bin/mirrorbus",
        "bin/mirrorbus-bench",
        "include/mirrorbus.h",
        "lib/libmirrorbus.a",
        "lib/pkgconfig/mirrorbus.pc",
        "lib/systemd/system/mirrorbus-node@.service",
        "lib/systemd/system/mirrorbus-mediator.service",
        "share/man/man1/mirrorbus.1",
        "share/man/man1/mirrorbus-hold.1",
        "share/man/man1/mirrorbus-volume-create.1",
        "share/man/man1/mirrorbus-bench.1",
        "share/bash-completion/completions/mirrorbus",
        "share/bash-completion/completions/mirrorbus-bench",
        "share/zsh/site-functions/_mirrorbus",
        "share/fish/vendor_completions.d/mirrorbus.fish",
    ] {
        assert!(prefix.join(path).is_file(), "{path}");
    }
    let unit = std::fs::read_to_string(prefix.join("lib/systemd/system/mirrorbus-node@.service")).unwrap();
    assert!(unit.contains(&format!("ExecStart={}/bin/mirrorbus node", prefix.display())), "{unit}");
    let page = std::fs::read_to_string(prefix.join("share/man/man1/mirrorbus.1")).unwrap();
    assert!(page.contains("hold") && !page.contains("demo\\-hold"), "{page}");
    let completion = prefix.join("share/bash-completion/completions/mirrorbus");
    rig::said_by(Command::new("bash").arg("-n").arg(completion));
}
