//! Points `base-latest` at the base of this tree. Runs last, so that those who build on top of it never see a base whose
//! variants failed; refuses until the floating tags of this tree's variants are at this tree's images.

use anyhow::Result;

use crate::context::Context;
use crate::error::missing;
use crate::image::base::{self, BASE_LATEST, Base, BuiltBase};
use crate::image::tree::Tree;
use crate::image::variant::{self, FoundVariant};
use crate::model::oci::Digest;
use crate::model::promotion::{Move, Promotion, PromotionKind};
use crate::promotion::ledger::{Journal, Ledger};
use crate::tools::crane;

pub fn run(ctx: &Context) -> Result<()> {
    ctx.start_registry()?;
    let tree = Tree::load(ctx)?;
    let base = base::find_built(ctx, &tree)?;
    promote(ctx, &base, &|| variant::find(ctx, &tree, &base, &[]))
}

/// Points `base-latest` at a base. `variants` are those of the tree, looked up only if the tag has to move.
pub fn promote<'a>(
    ctx: &Context,
    base: &BuiltBase,
    variants: &dyn Fn() -> Result<Vec<FoundVariant<'a>>>,
) -> Result<()> {
    if ctx.holds_latest_back() {
        return Ok(());
    }
    let digest = &base.index.digest;
    let ledger = Ledger::new(ctx, &base.repository);
    if ledger.standing([BASE_LATEST])?[BASE_LATEST].as_ref() == Some(digest) {
        ctx.say(format!("{} is {} already", base.repository.tag(BASE_LATEST), base.tag));
        return close_interrupted(&ledger, digest);
    }
    let variants = variants()?;
    let plan = |journal: &Journal| {
        refuse_unpublished(&ledger, &variants, &base.tag)?;
        plan(ctx, &ledger, digest, journal)
    };
    ledger.begin(&plan)?.promote()
}

/// Closes attempts that were interrupted after their only move, which nobody has to complete any more.
fn close_interrupted(ledger: &Ledger<'_>, to: &Digest) -> Result<()> {
    ledger.close_completed(&ledger.journal()?, |it| {
        it.kind == PromotionKind::BaseLatest && it.moves.iter().all(|it| it.to == *to)
    })
}

/// Prints the move of `base-latest` that a dry run would make.
pub fn would_promote(ctx: &Context, base: &Base) -> Result<()> {
    if ctx.holds_latest_back() {
        return Ok(());
    }
    ctx.runner.run(&crane::tag(&base.reference(), BASE_LATEST))
}

/// The published tags decide, not a journal: a base of variants that users do not get is not the latest.
fn refuse_unpublished(ledger: &Ledger<'_>, variants: &[FoundVariant<'_>], base: &str) -> Result<()> {
    let staged = variants.iter().filter_map(FoundVariant::as_staged);
    let staged: Vec<_> = staged.map(|it| (it.variant.latest_tag(), &it.index.digest)).collect();
    let standing = ledger.standing(staged.iter().map(|(tag, _)| tag))?;
    let at = |tag: &str, digest: &Digest| standing.get(tag).and_then(Option::as_ref) == Some(digest);
    // A rehearsal may have published part of the family.
    let whole = variants.len() == staged.len() || ledger.ctx.is_rehearsal();
    let published = !staged.is_empty() && staged.iter().all(|(tag, image)| at(tag, image));
    if whole && published || ledger.ctx.runner.dry_run {
        return Ok(());
    }
    Err(missing(format!(
        "the variants on top of {base} are not what latest points at: run `cargo xtask publish --promote-latest`"
    )))
}

fn plan(ctx: &Context, ledger: &Ledger<'_>, to: &Digest, journal: &Journal) -> Result<Promotion> {
    let now = ledger.standing([BASE_LATEST])?.remove(BASE_LATEST).flatten();
    let from = journal.before(BASE_LATEST, now.as_ref());
    let moves = vec![Move { tag: BASE_LATEST.to_owned(), floating: true, from, to: to.clone() }];
    Ok(Promotion { release: None, kind: PromotionKind::BaseLatest, moves, holder: ctx.holder.clone() })
}
