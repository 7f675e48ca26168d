//! `mirrorbus soft-roce`: an RDMA device made of software, on a network card that has no RDMA of its own.
//!
//! Linux's `rdma_rxe` speaks RoCEv2, which is RDMA in UDP packets, over any card. `up` loads the modules and adds the
//! device, `down` removes it; a second time either changes nothing. What is there is read from `/sys`; what is changed is
//! changed by `modprobe` and `rdma`, which the distribution keeps in step with its kernel.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What soft-RoCE needs of the kernel, in order of loading: `rdma_rxe` asks for `crc32_generic` by name when it starts, and
/// no dependency says so; programs reach it through `ib_uverbs` and `rdma_ucm`.
pub(super) const MODULES: [&str; 4] = ["crc32_generic", "rdma_rxe", "ib_uverbs", "rdma_ucm"];

/// The least MTU of a card on which a packet carries 4096 bytes, the most that RoCE has: the headers take 80.
pub(super) const MTU_MIN: u32 = 4096 + 80;

/// Names of network cards are shorter than this (IFNAMSIZ).
const CARD_NAME_BYTES: usize = 16;

/// A port is active at once when its card is up.
const ACTIVE_TIME_MAX: Duration = Duration::from_secs(5);

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// Load the modules and add a device; as root.
    Up(Card),
    /// Remove the device; the modules stay. As root.
    Down(Card),
}

#[derive(Debug, Clone, clap::Args)]
struct Card {
    /// The network card, as `ip link` names it.
    #[arg(long)]
    netdev: String,
}

/// Does it, and prints what was done.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let sys = Path::new("/sys");
    match &arguments.action {
        Action::Up(Card { netdev }) => up(sys, netdev)?,
        Action::Down(Card { netdev }) => down(sys, netdev)?,
    }
    Ok(())
}

fn up(sys: &Path, card: &str) -> Result<(), String> {
    check_card(sys, card)?;
    for module in MODULES {
        if sys.join("module").join(module).exists() {
            continue;
        }
        match call(&["modprobe", module], "kmod") {
            Ok(()) => println!("loaded {module}"),
            Err(Failed { program_missing: true, why }) => return Err(why),
            // Kernels in which it is no module of its own have it built in; whether so, adding the device tells.
            Err(Failed { why, .. }) if module == "crc32_generic" => println!("warning: {why}"),
            Err(Failed { why, .. }) => {
                return Err(format!(
                    "this kernel cannot have soft-RoCE: {why}; Debian's linux-image-amd64 and Ubuntu's \
                     linux-modules-extra have rdma_rxe, kernels made for clouds and containers mostly do not"
                ));
            }
        }
    }
    let device = match devices_on(sys, card).into_iter().next() {
        Some(device) => {
            println!("{device} is on {card} already");
            device
        }
        None => {
            let device = format!("rxe_{card}");
            call(&["rdma", "link", "add", &device, "type", "rxe", "netdev", card], "iproute2")?;
            println!("added {device} on {card}");
            device
        }
    };
    tell_port(sys, &device, card);
    Ok(())
}

fn down(sys: &Path, card: &str) -> Result<(), String> {
    check_card(sys, card)?;
    let devices = devices_on(sys, card);
    if devices.is_empty() {
        println!("there is no soft-RoCE device on {card}");
    }
    for device in devices {
        call(&["rdma", "link", "delete", &device], "iproute2")?;
        println!("removed {device} from {card}");
    }
    Ok(())
}

fn check_card(sys: &Path, card: &str) -> Result<(), String> {
    let cards = sys.join("class/net");
    let plain = !card.is_empty() && card.len() < CARD_NAME_BYTES && !card.contains('/') && card != "..";
    if plain && card != "." && cards.join(card).exists() {
        return Ok(());
    }
    let list = names(&cards).join(", ");
    Err(format!("there is no network card {card:?} here; there are: {list}"))
}

/// The soft-RoCE devices on a card: only `rdma_rxe` names its card in `parent`.
pub(super) fn devices_on(sys: &Path, card: &str) -> Vec<String> {
    let devices = sys.join("class/infiniband");
    let on_card = |device: &String| word(&devices.join(device).join("parent")).is_some_and(|on| on == card);
    names(&devices).into_iter().filter(on_card).collect()
}

/// Prints the state of the device's port, and what stands in the way of it.
fn tell_port(sys: &Path, device: &str, card: &str) {
    let path = sys.join("class/infiniband").join(device).join("ports/1/state");
    let until = Instant::now() + ACTIVE_TIME_MAX;
    let state = loop {
        let state = word(&path).unwrap_or_default();
        let up =
            word(&sys.join("class/net").join(card).join("operstate")).is_some_and(|state| state != "down");
        if state.ends_with("ACTIVE") || !up || Instant::now() > until {
            break state;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    println!("{device} port 1 is {}", state.rsplit(' ').next().unwrap_or_default());
    if !state.ends_with("ACTIVE") {
        println!("warning: {card} is down or has no carrier: `ip link set {card} up`");
    }
    if let Some(mtu) = card_mtu(sys, card).filter(|mtu| *mtu < MTU_MIN) {
        println!(
            "warning: the MTU of {card} is {mtu}, so packets carry less than 4096 bytes: \
             `ip link set {card} mtu 9000` ({MTU_MIN} or more), on both sides and on the switch between"
        );
    }
}

/// The MTU of a network card.
pub(super) fn card_mtu(sys: &Path, card: &str) -> Option<u32> {
    word(&sys.join("class/net").join(card).join("mtu"))?.parse().ok()
}

/// The names in a directory, in order; none when it cannot be read.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a file of `/sys` says.
pub(super) fn word(path: &PathBuf) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// What a program that was called did not do.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    /// It is not on this machine.
    program_missing: bool,
    why: String,
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.why
    }
}

/// Runs a program of `package` to its end.
fn call(words: &[&str], package: &str) -> Result<(), Failed> {
    let line = words.join(" ");
    let output = Command::new(words[0]).args(&words[1..]).output().map_err(|error| {
        let program_missing = error.kind() == ErrorKind::NotFound;
        let why = if program_missing {
            format!("`{line}`: there is no program {}: install {package}", words[0])
        } else {
            format!("`{line}`: {error}")
        };
        Failed { program_missing, why }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let way_out = if rustix::process::geteuid().is_root() { "" } else { " (this needs root: use sudo)" };
    Err(Failed { program_missing: false, why: format!("`{line}` failed: {}{way_out}", errors.trim()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree like `/sys`, removed in the end.
    struct Sys(PathBuf);

    impl Sys {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("mirrorbus-sys-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().expect("within")).expect("made");
                std::fs::write(path, text).expect("written");
            }
            Self(root)
        }
    }

    impl Drop for Sys {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_device_is_known_by_its_card() {
        let files = [
            ("class/infiniband/rxe0/parent", "eth0\n"),
            ("class/infiniband/rxe1/parent", "eth1\n"),
            ("class/infiniband/mlx5_0/node_desc", "eth0\n"),
            ("class/net/eth0/mtu", "1500\n"),
        ];
        let sys = Sys::new("card", &files);
        assert_eq!(devices_on(&sys.0, "eth0"), ["rxe0"]);
        assert!(devices_on(&sys.0, "eth2").is_empty());
        assert_eq!(card_mtu(&sys.0, "eth0"), Some(1500));
        assert_eq!(card_mtu(&sys.0, "eth1"), None);
    }

    #[test]
    fn a_card_that_is_not_there_is_named_with_those_that_are() {
        let sys = Sys::new("cards", &[("class/net/eth0/mtu", "1500"), ("class/net/lo/mtu", "65536")]);
        assert_eq!(check_card(&sys.0, "eth0"), Ok(()));
        for card in ["eth1", "", ".", "..", "eth0/mtu", "a-name-of-16-byt"] {
            let why = check_card(&sys.0, card).expect_err(card);
            assert!(why.contains("eth0, lo") && why.contains(card), "{why}");
        }
        assert!(down(&sys.0, "eth9").is_err() && up(&sys.0, "eth9").is_err());
    }

    #[test]
    fn where_no_device_is_nothing_is_removed() {
        let sys = Sys::new("none", &[("class/net/eth0/mtu", "1500")]);
        assert_eq!(down(&sys.0, "eth0"), Ok(()));
    }

    #[test]
    fn a_program_that_fails_or_is_missing_says_so() {
        let why = call(&["mirrorbus-no-such-program", "x"], "a-package").expect_err("missing");
        assert!(why.program_missing && why.why.contains("install a-package"), "{why:?}");
        let why = call(&["sh", "-c", "echo reason >&2; exit 3"], "dash").expect_err("fails");
        assert!(!why.program_missing && why.why.contains("reason"), "{why:?}");
        assert_eq!(call(&["true"], "coreutils"), Ok(()));
    }
}
