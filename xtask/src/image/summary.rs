//! The images of this tree as a table, for the end of a release and for the summary of a CI step. A summary never makes
//! a phase fail: an unknown value is reported as unknown.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::context::Context;
use crate::image::base::{self, BuiltBase, FoundBase};
use crate::image::tree::Tree;
use crate::image::variant::{self, StagedVariant};
use crate::image::verdict;
use crate::model::platform::Platform;
use crate::model::table::{self, Kind, Table};
use crate::model::verdict::Verdict;

/// One image of one platform.
#[derive(Serialize)]
pub struct Row {
    pub variant: String,
    pub platform: Platform,
    pub digest: String,
    /// Compressed size of all layers.
    pub bytes: u64,
    /// How long the smoke test took when it passed; nothing where it has not.
    pub smoke_seconds: Option<u64>,
    pub run: String,
}

impl table::Row for Row {
    const COLUMNS: &'static [(&'static str, Kind)] = &[
        ("variant", Kind::Text),
        ("platform", Kind::Text),
        ("digest", Kind::Digest),
        ("MB", Kind::Number),
        ("smoke s", Kind::Number),
        ("run", Kind::Code),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.variant.clone(),
            self.platform.to_string(),
            self.digest.clone(),
            format!("{:.1}", self.bytes as f64 / 1e6),
            self.smoke_seconds.map_or("-".to_owned(), |seconds| seconds.to_string()),
            self.run.clone(),
        ]
    }
}

/// The images of one variant.
pub fn rows_of(
    ctx: &Context,
    base: &BuiltBase,
    staged: &StagedVariant<'_>,
    verdicts: &BTreeMap<Platform, Verdict>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (platform, digest) in staged.index.images() {
        let verdict = verdicts.get(&platform).filter(|verdict| verdict.passed());
        let image = ctx.registry.manifest(&ctx.runner, &staged.staging, digest)?;
        let reference = base.repository.tag(&staged.variant.latest_tag());
        rows.push(Row {
            variant: staged.variant.name.clone(),
            platform,
            digest: digest.to_string(),
            bytes: image.context("an index without its image")?.layer_bytes(),
            smoke_seconds: verdict.map(|verdict| verdict.seconds),
            run: format!("docker run --rm -it --platform {platform} {reference}"),
        });
    }
    Ok(rows)
}

/// Appends what the phase did to the summary of the CI step, where there is one, and lists the images of `variants`, all of
/// them if none is named.
pub fn write(ctx: &Context, variants: Option<Vec<String>>, start: Instant, result: &Result<()>) {
    if !ctx.ci.has_summary() || ctx.runner.dry_run && !ctx.read_only {
        return;
    }
    let outcome = if result.is_ok() { "done" } else { "failed" };
    let mut text = format!("### `{}`: {outcome} in {} s\n\n", ctx.settings.line, start.elapsed().as_secs());
    let mut told = ctx.ci.told();
    told.extend(result.as_ref().err().map(|error| format!("error: {error:#}")));
    if !told.is_empty() {
        text.push_str(&format!("```text\n{}\n```\n\n", told.join("\n")));
    }
    if let Some(variants) = variants {
        match table(ctx, &variants) {
            Ok(table) => text.push_str(&table),
            Err(error) => text.push_str(&format!("The images cannot be listed: {error:#}\n\n")),
        }
    }
    if let Err(error) = ctx.ci.summarize(&text) {
        ctx.say(format!("no summary: {error:#}"));
    }
}

/// The staged images of these variants, of all if none is named.
fn table(ctx: &Context, only: &[String]) -> Result<String> {
    let tree = Tree::load(ctx)?;
    // Where the base is missing the phase has said so.
    let FoundBase::Built(base) = base::find(ctx, &tree, &ctx.platforms)? else { return Ok(String::new()) };
    let mut rows = Vec::new();
    for found in variant::find(ctx, &tree, &base, only)? {
        let Some(staged) = found.as_staged() else { continue };
        rows.extend(rows_of(ctx, &base, staged, &verdict::find(ctx, &tree, &base, staged)?)?);
    }
    Ok(Table::of(&rows).markdown() + "\n")
}
