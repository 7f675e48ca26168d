//! Certificates and keys for TLS, from files in PEM.
//!
//! TLS 1.2 and 1.3, as the protocol asks for. With a client CA only clients whose certificate it signed get in; without one, TLS keeps
//! secrets and proves who the server is, and lets in whoever can reach it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Mode bits of a key that everybody could read or replace.
const OTHERS: u32 = 0o007;

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its CA, in that order.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA that signed the certificates of clients; `None` lets in clients without one.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("{path:?}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// A file without what it should have.
    #[error("{path:?} has no certificate in PEM (\"-----BEGIN CERTIFICATE-----\")")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Everybody has the key.
    #[error(
        "{path:?} may be read by anybody (mode {mode:03o}): chmod 600 it, and make a new key if others had it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// They do not belong together, or cannot be used.
    #[error("the certificate {certificate:?} cannot be used with the key {key:?}: {error}")]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        error: String,
    },
    /// The client CA cannot be used.
    #[error("the client CA {path:?} cannot be used: {error}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// Reads them all.
pub(super) fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: rustls::Error| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        error: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| TlsError::ClientCa {
                path: path.clone(),
                error: error.to_string(),
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&error))?)
        }
    };
    let key = private_key(&files.key)?;
    let config = builder.with_single_cert(certificates(&files.certificate)?, key).map_err(unusable)?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(TlsError::Empty { path: path.to_owned() }),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::File { path: path.to_owned(), error: error.to_string() }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = |error: String| TlsError::File { path: path.to_owned(), error };
    let mode = std::fs::metadata(path).map_err(|error| file(error.to_string()))?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(TlsError::Exposed { path: path.to_owned(), mode });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| file(error.to_string()))
}
