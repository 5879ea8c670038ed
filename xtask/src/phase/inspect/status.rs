//! Draws how far a release has come, per variant and platform, from its record in the registry. Refuses a release that
//! has no record.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::image::verdict;
use crate::model::platform::Platform;
use crate::model::promotion::Standing;
use crate::model::reference::Repository;
use crate::model::table::{self, Kind};
use crate::model::verdict::origins;
use crate::output;
use crate::promotion::ledger::Ledger;
use crate::promotion::record::{self, VariantRecord};
use crate::promotion::release_tag;
use crate::tools::hub::Hub;

#[derive(Serialize)]
struct Row {
    variant: String,
    platform: Platform,
    /// The platform's image is in the staging repository.
    built: bool,
    /// Every check has passed for it.
    smoked: bool,
    /// How many checks ran where: on this image, or on another one with the same layers.
    checks: String,
    /// The index over all platforms is in the staging repository.
    staged: bool,
    /// The version tag points at it.
    tagged: bool,
    /// The floating tag points at it.
    latest: bool,
    /// Docker Hub shows the description of this tree; nothing where there is no Hub or no account to ask with.
    described: Option<bool>,
}

pub fn run(ctx: &Context) -> Result<()> {
    let repository = ctx.repository()?;
    let staging = ctx.staging(&repository);
    let ledger = Ledger::new(ctx, &repository);
    let journal = ledger.journal()?;
    let floating = release_tag::floating(ctx, &repository)?;
    let last = ledger.last(&journal)?.and_then(|promotion| promotion.release).or(floating.newest());
    let Some(release) = ctx.release_tag.or(last) else {
        bail!("nothing was released in {repository} yet: run `cargo xtask release`");
    };
    let Some(record) = record::read(ctx, &repository, release)? else {
        bail!("{repository} has no record of {release}: it was never released there");
    };
    let tags = record.variants.iter().flat_map(|it| [it.version_tag.as_str(), it.latest_tag.as_str()]);
    let standing = ledger.standing(tags)?;
    let described = described(ctx, &repository)?;
    let mut rows = Vec::new();
    for variant in &record.variants {
        rows.extend(rows_of(ctx, &staging, variant, &standing, described)?);
    }
    let interrupted = journal.interrupted().find(|(_, it)| !it.is_prune()).map(|(_, it)| it.name());
    let at_work = journal.held().next().and_then(|attempt| journal.document(&attempt.id));
    let at_work = at_work.map(|promotion| promotion.name());
    if ctx.json {
        let floating = json!({ "releases": floating.releases, "left_over": floating.left_over, "added": floating.added });
        output::json(
            &json!({ "release": release, "rows": rows, "interrupted": interrupted, "at_work": at_work,
                "floating": floating, "record": record }),
        );
        return Ok(());
    }
    output::line(format!("{} on top of {}", record.release, record.base.tag));
    output::table(&rows);
    for row in rows.iter().filter(|row| !row.checks.is_empty()) {
        output::line(format!("{} {}: {}", row.variant, row.platform, row.checks));
    }
    for tag in &floating.left_over {
        output::line(format!("{tag} is published and no variant of this tree has it"));
    }
    for tag in &floating.added {
        output::line(format!("{tag} is not published yet"));
    }
    if let Some(name) = interrupted {
        output::line(format!("the promotion of {name} was interrupted: `cargo xtask repair` completes it"));
    }
    if let Some(name) = at_work {
        output::line(format!("{name} is being promoted now"));
    }
    Ok(())
}

fn rows_of(
    ctx: &Context,
    staging: &Repository,
    variant: &VariantRecord,
    standing: &Standing,
    described: Option<bool>,
) -> Result<Vec<Row>> {
    let staged = ctx.registry.has(&ctx.runner, staging, &variant.digest)?;
    let at =
        |tag: &str| standing.get(tag).and_then(Option::as_ref).is_some_and(|now| **now == *variant.digest);
    let row = |it: &record::PlatformRecord| {
        let verdicts = verdict::all(ctx, staging, &it.digest)?;
        Ok(Row {
            variant: variant.name.clone(),
            platform: it.platform,
            built: ctx.registry.has(&ctx.runner, staging, &it.digest)?,
            smoked: verdicts.iter().any(|verdict| verdict.passed() && verdict.covers(&it.checks)),
            checks: origins(&it.checks),
            staged,
            tagged: at(&variant.version_tag),
            latest: at(&variant.latest_tag),
            described,
        })
    };
    variant.platforms.iter().map(row).collect()
}

fn described(ctx: &Context, repository: &Repository) -> Result<Option<bool>> {
    let Ok(account) = ctx.hub_account() else { return Ok(None) };
    if !repository.is_docker_hub() {
        return Ok(None);
    }
    let wanted = (ctx.read("DOCKER_HUB.md")?, ctx.config.short_description.clone());
    Ok(Some(Hub::login(&account)?.description(repository)? == wanted))
}

impl table::Row for Row {
    const COLUMNS: &'static [(&'static str, Kind)] = &[
        ("variant", Kind::Text),
        ("platform", Kind::Text),
        ("built", Kind::Text),
        ("smoked", Kind::Text),
        ("staged", Kind::Text),
        ("tagged", Kind::Text),
        ("latest", Kind::Text),
        ("described", Kind::Text),
    ];

    fn cells(&self) -> Vec<String> {
        let marks = [self.built, self.smoked, self.staged, self.tagged, self.latest].map(mark);
        let described = self.described.map_or("-", mark);
        let marks = marks.into_iter().chain([described]).map(str::to_owned);
        [self.variant.clone(), self.platform.to_string()].into_iter().chain(marks).collect()
    }
}

fn mark(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
