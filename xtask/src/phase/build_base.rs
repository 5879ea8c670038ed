//! Builds the base for every platform and pushes it under its key, unless the registry has it.

use std::time::Instant;

use anyhow::Result;

use crate::ctx::Ctx;
use crate::disk;
use crate::model::bake::Target;
use crate::packages;
use crate::state::{self, BASE_LATEST, BuildRecord};

pub fn run(ctx: &Ctx) -> Result<()> {
    let base = state::base(ctx)?;
    let reference = base.repository.tag(&base.tag);
    if base.present.is_some() {
        ctx.say(format!("{reference} is there: nothing to build"));
        return Ok(());
    }
    ctx.say(format!("building {reference} upon {}", base.debian));
    let mut components = ["node", "uv", "mempalace"].map(String::from).to_vec();
    for part in &ctx.config.base_optional {
        if base.inputs.args[&part.arg()] == "true" {
            components.push(part.name.clone());
        } else {
            ctx.say(format!("{} is left out: its host does not answer", part.name));
        }
    }
    disk::require(ctx, &base.repository, BASE_LATEST, "the base")?;
    let (start, free) = (Instant::now(), disk::free(ctx));
    let mut args = base.inputs.args.clone();
    args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
    args.extend(ctx.settings.package_sources());
    // The key goes into the folder's name, so that two trees never share a context.
    let context = state::context(ctx, &ctx.config.base, &base.tag)?;
    let target = Target {
        name: "base-image".to_owned(),
        dockerfile: ctx.config.base.dockerfile.clone(),
        context: context.into_string(),
        args,
        labels: state::labels(ctx, "opencode-devbox base", &components)?,
        annotations: state::annotations(ctx, &base.inputs)?,
        tag: reference,
    };
    state::bake(ctx, &[target], false)?;
    if ctx.runner.dry_run {
        return Ok(());
    }
    let record = BuildRecord { seconds: start.elapsed().as_secs(), disk_bytes: disk::used(ctx, free) };
    let staging = state::staging(ctx, &base.repository);
    let (built, index) = state::existing_base(ctx)?;
    packages::record(ctx, &built.repository, &index)?;
    state::record_build(ctx, std::slice::from_ref(&index), &staging, &record)
}
