//! Points `base-latest` at the base of this tree. Runs last, so that those who build upon it never see a base whose
//! variants failed.

use anyhow::Result;

use crate::ctx::Ctx;
use crate::state;
use crate::tools::crane;

const TAG: &str = "base-latest";

pub fn run(ctx: &Ctx) -> Result<()> {
    let (base, index) = state::existing_base(ctx)?;
    let latest = base.repository.tag(TAG);
    let there = ctx.registry.manifest(&ctx.runner, &base.repository, TAG)?;
    if there.is_some_and(|there| there.digest == index.digest) {
        ctx.say(format!("{latest} is {} already", base.tag));
        return Ok(());
    }
    ctx.runner.run(&crane::copy(&base.repository.digest(&index.digest), &latest))
}
