//! Says what a release of this tree would reuse, build, test and tag, why, and about how long it would take. Changes
//! nothing: no registry is started, no image made. Causes come from the inputs that the published images carry. Refuses
//! nothing: an unknown value is reported as unknown.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::image::base::{self, BASE_LATEST, FoundBase};
use crate::image::tree::Tree;
use crate::image::variant::{self, FoundVariant, StagedVariant};
use crate::image::{build_record, changes, verdict};
use crate::model::component::{Component, Source};
use crate::model::dockerfile::with_arg_default;
use crate::model::key::{Change, Inputs, digest};
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::table::{self, Kind, Table};
use crate::model::verdict::Verdict;
use crate::output;
use crate::promotion::release_tag::{self, Floating};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Reuse,
    Build,
    Smoke,
    Retag,
}

/// What happens to one image on one platform.
#[derive(Serialize)]
struct Row {
    image: String,
    platform: Platform,
    actions: Vec<Action>,
    /// Why it is built; empty where it is not.
    causes: Vec<String>,
    /// Compressed bytes that a build pushes beyond the base, as the published image has them.
    bytes: Option<u64>,
    /// Seconds of its smoke test, as last recorded.
    smoke_seconds: Option<u64>,
}

/// Seconds that the parts of a release take, going by the last recorded runs; nothing where one was never recorded.
#[derive(Clone, Copy, Serialize)]
struct Forecast {
    base: Option<u64>,
    variants: Option<u64>,
    smoke: Option<u64>,
}

impl Forecast {
    fn sum(&self) -> Option<u64> {
        add(add(self.base, self.variants), self.smoke)
    }

    /// The parts that take time.
    fn parts(&self) -> Vec<String> {
        let parts = [("base", self.base), ("variants", self.variants), ("smoke", self.smoke)];
        let taking =
            parts.into_iter().filter_map(|(name, seconds)| Some((name, seconds.filter(|s| *s > 0)?)));
        taking.map(|(name, seconds)| format!("{name} {seconds}")).collect()
    }
}

pub fn run(ctx: &Context) -> Result<()> {
    let tree = &Tree::load(ctx)?;
    let base = base::find(ctx, tree, &ctx.platforms)?;
    let repository = &base.repository;
    let staging = ctx.staging(repository);
    let published = |tag: &str| ctx.registry.image(&ctx.runner, repository, tag);
    let (mut rows, mut forecast) =
        (Vec::new(), Forecast { base: Some(0), variants: Some(0), smoke: Some(0) });

    // The base first: all else depends on it.
    let old_base = published(BASE_LATEST)?;
    let building = base.as_built().is_none();
    let why = if building { causes(ctx, tree, old_base.as_ref(), &base.inputs) } else { Vec::new() };
    for platform in &ctx.platforms {
        rows.push(Row {
            image: base.tag.clone(),
            platform: *platform,
            actions: vec![if building { Action::Build } else { Action::Reuse }],
            causes: why.clone(),
            bytes: if building { bytes(ctx, repository, old_base.as_ref(), None, *platform)? } else { None },
            smoke_seconds: None,
        });
    }
    if building {
        forecast.base = build_seconds(ctx, &staging, old_base.as_ref())?;
    }

    // Then the variants; without a base their keys cannot be known, but their causes can.
    let found = match base.as_built() {
        Some(base) => variant::find(ctx, tree, base, &[])?,
        None => Vec::new(),
    };
    for variant in &ctx.config.variant {
        let plan = found.iter().find(|it| it.variant.name == variant.name);
        let staged = plan.and_then(FoundVariant::as_staged);
        let old = published(&variant.latest_tag())?;
        let inputs = match plan {
            Some(plan) => plan.inputs.clone(),
            None => {
                let parents = old.as_ref().and_then(base::inputs_of).unwrap_or_default().parents;
                variant::inputs(ctx, tree, variant, parents)?
            }
        };
        let is_staged = staged.is_some();
        let mut why = if is_staged { Vec::new() } else { causes(ctx, tree, old.as_ref(), &inputs) };
        if building && old.is_some() {
            why.push("the base is rebuilt".to_owned());
        }
        let actions = actions(ctx, tree, &base, staged, old.as_ref())?;
        for platform in &ctx.platforms {
            let smoke_seconds = smoke_seconds(ctx, &staging, old.as_ref(), *platform)?;
            let actions = actions(*platform);
            if actions.contains(&Action::Smoke) {
                forecast.smoke = add(forecast.smoke, smoke_seconds);
            }
            let bytes = if is_staged {
                None
            } else {
                bytes(ctx, repository, old.as_ref(), old_base.as_ref(), *platform)?
            };
            let (image, causes) = (variant.name.clone(), why.clone());
            rows.push(Row { image, platform: *platform, actions, causes, bytes, smoke_seconds });
        }
        if !is_staged {
            // One bake builds all variants, so its time counts once.
            let last = build_seconds(ctx, &staging, old.as_ref())?;
            forecast.variants = forecast.variants.zip(last).map(|(a, b): (u64, u64)| a.max(b));
        }
    }
    let floating = release_tag::floating(ctx, repository)?;
    print(ctx, &rows, forecast, &floating);
    Ok(())
}

/// What happens to a variant on each platform.
fn actions(
    ctx: &Context,
    tree: &Tree,
    base: &FoundBase,
    staged: Option<&StagedVariant<'_>>,
    published: Option<&Manifest>,
) -> Result<impl Fn(Platform) -> Vec<Action>> {
    let verdicts = match (base.as_built(), staged) {
        (Some(base), Some(staged)) => Some(verdict::find(ctx, tree, base, staged)?),
        _ => None,
    };
    let is_published =
        staged.zip(published).is_some_and(|(staged, published)| staged.index.digest == published.digest);
    Ok(move |platform| {
        let Some(verdicts) = &verdicts else { return vec![Action::Build, Action::Smoke, Action::Retag] };
        let mut actions = vec![Action::Reuse];
        if !verdicts.get(&platform).is_some_and(Verdict::passed) {
            actions.push(Action::Smoke);
        }
        if !is_published {
            actions.push(Action::Retag);
        }
        actions
    })
}

fn causes(ctx: &Context, tree: &Tree, old: Option<&Manifest>, inputs: &Inputs) -> Vec<String> {
    let Some(old) = old else { return vec!["nothing is published yet".to_owned()] };
    match changes::since(ctx, old, inputs) {
        None => vec!["the published image does not say what it was made from".to_owned()],
        Some(changes) => told(ctx, tree, &changes),
    }
}

/// Causes as a person reads them: a changed version replaces the edits that it makes, of its `ARG` and its locks.
fn told(ctx: &Context, tree: &Tree, changes: &[Change]) -> Vec<String> {
    let locks = locks(ctx, changes);
    let is_lock = |path: &String| locks.iter().any(|lock| path.starts_with(lock.as_str()));
    let follows = |change: &&Change| match change {
        Change::Edited { path, was, .. } => is_lock(path) || is_only_versions(ctx, tree, changes, path, was),
        Change::Added(path) | Change::Removed(path) => is_lock(path),
        _ => false,
    };
    changes.iter().filter(|change| !follows(change)).map(ToString::to_string).collect()
}

/// The locks of the components whose version changed, as the beginning of their paths.
fn locks(ctx: &Context, changes: &[Change]) -> Vec<String> {
    let lock = |change: &Change| {
        let Change::Version { name, .. } = change else { return None };
        let component = ctx.config.component(name).ok()?;
        Some(match component.source {
            Source::Npm(_) => format!("{}/", component.npm_folder()),
            Source::Pypi(_) => format!("{}.", component.python_lock()),
            Source::Gitea(_) => component.checksums(),
        })
    };
    changes.iter().filter_map(lock).collect()
}

/// True if a file with the old versions in its `ARG` lines is the old file.
fn is_only_versions(ctx: &Context, tree: &Tree, changes: &[Change], path: &str, was: &str) -> bool {
    let Some(mut text) = tree.text(path).ok().map(str::to_owned) else {
        return false;
    };
    let mut replaced = false;
    for change in changes {
        let Change::Version { name, from: Some(from), .. } = change else { continue };
        let arg = ctx.config.component(name).map(Component::arg);
        if let Some(old) = arg.ok().and_then(|arg| with_arg_default(&text, &arg, from).ok()) {
            (text, replaced) = (old, true);
        }
    }
    replaced && digest(text.as_bytes()).ends_with(was)
}

/// Bytes of the layers that the published image has beyond the base that it is built on.
fn bytes(
    ctx: &Context,
    repository: &Repository,
    image: Option<&Manifest>,
    base: Option<&Manifest>,
    platform: Platform,
) -> Result<Option<u64>> {
    let layers = |index: Option<&Manifest>| -> Result<Option<Vec<(String, u64)>>> {
        let Some(digest) = index.and_then(|index| index.platform(platform)) else { return Ok(None) };
        Ok(ctx.registry.manifest(&ctx.runner, repository, digest)?.map(|image| image.layers()))
    };
    let Some(own) = layers(image)? else { return Ok(None) };
    let shared = layers(base)?.unwrap_or_default();
    Ok(Some(own.iter().filter(|layer| !shared.contains(layer)).map(|(_, size)| size).sum()))
}

fn build_seconds(ctx: &Context, staging: &Repository, old: Option<&Manifest>) -> Result<Option<u64>> {
    let Some(old) = old else { return Ok(None) };
    Ok(build_record::read(ctx, staging, &old.digest)?.map(|record| record.seconds))
}

fn smoke_seconds(
    ctx: &Context,
    staging: &Repository,
    old: Option<&Manifest>,
    platform: Platform,
) -> Result<Option<u64>> {
    let Some(image) = old.and_then(|old| old.platform(platform)) else { return Ok(None) };
    let newest = verdict::all(ctx, staging, image)?.into_iter().max_by_key(|verdict| verdict.at);
    Ok(newest.map(|verdict| verdict.seconds))
}

/// A sum that is unknown as soon as one part is.
fn add(sum: Option<u64>, part: Option<u64>) -> Option<u64> {
    Some(sum? + part?)
}

fn print(ctx: &Context, rows: &[Row], forecast: Forecast, floating: &Floating) {
    let budget = ctx.repository().ok().and_then(|repository| ctx.registry.budget(&repository));
    let hidden = ctx.registry.hidden();
    if ctx.json {
        let all = json!({ "rows": rows, "estimated_seconds": forecast.sum(), "estimate": forecast,
            "added": floating.added, "left_over": floating.left_over, "manifest_reads": budget, "hidden": hidden });
        output::line(all);
        return;
    }
    Table::of(rows).text().lines().for_each(|line| ctx.tell(line));
    for (repository, why) in hidden {
        ctx.tell(format!("{repository} cannot be read here, so its images count as missing: {why}"));
    }
    for tag in floating.added.iter().filter(|_| !floating.releases.is_empty()) {
        ctx.tell(format!("{tag} is new"));
    }
    for tag in &floating.left_over {
        ctx.tell(format!("{tag} is published and no variant has it"));
    }
    if let Some(budget) = budget {
        ctx.tell(format!("{} of {} manifest reads are left at the registry", budget.remaining, budget.limit));
    }
    let works = |row: &Row| row.actions.iter().any(|action| matches!(action, Action::Build | Action::Smoke));
    match forecast.sum() {
        _ if !rows.iter().any(works) => ctx.tell("nothing is to be built or tested"),
        Some(seconds) => ctx.tell(format!(
            "about {seconds} s, going by the last recorded runs: {}",
            forecast.parts().join(", ")
        )),
        None => ctx.tell("how long it takes is not known: some of it was never recorded here"),
    }
}

impl table::Row for Row {
    const COLUMNS: &'static [(&'static str, Kind)] = &[
        ("image", Kind::Text),
        ("platform", Kind::Text),
        ("actions", Kind::Text),
        ("MB", Kind::Number),
        ("smoke s", Kind::Number),
        ("cause", Kind::Text),
    ];

    fn cells(&self) -> Vec<String> {
        let actions = self.actions.iter().map(|action| format!("{action:?}").to_lowercase());
        let smoke = self.actions.contains(&Action::Smoke).then_some(self.smoke_seconds).flatten();
        vec![
            self.image.clone(),
            self.platform.to_string(),
            actions.collect::<Vec<_>>().join(" "),
            self.bytes.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6)),
            smoke.map_or("-".to_owned(), |seconds| seconds.to_string()),
            in_short(&self.causes),
        ]
    }
}

/// Causes on one line: the first few, and how many more there are. `--json` and `explain` list all.
fn in_short(causes: &[String]) -> String {
    const MOST: usize = 3;
    let mut text = causes.iter().take(MOST).cloned().collect::<Vec<_>>().join("; ");
    if causes.len() > MOST {
        text.push_str(&format!("; and {} more", causes.len() - MOST));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_is_unknown_where_a_part_is_unknown() {
        let forecast = Forecast { base: Some(0), variants: Some(60), smoke: Some(200) };
        assert_eq!(forecast.sum(), Some(260));
        assert_eq!(forecast.parts(), ["variants 60", "smoke 200"]);
        assert_eq!(Forecast { base: None, ..forecast }.sum(), None);
    }

    #[test]
    fn many_causes_are_counted() {
        let causes = ["a", "b", "c", "d", "e"].map(String::from);
        assert_eq!(in_short(&causes[..3]), "a; b; c");
        assert_eq!(in_short(&causes), "a; b; c; and 2 more");
    }
}
