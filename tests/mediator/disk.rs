//! What is on the disk, whatever happens to the process and to the disk.

use std::fs;
use std::process::Command;

use mirrorbus::base::DatasetId;
use mirrorbus::cluster::{ArbiterClient, Configuration, Request, Verdict};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::program::{command, refusal as program_refuses};
use crate::{AT_ONCE, PATIENCE, Rig, ask_and_leave, change, configuration, refusal, take};

const KILLS: u64 = 50;

#[test]
fn what_was_acknowledged_outlives_every_kill() {
    let mut rig = Rig::started(AT_ONCE);
    let mut id = 0;
    for round in 0..KILLS {
        let mut alpha = rig.client("alpha");
        assert_eq!(take(&mut alpha, &change(id, "alpha")), Verdict::Taken, "round {round}");
        id += 1;
        // One more is under way when it is killed.
        let next = change(id, "alpha");
        if round % 2 == 1 {
            ask_and_leave(&rig, &next);
        }
        rig.kill();
        rig.start(AT_ONCE);
        let found = rig.id();
        assert!(
            found == id || round % 2 == 1 && found == id + 1,
            "round {round}: {found}, acknowledged {id}"
        );
        let mut alpha = rig.client("alpha");
        if round % 2 == 1 {
            assert_eq!(take(&mut alpha, &next), Verdict::Taken, "round {round}");
            id += 1;
        }
        assert_eq!(alpha.read(id, PATIENCE).unwrap(), Some(configuration(id, "alpha")));
    }
    assert_eq!(id, KILLS + KILLS / 2);
}

/// A change of which the file needs more than 600 bytes.
fn large(expected: u64) -> Request {
    let members = vec!["alpha".to_owned(), "b".repeat(255)];
    let next = Configuration { id: expected + 1, members, primary: "alpha".into(), floor: 0 };
    Request { expected, next, nonce: 77 }
}

#[test]
fn a_full_disk_refuses_and_has_room_again() {
    let mut rig = Rig::new();
    // Writing beyond the limit then is an error, as on a full disk, and not a signal.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_mirrorbus")]);
    command.args(rig.arguments(AT_ONCE));
    rig.start_as(command);
    let mut alpha = rig.client("alpha");
    assert_eq!(take(&mut alpha, &change(0, "alpha")), Verdict::Taken);
    let pid = Pid::from_raw(rig.program().id().try_into().unwrap());
    let maximum = getrlimit(Resource::Fsize).maximum;
    prlimit(pid, Resource::Fsize, Rlimit { current: Some(300), maximum }).unwrap();
    let (code, text) = refusal(alpha.compare_and_set(&large(1), PATIENCE));
    assert_eq!(code, "no-room", "{text}");
    assert_eq!(alpha.read(1, PATIENCE).unwrap(), Some(configuration(1, "alpha")));
    let left: Vec<_> =
        fs::read_dir(rig.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the lock and one register: {left:?}");
    prlimit(pid, Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
    assert_eq!(take(&mut alpha, &large(1)), Verdict::Taken);
    rig.kill();
    rig.start(AT_ONCE);
    assert_eq!(rig.id(), 2);
}

#[test]
fn a_damaged_register_is_told_by_its_path_and_others_are_served() {
    let mut rig = Rig::started(AT_ONCE);
    let other = DatasetId::from_bytes([1; 16]);
    assert_eq!(take(&mut rig.client("alpha"), &change(0, "alpha")), Verdict::Taken);
    assert_eq!(take(&mut rig.client_of(other, "alpha"), &change(0, "alpha")), Verdict::Taken);
    rig.kill();
    let file = rig.directory().join(format!("{}.register", crate::DATASET));
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    rig.start(AT_ONCE);
    for (code, text) in [
        refusal(rig.client("alpha").read(1, PATIENCE)),
        refusal(rig.client("alpha").compare_and_set(&change(1, "alpha"), PATIENCE)),
        refusal(rig.client("alpha").seed(&configuration(1, "alpha"), PATIENCE)),
    ] {
        assert!(code == "damaged" && text.contains(file.to_str().unwrap()), "{code}: {text}");
    }
    assert_eq!(take(&mut rig.client_of(other, "alpha"), &change(1, "alpha")), Verdict::Taken);
    // The way out that it says.
    rig.stop();
    fs::rename(&file, rig.scratch.path("damaged")).unwrap();
    rig.start(AT_ONCE);
    rig.client("alpha").seed(&configuration(1, "alpha"), PATIENCE).unwrap();
    assert_eq!(take(&mut rig.client("alpha"), &change(1, "alpha")), Verdict::Taken);
}

#[test]
fn a_second_process_at_the_same_directory_is_refused() {
    let mut rig = Rig::started(AT_ONCE);
    let told = program_refuses(&rig.arguments(AT_ONCE));
    assert!(told.contains(&format!("in use by process {}", rig.program().id())), "{told}");
    assert_eq!(take(&mut rig.client("alpha"), &change(0, "alpha")), Verdict::Taken);
    rig.stop();
    // Nor one that cannot listen keeps it.
    rig.start(AT_ONCE);
    let taken = rig.url().to_string();
    let mut elsewhere = rig.arguments(AT_ONCE);
    elsewhere[2] = taken;
    elsewhere[8] = rig.scratch.path("elsewhere").to_str().unwrap().to_owned();
    let told = program_refuses(&elsewhere);
    assert!(told.contains("cannot listen on"), "{told}");
    let output = command(&["mediator", "--help"]).output().unwrap();
    assert!(output.status.success());
}
