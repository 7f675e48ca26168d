//! A port of a guest, through which it is told what to run, and a command that runs there.
//!
//! The guest's side is `serve` in `init.sh`. A port carries one command at a time; a thread reads what it prints until
//! its end, and then gives the port back. When the guest's power is lost, the FIFO ends, and so does the command.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, Result};

/// What is waited beyond a command's limit, at which the guest itself kills it.
const GRACE: Duration = Duration::from_secs(10);

/// An open port, not in use.
#[derive(Debug)]
pub(crate) struct Port {
    to: File,
    from: BufReader<File>,
}

impl Port {
    /// Opens the FIFOs, of which QEMU must have the other ends already.
    pub(crate) fn open([to, from]: &[PathBuf; 2]) -> Result<Self> {
        let to = File::options().write(true).open(to).context(|| format!("opening {}", to.display()))?;
        let from = File::open(from).context(|| format!("opening {}", from.display()))?;
        Ok(Self { to, from: BufReader::new(from) })
    }

    /// Asks for a script to be run, which the guest kills after `limit`. `done` gets the port back.
    pub(crate) fn start(
        mut self,
        id: u64,
        script: &[u8],
        limit: Duration,
        done: impl FnOnce(Self) + Send + 'static,
    ) -> Result<Running> {
        let request = format!("{id} {} {}\n", limit.as_secs().max(1), script.len());
        let what = || "the guest does not listen".to_owned();
        self.to.write_all(request.as_bytes()).context(what)?;
        self.to.write_all(script).context(what)?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            if relay(&mut self.from, id, &sender).is_none() {
                let _ = sender.send(Event::End(End::PowerLost));
                return;
            }
            done(self);
        });
        Ok(Running { id, events, output: Vec::new(), end: None, last: Instant::now() + limit + GRACE })
    }
}

/// Passes on what the guest writes between the two marks; `None` if it ended before.
fn relay(from: &mut impl BufRead, id: u64, events: &Sender<Event>) -> Option<()> {
    let (begin, end) = (format!("BEGIN {id}\n"), format!("END {id} "));
    let mut begun = false;
    loop {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line).ok()?;
        if !line.ends_with(b"\n") {
            return None;
        }
        if !begun {
            begun = line == begin.as_bytes();
        } else if let Some(status) = line.strip_prefix(end.as_bytes()) {
            let status = String::from_utf8_lossy(status).trim().parse().ok()?;
            let _ = events.send(Event::End(End::Exit(status)));
            return Some(());
        } else {
            // Nobody may be listening any more; the end is still to be read.
            let _ = events.send(Event::Line(line));
        }
    }
}

#[derive(Debug)]
enum Event {
    Line(Vec<u8>),
    End(End),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status; above 128 by a signal, 137 also at its limit.
    Exit(i32),
    /// With the guest.
    PowerLost,
}

/// What a command printed, on both outputs, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
}

impl Output {
    /// What it printed.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// What it printed, if it exited with 0.
    pub(crate) fn success(self) -> Result<String> {
        match self.end {
            End::Exit(0) => Ok(self.text()),
            end => Err(Failure::new(format!("{end:?}: {}", self.text()))),
        }
    }
}

/// A command that runs in a guest. It goes on when this is dropped, until its limit.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its number: the guest has its process in `/run/process.ID`.
    pub(crate) id: u64,
    events: Receiver<Event>,
    output: Vec<u8>,
    end: Option<End>,
    /// When the guest must have ended it.
    last: Instant,
}

impl Running {
    /// The next line that it prints, without its end; none when it ended before.
    pub(crate) fn line(&mut self, within: Duration) -> Result<Option<String>> {
        if self.end.is_some() {
            return Ok(None);
        }
        match self.events.recv_timeout(within) {
            Ok(Event::Line(line)) => {
                self.output.extend_from_slice(&line);
                Ok(Some(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()))
            }
            Ok(Event::End(end)) => {
                // The newline in front of the end's mark is not of the command.
                self.output.pop();
                self.end = Some(end);
                Ok(None)
            }
            Err(RecvTimeoutError::Timeout) => {
                let so_far = String::from_utf8_lossy(&self.output);
                Err(Failure::new(format!("it printed nothing more within {within:?}, after: {so_far}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Failure::new("its reader is gone".to_owned())),
        }
    }

    /// What follows `beginning` in the next line that begins so.
    pub(crate) fn line_after(&mut self, beginning: &str, within: Duration) -> Result<String> {
        let until = Instant::now() + within;
        while let Some(line) = self.line(until.saturating_duration_since(Instant::now()))? {
            if let Some(rest) = line.strip_prefix(beginning) {
                return Ok(rest.to_owned());
            }
        }
        let output = String::from_utf8_lossy(&self.output);
        Err(Failure::new(format!("it ended ({:?}) without a line {beginning:?}: {output}", self.end)))
    }

    /// Takes what it has printed so far, without waiting for more.
    pub(crate) fn catch_up(&mut self) {
        while let Ok(Some(_)) = self.line(Duration::ZERO) {}
    }

    /// Waits for its end: all that it printed.
    pub(crate) fn wait(mut self) -> Result<Output> {
        while self.line(self.last.saturating_duration_since(Instant::now()))?.is_some() {}
        let end = self.end.expect("no more lines: it has ended");
        Ok(Output { bytes: self.output, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &str) -> Running {
        let (sender, events) = channel();
        if relay(&mut bytes.as_bytes(), 7, &sender).is_none() {
            sender.send(Event::End(End::PowerLost)).unwrap();
        }
        Running { id: 7, events, output: Vec::new(), end: None, last: Instant::now() }
    }

    #[test]
    fn what_stands_between_the_marks_is_the_output() {
        let mut running = of("left over\nBEGIN 7\none\nready at x\nhalf\nEND 7 3\n");
        assert_eq!(running.line_after("ready at ", Duration::ZERO).unwrap(), "x");
        let output = running.wait().unwrap();
        assert_eq!((output.text().as_str(), output.end), ("one\nready at x\nhalf", End::Exit(3)));
        assert!(output.success().unwrap_err().to_string().contains("half"));
        let empty = of("BEGIN 7\n\nEND 7 0\n").wait().unwrap();
        assert_eq!(empty.success().unwrap(), "");
    }

    #[test]
    fn a_guest_that_is_gone_ends_its_commands() {
        for bytes in ["", "BEGIN 7\n", "BEGIN 7\nEND 7", "BEGIN 6\n\nEND 6 0\n"] {
            assert_eq!(of(bytes).wait().unwrap().end, End::PowerLost, "{bytes:?}");
        }
        assert!(of("BEGIN 7\nend\n").line_after("ready", Duration::ZERO).is_err());
    }
}
