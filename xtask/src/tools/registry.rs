//! Asks a registry over its HTTP API (OCI distribution-spec 1.1, Docker's token authentication), and stores the small
//! documents that say what was tested and promoted.
//!
//! A probe has three answers: present, a clear 404, and an error that says why it cannot tell. Images are pushed by
//! docker and copied by crane; nothing here moves a layer.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::model::key::digest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;

use super::crane;
use super::http::{self, header};
use super::runner::Runner;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The annotation that holds an artifact's document. A manifest is written in one request, so a document is there
/// whole or not at all, and is read in one request too.
const DOCUMENT: &str = "opencode-devbox.document";

pub struct Registry {
    agent: Agent,
    /// Authorization headers by repository and action.
    tokens: RefCell<HashMap<String, String>>,
    /// Manifests that cannot change, since their name is made from their content or its inputs.
    known: RefCell<HashMap<String, Manifest>>,
    /// Repositories that turned out to have no referrers API.
    no_referrers: RefCell<HashSet<String>>,
}

/// A manifest or index as the registry holds it.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub digest: String,
    /// In bytes.
    pub size: usize,
    pub media_type: String,
    pub json: Value,
}

impl Manifest {
    /// The digest of one platform's image in this index.
    pub fn platform(&self, platform: Platform) -> Option<&str> {
        let entries = self.json["manifests"].as_array()?;
        let matches = |entry: &&Value| {
            entry["platform"]["os"] == "linux" && entry["platform"]["architecture"] == platform.arch()
        };
        entries.iter().find(matches)?["digest"].as_str()
    }

    /// Digest and compressed size of each layer of a single-platform image, in order.
    pub fn layers(&self) -> Vec<(String, u64)> {
        let layers = self.json["layers"].as_array().into_iter().flatten();
        let pair = |layer: &Value| Some((layer["digest"].as_str()?.to_owned(), layer["size"].as_u64()?));
        layers.filter_map(pair).collect()
    }

    /// Compressed bytes of all layers of a single-platform image.
    pub fn layer_bytes(&self) -> u64 {
        self.layers().iter().map(|(_, size)| size).sum()
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.json["annotations"][name].as_str()
    }

    /// The document of an artifact made by [`Registry::put_document`].
    fn document(&self) -> Option<Value> {
        serde_json::from_str(self.annotation(DOCUMENT)?).ok()
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.size })
    }
}

/// Where a document is stored.
pub enum Place<'a> {
    Tag(&'a str),
    /// As a referrer of an image (distribution-spec, "Listing Referrers").
    Referrer(&'a Manifest),
}

impl Registry {
    pub fn new(agent: &Agent) -> Self {
        Self {
            agent: agent.clone(),
            tokens: RefCell::default(),
            known: RefCell::default(),
            no_referrers: RefCell::default(),
        }
    }

    /// A tag's or digest's manifest; `None` only on a clear 404.
    pub fn manifest(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Manifest>> {
        let name = if reference.starts_with("sha256:") {
            repository.digest(reference)
        } else {
            repository.tag(reference)
        };
        if let Some(known) = self.known.borrow().get(&name) {
            return Ok(Some(known.clone()));
        }
        let url = format!("{}/v2/{}/manifests/{reference}", repository.api(), repository.path());
        let mut response = self.get(runner, repository, &url)?;
        let status = response.status().as_u16();
        if status == 404 && !error_code(&mut response, &["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"]) {
            bail!(
                "cannot tell whether {name} exists: HTTP 404 without the code MANIFEST_UNKNOWN or NAME_UNKNOWN"
            );
        }
        match status {
            200 => {}
            404 => return Ok(None),
            status => bail!(
                "cannot tell whether {name} exists: HTTP {status}{}",
                advice(runner, status, repository, "pull")
            ),
        }
        let media_type = header(&response, "content-type").unwrap_or_default();
        let body = response.body_mut().read_to_vec().with_context(|| format!("cannot read {name}"))?;
        let json = serde_json::from_slice(&body).with_context(|| format!("{name} is not a manifest"))?;
        let manifest = Manifest { digest: digest(&body), size: body.len(), media_type, json };
        if reference.starts_with("sha256:") {
            if manifest.digest != reference {
                bail!("{name} came with other bytes than its digest says: {}", manifest.digest);
            }
            self.known.borrow_mut().insert(name, manifest.clone());
        }
        Ok(Some(manifest))
    }

    /// An image by tag, as an index: a single-platform image, which an engine pushes without one, gets the index
    /// that its configuration implies, so that a caller sees its platform either way.
    pub fn image(&self, runner: &Runner, repository: &Repository, tag: &str) -> Result<Option<Manifest>> {
        let Some(mut manifest) = self.manifest(runner, repository, tag)? else { return Ok(None) };
        if let Some(config) = manifest.json["config"]["digest"].as_str() {
            let config = self.blob(runner, repository, config)?;
            let platform = json!({ "os": config["os"], "architecture": config["architecture"] });
            manifest.json["manifests"] = json!([{ "digest": manifest.digest, "platform": platform }]);
        }
        Ok(Some(manifest))
    }

    /// Remembers an image under a tag that never changes its meaning, such as a content key.
    pub fn remember(&self, repository: &Repository, tag: &str, manifest: &Manifest) {
        self.known.borrow_mut().insert(repository.tag(tag), manifest.clone());
    }

    /// Stores a JSON document as an OCI artifact (image-spec, "Guidelines for Artifact Usage"). `labels` become
    /// annotations beside the document. Returns the artifact's digest.
    pub fn put_document(
        &self,
        runner: &Runner,
        repository: &Repository,
        place: &Place<'_>,
        kind: &str,
        labels: &BTreeMap<String, String>,
        document: &Value,
    ) -> Result<String> {
        if runner.dry_run {
            let name = match place {
                Place::Tag(tag) => tag,
                Place::Referrer(subject) => subject.digest.as_str(),
            };
            println!("# store {kind} for {name} in {repository}");
            return Ok(String::new());
        }
        self.put_empty_blob(runner, repository)?;
        let empty = json!({ "mediaType": EMPTY, "digest": digest(b"{}"), "size": 2 });
        let mut annotations = labels.clone();
        annotations.insert(DOCUMENT.to_owned(), document.to_string());
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": empty, "layers": [empty], "annotations": annotations });
        let reference = match place {
            Place::Tag(tag) => (*tag).to_owned(),
            Place::Referrer(subject) => {
                manifest["subject"] = subject.descriptor();
                digest(&serde_json::to_vec(&manifest)?)
            }
        };
        let bytes = serde_json::to_vec(&manifest)?;
        let response = self.put_manifest(runner, repository, &reference, MANIFEST, &bytes)?;
        if let Place::Referrer(subject) = place
            && header(&response, "oci-subject").is_none()
        {
            let entry = json!({ "mediaType": MANIFEST, "artifactType": kind, "digest": reference,
                "size": bytes.len(), "annotations": annotations });
            self.list_referrer(runner, repository, subject, entry)?;
        }
        Ok(digest(&bytes))
    }

    /// The document under a tag.
    pub fn document(
        &self,
        runner: &Runner,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<(String, Value)>> {
        let Some(manifest) = self.manifest(runner, repository, tag)? else { return Ok(None) };
        let document = manifest.document();
        let document =
            document.with_context(|| format!("{} is no document of this pipeline", repository.tag(tag)))?;
        Ok(Some((manifest.digest, document)))
    }

    /// Annotations and document of every artifact of a kind that refers to an image.
    pub fn referrers(
        &self,
        runner: &Runner,
        repository: &Repository,
        image: &str,
        kind: &str,
    ) -> Result<Vec<(Value, Value)>> {
        let listed = match self.referrers_api(runner, repository, image)? {
            Some(index) => index,
            None => match self.manifest(runner, repository, &fallback_tag(image))? {
                Some(manifest) => manifest.json,
                None => return Ok(Vec::new()),
            },
        };
        let entries = listed["manifests"].as_array().cloned().unwrap_or_default();
        let ours = entries.into_iter().filter(|entry| entry["artifactType"] == kind);
        Ok(ours
            .filter_map(|entry| {
                let document = serde_json::from_str(entry["annotations"][DOCUMENT].as_str()?).ok()?;
                Some((entry["annotations"].clone(), document))
            })
            .collect())
    }

    /// Proves that the account may push, by beginning an upload and cancelling it.
    pub fn prove_push(&self, runner: &Runner, repository: &Repository) -> Result<()> {
        let location = self.begin_upload(runner, repository)?;
        // An upload that is not cancelled is cleaned up by the registry in time, so the answer does not matter.
        let cancel = |agent: &Agent, auth: &str| agent.delete(&location).header("Authorization", auth).call();
        let _ = self.send(runner, repository, "pull,push", cancel);
        Ok(())
    }

    /// The index that the referrers API gives; `None` where the registry has no such API (2.8 and older).
    fn referrers_api(&self, runner: &Runner, repository: &Repository, image: &str) -> Result<Option<Value>> {
        if self.no_referrers.borrow().contains(&repository.to_string()) {
            return Ok(None);
        }
        let url = format!("{}/v2/{}/referrers/{image}", repository.api(), repository.path());
        let mut response = self.get(runner, repository, &url)?;
        match response.status().as_u16() {
            200 => Ok(Some(response.body_mut().read_json()?)),
            404 => {
                self.no_referrers.borrow_mut().insert(repository.to_string());
                Ok(None)
            }
            status => bail!("cannot list what refers to {image} in {repository}: HTTP {status}"),
        }
    }

    /// Adds an entry to the referrers tag of an image (distribution-spec, "Referrers Tag Schema").
    fn list_referrer(
        &self,
        runner: &Runner,
        repository: &Repository,
        subject: &Manifest,
        entry: Value,
    ) -> Result<()> {
        let tag = fallback_tag(&subject.digest);
        let there = self.manifest(runner, repository, &tag)?;
        let mut entries =
            there.and_then(|manifest| manifest.json["manifests"].as_array().cloned()).unwrap_or_default();
        entries.retain(|other| other["digest"] != entry["digest"]);
        entries.push(entry);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.put_manifest(runner, repository, &tag, INDEX, &serde_json::to_vec(&index)?).map(drop)
    }

    fn put_manifest(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Response<Body>> {
        let url = format!("{}/v2/{}/manifests/{reference}", repository.api(), repository.path());
        let response = self.send(runner, repository, "pull,push", |agent, auth| {
            agent.put(&url).header("Authorization", auth).header("Content-Type", media_type).send(bytes)
        })?;
        expect(runner, response, 201, &format!("cannot store {reference}"), repository)
    }

    /// A blob that is JSON.
    pub fn blob(&self, runner: &Runner, repository: &Repository, digest: &str) -> Result<Value> {
        let url = format!("{}/v2/{}/blobs/{digest}", repository.api(), repository.path());
        let response = self.get(runner, repository, &url)?;
        let mut response = expect(runner, response, 200, &format!("cannot read blob {digest}"), repository)?;
        Ok(response.body_mut().read_json()?)
    }

    /// Makes sure that the repository has the blob `{}`, which every artifact refers to.
    fn put_empty_blob(&self, runner: &Runner, repository: &Repository) -> Result<()> {
        let name = digest(b"{}");
        let url = format!("{}/v2/{}/blobs/{name}", repository.api(), repository.path());
        let known = self.send(runner, repository, "pull,push", |agent, auth| {
            agent.head(&url).header("Authorization", auth).call()
        })?;
        if known.status() == 200 {
            return Ok(());
        }
        // An upload that broke cannot go on, so a try is a whole upload.
        let response = self.send(runner, repository, "pull,push", |agent, auth| {
            let location =
                self.begin_upload(runner, repository).map_err(|error| ureq::Error::Other(error.into()))?;
            let joint = if location.contains('?') { '&' } else { '?' };
            let request = agent.put(format!("{location}{joint}digest={name}")).header("Authorization", auth);
            request.header("Content-Type", "application/octet-stream").send(b"{}")
        })?;
        expect(runner, response, 201, "cannot upload a blob", repository).map(drop)
    }

    /// Begins an upload and returns its address.
    fn begin_upload(&self, runner: &Runner, repository: &Repository) -> Result<String> {
        let url = format!("{}/v2/{}/blobs/uploads/", repository.api(), repository.path());
        let response = self.send(runner, repository, "pull,push", |agent, auth| {
            agent.post(&url).header("Authorization", auth).send_empty()
        })?;
        let response = expect(runner, response, 202, "cannot begin an upload", repository)?;
        let location = header(&response, "location").context("the registry names no upload location")?;
        Ok(if location.starts_with('/') { format!("{}{location}", repository.api()) } else { location })
    }

    fn get(&self, runner: &Runner, repository: &Repository, url: &str) -> Result<Response<Body>> {
        let accept = [INDEX, DOCKER_INDEX, MANIFEST, DOCKER_MANIFEST, "application/octet-stream"].join(", ");
        self.send(runner, repository, "pull", |agent, auth| {
            agent.get(url).header("Accept", &accept).header("Authorization", auth).call()
        })
    }

    /// Sends a request. A challenge is answered with the account that docker is logged in with, once: a token that ran
    /// out is so renewed, and a second refusal is final.
    fn send(
        &self,
        runner: &Runner,
        repository: &Repository,
        action: &str,
        request: impl Fn(&Agent, &str) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>> {
        let key = format!("{repository} {action}");
        let known = self.tokens.borrow().get(&key).cloned().unwrap_or_default();
        let attempt =
            |auth: &str| http::send(repository.host(), || runner.left(), || request(&self.agent, auth));
        let response = attempt(&known)?;
        let challenge = header(&response, "www-authenticate");
        let (401, Some(challenge)) = (response.status().as_u16(), challenge) else { return Ok(response) };
        let fresh = self.answer(runner, repository, action, &challenge)?;
        let response = attempt(&fresh)?;
        self.tokens.borrow_mut().insert(key, fresh);
        Ok(response)
    }

    /// The Authorization header that answers a challenge (Docker's token authentication; RFC 7617 for Basic).
    fn answer(
        &self,
        runner: &Runner,
        repository: &Repository,
        action: &str,
        challenge: &str,
    ) -> Result<String> {
        let basic = account(runner, repository).map(|account| account.basic());
        if !challenge.to_lowercase().starts_with("bearer ") {
            return Ok(basic.unwrap_or_default());
        }
        let realm = challenge_part(challenge, "realm").context("a token challenge without a realm")?;
        let service = challenge_part(challenge, "service").unwrap_or_default();
        let scope = format!("repository:{}:{action}", repository.path());
        let ask = || {
            let request = self.agent.get(&realm).query("service", &service).query("scope", &scope);
            match &basic {
                Some(basic) => request.header("Authorization", basic).call(),
                None => request.call(),
            }
        };
        let response = http::send(&realm, || runner.left(), ask)?;
        let mut response = expect(runner, response, 200, &format!("no token for {action}"), repository)?;
        let body: Value = response.body_mut().read_json()?;
        let token = body["token"].as_str().or(body["access_token"].as_str());
        Ok(format!("Bearer {}", token.context("a token answer without a token")?))
    }
}

/// What crane prints of an account.
#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Account {
    fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.username, self.password)))
    }
}

/// The account that docker is logged in with, as crane finds it; `None` if nobody is logged in.
fn account(runner: &Runner, repository: &Repository) -> Option<Account> {
    let text = runner.probe(&crane::credentials(repository.host()))?;
    serde_json::from_str(&text).ok().filter(|account: &Account| !account.username.is_empty())
}

fn expect(
    runner: &Runner,
    response: Response<Body>,
    status: u16,
    what: &str,
    repository: &Repository,
) -> Result<Response<Body>> {
    let got = response.status().as_u16();
    if got != status {
        bail!("{what} in {repository}: HTTP {got}{}", advice(runner, got, repository, "pull,push"));
    }
    Ok(response)
}

/// What to do about a refusal: account, repository and scope are named.
fn advice(runner: &Runner, status: u16, repository: &Repository, scope: &str) -> String {
    let (path, login) = (repository.path(), format!("run `docker login {}`", repository.host()));
    match status {
        401 | 403 => match account(runner, repository) {
            Some(account) => format!(": the account {} lacks {scope} on {path}; {login}", account.username),
            None => format!(": nobody is logged in, and {path} asks for {scope}; {login}"),
        },
        429 => ": rate limited; wait, or log in".to_owned(),
        _ => String::new(),
    }
}

/// The tag under which a registry without the referrers API lists what refers to an image.
fn fallback_tag(image: &str) -> String {
    image.replace(':', "-")
}

/// True if the body is a registry's error with one of these codes (distribution-spec, "Error Codes").
fn error_code(response: &mut Response<Body>, codes: &[&str]) -> bool {
    let body: Value = response.body_mut().read_json().unwrap_or_default();
    let errors = body["errors"].as_array().into_iter().flatten();
    errors.filter_map(|error| error["code"].as_str()).any(|code| codes.contains(&code))
}

/// `name="value"` in a WWW-Authenticate header (RFC 9110, 11.6.1).
fn challenge_part(challenge: &str, name: &str) -> Option<String> {
    let rest = challenge.split_once(&format!("{name}=\""))?.1;
    Some(rest.split_once('"')?.0.to_owned())
}
