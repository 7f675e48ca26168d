//! The configuration of a pair of nodes, one in each guest, mirrored over soft-RoCE, with one volume.

use super::guest::Guest;
use super::guests::Guests;
use super::machine::Machine;

/// What differs between pairs: paths in the guests, and sizes as the configuration has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config<'a> {
    pub(crate) admin: &'a str,
    pub(crate) directory: &'a str,
    pub(crate) key: &'a str,
    /// The socket of the server of volumes.
    pub(crate) nbd: &'a str,
    pub(crate) region: &'a str,
    pub(crate) segment: &'a str,
    /// The volume's name.
    pub(crate) volume: &'a str,
    pub(crate) size: &'a str,
    /// Further lines of the dataset, and tables in it.
    pub(crate) more: &'a str,
}

impl Config<'_> {
    /// For the node in this guest.
    pub(crate) fn of(&self, guest: &Guest, guests: &Guests) -> String {
        let peer = guests.both().into_iter().find(|other| other.name != guest.name).expect("there are two");
        self.text(guest.name, &guest.address(), &peer.address())
    }

    fn text(&self, name: &str, own: &str, peer: &str) -> String {
        let Self { admin, directory, key, nbd, region, segment, volume, size, more } = self;
        format!(
            r#"[node]
name = "{name}"
admin = "{admin}"
[[dataset]]
name = "vm"
id = "00112233445566778899aabbccddeeff"
directory = "{directory}"
key = "{key}"
listen = "rdma://{own}:7070"
peer = "rdma://{peer}:7070"
region = "{region}"
segment = "{segment}"
lock = "try"
nbd = ["unix:{nbd}"]
{more}
[[dataset.volume]]
name = "{volume}"
size = "{size}"
block = 4096"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_its_place() {
        let config = Config {
            admin: "/admin",
            directory: "/directory",
            key: "/key",
            nbd: "/nbd",
            region: "8MiB",
            segment: "1MiB",
            volume: "disk",
            size: "64MiB",
            more: "reads = \"confirm\"",
        };
        let text = config.text("a", "10.77.0.1", "10.77.0.2");
        let lines: Vec<_> = text.lines().collect();
        for line in [
            "name = \"a\"",
            "admin = \"/admin\"",
            "directory = \"/directory\"",
            "key = \"/key\"",
            "listen = \"rdma://10.77.0.1:7070\"",
            "peer = \"rdma://10.77.0.2:7070\"",
            "region = \"8MiB\"",
            "segment = \"1MiB\"",
            "nbd = [\"unix:/nbd\"]",
            "name = \"disk\"",
            "size = \"64MiB\"",
            "reads = \"confirm\"",
        ] {
            assert_eq!(lines.iter().filter(|&&one| one == line).count(), 1, "{line} in {text}");
        }
    }
}
