//! The `mirrorbus` program: be a holder, make keys, look at the machine, see the whole at work.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
