//! Gives the tested images their public tags. Nothing is built; tags move onto digests that have passed.
//!
//! Every refusal comes before the first write. Version tags of all variants come first and are never re-pointed;
//! floating tags follow together. See [`crate::ledger`] for what happens when that is cut off.

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::ctx::Ctx;
use crate::ledger::Books;
use crate::missing;
use crate::model::layers::{self, Layer};
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::promotion::{Move, Outcome, Promotion, PromotionKind, Standing};
use crate::model::reference::Repository;
use crate::model::version::ReleaseTag;
use crate::release_record as record;
use crate::rights;
use crate::state::{self, Base, Stage};
use crate::tools::{crane, git};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Also point `latest` and `latest-<variant>` at this release
    #[arg(long)]
    pub promote_latest: bool,
    /// Let latest go back to an older release
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Only these variants; a local rehearsal may publish part of the family
    #[arg(long, value_name = "VARIANT")]
    pub only: Vec<String>,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    let args = &Args { promote_latest: args.promote_latest && !ctx.holds_latest_back(), ..args.clone() };
    if !args.only.is_empty() && !ctx.is_rehearsal() {
        bail!("--only would publish part of a release: it is for registries on this machine");
    }
    // What is published is what was tested.
    let (base, index) = state::existing_base(ctx)?;
    let stages = state::stages(ctx, &args.only, &base, &index)?;
    refuse_untested(ctx, &stages)?;

    // Which release this is, and what its tags point at now.
    let mut books = Books::open(ctx, &base.repository, &state::staging(ctx, &base.repository))?;
    let (release, mut standing) = release_tag(ctx, &base.repository, &stages)?;
    ctx.say(format!("release {release} in {}", base.repository));
    ctx.ci.set("release_tag", release)?;
    if args.promote_latest {
        let tags: Vec<String> = stages.iter().map(|stage| stage.variant.latest_tag()).collect();
        standing.extend(books.standing(tags.iter().map(String::as_str))?);
    }
    let promotion = promotion(&books, &stages, release, args, &standing)?;
    let pending = promotion.pending(&standing).count();
    if pending == 0 {
        return finished(ctx, &mut books, release);
    }

    // Every problem at once, before the first write.
    let mut problems = wrong_layers(ctx, &base, &index, &stages)?;
    problems.extend(wrong_commit(ctx, release)?);
    if args.promote_latest && !args.allow_downgrade && books.ledger.is_downgrade(release) {
        let latest = books.ledger.latest.context("a downgrade from nothing")?;
        problems
            .push(format!("latest stands at {latest}, which is newer: give --allow-downgrade to go back"));
    }
    problems.extend(rights::missing(ctx, &base.repository));
    if ctx.runner.probe(&crane::version()).is_none() {
        problems.push("crane is not installed: run `cargo xtask doctor --install`".to_owned());
    }
    if !problems.is_empty() {
        return Err(missing(format!("nothing published; {}", problems.join("; "))));
    }

    // The record says what the release is before any public tag says so.
    books.refuse_held(false)?;
    record::write(ctx, &base, &index, &stages, &promotion, books.ledger.latest)?;
    books.begin(promotion, false)?;
    books.promote()?;
    if ctx.json {
        let repository = base.repository.to_string();
        println!("{}", json!({ "release": release, "repository": repository, "moved": pending }));
    }
    Ok(())
}

/// Nothing is left to move. A ledger that a run was cut off before closing is closed now.
fn finished(ctx: &Ctx, books: &mut Books<'_>, release: ReleaseTag) -> Result<()> {
    if let Some(cut_off) = books.ledger.interrupted() {
        books.refuse_held(false)?;
        let standing = books.standing_of(cut_off)?;
        if cut_off.pending(&standing).next().is_some() {
            let cut_off = cut_off.release;
            return Err(missing(format!("the promotion of {cut_off} was cut off: run `cargo xtask repair`")));
        }
        books.ledger.latest = books.ledger.latest.max(Some(release));
        books.finish(Outcome::Done)?;
    }
    if ctx.json {
        println!("{}", json!({ "release": release, "repository": books.repository.to_string(), "moved": 0 }));
    } else {
        ctx.say("all tags stand already: nothing to publish");
    }
    Ok(())
}

/// Every variant has to be staged and to have passed on every platform; all gaps are told at once.
fn refuse_untested(ctx: &Ctx, stages: &[Stage]) -> Result<()> {
    let mut problems = Vec::new();
    for stage in stages {
        let name = &stage.variant.name;
        if stage.present.is_none() {
            problems.push(format!("{name} is not staged: run `cargo xtask build {name}`"));
            continue;
        }
        for platform in &ctx.platforms {
            let again = format!("run `cargo xtask smoke {name}`");
            match state::verdict(ctx, stage, *platform)? {
                Some(verdict) if verdict.passed => {}
                Some(_) => problems.push(format!("{name} failed its smoke test on {platform}: {again}")),
                None => problems.push(format!("{name} is untested on {platform}: {again}")),
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(missing(format!("nothing published; {}", problems.join("; "))))
    }
}

/// The release to publish as, and where its version tags stand: the one that was asked for if its tags are free or
/// equal, else the first such.
fn release_tag(ctx: &Ctx, repository: &Repository, stages: &[Stage]) -> Result<(ReleaseTag, Standing)> {
    let pinned = ctx.opencode_version()?;
    if let Some(asked) = ctx.release_tag {
        if asked.version != pinned {
            bail!(
                "release {asked} does not match the pinned opencode {pinned}: run `cargo xtask bump-opencode {}`",
                asked.version
            );
        }
        return match version_tags(ctx, repository, stages, asked)? {
            Ok(standing) => Ok((asked, standing)),
            Err(taken) => bail!(
                "{taken} stands for another image and version tags never move: release under the next letter"
            ),
        };
    }
    let mut candidate = Some(ReleaseTag::first(pinned));
    while let Some(release) = candidate {
        if let Ok(standing) = version_tags(ctx, repository, stages, release)? {
            return Ok((release, standing));
        }
        candidate = release.next();
    }
    bail!("all releases of {pinned} from bare to z are taken: bump opencode")
}

/// Where the version tags of a release stand, or the first of them that points at another image.
fn version_tags(
    ctx: &Ctx,
    repository: &Repository,
    stages: &[Stage],
    release: ReleaseTag,
) -> Result<Result<Standing, String>> {
    let mut standing = Standing::new();
    for stage in stages {
        let tag = stage.variant.version_tag(release);
        let there = ctx.registry.digest(&ctx.runner, repository, &tag)?;
        let own = stage.present.as_ref().map(|own| &own.digest);
        if there.is_some() && there.as_ref() != own {
            return Ok(Err(repository.tag(&tag)));
        }
        standing.insert(tag, there.map(String::from));
    }
    Ok(Ok(standing))
}

/// The moves of this release: version tags of all variants, then, if asked for, the floating tags of all.
fn promotion(
    books: &Books<'_>,
    stages: &[Stage<'_>],
    release: ReleaseTag,
    args: &Args,
    standing: &Standing,
) -> Result<Promotion> {
    let mut moves = Vec::new();
    for floating in [false, true] {
        if floating && !args.promote_latest {
            break;
        }
        for stage in stages {
            let tag = if floating { stage.variant.latest_tag() } else { stage.variant.version_tag(release) };
            let now = standing.get(&tag).and_then(Option::as_ref);
            let from = if floating { books.ledger.before(&tag, now) } else { None };
            moves.push(Move { tag, floating, from, to: stage.staged()?.digest.to_string() });
        }
    }
    Ok(Promotion { release, kind: PromotionKind::Publish, moves, outcome: Outcome::Open })
}

/// Every variant has to begin with exactly the layers of the base that it claims, on every platform, and no layer of
/// either may be larger than it is allowed to be.
fn wrong_layers(ctx: &Ctx, base: &Base, index: &Manifest, stages: &[Stage<'_>]) -> Result<Vec<String>> {
    let layers = |repository: &Repository, index: &Manifest, platform: Platform| -> Result<Vec<Layer>> {
        let digest = index.platform(platform).context("a complete index lacks a platform")?;
        let image = ctx.registry.manifest(&ctx.runner, repository, digest)?;
        Ok(image.context("an index without its image")?.layers())
    };
    let mut problems = Vec::new();
    for platform in &ctx.platforms {
        let shared = layers(&base.repository, index, *platform)?;
        let budgets: Vec<_> =
            ctx.config.base_layers.iter().map(|layer| (layer.name.as_str(), layer.budget_mb)).collect();
        let wrong = layers::base_problems(&shared, &budgets);
        problems.extend(wrong.iter().map(|why| format!("{} on {platform} {why}", base.tag)));
        for stage in stages {
            let mut components = Vec::new();
            for name in &stage.variant.components {
                let budget = ctx.config.component(name)?.budget_mb;
                components.push((
                    name.as_str(),
                    budget.with_context(|| format!("{name} has no budget_mb in devbox.toml"))?,
                ));
            }
            let own = layers(&stage.staging, stage.staged()?, *platform)?;
            let wrong = layers::problems(&shared, &own, &components);
            problems.extend(wrong.iter().map(|why| format!("{} on {platform} {why}", stage.tag)));
        }
    }
    Ok(problems)
}

/// A public release is a commit that anybody can look up: nothing uncommitted, and its tag on it.
fn wrong_commit(ctx: &Ctx, release: ReleaseTag) -> Result<Vec<String>> {
    if ctx.is_rehearsal() {
        return Ok(Vec::new());
    }
    Ok(commit_problems(git::is_clean(&ctx.runner)?, &git::tags(&ctx.runner)?, release))
}

fn commit_problems(clean: bool, tags: &[String], release: ReleaseTag) -> Vec<String> {
    let mut problems = Vec::new();
    if !clean {
        problems.push("the tree differs from its commit: commit or stash the changes".to_owned());
    }
    if !tags.contains(&release.to_string()) {
        problems
            .push(format!("the commit is not tagged {release}: run `git tag -a {release}` and push the tag"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_release_is_a_clean_commit_with_its_own_tag() {
        let release: ReleaseTag = "v1.18.18".parse().expect("a tag");
        let tags = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(commit_problems(true, &tags(&["other", "v1.18.18"]), release).is_empty());
        assert_eq!(commit_problems(false, &tags(&["v1.18.18b"]), release).len(), 2);
    }
}
