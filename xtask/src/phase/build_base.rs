//! Builds the base for every platform and pushes it under its key, unless the registry has it.

use anyhow::Result;
use std::collections::BTreeMap;

use crate::ctx::Ctx;
use crate::model::bake::Target;
use crate::state;

pub fn run(ctx: &Ctx) -> Result<()> {
    let base = state::base(ctx)?;
    let reference = base.repository.tag(&base.tag);
    if base.present.is_some() {
        ctx.say(format!("{reference} is there: nothing to build"));
        return Ok(());
    }
    ctx.say(format!("building {reference} upon {}", base.debian));
    // The key goes into the folder's name, so that two trees never share a context.
    let context = state::context(ctx, &ctx.config.base, &base.tag)?;
    let target = Target {
        name: "base-image".to_owned(),
        dockerfile: ctx.config.base.dockerfile.clone(),
        context: context.into_string(),
        args: BTreeMap::from([("DEBIAN_IMAGE".to_owned(), base.debian.clone())]),
        labels: state::labels(
            ctx,
            "opencode-devbox base",
            &["node", "uv", "mempalace", "gitea-mcp"].map(String::from),
        )?,
        tag: reference,
    };
    state::bake(ctx, &[target], false)
}
