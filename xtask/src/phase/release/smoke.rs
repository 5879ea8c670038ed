//! Runs the smoke suite on the staged image of a variant, by digest, and records the verdict in the registry. Refuses a
//! variant that is not staged; a failed check is recorded and fails the phase.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::image::base::{self, FoundBase};
use crate::image::tree::{SUITE, Tree};
use crate::image::variant::{self, FoundVariant, PlannedVariant, StagedVariant};
use crate::image::verdict;
use crate::image::{builders, packages};
use crate::model::oci::Digest;
use crate::model::platform::Platform;
use crate::model::verdict::Verdict;
use crate::tools::command::{Cmd, cmd};
use crate::tools::{docker, process};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant to test
    pub variant: String,
    /// Test again although the suite has passed on this image
    #[arg(long)]
    pub force: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    ctx.config.variant(&args.variant)?;
    ctx.start_registry()?;
    let tree = Tree::load(ctx)?;
    let staged = find(ctx, &tree, &args.variant)?;
    ensure(ctx, &tree, &staged, &ctx.platforms, args.force).map(drop)
}

/// The staged variant on all platforms of the family, so that `--platform` picks from it; else on those of this command.
fn find<'a>(ctx: &'a Context, tree: &Tree, name: &str) -> Result<StagedVariant<'a>> {
    let names = [name.to_owned()];
    for platforms in [&ctx.config.platforms, &ctx.platforms] {
        // Not all platforms of the Debian image may be there; the last look below says what is missing.
        let Ok(FoundBase::Built(base)) = base::find(ctx, tree, platforms) else { continue };
        if let Some(FoundVariant::Staged(staged)) =
            variant::find(ctx, tree, &base, &names)?.into_iter().next()
        {
            return Ok(staged);
        }
    }
    let base = base::find_built(ctx, tree)?;
    let staged = variant::find_staged(ctx, tree, &base, &names)?.into_iter().next();
    staged.context("a variant that is not defined")
}

/// The verdicts of a staged variant, each platform of `platforms` tested where it has not passed; `force` tests again.
pub fn ensure(
    ctx: &Context,
    tree: &Tree,
    staged: &StagedVariant<'_>,
    platforms: &[Platform],
    force: bool,
) -> Result<BTreeMap<Platform, Verdict>> {
    let name = &staged.variant.name;
    let mut verdicts = verdict::find(ctx, tree, staged)?;
    for (platform, image) in staged.index.images().filter(|(platform, _)| platforms.contains(platform)) {
        if !force && verdicts.get(&platform).is_some_and(|verdict| verdict.passed) {
            ctx.say(format!("{name} {platform}: passed before, the same image and the same suite"));
            continue;
        }
        verdicts.extend(smoke(ctx, tree, staged, platform, image)?.map(|verdict| (platform, verdict)));
    }
    Ok(verdicts)
}

/// Prints the tests of an image that a dry run would build.
pub fn would_test(ctx: &Context, plan: &PlannedVariant<'_>) -> Result<()> {
    for platform in &ctx.platforms {
        ctx.runner.run(&command(ctx, plan, &plan.reference(), *platform)?)?;
    }
    Ok(())
}

/// The suite on one image.
fn command(ctx: &Context, plan: &PlannedVariant<'_>, image: &str, platform: Platform) -> Result<Cmd> {
    let (name, platform) = (&plan.variant.name, platform.to_string());
    Ok(cmd!("{SUITE} --image {image} --variant {name} --platform {platform}")
        .args(verdict::expectations(ctx, plan.variant)?))
}

/// Tests one image and records the verdict; a dry run has none.
fn smoke(
    ctx: &Context,
    tree: &Tree,
    staged: &StagedVariant<'_>,
    platform: Platform,
    image: &Digest,
) -> Result<Option<Verdict>> {
    let name = &staged.variant.name;
    let engine = docker::require_engine(&ctx.runner)?;
    let emulated = platform != engine.platform.unwrap_or_else(Platform::host);
    if emulated {
        builders::allow_emulation(ctx, platform, "smoke test")?;
    }
    let reference = staged.staging.digest(image);
    let start = Instant::now();
    let command = command(ctx, staged, &reference, platform)?;
    let result = ctx.runner.run(&command).with_context(|| format!("smoke test of {name} on {platform}"));
    if ctx.runner.dry_run {
        return result.map(|()| None);
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
        suite: verdict::suite(ctx, tree, staged.variant)?,
        passed: result.is_ok(),
        emulated,
        seconds: start.elapsed().as_secs(),
        at: process::now(),
        sequence: 0,
    };
    let recorded = verdict::record(ctx, &staged.staging, &staged.index, verdict);
    result.and(recorded.map(Some))
}

fn list_packages(reference: &str, platform: Platform) -> Cmd {
    let platform = platform.to_string();
    cmd!("docker run --rm --network=none --platform {platform} --entrypoint=cat {reference}")
        .arg(packages::LIST)
}
