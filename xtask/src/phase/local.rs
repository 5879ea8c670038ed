//! Shows and stops what this project started on this machine, and frees its disk.

use std::fs;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;

use crate::ctx::Ctx;
use crate::tools::local::Daemon;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Say what runs
    Status,
    /// Stop the registry, and the engine if this project started it; the images stay
    Down {
        /// Also delete the local registry's images and all other local state
        #[arg(long)]
        purge: bool,
    },
}

/// In the order in which they are stopped.
const DAEMONS: [&str; 2] = ["registry", "engine"];

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    let state = ctx.state_dir();
    match args.action {
        Action::Status => {
            let running = DAEMONS.map(|name| (name, Daemon::running(&state, name)));
            if ctx.json {
                let all: serde_json::Map<_, _> =
                    running.iter().map(|(name, it)| ((*name).to_owned(), json!(it))).collect();
                println!("{}", json!(all));
                return Ok(());
            }
            for (name, daemon) in running {
                match daemon {
                    Some(it) if it.port > 0 => {
                        println!("{name}: process {}, localhost:{}", it.pid, it.port)
                    }
                    Some(it) => println!("{name}: process {}", it.pid),
                    None => println!("{name}: not started by this project, or stopped"),
                }
            }
        }
        Action::Down { purge } => {
            for name in DAEMONS {
                if let Some(daemon) = Daemon::running(&state, name) {
                    daemon.stop(&ctx.runner, &state, name)?;
                    ctx.say(format!("{name} stopped"));
                }
            }
            if purge && ctx.runner.dry_run {
                println!("rm -r {state}");
            } else if purge && state.exists() {
                fs::remove_dir_all(&state).with_context(|| format!("cannot remove {state}"))?;
                ctx.say(format!("{state} removed"));
            }
        }
    }
    Ok(())
}
