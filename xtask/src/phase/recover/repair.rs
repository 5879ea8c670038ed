//! Completes a promotion that was interrupted, or undoes it, and brings floating tags that are at different releases to
//! one. Refuses while a run may still be at work, and to complete with an image that is gone or untested.

use anyhow::{Result, bail};
use serde_json::json;

use crate::context::Context;
use crate::error::missing;
use crate::image::verdict;
use crate::model::promotion::{Attempt, Move, Promotion, PromotionKind};
use crate::model::reference::Repository;
use crate::output;
use crate::promotion::ledger::{Journal, Ledger};
use crate::promotion::record::{self, Record};
use crate::promotion::{permissions, release_tag};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Point the floating tags back at what they pointed at before, instead of moving the rest
    #[arg(long)]
    pub undo: bool,
    /// Take the lease from a run that may still be at work: only if you know that it is gone
    #[arg(long)]
    pub break_lease: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let repository = ctx.repository()?;
    let ledger = Ledger::new(ctx, &repository);
    if args.break_lease && !ctx.runner.dry_run {
        ledger.break_leases()?;
    }
    let journal = ledger.journal()?;
    ledger.refuse_held(&journal)?;
    ledger.settle_unreadable(&journal)?;
    ledger.close_completed(&journal, Promotion::is_prune)?;
    let Some((_, interrupted)) = moving(&journal) else {
        return converge(ctx, &ledger, &journal);
    };
    ctx.say(interrupted.describe(&ledger.standing_of(interrupted)?));
    let name = interrupted.name();
    permitted(ctx, &repository)?;
    if args.undo {
        ledger.begin(&|journal| resume(ctx, journal))?.undo()?;
        return report(
            ctx,
            Some(interrupted),
            &format!("the floating tags point where they did before {name}"),
        );
    }
    let problems = unfit(ctx, &ledger, interrupted)?;
    if !problems.is_empty() {
        bail!("{name} cannot be completed, run `cargo xtask repair --undo`; {}", problems.join("; "));
    }
    ledger.begin(&|journal| resume(ctx, journal))?.promote()?;
    report(ctx, Some(interrupted), &format!("all tags are at {name}"))
}

/// The newest interrupted attempt that moves tags.
fn moving(journal: &Journal) -> Option<(&Attempt, &Promotion)> {
    journal.interrupted().find(|(_, promotion)| !promotion.is_prune())
}

/// The newest interrupted promotion, as this run continues it.
fn resume(ctx: &Context, journal: &Journal) -> Result<Promotion> {
    match moving(journal) {
        Some((_, interrupted)) => Ok(Promotion { holder: ctx.holder.clone(), ..interrupted.clone() }),
        None => Err(missing("another run has repaired this meanwhile: nothing is left to repair")),
    }
}

fn permitted(ctx: &Context, repository: &Repository) -> Result<()> {
    let problems = permissions::missing(ctx, repository);
    if problems.is_empty() {
        return Ok(());
    }
    Err(missing(format!("nothing repaired; {}", problems.join("; "))))
}

/// Without an interrupted promotion the floating tags show whether a release is half promoted: they are moved
/// to the newest release that one of them is at. Tags that the last promotion left on another release on request stay.
fn converge(ctx: &Context, ledger: &Ledger<'_>, journal: &Journal) -> Result<()> {
    let floating = release_tag::floating(ctx, &ledger.public)?;
    let nothing = "no promotion was interrupted: nothing to repair";
    let is_mixed = floating.is_mixed();
    let Some(newest) = floating.newest().filter(|_| is_mixed || !floating.added.is_empty()) else {
        return report(ctx, None, nothing);
    };
    if let Some(last) = ledger.completed(journal)?
        && last.pending(&ledger.standing_of(&last)?).next().is_none()
    {
        return report(ctx, None, nothing);
    }
    let Some(record) = record::read_signed(ctx, &ledger.public, newest)? else {
        if !is_mixed {
            return report(ctx, None, nothing);
        }
        bail!(
            "the floating tags are at different releases and {newest} has no record: run `cargo xtask rollback <release>` with one that has"
        );
    };
    let promotion = toward(ctx, ledger, &record)?;
    if promotion.pending(&ledger.standing_of(&promotion)?).next().is_none() {
        return report(ctx, None, nothing);
    }
    ctx.say(promotion.describe(&ledger.standing_of(&promotion)?));
    permitted(ctx, &ledger.public)?;
    ledger.begin(&|_| toward(ctx, ledger, &record))?.promote()?;
    report(ctx, Some(&promotion), &format!("the floating tags are at {newest}"))
}

/// The moves of all floating tags of a recorded release.
fn toward(ctx: &Context, ledger: &Ledger<'_>, record: &Record) -> Result<Promotion> {
    let standing = ledger.standing(record.variants.iter().map(|it| &it.latest_tag))?;
    let moves = record.variants.iter().map(|it| {
        let to = it.digest.parse().map_err(|why: String| anyhow::anyhow!(why))?;
        Ok(Move { tag: it.latest_tag.clone(), floating: true, from: standing[&it.latest_tag].clone(), to })
    });
    let (kind, holder) = (PromotionKind::Publish, ctx.holder.clone());
    Ok(Promotion { release: Some(record.release), kind, moves: moves.collect::<Result<_>>()?, holder })
}

/// What keeps a promotion from being completed: a version tag that is taken, or an image that is gone or without a passing
/// verdict on some platform.
fn unfit(ctx: &Context, ledger: &Ledger<'_>, promotion: &Promotion) -> Result<Vec<String>> {
    let standing = ledger.standing_of(promotion)?;
    let mut problems = Vec::new();
    for it in promotion.pending(&standing).filter(|it| !it.floating) {
        if let Some(now) = standing.get(&it.tag).and_then(Option::as_ref) {
            problems.push(format!("{} is another image ({now}) and version tags never move", it.tag));
            continue;
        }
        if !ctx.registry.has(&ctx.runner, &ledger.staging, &it.to)? {
            problems.push(format!("the image of {} is no longer staged", it.tag));
            continue;
        }
        let Some(index) = ctx.registry.manifest(&ctx.runner, &ledger.staging, &it.to)? else { continue };
        for (_, image) in index.images() {
            if !verdict::has_passed(ctx, &ledger.staging, image)? {
                problems.push(format!("the image of {} is untested or failed: {image}", it.tag));
            }
        }
    }
    Ok(problems)
}

fn report(ctx: &Context, promotion: Option<&Promotion>, text: &str) -> Result<()> {
    if ctx.json {
        output::json(&json!({ "release": promotion.and_then(|it| it.release), "result": text }));
    } else {
        ctx.say(text);
    }
    Ok(())
}
