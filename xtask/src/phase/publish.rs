//! Gives the tested images their public tags. Nothing is built; tags move onto digests that have passed.
//!
//! Every refusal comes before the first write. Version tags of all variants come first and are never re-pointed;
//! floating tags follow together.

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::ctx::{Ctx, Destination};
use crate::missing;
use crate::model::reference::Repository;
use crate::model::version::ReleaseTag;
use crate::state::{self, Stage};
use crate::tools::crane;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Also point latest and latest-<variant> at this release
    #[arg(long)]
    pub promote_latest: bool,
    /// Only these variants; a local rehearsal may publish part of the family
    #[arg(long, value_name = "VARIANT")]
    pub only: Vec<String>,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    if !args.only.is_empty() && ctx.destination_is_public() {
        bail!("--only would publish part of a release: it is for registries on this machine");
    }
    let (base, index) = state::existing_base(ctx)?;
    let stages = state::stages(ctx, &args.only, &base, &index)?;
    refuse_untested(ctx, &stages)?;
    let release = release_tag(ctx, &base.repository, &stages)?;
    ctx.say(format!("release {release} in {}", base.repository));

    // All version tags stand before any floating tag moves, so no user meets half a release.
    let mut moved = 0;
    for stage in &stages {
        moved += point(ctx, stage, &base.repository, &stage.variant.version_tag(release))?;
    }
    if args.promote_latest {
        for stage in &stages {
            moved += point(ctx, stage, &base.repository, &stage.variant.latest_tag())?;
        }
    }
    ctx.ci.set("release_tag", release)?;
    if ctx.json {
        println!(
            "{}",
            json!({ "release": release, "repository": base.repository.to_string(), "moved": moved })
        );
    } else if moved == 0 {
        ctx.say("all tags stand already: nothing to publish");
    }
    Ok(())
}

impl Ctx {
    /// True unless the images stay on this machine.
    fn destination_is_public(&self) -> bool {
        matches!(&self.destination, Destination::Remote(repository) if !repository.is_loopback())
    }
}

/// Collects everything that is missing before anything is written.
fn refuse_untested(ctx: &Ctx, stages: &[Stage]) -> Result<()> {
    let mut problems = Vec::new();
    for stage in stages {
        let name = &stage.variant.name;
        let Some(manifest) = &stage.present else {
            problems.push(format!("{name} is not staged: run `cargo xtask build {name}`"));
            continue;
        };
        for platform in &ctx.platforms {
            let digest = manifest.platform(*platform).context("a complete index lacks a platform")?;
            if state::passed(ctx, &stage.staging, digest, *platform)?.is_none() {
                problems.push(format!("{name} is untested on {platform}: run `cargo xtask smoke {name}`"));
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(missing(format!("nothing published; {}", problems.join("; "))))
    }
}

/// The release to publish as: the one that was asked for if its tags are free or equal, else the first such.
fn release_tag(ctx: &Ctx, repository: &Repository, stages: &[Stage]) -> Result<ReleaseTag> {
    let pinned = ctx.opencode_version()?;
    if let Some(asked) = ctx.release_tag {
        if asked.version != pinned {
            bail!(
                "release {asked} does not match the pinned opencode {pinned}: run `cargo xtask bump-opencode {}`",
                asked.version
            );
        }
        if let Some(taken) = taken(ctx, repository, stages, asked)? {
            bail!(
                "{taken} stands for another image and version tags never move: release under the next letter"
            );
        }
        return Ok(asked);
    }
    let mut candidate = Some(ReleaseTag::first(pinned));
    while let Some(release) = candidate {
        if taken(ctx, repository, stages, release)?.is_none() {
            return Ok(release);
        }
        candidate = release.next();
    }
    bail!("all releases of {pinned} from bare to z are taken: bump opencode")
}

/// The first version tag of a release that points at another image.
fn taken(
    ctx: &Ctx,
    repository: &Repository,
    stages: &[Stage],
    release: ReleaseTag,
) -> Result<Option<String>> {
    for stage in stages {
        let tag = stage.variant.version_tag(release);
        let there = ctx.registry.manifest(&ctx.runner, repository, &tag)?;
        if there.is_some_and(|there| Some(&there.digest) != stage.present.as_ref().map(|m| &m.digest)) {
            return Ok(Some(repository.tag(&tag)));
        }
    }
    Ok(None)
}

/// Points a tag at a staged image and reads it back; 0 if it stood already, 1 if it moved.
fn point(ctx: &Ctx, stage: &Stage, repository: &Repository, tag: &str) -> Result<u32> {
    let digest = &stage.present.as_ref().context("a stage vanished")?.digest;
    let there = |ctx: &Ctx| ctx.registry.manifest(&ctx.runner, repository, tag);
    if there(ctx)?.is_some_and(|manifest| &manifest.digest == digest) {
        return Ok(0);
    }
    ctx.runner.run(&crane::copy(&stage.staging.digest(digest), &repository.tag(tag)))?;
    if !ctx.runner.dry_run && there(ctx)?.is_none_or(|manifest| &manifest.digest != digest) {
        bail!("{} does not read back as {digest}: run the same command again", repository.tag(tag));
    }
    Ok(1)
}
