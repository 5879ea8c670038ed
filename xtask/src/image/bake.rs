//! Builds targets with `docker buildx bake` and pushes them.

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::image::builders;
use crate::image::secrets::Secrets;
use crate::image::tree::Tree;
use crate::model::bake::{Output, Target, definition};
use crate::model::progress::Form;
use crate::model::reference::Repository;
use crate::output;
use crate::tools::command::Cmd;
use crate::tools::docker;

/// The time that the recipes give files whose own would differ from build to build: the year 2020.
const FILE_TIME: &str = "1577836800";

/// Prints the definition of a build.
pub fn print(ctx: &Context, targets: &[Target]) -> Result<()> {
    let secrets = Secrets::new(ctx);
    let definition = definition(targets, &ctx.platforms, &ctx.config.layers, &secrets.specs);
    output::line(serde_json::to_string_pretty(&definition)?);
    Ok(())
}

/// Builds and pushes targets in one bake, on nodes that were asked before ([`crate::image::builders::require`]).
/// `last` is how many seconds the same took last time.
pub fn run(ctx: &Context, tree: &Tree, targets: &[Target], last: Option<u64>) -> Result<()> {
    let secrets = Secrets::new(ctx);
    let definition = definition(targets, &ctx.platforms, &ctx.config.layers, &secrets.specs);
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let name = format!("build {}", names.join(", "));
    let cmd = command(ctx, tree, &definition)?.shown(name, form(ctx, targets), last);
    ctx.runner.run_again(&secrets.give(cmd))?;
    await_pushed(ctx, targets)?;
    keep_cache(ctx, tree, targets);
    Ok(())
}

/// How BuildKit's progress on these targets is read.
fn form(ctx: &Context, targets: &[Target]) -> Form {
    Form::Build {
        targets: targets.iter().map(|target| target.name.clone()).collect(),
        platforms: ctx.platforms.iter().map(ToString::to_string).collect(),
    }
}

/// Waits until what was pushed can be read: the next phase asks for it, perhaps from another machine.
fn await_pushed(ctx: &Context, targets: &[Target]) -> Result<()> {
    if ctx.runner.dry_run {
        return Ok(());
    }
    for target in targets {
        let Output::Tag(name) = &target.output else { continue };
        let (repository, tag) = name.rsplit_once(':').context("a target without a tag")?;
        let repository: Repository = repository.parse().map_err(|why: String| anyhow::anyhow!(why))?;
        let mut pushed = None;
        ctx.registry.poll(&ctx.runner, || {
            pushed = ctx.registry.digest(&ctx.runner, &repository, tag)?;
            Ok(pushed.is_some())
        })?;
        let Some(digest) = pushed else {
            bail!("{name} was pushed and cannot be read: run the same command again");
        };
        // A content key never changes its meaning.
        ctx.registry.remember(&repository, tag, &digest);
    }
    Ok(())
}

/// Without a commit there is no time to take from it, and the time of day would make each build a different one.
fn command(ctx: &Context, tree: &Tree, definition: &serde_json::Value) -> Result<Cmd> {
    let time = tree.commit.as_ref().map_or(FILE_TIME, |commit| commit.time.as_str());
    Ok(docker::with_builder(
        docker::bake(definition, Some(time), ctx.runner.build_progress()),
        builders::builder(ctx)?,
    ))
}

/// Sends BuildKit's cache of what was just built to the registry. The images are there already, so that whatever becomes
/// of the cache fails nothing: registries have refused it while they took the images.
fn keep_cache(ctx: &Context, tree: &Tree, targets: &[Target]) {
    let cached = targets.iter().filter(|target| target.cache.is_some()).cloned();
    let cached: Vec<Target> = cached.map(|target| Target { output: Output::Cache, ..target }).collect();
    if cached.is_empty() {
        return;
    }
    let secrets = Secrets::new(ctx);
    let definition = definition(&cached, &ctx.platforms, &ctx.config.layers, &secrets.specs);
    let kept = command(ctx, tree, &definition).and_then(|cmd| {
        let cmd = cmd.shown("send the build cache", form(ctx, &cached), None);
        ctx.runner.run(&secrets.give(cmd))
    });
    if let Err(error) = kept {
        ctx.say(format!(
            "the build cache is not kept, and the next empty runner builds without it; the images are not affected: {error:#}"
        ));
    }
}
