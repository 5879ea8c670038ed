//! Points the floating tags of all variants, and `base-latest`, back at a release that was published. Refuses a release
//! whose version tags no longer stand at the recorded images.

use anyhow::{Result, bail};
use serde_json::json;

use crate::ctx::Ctx;
use crate::ledger::Books;
use crate::missing;
use crate::model::promotion::{Move, Outcome, Promotion, PromotionKind};
use crate::model::version::ReleaseTag;
use crate::release_record as record;
use crate::rights;
use crate::state::{self, BASE_LATEST};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The release to go back to, such as v1.18.18
    pub release: ReleaseTag,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    let release = args.release;
    let repository = state::repository(ctx)?;
    let mut books = Books::open(ctx, &repository, &state::staging(ctx, &repository))?;
    let Some(record) = record::read(ctx, &repository, release)? else {
        bail!("{repository} has no record of {release}: it was never released there");
    };
    let version_tags = record.variants.iter().map(|variant| variant.version_tag.as_str());
    let published = books.standing(version_tags.chain([record.base.tag.as_str()]))?;
    let images = record.variants.iter().map(|it| (&it.version_tag, &it.digest));
    let gone: Vec<&str> = images
        .chain([(&record.base.tag, &record.base.digest)])
        .filter(|(tag, digest)| published.get(*tag) != Some(&Some((*digest).clone())))
        .map(|(tag, _)| tag.as_str())
        .collect();
    if !gone.is_empty() {
        bail!("{release} is not complete in {repository} any more: {} differ or are gone", gone.join(", "));
    }

    let targets = record.variants.iter().map(|it| (it.latest_tag.clone(), it.digest.clone()));
    let targets: Vec<_> = targets.chain([(BASE_LATEST.to_owned(), record.base.digest.clone())]).collect();
    let standing = books.standing(targets.iter().map(|(tag, _)| tag.as_str()))?;
    let moves = targets.into_iter().map(|(tag, to)| {
        let from = books.ledger.before(&tag, standing.get(&tag).and_then(Option::as_ref));
        Move { tag, floating: true, from, to }
    });
    let moves = moves.collect();
    let promotion = Promotion { release, kind: PromotionKind::Rollback, moves, outcome: Outcome::Open };
    let moved = promotion.pending(&standing).count();
    if moved == 0 && books.ledger.interrupted().is_none() {
        ctx.say(format!("the floating tags stand at {release} already"));
    } else {
        let problems = rights::missing(ctx, &repository);
        if !problems.is_empty() {
            return Err(missing(format!("nothing moved; {}", problems.join("; "))));
        }
        books.begin(promotion, false)?;
        books.promote()?;
    }
    if ctx.json {
        println!("{}", json!({ "release": release, "repository": repository.to_string(), "moved": moved }));
    }
    Ok(())
}
