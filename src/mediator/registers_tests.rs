//! Registers on a real disk: restarts, damage, what cannot be written.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cluster::{Asked, Configuration, Request};

const ONE: &str = "00000000000000000000000000000001";
const TWO: &str = "00000000000000000000000000000002";
const LATER: Duration = Duration::from_secs(3600);

fn rules() -> Arbiter {
    Arbiter::new(Duration::from_secs(1))
}

fn change(dataset: &str, expected: u64) -> Question {
    let next =
        Configuration { id: expected + 1, members: vec!["alpha".into()], primary: "alpha".into(), floor: 0 };
    let asked = Asked::CompareAndSet(Request { expected, next, nonce: expected + 1 });
    Question { dataset: dataset.into(), node: "alpha".into(), asked }
}

fn read_of(dataset: &str, known: u64) -> Question {
    Question { dataset: dataset.into(), node: "alpha".into(), asked: Asked::Read { known } }
}

fn ask(registers: &Registers, question: &Question) -> String {
    match registers.answer(rules(), question, LATER) {
        Told::Taken => "taken".into(),
        Told::Holds(found) => format!("holds {}", found.map_or(0, |found| found.id)),
        Told::Refused { code, text } => format!("{code}: {text}"),
    }
}

#[test]
fn what_was_taken_is_there_after_a_restart_and_so_is_a_lock() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("mediator");
    let registers = Registers::open(&path).unwrap();
    assert_eq!(ask(&registers, &change(ONE, 0)), "taken");
    assert_eq!(ask(&registers, &change(ONE, 1)), "taken");
    assert!(ask(&registers, &read_of(TWO, 9)).starts_with("mediator-behind"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(&registers.path(ONE))), (0o700, 0o600));
    drop(registers);
    let registers = Registers::open(&path).unwrap();
    assert_eq!(registers.count(), 2);
    assert_eq!(ask(&registers, &read_of(ONE, 0)), "holds 2");
    assert_eq!(ask(&registers, &change(ONE, 1)), "taken", "the same request");
    assert!(ask(&registers, &read_of(TWO, 0)).starts_with("locked: "));
}

#[test]
fn a_question_about_nothing_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let registers = Registers::open(&parent.path().join("state")).unwrap();
    for number in 0..1000 {
        assert_eq!(ask(&registers, &read_of(&format!("{number:032x}"), 0)), "holds 0");
    }
    assert!(ask(&registers, &read_of("../x", 9)).starts_with("unclear"));
    assert_eq!(registers.count(), 0);
    assert_eq!(fs::read_dir(&registers.directory).unwrap().count(), 1, "the lock");
}

#[test]
fn a_damaged_file_puts_its_dataset_out_of_service_and_no_other() {
    let parent = tempfile::tempdir().unwrap();
    let registers = Registers::open(&parent.path().join("state")).unwrap();
    assert_eq!(ask(&registers, &change(ONE, 0)), "taken");
    assert_eq!(ask(&registers, &change(TWO, 0)), "taken");
    let file = registers.path(ONE);
    let other = fs::read(registers.path(TWO)).unwrap();
    drop(registers);
    let good = fs::read(&file).unwrap();
    let mut spoiled: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    // The last line's end says nothing.
    spoiled.pop();
    for at in 0..good.len() - 1 {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        spoiled.push(bytes);
    }
    spoiled.push(other);
    for bytes in spoiled {
        fs::write(&file, &bytes).unwrap();
        let registers = Registers::open(&parent.path().join("state")).unwrap();
        let told = ask(&registers, &change(ONE, 0));
        let path = file.display().to_string();
        assert!(
            told.starts_with("damaged") && told.contains(&path) && told.contains("mirrorbus seed"),
            "{told}"
        );
        assert_eq!(ask(&registers, &read_of(TWO, 1)), "holds 1");
        assert_eq!(fs::read(&file).unwrap(), bytes, "it is left for whoever looks into it");
    }
}

#[test]
fn what_cannot_be_written_is_not_taken_and_can_be_asked_again() {
    let parent = tempfile::tempdir().unwrap();
    let registers = Registers::open(&parent.path().join("state")).unwrap();
    assert_eq!(ask(&registers, &change(ONE, 0)), "taken");
    // Nobody, not even root, writes a file where a directory is.
    let in_the_way = registers.path(ONE).with_extension("next");
    fs::create_dir(&in_the_way).unwrap();
    assert!(ask(&registers, &change(ONE, 1)).starts_with("failed: "));
    assert_eq!(ask(&registers, &read_of(ONE, 0)), "holds 1");
    assert_eq!(ask(&registers, &change(TWO, 0)), "taken");
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(ask(&registers, &change(ONE, 1)), "taken");
}

#[test]
fn what_may_be_written_and_may_not_is_refused_until_a_restart() {
    let parent = tempfile::tempdir().unwrap();
    let registers = Registers::open(&parent.path().join("state")).unwrap();
    // The rename fails.
    fs::create_dir(registers.path(ONE)).unwrap();
    assert!(ask(&registers, &change(ONE, 0)).contains("not known"));
    fs::remove_dir(registers.path(ONE)).unwrap();
    assert!(ask(&registers, &change(ONE, 0)).contains("not known"));
    assert!(ask(&registers, &read_of(ONE, 0)).contains("not known"));
    assert_eq!(ask(&registers, &change(TWO, 0)), "taken");
    drop(registers);
    let registers = Registers::open(&parent.path().join("state")).unwrap();
    assert_eq!(ask(&registers, &change(ONE, 0)), "taken");
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("mediator");
    let first = Registers::open(&path).unwrap();
    let told = Registers::open(&path).unwrap_err().to_string();
    assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
    drop(first);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    let told = Registers::open(&path).unwrap_err().to_string();
    assert!(told.contains("chmod 700"), "{told}");
}
