//! Points `base-latest` at the base of this tree. Runs last, so that those who build upon it never see a base whose
//! variants failed; refuses until the variants of this tree are published.

use anyhow::{Result, bail};

use crate::ctx::Ctx;
use crate::ledger::Books;
use crate::missing;
use crate::model::promotion::Outcome;
use crate::state::{self, BASE_LATEST};
use crate::tools::crane;

pub fn run(ctx: &Ctx) -> Result<()> {
    if ctx.holds_latest_back() {
        return Ok(());
    }
    let (base, index) = state::existing_base(ctx)?;
    let latest = base.repository.tag(BASE_LATEST);
    let there = || ctx.registry.manifest(&ctx.runner, &base.repository, BASE_LATEST);
    let stands =
        |there: Option<crate::model::oci::Manifest>| there.is_some_and(|it| it.digest == index.digest);
    if stands(there()?) {
        ctx.say(format!("{latest} is {} already", base.tag));
        return Ok(());
    }
    let stages = state::stages(ctx, &[], &base, &index)?;
    let books = Books::open(ctx, &base.repository, &state::staging(ctx, &base.repository))?;
    let ours = |digest: &String| {
        stages.iter().any(|it| it.present.as_ref().is_some_and(|it| *it.digest == **digest))
    };
    let published = books.ledger.promotion.as_ref().is_some_and(|promotion| {
        promotion.outcome == Outcome::Done && promotion.moves.iter().all(|it| ours(&it.to))
    });
    if !published && !ctx.runner.dry_run {
        return Err(missing(format!(
            "the variants upon {} are not published: run `cargo xtask publish --promote-latest`",
            base.tag
        )));
    }
    ctx.runner.run_again(&crane::tag(&base.repository.digest(&index.digest), BASE_LATEST))?;
    if !ctx.runner.dry_run && !stands(there()?) {
        bail!("{latest} does not read back as {}: run the same command again", index.digest);
    }
    Ok(())
}
