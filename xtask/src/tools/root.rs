//! Commands that need root: as they are, or through sudo where that asks for no password, as on hosted runners.

use anyhow::Result;

use crate::tools::command::{Cmd, cmd};

use super::runner::Runner;

fn is_root(runner: &Runner) -> Result<bool> {
    Ok(runner.read(&cmd!("id -u"))?.trim() == "0")
}

/// True if [`as_root`] can succeed.
pub fn is_available(runner: &Runner) -> Result<bool> {
    Ok(is_root(runner)? || runner.probe(&cmd!("sudo --non-interactive true")).is_some())
}

/// The command as root. sudo clears the environment, so the command's own variables follow it; a secret never does.
pub fn as_root(runner: &Runner, cmd: Cmd) -> Result<Cmd> {
    if is_root(runner)? {
        return Ok(cmd);
    }
    let mut sudo = cmd!("sudo --non-interactive");
    if !cmd.env.is_empty() {
        sudo = sudo.arg("env").args(cmd.env.iter().map(|(name, value)| format!("{name}={value}")));
    }
    sudo = sudo.arg(cmd.program).args(cmd.args);
    Ok(match cmd.stdin {
        Some(text) => sudo.stdin(text),
        None => sudo,
    })
}
