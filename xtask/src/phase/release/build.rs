//! Builds the variants that are not in the staging repository, on all platforms: first the one that has most components, then
//! all others in one bake. Refuses to build without a base; one variant that cannot be built does not keep
//! the others from it.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::image::base::{self, BuiltBase, FoundBase};
use crate::image::build_record::{self, BuildRecord};
use crate::image::disk::EngineDisk;
use crate::image::tree::Tree;
use crate::image::variant::{self, FoundVariant, PlannedVariant};
use crate::image::{bake, builders, definition, licences};
use crate::model::bake::Target;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Variants to build [default: all]
    pub variants: Vec<String>,
    /// Print the bake definition instead of building
    #[arg(long)]
    pub print: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    variant::chosen(ctx, &args.variants)?;
    ctx.start_registry()?;
    let tree = Tree::load(ctx)?;
    let base = base::find_built(ctx, &tree)?;
    if args.print {
        let found = variant::find(ctx, &tree, &base, &args.variants)?;
        let plans: Vec<&PlannedVariant<'_>> = found.iter().map(|it| &**it).collect();
        return bake::print(ctx, &definition::variants(ctx, &tree, &FoundBase::Built(base), &plans)?);
    }
    ensure(ctx, &tree, &FoundBase::Built(base), &args.variants)?;
    ctx.close("cargo xtask smoke <variant>, or cargo xtask release for all that is left");
    Ok(())
}

/// The staged variants of these names, all if none is named; in a dry run some may be absent still.
pub fn ensure<'a>(
    ctx: &'a Context,
    tree: &Tree,
    base: &FoundBase,
    names: &[String],
) -> Result<Vec<FoundVariant<'a>>> {
    let found = match base {
        FoundBase::Built(base) => variant::find(ctx, tree, base, names)?,
        // Only a dry run comes here without a base.
        FoundBase::Absent(base) => variant::would_build(ctx, tree, base, names)?,
    };
    for staged in found.iter().filter_map(FoundVariant::as_staged) {
        ctx.skip("build", staged.reference(), "built before from the same inputs");
    }
    let absent: Vec<&PlannedVariant<'_>> =
        found.iter().filter(|it| it.as_staged().is_none()).map(|it| &**it).collect();
    let Some(first) = absent.first() else { return Ok(found) };
    licences::check(ctx, tree)?;
    let targets = definition::variants(ctx, tree, base, &absent)?;
    // What the last build of the family took is what this one may take.
    let disk = EngineDisk::find(&ctx.runner);
    let last = build_record::of_tag(ctx, &base.repository, &first.variant.latest_tag())?;
    disk.require(last.as_ref(), "variants")?;
    let last = last.map(|last| last.seconds);
    // Nothing in a variant's recipe runs a program of its platform.
    let nodes = builders::require(ctx, false)?;
    let (start, free) = (Instant::now(), disk.free());
    let built = richest_first(ctx, tree, &targets, &absent, last);
    let (false, Some(base)) = (ctx.runner.dry_run, base.as_built()) else { return built.map(|()| found) };
    if let Err(error) = built {
        // A bake ends with its first failure. One bad variant must not cost the others their build.
        ctx.say(format!("{error:#}"));
        one_by_one(ctx, tree, &targets, &absent, base)?;
    }
    let names: Vec<String> = absent.iter().map(|plan| plan.variant.name.clone()).collect();
    let staging = first.staging.clone();
    let (seconds, at) = (start.elapsed().as_secs(), Some(ctx.registry.now(&staging)));
    let record = BuildRecord { seconds, disk_bytes: disk.used(free), built: nodes, at };
    let now = variant::find(ctx, tree, base, &names)?;
    let images = now.iter().filter_map(FoundVariant::as_staged).map(|staged| &*staged.index);
    build_record::write(ctx, images, &staging, &record)?;
    let mut now = now.into_iter();
    Ok(found
        .into_iter()
        .filter_map(|it| if it.as_staged().is_some() { Some(it) } else { now.next() })
        .collect())
}

/// Images that are pushed side by side each send the layers that they share. The variant with most components has all of these:
/// once it is there, they send next to nothing.
fn richest_first(
    ctx: &Context,
    tree: &Tree,
    targets: &[Target],
    absent: &[&PlannedVariant<'_>],
    last: Option<u64>,
) -> Result<()> {
    let components = |(_, plan): &(usize, &&PlannedVariant<'_>)| plan.variant.components.len();
    let Some((richest, _)) = absent.iter().enumerate().max_by_key(components) else { return Ok(()) };
    bake::run(ctx, tree, &targets[richest..=richest], last)?;
    let others = [&targets[..richest], &targets[richest + 1..]].concat();
    if others.is_empty() { Ok(()) } else { bake::run(ctx, tree, &others, last) }
}

/// Builds the images that a failed bake left out, one by one, and reports all failures at the end.
fn one_by_one(
    ctx: &Context,
    tree: &Tree,
    targets: &[Target],
    absent: &[&PlannedVariant<'_>],
    base: &BuiltBase,
) -> Result<()> {
    let mut failures = Vec::new();
    for (target, plan) in targets.iter().zip(absent) {
        let name = &plan.variant.name;
        let now = variant::find(ctx, tree, base, std::slice::from_ref(name))?;
        if now.iter().all(|it| it.as_staged().is_none())
            && let Err(error) = bake::run(ctx, tree, std::slice::from_ref(target), None)
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
