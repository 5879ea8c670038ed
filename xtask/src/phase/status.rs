//! Draws how far a release has come, per variant and platform, from its record in the registry. Refuses a release that
//! has no record.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;

use crate::ctx::Ctx;
use crate::ledger::Books;
use crate::model::platform::Platform;
use crate::model::promotion::Standing;
use crate::model::reference::Repository;
use crate::release_record::{self as record, Record, VariantRecord};
use crate::state;
use crate::tools::hub::Hub;

#[derive(Serialize)]
struct Row {
    variant: String,
    platform: Platform,
    /// The platform's image is in the staging repository.
    built: bool,
    /// The suite has passed on it.
    smoked: bool,
    /// The index over all platforms is in the staging repository.
    staged: bool,
    /// The version tag points at it.
    tagged: bool,
    /// The floating tag points at it.
    latest: bool,
    /// Docker Hub shows the description of this tree; nothing where there is no Hub or no account to ask with.
    described: Option<bool>,
}

pub fn run(ctx: &Ctx) -> Result<()> {
    let repository = state::repository(ctx)?;
    let staging = state::staging(ctx, &repository);
    let books = Books::open(ctx, &repository, &staging)?;
    let last = books.ledger.promotion.as_ref().map(|promotion| promotion.release);
    let Some(release) = ctx.release_tag.or(last) else {
        bail!("nothing was released in {repository} yet: run `cargo xtask release`");
    };
    let Some(record) = record::read(ctx, &repository, release)? else {
        bail!("{repository} has no record of {release}: it was never released there");
    };
    let tags = record.variants.iter().flat_map(|it| [it.version_tag.as_str(), it.latest_tag.as_str()]);
    let standing = books.standing(tags)?;
    let described = described(ctx, &repository)?;
    let mut rows = Vec::new();
    for variant in &record.variants {
        rows.extend(rows_of(ctx, &staging, variant, &standing, described)?);
    }
    let cut_off = books.ledger.interrupted().map(|promotion| promotion.release);
    if ctx.json {
        println!("{}", json!({ "release": release, "rows": rows, "interrupted": cut_off, "record": record }));
        return Ok(());
    }
    print(&record, &rows);
    if let Some(release) = cut_off {
        println!("the promotion of {release} was cut off or is under way: `cargo xtask repair` completes it");
    }
    Ok(())
}

fn rows_of(
    ctx: &Ctx,
    staging: &Repository,
    variant: &VariantRecord,
    standing: &Standing,
    described: Option<bool>,
) -> Result<Vec<Row>> {
    let staged = ctx.registry.manifest(&ctx.runner, staging, &variant.digest)?.is_some();
    let stands = |tag: &str| standing.get(tag) == Some(&Some(variant.digest.clone()));
    let row = |it: &record::PlatformRecord| {
        let verdicts = state::verdicts(ctx, staging, &it.digest)?;
        Ok(Row {
            variant: variant.name.clone(),
            platform: it.platform,
            built: ctx.registry.manifest(&ctx.runner, staging, &it.digest)?.is_some(),
            smoked: verdicts.iter().any(|verdict| verdict.passed && verdict.suite == it.suite),
            staged,
            tagged: stands(&variant.version_tag),
            latest: stands(&variant.latest_tag),
            described,
        })
    };
    variant.platforms.iter().map(row).collect()
}

fn described(ctx: &Ctx, repository: &Repository) -> Result<Option<bool>> {
    let Ok(account) = ctx.hub_account() else { return Ok(None) };
    if !repository.is_docker_hub() {
        return Ok(None);
    }
    let wanted = (ctx.read("DOCKER_HUB.md")?, ctx.config.short_description.clone());
    Ok(Some(Hub::login(&account)?.description(repository)? == wanted))
}

fn print(record: &Record, rows: &[Row]) {
    println!("{} upon {}", record.release, record.base.tag);
    let heads = ["built", "smoked", "staged", "tagged", "latest", "described"];
    println!(
        "{:<13} {:<12} {}",
        "variant",
        "platform",
        heads.map(|head| format!("{head:<9}")).join(" ").trim_end()
    );
    for row in rows {
        let described = row.described.map_or("-", mark);
        let cells = [row.built, row.smoked, row.staged, row.tagged, row.latest].map(mark);
        let cells: Vec<String> = cells.iter().chain([&described]).map(|cell| format!("{cell:<9}")).collect();
        println!("{:<13} {:<12} {}", row.variant, row.platform.to_string(), cells.join(" ").trim_end());
    }
}

fn mark(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
