//! The commands.

mod config;
mod dataset_id;
mod demo;
mod doctor;
mod hold;
mod keygen;
mod mediator;
mod node;
mod pages;
mod remote;
mod soft_roce;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Memory mirroring: every store into a region reaches a peer's memory.
#[derive(Debug, Parser)]
#[command(name = "mirrorbus", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the peer: keep a copy of a region for an owner.
    Hold(hold::Arguments),
    /// Decide which node of each pair serves, when they cannot ask one another.
    Mediator(mediator::Arguments),
    /// Serve volumes of datasets, one side of each pair.
    Node(node::Arguments),
    /// Make a key file.
    Keygen(keygen::Arguments),
    /// See it at work: stream files, or copy a disk image, kill whoever stores it half-way, prove what the other has, go on.
    Demo(demo::Arguments),
    /// Look at this machine: what mirroring needs, what was found, how to mend it.
    Doctor(doctor::Arguments),
    /// Tell how a running node is.
    Status(remote::status::Arguments),
    /// Make, list, resize and end volumes of a running node.
    Volume(remote::volume::Arguments),
    /// Make a running node the primary of a dataset.
    Promote(remote::operate::Promote),
    /// Let a primary go on without its peer.
    Alone(remote::operate::Alone),
    /// Let a new and empty node take the place of a dataset's peer.
    ReplacePeer(remote::operate::ReplacePeer),
    /// Give the mediator of a dataset the configuration that a running node has.
    Seed(remote::operate::Seed),
    /// Hand the service over to the other node, without a failed request.
    Switch(remote::operate::Switch),
    /// Tell whether a running node may be stopped now: exit status 0 if it may, 1 if not.
    CanStop(remote::can_stop::Arguments),
    /// Compare all that a running node has stored with its checksums, and repair it from its peer.
    Scrub(remote::check::Scrub),
    /// Compare what both nodes of a dataset have stored.
    Verify(remote::check::Verify),
    /// Tell what happened on a running node.
    Events(remote::events::Arguments),
    /// Check a node's configuration.
    Config(config::Arguments),
    /// Print a new id for a dataset.
    DatasetId,
    /// Make an RDMA device of software, for machines without RDMA hardware.
    SoftRoce(soft_roce::Arguments),
    #[command(hide = true)]
    Pages(pages::Arguments),
    #[command(hide = true)]
    DemoHold(demo::holder::Arguments),
    #[command(hide = true)]
    DemoOwn(demo::owner::Arguments),
    #[command(hide = true)]
    DemoNode(node::Arguments),
}

/// Runs what the command line asks for.
pub(crate) fn run() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let result = match Arguments::parse().command {
        Command::Hold(arguments) => hold::run(&arguments),
        Command::Mediator(arguments) => mediator::run(&arguments),
        Command::Node(arguments) => node::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Status(arguments) => remote::status::run(&arguments),
        Command::Volume(arguments) => remote::volume::run(&arguments),
        Command::Promote(arguments) => remote::operate::promote(&arguments),
        Command::Alone(arguments) => remote::operate::alone(&arguments),
        Command::ReplacePeer(arguments) => remote::operate::replace_peer(&arguments),
        Command::Seed(arguments) => remote::operate::seed(&arguments),
        Command::Switch(arguments) => remote::operate::switch(&arguments),
        Command::CanStop(arguments) => remote::can_stop::run(&arguments),
        Command::Scrub(arguments) => remote::check::scrub(&arguments),
        Command::Verify(arguments) => remote::check::verify(&arguments),
        Command::Events(arguments) => remote::events::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::DatasetId => dataset_id::run(),
        Command::SoftRoce(arguments) => soft_roce::run(&arguments),
        Command::Pages(arguments) => pages::write(Arguments::command(), &arguments).map_err(Into::into),
        Command::DemoHold(arguments) => demo::holder::run(&arguments),
        Command::DemoOwn(arguments) => demo::owner::run(&arguments),
        Command::DemoNode(arguments) => demo::store::node::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mirrorbus: {error}");
            match error.downcast_ref::<remote::Failure>() {
                Some(failure) => ExitCode::from(failure.status),
                None => ExitCode::FAILURE,
            }
        }
    }
}
