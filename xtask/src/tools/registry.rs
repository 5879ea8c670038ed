//! Asks a registry over its HTTP API (OCI distribution-spec 1.1, Docker's token authentication).
//!
//! A probe has three answers: present, a clear 404, and an error that says why it cannot tell.

use std::cell::RefCell;
use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};

use crate::model::key::digest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::retry;

use super::crane;
use super::runner::Runner;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub struct Registry {
    agent: Agent,
    /// Authorization headers by repository and action.
    tokens: RefCell<HashMap<String, String>>,
}

/// A manifest or index as the registry holds it.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub digest: String,
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

    /// Compressed bytes of all layers of a single-platform image.
    pub fn layer_bytes(&self) -> u64 {
        let layers = self.json["layers"].as_array();
        layers.into_iter().flatten().filter_map(|layer| layer["size"].as_u64()).sum()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    pub fn new() -> Self {
        Self { agent: agent(), tokens: RefCell::default() }
    }

    /// A tag's or digest's manifest; `None` only on a clear 404.
    pub fn manifest(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Manifest>> {
        let url = format!("{}/v2/{}/manifests/{reference}", repository.api(), repository.path());
        let mut response = self
            .get(runner, repository, &url)
            .with_context(|| format!("cannot tell whether {repository} has {reference}"))?;
        match response.status().as_u16() {
            200 => {
                let body = response.body_mut().read_to_vec()?;
                let json = serde_json::from_slice(&body).with_context(|| format!("{url}: not a manifest"))?;
                Ok(Some(Manifest { digest: digest(&body), json }))
            }
            404 => Ok(None),
            status => bail!(
                "cannot tell whether {repository} has {reference}: HTTP {status}{}",
                advice(status, repository)
            ),
        }
    }

    /// An image by tag, as an index: a single-platform image, which an engine pushes without one, gets the index
    /// that its configuration implies, so that a caller sees its platform either way.
    pub fn image(&self, runner: &Runner, repository: &Repository, tag: &str) -> Result<Option<Manifest>> {
        let Some(mut manifest) = self.manifest(runner, repository, tag)? else { return Ok(None) };
        if let Some(config) = manifest.json["config"]["digest"].as_str() {
            let config = self.blob(runner, repository, config)?;
            let platform = json!({ "os": config["os"], "architecture": config["architecture"] });
            manifest.json = json!({ "manifests": [{ "digest": manifest.digest, "platform": platform }] });
        }
        Ok(Some(manifest))
    }

    /// Stores a small JSON document as an OCI artifact (image-spec, "Guidelines for artifact usage") under a tag.
    pub fn put_artifact(
        &self,
        runner: &Runner,
        repository: &Repository,
        tag: &str,
        kind: &str,
        body: &Value,
    ) -> Result<()> {
        if runner.dry_run {
            println!("# store {kind} as {}", repository.tag(tag));
            return Ok(());
        }
        let body = serde_json::to_vec(body)?;
        for blob in [&b"{}"[..], &body] {
            self.put_blob(runner, repository, blob)?;
        }
        let empty = "application/vnd.oci.empty.v1+json";
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": { "mediaType": empty, "digest": digest(b"{}"), "size": 2 },
            "layers": [{ "mediaType": kind, "digest": digest(&body), "size": body.len() }],
        }))?;
        let url = format!("{}/v2/{}/manifests/{tag}", repository.api(), repository.path());
        let auth = self.authorization(runner, repository, "pull,push")?;
        let response = self
            .agent
            .put(&url)
            .header("Authorization", &auth)
            .header("Content-Type", MANIFEST)
            .send(&manifest)?;
        expect(&response, 201, &format!("cannot store {}", repository.tag(tag)), repository)
    }

    /// The JSON document of an artifact made by [`Self::put_artifact`].
    pub fn artifact(&self, runner: &Runner, repository: &Repository, tag: &str) -> Result<Option<Value>> {
        let Some(manifest) = self.manifest(runner, repository, tag)? else {
            return Ok(None);
        };
        let digest = manifest.json["layers"][0]["digest"].as_str().context("an artifact without a layer")?;
        self.blob(runner, repository, digest).map(Some)
    }

    /// A blob that is JSON.
    fn blob(&self, runner: &Runner, repository: &Repository, digest: &str) -> Result<Value> {
        let url = format!("{}/v2/{}/blobs/{digest}", repository.api(), repository.path());
        let mut response = self.get(runner, repository, &url)?;
        expect(&response, 200, &format!("cannot read {}", repository.digest(digest)), repository)?;
        Ok(response.body_mut().read_json()?)
    }

    fn put_blob(&self, runner: &Runner, repository: &Repository, bytes: &[u8]) -> Result<()> {
        let auth = self.authorization(runner, repository, "pull,push")?;
        let base = format!("{}/v2/{}/blobs", repository.api(), repository.path());
        let known =
            self.agent.head(format!("{base}/{}", digest(bytes))).header("Authorization", &auth).call()?;
        if known.status() == 200 {
            return Ok(());
        }
        let response =
            self.agent.post(format!("{base}/uploads/")).header("Authorization", &auth).send_empty()?;
        expect(&response, 202, &format!("cannot upload to {repository}"), repository)?;
        let location = header(&response, "location").context("the registry names no upload location")?;
        let location =
            if location.starts_with('/') { format!("{}{location}", repository.api()) } else { location };
        let joint = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{joint}digest={}", digest(bytes));
        let request = self.agent.put(&url).header("Authorization", &auth);
        let response = request.header("Content-Type", "application/octet-stream").send(bytes)?;
        expect(&response, 201, &format!("cannot upload to {repository}"), repository)
    }

    /// GET with the retries of [`retry`] and, on a 401, one round of token authentication.
    fn get(&self, runner: &Runner, repository: &Repository, url: &str) -> Result<Response<ureq::Body>> {
        let accept = [INDEX, DOCKER_INDEX, MANIFEST, DOCKER_MANIFEST, "application/octet-stream"].join(", ");
        let mut attempt = 0;
        loop {
            attempt += 1;
            let auth = self.authorization(runner, repository, "pull")?;
            let request = self.agent.get(url).header("Accept", &accept).header("Authorization", &auth);
            let wait = match request.call() {
                Ok(response) => {
                    let after = header(&response, "retry-after").and_then(|text| text.parse().ok());
                    match retry::after_status(response.status().as_u16(), after, attempt) {
                        None => return Ok(response),
                        Some(wait) => wait,
                    }
                }
                Err(error) if attempt < 2 => {
                    eprintln!("{url}: {error}; trying again");
                    retry::backoff(attempt)
                }
                Err(error) => bail!("{} does not answer: {error}", repository.host()),
            };
            thread::sleep(wait);
        }
    }

    /// The Authorization header for an action, asked for once; empty where the registry wants none.
    fn authorization(&self, runner: &Runner, repository: &Repository, action: &str) -> Result<String> {
        if repository.is_loopback() {
            return Ok(String::new());
        }
        let key = format!("{repository} {action}");
        if let Some(known) = self.tokens.borrow().get(&key) {
            return Ok(known.clone());
        }
        let value = self.token(runner, repository, action)?;
        self.tokens.borrow_mut().insert(key, value.clone());
        Ok(value)
    }

    fn token(&self, runner: &Runner, repository: &Repository, action: &str) -> Result<String> {
        let response = self.agent.get(format!("{}/v2/", repository.api())).call();
        let response =
            response.map_err(|error| anyhow::anyhow!("{} does not answer: {error}", repository.host()))?;
        let Some(challenge) = header(&response, "www-authenticate") else {
            return Ok(String::new());
        };
        let basic = runner.probe(&crane::credentials(repository.host())).and_then(|text| basic(&text));
        if !challenge.to_lowercase().starts_with("bearer ") {
            return Ok(basic.unwrap_or_default());
        }
        let realm = challenge_part(&challenge, "realm").context("a token challenge without a realm")?;
        let service = challenge_part(&challenge, "service").unwrap_or_default();
        let mut request = self.agent.get(&realm).query("service", &service);
        request = request.query("scope", format!("repository:{}:{action}", repository.path()));
        if let Some(basic) = &basic {
            request = request.header("Authorization", basic);
        }
        let mut response = request.call()?;
        expect(&response, 200, &format!("no token for {action} on {repository}"), repository)?;
        let body: Value = response.body_mut().read_json()?;
        let token = body["token"]
            .as_str()
            .or(body["access_token"].as_str())
            .context("a token answer without a token")?;
        Ok(format!("Bearer {token}"))
    }
}

/// One pool of connections, answers with any status, roots of trust from the host.
pub fn agent() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder().http_status_as_error(false).tls_config(tls);
    config
        .max_idle_connections_per_host(16)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

fn header<T>(response: &Response<T>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

fn expect<T>(response: &Response<T>, status: u16, what: &str, repository: &Repository) -> Result<()> {
    let got = response.status().as_u16();
    if got != status {
        bail!("{what}: HTTP {got}{}", advice(got, repository));
    }
    Ok(())
}

fn advice(status: u16, repository: &Repository) -> String {
    match status {
        401 | 403 => {
            format!(": the account may not use {repository}; run `docker login {}`", repository.host())
        }
        429 => ": rate limited; wait, or log in".to_owned(),
        _ => String::new(),
    }
}

/// `name="value"` in a WWW-Authenticate header (RFC 9110, 11.6.1).
fn challenge_part(challenge: &str, name: &str) -> Option<String> {
    let rest = challenge.split_once(&format!("{name}=\""))?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

/// The Basic header for crane's `{"username":…,"password":…}`; `None` if it knows no account.
fn basic(credentials: &str) -> Option<String> {
    let json: Value = serde_json::from_str(credentials).ok()?;
    let (name, password) = (json["username"].as_str()?, json["password"].as_str()?);
    (!name.is_empty()).then(|| format!("Basic {}", BASE64.encode(format!("{name}:{password}"))))
}
