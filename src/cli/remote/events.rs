//! `mirrorbus events`: what happened on a node since its start, and what happens.

use std::time::Duration;

use mirrorbus::Deadline;
use mirrorbus::serve::admin::{Event, Reply, Request};

use super::{Failure, Node, STATUS_PATIENCE, plain, print, unexpected};

/// The longest wait for an event before the next; there is nothing to do in between.
const LOOK: Duration = Duration::from_secs(60);

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: Node,
    /// Go on with what happens from now on, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Only those after the event of this number.
    #[arg(long, default_value_t = 0)]
    since: u64,
    /// Print JSON: one object a line.
    #[arg(long)]
    json: bool,
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = arguments.node.connect()?;
    let mut since = arguments.since;
    // Without --follow they come in pieces, each of which is asked for.
    loop {
        let request = Request::Events { since, follow: false };
        match client.ask(&request, Deadline::within(STATUS_PATIENCE)).map_err(Failure::from)? {
            Reply::Events { events, .. } if events.is_empty() => break,
            Reply::Events { events, next } => {
                show(&events, arguments.json)?;
                since = next;
            }
            other => return Err(unexpected(&other).into()),
        }
    }
    if !arguments.follow {
        return Ok(());
    }
    client
        .send(&Request::Events { since, follow: true }, Deadline::within(STATUS_PATIENCE))
        .map_err(Failure::from)?;
    loop {
        match client.next(Deadline::within(LOOK)).map_err(Failure::from)? {
            Some(Reply::Events { events, .. }) => show(&events, arguments.json)?,
            Some(other) => return Err(unexpected(&other).into()),
            None => {}
        }
    }
}

fn show(events: &[Event], json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    for event in events {
        let line = if json { serde_json::to_string(event)? } else { describe(event) };
        text.push_str(&line);
        text.push('\n');
    }
    Ok(print(&text)?)
}

fn describe(event: &Event) -> String {
    let dataset = event.dataset.as_deref().unwrap_or("-");
    let Event { sequence, time_ms, kind, text, .. } = event;
    format!("{sequence:>6}  {}  {:<16} {:<20} {}", utc(*time_ms), plain(dataset), plain(kind), plain(text))
}

/// A moment as RFC 3339 writes it, in UTC.
pub(super) fn utc(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// The date `days` after 1970-01-01, by the Gregorian calendar. Years are counted from March, so that the day of a leap year is its
/// last, and in eras of 400, which are equally long.
const fn date(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / (ERA_DAYS - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}
