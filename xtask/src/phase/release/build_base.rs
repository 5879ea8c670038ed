//! Builds the base for every platform and pushes it under its key, unless the registry has it. Refuses emulation where
//! it is not allowed, and to build over an answer that does not say whether the base is there.

use std::time::Instant;

use anyhow::Result;

use crate::context::Context;
use crate::error::missing;
use crate::image::base::{self, BASE_LATEST, Base, FoundBase};
use crate::image::build_record::{self, BuildRecord};
use crate::image::disk::EngineDisk;
use crate::image::tree::Tree;
use crate::image::{bake, builders, definition, licences, packages, parts};

pub fn run(ctx: &Context) -> Result<()> {
    ctx.start_registry()?;
    ensure(ctx, &Tree::load(ctx)?)?;
    ctx.close("cargo xtask build");
    Ok(())
}

/// The built base; in a dry run it may be absent still.
pub fn ensure(ctx: &Context, tree: &Tree) -> Result<FoundBase> {
    let base = match base::to_build(ctx, tree)? {
        FoundBase::Built(base) => {
            ctx.skip("build", base.reference(), "built before from the same inputs");
            say_left_out(ctx, &base);
            // A run that ended between push and record left this to the next one.
            packages::ensure_recorded(ctx, &base.repository, &base.index)?;
            return Ok(FoundBase::Built(base));
        }
        FoundBase::Absent(base) => base,
    };
    licences::check(ctx, tree)?;
    let problems = parts::problems(ctx);
    if !problems.is_empty() {
        return Err(missing(problems.join("\n  ")));
    }
    ctx.say(format!("building {} on top of {}", base.reference(), base.debian));
    say_left_out(ctx, &base);
    let disk = EngineDisk::find(&ctx.runner);
    let last = build_record::of_tag(ctx, &base.repository, BASE_LATEST)?;
    disk.require(last.as_ref(), "the base")?;
    // Its packages' own scripts run.
    let built = builders::require(ctx, true)?;
    let (start, free) = (Instant::now(), disk.free());
    bake::run(ctx, tree, &[definition::base(ctx, tree, &base)?], last.map(|last| last.seconds))?;
    if ctx.runner.dry_run {
        return Ok(FoundBase::Absent(base));
    }
    let (seconds, at) = (start.elapsed().as_secs(), Some(ctx.registry.now(&base.repository)));
    let record = BuildRecord { seconds, disk_bytes: disk.used(free), built, at };
    let base = base::find_built(ctx, tree)?;
    packages::ensure_recorded(ctx, &base.repository, &base.index)?;
    build_record::write(ctx, [&*base.index], &ctx.staging(&base.repository), &record)?;
    Ok(FoundBase::Built(base))
}

/// Names the parts that a rehearsal leaves out, each with its reason.
fn say_left_out(ctx: &Context, base: &Base) {
    for (name, why) in &base.left_out {
        ctx.say(format!("{name} is left out of {}, which is for this machine only: {why}", base.tag));
    }
}
