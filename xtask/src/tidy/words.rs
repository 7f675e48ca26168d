//! Rule `words`: what does not belong in finished code.
//!
//! Unfinished work and debugging aids nowhere, tests included; sleeping and printing not in the library, whose waits
//! are for an event with a deadline and whose voice is `log`.

use super::Finding;
use super::source::Source;

const RULE: &str = "words";

/// Looked for in the code of every file.
const NOWHERE: &[(&str, &str)] = &[
    ("todo!", "unfinished"),
    ("unimplemented!", "unfinished"),
    ("dbg!", "left from debugging"),
    ("#[ignore", "a test that does not run proves nothing"),
];

/// Looked for in the code of the library, outside tests.
const NOT_IN_THE_LIBRARY: &[(&str, &str)] = &[
    ("println!", "the library speaks through `log`"),
    ("print!", "the library speaks through `log`"),
    ("eprintln!", "the library speaks through `log`"),
    ("eprint!", "the library speaks through `log`"),
];

/// Files of `src/` that may sleep, each with the reason.
const SLEEPERS: &[(&str, &str)] = &[
    ("src/cli/soft_roce.rs", "nothing tells a program that a port in /sys became active"),
    (
        "src/epoch/ship.rs",
        "nothing tells an owner that the holder has applied: over one-sided media it looks",
    ),
    ("src/cli/demo/store/nodes.rs", "nothing tells that two nodes both are mirrored: each is asked"),
];

/// Looked for in the comments of every file. Assembled, so that this line is not found.
const UNFINISHED: &str = concat!("FIX", "ME");

/// Checks one file.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let mut report = |offset: usize, what: &str, why: &str| {
        findings.push(Finding::new(source, source.line_of(offset), RULE, format!("`{what}`: {why}")));
    };
    for (word, why) in NOWHERE {
        // The attribute begins with no letter, so it has no word boundary in front.
        source
            .code
            .match_indices(word)
            .filter(|(at, _)| starts_word(source, *at))
            .for_each(|(at, _)| report(at, word, why));
    }
    source.comments.match_indices(UNFINISHED).for_each(|(at, word)| report(at, word, "unfinished"));
    if !source.path.starts_with("src/") {
        return;
    }
    let program = source.path == "src/main.rs" || source.path.starts_with("src/cli");
    for (word, why) in NOT_IN_THE_LIBRARY.iter().filter(|_| !program) {
        source.words(word).filter(|&at| !source.is_test(at)).for_each(|at| report(at, word, why));
    }
    if !SLEEPERS.iter().any(|(path, _)| *path == source.path) {
        for at in source.words("sleep").filter(|&at| !source.is_test(at) && is_sleep(source, at)) {
            report(at, "thread::sleep", "wait for the event, with a deadline");
        }
    }
}

fn starts_word(source: &Source, at: usize) -> bool {
    let before = source.code[..at].bytes().next_back();
    before.is_none_or(|byte| !super::mask::is_word(byte))
}

/// `thread::sleep`, or a call or an import of a bare `sleep`; not a method or a definition of that name.
fn is_sleep(source: &Source, at: usize) -> bool {
    let before = source.code[..at].trim_end();
    let after = source.code[at + "sleep".len()..].trim_start();
    if before.ends_with("thread::") {
        return true;
    }
    let imported = source.code[..at].rfind(';').map_or(&source.code[..at], |end| &source.code[end..at]);
    let imported = imported.contains("thread::{");
    imported
        || (after.starts_with('(')
            && !before.ends_with('.')
            && !before.ends_with("fn")
            && !before.ends_with("::"))
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
    fn each_word_is_found() {
        let unfinished = format!("// {UNFINISHED} later");
        for text in [
            "fn f() { todo!() }",
            "unimplemented!();",
            "dbg!(x);",
            "#[ignore]\nfn t() {}",
            "#[ignore = \"slow\"]",
            &unfinished,
        ] {
            for path in ["src/base/a.rs", "tests/a.rs", "xtask/src/a.rs"] {
                assert_eq!(findings(path, text).len(), 1, "{path} {text:?}");
            }
        }
        for text in [
            "println!();",
            "print!();",
            "eprintln!();",
            "eprint!();",
            "std::thread::sleep(d);",
            "use std::thread::{self, sleep};",
            "sleep(d);",
        ] {
            assert_eq!(findings("src/node/a.rs", text).len(), 1, "{text:?}");
        }
        assert_eq!(
            findings("src/base/a.rs", "\n\ndbg!(x);"),
            ["src/base/a.rs:3: words: `dbg!`: left from debugging"]
        );
    }

    #[test]
    fn their_proper_places_pass() {
        for (path, text) in [
            ("src/main.rs", "println!();"),
            ("src/cli/demo.rs", "eprintln!();"),
            ("xtask/src/main.rs", "println!(); std::thread::sleep(d);"),
            ("tests/kill.rs", "std::thread::sleep(d);"),
            ("src/base/a.rs", "#[cfg(test)]\nmod tests { fn f() { println!(); std::thread::sleep(d); } }"),
            (
                "src/base/a.rs",
                "// todo! println! thread::sleep\nlet a = \"dbg!(x)\"; asleep(); queue.sleep(); Armed::sleep();",
            ),
        ] {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{path} {text:?}");
        }
    }
}
