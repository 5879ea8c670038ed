//! What a build is told to make of this tree: the bake targets of the base and of variants.

use anyhow::Result;

use crate::context::Context;
use crate::context::sources;
use crate::image::state::{self, Base, Stage};
use crate::model::bake::{Output, Target};
use crate::model::oci::Manifest;

/// The base, with the optional parts that its key counts in.
pub fn base(ctx: &Context, base: &Base) -> Result<Target> {
    let mut components = ["node", "uv", "mempalace"].map(String::from).to_vec();
    let installed = ctx.config.base_optional.iter().filter(|part| base.inputs.args[&part.arg()] == "true");
    components.extend(installed.map(|part| part.name.clone()));
    let mut args = base.inputs.args.clone();
    args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
    args.extend(sources::build_args(ctx));
    let context = state::context(ctx, &ctx.config.base, "base")?;
    Ok(Target {
        name: "base-image".to_owned(),
        dockerfile: ctx.config.base.dockerfile.clone(),
        context: context.into_string(),
        args,
        labels: state::labels(ctx, "opencode-devbox base", &components)?,
        annotations: state::annotations(ctx, &base.inputs)?,
        output: Output::Tag(base.repository.tag(&base.tag)),
        cache: state::cache(ctx, &state::staging(ctx, &base.repository), "base-image"),
    })
}

/// The variants of these stages.
pub fn variants(ctx: &Context, base: &Base, index: &Manifest, stages: &[&Stage<'_>]) -> Result<Vec<Target>> {
    let context = state::context(ctx, &ctx.config.variants, "variants")?;
    let mut targets = Vec::new();
    for stage in stages {
        let mut labels = state::labels(ctx, "opencode-devbox", &stage.variant.components)?;
        labels.insert("org.opencontainers.image.base.name".to_owned(), base.repository.tag(&base.tag));
        labels.insert("org.opencontainers.image.base.digest".to_owned(), index.digest.to_string());
        labels.insert("opencode-devbox.variant".to_owned(), stage.variant.name.clone());
        let mut args = stage.args.clone();
        args.extend(sources::build_args(ctx));
        targets.push(Target {
            name: stage.variant.name.clone(),
            dockerfile: ctx.config.variants.dockerfile.clone(),
            context: context.to_string(),
            args,
            labels,
            annotations: state::annotations(ctx, &stage.inputs)?,
            output: Output::Tag(stage.staging.tag(&stage.tag)),
            cache: state::cache(ctx, &stage.staging, &stage.variant.name),
        });
    }
    Ok(targets)
}
