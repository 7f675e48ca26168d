//! Rule `layers`: a room of the library names only the rooms below it.
//!
//! [`ROOMS`] is the whole truth about who may know whom. Test code may reach anything: a test of the top may build its
//! world from the bottom. Documentation may mention anything: a comment creates no dependency.
//!
//! A room names things by the room they live in (`crate::base::Level`), never by the crate's public re-export
//! (`crate::Level`), because through the re-exports any room could reach any other.

use super::Finding;
use super::source::Source;

const RULE: &str = "layers";

/// Each room with the rooms it may name.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("memory", &["base"]),
    ("control", &["base"]),
    ("fabric", &["base", "memory", "control"]),
    ("mirror", &["base", "memory", "fabric"]),
    ("segment", &["base", "memory", "fabric", "mirror"]),
    ("volume", &["base", "memory", "fabric", "mirror", "segment"]),
    ("cluster", &["base"]),
    ("replica", &["base", "memory", "fabric", "mirror", "segment", "volume"]),
    ("node", &["base", "memory", "control", "fabric", "mirror", "segment", "volume", "cluster", "replica"]),
    ("epoch", &["base", "memory", "mirror", "node"]),
    ("mediator", &["base", "memory", "cluster", "node"]),
    ("etcd", &["base", "cluster"]),
    (
        "store",
        &[
            "base", "memory", "control", "fabric", "mirror", "segment", "volume", "cluster", "replica",
            "node", "mediator", "etcd",
        ],
    ),
    (
        "serve",
        &[
            "base", "memory", "control", "fabric", "mirror", "segment", "volume", "cluster", "replica",
            "node", "mediator", "etcd", "store",
        ],
    ),
    // Drives all of the others in tests. Nobody may name it, so nothing of it can get into the library.
    (
        "sim",
        &[
            "base", "memory", "control", "fabric", "mirror", "segment", "volume", "cluster", "replica",
            "node", "mediator", "etcd", "store", "serve",
        ],
    ),
];

/// The program: knows the library by its public name only.
const PROGRAM: &str = "cli";

/// Checks one file of `src/`; others know the library as any user does, which the compiler enforces.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let Some(room) = room_of(&source.path) else { return };
    if room != PROGRAM && allowed(room).is_none() {
        findings.push(Finding::new(source, 1, RULE, format!("room {room:?} is not in the table of layers")));
        return;
    }
    for (offset, name) in names(source) {
        if source.is_test(offset) {
            continue;
        }
        if let Some(message) = refusal(room, &name) {
            findings.push(Finding::new(source, source.line_of(offset), RULE, message));
        }
    }
    if room == PROGRAM {
        check_program(source, findings);
    }
}

fn allowed(room: &str) -> Option<&'static [&'static str]> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, below)| *below)
}

/// The room a path belongs to; `None` outside `src/` and for `src/lib.rs`, which joins them all.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    match inside {
        "lib.rs" => None,
        "main.rs" => Some(PROGRAM),
        _ => inside.split('/').next().map(|first| first.trim_end_matches(".rs")),
    }
}

fn refusal(room: &str, name: &str) -> Option<String> {
    let is_room = allowed(name).is_some();
    if room == PROGRAM {
        return is_room
            .then(|| format!("the program reaches the library as mirrorbus::{name}, not crate::{name}"));
    }
    if name == room || allowed(room).is_some_and(|below| below.contains(&name)) {
        return None;
    }
    if is_room || name == PROGRAM {
        let below = allowed(room).unwrap_or_default().join(", ");
        let below = if below.is_empty() { "no other" } else { &below };
        return Some(format!("{room} may not know {name} (it may know {below})"));
    }
    Some(format!("crate::{name} is a public re-export or unknown: name the room it lives in"))
}

/// A program that declared a room as its own module would compile the library a second time, around the rule.
fn check_program(source: &Source, findings: &mut Vec<Finding>) {
    for offset in source.words("mod") {
        let name = first_word(&source.code[offset + 3..]);
        if allowed(name).is_some() && source.path == "src/main.rs" {
            let message = format!("mod {name} compiles a room of the library into the program");
            findings.push(Finding::new(source, source.line_of(offset), RULE, message));
        }
    }
}

/// Each name that stands directly under the crate's root, with its place: `crate::a`, `crate::{a, b}`, and `super::`
/// chains long enough to leave the room.
fn names(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for offset in source.words("crate::") {
        under(source, offset + "crate::".len(), &mut found);
    }
    let depth = module_depth(&source.path);
    for offset in source.words("super::") {
        if source.code[..offset].ends_with("super::") {
            continue; // in the middle of a chain that was counted at its head
        }
        let chain =
            source.code.as_bytes()[offset..].chunks(7).take_while(|chunk| *chunk == b"super::").count();
        if chain >= depth && depth > 0 {
            let mut reached = Vec::new();
            under(source, offset + chain * "super::".len(), &mut reached);
            // Within an inline module the chain is one short of the root: then the name is no room's.
            found.extend(reached.into_iter().filter(|(_, name)| allowed(name).is_some()));
        }
    }
    found
}

/// How many `super::` lead from the file's module to the crate's root.
fn module_depth(path: &str) -> usize {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if matches!(inside, "lib" | "main") { 0 } else { inside.split('/').count() }
}

fn under(source: &Source, at: usize, found: &mut Vec<(usize, String)>) {
    let rest = &source.code[at..];
    if !rest.starts_with('{') {
        found.push((at, first_word(rest).to_owned()));
        return;
    }
    let mut depth = 0_usize;
    let mut wants_name = false;
    for (index, byte) in rest.bytes().enumerate() {
        match byte {
            b'{' => {
                depth += 1;
                wants_name = depth == 1;
            }
            b'}' if depth == 1 => return,
            b'}' => depth -= 1,
            b',' => wants_name = depth == 1,
            byte if wants_name && !byte.is_ascii_whitespace() => {
                found.push((at + index, first_word(&rest[index..]).to_owned()));
                wants_name = false;
            }
            _ => {}
        }
    }
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Source::new(path, text), &mut findings);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn upward_and_sideways_edges_are_found() {
        for (path, text, line) in [
            ("src/base/ids.rs", "use crate::memory::Mapping;", 1),
            ("src/memory/mod.rs", "\nfn f() { crate::fabric::g() }", 2),
            ("src/control/mod.rs", "use crate::{base::Level,\n  memory::Mapping};", 2),
            ("src/fabric/tcp/queue.rs", "use super::super::super::mirror::Lane;", 1),
            ("src/mirror/lane.rs", "use crate::control::Session;", 1),
            ("src/mirror/lane.rs", "use super::super::{node::Holder};", 1),
            ("src/base/ids.rs", "use crate::Level;", 1),
            ("src/cluster/mod.rs", "use crate::replica::Pair;", 1),
            ("src/main.rs", "use crate::node::Region;", 1),
            ("src/main.rs", "mod node;", 1),
            ("src/volume/map.rs", "use crate::sim::Disk;", 1),
            ("src/attic/mod.rs", "", 1),
        ] {
            let found = findings(path, text);
            assert_eq!(found.len(), 1, "{path} {text:?}: {found:?}");
            assert!(found[0].starts_with(&format!("{path}:{line}: layers: ")), "{found:?}");
        }
    }

    #[test]
    fn downward_edges_tests_and_comments_pass() {
        for (path, text) in [
            (
                "src/fabric/shm/mod.rs",
                "use crate::memory::Mapping; use crate::{base::{Level, ids}, control::X};",
            ),
            ("src/fabric/shm/mod.rs", "use super::super::Queue; pub(in crate::fabric) fn f() {}"),
            ("src/mirror/lane.rs", "//! See [`crate::node::Region`].\nlet s = \"crate::node::X\";"),
            ("src/base/ids.rs", "#[cfg(test)]\nmod tests { use crate::node::Region; }"),
            ("src/main.rs", "mod cli; use mirrorbus::node::Region; use crate::cli::Args;"),
            ("src/cli/demo.rs", "use super::Args; use mirrorbus::Region;"),
            ("src/lib.rs", "pub use crate::base::Level;"),
            ("src/serve/nbd.rs", "use crate::node::Region; use crate::volume::Map;"),
            ("bench/src/main.rs", "use crate::report::Report;"),
        ] {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn the_table_has_no_cycle_and_no_stranger() {
        for (index, (room, below)) in ROOMS.iter().enumerate() {
            for name in *below {
                let position = ROOMS.iter().position(|(other, _)| other == name);
                assert!(
                    position.is_some_and(|position| position < index),
                    "{room} knows {name}, which is not below"
                );
            }
        }
    }
}
