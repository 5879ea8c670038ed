//! What this program writes to a registry itself: manifests, tags and the empty blob that artifacts refer to.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, Result};
use ureq::Agent;
use ureq::http::Response;

use crate::model::oci::{Digest, Manifest};
use crate::model::reference::Repository;
use crate::tools::http::header;
use crate::tools::runner::Runner;

use super::{Registry, authorized};

/// What a writer asks for.
pub(super) const PUSH: &str = "pull,push";

/// The configuration of every artifact (image-spec, "Guidance for an Empty Descriptor").
const EMPTY_BLOB: &[u8] = b"{}";

impl Registry {
    /// Points a tag at a manifest of the same repository. `fence` is asked right before each request that is sent, tries
    /// again included; nothing is sent once it fails.
    pub fn point_tag(
        &self,
        runner: &Runner,
        repository: &Repository,
        tag: &str,
        manifest: &Manifest,
        fence: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        self.authorize(runner, repository)?;
        let (stopped, uncertain) = (RefCell::new(None), Cell::new(false));
        let url = self.manifest_url(repository, tag);
        let sent = self.send(runner, repository, PUSH, |agent, auth| {
            if let Err(error) = fence() {
                *stopped.borrow_mut() = Some(error);
                return Err(ureq::Error::Other("stopped by its fence".into()));
            }
            let request = agent.put(&url).header("Content-Type", manifest.media_type.to_string());
            let answer = authorized(request, auth).send(&manifest.bytes[..]);
            // A try without a clear answer may have been taken, whatever the answer to a later one.
            let is_clear = answer
                .as_ref()
                .is_ok_and(|answer| !answer.status().is_server_error() && answer.status() != 408);
            uncertain.set(uncertain.get() || !is_clear);
            answer
        });
        if let Some(error) = stopped.into_inner() {
            return Err(error);
        }
        let set = self.expect(runner, repository, &format!("cannot set the tag {tag}"), 201, &sent?);
        set.map_err(|error| match uncertain.get() {
            true => anyhow::anyhow!("{error:#}; an earlier try may have been taken"),
            false => error,
        })
    }

    /// Proves that the account may push, by beginning an upload and cancelling it.
    pub fn prove_push(&self, runner: &Runner, repository: &Repository) -> Result<()> {
        let begun = self.begin_upload(runner, repository)?;
        self.cancel_upload(runner, repository, &begun);
        Ok(())
    }

    /// Cancels an upload that was begun. The registry cleans up abandoned uploads, so the answer
    /// does not matter.
    pub(super) fn cancel_upload(&self, runner: &Runner, repository: &Repository, begun: &Response<Vec<u8>>) {
        let Ok(location) = self.location(repository, begun) else { return };
        let is_own = self.is_own(repository, &location);
        let cancel = |agent: &Agent, auth: Option<&str>| {
            authorized(agent.delete(&location), auth.filter(|_| is_own)).call()
        };
        let _ = self.send(runner, repository, PUSH, cancel);
    }

    pub(super) fn put_manifest(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
        manifest: &Manifest,
    ) -> Result<Response<Vec<u8>>> {
        self.authorize(runner, repository)?;
        let url = self.manifest_url(repository, reference);
        let response = self.send(runner, repository, PUSH, |agent, auth| {
            let request = agent.put(&url).header("Content-Type", manifest.media_type.to_string());
            authorized(request, auth).send(&manifest.bytes[..])
        })?;
        self.expect(runner, repository, &format!("cannot store {reference}"), 201, &response)?;
        self.keep(runner, &manifest.digest, &manifest.bytes);
        Ok(response)
    }

    /// Makes sure that the repository has the blob `{}`, which every artifact refers to.
    pub(super) fn put_empty_blob(&self, runner: &Runner, repository: &Repository) -> Result<()> {
        let name = Digest::of(EMPTY_BLOB);
        if !self.known().with_empty_blob.insert(repository.to_string()) {
            return Ok(());
        }
        let url = format!("{}/v2/{}/blobs/{name}", self.api(repository), repository.path());
        let known =
            self.send(runner, repository, PUSH, |agent, auth| authorized(agent.head(&url), auth).call())?;
        if known.status() == 200 {
            return Ok(());
        }
        let uploaded = self.put_blob(runner, repository, EMPTY_BLOB);
        if uploaded.is_err() {
            self.known().with_empty_blob.remove(&repository.to_string());
        }
        uploaded.map(drop)
    }

    /// Uploads a blob that is new.
    pub(super) fn put_blob(&self, runner: &Runner, repository: &Repository, bytes: &[u8]) -> Result<Digest> {
        let name = Digest::of(bytes);
        // An upload that broke cannot go on, so a try is a whole upload.
        let response = self.send(runner, repository, PUSH, |agent, auth| {
            let begun = self.begin_upload(runner, repository);
            let location = begun.and_then(|begun| self.location(repository, &begun));
            let location = location.map_err(|error| ureq::Error::Other(error.into()))?;
            let joint = if location.contains('?') { '&' } else { '?' };
            let request = agent.put(format!("{location}{joint}digest={name}"));
            let auth = auth.filter(|_| self.is_own(repository, &location));
            authorized(request.header("Content-Type", "application/octet-stream"), auth).send(bytes)
        })?;
        self.expect(runner, repository, "cannot upload a blob", 201, &response)?;
        self.keep(runner, &name, bytes);
        Ok(name)
    }

    /// Begins an upload and returns the answer that names its address.
    fn begin_upload(&self, runner: &Runner, repository: &Repository) -> Result<Response<Vec<u8>>> {
        let url = format!("{}/v2/{}/blobs/uploads/", self.api(repository), repository.path());
        let response = self
            .send(runner, repository, PUSH, |agent, auth| authorized(agent.post(&url), auth).send_empty())?;
        self.expect(runner, repository, "cannot begin an upload", 202, &response)?;
        Ok(response)
    }

    /// The address of an upload that was begun.
    fn location(&self, repository: &Repository, begun: &Response<Vec<u8>>) -> Result<String> {
        let location = header(begun, "location").context("the registry names no upload location")?;
        Ok(if location.starts_with('/') { format!("{}{location}", self.api(repository)) } else { location })
    }

    fn expect(
        &self,
        runner: &Runner,
        repository: &Repository,
        what: &str,
        status: u16,
        response: &Response<Vec<u8>>,
    ) -> Result<()> {
        match response.status().as_u16() {
            got if got == status => Ok(()),
            _ => Err(self.refusal(runner, repository, what, response, PUSH)),
        }
    }
}
