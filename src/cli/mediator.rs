//! `mirrorbus mediator`: decide which node serves, until SIGTERM or SIGINT.
//!
//! The end is in good order: what is being written is written and answered, and nodes are told. Nothing is lost by any other end.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use mirrorbus::mediator::{Mediator, MediatorServerConfig};
use mirrorbus::{FabricUrl, KeySet};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Bounds of the refresh period.
const REFRESH_MIN: Duration = Duration::from_millis(10);
const REFRESH_MAX: Duration = Duration::from_secs(60);

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen: tcp://HOST:PORT.
    #[arg(long)]
    listen: FabricUrl,
    /// The key file that this mediator and all of its nodes have.
    #[arg(long)]
    key: PathBuf,
    /// Keep what was decided here: a directory on a disk, for this mediator alone.
    #[arg(long)]
    directory: PathBuf,
    /// How often a node that serves alone asks, as the nodes have it: 500ms, 1s.
    #[arg(long, default_value = "1s", value_parser = refresh)]
    refresh: Duration,
}

/// Reads a refresh period.
fn refresh(text: &str) -> Result<Duration, String> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => return Err("a number with its unit, as 500ms or 1s".into()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{number:?}: {error}"))?;
    let period = Duration::from_millis(number.saturating_mul(unit));
    if (REFRESH_MIN..=REFRESH_MAX).contains(&period) {
        return Ok(period);
    }
    Err(format!("{period:?}: {REFRESH_MIN:?} to {REFRESH_MAX:?}"))
}

/// Decides until it is told to end.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let keys = KeySet::load(&arguments.key)?;
    let mut config = MediatorServerConfig::new(arguments.listen.clone(), arguments.directory.clone());
    config.refresh = arguments.refresh;
    // Caught from here on, so that whoever has read the line below can end it in good order.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let mediator = Mediator::start(config, keys)?;
    println!("listening on {}", mediator.url());
    std::io::stdout().flush()?;
    log::info!("{} datasets are known", mediator.datasets());
    let signal = signals.forever().next();
    log::info!("{}", signal.and_then(signal_hook::low_level::signal_name).unwrap_or("a signal"));
    mediator.stop();
    // Nobody may be left to read it; the end is in good order all the same.
    let _ = writeln!(std::io::stdout(), "stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_period_has_a_unit_and_bounds() {
        assert_eq!(refresh("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(refresh("250ms"), Ok(Duration::from_millis(250)));
        for bad in
            ["", "1", "s", "-1s", "9ms", "61s", "1.5s", "99999999999999999999s", "18446744073709551615s"]
        {
            assert!(refresh(bad).is_err(), "{bad}");
        }
    }
}
