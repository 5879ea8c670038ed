//! Shows that what is in the registry can be built again: on an engine of its own, from an empty cache, the variants
//! get the same digests, and the base the same files but for those that `images/devbox.toml` lists.
//!
//! The rebuilt variants are pushed to the staging repository as well: where they are the same, that adds a tag and no bytes.
//! Refuses any other difference, and a listing without files.

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
use crate::image::variant::{self, StagedVariant};
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

/// A variant, as it was staged and as it was built again.
struct Rebuilt<'a> {
    staged: &'a StagedVariant<'a>,
    built: Manifest,
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
    let rebuilt = variants(ctx, &tree, &engine, &base, &staged)?;
    let files = match args.no_base {
        true => BTreeMap::new(),
        false => base_files(ctx, &tree, &engine, folder, &base)?,
    };
    drop(engine);
    if ctx.runner.dry_run {
        return Ok(());
    }
    report(ctx, &rebuilt, &files)
}

/// Builds all variants again, with the commit and the time that the staged ones carry: neither is an input, so an image
/// that another commit made is as good.
fn variants<'a>(
    ctx: &Context,
    tree: &Tree,
    engine: &Scratch<'_>,
    base: &BuiltBase,
    staged: &'a [StagedVariant<'a>],
) -> Result<Vec<Rebuilt<'a>>> {
    let mut rebuilt = Vec::new();
    for staged in staged {
        let created = config(ctx, &staged.staging, &staged.index, ctx.platforms[0])?["created"].clone();
        let created = created.as_str().context("an image without a time")?;
        let epoch: jiff::Timestamp = created.parse().context("the time of an image")?;
        let mut target =
            definition::variants(ctx, tree, &FoundBase::Built(base.clone()), &[staged])?.remove(0);
        let tag = format!("{}-rebuilt", staged.tag);
        target.output = Output::Tag(staged.staging.tag(&tag));
        target.cache = None;
        as_of(&mut target, staged.index.annotation(REVISION));
        let secrets = Secrets::new(ctx);
        let definition = bake::definition(&[target], &ctx.platforms, &ctx.config.layers, &secrets.specs);
        let cmd = secrets.give(docker::bake(&definition, Some(&epoch.as_second().to_string())));
        ctx.runner.run_again(&engine.on(cmd))?;
        if ctx.runner.dry_run {
            continue;
        }
        let built =
            ctx.registry.image(&ctx.runner, &staged.staging, &tag)?.context("what was pushed is gone")?;
        if built.digest == staged.index.digest {
            ctx.say(format!("{}: the same digest, {}", staged.variant.name, built.digest));
        }
        rebuilt.push(Rebuilt { staged, built });
    }
    Ok(rebuilt)
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

/// Builds the base again and compares it, file by file, with the one in the registry.
fn base_files(
    ctx: &Context,
    tree: &Tree,
    engine: &Scratch<'_>,
    folder: &Utf8Path,
    base: &BuiltBase,
) -> Result<BTreeMap<Platform, Difference>> {
    let target = Target { cache: None, ..definition::base(ctx, tree, base)? };
    let image = base.repository.digest(&base.index.digest);
    let lists = folder.join("lists");
    fs::write(folder.join("Dockerfile"), bake::LISTS).context("cannot write a recipe")?;
    let secrets = Secrets::new(ctx);
    let definition =
        bake::comparison(&target, &image, &base.debian, folder.as_str(), &ctx.platforms, &secrets.specs);
    let cmd = secrets.give(docker::bake(&definition, None).arg("--allow=fs.write=/"));
    ctx.runner.run_again(&engine.on(cmd))?;
    let mut differences = BTreeMap::new();
    if ctx.runner.dry_run {
        return Ok(differences);
    }
    let read = |name: String| -> Result<String> {
        let path = lists.join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    for platform in &ctx.platforms {
        let side = |side: &str| -> Result<listing::Listing> {
            let name = format!("{}.{side}", platform.arch());
            Ok(listing::parse(&read(format!("{name}.files"))?, &read(format!("{name}.sums"))?))
        };
        let (first, second) = (side("first")?, side("second")?);
        if first.is_empty() {
            bail!("no file of {image} was listed for {platform}");
        }
        let may_differ = &ctx.config.reproducible.may_differ;
        differences.insert(*platform, listing::compare(&first, &second, may_differ));
    }
    Ok(differences)
}

fn report(ctx: &Context, rebuilt: &[Rebuilt<'_>], files: &BTreeMap<Platform, Difference>) -> Result<()> {
    let mut broken = Vec::new();
    for it in rebuilt {
        let name = &it.staged.variant.name;
        if it.built.digest != it.staged.index.digest {
            broken.push(format!(
                "{name}: {} was staged, {} was built",
                it.staged.index.digest, it.built.digest
            ));
            broken.extend(other_parts(ctx, it)?);
        }
    }
    for (platform, it) in files {
        let (same, documented) = (it.same, it.documented.len());
        ctx.say(format!(
            "base on {platform}: {same} files are the same ({} but for their times), {documented} differ as listed, {} differ",
            it.other_times,
            it.unexpected.len()
        ));
        it.documented.iter().for_each(|path| ctx.say(format!("  as listed: {path}")));
        broken.extend(it.unexpected.iter().map(|what| format!("base on {platform}: {what}")));
    }
    if ctx.json {
        let digests: Vec<Value> = rebuilt
            .iter()
            .map(|it| json!({ "variant": it.staged.variant.name, "staged": it.staged.index.digest, "built": it.built.digest }))
            .collect();
        let bases: BTreeMap<String, &Difference> =
            files.iter().map(|(platform, it)| (platform.to_string(), it)).collect();
        output::json(&json!({ "variants": digests, "base": bases, "differences": broken }));
    }
    match broken.is_empty() {
        true => {
            ctx.say("everything was built again the same");
            Ok(())
        }
        false => bail!("{} differences between two builds\n{}", broken.len(), broken.join("\n")),
    }
}

/// Which layers, or whether the configuration, of a variant came out otherwise.
fn other_parts(ctx: &Context, it: &Rebuilt<'_>) -> Result<Vec<String>> {
    let staging = &it.staged.staging;
    let mut lines = Vec::new();
    for platform in &ctx.platforms {
        let (old, new) =
            (image(ctx, staging, &it.staged.index, *platform)?, image(ctx, staging, &it.built, *platform)?);
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
