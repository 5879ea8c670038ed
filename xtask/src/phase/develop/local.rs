//! Shows and stops what this project started on this machine, and frees its disk. Refuses to touch a process or a
//! folder that this project did not make.

use std::fs;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use crate::bench::lab;
use crate::context::Context;
use crate::image::disk::EngineDisk;
use crate::model::build_cache;
use crate::output;
use crate::tools::command::cmd;
use crate::tools::docker;
use crate::tools::local::{self, Daemon};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start the registry of this machine
    Up,
    /// Show what runs
    Status,
    /// Free the disk of what nothing needs: this project's build cache, pulled images, what `prune` deleted
    Gc,
    /// Stop the registry, and the engine if this project started it; the images stay
    Down {
        /// Also delete the local registry's images, this project's build cache and all other local state
        #[arg(long)]
        purge: bool,
    },
}

/// In the order in which they are stopped.
const DAEMONS: [&str; 2] = ["registry", "engine"];

/// Removes the engine's copies of the local registry's images, which smoke tests pulled. Other images stay.
fn forget_images(ctx: &Context) -> Result<()> {
    let Some(host) = ctx.running_registry() else { return Ok(()) };
    let format = "--format={{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}";
    let Some(listed) = ctx.runner.probe(&cmd!("docker image ls --digests {format}")) else {
        return Ok(());
    };
    let ours = |line: &&str| line.starts_with(&format!("{host}/"));
    let name = |line: &str| {
        let (tag, digest) = line.split_once(' ')?;
        Some(if tag.ends_with(":<none>") { digest } else { tag }.to_owned())
    };
    let names: Vec<String> = listed.lines().filter(ours).filter_map(name).collect();
    if names.is_empty() { Ok(()) } else { ctx.runner.run(&cmd!("docker image rm {names...}")) }
}

/// How often the cache is listed again: a record goes only once nothing that was built on top of it is left.
const PASSES: usize = 20;

/// Deletes this project's records of the engine's build cache. Those of other projects stay, and so does what no step of this
/// tree's recipes names: an image that another recipe begins with, a folder that was sent, an older recipe's step.
fn forget_cache(ctx: &Context) -> Result<()> {
    if docker::engine(&ctx.runner).is_none() {
        return Ok(());
    }
    let recipes =
        [&ctx.config.base.dockerfile, &ctx.config.variants.dockerfile].map(|path| ctx.read_if_there(path));
    let list = || {
        let listing = ctx.runner.probe(&cmd!("docker buildx du --format json"));
        build_cache::records(&listing.unwrap_or_default())
    };
    let (mut records, mut deleted) = (list(), 0);
    for _ in 0..PASSES {
        let ours =
            records.iter().filter(|it| it.reclaimable && build_cache::is_of(&it.description, &recipes));
        let ids: Vec<String> = ours.map(|it| format!("id={}", it.id)).collect();
        // Filters of one command have to apply all.
        for id in &ids {
            ctx.runner.run(&cmd!("docker buildx prune --all --force --filter {id}"))?;
        }
        if ids.is_empty() || ctx.runner.dry_run {
            break;
        }
        let left = list();
        if left.len() >= records.len() {
            break;
        }
        deleted += records.len() - left.len();
        records = left;
    }
    ctx.say(format!("{deleted} records of the build cache deleted; those of other projects stay"));
    Ok(())
}

/// Frees the disk of what nothing needs any more.
fn collect(ctx: &Context) -> Result<()> {
    let engine = EngineDisk::find(&ctx.runner);
    let free = engine.free();
    forget_images(ctx)?;
    forget_cache(ctx)?;
    local::collect_garbage(&ctx.runner, &ctx.state_dir())?;
    let freed = free.zip(engine.free()).map(|(before, now)| now.saturating_sub(before) / 1_000_000);
    ctx.tell(freed.map_or("done".to_owned(), |mb| format!("{mb} MB freed")));
    Ok(())
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let state = ctx.state_dir();
    match args.action {
        Action::Up => {
            ctx.start_registry()?;
            ctx.tell(format!("registry: {}", ctx.repository()?.host()));
        }
        Action::Status => {
            let running = DAEMONS.map(|name| (name, Daemon::running(&state, name)));
            if ctx.json {
                let all: serde_json::Map<_, _> =
                    running.iter().map(|(name, it)| ((*name).to_owned(), json!(it))).collect();
                output::json(&json!(all));
                return Ok(());
            }
            for (name, daemon) in running {
                match daemon {
                    Some(Daemon { container: Some(container), port, .. }) => {
                        output::line(format!("{name}: container {container}, localhost:{port}"))
                    }
                    Some(it) if it.port > 0 => {
                        output::line(format!("{name}: process {}, localhost:{}", it.pid, it.port))
                    }
                    Some(it) => output::line(format!("{name}: process {}", it.pid)),
                    None => output::line(format!("{name}: not started by this project, or stopped")),
                }
            }
        }
        Action::Gc => collect(ctx)?,
        Action::Down { purge } => {
            if purge {
                forget_images(ctx)?;
                forget_cache(ctx)?;
            }
            lab::clear(ctx)?;
            for name in DAEMONS {
                if let Some(daemon) = Daemon::running(&state, name) {
                    let volume = daemon.container.clone().filter(|_| purge);
                    daemon.stop(&ctx.runner, &state, name)?;
                    if let Some(volume) = volume {
                        ctx.runner.run(&cmd!("docker volume rm {volume}"))?;
                    }
                    ctx.say(format!("{name} stopped"));
                }
            }
            if purge && ctx.runner.dry_run {
                output::line(format!("rm -r {state}"));
            } else if purge && state.exists() {
                fs::remove_dir_all(&state).with_context(|| format!("cannot remove {state}"))?;
                ctx.say(format!("{state} removed"));
            }
        }
    }
    Ok(())
}
