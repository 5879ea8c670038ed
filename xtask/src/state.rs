//! What this tree means in the registry: its base key, its variants' keys, and which of them exist.
//!
//! Everything is asked anew from the registry, which is the only state, so any machine can run any phase.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use serde_json::json;

use crate::ctx::{Ctx, Destination};
use crate::missing;
use crate::model::bake::Target;
use crate::model::config::{Image, Variant};
use crate::model::dockerfile::arg_default;
use crate::model::key::{self, Key};
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::tools::registry::Manifest;
use crate::tools::{docker, git, local, source, tree};

/// The media type of a smoke verdict.
pub const VERDICT: &str = "application/vnd.opencode-devbox.verdict.v1+json";

/// The script that decides whether an image is good.
pub const SUITE: &str = "scripts/smoke-test.sh";

/// The base that this tree implies.
#[derive(Debug)]
pub struct Base {
    pub key: Key,
    /// `base-<key>`.
    pub tag: String,
    /// The Debian image by digest.
    pub debian: String,
    /// Build arguments that are part of the key.
    pub args: BTreeMap<String, String>,
    pub repository: Repository,
    /// The index in the registry, if it is complete on every asked platform.
    pub present: Option<Manifest>,
}

/// A variant that this tree implies.
#[derive(Debug)]
pub struct Stage<'a> {
    pub variant: &'a Variant,
    /// `<variant>-<key>` in the staging repository.
    pub tag: String,
    pub args: BTreeMap<String, String>,
    pub staging: Repository,
    /// The index in the registry, if it is complete on every asked platform.
    pub present: Option<Manifest>,
}

/// The repository to work on; the local registry is started where it does not run.
pub fn repository(ctx: &Ctx) -> Result<Repository> {
    match &ctx.destination {
        Destination::Remote(repository) => Ok(repository.clone()),
        Destination::Local => local::repository(&ctx.runner, &ctx.state_dir()),
    }
}

/// Computes the base's key and looks it up.
///
/// gitea-mcp comes from a release host that not every machine reaches. A base that has it is used wherever it exists;
/// only where one would have to be built does it matter whether the host answers, and without it another key results.
pub fn base(ctx: &Ctx) -> Result<Base> {
    let repository = repository(ctx)?;
    let (debian, digests) = debian(ctx, &repository)?;
    let entries = tree::snapshot(&ctx.root, &ctx.config.base.inputs)?;
    let make = |gitea_mcp: bool| -> Result<Base> {
        let args = BTreeMap::from([("INSTALL_GITEA_MCP".to_owned(), gitea_mcp.to_string())]);
        let key = key::key(&entries, &args, &digests);
        let tag = format!("base-{key}");
        let present = complete(ctx, &repository, &tag)?;
        Ok(Base { key, tag, debian: debian.clone(), args, repository: repository.clone(), present })
    };
    let whole = make(true)?;
    if whole.present.is_some() || *ctx.gitea_mcp_answers.get_or_init(|| gitea_mcp_answers(ctx)) {
        return Ok(whole);
    }
    make(false)
}

/// True if the release host of gitea-mcp has the pinned version.
fn gitea_mcp_answers(ctx: &Ctx) -> bool {
    let Ok(text) = ctx.read(&ctx.config.base.dockerfile) else { return false };
    let (url, version) = (arg_default(&text, "GITEA_MCP_URL"), arg_default(&text, "GITEA_MCP_VERSION"));
    let (Some(url), Some(version)) = (url, version) else { return false };
    source::answers(&format!("{url}/v{version}/checksums.txt"))
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
    let entries = tree::snapshot(&ctx.root, &ctx.config.variants.inputs)?;
    let mut upon = platform_digests(ctx, index)?;
    upon.insert("debian".to_owned(), base.debian.clone());
    let staging = base.repository.staging();
    let mut stages = Vec::new();
    for variant in chosen(ctx, names)? {
        let mut args = BTreeMap::new();
        for component in ["opencode", "omos", "pi"] {
            args.insert(format!("INSTALL_{}", component.to_uppercase()), variant.has(component).to_string());
        }
        let key = key::key(&entries, &args, &upon);
        args.insert("BASE_IMAGE".to_owned(), base.repository.digest(&index.digest));
        args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
        let tag = format!("{}-{key}", variant.name);
        let present = complete(ctx, &staging, &tag)?;
        stages.push(Stage { variant, tag, args, staging: staging.clone(), present });
    }
    Ok(stages)
}

/// The variants of these names, in the order of devbox.toml; all if there are no names.
pub fn chosen<'a>(ctx: &'a Ctx, names: &[String]) -> Result<Vec<&'a Variant>> {
    for name in names {
        ctx.config.variant(name)?;
    }
    Ok(ctx.config.variant.iter().filter(|v| names.is_empty() || names.contains(&v.name)).collect())
}

/// The index under a tag if it holds every asked platform; a part of it counts as nothing.
fn complete(ctx: &Ctx, repository: &Repository, tag: &str) -> Result<Option<Manifest>> {
    let found = ctx.registry.image(&ctx.runner, repository, tag)?;
    Ok(found.filter(|manifest| ctx.platforms.iter().all(|platform| manifest.platform(*platform).is_some())))
}

fn platform_digests(ctx: &Ctx, index: &Manifest) -> Result<BTreeMap<String, String>> {
    let digest = |platform: &Platform| {
        let digest =
            index.platform(*platform).with_context(|| format!("the base has no image for {platform}"))?;
        Ok((platform.to_string(), digest.to_owned()))
    };
    ctx.platforms.iter().map(digest).collect()
}

/// The Debian image by digest and its digest per platform. A local repository uses the copy that was bootstrapped
/// once, so that the key stays; otherwise Docker Hub is asked, and where it cannot be reached the archive is used.
fn debian(ctx: &Ctx, repository: &Repository) -> Result<(String, BTreeMap<String, String>)> {
    let suite = format!("{}-slim", ctx.config.debian.suite);
    let official: Repository = ctx.config.debian.image.parse().map_err(|why| anyhow::anyhow!("{why}"))?;
    let mirror: Repository =
        format!("{}/debian", repository.host()).parse().map_err(|why| anyhow::anyhow!("{why}"))?;
    let own = if repository.is_loopback() { complete(ctx, &mirror, &suite)? } else { None };
    let (source, index) = match own {
        Some(index) => (mirror, index),
        None => match (complete(ctx, &official, &suite), repository.is_loopback()) {
            (Ok(Some(index)), _) => (official, index),
            (Ok(None), false) => anyhow::bail!("{official} has no complete {suite}"),
            (Err(error), false) => return Err(error),
            (_, true) => (mirror.clone(), bootstrap(ctx, &mirror, &suite)?),
        },
    };
    Ok((source.digest(&index.digest), platform_digests(ctx, &index)?))
}

fn bootstrap(ctx: &Ctx, mirror: &Repository, suite: &str) -> Result<Manifest> {
    ctx.say(format!("Docker Hub does not answer: making {} from Debian's archive", mirror.tag(suite)));
    let debian = &ctx.config.debian;
    let script = "scripts/bootstrap-debian.sh";
    let mut cmd =
        crate::model::command::Cmd::new(script, ["--suite", &debian.suite, "--date", &ctx.debian_date()?]);
    cmd = cmd.args(["--repository", &mirror.to_string()]);
    for platform in &ctx.platforms {
        cmd = cmd.args(["--platform", &platform.to_string()]);
    }
    ctx.runner.run(&cmd)?;
    if ctx.runner.dry_run {
        let manifests: Vec<_> = ctx
            .platforms
            .iter()
            .map(|p| {
                json!({ "digest": "sha256:unknown-until-made",
            "platform": { "os": "linux", "architecture": p.arch() } })
            })
            .collect();
        return Ok(Manifest {
            digest: "sha256:unknown-until-made".to_owned(),
            json: json!({ "manifests": manifests }),
        });
    }
    complete(ctx, mirror, suite)?.with_context(|| format!("{script} left no complete {}", mirror.tag(suite)))
}

/// Lays out the build context of an image and returns its folder.
pub fn context(ctx: &Ctx, image: &Image, name: &str) -> Result<Utf8PathBuf> {
    let folder = ctx.state_dir().join("context").join(name);
    tree::lay_out(&tree::snapshot(&ctx.root, &image.inputs)?, &folder)?;
    Ok(folder)
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
    if let Some(revision) = git::revision(&ctx.runner) {
        label("revision", revision);
    }
    for (name, version) in ctx.versions()? {
        if components.contains(&name) {
            labels.insert(format!("opencode-devbox.version.{name}"), version);
        }
    }
    Ok(labels)
}

/// Builds and pushes targets in one bake.
pub fn bake(ctx: &Ctx, targets: &[Target], print: bool) -> Result<()> {
    let definition =
        crate::model::bake::definition(targets, &ctx.platforms, ctx.settings.ca_bundle.as_deref());
    if print {
        println!("{}", serde_json::to_string_pretty(&definition)?);
        return Ok(());
    }
    docker::require_engine(&ctx.runner)?;
    ctx.runner.run(&docker::bake(&definition, git::commit_time(&ctx.runner).as_deref()))
}

/// The tag of the verdict on one image: a function of image, suite and platform, so a change of any of them asks anew.
pub fn verdict_tag(ctx: &Ctx, image: &str, platform: Platform) -> Result<String> {
    let suite = key::digest(ctx.read(SUITE)?.as_bytes());
    let text = format!("{image}\n{suite}\n{platform}");
    Ok(format!("verdict-{}", &key::digest(text.as_bytes())["sha256:".len()..][..32]))
}

/// How long the suite as it stands took to pass on this image; `None` if it has not passed.
pub fn passed(ctx: &Ctx, staging: &Repository, image: &str, platform: Platform) -> Result<Option<u64>> {
    let verdict = ctx.registry.artifact(&ctx.runner, staging, &verdict_tag(ctx, image, platform)?)?;
    let verdict = verdict.filter(|verdict| verdict["passed"] == true && verdict["image"] == image);
    Ok(verdict.map(|verdict| verdict["seconds"].as_u64().unwrap_or_default()))
}
