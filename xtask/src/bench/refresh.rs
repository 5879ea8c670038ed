//! What a user downloads after a security refresh: the base is built, a few small packages get an update in an archive of
//! their own, the base is built again, and the layers that changed are counted.

use anyhow::{Context as _, Result, bail};

use crate::bench::lab::Lab;
use crate::context::Context;
use crate::image::debian;
use crate::model::bench::Refreshed;
use crate::model::layers::Layer;
use crate::model::reference::Repository;
use crate::tools::command::cmd;
use crate::tools::crane;
use crate::tools::engine::Scratch;

/// Debian's image with an archive of updates.
const RECIPE: &str = "bench/Dockerfile.refresh";

/// Small packages that are no library, so that nothing else changes with them.
const PACKAGES: [&str; 5] = ["jq", "less", "tree", "unzip", "zip"];

/// The layers of the base in their order, before and after.
pub fn measure(lab: &Lab<'_>) -> Result<Vec<Refreshed>> {
    if lab.ctx.platforms.len() != 1 {
        bail!("a refresh is measured on one platform: run again with `--platform linux/amd64`");
    }
    let engine = lab.engine("refresh")?;
    let repository = lab.repository("refresh/opencode-devbox")?;
    let before = base(lab, &engine, &repository, &[])?;
    update(lab, &engine)?;
    let after = base(lab, &engine, &repository, &before.1)?;
    let names = lab.ctx.config.base_layers.iter().map(|layer| layer.name.clone());
    let layers = names.zip(before.0.iter().zip(&after.0));
    Ok(layers
        .map(|(name, (old, new))| Refreshed { name, bytes: new.1, is_downloaded: old.0 != new.0 })
        .collect())
}

/// Builds the base; returns its layers and the tags of all bases.
fn base(
    lab: &Lab<'_>,
    engine: &Scratch<'_>,
    repository: &Repository,
    known: &[String],
) -> Result<(Vec<Layer>, Vec<String>)> {
    let ctx: &Context = lab.ctx;
    let cmd = lab.xtask(&lab.new_tree(), &["build-base"]);
    let to = [format!("--repository={repository}"), format!("--platform={}", lab.platforms()[0])];
    ctx.runner.run(&engine.on(cmd.args(to)))?;
    let listed = ctx.runner.read(&crane::tags(&repository.to_string()))?;
    let tags: Vec<String> = listed.lines().map(str::to_owned).collect();
    let tag = tags.iter().find(|tag| !known.contains(tag)).context("no new base was built")?;
    let images = lab.images(repository, &[("base".to_owned(), tag.clone())])?;
    let layers = images.into_values().next().context("a base without a platform")?;
    Ok((layers, tags))
}

/// Puts Debian's image with the updates in the place of the one that bases are built on.
fn update(lab: &Lab<'_>, engine: &Scratch<'_>) -> Result<()> {
    let (tree, platform) = (lab.new_tree(), &lab.platforms()[0]);
    let pin = debian::pinned(lab.ctx)?;
    let mirror = lab.repository("debian")?.tag(&pin.tag);
    let progress = lab.ctx.runner.build_progress();
    let cmd = cmd!(
        "docker buildx build {progress} --provenance=false --file={tree}/{RECIPE} --platform={platform}"
    );
    let cmd = cmd.shown("update of Debian's image", lab.form(&[]), None).args([
        format!("--build-arg=DEBIAN_IMAGE={}", lab.debian),
        format!("--build-arg=PACKAGES={}", PACKAGES.join(" ")),
        format!("--output=type=image,name={mirror}-updated,push=true,store=false,oci-mediatypes=true"),
    ]);
    lab.ctx.runner.run(&engine.on(cmd.arg(tree.as_str())))?;
    // Bases expect an index.
    let append = cmd!("crane index append --manifest={mirror}-updated --tag={mirror}");
    lab.ctx.runner.run(&append)
}
