//! Runs the smoke suite on the staged image of a variant, by digest, and records the verdict in the registry. Refuses a
//! variant that is not staged; a failed check is recorded and fails the phase.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::image::builders;
use crate::image::packages;
use crate::image::state::{self, SUITE, Stage};
use crate::model::command::Cmd;
use crate::model::platform::Platform;
use crate::model::verdict::Verdict;
use crate::tools::docker;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant to test
    pub variant: String,
    /// Test again although the suite has passed on this image
    #[arg(long)]
    pub force: bool,
}

/// Tests the image on these of its platforms.
pub fn run(ctx: &Context, args: &Args, platforms: &[Platform]) -> Result<()> {
    ctx.config.variant(&args.variant)?;
    let (base, index) = state::existing_base(ctx)?;
    let stages = state::stages(ctx, std::slice::from_ref(&args.variant), &base, &index)?;
    for stage in &stages {
        for platform in platforms {
            smoke(ctx, stage, *platform, args.force)?;
        }
    }
    Ok(())
}

/// True if the variant is staged on every platform of this context.
pub fn is_staged(ctx: &Context, args: &Args) -> Result<bool> {
    ctx.config.variant(&args.variant)?;
    let base = state::base(ctx)?;
    let Some(index) = &base.present else { return Ok(false) };
    let stages = state::stages(ctx, std::slice::from_ref(&args.variant), &base, index)?;
    Ok(stages.iter().all(|stage| stage.present.is_some()))
}

fn smoke(ctx: &Context, stage: &Stage<'_>, platform: Platform, force: bool) -> Result<()> {
    let name = &stage.variant.name;
    let image = stage.staged()?.platform(platform).context("a complete index lacks a platform")?.to_owned();
    if !force && state::verdict(ctx, stage, platform)?.is_some_and(|verdict| verdict.passed) {
        ctx.say(format!("{name} {platform}: passed before, the same image and the same suite"));
        return Ok(());
    }
    let engine = docker::require_engine(&ctx.runner)?;
    let emulated = platform != engine.platform.unwrap_or_else(Platform::host);
    if emulated {
        builders::allow_emulation(ctx, platform, "smoke test")?;
    }
    let reference = stage.staging.digest(&image);
    let start = Instant::now();
    let command =
        Cmd::new(SUITE, ["--image", &reference, "--variant", name, "--platform", &platform.to_string()])
            .args(state::expectations(ctx, stage.variant)?);
    let result = ctx.runner.run(&command).with_context(|| format!("smoke test of {name} on {platform}"));
    if ctx.runner.dry_run {
        return result;
    }
    // A failure is recorded too, so that another machine knows of it.
    let verdict = Verdict {
        packages: match &result {
            Ok(()) => ctx.runner.read(&list_packages(&reference, platform))?,
            Err(_) => String::new(),
        },
        image: image.to_string(),
        platform,
        variant: name.clone(),
        suite: state::suite(ctx, stage.variant)?,
        passed: result.is_ok(),
        emulated,
        seconds: start.elapsed().as_secs(),
        at: state::now(),
        sequence: 0,
    };
    let recorded = state::record_verdict(ctx, &stage.staging, stage.staged()?, verdict);
    result.and(recorded)
}

fn list_packages(reference: &str, platform: Platform) -> Cmd {
    let args = ["run", "--rm", "--network=none", "--platform", &platform.to_string(), "--entrypoint=cat"];
    Cmd::new("docker", args).args([reference, packages::LIST])
}
