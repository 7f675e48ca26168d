//! Files that are not as the node left them: served and repaired from the peer, or told with their names; nothing of them given out.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::client::{Client, IO};
use crate::ledger::{BLOCK, content};
use crate::rig::{Medium, NAMES, PATIENCE, Plan, Rig, text};

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

/// A pair of which twice the ring was written, so that the first blocks are read from files.
fn written() -> (Rig, Client) {
    let rig = Rig::pair(Plan { volume_mib: 64, ..Plan::new(Medium::Shm) });
    let mut client = rig.client(0);
    for block in 0..8192 {
        assert_eq!(client.write(block * BLOCK as u64, &content(block, 1)), 0);
    }
    assert_eq!(client.flush(), 0);
    (rig, client)
}

/// Turns bits of a block over in the node's file.
fn spoil_block(rig: &Rig, node: usize, block: u64) {
    let segments = rig.segments(node);
    let (segment, at) = find(&segments, block, 1);
    assert!(segment < segments.len() / 2, "block {block} is in {segment} of {}", segments.len());
    spoil(&segments[segment], at + 100);
}

/// Exit status and all that a command says.
fn said(rig: &Rig, node: usize, words: &[&str]) -> (i32, String) {
    let output = rig.ask(node, words);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text.into_owned())
}

#[test]
fn a_damaged_block_is_read_from_the_peer_and_repaired() {
    let (rig, mut client) = written();
    spoil_block(&rig, 0, 5);
    for block in [4, 5, 6, 7000] {
        assert!(client.read(block * BLOCK as u64, 4096) == Ok(content(block, 1).to_vec()), "block {block}");
    }
    let status = rig.wait(0, "mended", |status| status.counters.repaired_blocks == 1);
    assert_eq!(status.counters.masked_reads, 1, "{status:?}");
    let began = std::time::Instant::now();
    loop {
        let (_, events) = said(&rig, 0, &["events"]);
        if events.contains("repaired") && events.contains("volume \"root\", block 5:") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{events}");
    }
    for node in [0, 1] {
        assert_eq!(said(&rig, node, &["scrub", "vm", "--check-only"]).0, 0, "{}", NAMES[node]);
    }
}

#[test]
fn a_block_that_is_damaged_on_both_is_an_error_and_named() {
    let (rig, mut client) = written();
    spoil_block(&rig, 0, 5);
    spoil_block(&rig, 1, 5);
    assert_eq!(client.read(5 * BLOCK as u64, 4096), Err(IO), "damage was given out");
    for block in [4, 6, 7000] {
        assert!(client.read(block * BLOCK as u64, 4096) == Ok(content(block, 1).to_vec()), "block {block}");
    }
    let (status, text) = said(&rig, 0, &["scrub", "vm"]);
    assert_eq!(status, 5, "{text}");
    assert!(text.contains("\"root\", block 5: NOT repaired"), "{text}");
    let (status, text) = said(&rig, 0, &["verify", "vm", "--repair"]);
    assert_eq!(status, 5, "{text}");
    assert!(text.contains("block 5, 1 blocks: bad on both nodes, unrecoverable"), "{text}");
    let (_, events) = said(&rig, 0, &["events"]);
    assert!(events.contains("verify-alarm"), "{events}");
    // What is written anew is whole.
    assert_eq!(client.write(5 * BLOCK as u64, &content(5, 2)), 0);
    assert!(client.read(5 * BLOCK as u64, 4096) == Ok(content(5, 2).to_vec()));
    assert_eq!(client.flush(), 0);
    assert_eq!(said(&rig, 0, &["scrub", "vm"]).0, 0);
    assert_eq!(said(&rig, 0, &["verify", "vm"]).0, 0);
}

#[test]
fn the_other_nodes_damage_is_found_by_comparing_and_repaired_when_asked() {
    let (rig, mut client) = written();
    for block in 10..13 {
        spoil_block(&rig, 1, block);
    }
    let (status, text) = said(&rig, 0, &["verify", "vm"]);
    assert_eq!(status, 5, "{text}");
    assert!(text.contains("volume \"root\", block 10, 3 blocks: bad on the peer\n"), "{text}");
    let (status, text) = said(&rig, 0, &["verify", "vm", "root", "--json"]);
    assert!(status == 5 && text.contains("\"first_block\": 10") && text.contains("\"peer\""), "{text}");
    assert_eq!(said(&rig, 1, &["scrub", "vm", "--check-only"]).0, 5, "nobody asked for a repair");
    let (status, text) = said(&rig, 0, &["verify", "vm", "--repair"]);
    assert!(status == 0 && text.contains("3 blocks: bad on the peer, repaired"), "{text}");
    assert_eq!(said(&rig, 1, &["scrub", "vm", "--check-only"]).0, 0);
    // Where it serves then, it has them.
    let mut rig = rig;
    assert_eq!(client.flush(), 0);
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    let mut client = rig.client(1);
    for block in 10..13 {
        assert!(client.read(block * BLOCK as u64, 4096) == Ok(content(block, 1).to_vec()), "block {block}");
    }
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
