//! The Debian packages of a base, stored as its referrer when it is built.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::context::Context;
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

/// The lists of a base: those that were recorded, or else those that its images have.
pub fn of(ctx: &Context, repository: &Repository, base: &Manifest) -> Result<Lists> {
    let staging = ctx.staging(repository);
    let found = ctx.registry.referrers(&ctx.runner, &staging, &base.digest, KIND)?;
    match found.into_iter().next_back() {
        Some(document) => Ok(serde_json::from_value(document)?),
        None => read(ctx, repository, base).with_context(|| {
            format!(
                "{} has no record of its packages and its list cannot be read",
                repository.digest(&base.digest)
            )
        }),
    }
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
