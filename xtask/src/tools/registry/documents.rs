//! Small JSON documents in a registry: what was tested, built and promoted. Each is an OCI artifact whose manifest holds
//! the document as an annotation (image-spec, "Guidelines for Artifact Usage"), under a tag or as a referrer of an image
//! (distribution-spec, "Listing Referrers"). A manifest is written in one request, so a document is there whole or not at
//! all.
//!
//! A document is always read from its own manifest by digest, never from a listing: an account that may write the listing must
//! not be able to change what an artifact says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use crate::model::dsse::{self, Attachment, Carried, PREDICATE};
use crate::model::oci::{Content, Digest, EMPTY, INDEX, MANIFEST, Manifest, Subject};
use crate::model::reference::Repository;
use crate::output;
use crate::tools::cosign::PublicKey;
use crate::tools::http::header;
use crate::tools::runner::Runner;

use super::{Registry, is_final};

/// The annotation that holds the document.
const DOCUMENT: &str = "opencode-devbox.document";

/// The annotation that holds the signature of the document, over its kind and text as DSSE has it.
const SIGNATURE: &str = "opencode-devbox.signature";

/// Further annotations of an artifact.
pub type Labels = BTreeMap<String, String>;

/// Where a document is stored.
pub enum Place<'a> {
    Tag(&'a str),
    /// As a referrer of an image.
    Referrer(&'a Subject),
    /// As a referrer of an image, with tags that lead to it.
    Tagged(&'a Subject, &'a BTreeSet<String>),
}

/// What is attached to an image.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// Digests of all artifacts that refer to the image.
    pub all: BTreeSet<String>,
    /// The statements that were asked for.
    pub statements: Vec<Carried>,
}

impl<'a> Place<'a> {
    fn subject(&self) -> Option<&'a Subject> {
        match self {
            Self::Tag(_) => None,
            Self::Referrer(subject) | Self::Tagged(subject, _) => Some(subject),
        }
    }
}

impl Registry {
    /// Stores a document. `labels` become further annotations. Returns the artifact's digest.
    pub fn put_document(
        &self,
        runner: &Runner,
        repository: &Repository,
        place: &Place<'_>,
        kind: &str,
        labels: &Labels,
        document: &Value,
    ) -> Result<Digest> {
        let artifact = artifact(place, kind, labels, document)?;
        if runner.dry_run {
            let name = match place {
                Place::Tag(tag) => tag,
                Place::Referrer(subject) | Place::Tagged(subject, _) => &*subject.digest,
            };
            output::line(format!("# store {kind} for {name} in {repository}"));
            return Ok(artifact.digest);
        }
        self.put_empty_blob(runner, repository)?;
        match place {
            Place::Tag(tag) => {
                self.put_manifest(runner, repository, tag, &artifact)?;
            }
            Place::Referrer(subject) => {
                self.put_referrer(runner, repository, subject, kind, &artifact, None)?;
            }
            Place::Tagged(subject, tags) => {
                // A request with a tag stores the document as well. A registry whose tags never move refuses one that exists.
                let mut tags = tags.iter().map(String::as_str);
                let first = tags.next();
                let stored = self.put_referrer(runner, repository, subject, kind, &artifact, first);
                if first.is_none() || stored.as_ref().is_err_and(|error| !is_final(error)) {
                    stored?;
                } else if stored.is_err() {
                    self.put_referrer(runner, repository, subject, kind, &artifact, None)?;
                }
                for tag in tags {
                    match self.put_manifest(runner, repository, tag, &artifact) {
                        Err(error) if !is_final(&error) => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(artifact.digest)
    }

    /// Stores an artifact that refers to an image, under a tag or its digest only.
    fn put_referrer(
        &self,
        runner: &Runner,
        repository: &Repository,
        subject: &Subject,
        kind: &str,
        artifact: &Manifest,
        tag: Option<&str>,
    ) -> Result<()> {
        let response = self.put_manifest(runner, repository, tag.unwrap_or(&artifact.digest), artifact)?;
        match header(&response, "oci-subject") {
            Some(_) => Ok(()),
            None => {
                // The next writer adds to what it reads.
                let listing = self.list_referrers(runner, repository, subject, kind, &[artifact])?;
                self.await_tag(runner, repository, &fallback_tag(&subject.digest), &listing)
            }
        }
    }

    /// Attaches bundles to an image, in their order: whoever sees one sees those before it.
    pub fn attach(
        &self,
        runner: &Runner,
        repository: &Repository,
        subject: &Subject,
        attachments: &[Attachment],
    ) -> Result<()> {
        self.put_empty_blob(runner, repository)?;
        let mut unlisted = Vec::new();
        for Attachment { artifact, blob } in attachments {
            // The images of one index share a statement.
            let name = repository.digest(&Digest::of(blob));
            if !self.known().linked.contains(&name) {
                self.put_blob(runner, repository, blob)?;
                self.known().linked.insert(name);
            }
            let response = self.put_manifest(runner, repository, &artifact.digest, artifact)?;
            if header(&response, "oci-subject").is_none() {
                unlisted.push(artifact);
            }
        }
        match unlisted.is_empty() {
            true => Ok(()),
            false => self.list_referrers(runner, repository, subject, dsse::BUNDLE, &unlisted).map(drop),
        }
    }

    /// The statements that are attached to an image, those with one predicate if it is given, and everything that is attached.
    pub fn attached(
        &self,
        runner: &Runner,
        repository: &Repository,
        image: &str,
        predicate: Option<&str>,
    ) -> Result<Attached> {
        let mut listed = self.listed(runner, repository, image)?;
        let all = listed.iter().filter_map(|entry| entry["digest"].as_str().map(str::to_owned)).collect();
        // A listing without annotations says nothing of the predicate, so the artifact does.
        let is_other = |named: &str| predicate.is_some_and(|wanted| wanted != named);
        listed.retain(|entry| !entry["annotations"][PREDICATE].as_str().is_some_and(is_other));
        let mut statements = Vec::new();
        for artifact in self.of_kind(runner, repository, image, dsse::BUNDLE, &listed)? {
            if artifact.annotation(PREDICATE).is_some_and(is_other) {
                continue;
            }
            for (blob, _) in artifact.layers() {
                statements.extend(Carried::of(&artifact.digest, &self.blob(runner, repository, &blob)?));
            }
        }
        Ok(Attached { all, statements })
    }

    /// The artifact that a tag leads to, with the digest of the image that it refers to.
    pub fn tagged(
        &self,
        runner: &Runner,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<(Manifest, Digest)>> {
        let Some(manifest) = self.manifest(runner, repository, tag)? else { return Ok(None) };
        let subject = manifest.as_image().and_then(|image| image.subject().clone());
        let found = subject.and_then(|it| it.digest().as_ref().parse().ok()).map(|it| (manifest, it));
        if found.is_some() {
            // What refers to the blob `{}` cannot be there without it.
            self.known().with_empty_blob.insert(repository.to_string());
        }
        Ok(found)
    }

    /// The document under a tag or digest.
    pub fn document(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Value>> {
        let found = self.documents(runner, repository, &[reference.to_owned()])?;
        Ok(found.into_iter().next().flatten())
    }

    /// The documents under tags or digests, in their order.
    pub fn documents(
        &self,
        runner: &Runner,
        repository: &Repository,
        references: &[String],
    ) -> Result<Vec<Option<Value>>> {
        let manifests = self.manifests(runner, repository, references)?;
        let read = |(reference, manifest): (&String, Option<Manifest>)| {
            let Some(manifest) = manifest else { return Ok(None) };
            let document = document_of(&manifest);
            let name = || format!("{} holds no document of this pipeline", repository.tag(reference));
            document.map(Some).with_context(name)
        };
        references.iter().zip(manifests).map(read).collect()
    }

    /// Documents of a kind that refer to an image, in the order of the listing.
    pub fn referrers(
        &self,
        runner: &Runner,
        repository: &Repository,
        image: &str,
        kind: &str,
    ) -> Result<Vec<Value>> {
        let artifacts = self.artifacts(runner, repository, image, kind)?;
        Ok(artifacts.iter().filter_map(document_of).collect())
    }

    /// Artifacts of a kind that refer to an image, in the order of the listing.
    pub fn artifacts(
        &self,
        runner: &Runner,
        repository: &Repository,
        image: &str,
        kind: &str,
    ) -> Result<Vec<Manifest>> {
        let listed = self.listed(runner, repository, image)?;
        self.of_kind(runner, repository, image, kind, &listed)
    }

    /// Artifacts of a kind that refer to an image, among those of a listing.
    fn of_kind(
        &self,
        runner: &Runner,
        repository: &Repository,
        image: &str,
        kind: &str,
        listed: &[Value],
    ) -> Result<Vec<Manifest>> {
        let ours: Vec<String> = listed
            .iter()
            // cosign lists what it attaches as empty where a registry has no referrers API.
            .filter(|entry| entry["artifactType"] == kind || entry["artifactType"] == EMPTY)
            .filter_map(|entry| entry["digest"].as_str().map(str::to_owned))
            .collect();
        let artifacts = self.manifests(runner, repository, &ours)?;
        let refers = |artifact: &Manifest| {
            let manifest = artifact.as_image()?;
            let subject = manifest.subject().as_ref()?;
            let fits = subject.digest().as_ref() == image
                && manifest.artifact_type().as_ref().is_some_and(|it| it.to_string() == kind);
            fits.then_some(())
        };
        Ok(artifacts.into_iter().flatten().filter(|artifact| refers(artifact).is_some()).collect())
    }

    /// Descriptors of what refers to an image, from the API and from the referrers tag: a registry whose API is younger
    /// than an artifact, or that does not take notice of subjects, has it under the tag only.
    pub(super) fn listed(&self, runner: &Runner, repository: &Repository, image: &str) -> Result<Vec<Value>> {
        let mut entries = self.referrers_api(runner, repository, image)?;
        for entry in self.referrers_tag(runner, repository, image)? {
            if !entries.iter().any(|known| known["digest"] == entry["digest"]) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// What the referrers API lists. An answer that is no image index means that the registry has no such API.
    fn referrers_api(&self, runner: &Runner, repository: &Repository, image: &str) -> Result<Vec<Value>> {
        if self.without_referrers(repository) {
            return Ok(Vec::new());
        }
        let mut url = format!("{}/v2/{}/referrers/{image}", self.api(repository), repository.path());
        let (mut entries, mut seen) = (Vec::new(), vec![url.clone()]);
        loop {
            let response = self.get(runner, repository, &url)?;
            let status = response.status().as_u16();
            if status == 429 || (500..=599).contains(&status) && status != 501 {
                bail!("cannot list what refers to {image} in {repository}: HTTP {status}");
            }
            let page = serde_json::from_slice::<Value>(response.body()).ok().filter(|_| status == 200);
            let Some(page) = page.as_ref().and_then(|page| page["manifests"].as_array()) else {
                self.note_without_referrers(repository);
                return Ok(entries);
            };
            entries.extend(page.iter().cloned());
            match self.follow(repository, &response, &mut seen)? {
                Some(next) => url = next,
                None => return Ok(entries),
            }
        }
    }

    /// What the referrers tag of an image lists (distribution-spec, "Referrers Tag Schema").
    fn referrers_tag(&self, runner: &Runner, repository: &Repository, image: &str) -> Result<Vec<Value>> {
        let Some(index) = self.manifest(runner, repository, &fallback_tag(image))? else {
            return Ok(Vec::new());
        };
        match &index.content {
            Content::Index(_) => {
                let value: Value = serde_json::from_slice(&index.bytes)?;
                Ok(value["manifests"].as_array().cloned().unwrap_or_default())
            }
            Content::Image(_) => Ok(Vec::new()),
        }
    }

    /// Adds artifacts to the referrers tag of an image. Returns the digest of the listing.
    fn list_referrers(
        &self,
        runner: &Runner,
        repository: &Repository,
        subject: &Subject,
        kind: &str,
        artifacts: &[&Manifest],
    ) -> Result<Digest> {
        let tag = fallback_tag(&subject.digest);
        let mut entries = self.referrers_tag(runner, repository, &subject.digest)?;
        for artifact in artifacts {
            entries.retain(|other| other["digest"] != *artifact.digest);
            let mut entry = json!(artifact.subject());
            entry["artifactType"] = kind.into();
            if let Some(predicate) = artifact.annotation(PREDICATE) {
                entry["annotations"] = json!({ PREDICATE: predicate });
            }
            entries.push(entry);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        let index = parse(serde_json::to_vec(&index)?)?;
        self.put_manifest(runner, repository, &tag, &index)?;
        Ok(index.digest)
    }
}

fn artifact(
    place: &Place<'_>,
    kind: &str,
    labels: &BTreeMap<String, String>,
    document: &Value,
) -> Result<Manifest> {
    let empty = json!({ "mediaType": EMPTY, "digest": Digest::of(b"{}"), "size": 2 });
    let mut annotations = labels.clone();
    annotations.insert(DOCUMENT.to_owned(), document.to_string());
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
        "config": empty, "layers": [empty], "annotations": annotations });
    if let Some(subject) = place.subject() {
        manifest["subject"] = json!(subject);
    }
    parse(serde_json::to_vec(&manifest)?)
}

fn parse(bytes: Vec<u8>) -> Result<Manifest> {
    Manifest::parse(bytes).map_err(|why| anyhow::anyhow!("a manifest of this pipeline {why}"))
}

/// The document that a manifest holds, if it is an artifact of this pipeline.
pub fn document_of(manifest: &Manifest) -> Option<Value> {
    serde_json::from_str(manifest.annotation(DOCUMENT)?).ok()
}

/// The annotation that holds the signature of a document.
pub fn signature_label(signature: &[u8]) -> (String, String) {
    (SIGNATURE.to_owned(), BASE64.encode(signature))
}

/// The document that a manifest holds, if this key has signed it as one of the kind that the manifest says.
pub fn signed_document(manifest: &Manifest, key: &PublicKey) -> Option<Value> {
    let kind = manifest.as_image()?.artifact_type().as_ref()?.to_string();
    let text = manifest.annotation(DOCUMENT)?;
    let signature = BASE64.decode(manifest.annotation(SIGNATURE)?).ok()?;
    let is_signed = key.verifies(&dsse::pae(&kind, text.as_bytes()), &signature);
    is_signed.then(|| serde_json::from_str(text).ok()).flatten()
}

/// The tag under which a registry without the referrers API lists what refers to an image.
pub fn fallback_tag(image: &str) -> String {
    image.replace(':', "-")
}
