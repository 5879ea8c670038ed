//! Builds the variants that the staging repository lacks, on all platforms: first the one that has most components, then
//! all others in one bake. Refuses to build upon a base that is not there; one variant that cannot be built does not keep
//! the others from it.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::image::builders;
use crate::image::definition;
use crate::image::disk;
use crate::image::state::{self, Base, BuildRecord, Stage};
use crate::model::bake::Target;
use crate::model::oci::Manifest;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Variants to build [default: all]
    pub variants: Vec<String>,
    /// Print the bake definition instead of building
    #[arg(long)]
    pub print: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    state::chosen(ctx, &args.variants)?;
    let (base, index) = state::existing_base(ctx)?;
    let stages = state::stages(ctx, &args.variants, &base, &index)?;
    let mut lacking = Vec::new();
    for stage in &stages {
        match (&stage.present, args.print) {
            (Some(_), false) => {
                ctx.say(format!("{} is there: nothing to build", stage.staging.tag(&stage.tag)))
            }
            _ => lacking.push(stage),
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let targets = definition::variants(ctx, &base, &index, &lacking)?;
    if args.print {
        return state::bake(ctx, &targets, true);
    }
    // What the last build of the family took is what this one may take.
    disk::require(ctx, &base.repository, &lacking[0].variant.latest_tag(), "variants")?;
    // Nothing in a variant's recipe runs a program of its platform.
    let nodes = builders::require(ctx, false)?;
    let (start, free) = (Instant::now(), disk::free(ctx));
    let built = richest_first(ctx, &targets, &lacking);
    if ctx.runner.dry_run {
        return built;
    }
    if let Err(error) = built {
        // A bake ends with its first failure. One bad variant must not cost the others their build.
        ctx.say(format!("{error:#}"));
        one_by_one(ctx, &targets, &lacking, &base, &index)?;
    }
    let names: Vec<String> = lacking.iter().map(|stage| stage.variant.name.clone()).collect();
    let images = state::stages(ctx, &names, &base, &index)?.into_iter().filter_map(|stage| stage.present);
    let record =
        BuildRecord { seconds: start.elapsed().as_secs(), disk_bytes: disk::used(ctx, free), built: nodes };
    state::record_build(ctx, &images.collect::<Vec<_>>(), &lacking[0].staging, &record)
}

/// Images that are pushed side by side each send the layers that they share. What the others share, the richest has:
/// once it is there, they send next to nothing.
fn richest_first(ctx: &Context, targets: &[Target], lacking: &[&Stage<'_>]) -> Result<()> {
    let components = |(_, stage): &(usize, &&Stage<'_>)| stage.variant.components.len();
    let Some((richest, _)) = lacking.iter().enumerate().max_by_key(components) else { return Ok(()) };
    state::bake(ctx, &targets[richest..=richest], false)?;
    let others = [&targets[..richest], &targets[richest + 1..]].concat();
    if others.is_empty() { Ok(()) } else { state::bake(ctx, &others, false) }
}

/// Builds what a failed bake left out, each alone, and tells all failures at the end.
fn one_by_one(
    ctx: &Context,
    targets: &[Target],
    lacking: &[&Stage<'_>],
    base: &Base,
    index: &Manifest,
) -> Result<()> {
    let mut failures = Vec::new();
    for (target, stage) in targets.iter().zip(lacking) {
        let name = &stage.variant.name;
        let there = state::stages(ctx, std::slice::from_ref(name), base, index)?;
        if there.iter().all(|stage| stage.present.is_none())
            && let Err(error) = state::bake(ctx, std::slice::from_ref(target), false)
        {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    match failures.as_slice() {
        [] => Ok(()),
        _ => {
            bail!("{} of {} variants cannot be built\n{}", failures.len(), targets.len(), failures.join("\n"))
        }
    }
}
