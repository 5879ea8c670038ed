//! Prints a completion script. Refuses shells that clap cannot complete for.

use anyhow::Result;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell to complete in
    pub shell: clap_complete::Shell,
}

pub fn run(args: &Args, definition: &clap::Command) -> Result<()> {
    clap_complete::generate(args.shell, &mut definition.clone(), "cargo-xtask", &mut std::io::stdout());
    Ok(())
}
