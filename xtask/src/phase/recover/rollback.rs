//! Points the floating tags of all variants, and `base-latest`, back at a release that was published. Refuses a release
//! whose images are gone, and to leave a floating tag on another release unless that is asked for.

use anyhow::{Result, bail};
use serde_json::json;

use crate::context::Context;
use crate::error::missing;
use crate::image::base::BASE_LATEST;
use crate::model::oci::Digest;
use crate::model::promotion::{Move, Promotion, PromotionKind};
use crate::model::version::ReleaseTag;
use crate::output;
use crate::promotion::ledger::{Journal, Ledger};
use crate::promotion::record::{self, Record};
use crate::promotion::{permissions, release_tag};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The release to go back to, such as v1.18.18
    pub release: ReleaseTag,
    /// Leave floating tags of variants that the release does not have where they are
    #[arg(long)]
    pub keep_others: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let release = args.release;
    let repository = ctx.repository()?;
    let ledger = Ledger::new(ctx, &repository);
    let Some(record) = record::read_signed(ctx, &repository, release)? else {
        bail!("{repository} has no record of {release}: it was never released there");
    };
    let targets = targets(&record)?;
    refuse_gone(ctx, &ledger, release, &targets)?;
    let others = others(ctx, &ledger, &targets)?;
    let journal = ledger.journal()?;
    let promotion = plan(ctx, &ledger, release, &targets, &journal)?;
    let moved = promotion.pending(&ledger.standing_of(&promotion)?).count();
    if moved == 0 && journal.interrupted().next().is_none() {
        ctx.say(format!("the floating tags are at {release} already"));
    } else {
        if !others.is_empty() && !args.keep_others {
            return Err(missing(format!(
                "nothing moved; {release} has no image for {}: give --keep-others to leave them where they are",
                others.join(", ")
            )));
        }
        let problems = permissions::missing(ctx, &repository);
        if !problems.is_empty() {
            return Err(missing(format!("nothing moved; {}", problems.join("; "))));
        }
        ledger.begin(&|journal| plan(ctx, &ledger, release, &targets, journal))?.promote()?;
        for tag in &others {
            ctx.say(format!("{tag} stays where it is: {release} has no image for it"));
        }
    }
    if ctx.json {
        let repository = repository.to_string();
        output::json(
            &json!({ "release": release, "repository": repository, "moved": moved, "kept": others }),
        );
    }
    Ok(())
}

/// The image of each floating tag.
fn targets(record: &Record) -> Result<Vec<(String, Digest)>> {
    let variants = record.variants.iter().map(|it| (it.latest_tag.clone(), &it.digest));
    let all = variants.chain([(BASE_LATEST.to_owned(), &record.base.digest)]);
    all.map(|(tag, digest)| Ok((tag, digest.parse().map_err(|why: String| anyhow::anyhow!(why))?))).collect()
}

/// Digests are enough: whatever the release's own tags point at, its images are what it is.
fn refuse_gone(
    ctx: &Context,
    ledger: &Ledger<'_>,
    release: ReleaseTag,
    targets: &[(String, Digest)],
) -> Result<()> {
    let mut gone = Vec::new();
    for (tag, digest) in targets {
        let has = |repository| ctx.registry.has(&ctx.runner, repository, digest);
        if !has(&ledger.public)? && !has(&ledger.staging)? {
            gone.push(format!("{tag} ({digest})"));
        }
    }
    if !gone.is_empty() {
        bail!("{release} is not complete in {} any more: no image for {}", ledger.public, gone.join(", "));
    }
    Ok(())
}

/// Published floating tags that the release has no image for.
fn others(ctx: &Context, ledger: &Ledger<'_>, targets: &[(String, Digest)]) -> Result<Vec<String>> {
    let floating = release_tag::floating(ctx, &ledger.public)?;
    let published = floating.releases.into_keys().chain(floating.left_over);
    let without = |tag: &String| !targets.iter().any(|(own, _)| own == tag) && !ctx.config.is_retired(tag);
    Ok(published.filter(without).collect())
}

fn plan(
    ctx: &Context,
    ledger: &Ledger<'_>,
    release: ReleaseTag,
    targets: &[(String, Digest)],
    journal: &Journal,
) -> Result<Promotion> {
    let standing = ledger.standing(targets.iter().map(|(tag, _)| tag))?;
    let moves = targets.iter().map(|(tag, to)| {
        let from = journal.before(tag, standing.get(tag).and_then(Option::as_ref));
        Move { tag: tag.clone(), floating: true, from, to: to.clone() }
    });
    let (kind, holder) = (PromotionKind::Rollback, ctx.holder.clone());
    Ok(Promotion { release: Some(release), kind, moves: moves.collect(), holder })
}
