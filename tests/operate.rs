//! The commands that ask a running node, end to end: the real program, a real socket, a node that says what the test wants.

mod common;
#[path = "common/program.rs"]
mod program;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::Scratch;
use mirrorbus::serve::admin::{
    AdminError, AdminServer, DatasetStatus, DatasetStop, ErrorCode, Event, EventLog, NodeStatus, Outcome,
    RangeReport, Reason, Role, ScrubReport, Side, StatusSource, StopReport, Subject, SwitchReport,
    VerifyReport, VolumeStatus,
};
use program::{Program, command, run};

/// Does what it is told, in memory.
struct TestNode {
    volumes: Mutex<Vec<VolumeStatus>>,
    role: Mutex<Role>,
    damaged: Mutex<u64>,
    calls: Mutex<Vec<String>>,
    events: EventLog,
}

impl TestNode {
    fn check(&self, dataset: &str, call: &str) -> Result<(), AdminError> {
        self.calls.lock().unwrap().push(call.to_owned());
        if dataset == "vm1" {
            return Ok(());
        }
        Err(AdminError::new(ErrorCode::NoSuchDataset, format!("no dataset {dataset:?} is on this node")))
    }
}

impl Subject for TestNode {
    fn status(&self) -> NodeStatus {
        let dataset = DatasetStatus {
            name: "vm1".into(),
            role: *self.role.lock().unwrap(),
            volumes: self.volumes.lock().unwrap().clone(),
            ..DatasetStatus::default()
        };
        NodeStatus {
            name: "alpha".into(),
            version: "1.2.3".into(),
            datasets: vec![dataset],
            ..NodeStatus::default()
        }
    }

    fn create_volume(
        &self,
        dataset: &str,
        name: &str,
        bytes: u64,
        block_bytes: u32,
    ) -> Result<(), AdminError> {
        self.check(dataset, "create")?;
        let mut volumes = self.volumes.lock().unwrap();
        if volumes.iter().any(|volume| volume.name == name) {
            return Err(AdminError::new(ErrorCode::Exists, format!("there is a volume {name:?} already")));
        }
        let id = u32::try_from(volumes.len()).unwrap() + 1;
        volumes.push(VolumeStatus { name: name.into(), id, bytes, block_bytes, mapped_bytes: 0 });
        Ok(())
    }

    fn resize_volume(&self, dataset: &str, name: &str, bytes: u64) -> Result<(), AdminError> {
        self.check(dataset, "resize")?;
        let mut volumes = self.volumes.lock().unwrap();
        let found = volumes.iter_mut().find(|volume| volume.name == name);
        found.ok_or_else(|| AdminError::new(ErrorCode::NoSuchVolume, format!("no volume {name:?}")))?.bytes =
            bytes;
        Ok(())
    }

    fn delete_volume(&self, dataset: &str, name: &str) -> Result<(), AdminError> {
        self.check(dataset, "delete")?;
        self.volumes.lock().unwrap().retain(|volume| volume.name != name);
        Ok(())
    }

    fn promote(&self, dataset: &str, flushed_only: bool) -> Result<(), AdminError> {
        self.check(dataset, if flushed_only { "promote, flushed only" } else { "promote" })?;
        *self.role.lock().unwrap() = Role::Primary;
        self.events.add(Some(dataset), "role", "primary, by the operator");
        Ok(())
    }

    fn alone(&self, dataset: &str) -> Result<(), AdminError> {
        self.check(dataset, "alone")?;
        match *self.role.lock().unwrap() {
            Role::Primary => Ok(()),
            role => {
                Err(AdminError::new(ErrorCode::NotPrimary, format!("this node is {role}: promote it first")))
            }
        }
    }

    fn replace_peer(&self, dataset: &str) -> Result<(), AdminError> {
        self.check(dataset, "replace-peer")
    }

    fn seed(&self, dataset: &str) -> Result<(), AdminError> {
        self.check(dataset, "seed")
    }

    fn can_stop(&self, dataset: Option<&str>) -> Result<StopReport, AdminError> {
        self.check(dataset.unwrap_or("vm1"), &format!("can-stop {dataset:?}"))?;
        let can_stop = *self.role.lock().unwrap() != Role::Primary;
        let reason = Reason { code: "a-code".into(), text: "so it is\u{1b}".into() };
        let found = DatasetStop { dataset: "vm1".into(), can_stop, reason, resync: None };
        Ok(StopReport { can_stop, datasets: vec![found] })
    }

    fn switch(&self, dataset: Option<&str>) -> Result<SwitchReport, AdminError> {
        self.check(dataset.unwrap_or("vm1"), &format!("switch {dataset:?}"))?;
        Ok(SwitchReport { dataset: "vm1".into(), to: "beta".into(), held_us: 12_345 })
    }

    fn scrub(&self, dataset: &str, repair: bool) -> Result<ScrubReport, AdminError> {
        self.check(dataset, if repair { "scrub, repair" } else { "scrub" })?;
        let damaged_blocks = *self.damaged.lock().unwrap();
        let repaired_blocks = if repair { damaged_blocks / 2 } else { 0 };
        let damage = (0..damaged_blocks).map(|block| format!("volume 1 block {block}")).collect();
        Ok(ScrubReport {
            segments: 3,
            blocks: 9,
            bytes: 36_864,
            elapsed_ms: 1250,
            damaged_blocks,
            repaired_blocks,
            damage,
            ..ScrubReport::default()
        })
    }

    fn verify(&self, dataset: &str, volume: Option<&str>, repair: bool) -> Result<VerifyReport, AdminError> {
        self.check(dataset, &format!("verify {volume:?} {repair}"))?;
        let blocks = *self.damaged.lock().unwrap();
        let (outcome, repaired_blocks) =
            if repair { (Outcome::Repaired, blocks) } else { (Outcome::Found, 0) };
        let range = RangeReport { volume: "root".into(), first_block: 7, blocks, side: Side::Peer, outcome };
        Ok(VerifyReport {
            volumes: 1,
            bytes: 36_864,
            elapsed_ms: 900,
            differing_blocks: blocks,
            repaired_blocks,
            ranges: if blocks > 0 { vec![range] } else { Vec::new() },
            ..VerifyReport::default()
        })
    }

    fn events_since(&self, sequence: u64) -> Vec<Event> {
        self.events.since(sequence)
    }

    fn stop(&self) {}
}

struct Rig {
    node: Arc<TestNode>,
    socket: String,
    _server: AdminServer,
    _scratch: Scratch,
}

impl Rig {
    fn new() -> Self {
        let scratch = Scratch::new();
        let node = Arc::new(TestNode {
            volumes: Mutex::default(),
            role: Mutex::default(),
            damaged: Mutex::default(),
            calls: Mutex::default(),
            events: EventLog::new(100),
        });
        let path = scratch.path("admin.sock");
        let server =
            AdminServer::start(&path, node.clone(), StatusSource::start(node.clone()).unwrap()).unwrap();
        Self { node, socket: path.to_str().unwrap().to_owned(), _server: server, _scratch: scratch }
    }

    fn arguments<'a>(&'a self, words: &'a str) -> Vec<&'a str> {
        words.split(' ').chain(["--admin", &self.socket]).collect()
    }

    /// Exit status, output, errors.
    fn run(&self, words: &str) -> (i32, String, String) {
        let output = run(&self.arguments(words));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn done(&self, words: &str) -> String {
        let (status, output, errors) = self.run(words);
        assert_eq!((status, errors.as_str()), (0, ""), "{words}");
        output
    }

    fn refused(&self, words: &str, status: i32) -> String {
        let (found, _, errors) = self.run(words);
        assert_eq!(found, status, "{words}: {errors}");
        errors
    }
}

#[test]
fn volumes_are_made_resized_and_ended() {
    let rig = Rig::new();
    assert_eq!(rig.done("volume create vm1 root --size 10GiB"), "made vm1 root, 10 GiB\n");
    rig.done("volume create vm1 log --size 1M --block 512");
    let list = rig.done("volume list");
    assert!(list.starts_with("vm1:\n") && list.contains("root") && list.contains("10 GiB"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&rig.done("volume list vm1 --json")).unwrap();
    assert_eq!(json[0]["volumes"][1]["block_bytes"], 512);
    rig.done("volume resize vm1 root --size 11GiB");
    let error = rig.refused("volume resize vm1 root --size 1GiB", 4);
    assert!(error.contains("has 11 GiB now") && error.contains("--shrink"), "{error}");
    assert_eq!(rig.done("volume resize vm1 root --size 1GiB --shrink"), "vm1 root has 1 GiB\n");
    rig.done("volume delete vm1 log");
    assert_eq!(rig.node.volumes.lock().unwrap().len(), 1);

    for (words, status, says) in [
        ("volume create vm1 root --size 1G", 4, "there is a volume \"root\" already"),
        ("volume create vm2 root --size 1G", 4, "no dataset \"vm2\""),
        ("volume list vm2", 4, "there are: vm1"),
        ("volume resize vm1 gone --size 1G", 4, "no volume \"gone\""),
        ("volume create vm1 x --size much", 2, "is no size"),
        ("volume create vm1 x --size 1G --block 1024", 2, "512 or 4096"),
        ("volume create vm1 x --size 0", 4, "at least one block"),
        ("volume create vm1", 2, "--size"),
    ] {
        let error = rig.refused(words, status);
        assert!(error.contains(says), "{words}: {error}");
    }
}

#[test]
fn a_node_is_promoted_and_goes_on_alone() {
    let rig = Rig::new();
    let error = rig.refused("alone vm1", 4);
    assert!(error.contains("this node is Undecided: promote it first"), "{error}");
    assert_eq!(rig.done("promote vm1"), "this node is primary for vm1\n");
    rig.done("promote vm1 --flushed-only");
    assert!(rig.done("alone vm1").contains("alone"));
    assert_eq!(*rig.node.calls.lock().unwrap(), ["alone", "promote", "promote, flushed only", "alone"]);
}

#[test]
fn a_status_is_shown_once_or_watched() {
    let rig = Rig::new();
    let text = rig.done("status");
    assert!(text.starts_with("node alpha, mirrorbus 1.2.3, up 0 s\n"), "{text}");
    assert!(text.contains("vm1: Undecided, Consistent, WaitingForPeer"), "{text}");
    let status: NodeStatus = serde_json::from_str(&rig.done("status --json")).unwrap();
    assert_eq!(status.datasets[0].name, "vm1");

    let watching = Program::of(command(&rig.arguments("status --watch --json")));
    assert!(watching.line().contains("Undecided"));
    rig.done("promote vm1");
    while !watching.line().contains("Primary") {}
    // It ends when the node does, and says so.
    drop(rig);
    let (status, errors) = watching.end();
    assert_eq!(status.code(), Some(3), "{errors}");
    assert!(errors.contains("did not answer: it hung up"), "{errors}");
}

#[test]
fn events_are_told_and_followed() {
    let rig = Rig::new();
    for number in 0..600 {
        rig.node.events.add(Some("vm1"), "test", format!("number {number}\u{7}"));
    }
    let text = rig.done("events");
    assert_eq!(text.lines().count(), 100, "as many as are remembered");
    assert!(text.contains("number 599?") && text.contains("vm1") && text.contains('Z'), "{text}");
    let json = rig.done("events --since 599 --json");
    assert_eq!(serde_json::from_str::<Event>(&json).unwrap().sequence, 600);

    let following = Program::of(command(&rig.arguments("events --follow --since 600")));
    rig.done("promote vm1");
    assert!(following.line().contains("primary, by the operator"));
}

#[test]
fn a_scrub_that_finds_damage_fails() {
    let rig = Rig::new();
    assert_eq!(rig.done("scrub vm1"), "3 segments, 9 blocks, 36 KiB read in 1.2 s: 0 damaged\n");
    *rig.node.damaged.lock().unwrap() = 2;
    let (status, output, errors) = rig.run("scrub vm1 --check-only");
    assert!(status == 5 && output.contains("  volume 1 block 1\n"), "{status} {output}");
    assert!(errors.contains("2 blocks of vm1 do not match"), "{errors}");
    let (status, output, errors) = rig.run("scrub vm1");
    assert!(status == 5 && output.contains("2 damaged, 1 repaired"), "{status} {output}");
    assert!(errors.contains("1 blocks of vm1 do not match"), "{errors}");
    let (status, output, _) = rig.run("scrub vm1 --json");
    let report: ScrubReport = serde_json::from_str(&output).unwrap();
    assert_eq!((status, report.damaged_blocks), (5, 2));
}

#[test]
fn a_comparison_that_finds_differences_fails() {
    let rig = Rig::new();
    assert_eq!(rig.done("verify vm1"), "1 volumes, 36 KiB read here in 0.9 s: 0 blocks differ\n");
    *rig.node.damaged.lock().unwrap() = 3;
    let (status, output, errors) = rig.run("verify vm1 root");
    assert_eq!(status, 5, "{errors}");
    assert!(output.contains("  volume \"root\", block 7, 3 blocks: bad on the peer\n"), "{output}");
    let output = rig.done("verify vm1 root --repair");
    assert!(
        output.contains("3 blocks differ, 3 repaired\n") && output.contains("peer, repaired"),
        "{output}"
    );
    let report: VerifyReport = serde_json::from_str(&rig.run("verify vm1 --json").1).unwrap();
    assert_eq!((report.ranges[0].first_block, report.ranges[0].side), (7, Side::Peer));
    assert!(rig.done("replace-peer vm1").contains("let in, once"));
    let calls = rig.node.calls.lock().unwrap();
    assert!(calls.contains(&"verify Some(\"root\") true".into()) && calls.contains(&"replace-peer".into()));
    drop(calls);
    assert!(rig.done("seed vm1").contains("the mediator has this node's configuration of vm1"));
    assert!(rig.node.calls.lock().unwrap().contains(&"seed".into()));
}

#[test]
fn a_node_that_is_not_there_is_told() {
    let scratch = Scratch::new();
    let gone = scratch.path("gone.sock");
    let output = run(&["status", "--admin", gone.to_str().unwrap()]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(errors.contains("gone.sock") && errors.contains("is it running"), "{errors}");
}

#[test]
fn configurations_are_checked() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/node.toml");
    let output = run(&["config", "check", sample.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("is right: node alpha"), "{text}");
    assert!(text.contains("dataset vm1: a ring of 256 MiB"), "{text}");
    assert!(text.contains("dataset vm1: mediator tcp://mediator:7080, preferred alpha"), "{text}");

    let scratch = Scratch::new();
    let file = scratch.path("node.toml");
    let sample_text = std::fs::read_to_string(&sample).unwrap();
    let mediator = "[dataset.mediator]\naddress = \"tcp://mediator:7080\" ";
    let key = "key = \"/etc/mirrorbus/mediator.key\"";
    let by_etcd =
        sample_text.replace(mediator, "[dataset.etcd]\nendpoints = [\"http://etcd:2379\"] ").replace(key, "");
    std::fs::write(&file, by_etcd).unwrap();
    let output = run(&["config", "check", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("dataset vm1: etcd http://etcd:2379, keys /mirrorbus/, preferred alpha"), "{text}");
    let wrong = sample_text.replace("region =", "regions =");
    std::fs::write(&file, wrong).unwrap();
    let output = run(&["config", "check", file.to_str().unwrap()]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("node.toml:16:1: regions: unknown field `regions`"), "{errors}");
}

#[test]
fn ids_of_datasets_are_printed() {
    let output = run(&["dataset-id"]);
    let id = String::from_utf8(output.stdout).unwrap();
    assert!(mirrorbus::serve::config::parse_dataset_id(id.trim_end()).is_ok(), "{id}");
    assert_ne!(run(&["dataset-id"]).stdout, id.as_bytes());
}

#[test]
fn a_node_says_whether_it_may_be_stopped() {
    let rig = Rig::new();
    assert_eq!(rig.done("can-stop"), "vm1: this node may be stopped: so it is?\n");
    rig.done("promote vm1");
    let (status, output, errors) = rig.run("can-stop vm1");
    assert_eq!((status, output.as_str()), (1, "vm1: this node must not be stopped: so it is?\n"));
    assert!(errors.contains("must not be stopped now, because of vm1"), "{errors}");
    let (status, output, _) = rig.run("can-stop vm1 --json");
    let report: StopReport = serde_json::from_str(&output).unwrap();
    assert_eq!((status, report.can_stop, report.datasets[0].reason.code.as_str()), (1, false, "a-code"));
    assert!(rig.refused("can-stop vm2", 4).contains("no dataset \"vm2\""));
}

#[test]
fn a_switch_tells_who_serves() {
    let rig = Rig::new();
    assert_eq!(rig.done("switch"), "beta serves vm1 now: requests were held for 12.3 ms\n");
    let report: SwitchReport = serde_json::from_str(&rig.done("switch vm1 --json")).unwrap();
    assert_eq!((report.to.as_str(), report.held_us), ("beta", 12_345));
    assert!(rig.refused("switch vm2", 4).contains("no dataset \"vm2\""));
}
