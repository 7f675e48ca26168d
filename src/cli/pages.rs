//! Manual pages and completions, of the options themselves: for those who install the program. Other programs of the project take this
//! file too.

use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;

/// What it takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Where the folders `man` and `completions` are made.
    directory: PathBuf,
}

/// Writes a page for the program and for each of its commands, and completions for bash, zsh and fish.
pub(crate) fn write(command: clap::Command, arguments: &Arguments) -> std::io::Result<()> {
    let folders = ["man", "completions"].map(|name| arguments.directory.join(name));
    folders.iter().try_for_each(fs::create_dir_all)?;
    let [man, completions] = folders;
    let mut command = command.disable_help_subcommand(true);
    let name = command.get_name().to_owned();
    clap_mangen::generate_to(command.clone(), man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, &completions)?;
    }
    Ok(())
}
