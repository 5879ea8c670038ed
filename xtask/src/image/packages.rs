//! The Debian packages of a base, stored as its referrer when it is built.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::image::component_layer;
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::output;
use crate::tools::command::cmd;
use crate::tools::registry::Place;

/// The media type of the record.
pub const KIND: &str = "application/vnd.opencode-devbox.debian-packages.v1+json";
/// Where the base's Dockerfile leaves the list.
pub const LIST: &str = "/usr/share/devbox/debian-packages.tsv";

/// What the layer with the list holds, by `images/devbox.toml`.
const HOLDER: &str = "packages";

/// Name, version and architecture of each package as lines, by platform.
pub type Lists = BTreeMap<Platform, String>;

/// Stores the package lists of a base, unless they are stored. A run may have ended between the push of a base and its
/// record.
pub fn ensure_recorded(ctx: &Context, repository: &Repository, base: &Manifest) -> Result<()> {
    let staging = ctx.staging(repository);
    let digest = base.digest.to_string();
    if !ctx.registry.referrers(&ctx.runner, &staging, &digest, KIND)?.is_empty() {
        return Ok(());
    }
    if ctx.runner.dry_run {
        output::line(format!("# record the Debian packages of {}", repository.digest(&digest)));
        return Ok(());
    }
    let lists = read(ctx, repository, base)
        .with_context(|| format!("cannot record the Debian packages of {}", repository.digest(&digest)))?;
    let (subject, document) = (base.subject(), serde_json::to_value(&lists)?);
    let place = Place::Referrer(&subject);
    ctx.registry.put_document(&ctx.runner, &staging, &place, KIND, &BTreeMap::new(), &document).map(drop)
}

/// The list in one platform's image of a base, out of its layer. No record that another account could have stored is asked:
/// what is signed follows from the image alone.
pub fn of_image(ctx: &Context, repository: &Repository, image: &Manifest) -> Result<String> {
    let name = || format!("cannot read the list of packages of {}", repository.digest(&image.digest));
    let at = ctx.config.base_layers.iter().position(|it| it.holds.iter().any(|name| name == HOLDER));
    let at = at.context("no layer of base_layers in images/devbox.toml holds \"packages\"")?;
    let layers = image.as_image().map(|it| it.layers().as_slice()).unwrap_or_default();
    let layer = layers.get(at).context("it has fewer layers than images/devbox.toml").with_context(name)?;
    let tar = component_layer::open(&ctx.registry, &ctx.runner, repository, image, layer.digest().as_ref())?;
    for entry in tar::Archive::new(tar).entries().with_context(name)? {
        let mut entry = entry.with_context(name)?;
        if entry.path_bytes().strip_prefix(b"./").unwrap_or(&entry.path_bytes())
            == LIST.trim_start_matches('/').as_bytes()
        {
            let mut text = String::new();
            entry.read_to_string(&mut text).with_context(name)?;
            return Ok(text);
        }
    }
    Err(anyhow::anyhow!("its layer does not have {LIST}")).with_context(name)
}

/// Reads the list out of each platform's image.
pub fn read(ctx: &Context, repository: &Repository, base: &Manifest) -> Result<Lists> {
    let mut lists = Lists::new();
    for (platform, digest) in base.images() {
        let (on, image) = (platform.to_string(), repository.digest(digest));
        let cmd = cmd!("docker run --rm --network none --platform {on} --entrypoint /bin/cat {image} {LIST}");
        lists.insert(platform, ctx.runner.read(&cmd)?);
    }
    Ok(lists)
}
