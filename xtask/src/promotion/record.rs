//! The record of a release in the staging repository: what it is made of, written before its first public tag.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::missing;
use crate::image::base::BuiltBase;
use crate::image::build_record;
use crate::image::builders::Built;
use crate::image::tree::Tree;
use crate::image::verdict::TestedVariant;
use crate::model::oci::Digest;
use crate::model::platform::Platform;
use crate::model::promotion::Promotion;
use crate::model::reference::Repository;
use crate::model::verdict::CheckVerdict;
use crate::model::version::ReleaseTag;
use crate::tools::http::Sent;
use crate::tools::process;
use crate::tools::registry::{self, Place};

/// What the tag of a record begins with.
pub const TAG: &str = "release-";

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
    /// When it was built, in seconds since 1970, where that was recorded.
    #[serde(default)]
    pub built_at: Option<u64>,
    /// The node that built each platform, where that was recorded.
    #[serde(default)]
    pub built: Vec<Built>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VariantRecord {
    pub name: String,
    pub version_tag: String,
    pub latest_tag: String,
    pub key: String,
    pub digest: String,
    /// Time and disk of its build, which other variants of the same bake share.
    #[serde(default)]
    pub build_seconds: Option<u64>,
    /// When it was built, in seconds since 1970, where that was recorded.
    #[serde(default)]
    pub built_at: Option<u64>,
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
    /// The verdict on each check, with the image that it ran on.
    #[serde(default)]
    pub checks: Vec<CheckVerdict>,
}

/// What the run took that made a release.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub release: ReleaseTag,
    /// Seconds of each phase, in their order.
    pub phases: Vec<(String, f64)>,
    /// Requests by host, without those of docker and crane.
    pub requests: BTreeMap<String, Sent>,
}

const RUN: &str = "application/vnd.opencode-devbox.run.v1+json";

/// Stores what the run of a release took, beside its first image.
pub fn write_run(ctx: &Context, tested: &[TestedVariant<'_>], run: &Run) -> Result<()> {
    let Some(first) = tested.first() else { return Ok(()) };
    let (subject, document) = (first.index.subject(), serde_json::to_value(run)?);
    let place = Place::Referrer(&subject);
    ctx.registry.put_document(&ctx.runner, &first.staging, &place, RUN, &BTreeMap::new(), &document).map(drop)
}

/// What the run of a release took, where one command did all of it.
pub fn run_of(ctx: &Context, staging: &Repository, record: &Record) -> Result<Option<Run>> {
    let Some(first) = record.variants.first() else { return Ok(None) };
    let found = ctx.registry.referrers(&ctx.runner, staging, &first.digest, RUN)?;
    let mut runs = found.into_iter().filter_map(|document| serde_json::from_value::<Run>(document).ok());
    Ok(runs.rfind(|run| run.release == record.release))
}

fn tag(release: ReleaseTag) -> String {
    format!("{TAG}{release}")
}

/// Stores the record of a release, unless the same images are recorded under its name already. Returns what is stored.
pub fn ensure(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    tested: &[TestedVariant<'_>],
    promotion: &Promotion,
    release: ReleaseTag,
    latest_before: Option<ReleaseTag>,
) -> Result<Record> {
    // A record that is damaged is written again.
    let images = |record: &Record| record.variants.iter().map(|it| it.digest.clone()).collect::<Vec<_>>();
    let own: Vec<String> = tested.iter().map(|it| it.index.digest.to_string()).collect();
    let is_same = |record: &Record| record.base.digest == *base.index.digest && images(record) == own;
    if let Some(known) = signed(ctx, &base.repository, release)?.filter(is_same) {
        return Ok(known);
    }
    let build = build_record::read(ctx, &ctx.staging(&base.repository), &base.index.digest)?;
    let record = Record {
        release,
        at: process::now(),
        revision: tree.commit.as_ref().map(|commit| commit.revision.clone()),
        base: BaseRecord {
            tag: base.tag.clone(),
            digest: base.index.digest.to_string(),
            build_seconds: build.as_ref().map(|record| record.seconds),
            built_at: build.as_ref().and_then(|record| record.at),
            built: build.map_or_else(Vec::new, |record| record.built),
        },
        variants: tested.iter().map(|it| variant(ctx, it, release)).collect::<Result<_>>()?,
        versions: ctx.versions()?.into_iter().collect(),
        before: promotion.floating().map(|it| (it.tag.clone(), it.from.clone())).collect(),
        latest_before,
    };
    let document = serde_json::to_value(&record)?;
    let (staging, tag) = (ctx.staging(&base.repository), tag(release));
    let place = Place::Tag(&tag);
    let labels = ctx.sign(KIND, &document)?;
    ctx.registry.put_document(&ctx.runner, &staging, &place, KIND, &labels, &document)?;
    Ok(record)
}

fn variant(ctx: &Context, tested: &TestedVariant<'_>, release: ReleaseTag) -> Result<VariantRecord> {
    let mut platforms = Vec::new();
    let record = build_record::read(ctx, &tested.staging, &tested.index.digest)?;
    let (seconds, built_at) =
        (record.as_ref().map(|record| record.seconds), record.as_ref().and_then(|record| record.at));
    let built = record.map_or_else(Vec::new, |record| record.built);
    for (platform, digest) in tested.index.images() {
        let image = ctx.registry.manifest(&ctx.runner, &tested.staging, digest)?;
        let verdict = tested.verdicts.get(&platform).context("an untested image")?;
        platforms.push(PlatformRecord {
            platform,
            digest: digest.to_string(),
            bytes: image.context("an index without its image")?.layer_bytes(),
            smoke_seconds: verdict.seconds,
            smoke_emulated: verdict.emulated,
            built: built.iter().find(|it| it.platform == platform).cloned(),
            checks: verdict.checks.clone(),
        });
    }
    Ok(VariantRecord {
        name: tested.variant.name.clone(),
        version_tag: tested.variant.version_tag(release),
        latest_tag: tested.variant.latest_tag(),
        key: tested.inputs.key().to_string(),
        digest: tested.index.digest.to_string(),
        build_seconds: seconds,
        built_at,
        platforms,
    })
}

/// The record of a release; `None` if it was never begun.
pub fn read(ctx: &Context, repository: &Repository, release: ReleaseTag) -> Result<Option<Record>> {
    let Some(record) = stored(ctx, repository, release)? else { return Ok(None) };
    let name = || ctx.staging(repository).tag(&tag(release));
    record.map(Some).with_context(|| {
        format!(
            "{} is not a release record: run `cargo xtask publish --release-tag {release}` from its commit to write it again",
            name()
        )
    })
}

/// The record of a release that tags may be moved by: one that the trusted key has signed. `None` if it was never begun.
pub fn read_signed(ctx: &Context, repository: &Repository, release: ReleaseTag) -> Result<Option<Record>> {
    if let Some(record) = signed(ctx, repository, release)? {
        return Ok(Some(record));
    }
    let Some(_) = read(ctx, repository, release)? else { return Ok(None) };
    Err(missing(format!(
        "the trusted key has not signed {}: run `cargo xtask publish --release-tag {release}` from its commit to write it again",
        ctx.staging(repository).tag(&tag(release))
    )))
}

/// The record of a release, if it is there and can be read.
pub fn readable(ctx: &Context, repository: &Repository, release: ReleaseTag) -> Result<Option<Record>> {
    Ok(stored(ctx, repository, release)?.flatten())
}

/// The record of a release, if it is there, is of that release, and the trusted key has signed it.
pub fn signed(ctx: &Context, repository: &Repository, release: ReleaseTag) -> Result<Option<Record>> {
    let manifest = ctx.registry.manifest(&ctx.runner, &ctx.staging(repository), &tag(release))?;
    let Some((manifest, trusted)) = manifest.zip(ctx.trusted()?) else { return Ok(None) };
    let record = registry::signed_document(&manifest, &trusted);
    let record = record.and_then(|record| serde_json::from_value::<Record>(record).ok());
    Ok(record.filter(|record| record.release == release))
}

/// What is under the tag of a record: nothing, or a record if it can be read.
fn stored(ctx: &Context, repository: &Repository, release: ReleaseTag) -> Result<Option<Option<Record>>> {
    let staging = ctx.staging(repository);
    let manifest = ctx.registry.manifest(&ctx.runner, &staging, &tag(release))?;
    let parse = |manifest| serde_json::from_value(registry::document_of(&manifest)?).ok();
    Ok(manifest.map(parse))
}
