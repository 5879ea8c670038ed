//! What this tree means in the registry: its base key, its variants' keys, which of them exist and what was tested.
//!
//! Everything is asked from the registry, which is the only state, so any machine can run any phase.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};

use crate::ctx::{Ctx, Destination, STATE};
use crate::debian_image;
use crate::image::parts;
use crate::image::secrets::Secrets;
use crate::missing;
use crate::model::bake::{Output, Target};
use crate::model::command::Cmd;
use crate::model::config::{Cache, Image, Optional, Variant};
use crate::model::dockerfile;
use crate::model::key::{Change, Entry, Inputs, Key, digest};
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::verdict::{self, Verdict};
use crate::nodes::{self, Built};
use crate::tools::registry::{self, Place};
use crate::tools::{docker, git, local, process};

/// The artifact type of a smoke verdict.
pub const VERDICT: &str = "application/vnd.opencode-devbox.verdict.v1+json";

/// The artifact type of what a build took.
const BUILD: &str = "application/vnd.opencode-devbox.build.v1+json";

/// The annotation of an image that holds its [`Inputs`].
pub const INPUTS: &str = "opencode-devbox.inputs";

/// The OCI annotation and label of the commit that an image was built from.
pub const REVISION: &str = "org.opencontainers.image.revision";

/// The floating tag of the base.
pub const BASE_LATEST: &str = "base-latest";

/// The time that the recipes give files whose own would differ from build to build: the year 2020.
const FILE_TIME: &str = "1577836800";

/// The script that decides whether an image is good, and the folder of its parts.
pub const SUITE: &str = "scripts/smoke-test.sh";
pub const SUITE_PARTS: &str = "scripts/smoke";

/// The base that this tree implies.
#[derive(Clone, Debug)]
pub struct Base {
    pub key: Key,
    /// `base-<key>`.
    pub tag: String,
    pub inputs: Inputs,
    /// The Debian image by digest.
    pub debian: String,
    pub repository: Repository,
    /// Parts that the tree includes and this base is without: the registry is on this machine, and their hosts were not
    /// reached.
    pub left_out: BTreeSet<String>,
    /// The index in the registry, if it is complete on every asked platform.
    pub present: Option<Manifest>,
}

/// A variant that this tree implies.
#[derive(Debug)]
pub struct Stage<'a> {
    pub variant: &'a Variant,
    pub key: Key,
    /// `<variant>-<key>` in the staging repository.
    pub tag: String,
    pub inputs: Inputs,
    pub args: BTreeMap<String, String>,
    pub staging: Repository,
    /// The index in the registry, if it is complete on every asked platform.
    pub present: Option<Manifest>,
}

impl Stage<'_> {
    /// The staged index, or the command that makes it.
    pub fn staged(&self) -> Result<&Manifest> {
        let name = &self.variant.name;
        self.present.as_ref().ok_or_else(|| {
            missing(format!("{} is not staged: run `cargo xtask build {name}`", self.staging.tag(&self.tag)))
        })
    }
}

/// What a build took; recorded to forecast the next one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildRecord {
    pub seconds: u64,
    /// How much less disk was free afterwards, in bytes.
    pub disk_bytes: u64,
    /// The node that each platform was built on; nothing in records from before it was asked.
    #[serde(default)]
    pub built: Vec<Built>,
}

/// The repository to work on; the local registry is started where it does not run.
pub fn repository(ctx: &Ctx) -> Result<Repository> {
    match &ctx.destination {
        Destination::Remote(repository) => Ok(repository.clone()),
        Destination::Local if ctx.read_only || ctx.runner.dry_run => {
            local::running_repository(&ctx.state_dir())
        }
        Destination::Local => {
            local::repository(&ctx.runner, &ctx.state_dir(), ctx.settings.registry_image.as_deref())
        }
    }
}

/// True if there is a registry to ask: a local one runs, or can be started.
pub fn has_registry(ctx: &Ctx) -> bool {
    let startable =
        || !ctx.runner.dry_run && (local::is_installed(&ctx.runner) || docker::engine(&ctx.runner).is_some());
    ctx.destination != Destination::Local || running_registry(ctx).is_some() || startable()
}

/// The host of the local registry, if it runs.
pub fn running_registry(ctx: &Ctx) -> Option<String> {
    Some(local::running_repository(&ctx.state_dir()).ok()?.host().to_owned())
}

/// Where variants wait for their verdict: `<repository>-staging`, unless another is asked for.
pub fn staging(ctx: &Ctx, repository: &Repository) -> Repository {
    ctx.staging.clone().unwrap_or_else(|| repository.staging())
}

/// Computes the base's key and looks it up.
///
/// The tree says what the base contains. On the registry of this machine a base may be without parts whose hosts were not
/// reached when it was built: the most complete one that exists is used, whichever hosts answer now, so that all phases
/// agree on it. Hosts are asked only where none exists.
pub fn base(ctx: &Ctx) -> Result<Base> {
    if let Some(base) = ctx.base.borrow().as_ref() {
        return Ok(base.clone());
    }
    let bases = Bases::new(ctx)?;
    for left_out in bases.possible(ctx) {
        let base = bases.without(ctx, left_out)?;
        if let Some(manifest) = &base.present {
            ctx.registry.remember(&base.repository, &base.tag, &manifest.digest);
            *ctx.base.borrow_mut() = Some(base.clone());
        }
        if base.present.is_some() || !base.repository.is_loopback() {
            return Ok(base);
        }
    }
    bases.without(ctx, parts::left_out(ctx).keys().cloned().collect())
}

/// The base that `build-base` makes: the one that exists, unless a build could add a part that it is without.
pub fn base_to_build(ctx: &Ctx) -> Result<Base> {
    let base = base(ctx)?;
    if base.present.is_none() || base.left_out.is_empty() {
        return Ok(base);
    }
    let left_out: BTreeSet<String> = parts::left_out(ctx).keys().cloned().collect();
    if left_out.len() >= base.left_out.len() {
        return Ok(base);
    }
    *ctx.base.borrow_mut() = None;
    Bases::new(ctx)?.without(ctx, left_out)
}

/// What all bases of a tree have in common.
struct Bases {
    repository: Repository,
    debian: String,
    /// Digests of the Debian image, by platform.
    digests: BTreeMap<String, String>,
    entries: Vec<Entry>,
    versions: BTreeMap<String, String>,
}

impl Bases {
    fn new(ctx: &Ctx) -> Result<Self> {
        let repository = repository(ctx)?;
        let (debian, digests) = debian_image::resolve(ctx, &repository)?;
        let tree = ctx.tree()?;
        let versions = dockerfile::versions(tree.text(&ctx.config.base.dockerfile)?).into_iter().collect();
        let entries = tree.entries(&ctx.config.base.inputs);
        Ok(Self { repository, debian, digests: named("Debian", digests), entries, versions })
    }

    /// Every choice of parts that a base can be without, the smallest first; elsewhere than on this machine, none.
    fn possible(&self, ctx: &Ctx) -> Vec<BTreeSet<String>> {
        let mut choices = vec![BTreeSet::new()];
        if self.repository.is_loopback() {
            for part in parts::included(ctx) {
                let with = choices.iter().cloned().map(|mut choice| {
                    choice.insert(part.name.clone());
                    choice
                });
                choices.extend(with.collect::<Vec<_>>());
            }
        }
        choices.sort_by_key(BTreeSet::len);
        choices
    }

    /// The base without some of the parts that the tree includes.
    fn without(&self, ctx: &Ctx, left_out: BTreeSet<String>) -> Result<Base> {
        let installed = |part: &Optional| part.include && !left_out.contains(&part.name);
        let optional = ctx.config.base_optional.iter();
        let args = optional.map(|part| (part.arg(), installed(part).to_string()));
        let args = args.chain(ctx.config.layers.record()).collect();
        let mut inputs = Inputs::new(&self.entries, args, self.digests.clone());
        inputs.versions = self.versions.clone();
        let key = inputs.key();
        let tag = format!("base-{key}");
        let present = made_from(ctx, &self.repository, &tag, &inputs)?;
        let (debian, repository) = (self.debian.clone(), self.repository.clone());
        Ok(Base { key, tag, inputs, debian, repository, left_out, present })
    }
}

/// The base, or the command that makes it.
pub fn existing_base(ctx: &Ctx) -> Result<(Base, Manifest)> {
    let base = base(ctx)?;
    match base.present.clone() {
        Some(manifest) => Ok((base, manifest)),
        None => Err(missing(format!(
            "{} is not built: run `cargo xtask build-base`",
            base.repository.tag(&base.tag)
        ))),
    }
}

/// Computes the keys of variants (all, if none is named) and looks them up.
pub fn stages<'a>(ctx: &'a Ctx, names: &[String], base: &Base, index: &Manifest) -> Result<Vec<Stage<'a>>> {
    let mut upon = named("base", platform_digests(ctx, index)?);
    upon.insert("Debian".to_owned(), base.debian.rsplit('@').next().unwrap_or_default().to_owned());
    let staging = staging(ctx, &base.repository);
    let mut stages = Vec::new();
    for variant in chosen(ctx, names)? {
        let inputs = variant_inputs(ctx, variant, upon.clone())?;
        let mut args = inputs.args.clone();
        let key = inputs.key();
        args.insert("BASE_IMAGE".to_owned(), base.repository.digest(&index.digest));
        args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
        let tag = format!("{}-{key}", variant.name);
        let present = made_from(ctx, &staging, &tag, &inputs)?;
        if let Some(manifest) = &present {
            ctx.registry.remember(&staging, &tag, &manifest.digest);
        }
        stages.push(Stage { variant, key, tag, inputs, args, staging: staging.clone(), present });
    }
    Ok(stages)
}

/// What a variant is made from, upon these digests.
pub fn variant_inputs(ctx: &Ctx, variant: &Variant, upon: BTreeMap<String, String>) -> Result<Inputs> {
    let tree = ctx.tree()?;
    let entries = tree.entries(&ctx.config.variants.inputs);
    let recipe = tree.text(&ctx.config.variants.dockerfile)?;
    let switches = dockerfile::switches(recipe);
    let args = switches.into_iter().map(|(component, arg)| (arg, variant.has(&component).to_string()));
    let args = args.chain(ctx.config.layers.record());
    let mut inputs = Inputs::new(&entries, args.collect(), upon);
    // Those of other variants as well: their pins and locks are inputs, too.
    inputs.versions = dockerfile::versions(recipe).into_iter().collect();
    Ok(inputs)
}

/// The variants of these names, in the order of devbox.toml; all if there are no names.
pub fn chosen<'a>(ctx: &'a Ctx, names: &[String]) -> Result<Vec<&'a Variant>> {
    for name in names {
        ctx.config.variant(name)?;
    }
    Ok(ctx.config.variant.iter().filter(|v| names.is_empty() || names.contains(&v.name)).collect())
}

/// The complete index under a content key. The key is short, and any account that may push can put anything under it: the record
/// of inputs that travels with the image has to be the one that was asked for.
fn made_from(ctx: &Ctx, repository: &Repository, tag: &str, inputs: &Inputs) -> Result<Option<Manifest>> {
    let Some(image) = complete(ctx, repository, tag)? else { return Ok(None) };
    let same = inputs_of(&image).is_some_and(|record| {
        (&record.files, &record.args, &record.upon) == (&inputs.files, &inputs.args, &inputs.upon)
    });
    if !same {
        bail!(
            "{} is an image that was made from other inputs than its name promises: delete that tag and run the same command again",
            repository.tag(tag)
        );
    }
    Ok(Some(image))
}

/// The index under a tag if it holds every asked platform; a part of it counts as nothing.
pub fn complete(ctx: &Ctx, repository: &Repository, tag: &str) -> Result<Option<Manifest>> {
    let found = ctx.registry.image(&ctx.runner, repository, tag)?;
    Ok(found.filter(|manifest| ctx.platforms.iter().all(|platform| manifest.platform(*platform).is_some())))
}

pub fn platform_digests(ctx: &Ctx, index: &Manifest) -> Result<BTreeMap<String, String>> {
    let digest = |platform: &Platform| {
        let digest =
            index.platform(*platform).with_context(|| format!("the base has no image for {platform}"))?;
        Ok((platform.to_string(), digest.to_string()))
    };
    ctx.platforms.iter().map(digest).collect()
}

/// Puts a name before each key.
fn named(name: &str, map: BTreeMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().map(|(key, value)| (format!("{name} {key}"), value)).collect()
}

/// Lays out the build context of an image and returns its folder.
pub fn context(ctx: &Ctx, image: &Image, name: &str) -> Result<Utf8PathBuf> {
    let (tree, contexts) = (ctx.tree()?, ctx.root.join(STATE).join("context"));
    match ctx.runner.dry_run {
        true => Ok(tree.planned_context(&image.inputs, &contexts, name)),
        false => tree.context(&image.inputs, &contexts, name),
    }
}

/// The OCI labels of an image (image-spec, "Pre-Defined Annotation Keys").
pub fn labels(ctx: &Ctx, title: &str, components: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut label =
        |name: &str, value: String| labels.insert(format!("org.opencontainers.image.{name}"), value);
    label("title", title.to_owned());
    label("source", ctx.config.source.clone());
    label("licenses", "MIT".to_owned());
    label("version", ctx.opencode_version()?.to_string());
    if let Some(commit) = &ctx.tree()?.commit {
        labels.insert(REVISION.to_owned(), commit.revision.clone());
    }
    for (name, version) in ctx.versions()? {
        if components.contains(&name) {
            labels.insert(format!("opencode-devbox.version.{name}"), version);
        }
    }
    Ok(labels)
}

/// What an image carries about its own making, beside its labels.
pub fn annotations(ctx: &Ctx, inputs: &Inputs) -> Result<BTreeMap<String, String>> {
    let mut annotations = BTreeMap::from([(INPUTS.to_owned(), serde_json::to_string(inputs)?)]);
    if let Some(commit) = &ctx.tree()?.commit {
        annotations.insert(REVISION.to_owned(), commit.revision.clone());
    }
    Ok(annotations)
}

/// Builds and pushes targets in one bake, on nodes that were asked before ([`crate::nodes::require`]).
pub fn bake(ctx: &Ctx, targets: &[Target], print: bool) -> Result<()> {
    let secrets = Secrets::new(ctx);
    let definition =
        crate::model::bake::definition(targets, &ctx.platforms, &ctx.config.layers, &secrets.specs);
    if print {
        println!("{}", serde_json::to_string_pretty(&definition)?);
        return Ok(());
    }
    ctx.runner.run_again(&secrets.give(bake_command(ctx, &definition)?))?;
    await_pushed(ctx, targets)?;
    keep_cache(ctx, targets);
    Ok(())
}

/// Waits until what was pushed can be read: the next phase asks for it, perhaps from another machine.
fn await_pushed(ctx: &Ctx, targets: &[Target]) -> Result<()> {
    if ctx.runner.dry_run {
        return Ok(());
    }
    for target in targets {
        let Output::Tag(name) = &target.output else { continue };
        let (repository, tag) = name.rsplit_once(':').context("a target without a tag")?;
        let repository: Repository = repository.parse().map_err(|why: String| anyhow::anyhow!(why))?;
        let mut pushed = None;
        registry::poll(&ctx.runner, || {
            pushed = ctx.registry.digest(&ctx.runner, &repository, tag)?;
            Ok(pushed.is_some())
        })?;
        let Some(digest) = pushed else {
            bail!("{name} was pushed and cannot be read: run the same command again");
        };
        // A content key never changes its meaning.
        ctx.registry.remember(&repository, tag, &digest);
    }
    Ok(())
}

/// Without a commit there is no time to take from it, and the time of day would make each build a different one.
fn bake_command(ctx: &Ctx, definition: &serde_json::Value) -> Result<Cmd> {
    let time = ctx.tree()?.commit.as_ref().map_or(FILE_TIME, |commit| commit.time.as_str());
    Ok(docker::with_builder(docker::bake(definition, Some(time)), nodes::builder(ctx)?))
}

/// The tag that BuildKit's cache of a target is kept under, where `images/devbox.toml` wants one kept.
pub fn cache(ctx: &Ctx, staging: &Repository, name: &str) -> Option<String> {
    let wanted = match ctx.config.build.cache {
        Cache::Never => false,
        Cache::Remote => !staging.is_loopback(),
        Cache::Always => true,
    };
    wanted.then(|| staging.tag(&format!("cache-{name}")))
}

/// Sends BuildKit's cache of what was just built to the registry. The images are there already, so that whatever becomes
/// of the cache fails nothing: registries have refused it while they took the images.
fn keep_cache(ctx: &Ctx, targets: &[Target]) {
    let cached = targets.iter().filter(|target| target.cache.is_some()).cloned();
    let cached: Vec<Target> = cached.map(|target| Target { output: Output::Cache, ..target }).collect();
    if cached.is_empty() {
        return;
    }
    let secrets = Secrets::new(ctx);
    let definition =
        crate::model::bake::definition(&cached, &ctx.platforms, &ctx.config.layers, &secrets.specs);
    let sent = bake_command(ctx, &definition).and_then(|cmd| ctx.runner.run(&secrets.give(cmd)));
    if let Err(error) = sent {
        ctx.say(format!(
            "the build cache is not kept, and the next empty runner builds without it; the images are not affected: {error:#}"
        ));
    }
}

/// The content key of the smoke suite as it stands, with what it is asked to expect of a variant.
pub fn suite(ctx: &Ctx, variant: &Variant) -> Result<String> {
    let entries = ctx.tree()?.entries(&[SUITE.to_owned(), SUITE_PARTS.to_owned()]);
    let args = BTreeMap::from([("arguments".to_owned(), expectations(ctx, variant)?.join(" "))]);
    Ok(Inputs::new(&entries, args, BTreeMap::new()).key().to_string())
}

/// What the tree pins is what the image has to answer: the suite's arguments beside the image and its platform.
pub fn expectations(ctx: &Ctx, variant: &Variant) -> Result<Vec<String>> {
    let mut words = vec!["--components".to_owned(), variant.components.join(",")];
    words.extend(["--shared-in".to_owned(), ctx.config.shared_checks()?.name.clone()]);
    words.extend(["--max-size-mb".to_owned(), variant.budget_mb.to_string()]);
    for (name, version) in ctx.versions()? {
        if variant.has(&name) || ["node", "uv", "mempalace"].contains(&name.as_str()) {
            words.extend(["--expect".to_owned(), format!("{name}={version}")]);
        }
    }
    Ok(words)
}

/// The verdict that counts of the current suite on one platform's image; `None` if it was never run.
pub fn verdict(ctx: &Ctx, stage: &Stage<'_>, platform: Platform) -> Result<Option<Verdict>> {
    let index = stage.staged()?;
    let image = index.platform(platform).context("a complete index has no image of a platform")?;
    let suite = suite(ctx, stage.variant)?;
    let memo = (image.to_string(), suite.clone());
    if let Some(known) = ctx.passed.borrow().get(&memo) {
        return Ok(Some(known.clone()));
    }
    let mut found = verdicts(ctx, &stage.staging, image)?;
    found.retain(|it| it.suite == suite && it.platform == platform);
    let counting = verdict::counting(&found).cloned();
    if let Some(verdict) = counting.as_ref().filter(|verdict| verdict.passed) {
        ctx.passed.borrow_mut().insert(memo, verdict.clone());
    }
    Ok(counting)
}

/// All verdicts on one platform's image, of any suite.
pub fn verdicts(ctx: &Ctx, staging: &Repository, image: &str) -> Result<Vec<Verdict>> {
    let found = ctx.registry.referrers(&ctx.runner, staging, image, VERDICT)?;
    let parsed = found.into_iter().filter_map(|document| serde_json::from_value::<Verdict>(document).ok());
    Ok(parsed.filter(|verdict| verdict.image == image).collect())
}

/// True if the suite that tested an image last has passed on it.
pub fn has_passed(ctx: &Ctx, staging: &Repository, image: &str) -> Result<bool> {
    let mut found = verdicts(ctx, staging, image)?;
    let Some(suite) = found.iter().max_by_key(|it| it.sequence).map(|it| it.suite.clone()) else {
        return Ok(false);
    };
    found.retain(|it| it.suite == suite);
    Ok(verdict::counting(&found).is_some_and(|verdict| verdict.passed))
}

/// Records a verdict beside the image of `index` that it is about, as the last of those that are there.
pub fn record_verdict(ctx: &Ctx, staging: &Repository, index: &Manifest, mut verdict: Verdict) -> Result<()> {
    let subject = index.subject_of(verdict.platform).context("the tested image is in no index")?;
    verdict.sequence = verdict::next_sequence(&verdicts(ctx, staging, &verdict.image)?);
    let labels = BTreeMap::from([
        ("opencode-devbox.passed".to_owned(), verdict.passed.to_string()),
        ("opencode-devbox.suite".to_owned(), verdict.suite.clone()),
    ]);
    let document = serde_json::to_value(verdict)?;
    let place = Place::Referrer(&subject);
    ctx.registry.put_document(&ctx.runner, staging, &place, VERDICT, &labels, &document).map(drop)
}

/// Records what a build took, beside each image that it made.
pub fn record_build(
    ctx: &Ctx,
    images: &[Manifest],
    staging: &Repository,
    record: &BuildRecord,
) -> Result<()> {
    for image in images {
        let document = serde_json::to_value(record)?;
        let subject = image.subject();
        let place = Place::Referrer(&subject);
        ctx.registry.put_document(&ctx.runner, staging, &place, BUILD, &BTreeMap::new(), &document)?;
    }
    Ok(())
}

/// What the build of an image took, where it was recorded.
pub fn build_record(ctx: &Ctx, staging: &Repository, image: &str) -> Result<Option<BuildRecord>> {
    let found = ctx.registry.referrers(&ctx.runner, staging, image, BUILD)?;
    Ok(found.into_iter().rev().find_map(|document| serde_json::from_value(document).ok()))
}

/// The inputs that an image was made from, as it carries them; `None` for an image that carries none.
pub fn inputs_of(image: &Manifest) -> Option<Inputs> {
    serde_json::from_str(image.annotation(INPUTS)?).ok()
}

/// What led from an older image to these inputs. How many lines of a file changed is told where this clone has the
/// commit of the older image, and the very text that went into it.
pub fn changes(ctx: &Ctx, old: &Manifest, new: &Inputs) -> Option<Vec<Change>> {
    let mut changes = new.changes(&inputs_of(old)?);
    let revision = old.annotation(REVISION).map(|revision| revision.trim_end_matches("-dirty"));
    for change in &mut changes {
        let Change::Edited { path, was, lines } = change else { continue };
        let before = revision.and_then(|revision| git::file_at(&ctx.runner, revision, path));
        let before = before.filter(|text| digest(text.as_bytes()).ends_with(was.as_str()));
        if let (Some(before), Ok(after)) = (before, ctx.read(path)) {
            let diff = TextDiff::from_lines(&before, &after);
            *lines = Some(diff.iter_all_changes().filter(|line| line.tag() != ChangeTag::Equal).count());
        }
    }
    Some(changes)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    process::now()
}
