//! HTTP: one request, one answer, one deadline.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use super::language::Fault;
use super::secret;

/// Bytes of an answer at most. A register has less than one KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an answer's headers at most.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Of gRPC: refused before anything was done, since what was asked makes no sense, may not be done, is not for an etcd in this
/// state, or because the token is not valid (any more). Behind every other one it may have been done, or be yet: 8, no room, is said of
/// the write too by which etcd found that it has none left.
const CODES_OF_NOTHING_DONE: [u32; 4] = [3, 7, NOT_IN_THIS_STATE, 16];
/// Said where somebody asks for a token, and there are no users.
pub(super) const NOT_IN_THIS_STATE: u32 = 9;

/// How etcd is reached; the same registers for both nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Where it listens for clients: `http://HOST:PORT` or `https://HOST:PORT`. Of several members each is tried in turn.
    pub endpoints: Vec<String>,
    /// What the keys of the registers begin with; the dataset's id follows.
    pub prefix: String,
    /// For `https`.
    pub tls: Option<EtcdTls>,
    /// Who this node is there, if etcd asks.
    pub login: Option<EtcdLogin>,
}

/// Files of TLS, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// Who signed etcd's certificate.
    pub ca: PathBuf,
    /// This node's certificate and its private key, of mode 0600, if etcd asks for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A user of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdLogin {
    /// The name.
    pub user: String,
    /// A file of mode 0600 with the password; a line's end behind it does not count.
    pub password: PathBuf,
}

/// Why etcd cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// A file cannot be used.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS cannot be set up with what the files have.
    #[error("TLS to etcd: {0}")]
    Tls(String),
    /// There is no endpoint.
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
}

/// A way to etcd, for any number of datasets.
#[derive(Clone)]
pub struct Gateway {
    agent: Agent,
    pub(super) endpoints: Arc<[String]>,
    prefix: String,
    pub(super) login: Option<Arc<Login>>,
}

pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

impl fmt::Debug for Gateway {
    // Without what nobody may read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was sent.
    NotSent(String),
    /// It was sent, or may have been, and may have been carried out.
    Unknown(String),
    /// Nothing was done.
    Refused {
        /// Of gRPC.
        code: u32,
        text: String,
    },
}

impl Gateway {
    /// Reads the files. Nothing is connected yet.
    ///
    /// # Errors
    /// A file is not there, is no PEM, or is one that others may read.
    pub fn open(config: &EtcdConfig) -> Result<Self, EtcdError> {
        if config.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        let login = config.login.as_ref().map(login).transpose()?;
        let agent = Agent::config_builder()
            .tls_config(tls(config.tls.as_ref())?)
            // Only where it was told to: no proxy of the environment, and nowhere else by the word of a server.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(HEADER_BYTES_MAX)
            .user_agent("mirrorbus")
            // Of a connection that was used before it would not be known whether the other side has ended it just now.
            .max_idle_connections(0)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoints: config.endpoints.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            prefix: config.prefix.clone(),
            login: login.map(Arc::new),
        })
    }

    /// What the keys of the registers begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Asks one endpoint, once; the body of its answer. Ends by `until`.
    pub(super) fn post(
        &self,
        endpoint: &str,
        path: &str,
        question: &Value,
        token: Option<&str>,
        until: Instant,
    ) -> Result<Vec<u8>, Failure> {
        let left = until.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(Failure::NotSent(format!("{endpoint}: there is no time left")));
        }
        let mut request = self.agent.post(format!("{endpoint}{path}")).content_type("application/json");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.config().timeout_global(Some(left)).timeout_connect(Some(left)).build();
        let text = Zeroizing::new(question.to_string());
        let mut answer = request.send(text.as_str()).map_err(|error| failure(endpoint, &error))?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body =
            body.map_err(|error| Failure::Unknown(format!("{endpoint}: HTTP {}: {error}", status.as_u16())))?;
        if status.as_u16() == 200 {
            return Ok(body);
        }
        let unknown = |text| Err(Failure::Unknown(format!("{endpoint}: HTTP {}: {text}", status.as_u16())));
        match Fault::parse(&body) {
            Some(fault) if CODES_OF_NOTHING_DONE.contains(&fault.code) => {
                Err(Failure::Refused { code: fault.code, text: format!("{endpoint}: {}", fault.text()) })
            }
            Some(fault) => unknown(fault.text()),
            None => unknown("this is not what etcd says: is that address one at which etcd (3.4 or later) listens for clients?".into()),
        }
    }
}

/// What an error without an answer says about the request. Where the error does not tell, as of a name that is not found, it may have been sent.
fn failure(endpoint: &str, error: &ureq::Error) -> Failure {
    let text = format!("{endpoint}: {error}");
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::TlsRequired
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => Failure::NotSent(text),
        // No connection that stood ends so.
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Failure::NotSent(text)
        }
        _ => Failure::Unknown(text),
    }
}

fn login(login: &EtcdLogin) -> Result<Login, EtcdError> {
    let wrong = |why: String| EtcdError::File { path: login.password.clone(), why };
    let bytes = secret::read(&login.password).map_err(wrong)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("a password that is no UTF-8".into()))?;
    let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err(wrong("there is no password in it".into()));
    }
    Ok(Login { user: login.user.clone(), password })
}

/// What TLS goes by. Without a CA nobody is believed.
fn tls(files: Option<&EtcdTls>) -> Result<TlsConfig, EtcdError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = files.map(|files| certificates(&files.ca)).transpose()?.unwrap_or_default();
    let own = files.and_then(|files| files.certificate.as_ref());
    let own =
        own.map(|(certificate, key)| Ok((certificates(certificate)?, private_key(key)?))).transpose()?;
    // The client would pass over roots that it cannot read, and end the process for a key that does not fit.
    let wrong = |error: rustls::Error| EtcdError::Tls(error.to_string());
    let mut store = RootCertStore::empty();
    for root in &roots {
        store.add(root.clone()).map_err(wrong)?;
    }
    let trial = rustls::ClientConfig::builder_with_provider(provider.clone());
    let trial = trial.with_safe_default_protocol_versions().map_err(wrong)?.with_root_certificates(store);
    if let Some((chain, (key, _))) = &own {
        trial.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(wrong)?;
    }
    let certificate = |der: &CertificateDer<'_>| Certificate::from_der(der.as_ref()).to_owned();
    let client = own.map(|(chain, (_, key))| {
        let chain: Vec<_> = chain.iter().map(certificate).collect();
        ClientCert::new_with_certs(&chain, key)
    });
    let roots: Vec<_> = roots.iter().map(certificate).collect();
    let config = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).client_cert(client);
    Ok(config.unversioned_rustls_crypto_provider(provider).build())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let wrong = |why: String| EtcdError::File { path: path.to_owned(), why };
    let bytes = secret::read_open(path).map_err(wrong)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".into()));
    }
    Ok(found)
}

/// A private key, as both want to have it.
fn private_key(path: &Path) -> Result<(PrivateKeyDer<'static>, PrivateKey<'static>), EtcdError> {
    let wrong = |why: String| EtcdError::File { path: path.to_owned(), why };
    let bytes = secret::read(path).map_err(wrong)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    Ok((key, PrivateKey::from_pem(&bytes).map_err(|error| wrong(error.to_string()))?))
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
