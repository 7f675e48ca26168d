//! What a server refuses to start with, and whom its socket lets in.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use mirrorbus::serve::nbd::{Endpoint, Server, ServerConfig, ServerError, TlsFiles, TlsMode};

use crate::common::Scratch;
use crate::memory::{Disks, Memory};
use crate::raw::Raw;
use crate::{Rig, until};

fn start(config: &ServerConfig) -> Result<Server, ServerError> {
    Server::start(config, Disks::one(&Memory::new(4096, false)))
}

#[test]
fn a_port_beyond_loopback_needs_tls() {
    for (address, mode) in [("0.0.0.0:0", TlsMode::Off), ("[::]:0", TlsMode::Off)] {
        let config =
            ServerConfig { endpoints: vec![Endpoint::Tcp(address.into())], tls: mode, tls_files: None };
        let error = start(&config).unwrap_err();
        assert!(matches!(error, ServerError::PlainBeyondLoopback { .. }), "{error}");
        assert!(error.to_string().contains("require TLS"), "{error}");
    }
}

#[test]
fn tls_needs_files_that_work() {
    let scratch = Scratch::new();
    let mut config = ServerConfig::new(scratch.path("nbd.sock"));
    config.tls = TlsMode::Required;
    assert!(matches!(start(&config).unwrap_err(), ServerError::NoCertificate { .. }));
    let (certificate, key) = (scratch.path("cert.pem"), scratch.path("key.pem"));
    config.tls_files = Some(TlsFiles { certificate: certificate.clone(), key: key.clone(), client_ca: None });
    let says = |what: &str| {
        let error = start(&config).unwrap_err().to_string();
        assert!(error.contains(what), "{error:?} does not say {what:?}");
        assert!(!scratch.path("nbd.sock").exists(), "it listened");
    };
    says("key.pem");
    std::fs::write(&key, "").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    says("chmod 600");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    says("key.pem");
    std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    says("cert.pem");
    std::fs::write(&certificate, "no certificate").unwrap();
    says("has no certificate");
}

#[test]
fn no_endpoint_is_refused() {
    let config = ServerConfig { endpoints: vec![], tls: TlsMode::Off, tls_files: None };
    assert!(matches!(start(&config).unwrap_err(), ServerError::NoEndpoint));
}

#[test]
fn a_socket_is_for_its_user_and_for_one_server() {
    let rig = Rig::new(4096);
    let mode = std::fs::metadata(rig.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = start(&ServerConfig::new(rig.socket())).unwrap_err();
    assert!(matches!(error, ServerError::Listen { .. }) && error.to_string().contains("nbd.sock"), "{error}");
    drop(Raw::structured(&rig));
    let socket = rig.socket();
    rig.server.stop();
    assert!(!socket.exists());
}

#[test]
fn the_socket_of_a_killed_server_is_replaced_and_that_of_a_busy_one_is_not() {
    let scratch = Scratch::new();
    let path = scratch.path("nbd.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "what a killed server leaves");
    start(&ServerConfig::new(&path)).unwrap().stop();
    // One that accepts nobody, and whose queue is full.
    let _busy = UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    let queue = rustix::net::SocketAddrUnix::new(&path).unwrap();
    loop {
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        if rustix::net::connect(&socket, &queue).is_err() {
            break;
        }
        waiting.push(socket);
    }
    assert!(start(&ServerConfig::new(&path)).is_err() && path.exists());
    // And a file that is no socket.
    let file = scratch.path("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(start(&ServerConfig::new(&file)).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn dropping_a_server_stops_it() {
    let rig = Rig::new(4096);
    let mut raw = Raw::structured(&rig);
    let socket = rig.socket();
    drop(rig.server);
    assert!(raw.is_closed());
    until("the end", || !socket.exists());
}
