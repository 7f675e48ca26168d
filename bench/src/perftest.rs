//! The measurements of package `perftest` beside ours, where it is installed: other people's bare loops.
//!
//! Each program has two sides. The waiting one serves one run and ends, so it is started again and again; a pipe that this
//! process alone holds ends it with us.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// Writes of one run.
const WRITES: u32 = 1000;
/// How long the other side may take to listen, from one run to the next.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
/// How long one run may take: a side whose peer went away on the way may wait for ever.
const RUN_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks whether a run has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Runs what follows until it ends or stdin does.
const GUARD: &str = r#"exec 3<&0; "$@" & program=$!
{ read -r _ <&3; kill $program; } & guard=$!
wait $program; status=$?; kill $guard 2>/dev/null; exit $status"#;

/// A program of the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Writes to and fro, polled for in memory.
    WriteLat,
    /// As many writes as go.
    WriteBw,
}

impl Program {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::WriteLat, Self::WriteBw];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::WriteLat => "ib_write_lat",
            Self::WriteBw => "ib_write_bw",
        }
    }

    /// What its figure is.
    pub(crate) const fn figure(self) -> &'static str {
        match self {
            Self::WriteLat => "typical µs, half of a write to and fro",
            Self::WriteBw => "writes/s",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::WriteLat => 18515,
            Self::WriteBw => 18516,
        }
    }

    fn arguments(self, gid_index: u32, size: usize) -> Vec<String> {
        let (gid, size, port, writes) =
            (gid_index.to_string(), size.to_string(), self.port().to_string(), WRITES.to_string());
        ["-F", "-x", &gid, "-s", &size, "-n", &writes, "-p", &port].map(str::to_owned).to_vec()
    }

    /// Its figure, in what it prints: the line below its column's head.
    fn read(self, output: &str) -> Option<f64> {
        let head = match self {
            Self::WriteLat => "t_typical",
            Self::WriteBw => "MsgRate",
        };
        let line = output.lines().skip_while(|line| !line.contains(head)).nth(1)?;
        let mut columns = line.split_whitespace();
        match self {
            Self::WriteLat => columns.nth(4)?.parse().ok(),
            // In millions.
            Self::WriteBw => Some(columns.next_back()?.parse::<f64>().ok()? * 1e6),
        }
    }

    /// Whether it is here.
    fn check(self) -> Result<(), String> {
        match Command::new(self.name()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status()
        {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(format!("{} is not installed here (package perftest)", self.name()))
            }
            Err(error) => Err(format!("{}: {error}", self.name())),
            Ok(_) => Ok(()),
        }
    }
}

/// Starts the waiting side of `program` again and again; returns why it cannot be.
pub(crate) fn serve(program: Program, gid_index: u32, size: usize) -> Failure {
    loop {
        if let Err(why) = program.check() {
            return why.into();
        }
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", program.name()]).args(program.arguments(gid_index, size));
        match command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(mut child) => {
                // Waiting would close it, and the guard would end the program at once.
                let life = child.stdin.take();
                drop(child.wait());
                drop(life);
            }
            Err(error) => return error.into(),
        }
    }
}

/// The figure of `program` against `host`, or why there is none.
pub(crate) fn measure(program: Program, host: IpAddr, gid_index: u32, size: usize) -> Result<f64, String> {
    program.check()?;
    let until = Instant::now() + LISTENS_WITHIN;
    loop {
        let mut command = Command::new(program.name());
        command.args(program.arguments(gid_index, size)).arg(host.to_string());
        let output = run(&mut command, RUN_WITHIN).map_err(|error| format!("{}: {error}", program.name()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if let Some(figure) = program.read(&text) {
            return Ok(figure);
        }
        if Instant::now() > until {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} against {host}: {}{}", program.name(), text.trim(), errors.trim()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What `command` prints until it ends; after `most` it is killed. It prints less than a pipe holds.
fn run(command: &mut Command, most: Duration) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let until = Instant::now() + most;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_does_not_end_is_ended_and_one_that_does_is_read() {
        let echo =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), RUN_WITHIN).unwrap();
        assert_eq!(
            (echo.stdout, echo.stderr, echo.status.code()),
            (b"out\n".into(), b"err\n".into(), Some(3))
        );
        let start = Instant::now();
        let endless = run(Command::new("sleep").arg("600"), Duration::from_millis(50)).unwrap();
        assert!(endless.status.code().is_none() && start.elapsed() < RUN_WITHIN, "{:?}", endless.status);
    }

    #[test]
    fn figures_are_read() {
        let lat = " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]\n \
                   8       1000          201.10         900.00       271.50           280.00         9.1\n";
        assert_eq!(Program::WriteLat.read(lat), Some(271.5));
        let bw = " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
                  4096       1000             27.10              26.90              0.006900\n";
        assert!(Program::WriteBw.read(bw).is_some_and(|rate| (rate - 6900.0).abs() < 1e-6));
        assert_eq!(Program::WriteBw.read("Couldn't connect"), None);
    }
}
