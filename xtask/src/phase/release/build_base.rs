//! Builds the base for every platform and pushes it under its key, unless the registry has it. Refuses emulation where
//! it is not allowed, and to build over an answer that does not say whether the base is there.

use std::time::Instant;

use anyhow::Result;

use crate::context::Context;
use crate::error::missing;
use crate::image::builders;
use crate::image::definition;
use crate::image::disk;
use crate::image::packages;
use crate::image::parts;
use crate::image::state::{self, BASE_LATEST, Base, BuildRecord};

pub fn run(ctx: &Context) -> Result<()> {
    let base = state::base_to_build(ctx)?;
    let reference = base.repository.tag(&base.tag);
    if let Some(index) = &base.present {
        ctx.say(format!("{reference} is there: nothing to build"));
        say_left_out(ctx, &base);
        // A run that ended between push and record left this to the next one.
        return packages::ensure_recorded(ctx, &base.repository, index);
    }
    let problems = parts::problems(ctx);
    if !problems.is_empty() {
        return Err(missing(problems.join("\n  ")));
    }
    ctx.say(format!("building {reference} on top of {}", base.debian));
    say_left_out(ctx, &base);
    disk::require(ctx, &base.repository, BASE_LATEST, "the base")?;
    // Its packages' own scripts run.
    let built = builders::require(ctx, true)?;
    let (start, free) = (Instant::now(), disk::free(ctx));
    state::bake(ctx, &[definition::base(ctx, &base)?], false)?;
    if ctx.runner.dry_run {
        return Ok(());
    }
    let record = BuildRecord { seconds: start.elapsed().as_secs(), disk_bytes: disk::used(ctx, free), built };
    let staging = state::staging(ctx, &base.repository);
    let (base, index) = state::existing_base(ctx)?;
    packages::ensure_recorded(ctx, &base.repository, &index)?;
    state::record_build(ctx, std::slice::from_ref(&index), &staging, &record)
}

/// Names the parts that a rehearsal does without, and why.
fn say_left_out(ctx: &Context, base: &Base) {
    for name in &base.left_out {
        let why = match parts::left_out(ctx).get(name) {
            Some(why) => why.clone(),
            None => "its host did not answer when the base was built".to_owned(),
        };
        ctx.say(format!("{name} is left out of {}, which is for this machine only: {why}", base.tag));
    }
}
