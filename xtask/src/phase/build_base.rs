//! Builds the base for every platform and pushes it under its key, unless the registry has it. Refuses emulation where
//! it is not allowed, and to build over an answer that does not say whether the base is there.

use std::time::Instant;

use anyhow::Result;

use crate::ctx::Ctx;
use crate::disk;
use crate::nodes;
use crate::packages;
use crate::recipe;
use crate::state::{self, BASE_LATEST, BuildRecord};

pub fn run(ctx: &Ctx) -> Result<()> {
    let base = state::base(ctx)?;
    let reference = base.repository.tag(&base.tag);
    if base.present.is_some() {
        ctx.say(format!("{reference} is there: nothing to build"));
        return Ok(());
    }
    ctx.say(format!("building {reference} upon {}", base.debian));
    for part in &ctx.config.base_optional {
        if base.inputs.args[&part.arg()] != "true" {
            ctx.say(format!("{} is left out: its host does not answer", part.name));
        }
    }
    disk::require(ctx, &base.repository, BASE_LATEST, "the base")?;
    // Its packages' own scripts run.
    let built = nodes::require(ctx, true)?;
    let (start, free) = (Instant::now(), disk::free(ctx));
    state::bake(ctx, &[recipe::base(ctx, &base)?], false)?;
    if ctx.runner.dry_run {
        return Ok(());
    }
    let record = BuildRecord { seconds: start.elapsed().as_secs(), disk_bytes: disk::used(ctx, free), built };
    let staging = state::staging(ctx, &base.repository);
    let (base, index) = state::existing_base(ctx)?;
    packages::record(ctx, &base.repository, &index)?;
    state::record_build(ctx, std::slice::from_ref(&index), &staging, &record)
}
