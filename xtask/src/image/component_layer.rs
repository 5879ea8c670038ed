//! Proves that the layer of a component holds nothing but the files that `images/devbox.toml` gives to that component, and
//! removes nothing below it. No two components have a path in common and the base leaves them free, so what a check found
//! out about a layer holds in every variant that has it. Refuses a layer that it cannot read.

use std::collections::BTreeSet;
use std::io::{Cursor, Read};

use anyhow::{Context as _, Result, bail};

use crate::model::layers::{Entry, facts_file, foreign_entry};
use crate::model::oci::{Digest, Manifest};
use crate::model::reference::Repository;
use crate::tools::crane;
use crate::tools::registry::{DOCUMENT_LIMIT, Registry};
use crate::tools::runner::Runner;

/// The layer of a component in an image that has it.
pub struct ComponentLayer<'a> {
    pub component: &'a str,
    pub image: Manifest,
    pub digest: &'a str,
    /// What it may hold.
    pub paths: &'a [String],
}

impl ComponentLayer<'_> {
    /// What is wrong with it; nothing if it holds its own files only.
    pub fn problem(
        &self,
        registry: &Registry,
        runner: &Runner,
        staging: &Repository,
    ) -> Result<Option<String>> {
        let tar = open(registry, runner, staging, &self.image, self.digest)?;
        first_problem(tar, self.component, self.paths)
            .with_context(|| format!("cannot read {staging}@{}", self.digest))
    }
}

/// The archive of a layer of an image.
pub fn open(
    registry: &Registry,
    runner: &Runner,
    repository: &Repository,
    image: &Manifest,
    digest: &str,
) -> Result<Box<dyn Read>> {
    let layer: Digest = digest.parse().map_err(|why: String| anyhow::anyhow!(why))?;
    let descriptor = image.as_image().into_iter().flat_map(|image| image.layers());
    let descriptor = descriptor.into_iter().find(|it| it.digest().as_ref() == &*layer);
    let descriptor = descriptor.context("an image without its layer")?;
    let media_type = descriptor.media_type().to_string();
    let name = || format!("cannot read {}", repository.digest(&layer));
    // crane is for the large ones: it asks three times before it reads.
    let bytes = match descriptor.size() <= DOCUMENT_LIMIT {
        true => registry.small_blob(runner, repository, &layer)?,
        false => large_blob(runner, repository, &layer).with_context(name)?,
    };
    unpacked(Cursor::new(bytes), &media_type).with_context(name)
}

fn large_blob(runner: &Runner, repository: &Repository, layer: &Digest) -> Result<Vec<u8>> {
    let bytes = runner.read_bytes(&crane::blob(&repository.digest(layer)))?;
    match Digest::of(&bytes) == *layer {
        true => Ok(bytes),
        false => bail!("it came with other bytes than its digest says"),
    }
}

/// The archive of a layer of this media type (image-spec, "Layer").
fn unpacked<'a>(bytes: impl Read + 'a, media_type: &str) -> Result<Box<dyn Read + 'a>> {
    Ok(match media_type.rsplit(['+', '.']).next() {
        Some("zstd") => Box::new(zstd::Decoder::new(bytes)?),
        Some("gzip") => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Some("tar") => Box::new(bytes),
        _ => bail!("it is of the unknown type {media_type}"),
    })
}

fn first_problem(tar: impl Read, component: &str, paths: &[String]) -> Result<Option<String>> {
    let mut archive = tar::Archive::new(tar);
    let mut seen = BTreeSet::new();
    for entry in archive.entries()? {
        let entry = entry?;
        let (header, kind) = (entry.header(), entry.header().entry_type());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let link = entry.link_name_bytes().map(|link| text(&link));
        let folder = match kind.is_dir() {
            true => Some((header.mode()? & 0o7777, header.uid()?, header.gid()?)),
            false => None,
        };
        let entry = Entry {
            path: text(&entry.path_bytes()),
            folder,
            hard_link: link.filter(|_| kind.is_hard_link()),
        };
        if let Some(why) = foreign_entry(&entry, component, paths) {
            return Ok(Some(why));
        }
        seen.insert(entry.path.trim_start_matches("./").to_owned());
    }
    let own = facts_file(component);
    Ok((!seen.contains(&own)).then(|| format!("has no /{own}, so it is not the layer of {component}")))
}
