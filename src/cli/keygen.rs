//! `mirrorbus keygen`.

use std::path::PathBuf;

use mirrorbus::KeySet;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file to make; it must not exist. Copy it to the other side, mode 0600.
    file: PathBuf,
}

/// Makes the file.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    KeySet::create(&arguments.file)?;
    println!("made {}: copy it to the peer, readable by its user only", arguments.file.display());
    Ok(())
}
