//! The bake targets of the base and of variants.

use std::collections::BTreeMap;

use anyhow::Result;
use camino::Utf8PathBuf;

use crate::context::{Context, STATE, sources};
use crate::image::base::{Base, FoundBase, INPUTS};
use crate::image::tree::Tree;
use crate::image::variant::PlannedVariant;
use crate::model::bake::{Output, Target};
use crate::model::config::{Cache, Image};
use crate::model::key::{Inputs, Key};
use crate::model::reference::Repository;

/// The OCI annotation and label of the commit that an image was built from.
pub const REVISION: &str = "org.opencontainers.image.revision";

/// The label of an image's own content key.
pub const KEY: &str = "opencode-devbox.key";

/// The label of a variant's base: the content key of that.
pub const BASE_KEY: &str = "opencode-devbox.base.key";

/// The base, with the optional parts that its key counts in.
pub fn base(ctx: &Context, tree: &Tree, base: &Base) -> Result<Target> {
    let mut components = ["node", "uv", "mempalace"].map(String::from).to_vec();
    let installed = ctx.config.base_optional.iter().filter(|part| base.inputs.args[&part.arg()] == "true");
    components.extend(installed.map(|part| part.name.clone()));
    let mut args = base.inputs.args.clone();
    args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
    args.extend(sources::build_args(ctx));
    let context = context(ctx, tree, &ctx.config.base, "base")?;
    let mut labels = labels(ctx, tree, "opencode-devbox base", &components)?;
    labels.insert(KEY.to_owned(), key_text(base.key.as_ref()));
    Ok(Target {
        name: "base-image".to_owned(),
        dockerfile: ctx.config.base.dockerfile.clone(),
        context: context.into_string(),
        args,
        labels,
        annotations: annotations(tree, &base.inputs)?,
        output: Output::Tag(base.reference()),
        cache: cache(ctx, &ctx.staging(&base.repository), "base-image"),
    })
}

/// Variants on top of a base.
pub fn variants(
    ctx: &Context,
    tree: &Tree,
    base: &FoundBase,
    variants: &[&PlannedVariant<'_>],
) -> Result<Vec<Target>> {
    let context = context(ctx, tree, &ctx.config.variants, "variants")?;
    let mut targets = Vec::new();
    for plan in variants {
        let mut labels = labels(ctx, tree, "opencode-devbox", &plan.variant.components)?;
        labels.insert("org.opencontainers.image.version".to_owned(), ctx.opencode_version()?.to_string());
        labels.insert("org.opencontainers.image.base.name".to_owned(), base.reference());
        let digest = base.as_built().map(|base| base.index.digest.to_string());
        labels.extend(digest.map(|digest| ("org.opencontainers.image.base.digest".to_owned(), digest)));
        labels.insert("opencode-devbox.variant".to_owned(), plan.variant.name.clone());
        labels.insert(KEY.to_owned(), key_text(plan.key.as_ref()));
        labels.insert(BASE_KEY.to_owned(), key_text(base.key.as_ref()));
        let mut args = plan.args.clone();
        args.extend(sources::build_args(ctx));
        args.insert("IDENTITY".to_owned(), identity(base, plan)?);
        targets.push(Target {
            name: plan.variant.name.clone(),
            dockerfile: ctx.config.variants.dockerfile.clone(),
            context: context.to_string(),
            args,
            labels,
            annotations: annotations(tree, &plan.inputs)?,
            output: Output::Tag(plan.reference()),
            cache: cache(ctx, &plan.staging, &plan.variant.name),
        });
    }
    Ok(targets)
}

/// The content of the file that tells a container which image it runs. None of it is an input: the key is made from the
/// inputs, and the rest follows from the variant and the repository, which the labels name as well.
fn identity(base: &FoundBase, plan: &PlannedVariant<'_>) -> Result<String> {
    let facts = BTreeMap::from([
        ("variant", plan.variant.name.clone()),
        ("key", key_text(plan.key.as_ref())),
        ("base_key", key_text(base.key.as_ref())),
        ("repository", base.repository.to_string()),
        ("tag", plan.variant.latest_tag()),
    ]);
    Ok(serde_json::to_string(&facts)?)
}

/// The key, or its place where only a dry run asks.
fn key_text(key: Option<&Key>) -> String {
    key.map_or_else(|| "<key>".to_owned(), Key::to_string)
}

/// Lays out the build context of an image and returns its folder.
fn context(ctx: &Context, tree: &Tree, image: &Image, name: &str) -> Result<Utf8PathBuf> {
    let contexts = ctx.root.join(STATE).join("context");
    match ctx.runner.dry_run {
        true => Ok(tree.planned_context(&image.inputs, &contexts, name)),
        false => tree.context(&image.inputs, &contexts, name),
    }
}

/// The OCI labels of an image (image-spec, "Pre-Defined Annotation Keys").
fn labels(
    ctx: &Context,
    tree: &Tree,
    title: &str,
    components: &[String],
) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut label =
        |name: &str, value: String| labels.insert(format!("org.opencontainers.image.{name}"), value);
    label("title", title.to_owned());
    label("source", ctx.config.source.clone());
    label("licenses", "MIT".to_owned());
    if let Some(commit) = &tree.commit {
        labels.insert(REVISION.to_owned(), commit.revision.clone());
    }
    for (name, version) in ctx.versions()? {
        if components.contains(&name) {
            labels.insert(format!("opencode-devbox.version.{name}"), version);
        }
    }
    Ok(labels)
}

/// Annotations of an image: its inputs.
fn annotations(tree: &Tree, inputs: &Inputs) -> Result<BTreeMap<String, String>> {
    let mut annotations = BTreeMap::from([(INPUTS.to_owned(), serde_json::to_string(inputs)?)]);
    if let Some(commit) = &tree.commit {
        annotations.insert(REVISION.to_owned(), commit.revision.clone());
    }
    Ok(annotations)
}

/// The tag that BuildKit's cache of a target is kept under, where `images/devbox.toml` wants one kept.
fn cache(ctx: &Context, staging: &Repository, name: &str) -> Option<String> {
    let wanted = match ctx.config.build.cache {
        Cache::Never => false,
        Cache::Remote => !staging.is_loopback(),
        Cache::Always => true,
    };
    wanted.then(|| staging.tag(&format!("cache-{name}")))
}
