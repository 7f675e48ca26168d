//! `mirrorbus doctor`: what mirroring needs of a machine, whether it is there, and how to mend it.
//!
//! A feature is tested by using it, not by the kernel's version: distributions carry features back, containers and
//! hardened kernels take them away. `FAIL` is what a fabric cannot work without; `warn` costs speed or size.

mod kernel;
mod machine;
mod memory;
mod rdma;
mod tracking;

use std::borrow::Cow;
use std::fmt;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON: an array of objects with the keys state, what, found, fix.
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warn,
    Fail,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// Words that mostly are known beforehand.
type Words = Cow<'static, str>;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    state: State,
    what: Words,
    found: String,
    /// Empty when there is nothing to mend.
    fix: Words,
}

impl Finding {
    fn ok(what: impl Into<Words>, found: impl Into<String>) -> Self {
        Self { state: State::Ok, what: what.into(), found: found.into(), fix: "".into() }
    }

    fn warn(what: impl Into<Words>, found: impl Into<String>, fix: impl Into<Words>) -> Self {
        Self::judged(false, State::Warn, what, found, fix)
    }

    fn fail(what: impl Into<Words>, found: impl Into<String>, fix: impl Into<Words>) -> Self {
        Self::judged(false, State::Fail, what, found, fix)
    }

    /// `ok` when `good`, else `bad` with its fix.
    fn judged(
        good: bool,
        bad: State,
        what: impl Into<Words>,
        found: impl Into<String>,
        fix: impl Into<Words>,
    ) -> Self {
        if good {
            return Self::ok(what, found);
        }
        Self { state: bad, what: what.into(), found: found.into(), fix: fix.into() }
    }

    fn json(&self) -> String {
        let [state, what, found, fix] =
            [&self.state.to_string(), &*self.what, &self.found, &self.fix].map(json_string);
        format!("{{\"state\": {state}, \"what\": {what}, \"found\": {found}, \"fix\": {fix}}}")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}  {}: {}", self.state, self.what, self.found)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, " — {}", self.fix) }
    }
}

/// Looks at everything, prints it; an error when something failed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // What is tried out here may be refused, and the library would warn of it a second time.
    log::set_max_level(log::LevelFilter::Error);
    let findings = [memory::look(), tracking::look(), kernel::look(), machine::look(), rdma::look()].concat();
    if arguments.json {
        let objects: Vec<_> = findings.iter().map(Finding::json).collect();
        println!("[\n  {}\n]", objects.join(",\n  "));
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    let failed: Vec<_> = findings
        .iter()
        .filter(|finding| finding.state == State::Fail)
        .map(|finding| &*finding.what)
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("this machine lacks: {}", failed.join(", ")).into()) }
}

/// The first number behind `name` in a file of lines such as `/proc/meminfo`.
fn figure(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn json_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if u32::from(control) < 0x20 => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(control)))
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_and_json() {
        let good = Finding::judged(true, State::Fail, "a thing", "there", "get it");
        assert_eq!(good.to_string(), "ok    a thing: there");
        let bad = Finding::judged(false, State::Fail, "a \"thing\"", "no\n\\", "get it");
        assert_eq!(bad.to_string(), "FAIL  a \"thing\": no\n\\ — get it");
        let json = r#"{"state": "FAIL", "what": "a \"thing\"", "found": "no\u000a\\", "fix": "get it"}"#;
        assert_eq!(bad.json(), json);
        assert_eq!(figure("MemFree: 1 kB\nMemAvailable:  23 kB", "MemAvailable:"), Some(23));
        assert_eq!(figure("MemFree: 1 kB", "MemAvailable:"), None);
    }
}
