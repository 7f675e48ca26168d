//! Files that are not as the node left them: told with their names, and nothing of them given out.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::client::IO;
use crate::ledger::{BLOCK, content};
use crate::rig::{Medium, NAMES, Plan, Rig, text};

/// Turns bits of one byte over.
fn spoil(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
}

/// A pair that was written and ended in good order.
fn ended() -> Rig {
    let mut rig = Rig::pair(Plan::new(Medium::Shm));
    let mut client = rig.client(0);
    for block in 0..300 {
        assert_eq!(client.write(block * BLOCK as u64, &content(block, 1)), 0);
    }
    drop(client);
    assert!(rig.stop(0).success() && rig.stop(1).success(), "{}", rig.logs());
    rig
}

/// Where the first bytes of a block stand in one of the files.
fn find(paths: &[std::path::PathBuf], block: u64, number: u32) -> (usize, u64) {
    let wanted = content(block, number);
    for (index, path) in paths.iter().enumerate() {
        let bytes = std::fs::read(path).unwrap();
        if let Some(at) = bytes.chunks_exact(BLOCK).position(|found| found == wanted) {
            return (index, (at * BLOCK) as u64);
        }
    }
    panic!("no file has block {block} after write {number}");
}

#[test]
fn a_damaged_block_is_an_error_and_the_scrub_names_it() {
    let rig = Rig::pair(Plan { volume_mib: 64, ..Plan::new(Medium::Shm) });
    let mut client = rig.client(0);
    // Twice the ring, so that the first blocks are read from files.
    let blocks = 8192;
    for block in 0..blocks {
        assert_eq!(client.write(block * BLOCK as u64, &content(block, 1)), 0);
    }
    assert_eq!(client.flush(), 0);
    let segments = rig.segments(0);
    let (segment, at) = find(&segments, 5, 1);
    assert!(segment < segments.len() / 2, "block 5 is in {segment} of {}", segments.len());
    spoil(&segments[segment], at + 100);
    assert_eq!(client.read(5 * BLOCK as u64, 4096), Err(IO), "damage was given out");
    for block in [4, 6, 7000] {
        assert!(client.read(block * BLOCK as u64, 4096) == Ok(content(block, 1).to_vec()), "block {block}");
    }
    let scrubbed = rig.ask(0, &["scrub", "vm"]);
    let said =
        String::from_utf8_lossy(&scrubbed.stdout).into_owned() + &String::from_utf8_lossy(&scrubbed.stderr);
    assert_eq!(scrubbed.status.code(), Some(5), "{said}");
    assert!(said.contains("\"root\"") && said.contains("block 5:"), "{said}");
    assert_eq!(rig.ask(1, &["scrub", "vm"]).status.code(), Some(0), "the other node's disk is another");
    // What is written anew is whole.
    assert_eq!(client.write(5 * BLOCK as u64, &content(5, 2)), 0);
    assert!(client.read(5 * BLOCK as u64, 4096) == Ok(content(5, 2).to_vec()));
    assert_eq!(rig.ask(0, &["scrub", "vm"]).status.code(), Some(0));
}

#[test]
fn a_damaged_file_is_named_at_the_start() {
    let rig = ended();
    let directory = rig.directory(0);
    // The last segment that has a head: of those before it the checkpoint has all.
    let segments = rig.segments(0);
    let begun = |path: &&std::path::PathBuf| std::fs::read(path).unwrap().starts_with(b"MBSEGM01");
    let last = segments.iter().rev().find(begun).unwrap();
    for (path, at) in [
        (last.clone(), 20),
        (last.clone(), 2),
        (directory.join("checkpoint.redb"), 3),
        (directory.join("register"), 30),
        (directory.join("identity"), 9),
    ] {
        spoil(&path, at);
        let said = rig.refusal(0);
        assert!(said.contains(text(&path)), "{} is not named: {said}", path.display());
        assert!(said.contains("dataset \"vm\""), "{said}");
        spoil(&path, at);
    }
    // A page of the checkpoint.
    let path = directory.join("checkpoint.redb");
    let whole = std::fs::read(&path).unwrap();
    let mut broken = whole.clone();
    broken[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&path, &broken).unwrap();
    let said = rig.refusal(0);
    assert!(said.contains(text(&path)), "{said}");
    std::fs::write(&path, &whole).unwrap();
}

#[test]
fn a_directory_of_another_dataset_or_node_is_refused() {
    let mut rig = ended();
    let config = std::fs::read_to_string(rig.config(0)).unwrap();
    let id = config.lines().find_map(|line| line.trim().strip_prefix("id = ")).unwrap();
    for (from, to) in [
        (id, "\"00112233445566778899aabbccddeeff\""),
        ("name = \"alpha\"", "name = \"gamma\""),
        ("segment = \"1MiB\"", "segment = \"2MiB\""),
    ] {
        std::fs::write(rig.config(0), config.replace(from, to)).unwrap();
        let said = rig.refusal(0);
        assert!(said.contains(text(&rig.directory(0))), "{from} became {to}: {said}");
    }
    std::fs::write(rig.config(0), config).unwrap();
    // One process at a time.
    rig.start(0);
    rig.wait(0, "up", |_| true);
    let said = rig.refusal(0);
    assert!(said.contains("in use") && said.contains(text(&rig.directory(0))), "{said}");
    rig.start(1);
    let serving = rig.wait_for_pair();
    let read = rig.client(serving).read(0, 4096);
    assert!(read == Ok(content(0, 1).to_vec()), "{} lost it", NAMES[serving]);
}

#[test]
fn an_older_copy_of_a_directory_is_not_taken_for_the_newest() {
    let mut rig = ended();
    let (directory, older) = (rig.directory(1), rig.path("older"));
    let copy = |from: &Path, to: &Path| {
        let _ = std::fs::remove_dir_all(to);
        crate::tool::run(std::process::Command::new("cp").args(["-r", "--sparse=always"]).arg(from).arg(to));
    };
    copy(&directory, &older);
    rig.start(0);
    rig.start(1);
    let serving = rig.wait_for_pair();
    let mut client = rig.client(serving);
    for block in 0..100 {
        assert_eq!(client.write(block * BLOCK as u64, &content(block, 2)), 0);
    }
    assert_eq!(client.flush(), 0);
    drop(client);
    assert!(rig.stop(serving).success() && rig.stop(1 - serving).success(), "{}", rig.logs());
    copy(&older, &directory);
    // By itself it serves nothing: it cannot know what it lacks.
    rig.start(1);
    rig.wait(1, "undecided", |status| status.reason.code == "peer-unreachable");
    let refused = rig.ask(1, &["promote", "vm"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    // Beside the other it follows, and has the newest in the end.
    rig.start(0);
    assert_eq!(rig.wait_for_pair(), 0, "the one with less serves");
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    let mut client = rig.client(1);
    for block in 0..300 {
        let number = if block < 100 { 2 } else { 1 };
        assert!(
            client.read(block * BLOCK as u64, 4096) == Ok(content(block, number).to_vec()),
            "block {block}"
        );
    }
}
