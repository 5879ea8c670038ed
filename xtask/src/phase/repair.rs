//! Completes a promotion that was cut off, from what the ledger says, or undoes it. Refuses while the run that began
//! it may still be at work, and to complete with an image that is gone or untested.

use anyhow::{Result, bail};
use serde_json::json;

use crate::ctx::Ctx;
use crate::ledger::Books;
use crate::model::platform::Platform;
use crate::model::promotion::Promotion;
use crate::state;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take the floating tags back to where they stood, instead of moving the rest
    #[arg(long)]
    pub undo: bool,
    /// Take the lease from a run that may still be at work: only if you know that it is gone
    #[arg(long)]
    pub break_lease: bool,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    let repository = state::repository(ctx)?;
    let mut books = Books::open(ctx, &repository, &state::staging(ctx, &repository))?;
    let Some(cut_off) = books.ledger.interrupted().cloned() else {
        return report(ctx, None, "no promotion was cut off: nothing to repair");
    };
    let release = cut_off.release;
    ctx.say(cut_off.describe(&books.standing_of(&cut_off)?));
    if args.undo {
        books.begin(cut_off.clone(), args.break_lease)?;
        books.undo(&cut_off)?;
        return report(
            ctx,
            Some(&cut_off),
            &format!("the floating tags stand where they stood before {release}"),
        );
    }
    let problems = unfit(ctx, &books, &cut_off)?;
    if !problems.is_empty() {
        bail!("{release} cannot be completed, run `cargo xtask repair --undo`; {}", problems.join("; "));
    }
    books.begin(cut_off.clone(), args.break_lease)?;
    books.promote()?;
    report(ctx, Some(&cut_off), &format!("all tags stand at {release}"))
}

/// Images that may not be promoted: gone, or without a passing verdict on some platform.
fn unfit(ctx: &Ctx, books: &Books<'_>, promotion: &Promotion) -> Result<Vec<String>> {
    let standing = books.standing_of(promotion)?;
    let mut problems = Vec::new();
    for it in promotion.pending(&standing).filter(|it| !it.floating) {
        let Some(index) = ctx.registry.manifest(&ctx.runner, &books.staging, &it.to)? else {
            problems.push(format!("the image of {} is no longer staged", it.tag));
            continue;
        };
        let images = [Platform::LinuxAmd64, Platform::LinuxArm64].map(|platform| index.platform(platform));
        for image in images.into_iter().flatten() {
            let verdicts = state::verdicts(ctx, &books.staging, image)?;
            if !verdicts.iter().max_by_key(|it| it.at).is_some_and(|newest| newest.passed) {
                problems.push(format!("the image of {} is untested or failed: {image}", it.tag));
            }
        }
    }
    Ok(problems)
}

fn report(ctx: &Ctx, promotion: Option<&Promotion>, text: &str) -> Result<()> {
    if ctx.json {
        println!("{}", json!({ "release": promotion.map(|it| it.release), "result": text }));
    } else {
        ctx.say(text);
    }
    Ok(())
}
