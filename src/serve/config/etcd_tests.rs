//! Each mistake of a table of etcd is told with its line and what is allowed.

use std::path::Path;

use super::EtcdConfig;
use super::tests::{SAMPLE, parse};

/// In place of the sample's mediator.
const ETCD: &str = r#"
[dataset.etcd]
endpoints = ["https://etcd-1:2379", "https://[::1]:2379/"]
prefix = "/mirror/bus/"
ca = "/etc/mirrorbus/etcd-ca.crt"
certificate = "/etc/mirrorbus/etcd.crt"
key = "/etc/mirrorbus/etcd.key"
user = "node"
password = "/etc/mirrorbus/etcd.password"
preferred = "beta"
"#;

/// The sample with a table in place of `[dataset.mediator]`.
fn with_etcd(table: &str) -> String {
    let (before, rest) = SAMPLE.split_once("[dataset.mediator]").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    format!("{before}{table}\n{after}")
}

#[test]
fn an_etcd_may_stand_in_for_the_mediator() {
    let config = parse(&with_etcd(ETCD)).unwrap();
    let dataset = &config.datasets[0];
    let EtcdConfig { endpoints, prefix, ca, certificate, login, preferred } = dataset.etcd.as_ref().unwrap();
    assert!(dataset.mediator.is_none());
    assert_eq!(endpoints[..], ["https://etcd-1:2379", "https://[::1]:2379"]);
    assert_eq!((prefix.as_str(), preferred.as_deref()), ("/mirror/bus/", Some("beta")));
    assert_eq!(ca.as_deref(), Some(Path::new("/etc/mirrorbus/etcd-ca.crt")));
    assert!(certificate.is_some() && login.as_ref().is_some_and(|(user, _)| user == "node"));
    let short = parse(&with_etcd("[dataset.etcd]\nendpoints = [\"http://10.0.0.7:2379\"]\n")).unwrap();
    let EtcdConfig { prefix, ca, certificate, login, preferred, .. } =
        short.datasets[0].etcd.as_ref().unwrap();
    assert_eq!(prefix, "/mirrorbus/");
    assert!(ca.is_none() && certificate.is_none() && login.is_none() && preferred.is_none());
}

#[test]
fn each_wrong_value_of_an_etcd_is_found_in_its_line() {
    let with = with_etcd(ETCD);
    for (from, to, words) in [
        (
            "\"https://etcd-1:2379\"",
            "\"etcd-1:2379\"",
            "endpoints: \"etcd-1:2379\" is no endpoint of etcd: write http://HOST:PORT",
        ),
        ("\"https://etcd-1:2379\"", "\"https://etcd-1\"", "is no endpoint"),
        ("\"https://etcd-1:2379\"", "\"https://etcd-1:0\"", "is no endpoint"),
        ("\"https://etcd-1:2379\"", "\"https://a:b@etcd-1:2379\"", "is no endpoint"),
        ("\"https://etcd-1:2379\"", "\"https://etcd-1:2379/v3\"", "is no endpoint"),
        ("\"https://etcd-1:2379\"", "\"http://etcd-1:2379\"", "http and https"),
        ("\"https://etcd-1:2379\"", "\"https://[::1]:2379\"", "stands there twice"),
        ("[\"https://etcd-1:2379\", \"https://[::1]:2379/\"]", "[]", "0 endpoints: write 1 to 16"),
        (
            "[\"https://etcd-1:2379\", \"https://[::1]:2379/\"]",
            "[\"http://a:1\"]",
            "ca: it is for endpoints of https",
        ),
        ("\"/mirror/bus/\"", "\"\"", "prefix: \"\" is no prefix"),
        ("\"/mirror/bus/\"", "\"a b\"", "is no prefix of keys"),
        ("ca = \"/etc/mirrorbus/etcd-ca.crt\"", "ca = \"ca.crt\"", "ca: the path \"ca.crt\" is not absolute"),
        ("ca = \"/etc/mirrorbus/etcd-ca.crt\"", "", "https needs `ca`"),
        ("certificate = \"/etc/mirrorbus/etcd.crt\"", "", "key: `certificate` and `key` go together"),
        ("key = \"/etc/mirrorbus/etcd.key\"", "", "certificate: `certificate` and `key` go together"),
        ("user = \"node\"", "", "password: `password` needs `user`"),
        ("user = \"node\"", "user = \"\"", "user: a user of etcd has 1 to 255 bytes"),
        ("password = \"/etc/mirrorbus/etcd.password\"", "", "user: `user` needs `password`"),
        ("preferred = \"beta\"", "preferred = \"b b\"", "preferred: \"b b\" is no name"),
        ("prefix = \"/mirror/bus/\"", "prefx = \"/\"", "unknown field `prefx`"),
    ] {
        assert_eq!(with.matches(from).count(), 1, "{from:?}");
        let error = parse(&with.replace(from, to)).expect_err(to).to_string();
        assert!(error.contains(words) && error.starts_with("node.toml:"), "{to}: {error}");
    }
    let both = SAMPLE.replace("[dataset.mediator]", &format!("{ETCD}\n[dataset.mediator]"));
    let error = parse(&both).unwrap_err().to_string();
    assert!(error.contains("there is a [dataset.mediator] as well"), "{error}");
}
