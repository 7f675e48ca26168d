//! `mirrorbus demo-node`: `mirrorbus node`, which ends when whoever started it has.

use crate::cli::node::{self, Arguments};

/// Serves until it is told to end, or its input ends.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    std::thread::Builder::new().name("hear-parent".into()).spawn(|| {
        // Nothing is said to it; the input ends with the parent, however that ends.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(1);
    })?;
    node::run(arguments)
}
