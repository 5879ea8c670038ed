//! The record of a release in the staging repository: what it is made of, written before its first public tag.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::ctx::Ctx;
use crate::model::oci::{Digest, Manifest};
use crate::model::platform::Platform;
use crate::model::promotion::Promotion;
use crate::model::reference::Repository;
use crate::model::version::ReleaseTag;
use crate::nodes::Built;
use crate::state::{self, Base, Stage};
use crate::tools::registry::{self, Place};

const KIND: &str = "application/vnd.opencode-devbox.release.v1+json";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub release: ReleaseTag,
    /// Seconds since 1970.
    pub at: u64,
    /// Commit that the release was made from; `-dirty` for a rehearsal with uncommitted changes.
    pub revision: Option<String>,
    pub base: BaseRecord,
    pub variants: Vec<VariantRecord>,
    pub versions: BTreeMap<String, String>,
    /// Digest that each floating tag had before; nothing for a new tag.
    pub before: BTreeMap<String, Option<Digest>>,
    /// Release that the floating tags stood at before.
    pub latest_before: Option<ReleaseTag>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BaseRecord {
    pub tag: String,
    pub digest: String,
    /// What its build took, where that was recorded.
    #[serde(default)]
    pub build_seconds: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VariantRecord {
    pub name: String,
    pub version_tag: String,
    pub latest_tag: String,
    pub key: String,
    pub digest: String,
    /// What the build took that it came from, which it shares with the variants that were built beside it.
    #[serde(default)]
    pub build_seconds: Option<u64>,
    pub platforms: Vec<PlatformRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlatformRecord {
    pub platform: Platform,
    pub digest: String,
    /// Compressed size of all layers.
    pub bytes: u64,
    pub smoke_seconds: u64,
    /// True if the smoke test ran under emulation.
    #[serde(default)]
    pub smoke_emulated: bool,
    /// The node that built it, where that was recorded.
    #[serde(default)]
    pub built: Option<Built>,
    pub suite: String,
}

fn tag(release: ReleaseTag) -> String {
    format!("release-{release}")
}

/// Stores the record of a release, unless the same images are recorded under its name already.
pub fn write(
    ctx: &Ctx,
    base: &Base,
    index: &Manifest,
    stages: &[Stage<'_>],
    promotion: &Promotion,
    release: ReleaseTag,
    latest_before: Option<ReleaseTag>,
) -> Result<()> {
    // A record that is damaged is written again.
    let known = stored(ctx, &base.repository, release)?.flatten();
    let images = |record: &Record| record.variants.iter().map(|it| it.digest.clone()).collect::<Vec<_>>();
    let own: Vec<String> =
        stages.iter().map(|stage| Ok(stage.staged()?.digest.to_string())).collect::<Result<_>>()?;
    if known.is_some_and(|record| record.base.digest == *index.digest && images(&record) == own) {
        return Ok(());
    }
    let record = Record {
        release,
        at: state::now(),
        revision: ctx.tree()?.commit.as_ref().map(|commit| commit.revision.clone()),
        base: BaseRecord {
            tag: base.tag.clone(),
            digest: index.digest.to_string(),
            build_seconds: state::build_record(ctx, &state::staging(ctx, &base.repository), &index.digest)?
                .map(|record| record.seconds),
        },
        variants: stages.iter().map(|stage| variant(ctx, stage, release)).collect::<Result<_>>()?,
        versions: ctx.versions()?.into_iter().collect(),
        before: promotion.floating().map(|it| (it.tag.clone(), it.from.clone())).collect(),
        latest_before,
    };
    let document = serde_json::to_value(&record)?;
    let (staging, tag) = (state::staging(ctx, &base.repository), tag(release));
    let place = Place::Tag(&tag);
    ctx.registry.put_document(&ctx.runner, &staging, &place, KIND, &BTreeMap::new(), &document).map(drop)
}

fn variant(ctx: &Ctx, stage: &Stage<'_>, release: ReleaseTag) -> Result<VariantRecord> {
    let index = stage.staged()?;
    let mut platforms = Vec::new();
    let record = state::build_record(ctx, &stage.staging, &index.digest)?;
    let (seconds, built) = record.map_or((None, Vec::new()), |record| (Some(record.seconds), record.built));
    for platform in &ctx.platforms {
        let digest = index.platform(*platform).context("a complete index lacks a platform")?;
        let image = ctx.registry.manifest(&ctx.runner, &stage.staging, digest)?;
        let verdict = state::verdict(ctx, stage, *platform)?.context("an untested image")?;
        platforms.push(PlatformRecord {
            platform: *platform,
            digest: digest.to_string(),
            bytes: image.context("an index without its image")?.layer_bytes(),
            smoke_seconds: verdict.seconds,
            smoke_emulated: verdict.emulated,
            built: built.iter().find(|it| it.platform == *platform).cloned(),
            suite: verdict.suite,
        });
    }
    Ok(VariantRecord {
        name: stage.variant.name.clone(),
        version_tag: stage.variant.version_tag(release),
        latest_tag: stage.variant.latest_tag(),
        key: stage.key.to_string(),
        digest: index.digest.to_string(),
        build_seconds: seconds,
        platforms,
    })
}

/// The record of a release; `None` if it was never begun.
pub fn read(ctx: &Ctx, repository: &Repository, release: ReleaseTag) -> Result<Option<Record>> {
    let Some(record) = stored(ctx, repository, release)? else { return Ok(None) };
    let name = || state::staging(ctx, repository).tag(&tag(release));
    record.map(Some).with_context(|| {
        format!(
            "{} is not a release record: run `cargo xtask publish --release-tag {release}` from its commit to write it again",
            name()
        )
    })
}

/// True if the record of a release is there and can be read.
pub fn is_stored(ctx: &Ctx, repository: &Repository, release: ReleaseTag) -> Result<bool> {
    Ok(stored(ctx, repository, release)?.flatten().is_some())
}

/// What is under the tag of a record: nothing, or a record if it can be read.
fn stored(ctx: &Ctx, repository: &Repository, release: ReleaseTag) -> Result<Option<Option<Record>>> {
    let staging = state::staging(ctx, repository);
    let manifest = ctx.registry.manifest(&ctx.runner, &staging, &tag(release))?;
    let parse = |manifest| serde_json::from_value(registry::document_of(&manifest)?).ok();
    Ok(manifest.map(parse))
}
