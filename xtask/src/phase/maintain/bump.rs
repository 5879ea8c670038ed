//! Pins another version of a component: the `ARG`, the locks, the changelog and the generated page, all or none of them.
//!
//! Refuses a version that is not complete on every platform, a dirty tree, and a lower version unless asked. Everything
//! is computed and every file of the new locks is read before anything in the tree changes.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::context::Context;
use crate::model::availability::Incomplete;
use crate::model::changelog::{Bump, Changelog, Entry};
use crate::model::component::Component;
use crate::model::dockerfile;
use crate::model::version::{ReleaseTag, Version};
use crate::output;
use crate::project::generated;
use crate::project::gitea::{self, Proposal};
use crate::promotion::release_tag;
use crate::tools::files::Edit;
use crate::tools::git;
use crate::upstream::availability::{self, Depth, Supply};
use crate::upstream::locks::{self, Versions};
use crate::upstream::versions::{self, Upstream};

/// Means every component.
const ALL: &str = "all";
const CHANGELOG: &str = "CHANGELOG.md";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Component to pin, as images/devbox.toml names it, or all
    pub component: String,
    /// The new version, such as 1.14.44, or latest: the newest that is complete on every platform
    pub version: Wanted,
    #[command(flatten)]
    pub options: Options,
}

#[derive(Debug, clap::Args)]
pub struct OpencodeArgs {
    /// The new version, such as 1.14.44, or latest: the newest that is complete on every platform
    pub version: Wanted,
    #[command(flatten)]
    pub options: Options,
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Allow a version that is lower than the pinned one
    #[arg(long, alias = "downgrade")]
    pub allow_downgrade: bool,
    /// Allow changes in the tree that are not committed
    #[arg(long, conflicts_with = "commit")]
    pub allow_dirty: bool,
    /// How long to wait for files that are propagating, such as 1h
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    pub wait: SignedDuration,
    /// Commit the change
    #[arg(long)]
    pub commit: bool,
    /// Give the commit the next release tag, annotated
    #[arg(long, requires = "commit")]
    pub tag: bool,
    /// Commit the change on a branch of its own, push that and open a pull request on the Gitea server
    #[arg(long, conflicts_with_all = ["commit", "tag", "allow_dirty"])]
    pub pull_request: bool,
}

/// A version, or the newest complete one of the same major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Latest,
    Version(Version),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" { Ok(Self::Latest) } else { text.parse().map(Self::Version) }
    }
}

/// An available version, with everything that changes for it.
struct Plan {
    from: Version,
    to: Version,
    edits: Vec<Edit>,
    /// The release whose entry the changelog got.
    entry: Option<ReleaseTag>,
    /// The line in the changelog.
    line: String,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    if args.options.pull_request && gitea::is_foreign(ctx) {
        return Ok(());
    }
    if args.component != ALL {
        return one(ctx, ctx.config.component(&args.component)?, args.version, &args.options);
    }
    if args.version != Wanted::Latest {
        bail!("all components together can only go to latest");
    }
    // One that is not available does not keep the others back.
    let bump = |component| one(ctx, component, args.version, &args.options);
    let errors = ctx.config.component.iter().filter_map(|component| bump(component).err());
    let failures: Vec<String> = errors.map(|error| format!("{error:#}")).collect();
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n  ")) }
}

/// `bump-opencode`, by whose version releases are named.
pub fn opencode(ctx: &Context, args: &OpencodeArgs) -> Result<()> {
    one(ctx, ctx.config.component("opencode")?, args.version, &args.options)
}

fn one(ctx: &Context, component: &Component, wanted: Wanted, options: &Options) -> Result<()> {
    refuse_dirty(ctx, options)?;
    if options.pull_request {
        gitea::server(ctx)?;
    }
    let versions = locks::pinned(ctx)?;
    let text = &versions[&component.name];
    let from: Version = text.parse().map_err(|why| anyhow::anyhow!("{}={text}: {why}", component.arg()))?;
    if wanted == Wanted::Version(from) {
        ctx.say(format!("{} is at {from} already", component.name));
        return Ok(());
    }
    if let Wanted::Version(to) = wanted
        && to < from
        && !options.allow_downgrade
    {
        bail!("{} is at {from}: {to} is lower; pass --allow-downgrade to go back", component.name);
    }
    let supply = Supply::new(ctx)?;
    let upstream = supply.upstream(ctx, component)?;
    let bump = Bumper { ctx, component, versions, from, supply, upstream, options };
    let plan = match wanted {
        Wanted::Version(to) => Some(bump.to(to)?),
        Wanted::Latest => bump.latest()?,
    };
    match plan {
        Some(plan) => apply(ctx, component, &plan, options),
        None => Ok(()),
    }
}

/// A bump is one reviewable change; with other changes around it would not be.
fn refuse_dirty(ctx: &Context, options: &Options) -> Result<()> {
    let changes = git::changes(&ctx.runner)?;
    if options.allow_dirty || changes.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = changes.lines().take(5).map(str::trim).collect();
    bail!(
        "the tree has changes that are not committed ({}): commit or stash them, or say --allow-dirty",
        first.join(", ")
    )
}

struct Bumper<'a> {
    ctx: &'a Context,
    component: &'a Component,
    versions: Versions,
    from: Version,
    supply: Supply,
    upstream: Upstream,
    options: &'a Options,
}

impl Bumper<'_> {
    /// The plan for one version, or why it is not available and which one is.
    fn to(&self, to: Version) -> Result<Plan> {
        let name = &self.component.name;
        let wait = Duration::try_from(self.options.wait).context("--wait")?;
        let own = availability::own_files(self.ctx, self.component, &to.to_string());
        let report = self.supply.check(&own, Depth::Presence, wait);
        if !report.problems.is_empty() {
            let newest = self.supply.newest_complete(self.ctx, self.component, &self.upstream, self.from);
            let fix = match newest {
                Some(newest) if newest > self.from => {
                    format!("the newest complete version is {newest}: run `cargo xtask bump {name} {newest}`")
                }
                Some(newest) if newest == self.from => {
                    format!("the newest complete version is {newest}, which is pinned")
                }
                Some(newest) => format!("the newest complete version is {newest}"),
                None => "no version is complete".to_owned(),
            };
            let lacking = availability::lines(&report.problems);
            let message = format!("{name} {to} is not complete and nothing was changed: {lacking}; {fix}");
            return Err(availability::error(&report.problems, message));
        }
        if let Some(why) = self.upstream.deprecated.get(&to) {
            self.ctx.say(format!("upstream says not to use {name} {to}: {why}"));
        }
        self.plan(to, wait)
    }

    /// The plan for the newest version that is complete with its dependencies; `None` if that is pinned.
    fn latest(&self) -> Result<Option<Plan>> {
        let name = &self.component.name;
        let newest = self.supply.newest_complete(self.ctx, self.component, &self.upstream, self.from);
        let Some(newest) = newest else {
            bail!("no version of {name} that latest may select is complete on every platform");
        };
        self.say_why(newest);
        if newest <= self.from {
            self.ctx.say(format!("{name} is at {} already", self.from));
            return Ok(None);
        }
        for to in self.upstream.candidates(self.from, newest) {
            match self.to(to) {
                Ok(plan) => return Ok(Some(plan)),
                Err(error) if error.is::<Incomplete>() => {
                    self.ctx.say(format!("passing over {name} {to}: {error:#}"))
                }
                Err(error) => return Err(error),
            }
        }
        self.ctx.say(format!(
            "{name} stays at {}: no newer version is complete with its dependencies",
            self.from
        ));
        Ok(None)
    }

    /// Says why `latest` is not what upstream calls the latest.
    fn say_why(&self, newest: Version) {
        let name = &self.component.name;
        if let Some(major) = self.upstream.new_major(self.from) {
            self.ctx.say(format!(
                "{name} {major} is a new major version: `cargo xtask bump {name} {major}` takes it"
            ));
        }
        let newer = self.upstream.published.iter().filter(|version| **version > newest);
        let newer: Vec<&Version> =
            newer.filter(|version| self.upstream.follows(self.from, **version)).collect();
        let Some(published) = newer.first() else {
            self.ctx.say(format!("{name} {newest} is the newest version that latest selects"));
            return;
        };
        let own = availability::own_files(self.ctx, self.component, &published.to_string());
        let why = self.supply.check(&own, Depth::Presence, Duration::ZERO).problems;
        self.ctx.say(format!(
            "{} {newest} is the newest complete version: {} newer ones, up to {published}, are not complete: {}",
            self.component.name,
            newer.len(),
            availability::lines(&why)
        ));
    }

    /// Computes every edit, and reads every file that the new locks name.
    fn plan(&self, to: Version, wait: Duration) -> Result<Plan> {
        let locked = versions::locked(self.ctx, &self.supply, self.component, to, Depth::Bytes, wait);
        let mut edits = locked.context("nothing was changed")?;
        let mut versions = self.versions.clone();
        versions.insert(self.component.name.clone(), to.to_string());
        edits.insert(0, self.dockerfile(to)?);
        let (changelog, entry, line) = self.changelog(to)?;
        edits.push(changelog);
        edits.push(generated::edit(self.ctx, &versions, &generated::sizes(self.ctx)?)?);
        edits.retain(Edit::changes);
        Ok(Plan { from: self.from, to, edits, entry, line })
    }

    /// The one Dockerfile that pins the component.
    fn dockerfile(&self, to: Version) -> Result<Edit> {
        let arg = self.component.arg();
        for image in [&self.ctx.config.variants, &self.ctx.config.base] {
            let before = self.ctx.read(&image.dockerfile)?;
            if dockerfile::arg_default(&before, &arg).is_some() {
                let after = dockerfile::with_arg_default(&before, &arg, &to.to_string())
                    .with_context(|| image.dockerfile.clone())?;
                return Ok(Edit { path: image.dockerfile.clone(), before, after });
            }
        }
        bail!("no Dockerfile pins {} by `ARG {arg}=…`", self.component.name)
    }

    /// A release is named after opencode, so its bump makes the entry; other bumps wait for a release, which --tag is.
    fn changelog(&self, to: Version) -> Result<(Edit, Option<ReleaseTag>, String)> {
        let before = self.ctx.read(CHANGELOG)?;
        let log = Changelog::parse(&before);
        let newest_is_open = release_tag::newest_is_open(self.ctx, &log)?;
        let tag = match (self.component.name.as_str(), self.options.tag) {
            ("opencode", true) => Some(release_tag::next(self.ctx, to)?),
            ("opencode", false) => Some(ReleaseTag::first(to)),
            (_, true) => Some(release_tag::next(self.ctx, self.ctx.opencode_version()?)?),
            (_, false) => None,
        };
        let date = Timestamp::now().strftime("%F").to_string();
        let entry = tag.map(|tag| Entry { tag, date: &date, newest_is_open });
        let between = |version: &&Version| **version > self.from && **version < to;
        let mut skipped: Vec<Version> = self.upstream.published.iter().filter(between).copied().collect();
        skipped.sort();
        let notes = self.component.notes(&to.to_string());
        let bump =
            Bump { component: &self.component.name, from: self.from, to, notes: &notes, skipped: &skipped };
        let after = log.bump(bump, entry)?.to_string();
        Ok((Edit { path: CHANGELOG.to_owned(), before, after }, tag, bump.to_string()))
    }
}

/// Shows the change, makes it, and commits it where that is asked for.
fn apply(ctx: &Context, component: &Component, plan: &Plan, options: &Options) -> Result<()> {
    let Plan { from, to, edits, entry, .. } = plan;
    let paths: Vec<&str> = edits.iter().map(|edit| edit.path.as_str()).collect();
    let subject = format!("Bump {} {from} → {to}", component.name);
    if ctx.json {
        let (from, to) = (from.to_string(), to.to_string());
        output::json(
            &json!({ "component": component.name, "from": from, "to": to, "files": paths, "entry": entry }),
        );
    } else {
        edits.iter().for_each(|edit| output::text(edit.diff()));
    }
    if options.pull_request {
        let (head, ending) = (format!("bump-{}", component.name), format!("→ {to}"));
        let proposal = Proposal { head: &head, title: &subject, ending: &ending, body: &plan.line, edits };
        return gitea::propose(ctx, &proposal);
    }
    ctx.replace(edits)?;
    if options.commit {
        git::commit(&ctx.runner, &paths, &format!("{subject}\n\n{}", plan.line))?;
    }
    if let (true, Some(tag)) = (options.tag, entry) {
        git::tag(&ctx.runner, &tag.to_string(), &subject)?;
        ctx.ci.set("release_tag", tag)?;
    }
    ctx.say(format!("{subject}: {} files", paths.len()));
    Ok(())
}
