//! `--keep`: commands from stdin for guests that stay on.

use std::io::{BufRead, stdin};
use std::time::Duration;

use crate::failure::{Context, Failure, Result};

use super::guest::Guest;
use super::guests::{Cut, Guests};

/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(600);

const HELP: &str = "a COMMAND | b COMMAND          run a command of the shell in that guest\n\
    cut carrier|silent|to-a|to-b   make the link fail; heal makes it whole\n\
    kill a|b, restart a|b          power\n\
    quit                           or the end of input: both off";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Run(Side, &'a str),
    Cut(Cut),
    Heal,
    Kill(Side),
    Restart(Side),
    Quit,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// Carries out lines until the last.
pub(crate) fn serve(guests: &Guests) -> Result<()> {
    guests.mend()?;
    println!("{HELP}");
    for line in stdin().lock().lines() {
        let line = line.context(|| "reading stdin".to_owned())?;
        let done = match parse(&line) {
            Some(Request::Quit) => return Ok(()),
            Some(request) => carry_out(guests, &request),
            None => Err(Failure::new(HELP.to_owned())),
        };
        if let Err(failure) = done {
            println!("{failure}");
        }
    }
    Ok(())
}

fn parse(line: &str) -> Option<Request<'_>> {
    let line = line.trim();
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let side = |word: &str| match word {
        "a" => Some(Side::A),
        "b" => Some(Side::B),
        _ => None,
    };
    Some(match (word, rest.trim()) {
        ("", _) => Request::Nothing,
        ("quit", "") => Request::Quit,
        ("heal", "") => Request::Heal,
        ("kill", name) => Request::Kill(side(name)?),
        ("restart", name) => Request::Restart(side(name)?),
        ("cut", "carrier") => Request::Cut(Cut::Carrier),
        ("cut", "silent") => Request::Cut(Cut::Silent),
        ("cut", "to-a") => Request::Cut(Cut::ToA),
        ("cut", "to-b") => Request::Cut(Cut::ToB),
        (_, "") => return None,
        (name, command) => Request::Run(side(name)?, command),
    })
}

fn carry_out(guests: &Guests, request: &Request<'_>) -> Result<()> {
    let guest = |side: Side| match side {
        Side::A => &guests.a,
        Side::B => &guests.b,
    };
    match *request {
        Request::Run(side, command) => run(guest(side), command),
        Request::Cut(how) => guests.cut(how),
        Request::Heal => guests.heal(),
        Request::Kill(side) => {
            guest(side).kill();
            Ok(())
        }
        Request::Restart(side) => guest(side).restart(),
        Request::Quit | Request::Nothing => Ok(()),
    }
}

/// Prints what a command prints as it does.
fn run(guest: &Guest, command: &str) -> Result<()> {
    let mut running = guest.spawn(command, COMMAND_MAX)?;
    while let Some(line) = running.line(COMMAND_MAX)? {
        println!("{}: {line}", guest.name);
    }
    println!("{}: {:?}", guest.name, running.wait()?.end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        for (line, request) in [
            ("a rdma link show", Some(Request::Run(Side::A, "rdma link show"))),
            ("b ls", Some(Request::Run(Side::B, "ls"))),
            (" cut to-b ", Some(Request::Cut(Cut::ToB))),
            ("heal", Some(Request::Heal)),
            ("restart b", Some(Request::Restart(Side::B))),
            ("kill a", Some(Request::Kill(Side::A))),
            ("quit", Some(Request::Quit)),
            ("", Some(Request::Nothing)),
            ("a", None),
            ("c ls", None),
            ("cut", None),
            ("cut twice", None),
            ("kill both", None),
        ] {
            assert_eq!(parse(line), request, "{line:?}");
        }
    }
}
