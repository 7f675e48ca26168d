//! What a node listens on, and that nothing is listened on twice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

use super::NbdAddress;
use super::error::{Mistake, place};
use crate::base::FabricUrl;

/// Something that one at a time can listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A Unix socket.
    Socket(PathBuf),
    /// A window of memory.
    Device(PathBuf),
    /// A port of a host, given by address or by name.
    Port(Host, u16),
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// By address.
    Address(IpAddr),
    /// By name; in lower case.
    Name(String),
}

impl Host {
    fn parse(text: &str) -> Self {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) if bare.eq_ignore_ascii_case("localhost") => Self::Address(Ipv4Addr::LOCALHOST.into()),
            Err(_) => Self::Name(bare.to_ascii_lowercase()),
        }
    }

    fn is_wildcard(&self) -> bool {
        matches!(self, Self::Address(address) if address.is_unspecified())
    }

    fn is_loopback(&self) -> bool {
        matches!(self, Self::Address(address) if address.is_loopback())
    }
}

impl Place {
    /// What an address of a ring takes.
    pub(super) fn of_url(url: &FabricUrl) -> Vec<Self> {
        match url {
            FabricUrl::Shm { socket } => vec![Self::Socket(socket.clone())],
            FabricUrl::ShmDevice { address, device } => {
                vec![Self::of_address(address), Self::Device(device.clone())]
            }
            // RDMA takes the TCP port too, for the control connection.
            FabricUrl::Tcp { address, .. } | FabricUrl::Rdma { address } => vec![Self::of_address(address)],
        }
    }

    /// What an address for clients takes.
    pub(super) fn of_nbd(address: &NbdAddress) -> Self {
        match address {
            NbdAddress::Unix(path) => Self::Socket(path.clone()),
            NbdAddress::Tcp(address) => Self::of_socket_address(*address),
        }
    }

    /// What an address takes.
    pub(super) fn of_socket_address(address: SocketAddr) -> Self {
        Self::Port(Host::Address(address.ip()), address.port())
    }

    fn of_address(address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        Self::Port(Host::parse(host), port.parse().unwrap_or(0))
    }

    /// Whether both cannot be listened on.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            // Whoever takes a free port meets nobody.
            (Self::Port(one, port), Self::Port(another, other)) => {
                port == other && *port != 0 && (one == another || one.is_wildcard() || another.is_wildcard())
            }
            (one, another) => one == another,
        }
    }

    /// Whether whoever goes to `target` comes here.
    pub(super) fn is_reached_by(&self, target: &Self) -> bool {
        match (self, target) {
            (Self::Port(own, port), Self::Port(host, other)) => {
                let here = own == host || (own.is_wildcard() && (host.is_loopback() || host.is_wildcard()));
                port == other && here
            }
            // Both nodes see the same window, each by a path of its own.
            (Self::Device(_), _) | (_, Self::Device(_)) => false,
            (one, another) => one == another,
        }
    }
}

/// All that was claimed so far.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claims: Vec<(Place, String, Range<usize>)>,
}

impl Claims {
    /// Claims `wanted` for `key`, written at `span` of `text`.
    ///
    /// # Errors
    /// Somebody has it.
    pub(super) fn add(
        &mut self,
        wanted: Place,
        (key, owner): (&str, &str),
        span: Range<usize>,
        text: &str,
    ) -> Result<(), Mistake> {
        if let Some((_, other, at)) = self.claims.iter().find(|(place, ..)| place.meets(&wanted)) {
            let (line, _) = place(text, at.start);
            let why = format!("{} is taken by {other} in line {line}: take another", &text[span.clone()]);
            return Err(Mistake::new(span, key, why));
        }
        self.claims.push((wanted, format!("{key} of {owner}"), span));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str) -> Place {
        Place::of_address(address)
    }

    #[test]
    fn ports_meet_where_one_listener_would_keep_the_other_out() {
        for (one, another, meet) in [
            ("10.0.0.1:7", "10.0.0.1:7", true),
            ("10.0.0.1:7", "10.0.0.2:7", false),
            ("10.0.0.1:7", "10.0.0.1:8", false),
            ("0.0.0.0:7", "10.0.0.1:7", true),
            ("alpha:7", "[::]:7", true),
            ("Alpha:7", "alpha:7", true),
            ("localhost:7", "127.0.0.1:7", true),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ] {
            assert_eq!(port(one).meets(&port(another)), meet, "{one} {another}");
            assert_eq!(port(another).meets(&port(one)), meet, "{another} {one}");
        }
        assert!(!port("alpha:7").meets(&Place::Socket("/a".into())));
    }

    #[test]
    fn a_peer_at_the_same_port_elsewhere_is_no_self() {
        assert!(!port("0.0.0.0:7").is_reached_by(&port("beta:7")));
        assert!(port("0.0.0.0:7").is_reached_by(&port("127.0.0.1:7")));
        assert!(port("10.0.0.1:7").is_reached_by(&port("10.0.0.1:7")));
        assert!(!port("10.0.0.1:7").is_reached_by(&port("10.0.0.2:7")));
        assert!(!Place::Device("/dev/dax0.0".into()).is_reached_by(&Place::Device("/dev/dax0.0".into())));
    }
}
