//! The holder of the demonstration on another machine, started by a command such as `ssh HOST`.
//!
//! ```text
//! parent ── over (ssh, …) ── shell over there: key and list of files from its input into a directory of its own,
//!                            then `mirrorbus demo-hold` on the rest of the input; the directory goes in the end
//! ```
//!
//! Its input ends when this process does, however that ends, and by that the holder.

use std::ffi::OsStr;
use std::path::Path;

use mirrorbus::FabricUrl;

use super::child::Child;

/// How a command of the shell is run over there.
#[derive(Debug, Clone)]
pub(super) struct Over(pub(super) String);

impl Over {
    /// Starts a holder there, with a copy of the files `key` and `plan`.
    ///
    /// # Errors
    /// It does not start, or one of the files cannot be read.
    pub(super) fn start_holder(&self, listen: &FabricUrl, key: &Path, plan: &Path) -> Result<Child, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let (key_bytes, plan_bytes) = (read(key)?, read(plan)?);
        let directory = key.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let script = script(&directory, key_bytes.len(), plan_bytes.len(), &listen.to_string());
        let run = format!("{} \"$0\"", self.0);
        let words = ["-c", run.as_str(), script.as_str()].map(OsStr::new);
        let mut holder = Child::start_program("holder", Path::new("/bin/sh"), &words)
            .map_err(|error| format!("{:?}: {error}", self.0))?;
        holder.give(&[key_bytes, plan_bytes].concat());
        Ok(holder)
    }
}

/// What the shell over there carries out, in one line.
fn script(directory: &str, key_bytes: usize, plan_bytes: usize, listen: &str) -> String {
    // In one go: a `head` may read more than it was asked for, and nothing more comes before the holder has answered.
    let both = key_bytes + plan_bytes;
    let (directory, listen) = (quoted(&format!("/tmp/{directory}-holder")), quoted(listen));
    format!(
        "umask 077; d={directory}; mkdir \"$d\" || exit 1; trap 'rm -rf \"$d\"' EXIT; trap 'exit 1' HUP INT TERM; \
         head -c {both} >\"$d/both\" && head -c {key_bytes} \"$d/both\" >\"$d/key\" && \
         tail -c {plan_bytes} \"$d/both\" >\"$d/plan\" && \
         mirrorbus demo-hold --listen {listen} --key \"$d/key\" --plan \"$d/plan\""
    )
}

/// One word of the shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_one_line_and_its_words_stay_whole() {
        let script = script("mirrorbus-demo-1", 10, 20, "tcp://it's;here:1");
        assert!(!script.contains('\n'), "{script}");
        assert!(script.contains(r"--listen 'tcp://it'\''s;here:1'"), "{script}");
        assert!(script.contains("head -c 30 >") && script.contains("tail -c 20"), "{script}");
        let echo = format!("printf %s {}", quoted("a 'b' $c"));
        let output = std::process::Command::new("sh").args(["-c", &echo]).output().expect("a shell");
        assert_eq!(output.stdout, b"a 'b' $c");
    }
}
