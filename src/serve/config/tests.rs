//! Each mistake is told with its line and what is allowed; the sample is right.

use std::path::Path;
use std::time::Duration;

use super::{
    AfterHold, ConfigError, DatasetConfig, Durability, FILE_BYTES_MAX, HoldConfig, NbdAddress, NodeConfig,
    Reads,
};
use crate::base::BlockSize;
use crate::memory::LockPolicy;

pub(super) const SAMPLE: &str = include_str!("../../../docs/node.toml");

/// A second dataset that fits beside the sample's.
const SECOND: &str = r#"
[[dataset]]
name = "vm2"
id = "00000000000000000000000000000002"
directory = "/var/lib/mirrorbus/vm2"
key = "/etc/mirrorbus/key"
listen = "tcp://0.0.0.0:7001"
peer = "tcp://beta:7001"
region = 33554432
nbd = ["unix:/run/mirrorbus/vm2.sock"]
"#;

pub(super) fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
    NodeConfig::parse(text, Path::new("node.toml"))
}

/// `from`, which stands there once, replaced; the mistake must be in the line where it stood.
fn mistake(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?}");
    let line = text[..text.find(from).unwrap()].matches('\n').count() + 1;
    let error = parse(&text.replace(from, to)).expect_err(to);
    let ConfigError::Mistake { line: found, column, .. } = &error else { panic!("{to}: {error}") };
    assert_eq!(*found, line, "{to}: {error}");
    assert!(*column >= 1);
    error.to_string()
}

#[test]
fn the_sample_is_right() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!((config.name.as_str(), config.datasets.len()), ("alpha", 1));
    assert_eq!(config.admin, Path::new("/run/mirrorbus/admin.sock"));
    assert_eq!(config.metrics, Some("127.0.0.1:9300".parse().unwrap()));
    let DatasetConfig { name, region_bytes, segment_bytes, durability, lock, nbd, tls, volumes, .. } =
        &config.datasets[0];
    let mediator = config.datasets[0].mediator.as_ref().unwrap();
    assert_eq!(mediator.address.to_string(), "tcp://mediator:7080");
    assert_eq!(mediator.key, Path::new("/etc/mirrorbus/mediator.key"));
    assert_eq!(mediator.preferred.as_deref(), Some("alpha"));
    assert_eq!((name.as_str(), *region_bytes, *segment_bytes), ("vm1", 256 << 20, 16 << 20));
    assert_eq!((*durability, *lock), (Durability::Disk, LockPolicy::Required));
    assert_eq!(nbd[0], NbdAddress::Unix("/run/mirrorbus/vm1.sock".into()));
    assert_eq!(nbd[1].to_string(), "tcp:127.0.0.1:10809");
    assert!(tls.as_ref().unwrap().required && tls.as_ref().unwrap().client_ca.is_some());
    let hooks = &config.datasets[0].hooks;
    assert_eq!(hooks.on_promote, ["/etc/mirrorbus/address", "add", "192.0.2.10/24", "eth0"]);
    assert_eq!((hooks.on_demote[1].as_str(), hooks.time_max), ("remove", Duration::from_secs(20)));
    assert_eq!((volumes[0].bytes, volumes[0].block_size), (10 << 30, BlockSize::Large));
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = parse(&format!("{SAMPLE}{SECOND}")).unwrap();
    let second = &config.datasets[1];
    assert_eq!((second.region_bytes, second.segment_bytes), (32 << 20, 16 << 20));
    assert_eq!((second.durability, second.reads), (Durability::Disk, Reads::Lease));
    assert_eq!((second.lock, second.hold), (LockPolicy::Required, None));
    assert_eq!(second.silence, Duration::from_millis(500));
    let config = parse(&SAMPLE.replace("silence-ms = 500", "silence-ms = 60000")).unwrap();
    assert_eq!(config.datasets[0].silence, Duration::from_secs(60));
    let hold = |text: &str| parse(text).unwrap().datasets[0].hold.unwrap();
    let minute = Duration::from_secs(60);
    assert_eq!(hold(SAMPLE), HoldConfig { time: minute, after: AfterHold::Suspend });
    assert_eq!(hold(&SAMPLE.replace("\"suspend\"", "\"error\"")).after, AfterHold::Error);
    let error = parse(&SAMPLE.replace("hold-seconds = 60", "")).unwrap_err().to_string();
    assert!(error.contains("after-hold: it needs `hold-seconds`"), "{error}");
    assert!(second.hooks.is_empty() && second.hooks.time_max == Duration::from_secs(30));
    assert!(second.tls.is_none() && second.mediator.is_none() && second.volumes.is_empty());
    for (preferred, expected) in [("", None), ("preferred = \"beta\"", Some("beta"))] {
        let config = parse(&SAMPLE.replace("preferred = \"alpha\"", preferred)).unwrap();
        assert_eq!(config.datasets[0].mediator.as_ref().unwrap().preferred.as_deref(), expected);
    }
    let config = parse(&SAMPLE.replace("tcp://mediator:7080", "shm:/run/mediator.sock")).unwrap();
    assert_eq!(config.datasets[0].mediator.as_ref().unwrap().address.to_string(), "shm:/run/mediator.sock");
    let config = parse(&SAMPLE.replace("\"lease\"", "\"confirm\"")).unwrap();
    assert_eq!(config.datasets[0].reads, Reads::Confirm);
    let config = parse(&SAMPLE.replace("lock = true", "lock = \"try\"")).unwrap();
    assert_eq!(config.datasets[0].lock, LockPolicy::Try);
    let config = parse(&SAMPLE.replace("lock = true", "lock = false")).unwrap();
    assert_eq!(config.datasets[0].lock, LockPolicy::Off);
    let config = parse(&SAMPLE.replace("required = true", "")).unwrap();
    assert!(config.datasets[0].tls.as_ref().unwrap().required);
}

#[test]
fn each_misspelled_key_is_found_in_its_line() {
    let keys = [
        "name = \"alpha\"",
        "admin =",
        "metrics =",
        "name = \"vm1\"",
        "id =",
        "directory =",
        "key = \"/etc/mirrorbus/key\"",
        "listen = \"tcp",
        "peer = \"tcp",
        "region =",
        "segment =",
        "durability =",
        "reads =",
        "hold-seconds =",
        "after-hold =",
        "silence-ms =",
        "lock = true",
        "nbd = [",
        "on-promote =",
        "on-demote =",
        "hook-seconds =",
        "certificate =",
        "key = \"/etc/mirrorbus/node.key\"",
        "client_ca =",
        "required = true\n",
        "address =",
        "key = \"/etc/mirrorbus/mediator.key\"",
        "preferred =",
        "name = \"root\"",
        "size =",
        "block =",
    ];
    for key in keys {
        let error = mistake(SAMPLE, key, &format!("x{key}"));
        let name = key.split(' ').next().unwrap();
        assert!(error.contains("unknown field") && error.contains(&format!("x{name}")), "{error}");
        assert!(error.contains(&format!("`{name}`")), "what is allowed: {error}");
    }
    for table in ["[node]", "[dataset.tls]", "[dataset.mediator]", "[[dataset.volume]]"] {
        let error = mistake(SAMPLE, table, &table.replace('e', "ee"));
        assert!(error.contains("unknown field") || error.contains("missing field"), "{error}");
    }
}

#[test]
fn each_wrong_value_is_found_in_its_line() {
    for (from, to, words) in [
        ("name = \"alpha\"", "name = \"al pha\"", "name: \"al pha\" is no name: 1 to 64 letters"),
        ("name = \"alpha\"", "name = \"\"", "is no name"),
        ("name = \"alpha\"", "name = 7", "name: invalid type: integer `7`, expected a string"),
        ("\"/run/mirrorbus/admin.sock\"", "\"admin.sock\"", "admin: the path \"admin.sock\" is not absolute"),
        ("\"/run/mirrorbus/admin.sock\"", "\"/run/../admin.sock\"", "`..`"),
        ("\"127.0.0.1:9300\"", "\"9300\"", "metrics: \"9300\" is no address"),
        ("\"5a1e6c0f9b3d4e7281c4a6f0d2b39e58\"", "\"5a1e\"", "id: \"5a1e\" is no id of a dataset: 32"),
        ("\"/etc/mirrorbus/key\"", "\"key\"", "key: the path \"key\" is not absolute"),
        (
            "\"tcp://0.0.0.0:7000\"",
            "\"http://0.0.0.0:7000\"",
            "listen: \"http://0.0.0.0:7000\" is no fabric address",
        ),
        ("\"tcp://0.0.0.0:7000\"", "\"tcp://0.0.0.0:0\"", "port 0"),
        ("\"tcp://beta:7000\"", "\"rdma://beta:7000\"", "peer: rdma://beta:7000 is another medium"),
        ("\"tcp://beta:7000\"", "\"tcp://localhost:7000\"", "this node itself listens, for \"vm1\" in line"),
        (
            "\"256MiB\"",
            "\"250MiB\"",
            "region: a ring of 262144000 bytes: whole segments of 16777216 bytes (16 MiB), 2 at least",
        ),
        ("\"256MiB\"", "\"16MiB\"", "33554432 bytes (32 MiB) would be"),
        ("\"256MiB\"", "\"256Mo\"", "is no size: write 4096, 64K, 1M or 1G"),
        ("\"256MiB\"", "-1", "-1 bytes are no size"),
        ("\"256MiB\"", "true", "region: invalid type: boolean `true`, expected a size such as"),
        (
            "\"16MiB\"",
            "\"15MiB\"",
            "segment: a segment of 15728640 bytes: it is a power of two from 32768 to 1073741824",
        ),
        ("\"disk\"", "\"both\"", "durability: \"both\" is no durability: write \"disk\" or \"memory\""),
        ("lock = true", "lock = \"yes\"", "lock: \"yes\" is no way of locking: write true, false or \"try\""),
        ("lock = true", "lock = 1", "expected true, false or \"try\""),
        (
            "\"unix:/run/mirrorbus/vm1.sock\"",
            "\"/run/vm1.sock\"",
            "nbd: \"/run/vm1.sock\" is no address for clients",
        ),
        ("hook-seconds = 20", "hook-seconds = 0", "hook-seconds: 0 seconds: 1 to 600"),
        ("hook-seconds = 20", "hook-seconds = -1", "-1 seconds"),
        ("[\"/etc/mirrorbus/address\", \"add\",", "[\"address\", \"add\",", "on-promote: "),
        (
            "\"tcp:127.0.0.1:10809\"",
            "\"tcp:alpha:10809\"",
            "nbd: \"alpha:10809\" is no address of this machine",
        ),
        ("required = true\n", "required = 1\n", "required: invalid type: integer `1`, expected a boolean"),
        ("\"root\"", "\" root\"", "name: \" root\" is no volume's name"),
        ("\"10GiB\"", "1000", "size: a volume of 1000 bytes: at least one block of 4096 bytes"),
        ("block = 4096", "block = \"1KiB\"", "block: blocks of 1024 bytes (1 KiB): write 512 or 4096"),
        ("block = 4096", "block = ", "block"),
        ("name = \"vm1\"", "name = \"vm1\"\nname = \"vm2\"", "duplicate key"),
    ] {
        let line_after = usize::from(words == "duplicate key");
        if line_after == 1 {
            let error = parse(&SAMPLE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            continue;
        }
        let error = mistake(SAMPLE, from, to);
        assert!(error.contains(words) && error.starts_with("node.toml:"), "{to}: {error}");
    }
}

#[test]
fn each_wrong_value_of_a_mediator_is_found_in_its_line() {
    for (from, to, words) in [
        (
            "\"tcp://mediator:7080\"",
            "\"rdma://mediator:7080\"",
            "address: rdma://mediator:7080: a mediator is asked and answers, and has no memory to reach; write tcp://HOST:PORT",
        ),
        ("\"tcp://mediator:7080\"", "\"shm://mediator:7080?device=/dev/dax0.0\"", "no memory to reach"),
        ("\"tcp://mediator:7080\"", "\"mediator:7080\"", "address: \"mediator:7080\" is no fabric address"),
        ("\"tcp://mediator:7080\"", "\"tcp://mediator:0\"", "port 0"),
        ("\"tcp://mediator:7080\"", "\"tcp://beta:7000\"", "address: tcp://beta:7000 is the peer's"),
        (
            "\"tcp://mediator:7080\"",
            "\"tcp://localhost:7000\"",
            "address: tcp://localhost:7000 is where this node itself listens, for \"vm1\" in line",
        ),
        (
            "\"/etc/mirrorbus/mediator.key\"",
            "\"mediator.key\"",
            "key: the path \"mediator.key\" is not absolute",
        ),
        (
            "\"/etc/mirrorbus/mediator.key\"",
            "\"/etc/mirrorbus/key\"",
            "key: /etc/mirrorbus/key is the pair's key",
        ),
        ("preferred = \"alpha\"", "preferred = \"al pha\"", "preferred: \"al pha\" is no name"),
    ] {
        let error = mistake(SAMPLE, from, to);
        assert!(error.contains(words), "{to}: {error}");
    }
}

#[test]
fn what_does_not_fit_together_is_found_in_its_line() {
    let both = format!("{SAMPLE}{SECOND}");
    for (from, to, words) in [
        ("\"vm2\"", "\"vm1\"", "name: a second dataset \"vm1\"; the other is \"vm1\" in line"),
        (
            "\"00000000000000000000000000000002\"",
            "\"5a1e6c0f9b3d4e7281c4a6f0d2b39e58\"",
            "id: a second dataset with the id",
        ),
        ("\"/var/lib/mirrorbus/vm2\"", "\"/var/lib/mirrorbus/vm1/\"", "directory: "),
        ("\"/var/lib/mirrorbus/vm2\"", "\"/var/lib/mirrorbus\"", "one within the other"),
        (
            "\"tcp://0.0.0.0:7001\"",
            "\"tcp://10.0.0.1:7000\"",
            "listen: \"tcp://10.0.0.1:7000\" is taken by listen of vm1 in line",
        ),
        ("\"tcp://0.0.0.0:7001\"", "\"tcp://0.0.0.0:9300\"", "is taken by metrics of the node in line 7"),
        ("\"tcp://beta:7001\"", "\"tcp://127.0.0.1:7000\"", "for \"vm1\" in line"),
        (
            "\"unix:/run/mirrorbus/vm2.sock\"",
            "\"unix:/run/mirrorbus/vm1.sock\"",
            "is taken by nbd of vm1 in line",
        ),
        (
            "\"unix:/run/mirrorbus/vm2.sock\"",
            "\"unix:/run/mirrorbus/admin.sock\"",
            "is taken by admin of the node in line 6",
        ),
        ("\"unix:/run/mirrorbus/vm2.sock\"", "\"tcp:127.0.0.1:10809\"", ""),
        (
            "\"unix:/run/mirrorbus/vm2.sock\"",
            "\"tcp:10.0.0.1:10810\"",
            "nbd: tcp:10.0.0.1:10810 can be reached from elsewhere",
        ),
    ] {
        if words.is_empty() {
            assert!(parse(&both.replace(from, to)).is_err(), "{to}");
            continue;
        }
        let error = mistake(&both, from, to);
        assert!(error.contains(words), "{to}: {error}");
    }
    let volume = "[[dataset.volume]]\nname = \"root\"\nsize = \"1GiB\"\n";
    let error = parse(&format!("{SAMPLE}\n{volume}")).unwrap_err().to_string();
    assert!(error.contains("a second volume \"root\"; the first is in line"), "{error}");
    // From elsewhere with encryption only.
    let open = "\"tcp:192.0.2.1:10809\"";
    assert!(parse(&SAMPLE.replace("\"tcp:127.0.0.1:10809\"", open)).is_ok());
    let optional =
        SAMPLE.replace("\"tcp:127.0.0.1:10809\"", open).replace("required = true", "required = false");
    assert!(parse(&optional).is_err());
}

#[test]
fn what_is_missing_is_named() {
    for line in ["name = \"vm1\"", "id =", "directory =", "listen = \"tcp", "peer =", "region ="] {
        let kept: Vec<_> = SAMPLE.lines().filter(|kept| !kept.starts_with(line)).collect();
        let error = parse(&kept.join("\n")).unwrap_err().to_string();
        let key = line.split(' ').next().unwrap();
        assert!(error.contains(&format!("missing field `{key}`")), "{error}");
    }
    for line in ["address =", "key = \"/etc/mirrorbus/mediator.key\""] {
        let kept: Vec<_> = SAMPLE.lines().filter(|kept| !kept.starts_with(line)).collect();
        let key = line.split(' ').next().unwrap();
        assert!(parse(&kept.join("\n")).unwrap_err().to_string().contains(&format!("missing field `{key}`")));
    }
    let error = parse("[node]\nname = \"a\"\nadmin = \"/a\"\n").unwrap_err().to_string();
    assert!(error.contains("0 datasets: write 1 to 64 tables [[dataset]]"), "{error}");
    assert!(parse("").unwrap_err().to_string().contains("missing field `node`"));
}

#[test]
fn what_is_no_configuration_is_refused() {
    let directory = std::env::temp_dir().join(format!("mirrorbus-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("node.toml");
    let load = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        NodeConfig::load(&file)
    };
    assert_eq!(load(SAMPLE.as_bytes()).unwrap(), parse(SAMPLE).unwrap());
    let error = load(b"[node]\nname = \"a\xff\"\n").unwrap_err().to_string();
    assert!(error.contains("node.toml:2:10: TOML: ") && error.contains("UTF-8"), "{error}");
    let too_long = |found| matches!(found, Err(ConfigError::TooLong { .. }));
    assert!(too_long(load("#".repeat(FILE_BYTES_MAX + 1).as_bytes())));
    assert!(too_long(load(&["#".repeat(FILE_BYTES_MAX).as_bytes(), "é".as_bytes()].concat())));
    assert!(matches!(NodeConfig::load(&directory), Err(ConfigError::NotRegular { .. })));
    assert!(matches!(NodeConfig::load(&directory.join("none")), Err(ConfigError::Read { .. })));
    std::fs::remove_dir_all(&directory).unwrap();
    // Nested so deep that a reader without a bound would run out of stack.
    assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
}

#[test]
fn each_wrong_way_to_answer_is_found_in_its_line() {
    for (from, to, words) in [
        ("hold-seconds = 60", "hold-seconds = 0", "hold-seconds: 0 seconds: 1 to 86400"),
        ("hold-seconds = 60", "hold-seconds = 86401", "86401 seconds"),
        ("silence-ms = 500", "silence-ms = 99", "silence-ms: 99 milliseconds: 100 to 60000"),
        ("silence-ms = 500", "silence-ms = 60001", "60001 milliseconds"),
        ("silence-ms = 500", "silence-ms = -1", "-1 milliseconds"),
        (
            "\"suspend\"",
            "\"wait\"",
            "after-hold: \"wait\" is nothing that becomes of requests: write \"suspend\" or \"error\"",
        ),
        ("\"lease\"", "\"never\"", "reads: \"never\" is no way to answer: write \"lease\" or \"confirm\""),
    ] {
        let error = mistake(SAMPLE, from, to);
        assert!(error.contains(words), "{to}: {error}");
    }
}
