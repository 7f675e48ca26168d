//! `mirrorbus node`: serve datasets, until SIGTERM, SIGINT or the admin socket asks for the end.
//!
//! The end is in good order: requests under way are answered, what was taken becomes durable, the maps are written. A second signal
//! ends at once; a restart replays what that cuts short.

use std::io::Write;
use std::path::PathBuf;

use mirrorbus::serve::Node;
use mirrorbus::serve::admin::{ServiceState, notify_service_manager};
use mirrorbus::serve::config::NodeConfig;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration: `mirrorbus config check FILE` says whether it is right.
    #[arg(long)]
    config: PathBuf,
}

/// Serves until it is told to end.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = NodeConfig::load(&arguments.config)?;
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let node = Node::start(&config)?;
    let stop = node.stopper();
    let handle = signals.handle();
    let waiting = std::thread::Builder::new().name("mirrorbus-signal".into()).spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            stop();
        }
        if signals.next().is_some() {
            log::warn!("a second signal: ends at once");
            std::process::exit(1);
        }
    })?;
    for endpoint in node.endpoints() {
        println!("nbd on {endpoint}");
    }
    println!("node {:?} runs, admin socket {}", config.name, config.admin.display());
    std::io::stdout().flush()?;
    notify(&ServiceState::Ready);
    node.run();
    notify(&ServiceState::Stopping);
    node.stop();
    handle.close();
    let _ = waiting.join();
    // Nobody may be left to read it; the end is in good order all the same.
    let _ = writeln!(std::io::stdout(), "stopped");
    Ok(())
}

fn notify(state: &ServiceState) {
    if let Err(error) = notify_service_manager(state) {
        log::warn!("the service manager was not told {state:?}: {error}");
    }
}
