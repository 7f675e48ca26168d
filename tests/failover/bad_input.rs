//! What a mediator and two nodes are told that cannot be right: nobody serves by it, and it is said what is wrong.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::Role;

use crate::child::seed;
use crate::client::{Client, content};
use crate::common::Random;
use crate::ledger::Ledger;
use crate::rig::{Medium, Plan, Rig};
use crate::writer::{Ended, Writer};
use crate::{BLOCKS, assert_kept, assert_whole, is_alone, plan, served, wait_until};

/// How long nothing must happen.
const QUIET_TIME: Duration = Duration::from_secs(2);

/// Changes a node's configuration; what was there before.
fn edit(rig: &Rig, node: usize, change: impl Fn(&str) -> Option<String>) -> String {
    let before = std::fs::read_to_string(rig.config(node)).unwrap();
    let lines = before.lines().map(|line| change(line.trim()).unwrap_or_else(|| line.to_owned()));
    let after = lines.collect::<Vec<_>>().join("\n");
    assert_ne!(before, after, "nothing was changed");
    std::fs::write(rig.config(node), after).unwrap();
    before
}

fn assert_serves_nothing(rig: &Rig, node: usize) {
    let began = Instant::now();
    while began.elapsed() < QUIET_TIME {
        let status = rig.wait(node, "there", |_| true);
        assert!(status.role != Role::Primary, "{status:?}\n{}", rig.logs());
        assert!(Client::connect(&rig.socket(node), "root").is_err(), "it serves\n{}", rig.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Wrong dataset at the mediator: a node that was given the id of another one has nothing to do with this pair, whatever the mediator knows.
#[test]
fn a_wrong_dataset_at_the_mediator_serves_nothing() {
    let mut rig = Rig::pair(plan(Medium::Tcp));
    let serving = rig.wait_for_pair();
    let wrong = 1 - serving;
    assert_eq!(served(&rig, serving).write(0, &content(0, 1)), 0);
    rig.kill(wrong);
    rig.wait(serving, "alone", is_alone);
    let other_id = "0123456789abcdef0123456789abcdef";
    let before = edit(&rig, wrong, |line| line.starts_with("id = ").then(|| format!("id = \"{other_id}\"")));
    // Its directory is of the dataset that it had.
    let refusal = rig.refusal(wrong);
    assert!(refusal.contains("dataset"), "{refusal}");
    let new = rig.path("new.d").display().to_string();
    edit(&rig, wrong, |line| line.starts_with("directory = ").then(|| format!("directory = \"{new}\"")));
    rig.start(wrong);
    rig.wait(wrong, "told", |status| status.reason.code == "wrong-dataset");
    assert_serves_nothing(&rig, wrong);
    assert_eq!(served(&rig, serving).write(0, &content(0, 2)), 0);
    // Nor when it is the only one that the mediator hears of.
    rig.kill(serving);
    assert_serves_nothing(&rig, wrong);
    rig.kill(wrong);
    std::fs::write(rig.config(wrong), before).unwrap();
    rig.start(serving);
    rig.start(wrong);
    assert_eq!(assert_whole(&rig), serving, "{}", rig.logs());
    assert_eq!(served(&rig, serving).read(0, 4096), Ok(content(0, 2).to_vec()));
}

/// Starts two nodes that are no pair, for the reason of this code.
fn are_no_pair(mut rig: Rig, code: &str) {
    rig.arbiter().start();
    rig.start(0);
    rig.start(1);
    for node in 0..2 {
        rig.wait(node, code, |status| status.reason.code == code);
    }
    assert_serves_nothing(&rig, 0);
    assert_serves_nothing(&rig, 1);
}

/// Both nodes configured as the same side, by name.
#[test]
fn two_nodes_of_one_name_serve_nothing() {
    let rig = Rig::new(plan(Medium::Tcp));
    edit(&rig, 1, |line| (line == "name = \"beta\"").then(|| "name = \"alpha\"".into()));
    are_no_pair(rig, "same-node");
}

/// Each says of itself that it is the one that goes on.
#[test]
fn two_nodes_of_which_each_prefers_itself_serve_nothing() {
    let rig = Rig::new(Plan { preferred: Some(0), ..plan(Medium::Tcp) });
    edit(&rig, 1, |line| (line == "preferred = \"alpha\"").then(|| "preferred = \"beta\"".into()));
    are_no_pair(rig, "configuration-differs");
}

/// Both nodes configured as the same side, by address: a node's peer is not itself.
#[test]
fn a_node_that_is_its_own_peer_does_not_start() {
    let rig = Rig::new(plan(Medium::Tcp));
    let config = std::fs::read_to_string(rig.config(0)).unwrap();
    let listen = config.lines().find_map(|line| line.trim().strip_prefix("listen = ")).unwrap().to_owned();
    edit(&rig, 0, |line| line.starts_with("peer = ").then(|| format!("peer = {listen}")));
    let refusal = rig.refusal(0);
    assert!(refusal.contains("is where this node itself listens"), "{refusal}");
}

/// Register newer than the node knows: it was down when the other one took over. It serves nothing without that one, not even by the operator's word.
#[test]
fn a_register_that_is_newer_than_the_node_knows_is_believed() {
    let mut rig = Rig::pair(plan(Medium::Tcp));
    let older = rig.wait_for_pair();
    let newer = 1 - older;
    assert_eq!(served(&rig, older).write(0, &content(0, 1)), 0);
    rig.kill(older);
    rig.wait(newer, "alone", is_alone);
    assert_eq!(served(&rig, newer).write(0, &content(0, 2)), 0);
    rig.kill(newer);
    rig.start(older);
    assert_serves_nothing(&rig, older);
    let promoted = rig.ask(older, &["promote", "vm"]);
    assert_eq!(promoted.status.code(), Some(4), "{promoted:?}\n{}", rig.logs());
    assert_serves_nothing(&rig, older);
    rig.start(newer);
    assert_eq!(assert_whole(&rig), newer, "{}", rig.logs());
    assert_eq!(served(&rig, newer).read(0, 4096), Ok(content(0, 2).to_vec()));
}

/// Garbage at the mediator's port, from many, while nodes ask it.
#[test]
fn garbage_at_the_mediators_port_disturbs_no_take_over() {
    let mut random = Random(seed("garbage"));
    let mut rig = Rig::pair(plan(Medium::Tcp));
    let address = rig.arbiter().url().trim_start_matches("tcp://").to_owned();
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    let serving = rig.wait_for_pair();
    let writer = Writer::start(rig.client(serving), ledger.clone(), random.next());
    let mut strangers = Vec::new();
    for _ in 0..200 {
        let Ok(mut stranger) = TcpStream::connect(&address) else { continue };
        let bytes: Vec<u8> = (0..random.below(4096)).map(|_| random.next().to_le_bytes()[0]).collect();
        // It may hang up before it has all.
        let _ = stranger.write_all(&bytes);
        // Some go, some stay and say no more.
        if random.below(2) == 0 {
            strangers.push(stranger);
        }
    }
    rig.kill(serving);
    assert_eq!(writer.ended(), Ended::Lost);
    rig.wait(1 - serving, "alone", is_alone);
    assert_kept(&rig, 1 - serving, &ledger);
    rig.start(serving);
    assert_eq!(assert_whole(&rig), 1 - serving);
    let again = rig.client(1 - serving);
    let writer = Writer::start(again, ledger.clone(), random.next());
    let before = ledger.lock().unwrap().acknowledged;
    wait_until(&rig, "the client is answered", || ledger.lock().unwrap().acknowledged > before + 16);
    assert_eq!(writer.stop(), Ended::Stopped);
}

/// Where the time of day is read: to be told to people, and to name a directory.
const TELL_THE_TIME: [&str; 3] =
    ["src/serve/admin/events.rs", "src/serve/hooks.rs", "src/cli/demo/scratch.rs"];
/// How it is read.
const WALL_CLOCKS: [&str; 6] =
    ["SystemTime", "UNIX_EPOCH", "Realtime", "REALTIME", "gettimeofday", ".modified()"];

fn files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Clock jump: the time of day may be set to whatever one likes, since nothing that decides reads it. The clock of leases is the one since the start of the
/// machine, and intervals are measured by one that nobody sets.
#[test]
fn a_clock_that_jumps_is_read_by_nothing_that_decides() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&root.join("src"), &mut found);
    assert!(found.len() > 200, "{} files", found.len());
    for path in found {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let reads = WALL_CLOCKS.iter().find(|clock| text.contains(**clock));
        assert!(
            reads.is_none() || TELL_THE_TIME.contains(&name.as_str()),
            "{name} reads the time of day: {reads:?}"
        );
    }
    let has = |file: &str, words: &str| std::fs::read_to_string(root.join(file)).unwrap().contains(words);
    assert!(has("src/store/read_lease.rs", "Moment(boottime())"));
    assert!(has("src/base/clock.rs", "clock_gettime(ClockId::Boottime)"));
}
