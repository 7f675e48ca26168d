//! Certificates, made by `certtool`.

use crate::common::Scratch;
use crate::tool::{run, tool};

/// Certificates in the places where clients look for them in a directory: a CA, a server and a client.
#[derive(Debug)]
pub(crate) struct Authority(pub(crate) Scratch);

impl Authority {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let at = |name: &str| scratch.path(name).display().to_string();
        let template = |name: &str, lines: &str| std::fs::write(scratch.path(name), lines).unwrap();
        template("ca.info", "cn = \"a test\"\nca\ncert_signing_key\nexpiration_days = 2\n");
        let server = "cn = \"localhost\"\ndns_name = \"localhost\"\nip_address = \"127.0.0.1\"\ntls_www_server\n\
                      tls_www_client\nencryption_key\nsigning_key\nexpiration_days = 2\n";
        template("server.info", server);
        template(
            "client.info",
            "cn = \"a client\"\ntls_www_client\nencryption_key\nsigning_key\nexpiration_days = 2\n",
        );
        let certtool = |arguments: &[&str]| drop(run(tool("certtool", "gnutls-bin").args(arguments)));
        for who in ["ca", "server", "client"] {
            let key = at(&format!("{who}-key.pem"));
            certtool(&["--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", &key]);
        }
        let (ca, ca_key) = (at("ca-cert.pem"), at("ca-key.pem"));
        let template = at("ca.info");
        certtool(&[
            "--generate-self-signed",
            "--load-privkey",
            &ca_key,
            "--template",
            &template,
            "--outfile",
            &ca,
        ]);
        for who in ["server", "client"] {
            let (key, template) = (at(&format!("{who}-key.pem")), at(&format!("{who}.info")));
            let made = at(&format!("{who}-cert.pem"));
            let signed = ["--load-ca-certificate", &ca, "--load-ca-privkey", &ca_key];
            let of = ["--load-privkey", &key, "--template", &template, "--outfile", &made];
            certtool(&[&["--generate-certificate"], &signed[..], &of].concat());
        }
        Self(scratch)
    }
}
