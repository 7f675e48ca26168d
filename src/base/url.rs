//! Where a peer is and by what medium it is reached, as one line of text.
//!
//! ```text
//! tcp://host:port            tcp://host:port?encrypt=1
//! shm:/path/to.sock          shm://host:port?device=/dev/dax0.0
//! rdma://host:port
//! ```
//!
//! The second form of `shm` is for a window of memory that both hosts see (CXL, NTB, a DAX file): the control
//! connection goes over TCP, the stores through the device that is mapped here.

use std::path::PathBuf;
use std::str::FromStr;

/// Address of a holder. Parsed from and printed as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FabricUrl {
    /// Memory of another process of this host, received over the Unix socket at this path.
    Shm {
        /// The holder's socket.
        socket: PathBuf,
    },
    /// A memory window that is a device or a DAX file here; the control connection goes to `address`.
    ShmDevice {
        /// `host:port` of the control connection; IPv6 in brackets.
        address: String,
        /// Path, on this side, of what is mapped.
        device: PathBuf,
    },
    /// Framed writes over TCP.
    Tcp {
        /// `host:port`; IPv6 in brackets.
        address: String,
        /// Every byte of data is encrypted and authenticated, against attackers on the network.
        encrypt: bool,
    },
    /// One-sided writes of an RDMA card or of soft-RoCE. The control connection goes over TCP to the same address.
    Rdma {
        /// `host:port`; IPv6 in brackets. The host's address is that of an RDMA device's network interface.
        address: String,
    },
}

/// The medium that carries stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Medium {
    /// Memory mapped by both sides.
    Shm,
    /// A TCP stream.
    Tcp,
    /// Reliable connections of an RDMA device.
    Rdma,
}

/// A text that is no [`FabricUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is no fabric address: {why} (tcp://HOST:PORT[?encrypt=1], rdma://HOST:PORT, shm:/PATH.sock, \
     shm://HOST:PORT?device=PATH)"
)]
pub struct UrlError {
    url: String,
    why: String,
}

impl FabricUrl {
    /// The medium that stores to this address take.
    #[must_use]
    pub const fn medium(&self) -> Medium {
        match self {
            Self::Shm { .. } | Self::ShmDevice { .. } => Medium::Shm,
            Self::Tcp { .. } => Medium::Tcp,
            Self::Rdma { .. } => Medium::Rdma,
        }
    }
}

impl std::fmt::Display for FabricUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shm { socket } => write!(f, "shm:{}", socket.display()),
            Self::ShmDevice { address, device } => write!(f, "shm://{address}?device={}", device.display()),
            Self::Tcp { address, encrypt: false } => write!(f, "tcp://{address}"),
            Self::Tcp { address, encrypt: true } => write!(f, "tcp://{address}?encrypt=1"),
            Self::Rdma { address } => write!(f, "rdma://{address}"),
        }
    }
}

impl FromStr for FabricUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let refuse = |why: String| UrlError { url: url.to_owned(), why };
        let (body, query) = url.split_once('?').unwrap_or((url, ""));
        let mut encrypt = false;
        let mut device = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("encrypt", "1")) => encrypt = true,
                Some(("encrypt", "0")) => encrypt = false,
                Some(("device", path)) if path.starts_with('/') => device = Some(PathBuf::from(path)),
                _ => return Err(refuse(format!("unknown option {pair:?}"))),
            }
        }
        if let Some(address) = body.strip_prefix("tcp://") {
            check_address(address).map_err(refuse)?;
            if device.is_some() {
                return Err(refuse("device= belongs to shm://".into()));
            }
            return Ok(Self::Tcp { address: address.to_owned(), encrypt });
        }
        if encrypt {
            return Err(refuse("encrypt= belongs to tcp://".into()));
        }
        if let Some(address) = body.strip_prefix("rdma://") {
            check_address(address).map_err(refuse)?;
            if device.is_some() {
                return Err(refuse("device= belongs to shm://: the address says which device".into()));
            }
            return Ok(Self::Rdma { address: address.to_owned() });
        }
        if let Some(address) = body.strip_prefix("shm://") {
            check_address(address).map_err(refuse)?;
            let device = device.ok_or_else(|| refuse("shm://HOST:PORT needs device=PATH".into()))?;
            return Ok(Self::ShmDevice { address: address.to_owned(), device });
        }
        match body.strip_prefix("shm:") {
            Some(path) if path.starts_with('/') && device.is_none() => Ok(Self::Shm { socket: path.into() }),
            Some(_) => Err(refuse("shm: takes an absolute path and no options".into())),
            None => Err(refuse("unknown scheme".into())),
        }
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address:?} has no :PORT"))?;
    port.parse::<u16>().map_err(|_| format!("{port:?} is no port"))?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err(format!("{host:?} is no host (IPv6 goes in brackets)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_survives_text() {
        for url in [
            "tcp://h:1",
            "tcp://[::1]:7070?encrypt=1",
            "shm:/run/a.sock",
            "rdma://10.0.0.7:7070",
            "rdma://[fe80::1]:7070",
            "shm://[fe80::1]:9?device=/dev/dax0.0",
        ] {
            assert_eq!(url.parse::<FabricUrl>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (url, word) in [
            ("http://h:1", "scheme"),
            ("tcp://h", "PORT"),
            ("tcp://h:99999", "port"),
            ("tcp://::1:80", "brackets"),
            ("tcp://h:1?crypt=1", "unknown option"),
            ("shm:relative", "absolute"),
            ("shm://h:1", "device"),
            ("shm:/a?encrypt=1", "encrypt"),
            ("rdma://h", "PORT"),
            ("rdma://h:1?encrypt=1", "encrypt"),
            ("rdma://h:1?device=/dev/a", "device"),
        ] {
            let error = url.parse::<FabricUrl>().unwrap_err().to_string();
            assert!(error.contains(word), "{url}: {error}");
        }
    }
}
