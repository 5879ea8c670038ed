//! Shows that what is in the registry can be built again: on an engine of its own, from an empty cache, the base and the
//! variants get the same digests. Of a base that does not, every file that differs is named.
//!
//! The rebuilt images are pushed to the staging repository as well: where they are identical, that adds a tag and no bytes.
//! Refuses any difference, and a listing without files.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use serde_json::{Value, json};

use crate::context::Context;
use crate::image::base::{self, BuiltBase, FoundBase};
use crate::image::definition;
use crate::image::definition::REVISION;
use crate::image::secrets::Secrets;
use crate::image::tree::Tree;
use crate::image::variant;
use crate::model::bake::{self, Output, Target};
use crate::model::listing::{self, Difference};
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::output;
use crate::tools::docker;
use crate::tools::engine::Scratch;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variants to build again [default: all]
    pub variants: Vec<String>,
    /// Leave the base out, which takes most of the time
    #[arg(long)]
    pub no_base: bool,
}

/// An image, as the registry has it and as it was built again.
struct Rebuilt {
    name: String,
    /// Of the first image.
    repository: Repository,
    staging: Repository,
    first: Manifest,
    second: Manifest,
}

impl Rebuilt {
    fn is_identical(&self) -> bool {
        self.first.digest == self.second.digest
    }
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    ctx.start_registry()?;
    let tree = Tree::load(ctx)?;
    let base = base::find_built(ctx, &tree)?;
    let staged = variant::find_staged(ctx, &tree, &base, &args.variants)?;
    let state = ctx.state_dir();
    fs::create_dir_all(&state).with_context(|| format!("cannot create {state}"))?;
    let folder =
        tempfile::Builder::new().prefix("verify-").tempdir_in(&state).context("cannot make a folder")?;
    let folder = Utf8Path::from_path(folder.path()).context("a folder whose name is not UTF-8")?;
    let engine = Scratch::start(&ctx.runner, &state, "verify")?;
    let again = Again { ctx, engine: &engine };
    let mut rebuilt = Vec::new();
    for staged in &staged {
        let target = definition::variants(ctx, &tree, &FoundBase::Built(base.clone()), &[staged])?.remove(0);
        rebuilt.extend(again.build(target, &staged.staging, &staged.staging, &staged.tag, &staged.index)?);
    }
    let mut files = BTreeMap::new();
    if !args.no_base {
        let target = definition::base(ctx, &tree, &base)?;
        let staging = ctx.staging(&base.repository);
        let it = again.build(target.clone(), &base.repository, &staging, &base.tag, &base.index)?;
        if it.as_ref().is_some_and(|it| !it.is_identical()) {
            files = again.compare_files(target, &base, folder)?;
        }
        rebuilt.extend(it);
    }
    drop(engine);
    match ctx.runner.dry_run {
        true => Ok(()),
        false => report(ctx, &rebuilt, &files),
    }
}

/// Builds on an engine that knows nothing.
struct Again<'a> {
    ctx: &'a Context,
    engine: &'a Scratch<'a>,
}

impl Again<'_> {
    /// Builds an image again, with the commit and the time that the first one carries: neither is an input, so an image that
    /// another commit made is as good. `None` in a dry run.
    fn build(
        &self,
        mut target: Target,
        repository: &Repository,
        staging: &Repository,
        tag: &str,
        first: &Manifest,
    ) -> Result<Option<Rebuilt>> {
        let ctx = self.ctx;
        let created = config(ctx, repository, first, ctx.platforms[0])?["created"].clone();
        let created = created.as_str().context("an image without a time")?;
        let epoch: jiff::Timestamp = created.parse().context("the time of an image")?;
        let name = target.name.clone();
        let tag = format!("{tag}-rebuilt");
        target.output = Output::Tag(staging.tag(&tag));
        target.cache = None;
        as_of(&mut target, first.annotation(REVISION));
        let secrets = Secrets::new(ctx);
        let definition = bake::definition(&[target], &ctx.platforms, &ctx.config.layers, &secrets.specs);
        let (epoch, progress) = (epoch.as_second().to_string(), ctx.runner.build_progress());
        let cmd = secrets.give(docker::bake(&definition, Some(&epoch), progress));
        ctx.runner.run_again(&self.engine.on(cmd))?;
        if ctx.runner.dry_run {
            return Ok(None);
        }
        let second = ctx.registry.image(&ctx.runner, staging, &tag)?.context("what was pushed is gone")?;
        let (repository, staging) = (repository.clone(), staging.clone());
        let rebuilt = Rebuilt { name, repository, staging, first: first.clone(), second };
        if rebuilt.is_identical() {
            ctx.say(format!("{}: the same digest, {}", rebuilt.name, rebuilt.second.digest));
        }
        Ok(Some(rebuilt))
    }

    /// Compares the files of the base in the registry with those of the one that the engine has just built.
    fn compare_files(
        &self,
        target: Target,
        base: &BuiltBase,
        folder: &Utf8Path,
    ) -> Result<BTreeMap<Platform, Difference>> {
        let ctx = self.ctx;
        let target = Target { cache: None, ..target };
        let image = base.repository.digest(&base.index.digest);
        let lists = folder.join("lists");
        fs::write(folder.join("Dockerfile"), bake::LISTS).context("cannot write a recipe")?;
        let secrets = Secrets::new(ctx);
        let definition =
            bake::comparison(&target, &image, &base.debian, folder.as_str(), &ctx.platforms, &secrets.specs);
        let cmd = docker::bake(&definition, None, ctx.runner.build_progress()).arg("--allow=fs.write=/");
        let cmd = secrets.give(cmd);
        ctx.runner.run_again(&self.engine.on(cmd))?;
        let read = |name: String| -> Result<String> {
            let path = lists.join(name);
            let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let mut differences = BTreeMap::new();
        for platform in &ctx.platforms {
            let side = |side: &str| -> Result<listing::Listing> {
                let name = format!("{}.{side}", platform.arch());
                Ok(listing::parse(&read(format!("{name}.files"))?, &read(format!("{name}.sums"))?))
            };
            let (first, second) = (side("first")?, side("second")?);
            if first.is_empty() {
                bail!("no file of {image} was listed for {platform}");
            }
            differences.insert(*platform, listing::compare(&first, &second));
        }
        Ok(differences)
    }
}

/// Gives a target the commit of an image that is there, in place of this tree's.
fn as_of(target: &mut Target, revision: Option<&str>) {
    for map in [&mut target.labels, &mut target.annotations] {
        map.remove(REVISION);
        map.extend(revision.map(|commit| (REVISION.to_owned(), commit.to_owned())));
    }
}

/// The configuration of one platform's image.
fn config(ctx: &Context, repository: &Repository, index: &Manifest, platform: Platform) -> Result<Value> {
    let image = image(ctx, repository, index, platform)?;
    let digest = image.config().context("an image without a configuration")?;
    ctx.registry.blob(&ctx.runner, repository, digest)
}

fn image(ctx: &Context, repository: &Repository, index: &Manifest, platform: Platform) -> Result<Manifest> {
    let digest = index.platform(platform).context("a complete index without a platform")?;
    let image = ctx.registry.manifest(&ctx.runner, repository, digest)?;
    image.context("an index without its image")
}

fn report(ctx: &Context, rebuilt: &[Rebuilt], files: &BTreeMap<Platform, Difference>) -> Result<()> {
    let mut broken = Vec::new();
    for it in rebuilt.iter().filter(|it| !it.is_identical()) {
        broken.push(format!(
            "{}: {} is in the registry, {} was built",
            it.name, it.first.digest, it.second.digest
        ));
        broken.extend(other_parts(ctx, it)?);
    }
    for (platform, it) in files {
        ctx.say(format!("base on {platform}: {} files are the same, {} differ", it.same, it.different.len()));
        broken.extend(it.different.iter().map(|what| format!("base on {platform}: {what}")));
    }
    if ctx.json {
        let digests: Vec<Value> = rebuilt
            .iter()
            .map(|it| json!({ "image": it.name, "first": it.first.digest, "second": it.second.digest }))
            .collect();
        let bases: BTreeMap<String, &Difference> =
            files.iter().map(|(platform, it)| (platform.to_string(), it)).collect();
        output::json(&json!({ "images": digests, "base": bases, "differences": broken }));
    }
    match broken.is_empty() {
        true => {
            ctx.say("everything was built again the same");
            Ok(())
        }
        false => bail!("{} differences between two builds\n{}", broken.len(), broken.join("\n")),
    }
}

/// Which layers, or whether the configuration, of an image came out otherwise.
fn other_parts(ctx: &Context, it: &Rebuilt) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for platform in &ctx.platforms {
        let (old, new) = (
            image(ctx, &it.repository, &it.first, *platform)?,
            image(ctx, &it.staging, &it.second, *platform)?,
        );
        for (number, (old, new)) in old.layers().iter().zip(new.layers()).enumerate() {
            if *old != new {
                let line = format!("  {platform}: layer {number} was {} and is {}", old.0, new.0);
                lines.push(line);
            }
        }
        if old.config() != new.config() {
            lines.push(format!("  {platform}: the configuration differs"));
        }
    }
    Ok(lines)
}
