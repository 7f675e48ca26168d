//! `mirrorbus volume`: make, list, resize and end volumes.

use mirrorbus::base::{format_bytes, parse_bytes};
use mirrorbus::serve::admin::{DatasetVolumes, Reply, Request};

use super::{Failure, Node, REFUSED, plain, print, table, unexpected};

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a volume; it is empty, and takes room as it is written to.
    Create(Create),
    /// List volumes.
    List(List),
    /// Give a volume another size, while it is in use.
    Resize(Resize),
    /// End a volume and all in it, on both nodes.
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
    /// The volume's name.
    name: String,
    /// Its size, whole blocks: 512M, 10GiB, 1T.
    #[arg(long, value_parser = parse_bytes)]
    size: u64,
    /// Bytes of its blocks: 512 or 4096.
    #[arg(long, default_value = "4096", value_parser = block)]
    block: u32,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    node: Node,
    /// The dataset; without, all.
    dataset: Option<String>,
    /// Print JSON: an array of datasets with their volumes.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Resize {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
    /// The volume's name.
    name: String,
    /// The new size, whole blocks: 512M, 10GiB, 1T.
    #[arg(long, value_parser = parse_bytes)]
    size: u64,
    /// Allow a smaller size: what lies beyond it is gone, on both nodes.
    #[arg(long)]
    shrink: bool,
}

#[derive(Debug, clap::Args)]
struct Delete {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
    /// The volume's name.
    name: String,
}

fn block(text: &str) -> Result<u32, String> {
    match parse_bytes(text)? {
        512 => Ok(512),
        4096 => Ok(4096),
        bytes => Err(format!("{bytes} bytes: 512 or 4096")),
    }
}

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    match &arguments.action {
        Action::Create(Create { node, dataset, name, size, block }) => {
            let (dataset, name, bytes) = (dataset.clone(), name.clone(), *size);
            let done = format!("made {dataset} {name}, {}\n", format_bytes(bytes));
            node.have_done(&Request::VolumeCreate { dataset, name, bytes, block_bytes: *block })?;
            print(&done)?;
        }
        Action::List(list) => print(&show(list)?)?,
        Action::Resize(resize) => {
            if !resize.shrink {
                check_growth(resize)?;
            }
            let Resize { node, dataset, name, size, .. } = resize;
            let request =
                Request::VolumeResize { dataset: dataset.clone(), name: name.clone(), bytes: *size };
            node.have_done(&request)?;
            print(&format!("{dataset} {name} has {}\n", format_bytes(*size)))?;
        }
        Action::Delete(Delete { node, dataset, name }) => {
            node.have_done(&Request::VolumeDelete { dataset: dataset.clone(), name: name.clone() })?;
            print(&format!("{dataset} {name} is deleted\n"))?;
        }
    }
    Ok(())
}

fn volumes(node: &Node, dataset: Option<String>) -> Result<Vec<DatasetVolumes>, Failure> {
    match node.ask(&Request::VolumeList { dataset })? {
        Reply::Volumes { datasets } => Ok(datasets),
        other => Err(unexpected(&other)),
    }
}

fn show(list: &List) -> Result<String, Box<dyn std::error::Error>> {
    let datasets = volumes(&list.node, list.dataset.clone())?;
    if list.json {
        return Ok(serde_json::to_string_pretty(&datasets)? + "\n");
    }
    let mut text = String::new();
    for DatasetVolumes { dataset, volumes } in &datasets {
        text.push_str(&format!("{}:\n", plain(dataset)));
        table::volumes(&mut text, volumes);
    }
    Ok(text)
}

/// A smaller size by a slip of the finger would cut data off.
fn check_growth(resize: &Resize) -> Result<(), Failure> {
    let datasets = volumes(&resize.node, Some(resize.dataset.clone()))?;
    let found =
        datasets.iter().flat_map(|dataset| &dataset.volumes).find(|volume| volume.name == resize.name);
    match found {
        Some(volume) if volume.bytes > resize.size => {
            let text = format!(
                "{} {} has {} now: {} would cut off what lies beyond, on both nodes; to do so add --shrink",
                resize.dataset,
                resize.name,
                format_bytes(volume.bytes),
                format_bytes(resize.size)
            );
            Err(Failure { status: REFUSED, text })
        }
        // The node itself says that there is no such volume.
        Some(_) | None => Ok(()),
    }
}
