//! Rule `unsafe`: only where raw memory is the subject, and each use argued for.
//!
//! The compiler enforces the first half too (`deny(unsafe_code)` at the crate's root), but an `#[allow]` is one line
//! and easily reviewed past; [`PLACES`] is the one list that has to be changed knowingly.

use super::Finding;
use super::source::Source;

const RULE: &str = "unsafe";

/// Path prefixes under which `unsafe` may stand, each with the reason.
const PLACES: &[(&str, &str)] = &[
    ("src/memory/", "mappings are made of raw memory"),
    ("src/fabric/shm/", "a provider maps its peer's memory"),
    ("src/fabric/verbs/", "a provider speaks to the device"),
    ("ffi/", "C calls in"),
    ("examples/04_epochs.rs", "a program stores through a plain pointer"),
    ("tests/allocations", "a counting allocator"),
    ("bench/src/limit/shm.rs", "the limit is bare copies between bare mappings"),
];

/// Checks one file.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let allowed = PLACES.iter().any(|(place, _)| source.path.starts_with(place));
    for offset in source.words("unsafe") {
        let line = source.line_of(offset);
        let after = source.code[offset + "unsafe".len()..].trim_start();
        if !allowed {
            let message = "not allowed in this file (the places are in xtask/src/tidy/unsafety.rs)";
            findings.push(Finding::new(source, line, RULE, message.to_owned()));
        } else if needs_argument(after) && !is_argued(source, line) {
            let message = "no `// SAFETY:` or `# Safety` right above that names the invariant";
            findings.push(Finding::new(source, line, RULE, message.to_owned()));
        }
    }
}

/// All uses but a function pointer's type and an unsafe attribute, which the definition argues for.
fn needs_argument(after: &str) -> bool {
    let pointer = after.strip_prefix("fn").is_some_and(|rest| rest.trim_start().starts_with('('));
    let pointer = pointer || (after.starts_with("extern") && after.contains("fn(") && !after.contains("fn "));
    !pointer && !after.starts_with('(')
}

/// Looks upward from the line, past attributes and the earlier lines of the same statement.
fn is_argued(source: &Source, line: usize) -> bool {
    let argues = |text: &str| text.contains("// SAFETY: ") || text.contains("# Safety");
    for above in (1..line).rev() {
        let text = source.line(above).trim();
        if text.starts_with("//") {
            if argues(text) {
                return true;
            }
            continue;
        }
        let code = source.code_line(above).trim();
        let attribute = code.starts_with("#[") && code.ends_with(']');
        if !attribute && (code.is_empty() || code.ends_with([';', '{', '}', ','])) {
            return false;
        }
    }
    false
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
    fn outside_its_places_it_is_found() {
        let argued = "// SAFETY: it is fine\nunsafe { f() };";
        for path in [
            "src/base/ids.rs",
            "src/fabric/tcp/mod.rs",
            "src/memorys.rs",
            "bench/src/main.rs",
            "tests/kill.rs",
        ] {
            assert_eq!(findings(path, argued).len(), 1, "{path}");
        }
        for path in ["src/memory/copy.rs", "src/fabric/shm/ring.rs", "tests/allocations.rs", "ffi/src/lib.rs"]
        {
            assert_eq!(findings(path, argued), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn without_an_argument_it_is_found() {
        for text in [
            "unsafe { f() };",
            "// fine\nunsafe { f() };",
            "// SAFETY: a\nunsafe impl Send for A {}\nunsafe impl Sync for A {}",
            "/// Does.\npub unsafe fn f() {}",
            "// SAFETY: for g\ng();\nlet x = unsafe { f() };",
        ] {
            let found = findings("src/memory/a.rs", text);
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert!(found[0].contains(": unsafe: no `// SAFETY:`"));
        }
    }

    #[test]
    fn with_an_argument_it_passes() {
        for text in [
            "// SAFETY: a\n// and more\nunsafe { f() };",
            "// SAFETY: a\nlet x =\n    unsafe { f() };",
            "/// # Safety\n/// `a` is mapped.\n#[inline]\npub unsafe fn f(a: *mut u8) {}",
            "type F = unsafe fn(u8);\n#![deny(unsafe_code)]\n// unsafe { in a comment }",
        ] {
            assert_eq!(findings("src/memory/a.rs", text), Vec::<String>::new(), "{text:?}");
        }
    }
}
