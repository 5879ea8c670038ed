//! Time and disk of a build, stored as a referrer of each image, to forecast the next build.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::image::builders::Built;
use crate::model::oci::{Digest, Manifest};
use crate::model::reference::Repository;
use crate::tools::registry::{Place, Registry};
use crate::tools::runner::Runner;

/// The artifact type of the record.
const BUILD: &str = "application/vnd.opencode-devbox.build.v1+json";

/// What a build took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildRecord {
    pub seconds: u64,
    /// How much less disk was free afterwards, in bytes.
    pub disk_bytes: u64,
    /// The node that each platform was built on; nothing in records from before it was asked.
    #[serde(default)]
    pub built: Vec<Built>,
    /// When it was recorded, in seconds since 1970; nothing in records from before it was noted.
    #[serde(default)]
    pub at: Option<u64>,
}

/// Stores a build's time and disk with each image that it made.
pub fn write<'a>(
    ctx: &Context,
    images: impl IntoIterator<Item = &'a Manifest>,
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
pub fn read(ctx: &Context, staging: &Repository, image: &Digest) -> Result<Option<BuildRecord>> {
    let found = ctx.registry.referrers(&ctx.runner, staging, image, BUILD)?;
    Ok(found.into_iter().rev().find_map(|document| serde_json::from_value(document).ok()))
}

/// What the build of the image under a tag took.
pub fn of_tag(ctx: &Context, repository: &Repository, tag: &str) -> Result<Option<BuildRecord>> {
    let Some(image) = ctx.registry.manifest(&ctx.runner, repository, tag)? else { return Ok(None) };
    read(ctx, &ctx.staging(repository), &image.digest)
}

/// When an image was built; of several records the newest counts.
pub fn built_at(
    registry: &Registry,
    runner: &Runner,
    staging: &Repository,
    image: &Digest,
) -> Result<Option<u64>> {
    let found = registry.referrers(runner, staging, image, BUILD)?;
    let records = found.into_iter().filter_map(|it| serde_json::from_value::<BuildRecord>(it).ok());
    Ok(records.filter_map(|record| record.at).max())
}
