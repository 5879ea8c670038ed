//! Which release comes next, and which release a floating tag is at. Both are answered by public tags alone.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::error::missing;
use crate::model::changelog::Changelog;
use crate::model::config::Variant;
use crate::model::oci::Digest;
use crate::model::promotion::Standing;
use crate::model::reference::Repository;
use crate::model::version::{ReleaseTag, Version};
use crate::tools::git;

/// How many releases are compared with a floating tag, the newest first. A tag that is older than all of them counts as
/// at no release.
const COMPARED: usize = 64;

/// How many of them are asked for at once.
const BATCH: usize = 8;

/// The first free release tag of an opencode version: neither git nor the registry may know it. An unclear answer of the
/// registry is an error, as is a full alphabet.
pub fn next(ctx: &Context, version: Version) -> Result<ReleaseTag> {
    let repository = ctx.repository()?;
    let is_free = |release: ReleaseTag| {
        let taken =
            git::has_tag(&ctx.runner, &release.to_string())? || is_published(ctx, &repository, release)?;
        Ok((!taken).then_some(()))
    };
    first(version, is_free).map(|(release, ())| release)
}

/// The first release of a version of which no variant is published.
pub fn unpublished(ctx: &Context, repository: &Repository, version: Version) -> Result<ReleaseTag> {
    let is_free = |release| Ok((!is_published(ctx, repository, release)?).then_some(()));
    first(version, is_free).map(|(release, ())| release)
}

/// The first release of a version, from its first letter to its last, that `look` takes.
pub fn first<T>(
    version: Version,
    mut look: impl FnMut(ReleaseTag) -> Result<Option<T>>,
) -> Result<(ReleaseTag, T)> {
    let mut candidate = Some(ReleaseTag::first(version));
    while let Some(release) = candidate {
        if let Some(found) = look(release)? {
            return Ok((release, found));
        }
        candidate = release.next();
    }
    bail!(
        "all releases of {version} from v{version} to v{version}z are taken: run `cargo xtask bump-opencode latest`"
    )
}

/// True if a variant of this tree is published under its version tag of a release.
fn is_published(ctx: &Context, repository: &Repository, release: ReleaseTag) -> Result<bool> {
    let tags: Vec<String> = ctx.config.variant.iter().map(|variant| variant.version_tag(release)).collect();
    Ok(ctx.registry.digests(&ctx.runner, repository, &tags)?.iter().any(Option::is_some))
}

/// True if the newest entry of a changelog is of a release that is not published, so that the entry may still change.
///
/// A clone may be without the tags of its releases, so the registry is asked as well. Where that gives no clear answer, the
/// entry counts as published: a published one must not change, and a second one does no harm.
pub fn newest_is_open(ctx: &Context, log: &Changelog) -> Result<bool> {
    let Some(newest) = log.newest() else { return Ok(false) };
    if git::has_tag(&ctx.runner, &newest.to_string())? {
        return Ok(false);
    }
    if git::is_shallow(&ctx.runner)? {
        return Err(missing(format!(
            "this clone is shallow and may be without the tag {newest}: run `git fetch --unshallow --tags`"
        )));
    }
    match ctx.repository().and_then(|repository| is_published(ctx, &repository, newest)) {
        Ok(is_published) => Ok(!is_published),
        Err(error) => {
            ctx.say(format!(
                "whether {newest} is published is unknown, so its entry stays as it is: {error:#}"
            ));
            Ok(false)
        }
    }
}

/// The floating tags of a repository: those of the variants, and those that no variant has any more.
pub struct Floating {
    /// The release that the floating tag of each variant is at, by tag; nothing where it is at none that is known.
    pub releases: BTreeMap<String, Option<ReleaseTag>>,
    /// Published floating tags that no variant of this tree has.
    pub left_over: Vec<String>,
    /// Floating tags of this tree that are not published yet.
    pub added: Vec<String>,
}

impl Floating {
    /// The newest release that a floating tag is at.
    pub fn newest(&self) -> Option<ReleaseTag> {
        self.releases.values().flatten().max().copied()
    }

    /// True if the floating tags are at more than one release.
    pub fn is_mixed(&self) -> bool {
        let mut releases = self.releases.values();
        let first = releases.next();
        releases.any(|release| Some(release) != first)
    }
}

/// Reads where the floating tags of the variants are.
pub fn floating(ctx: &Context, repository: &Repository) -> Result<Floating> {
    let own: Vec<String> = ctx.config.variant.iter().map(Variant::latest_tag).collect();
    let digests = ctx.registry.digests(&ctx.runner, repository, &own)?;
    floating_at(ctx, repository, &own.into_iter().zip(digests).collect())
}

/// The same for floating tags that were read a moment ago.
pub fn floating_at(ctx: &Context, repository: &Repository, standing: &Standing) -> Result<Floating> {
    let tags = ctx.registry.tags(&ctx.runner, repository)?;
    let own: Vec<String> = ctx.config.variant.iter().map(Variant::latest_tag).collect();
    let is_floating = |tag: &&String| *tag == "latest" || tag.starts_with("latest-");
    let left_over = tags.iter().filter(is_floating).filter(|tag| !own.contains(tag)).cloned().collect();
    let absent = |tag: &&String| standing.get(*tag).is_some_and(Option::is_none);
    let added = own.iter().filter(absent).cloned().collect();
    Ok(Floating { releases: releases(ctx, repository, &tags, standing)?, left_over, added })
}

/// The release of each floating tag that exists: the newest whose version tag points at the same image.
fn releases(
    ctx: &Context,
    repository: &Repository,
    tags: &[String],
    standing: &Standing,
) -> Result<BTreeMap<String, Option<ReleaseTag>>> {
    // No variant needs to have the empty suffix.
    let of_variant =
        |tag: &String, variant: &Variant| tag.strip_suffix(&variant.suffix).and_then(|it| it.parse().ok());
    let named = |tag| ctx.config.variant.iter().filter_map(move |variant| of_variant(tag, variant));
    let mut releases: Vec<ReleaseTag> = tags.iter().flat_map(named).collect();
    releases.sort();
    releases.dedup();
    releases.reverse();
    releases.truncate(COMPARED);
    let mut found = BTreeMap::new();
    for variant in &ctx.config.variant {
        let tag = variant.latest_tag();
        let Some(Some(digest)) = standing.get(&tag) else { continue };
        found.insert(tag, release_of(ctx, repository, variant, digest, &releases)?);
    }
    Ok(found)
}

fn release_of(
    ctx: &Context,
    repository: &Repository,
    variant: &Variant,
    digest: &Digest,
    releases: &[ReleaseTag],
) -> Result<Option<ReleaseTag>> {
    for batch in releases.chunks(BATCH) {
        let tags: Vec<String> = batch.iter().map(|release| variant.version_tag(*release)).collect();
        // A version tag never moves, so one that was seen needs no second look.
        let digests = ctx.registry.fixed_digests(&ctx.runner, repository, &tags)?;
        let at = digests.iter().position(|known| known.as_ref() == Some(digest));
        if let Some(index) = at {
            return Ok(Some(batch[index]));
        }
    }
    Ok(None)
}
