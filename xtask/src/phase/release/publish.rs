//! Gives the tested images their public tags. Nothing is built; tags move onto digests that have passed.
//!
//! Every refusal comes before the first write. Version tags of all variants come first and are never re-pointed;
//! floating tags follow together. See [`crate::promotion`] for what happens after an interruption.

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::context::Context;
use crate::error::missing;
use crate::image::base::{self, BuiltBase};
use crate::image::tree::Tree;
use crate::image::variant::{self, FoundVariant};
use crate::image::verdict::{self, TestedVariant};
use crate::model::layers::{self, Layer};
use crate::model::oci::Digest;
use crate::model::promotion::{Move, Promotion, PromotionKind, Standing};
use crate::model::reference::Repository;
use crate::model::version::ReleaseTag;
use crate::output;
use crate::promotion::ledger::{Journal, Ledger};
use crate::promotion::release_tag::{self, Floating};
use crate::promotion::{attest, permissions, record};
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

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    refuse_part(ctx, &args.only)?;
    ctx.start_registry()?;
    // What is published is what was tested.
    let tree = Tree::load(ctx)?;
    let base = base::find_built(ctx, &tree)?;
    let tested = verdict::find_tested(ctx, &tree, &base, variant::find(ctx, &tree, &base, &args.only)?)?;
    publish(ctx, &tree, &base, &tested, args).map(drop)
}

/// Fails if only some variants of a release would become public.
pub fn refuse_part(ctx: &Context, only: &[String]) -> Result<()> {
    match only.is_empty() || ctx.is_rehearsal() {
        true => Ok(()),
        false => bail!("--only would publish part of a release: it is for registries on this machine"),
    }
}

/// Gives tested variants their public tags.
pub fn publish(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    tested: &[TestedVariant<'_>],
    args: &Args,
) -> Result<ReleaseTag> {
    let args = &Args { promote_latest: args.promote_latest && !ctx.holds_latest_back(), ..args.clone() };

    // Which release this is, and what is left to move.
    let ledger = Ledger::new(ctx, &base.repository);
    let (release, versions) = choose_release(ctx, &base.repository, tested)?;
    ctx.say(format!("release {release} in {}", base.repository));
    ctx.ci.set("release_tag", release)?;
    let request = Request { ctx, ledger: &ledger, tested, release, args };
    let journal = ledger.journal()?;
    let mut standing = request.standing_of_floating()?;
    standing.extend(versions);
    let promotion = request.moves(&journal, &standing)?;
    let pending = promotion.pending(&standing).count();
    if pending == 0 {
        // Somebody may have deleted or damaged signatures or the record since.
        let record = match record::signed(ctx, &base.repository, release)? {
            Some(record) => record,
            None => record::ensure(ctx, tree, base, tested, &promotion, release, None)?,
        };
        attest::ensure(ctx, tree, base, tested, &record)?;
        request.finish(&journal, &promotion)?;
        return Ok(release);
    }

    // Every problem at once, before the first write.
    let floating = request.floating(&promotion, &standing)?;
    ledger.refuse_held(&journal)?;
    // First of all the limit of reads, since the other checks read.
    if let Some(problem) = request.over_budget(&promotion) {
        return Err(missing(format!("nothing published; {problem}")));
    }
    let mut problems = wrong_layers(ctx, base, tested)?;
    problems.extend(wrong_commit(ctx, release)?);
    problems.extend(floating.iter().flat_map(|floating| request.wrong_floating(floating)));
    problems.extend(permissions::missing(ctx, &base.repository));
    if !ctx.runner.dry_run {
        problems.extend(ctx.signer().err().map(|error| format!("{error:#}")));
    }
    if ctx.runner.probe(&crane::version()).is_none() {
        problems.push("crane is not installed: run `cargo xtask doctor --install`".to_owned());
    }
    if !problems.is_empty() {
        return Err(missing(format!("nothing published; {}", problems.join("; "))));
    }

    // The base was pushed to the public repository itself, so its layers need no mount.
    ctx.registry.note_blobs(&ctx.runner, &base.repository, &base.index.digest)?;
    // The record is stored before the first public tag moves.
    let lease = ledger.begin_with(journal, promotion, &|journal| request.plan(journal))?;
    let latest_before = floating.as_ref().and_then(Floating::newest);
    let recorded = record::ensure(ctx, tree, base, tested, &lease.promotion, release, latest_before);
    let record = lease.or_withdraw(recorded)?;
    // A version tag moves only onto images that are signed.
    lease.or_withdraw(attest::ensure(ctx, tree, base, tested, &record))?;
    lease.promote()?;
    if ctx.json {
        let repository = base.repository.to_string();
        output::json(&json!({ "release": release, "repository": repository, "moved": pending }));
    }
    Ok(release)
}

/// Prints the tags that a dry run would move, where it would build or test their images first.
pub fn would_publish(ctx: &Context, repository: &Repository, found: &[FoundVariant<'_>]) -> Result<()> {
    let release = match ctx.release_tag {
        Some(asked) => asked,
        None => release_tag::unpublished(ctx, repository, ctx.opencode_version()?)?,
    };
    ctx.say(format!("release {release} in {repository}"));
    for it in found {
        let version = repository.tag(&it.variant.version_tag(release));
        ctx.runner.run(&crane::copy(&it.reference(), &version))?;
    }
    if ctx.holds_latest_back() {
        return Ok(());
    }
    for it in found {
        let version = repository.tag(&it.variant.version_tag(release));
        ctx.runner.run(&crane::tag(&version, &it.variant.latest_tag()))?;
    }
    Ok(())
}

/// What is to be published, and under which name.
struct Request<'a> {
    ctx: &'a Context,
    ledger: &'a Ledger<'a>,
    tested: &'a [TestedVariant<'a>],
    release: ReleaseTag,
    args: &'a Args,
}

impl Request<'_> {
    /// The moves of this release as the tags are now.
    fn plan(&self, journal: &Journal) -> Result<Promotion> {
        let versions = self.tested.iter().map(|it| it.variant.version_tag(self.release));
        let mut standing = self.ledger.standing(versions)?;
        standing.extend(self.standing_of_floating()?);
        let promotion = self.moves(journal, &standing)?;
        self.floating(&promotion, &standing)?;
        Ok(promotion)
    }

    fn standing_of_floating(&self) -> Result<Standing> {
        let tested = self.tested.iter().filter(|_| self.args.promote_latest);
        self.ledger.standing(tested.map(|it| it.variant.latest_tag()))
    }

    /// Version tags of all variants, then, if asked for, the floating tags of all.
    fn moves(&self, journal: &Journal, standing: &Standing) -> Result<Promotion> {
        let mut moves = Vec::new();
        for it in self.tested {
            let (tag, to) = (it.variant.version_tag(self.release), it.index.digest.clone());
            let now = standing.get(&tag).and_then(Option::as_ref);
            self.refuse_taken(&tag, now, &to)?;
            self.refuse_promised(&tag, journal.promised(&tag), &to)?;
            moves.push(Move { tag, floating: false, from: None, to });
        }
        for it in self.tested.iter().filter(|_| self.args.promote_latest) {
            let (tag, to) = (it.variant.latest_tag(), it.index.digest.clone());
            let from = journal.before(&tag, standing.get(&tag).and_then(Option::as_ref));
            moves.push(Move { tag, floating: true, from, to });
        }
        let (kind, holder) = (PromotionKind::Publish, self.ctx.holder.clone());
        Ok(Promotion { release: Some(self.release), kind, moves, holder })
    }

    fn refuse_taken(&self, tag: &str, taken: Option<&Digest>, own: &Digest) -> Result<()> {
        match taken {
            Some(other) if other != own => bail!(
                "{} is another image ({other}) and version tags never move: release under the next letter",
                self.ledger.public.tag(tag)
            ),
            _ => Ok(()),
        }
    }

    /// Fails if a version tag was promised to another image by a run whose writes may not be visible yet.
    fn refuse_promised(&self, tag: &str, promised: Option<&Digest>, own: &Digest) -> Result<()> {
        match promised {
            Some(other) if other != own => Err(missing(format!(
                "{} was promised to another image ({other}) by an interrupted promotion: run `cargo xtask repair` to complete \
                 it, or `cargo xtask repair --undo`",
                self.ledger.public.tag(tag)
            ))),
            _ => Ok(()),
        }
    }

    /// Where the floating tags are, if they are to move. Fails if `latest` would go back to an older release; the published
    /// tags decide.
    fn floating(&self, promotion: &Promotion, standing: &Standing) -> Result<Option<Floating>> {
        if !self.args.promote_latest {
            return Ok(None);
        }
        let floating = release_tag::floating_at(self.ctx, &self.ledger.public, standing)?;
        let moves = promotion.pending(standing).any(|it| it.floating);
        match floating.newest().filter(|newest| *newest > self.release) {
            Some(newest) if moves && !self.args.allow_downgrade => Err(missing(format!(
                "nothing published; latest is at {newest}, which is newer than {}: give --allow-downgrade to go back",
                self.release
            ))),
            _ => Ok(Some(floating)),
        }
    }

    /// Floating tags that would stay on an older release without anybody having asked for it.
    fn wrong_floating(&self, floating: &Floating) -> Vec<String> {
        for tag in &floating.added {
            self.ctx.say(format!("{tag} is new"));
        }
        let left = floating.left_over.iter().filter(|tag| !self.ctx.config.is_retired(tag));
        left.map(|tag| {
            let suffix = tag.trim_start_matches("latest");
            format!(
                "{tag} is published and no variant has it: bring its variant back, or add \"{suffix}\" to `retired` in \
                 images/devbox.toml to leave the tag where it is"
            )
        })
        .collect()
    }

    /// A registry that limits reads must not stop the promotion half-way.
    fn over_budget(&self, promotion: &Promotion) -> Option<String> {
        let budget = self.ctx.registry.budget(&self.ledger.public)?;
        // The check of layers reads the image of each platform, crane does so again and reads the index as well; an undo reads
        // what a tag pointed at.
        let images = self.tested.len() * self.ctx.platforms.len();
        let needed = (2 * images + self.tested.len() + promotion.floating().count()) as u64;
        (budget.remaining < needed).then(|| {
            let window = budget.window.map(|seconds| format!(" per {} h", seconds / 3600)).unwrap_or_default();
            format!(
                "{} allows this account {} of {}{window} more manifest reads and the promotion needs {needed}: wait, or log in with another account",
                self.ledger.public.host(),
                budget.remaining,
                budget.limit
            )
        })
    }

    /// Nothing is left to move. An attempt at this very release that was interrupted before it was closed is closed now.
    fn finish(&self, journal: &Journal, promotion: &Promotion) -> Result<()> {
        let (ctx, ledger) = (self.ctx, self.ledger);
        let is_ours = |it: &Promotion| it.release == Some(self.release) && promotion.covers(it);
        let mut mixed = journal.interrupted().filter(|(_, it)| it.can_be_mixed());
        if let Some((_, other)) = mixed.find(|(_, it)| !is_ours(it)) {
            let name = other.name();
            return Err(missing(format!(
                "the promotion of {name} was interrupted: run `cargo xtask repair`"
            )));
        }
        ledger.close_completed(journal, |it| it.can_be_mixed() && is_ours(it))?;
        if ctx.json {
            let repository = ledger.public.to_string();
            output::json(&json!({ "release": self.release, "repository": repository, "moved": 0 }));
        } else {
            ctx.say("all tags are up to date: nothing to publish");
        }
        Ok(())
    }
}

/// The release to publish as, and where its version tags are: the one that was asked for, else the first whose version tags
/// are free or equal.
fn choose_release(
    ctx: &Context,
    repository: &Repository,
    tested: &[TestedVariant<'_>],
) -> Result<(ReleaseTag, Standing)> {
    let pinned = ctx.opencode_version()?;
    if let Some(asked) = ctx.release_tag {
        if asked.version != pinned {
            bail!(
                "release {asked} does not match the pinned opencode {pinned}: run `cargo xtask bump-opencode {}`",
                asked.version
            );
        }
        return match version_tags(ctx, repository, tested, asked)? {
            Ok(standing) => Ok((asked, standing)),
            Err(tag) => {
                bail!("{tag} is another image and version tags never move: release under the next letter")
            }
        };
    }
    release_tag::first(pinned, |release| Ok(version_tags(ctx, repository, tested, release)?.ok()))
}

/// Where the version tags of a release are, or the first of them that points at another image than this tree's.
fn version_tags(
    ctx: &Context,
    repository: &Repository,
    tested: &[TestedVariant<'_>],
    release: ReleaseTag,
) -> Result<Result<Standing, String>> {
    let tags: Vec<String> = tested.iter().map(|it| it.variant.version_tag(release)).collect();
    let digests = ctx.registry.digests(&ctx.runner, repository, &tags)?;
    for ((it, tag), digest) in tested.iter().zip(&tags).zip(&digests) {
        if digest.as_ref().is_some_and(|digest| *digest != it.index.digest) {
            return Ok(Err(repository.tag(tag)));
        }
    }
    Ok(Ok(tags.into_iter().zip(digests).collect()))
}

/// Every variant has to begin with exactly the layers of the base that it claims, on every platform, and no layer of
/// either may be larger than it is allowed to be.
fn wrong_layers(ctx: &Context, base: &BuiltBase, tested: &[TestedVariant<'_>]) -> Result<Vec<String>> {
    let layers = |repository: &Repository, image: &Digest| -> Result<Vec<Layer>> {
        let image = ctx.registry.manifest(&ctx.runner, repository, image)?;
        Ok(image.context("an index without its image")?.layers())
    };
    let mut problems = Vec::new();
    for (platform, image) in base.index.images() {
        let shared = layers(&base.repository, image)?;
        let budgets: Vec<_> =
            ctx.config.base_layers.iter().map(|layer| (layer.name.as_str(), layer.budget_mb)).collect();
        let wrong = layers::base_problems(&shared, &budgets);
        problems.extend(wrong.iter().map(|why| format!("{} on {platform} {why}", base.tag)));
        for it in tested {
            let mut components = Vec::new();
            for name in &it.variant.components {
                let budget = ctx.config.component(name)?.budget_mb;
                components.push((
                    name.as_str(),
                    budget.with_context(|| format!("{name} has no budget_mb in devbox.toml"))?,
                ));
            }
            components.push((layers::IDENTITY, layers::IDENTITY_MB));
            let image = it.index.platform(platform).context("an index without a platform of its base")?;
            let wrong = layers::problems(&shared, &layers(&it.staging, image)?, &components);
            problems.extend(wrong.iter().map(|why| format!("{} on {platform} {why}", it.tag)));
        }
    }
    Ok(problems)
}

/// A public release is a commit that anybody can look up: nothing uncommitted, and its tag on it.
fn wrong_commit(ctx: &Context, release: ReleaseTag) -> Result<Vec<String>> {
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
