//! Frees the disk of a CI runner: toolchains that its image brings and no job here uses, and old images of this project.
//! Leaves alone what belongs to the runner or to other projects. Refuses to run anywhere else, and does nothing where
//! there is room.

use anyhow::Result;
use camino::Utf8Path;

use crate::context::Context;
use crate::error::missing;
use crate::image::disk::{self, EngineDisk};
use crate::tools::command::cmd;
use crate::tools::root::as_root;

/// Toolchains in the images of hosted runners and of act's.
const UNUSED: [&str; 10] = [
    "/opt/ghc",
    "/opt/hostedtoolcache/CodeQL",
    "/opt/microsoft",
    "/usr/lib/jvm",
    "/usr/local/.ghcup",
    "/usr/local/lib/android",
    "/usr/local/share/boost",
    "/usr/local/share/chromium",
    "/usr/share/dotnet",
    "/usr/share/swift",
];

pub fn run(ctx: &Context) -> Result<()> {
    // What is nobody's on a runner is somebody's on a desk.
    if !ctx.settings.actions {
        return Err(missing(
            "reclaim deletes toolchains of a CI runner, and GITHUB_ACTIONS is not `true` here",
        ));
    }
    let engine = EngineDisk::find(&ctx.runner);
    let free = engine.free();
    let gb = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), |b| format!("{} GB", b / 1_000_000_000));
    if free.is_some_and(|free| free >= disk::COLD_RELEASE) {
        ctx.say(format!("{} are free, enough: nothing is deleted", gb(free)));
        return Ok(());
    }
    if is_disposable(ctx) {
        let there: Vec<&str> = UNUSED.into_iter().filter(|path| Utf8Path::new(path).exists()).collect();
        if !there.is_empty() {
            ctx.runner.run(&as_root(&ctx.runner, cmd!("rm -rf {there...}"))?)?;
        }
    } else {
        ctx.say("this runner is no container and no hosted machine: its toolchains stay");
    }
    // The engine and its build cache may be those of all projects of the runner: only images with this project's label
    // go, of which docker keeps those in use. Builds of the last week may still be of use.
    let label = format!("label=org.opencontainers.image.source={}", ctx.config.source);
    ctx.runner.run(&cmd!("docker image prune --all --force --filter {label} --filter until=168h"))?;
    ctx.say(format!("{} were free, now {}", gb(free), gb(engine.free())));
    Ok(())
}

/// True in a container, and on a machine that the forge throws away after the job.
fn is_disposable(ctx: &Context) -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    ctx.settings.hosted_runner || marks.iter().any(|path| Utf8Path::new(path).exists())
}
