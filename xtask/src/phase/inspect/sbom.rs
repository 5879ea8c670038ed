//! Prints what an image of this tree contains, as CycloneDX or SPDX. Refuses an image that this tree does not make: only the
//! locks that it was made from say what is in it.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::context::Context;
use crate::error::missing;
use crate::image::base::{self, BuiltBase, FoundBase};
use crate::image::definition::REVISION;
use crate::image::sbom;
use crate::image::tree::Tree;
use crate::image::variant::{self, FoundVariant};
use crate::model::platform::Platform;
use crate::model::{sbom_cyclonedx, sbom_spdx};
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant, or tag such as latest-omos or base-latest; of --platform, or else of this machine's
    pub image: String,
    /// The form of the list
    #[arg(long, value_enum, default_value_t = Format::Cyclonedx)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// CycloneDX 1.6
    Cyclonedx,
    /// SPDX 2.3
    Spdx,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let name = &args.image;
    let host = Platform::host();
    let platform = if ctx.platforms.contains(&host) { host } else { ctx.platforms[0] };
    let tree = Tree::load(ctx)?;
    let base = built(ctx, &tree)?;
    let variants = variant::find(ctx, &tree, &base, &[])?;
    let documents = if let Some(found) = variants.iter().find(|it| it.variant.name == *name) {
        let staged = found.clone().staged()?;
        sbom::documents(ctx, &tree, &base, Some(&staged), platform)?
    } else {
        let repository = ctx.repository()?;
        let Some(image) = ctx.registry.image(&ctx.runner, &repository, name)? else {
            return Err(missing(format!(
                "{} does not exist: name a variant, or a tag that `cargo xtask status` lists",
                repository.tag(name)
            )));
        };
        let staged =
            variants.iter().filter_map(FoundVariant::as_staged).find(|it| it.index.digest == image.digest);
        if staged.is_none() && image.digest != base.index.digest {
            let commit = image.annotation(REVISION).unwrap_or("that made it");
            bail!(
                "{} is not what this tree makes, so its locks do not list what is in it: check out the commit {commit}",
                repository.tag(name)
            );
        }
        sbom::documents(ctx, &tree, &base, staged, platform)?
    };
    let wanted = match args.format {
        Format::Cyclonedx => sbom_cyclonedx::PREDICATE,
        Format::Spdx => sbom_spdx::PREDICATE,
    };
    documents.iter().filter(|(kind, _)| *kind == wanted).for_each(|(_, document)| output::json(document));
    Ok(())
}

/// The base on all platforms of the family, so that `--platform` picks from it; else on those of this command.
fn built(ctx: &Context, tree: &Tree) -> Result<BuiltBase> {
    match base::find(ctx, tree, &ctx.config.platforms) {
        Ok(FoundBase::Built(base)) => Ok(base),
        _ => base::find_built(ctx, tree),
    }
}
