//! Prints a completion script. Refuses shells that clap cannot complete for.

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::Cli;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell to complete in
    pub shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<()> {
    clap_complete::generate(args.shell, &mut Cli::command(), "cargo-xtask", &mut std::io::stdout());
    Ok(())
}
