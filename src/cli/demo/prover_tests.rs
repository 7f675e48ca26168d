//! The proof can fail: each kind of damage to a copy is found.

use mirrorbus::Mapping;
use mirrorbus::memory::MapOptions;

use super::super::scratch::Scratch;
use super::super::trees;
use super::*;

/// Files on disk, and a copy that holds the log of all of them.
struct World {
    scratch: Scratch,
    plan: Plan,
    memory: Mapping,
    /// Each entry with the place behind it.
    entries: Vec<(Entry, Cursor)>,
}

impl World {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name).expect("a directory");
        for (file, bytes) in [("a", 700_000_usize), ("b", 0), ("c", 500_000)] {
            let content: Vec<u8> = (0..bytes).map(|at| (at * 7 % 251 + 1).to_le_bytes()[0]).collect();
            std::fs::write(scratch.path(file), content).expect("written");
        }
        let found = trees::find(&[scratch.path("")]).expect("a directory");
        let plan = trees::choose(&found, 1 << 30, 3).expect("three files");
        let memory = Mapping::anonymous(plan.region_bytes(), MapOptions::default()).expect("2 MiB");
        let (mut cursor, mut entries) = (Cursor::default(), Vec::new());
        while let Some((entry, next)) = plan.next(cursor) {
            entries.push((entry, next));
            cursor = next;
        }
        let world = Self { scratch, plan, memory, entries };
        world.entries.iter().for_each(|(entry, _)| world.put(entry, entry.bytes()));
        world
    }

    /// Puts the first `bytes` bytes of `entry` into the copy.
    fn put(&self, entry: &Entry, bytes: usize) {
        let mut payload = Vec::new();
        Sources::new(&self.plan).payload(entry, &mut payload).expect("read");
        let whole = [&entry.header(&payload)[..], &payload].concat();
        self.memory.slice().write(entry.position, &whole[..bytes]);
    }

    /// Takes everything from entry `first` on out of the copy.
    fn cut(&self, first: usize) {
        let start = self.entries[first].0.position;
        self.memory.slice().fill(start, self.memory.len() - start, 0);
    }

    fn flip(&self, at: usize) {
        let mut byte = [0];
        self.memory.slice().read(at, &mut byte);
        self.memory.slice().write(at, &[byte[0] ^ 1]);
    }

    /// The ledger when the first `count` entries were acknowledged.
    fn ledger(&self, count: usize) -> Ledger {
        let (entry, next) = self.entries[count - 1];
        Ledger { entries: count as u64, position: next.position, file: entry.file as usize }
    }

    fn prove(&self, acknowledged: usize) -> Result<Proof, Disproof> {
        prove(self.memory.slice(), &self.plan, self.ledger(acknowledged))
    }
}

#[test]
fn a_whole_copy_is_proven() {
    let world = World::new("whole");
    let proof = world.prove(world.entries.len()).expect("whole");
    assert_eq!((proof.files, proof.file_bytes, proof.torn_bytes), (3, 1_200_000, 0));
    assert_eq!(proof.position, world.plan.end().position);
    assert_eq!(log_end(world.memory.slice(), &world.plan).expect("whole"), world.plan.end());
}

#[test]
fn every_prefix_is_proven_and_nothing_less_than_was_acknowledged() {
    let world = World::new("prefix");
    for count in (1..world.entries.len()).rev() {
        world.cut(count);
        let proof = world.prove(count).expect("a prefix");
        assert_eq!((proof.entries, proof.position), (count as u64, world.entries[count].0.position));
        let error = world.prove(count + 1).expect_err("one is missing");
        assert!(matches!(error, Disproof::Missing { .. }), "{error}");
    }
}

#[test]
fn one_flipped_byte_is_found_wherever_it_is() {
    let world = World::new("flip");
    let count = world.entries.len();
    for index in [0, count / 2, count - 1] {
        let entry = world.entries[index].0;
        for at in [entry.position, entry.position + HEADER_BYTES, entry.end() - 1] {
            world.flip(at);
            let error = world.prove(count).expect_err("a byte is wrong");
            world.flip(at);
            let found = matches!(error, Disproof::Differs { .. } | Disproof::Missing { .. });
            assert!(found, "byte {at}: {error}");
        }
    }
    world.prove(count).expect("whole again");
    world.flip(world.memory.len() - 1);
    let error = world.prove(count).expect_err("a byte behind the log");
    assert!(matches!(error, Disproof::Differs { .. }), "{error}");
}

#[test]
fn a_missing_record_is_found_though_nothing_of_it_was_acknowledged() {
    let world = World::new("missing");
    let middle = world.entries.len() / 2;
    let entry = world.entries[middle].0;
    world.memory.slice().fill(entry.position, entry.bytes(), 0);
    let error = world.prove(world.entries.len()).expect_err("acknowledged");
    assert!(matches!(error, Disproof::Missing { .. }), "{error}");
    // The ledger has less: then it is the later store that gives it away.
    let error = world.prove(middle).expect_err("a gap");
    assert!(matches!(error, Disproof::Differs { position, .. } if position >= entry.end()), "{error}");
}

#[test]
fn one_store_beyond_the_prefix_may_be_there_in_part_but_nothing_else() {
    let world = World::new("torn");
    let middle = world.entries.len() / 2;
    world.cut(middle);
    let entry = world.entries[middle].0;
    world.put(&entry, entry.bytes() - 1);
    let proof = world.prove(middle).expect("a torn store is no store");
    assert!(proof.torn_bytes > 0 && proof.entries == middle as u64, "{proof:?}");
    assert_eq!(log_end(world.memory.slice(), &world.plan).expect("ends there").position, entry.position);
    world.flip(entry.position + HEADER_BYTES);
    let error = world.prove(middle).expect_err("not of the next store");
    assert!(matches!(error, Disproof::Differs { .. }), "{error}");
}

#[test]
fn a_source_that_changed_is_found() {
    let world = World::new("source");
    let path = world.scratch.path("c");
    let mut content = std::fs::read(&path).expect("read");
    content[99] ^= 1;
    std::fs::write(&path, &content).expect("written");
    let error = world.prove(world.entries.len()).expect_err("another digest");
    assert!(matches!(error, Disproof::Differs { .. }), "{error}");
    content.pop();
    std::fs::write(&path, &content).expect("written");
    let error = world.prove(world.entries.len()).expect_err("another length");
    assert!(matches!(error, Disproof::Source(_)), "{error}");
}

#[test]
fn another_plans_log_is_not_taken_for_this_one() {
    let world = World::new("plan");
    let other = Plan { seed: 4, ..world.plan.clone() };
    assert!(log_end(world.memory.slice(), &other).is_err());
    let error = prove(world.memory.slice(), &other, Ledger::default()).expect_err("other entries");
    assert!(matches!(error, Disproof::Differs { .. }), "{error}");
}
