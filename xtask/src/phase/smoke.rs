//! Runs the smoke suite on the staged image of a variant, by digest, and records the verdict in the registry.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use crate::ctx::Ctx;
use crate::missing;
use crate::model::command::Cmd;
use crate::model::platform::Platform;
use crate::state::{self, SUITE, Stage, VERDICT};
use crate::tools::docker;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant to test
    pub variant: String,
    /// Test again although the suite has passed on this image
    #[arg(long)]
    pub force: bool,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    ctx.config.variant(&args.variant)?;
    let (base, index) = state::existing_base(ctx)?;
    let stages = state::stages(ctx, std::slice::from_ref(&args.variant), &base, &index)?;
    for stage in &stages {
        for platform in &ctx.platforms {
            smoke(ctx, stage, *platform, args.force)?;
        }
    }
    Ok(())
}

fn smoke(ctx: &Ctx, stage: &Stage, platform: Platform, force: bool) -> Result<()> {
    let name = &stage.variant.name;
    let manifest = stage.present.as_ref().ok_or_else(|| {
        missing(format!("{} is not staged: run `cargo xtask build {name}`", stage.staging.tag(&stage.tag)))
    })?;
    let digest = manifest.platform(platform).context("a complete index lacks a platform")?;
    if !force && state::passed(ctx, &stage.staging, digest, platform)?.is_some() {
        ctx.say(format!("{name} {platform}: passed before, the same image and the same suite"));
        return Ok(());
    }
    docker::require_engine(&ctx.runner)?;
    let reference = stage.staging.digest(digest);
    let start = Instant::now();
    ctx.runner
        .run(&command(ctx, stage, platform, &reference)?)
        .with_context(|| format!("smoke test of {name} on {platform}"))?;
    let verdict = json!({ "image": digest, "platform": platform, "variant": name, "passed": true,
        "seconds": start.elapsed().as_secs() });
    let tag = state::verdict_tag(ctx, digest, platform)?;
    ctx.registry.put_artifact(&ctx.runner, &stage.staging, &tag, VERDICT, &verdict)
}

/// The suite's command line: what the tree pins is what the image has to answer.
fn command(ctx: &Ctx, stage: &Stage, platform: Platform, reference: &str) -> Result<Cmd> {
    let variant = stage.variant;
    let mut cmd = Cmd::new(SUITE, ["--image", reference, "--variant", &variant.name]);
    cmd = cmd.args(["--platform", &platform.to_string(), "--components", &variant.components.join(",")]);
    cmd = cmd.args(["--max-size-mb", &variant.budget_mb.to_string()]);
    for (name, version) in ctx.versions()? {
        let shipped =
            variant.components.contains(&name) || ["node", "uv", "mempalace"].contains(&name.as_str());
        if shipped {
            cmd = cmd.args(["--expect", &format!("{name}={version}")]);
        }
    }
    Ok(cmd)
}
