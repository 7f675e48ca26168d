//! `mirrorbus config`: whether a configuration is right, before a node is started with it.

use std::path::PathBuf;

use mirrorbus::base::format_bytes;
use mirrorbus::serve::config::{DatasetConfig, EtcdConfig, MediatorConfig, NodeConfig};

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read a node's configuration; the first mistake, with its line, if there is one.
    Check {
        /// The TOML file.
        file: PathBuf,
    },
}

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let Action::Check { file } = &arguments.action;
    let NodeConfig { name, datasets, .. } = NodeConfig::load(file)?;
    println!("{} is right: node {name}", file.display());
    for DatasetConfig { name, listen, peer, region_bytes, durability, mediator, etcd, .. } in &datasets {
        let ring = format_bytes(*region_bytes);
        println!("  dataset {name}: a ring of {ring}, here {listen}, peer {peer}, durability {durability}");
        if let Some(MediatorConfig { address, preferred, .. }) = mediator {
            let preferred = preferred.as_deref().unwrap_or("whichever serves");
            println!("  dataset {name}: mediator {address}, preferred {preferred}");
        }
        if let Some(EtcdConfig { endpoints, prefix, preferred, .. }) = etcd {
            let (endpoints, preferred) =
                (endpoints.join(", "), preferred.as_deref().unwrap_or("whichever serves"));
            println!("  dataset {name}: etcd {endpoints}, keys {prefix}, preferred {preferred}");
        }
    }
    Ok(())
}
