//! An etcd that lets in only those who say who they are.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mirrorbus::cluster::{ArbiterClient, ArbiterError, Verdict};
use mirrorbus::etcd::{Client, EtcdConfig, EtcdLogin, EtcdTls, Gateway};

use crate::authority::Authority;
use crate::server::Etcd;
use crate::{AT_ONCE, DATASET, PATIENCE, Rig, change, config, refusal, take};

fn client(config: &EtcdConfig) -> Client {
    Client::new(Gateway::open(config).unwrap(), DATASET, "alpha", AT_ONCE)
}

/// A file with a secret.
fn secret(rig: &Rig, name: &str, text: &str) -> PathBuf {
    let path = rig.scratch.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_user_with_a_role_is_let_in_and_nobody_else() {
    let rig = Rig::started();
    let told = |path: &str, body: &str| {
        let answer = rig.etcd.post(path, body);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    };
    told("/v3/auth/user/add", r#"{"name":"root","password":"root"}"#);
    told("/v3/auth/role/add", r#"{"name":"root"}"#);
    told("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
    told("/v3/auth/user/add", r#"{"name":"node","password":"open sesame"}"#);
    told("/v3/auth/role/add", r#"{"name":"mirrorbus"}"#);
    // From "/mirrorbus/" to what follows all that begins so.
    let range = r#""key":"L21pcnJvcmJ1cy8=","range_end":"L21pcnJvcmJ1czA=""#;
    let permission = format!(r#"{{"name":"mirrorbus","perm":{{"permType":"READWRITE",{range}}}}}"#);
    told("/v3/auth/role/grant", &permission);
    told("/v3/auth/user/grant", r#"{"user":"node","role":"mirrorbus"}"#);
    let login = |user: &str, name: &str, password: &str| {
        let login = EtcdLogin { user: user.into(), password: secret(&rig, name, password) };
        EtcdConfig { login: Some(login), ..config(&[rig.etcd.url()]) }
    };
    // Nobody is asked yet, and a name does no harm.
    let mut node = client(&login("node", "right", "open sesame\n"));
    assert_eq!(take(&mut node, &change(0, "alpha")), Verdict::Taken);
    told("/v3/auth/enable", "{}");
    assert_eq!(take(&mut node, &change(1, "alpha")), Verdict::Taken);
    // A token of before a change of users is had anew.
    let root = rig.etcd.post("/v3/auth/authenticate", r#"{"name":"root","password":"root"}"#);
    assert!(root.contains("token"), "{root}");
    let (code, text) = refusal(client(&config(&[rig.etcd.url()])).read(0, PATIENCE));
    assert!(code == "etcd" && text.contains("user"), "{code}: {text}");
    let (code, text) = refusal(client(&login("node", "wrong", "open barley")).read(0, PATIENCE));
    assert!(code == "etcd" && text.contains("authentication failed") && !text.contains("barley"), "{text}");
    let elsewhere = EtcdConfig { prefix: "/other/".into(), ..login("node", "right", "open sesame") };
    let (code, text) = refusal(client(&elsewhere).compare_and_set(&change(0, "alpha"), PATIENCE));
    assert!(code == "etcd" && text.contains("permission denied"), "{code}: {text}");
    assert_eq!(take(&mut node, &change(2, "alpha")), Verdict::Taken);
}

#[test]
fn by_tls_whoever_has_a_certificate_of_the_ca_is_let_in() {
    let authority = Authority::new();
    let at = |name: &str| authority.0.path(name);
    for key in ["client-key.pem", "server-key.pem"] {
        std::fs::set_permissions(at(key), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut etcd =
        Etcd::new(&authority.0.0).with_tls(["server-cert.pem", "server-key.pem", "ca-cert.pem"].map(at));
    etcd.start();
    let own = Some((at("client-cert.pem"), at("client-key.pem")));
    let tls = |certificate| Some(EtcdTls { ca: at("ca-cert.pem"), certificate });
    let endpoints = [etcd.url()];
    let began = std::time::Instant::now();
    let mut alpha = client(&EtcdConfig { tls: tls(own.clone()), ..config(&endpoints) });
    while let Err(error) = alpha.read(0, PATIENCE) {
        assert!(began.elapsed() < PATIENCE, "{error}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(take(&mut alpha, &change(0, "alpha")), Verdict::Taken);
    let other = Authority::new();
    let stranger = EtcdTls { ca: other.0.path("ca-cert.pem"), certificate: own };
    for config in [
        EtcdConfig { tls: tls(None), ..config(&endpoints) },
        EtcdConfig { tls: Some(stranger), ..config(&endpoints) },
        config(&endpoints),
    ] {
        let told = client(&config).read(0, PATIENCE).unwrap_err();
        assert!(matches!(&told, ArbiterError::NotSent(why) if why.contains("https://")), "{told}");
    }
    // A key of another certificate is found at the start.
    let mixed = Some((at("client-cert.pem"), at("server-key.pem")));
    let told = Gateway::open(&EtcdConfig { tls: tls(mixed), ..config(&endpoints) }).unwrap_err().to_string();
    assert!(told.contains("TLS to etcd"), "{told}");
}
