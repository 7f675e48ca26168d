//! What etcd is reached with.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn config() -> EtcdConfig {
    EtcdConfig { endpoints: vec!["http://127.0.0.1:1/".into()], prefix: "/x/".into(), tls: None, login: None }
}

#[test]
fn a_password_is_for_its_owner_only_and_is_not_shown() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("password");
    let login = Some(EtcdLogin { user: "node".into(), password: path.clone() });
    let open = || Gateway::open(&EtcdConfig { login: login.clone(), ..config() });
    let refused = || open().unwrap_err().to_string();
    assert!(refused().contains("password: No such file"), "{}", refused());
    let write = |text: &[u8], mode| {
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(b"open sesame\n", 0o640);
    assert!(refused().contains("chmod 600"), "{}", refused());
    write(b"\n", 0o600);
    assert!(refused().contains("there is no password"), "{}", refused());
    write(&[b'x'; 70_000], 0o600);
    assert!(refused().contains("65536 bytes"), "{}", refused());
    write(b"open sesame\n", 0o600);
    let gateway = open().unwrap();
    assert_eq!(gateway.login.as_ref().unwrap().password.as_str(), "open sesame");
    assert!(!format!("{gateway:?}").contains("sesame"), "{gateway:?}");
    assert_eq!(gateway.endpoints.as_ref(), ["http://127.0.0.1:1"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refused().contains("no regular file"), "{}", refused());
}

#[test]
fn certificates_that_are_none_are_told_by_their_file() {
    let scratch = tempfile::tempdir().unwrap();
    let ca = scratch.path().join("ca.crt");
    let tls = Some(EtcdTls { ca: ca.clone(), certificate: None });
    let refused = || Gateway::open(&EtcdConfig { tls: tls.clone(), ..config() }).unwrap_err().to_string();
    for text in [&b""[..], b"no PEM", b"-----BEGIN CERTIFICATE-----\nZm9v\n-----END CERTIFICATE-----\n"] {
        fs::write(&ca, text).unwrap();
        let told = refused();
        assert!(told.contains("ca.crt") || told.contains("TLS to etcd"), "{told}");
    }
}

#[test]
fn nobody_there_is_told_as_not_asked() {
    let gateway = Gateway::open(&config()).unwrap();
    let post = |endpoint: &str, within| {
        gateway.post(endpoint, "/v3/kv/range", &Value::Null, None, Instant::now() + within)
    };
    let second = Duration::from_secs(1);
    for (endpoint, within) in [
        ("http://127.0.0.1:1", second),
        ("https://127.0.0.1:1", second),
        ("http://127.0.0.1:1", Duration::ZERO),
        ("http://[", second),
    ] {
        let told = post(endpoint, within);
        assert!(matches!(told, Err(Failure::NotSent(_))), "{endpoint}: {told:?}");
    }
}
