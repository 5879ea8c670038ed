//! Makes an image of one repository available in another of the same registry: its blobs are mounted (distribution-spec,
//! "Mounting a blob from another repository") and its manifests stored under their digests. No layer and no tag moves.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::model::oci::{Content, Digest, Manifest};
use crate::model::reference::Repository;
use crate::tools::parallel::side_by_side;
use crate::tools::runner::Runner;

use super::write::PUSH;
use super::{Refused, Registry, authorized};

impl Registry {
    /// Links an image into `to`. False if the registry declines, as it may do with any mount: `crane copy` then moves the
    /// bytes that are missing.
    pub fn link(&self, runner: &Runner, from: &Repository, to: &Repository, image: &Digest) -> Result<bool> {
        if from.host() != to.host() {
            return Ok(false);
        }
        if self.has(runner, to, image)? {
            return Ok(true);
        }
        let Some((index, images)) = self.parts(runner, from, image)? else { return Ok(false) };
        match self.link_parts(runner, from, to, &index, &images) {
            Err(error) if error.is::<Refused>() => Ok(false),
            linked => linked,
        }
    }

    /// Notes that a repository has an image, and with it all blobs of that.
    pub fn note_blobs(&self, runner: &Runner, repository: &Repository, image: &Digest) -> Result<()> {
        let Some((index, images)) = self.parts(runner, repository, image)? else { return Ok(()) };
        self.known().linked.extend(blobs(&index, &images).iter().map(|blob| repository.digest(blob)));
        Ok(())
    }

    /// An index and the images that it names; `None` unless all of them are there.
    fn parts(
        &self,
        runner: &Runner,
        repository: &Repository,
        image: &Digest,
    ) -> Result<Option<(Manifest, Vec<Manifest>)>> {
        let Some(manifest) = self.manifest(runner, repository, image)? else { return Ok(None) };
        let Content::Index(index) = &manifest.content else { return Ok(Some((manifest, Vec::new()))) };
        let names: Vec<&str> = index.manifests().iter().map(|entry| entry.digest().as_ref()).collect();
        let images: Option<Vec<_>> = self.manifests(runner, repository, &names)?.into_iter().collect();
        Ok(images.map(|images| (manifest, images)))
    }

    fn link_parts(
        &self,
        runner: &Runner,
        from: &Repository,
        to: &Repository,
        index: &Manifest,
        images: &[Manifest],
    ) -> Result<bool> {
        let mut blobs = blobs(index, images);
        // Variants share the layers of the base.
        blobs.retain(|blob| !self.known().linked.contains(&to.digest(blob)));
        let blobs: Vec<String> = blobs.into_iter().collect();
        self.authorize(runner, to)?;
        let mounted = side_by_side(&blobs, |blob| self.mount(runner, from, to, blob))?;
        if mounted.contains(&false) {
            return Ok(false);
        }
        self.known().linked.extend(blobs.iter().map(|blob| to.digest(blob)));
        side_by_side(images, |image| self.put_manifest(runner, to, &image.digest, image))?;
        self.put_manifest(runner, to, &index.digest, index)?;
        Ok(true)
    }

    /// Makes sure that a repository has a blob of another one: a mount of one that it has changes nothing. False if the registry wants an upload instead.
    fn mount(&self, runner: &Runner, from: &Repository, to: &Repository, blob: &str) -> Result<bool> {
        let blobs = format!("{}/v2/{}/blobs", self.api(to), to.path());
        // A token for this has to read the one repository and to write the other.
        let action = format!("{PUSH} repository:{}:pull", from.path());
        let url = format!("{blobs}/uploads/");
        let answer = self.send(runner, to, &action, |agent, auth| {
            let request = agent.post(&url).query("mount", blob).query("from", from.path());
            authorized(request, auth).send_empty()
        })?;
        if answer.status() == 202 {
            self.cancel_upload(runner, to, &answer);
        }
        Ok(answer.status() == 201)
    }
}

/// The blobs of an index's images, or of the one image that it is.
fn blobs(index: &Manifest, images: &[Manifest]) -> BTreeSet<String> {
    let images = images.iter().chain([index]).filter_map(Manifest::as_image);
    let of_image = images.flat_map(|image| image.layers().iter().chain([image.config()]).collect::<Vec<_>>());
    of_image.map(|blob| blob.digest().to_string()).collect()
}
