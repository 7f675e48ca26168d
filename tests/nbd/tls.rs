//! TLS, with the clients' own implementations of it: STARTTLS, certificates of clients, and what is refused.

use std::path::Path;
use std::process::Command;

use mirrorbus::serve::nbd::{TlsFiles, TlsMode};

use crate::Rig;
use crate::authority::Authority;
use crate::common::Scratch;
use crate::memory::Memory;
use crate::raw::{Raw, option};
use crate::tool::{fails, run, tool};

const SIZE: u64 = 8 << 20;

impl Authority {
    fn directory(&self) -> &Path {
        &self.0.0
    }

    fn files(&self, clients: bool) -> TlsFiles {
        TlsFiles {
            certificate: self.0.path("server-cert.pem"),
            key: self.0.path("server-key.pem"),
            client_ca: clients.then(|| self.0.path("ca-cert.pem")),
        }
    }

    /// A directory that knows the CA and has no certificate of a client.
    fn without_client(&self) -> Scratch {
        let scratch = Scratch::new();
        std::fs::copy(self.0.path("ca-cert.pem"), scratch.path("ca-cert.pem")).unwrap();
        scratch
    }

    fn rig(&self, mode: TlsMode, clients: bool) -> Rig {
        Rig::with(Memory::new(SIZE, false), |config| {
            config.tls = mode;
            config.tls_files = Some(self.files(clients));
        })
    }
}

fn nbdinfo(uri: &str) -> Command {
    let mut command = tool("nbdinfo", "libnbd-bin");
    command.arg(uri);
    command
}

fn by_socket(rig: &Rig, directory: &Path) -> String {
    format!("nbds+unix:///disk?socket={}&tls-certificates={}", rig.socket().display(), directory.display())
}

#[test]
fn clients_with_a_certificate_get_in_and_others_do_not() {
    let authority = Authority::new();
    let rig = authority.rig(TlsMode::Required, true);
    let told = run(&mut nbdinfo(&by_socket(&rig, authority.directory())));
    assert!(told.contains("with TLS") && told.contains("export-size: 8388608"), "{told}");
    let by_port =
        format!("nbds://localhost:{}/disk?tls-certificates={}", rig.port(), authority.directory().display());
    assert!(run(&mut nbdinfo(&by_port)).contains("with TLS"));
    let none = authority.without_client();
    assert!(!fails(&mut nbdinfo(&by_socket(&rig, &none.0))).is_empty());
    fails(&mut nbdinfo(&rig.uri()));
    fails(tool("qemu-img", "qemu-utils").args(["info", &rig.uri()]));
    // Those who were refused leave nothing behind.
    run(&mut nbdinfo(&by_socket(&rig, authority.directory())));
}

#[test]
fn without_a_client_ca_a_certificate_of_the_server_suffices() {
    let authority = Authority::new();
    let rig = authority.rig(TlsMode::Allowed, false);
    let none = authority.without_client();
    assert!(run(&mut nbdinfo(&by_socket(&rig, &none.0))).contains("with TLS"));
    assert!(run(&mut nbdinfo(&rig.uri())).contains("without TLS"));
}

#[test]
fn data_goes_both_ways_under_tls() {
    let authority = Authority::new();
    let rig = authority.rig(TlsMode::Required, true);
    let uri = by_socket(&rig, authority.directory());
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at * 7 + at / 4096).to_le_bytes()[0]).collect();
    let (from, to) = (rig.scratch.path("from"), rig.scratch.path("to"));
    std::fs::write(&from, &bytes).unwrap();
    run(tool("nbdcopy", "libnbd-bin").arg(&from).arg(&uri));
    assert!(rig.disk.content() == bytes);
    run(tool("nbdcopy", "libnbd-bin").arg(&uri).arg(&to));
    assert!(std::fs::read(&to).unwrap() == bytes);
    let credentials =
        format!("tls-creds-x509,id=tls,endpoint=client,dir={}", authority.directory().display());
    let disk = format!(
        "driver=nbd,server.type=inet,server.host=localhost,server.port={},export=disk,tls-creds=tls",
        rig.port()
    );
    let mut info = tool("qemu-img", "qemu-utils");
    let told = run(info.args(["info", "--object", &credentials, "--image-opts", &disk]));
    assert!(told.contains("8 MiB"), "{told}");
}

#[test]
fn what_stands_behind_starttls_in_the_clear_is_not_taken_as_secret() {
    let authority = Authority::new();
    let rig = authority.rig(TlsMode::Required, false);
    let mut raw = Raw::stranger(&rig);
    raw.send(&[b"\0\0\0\x03", &option(5, &[])[..], &option(7, b"\0\0\0\x04disk\0\0")].concat());
    assert_eq!(raw.bytes(18), b"NBDMAGICIHAVEOPT\0\x03");
    assert_eq!(raw.bytes(20)[12..16], [0, 0, 0, 1]);
    assert!(raw.is_closed());
    // And what is no TLS.
    let mut raw = Raw::stranger(&rig);
    raw.send(&[b"\0\0\0\x03", &option(5, &[])[..]].concat());
    raw.bytes(18 + 20);
    raw.send(&[0x55; 512]);
    // An alert, and the end.
    let mut rest = Vec::new();
    let _ = raw.0.read_to_end(&mut rest);
    assert!(rest.len() < 64, "{} bytes", rest.len());
}

#[test]
fn a_port_beyond_loopback_is_served_with_tls_required_and_refused_with_tls_allowed() {
    use mirrorbus::serve::nbd::{Endpoint, Server, ServerConfig, ServerError};
    let authority = Authority::new();
    let disks = || crate::memory::Disks::one(&Memory::new(SIZE, false));
    let mut config = ServerConfig {
        endpoints: vec![Endpoint::Tcp("0.0.0.0:0".into())],
        tls: TlsMode::Allowed,
        tls_files: Some(authority.files(true)),
    };
    let error = Server::start(&config, disks()).unwrap_err();
    assert!(matches!(error, ServerError::PlainBeyondLoopback { .. }), "{error}");
    config.tls = TlsMode::Required;
    let server = Server::start(&config, disks()).unwrap();
    let Endpoint::Tcp(address) = &server.endpoints()[0] else { panic!("no port") };
    let port = address.rsplit_once(':').unwrap().1;
    let uri = format!("nbds://localhost:{port}/disk?tls-certificates={}", authority.directory().display());
    assert!(run(&mut nbdinfo(&uri)).contains("with TLS"));
}
