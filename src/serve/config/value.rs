//! Single values: from what is written to what it means.

use std::net::SocketAddr;
use std::path::{Component, PathBuf};

use toml::Spanned;

use super::error::Mistake;
use super::raw::{Lock, Size, Text};
use super::{Durability, NAME_BYTES_MAX, NbdAddress, Reads, SOCKET_PATH_BYTES_MAX, VOLUME_NAME_BYTES_MAX};
use crate::base::{BlockSize, FabricUrl, format_bytes, parse_bytes};
use crate::memory::LockPolicy;

/// Bytes of a path at most; the kernel takes no longer one.
const PATH_BYTES_MAX: usize = 4095;

pub(super) type Outcome<T> = Result<T, Mistake>;

fn refuse<T>(text: &Text, key: &str, why: impl Into<String>) -> Outcome<T> {
    Err(Mistake::new(text.span(), key, why))
}

/// A name of a node or a dataset: it stands in the names of files and of labels.
pub(super) fn name(text: &Text, key: &str) -> Outcome<String> {
    let name = text.get_ref();
    let first = name.chars().next().is_some_and(|letter| letter.is_ascii_alphanumeric());
    let rest = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
    if first && rest && name.len() <= NAME_BYTES_MAX {
        return Ok(name.clone());
    }
    let why = format!(
        "{name:?} is no name: 1 to {NAME_BYTES_MAX} letters and digits of ASCII, and after the first also . _ -"
    );
    refuse(text, key, why)
}

/// A name of a volume: what clients ask for.
pub(super) fn volume_name(text: &Text, key: &str) -> Outcome<String> {
    let name = text.get_ref();
    let bounded = (1..=VOLUME_NAME_BYTES_MAX).contains(&name.len());
    if bounded && name.trim() == name && !name.chars().any(char::is_control) {
        return Ok(name.clone());
    }
    let why = format!(
        "{name:?} is no volume's name: 1 to {VOLUME_NAME_BYTES_MAX} bytes without control characters, and no blank at its ends"
    );
    refuse(text, key, why)
}

/// An absolute path.
pub(super) fn path(text: &Text, key: &str) -> Outcome<PathBuf> {
    let path = PathBuf::from(text.get_ref());
    let why = if !path.is_absolute() {
        "not absolute: begin it with /"
    } else if path.components().any(|part| part == Component::ParentDir) {
        "with `..` in it, so that nobody sees which place it is: write it without"
    } else if text.get_ref().contains('\0') {
        "with a zero byte in it"
    } else if text.get_ref().len() > PATH_BYTES_MAX {
        "longer than 4095 bytes"
    } else {
        return Ok(path);
    };
    refuse(text, key, format!("the path {:?} is {why}", text.get_ref()))
}

/// An absolute path at which a Unix socket can be.
pub(super) fn socket_path(text: &Text, key: &str) -> Outcome<PathBuf> {
    let path = path(text, key)?;
    bounded_socket_path(text, key, path)
}

fn bounded_socket_path(text: &Text, key: &str, path: PathBuf) -> Outcome<PathBuf> {
    let len = path.as_os_str().len();
    if len > SOCKET_PATH_BYTES_MAX {
        let why = format!("a socket's path of {len} bytes: at most {SOCKET_PATH_BYTES_MAX} fit an address");
        return refuse(text, key, why);
    }
    Ok(path)
}

/// An address of this machine with a port.
pub(super) fn socket_address(text: &Text, key: &str) -> Outcome<SocketAddr> {
    text.get_ref().parse().or_else(|_| {
        let why = format!(
            "{:?} is no address of this machine: write IP:PORT such as 127.0.0.1:9300 or [::1]:9300",
            text.get_ref()
        );
        refuse(text, key, why)
    })
}

/// Where clients come in.
pub(super) fn nbd_address(text: &Text, key: &str) -> Outcome<NbdAddress> {
    match text.get_ref().split_once(':') {
        Some(("unix", rest)) => {
            let path = path(&Spanned::new(text.span(), rest.to_owned()), key)?;
            bounded_socket_path(text, key, path).map(NbdAddress::Unix)
        }
        Some(("tcp", rest)) => {
            socket_address(&Spanned::new(text.span(), rest.to_owned()), key).map(NbdAddress::Tcp)
        }
        Some(_) | None => {
            let why = format!(
                "{:?} is no address for clients: write unix:/PATH.sock or tcp:IP:PORT",
                text.get_ref()
            );
            refuse(text, key, why)
        }
    }
}

/// Where one ring reaches a node. Its port is one that the peer can know.
pub(super) fn fabric_url(text: &Text, key: &str) -> Outcome<FabricUrl> {
    let url: FabricUrl = text
        .get_ref()
        .parse()
        .or_else(|error: crate::base::UrlError| refuse(text, key, error.to_string()))?;
    match &url {
        FabricUrl::Shm { socket } => {
            bounded_socket_path(text, key, socket.clone())?;
        }
        FabricUrl::ShmDevice { address, .. }
        | FabricUrl::Tcp { address, .. }
        | FabricUrl::Rdma { address } => {
            if address.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0_u16)) {
                return refuse(text, key, format!("{url} has port 0: write a port that the peer can know"));
            }
        }
    }
    Ok(url)
}

/// Where a mediator listens.
pub(super) fn mediator_url(text: &Text, key: &str) -> Outcome<FabricUrl> {
    let url = fabric_url(text, key)?;
    match &url {
        FabricUrl::Tcp { .. } | FabricUrl::Shm { .. } => Ok(url),
        FabricUrl::Rdma { .. } | FabricUrl::ShmDevice { .. } => {
            let why = format!(
                "{url}: a mediator is asked and answers, and has no memory to reach; write tcp://HOST:PORT or shm:/PATH.sock"
            );
            refuse(text, key, why)
        }
    }
}

/// Where etcd listens for clients, without a slash at its end.
pub(super) fn http_url(text: &Text, key: &str) -> Outcome<String> {
    let url = text.get_ref().trim_end_matches('/');
    let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let is_sound = address.is_some_and(|address| {
        let (host, port) = address.rsplit_once(':').unwrap_or(("", ""));
        let is_host = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_named = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.len() <= 253 && host.chars().all(is_host),
        };
        is_named
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse().is_ok_and(|port: u16| port != 0)
    });
    if is_sound {
        return Ok(url.to_owned());
    }
    let why =
        format!("{:?} is no endpoint of etcd: write http://HOST:PORT or https://HOST:PORT", text.get_ref());
    refuse(text, key, why)
}

/// Bytes.
pub(super) fn size(size: &Spanned<Size>, key: &str) -> Outcome<u64> {
    let bytes = match size.get_ref() {
        Size::Number(number) => u64::try_from(*number).map_err(|_| format!("{number} bytes are no size")),
        Size::Text(text) => parse_bytes(text),
    };
    bytes.map_err(|why| Mistake::new(size.span(), key, why))
}

/// Bytes of a volume's block.
pub(super) fn block_size(value: &Spanned<Size>, key: &str) -> Outcome<BlockSize> {
    match size(value, key)? {
        512 => Ok(BlockSize::Small),
        4096 => Ok(BlockSize::Large),
        bytes => {
            let why = format!("blocks of {bytes} bytes ({}): write 512 or 4096", format_bytes(bytes));
            Err(Mistake::new(value.span(), key, why))
        }
    }
}

/// What a flush waits for.
pub(super) fn durability(text: &Text, key: &str) -> Outcome<Durability> {
    match text.get_ref().as_str() {
        "disk" => Ok(Durability::Disk),
        "memory" => Ok(Durability::Memory),
        other => refuse(text, key, format!("{other:?} is no durability: write \"disk\" or \"memory\"")),
    }
}

/// How an answer is made sure of.
pub(super) fn reads(text: &Text, key: &str) -> Outcome<Reads> {
    match text.get_ref().as_str() {
        "lease" => Ok(Reads::Lease),
        "confirm" => Ok(Reads::Confirm),
        other => refuse(text, key, format!("{other:?} is no way to answer: write \"lease\" or \"confirm\"")),
    }
}

/// Whether to lock.
pub(super) fn lock(value: &Spanned<Lock>, key: &str) -> Outcome<LockPolicy> {
    match value.get_ref() {
        Lock::Truth(true) => Ok(LockPolicy::Required),
        Lock::Truth(false) => Ok(LockPolicy::Off),
        Lock::Text(word) if word == "try" => Ok(LockPolicy::Try),
        Lock::Text(word) => {
            let why = format!("{word:?} is no way of locking: write true, false or \"try\"");
            Err(Mistake::new(value.span(), key, why))
        }
    }
}
