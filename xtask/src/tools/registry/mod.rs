//! Asks a registry over its HTTP API (OCI distribution-spec 1.1), and stores the small documents that record what was
//! tested and promoted. Images are pushed by docker, and copied by crane where a mount is not enough; nothing here moves a
//! layer.
//!
//! A probe has three answers: present, a clear 404, and an error that names what is unknown. Presence, tags and read-back
//! are HEAD requests, which Docker Hub does not count; content is read by digest, once, and kept on disk.

mod auth;
mod budget;
mod delete;
mod documents;
mod link;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, RequestBuilder};

pub use auth::Account;
pub use budget::Budget;
pub use documents::{Attached, Labels, Place, document_of, fallback_tag, signature_label, signed_document};

use crate::model::oci::{CompleteIndex, Digest, Manifest};
use crate::model::platform::Platform;
use crate::model::reference::Repository;

use super::http::{self, header};
use super::parallel::side_by_side;
use super::runner::Runner;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest or JSON blob that is read, in bytes (distribution-spec, "Pushing Manifests": at least 4 MiB).
pub const DOCUMENT_LIMIT: u64 = 8 << 20;

/// How long a tag that was written may take to be readable. Public reports of Docker Hub and GHCR name seconds.
pub const LAG_SECONDS: u64 = 60;

/// The longest pause between two looks at a tag.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Tags of one page of a listing.
const PAGE: usize = 1000;

/// The registry refuses this account what was asked for. Its message ends with the command that helps.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Denied(String);

impl Denied {
    fn error(message: String) -> anyhow::Error {
        anyhow::Error::new(Self(message))
    }
}

/// The registry gave a final answer to a write, so nothing was written and nothing will arrive later.
pub fn is_final(error: &anyhow::Error) -> bool {
    error.is::<Denied>() || error.is::<Refused>()
}

/// The registry refused a request for another reason than the account.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

pub struct Registry {
    agent: Agent,
    /// Folder of manifests and configurations by digest; nothing is kept without one.
    cache: Option<Utf8PathBuf>,
    credentials: auth::Credentials,
    meter: budget::Meter,
    known: Mutex<Known>,
    /// Repositories that this account may not read count as empty.
    lenient: bool,
    /// Another address for Docker Hub's registry.
    hub_api: Option<String>,
    /// How long a read may lag behind a write.
    lag: Duration,
    /// The host that a dry run would start: it counts as empty.
    planned: OnceLock<String>,
}

#[derive(Default)]
struct Known {
    manifests: HashMap<Digest, Manifest>,
    /// Tags that never change their meaning, such as content keys, by full name.
    tags: HashMap<String, Digest>,
    /// Repositories that turned out to have no referrers API.
    without_referrers: HashSet<String>,
    /// Repositories that have the blob `{}`.
    with_empty_blob: HashSet<String>,
    /// Blobs that a repository has, by full name.
    linked: HashSet<String>,
    /// Hosts that ask nobody for an account.
    open: HashSet<String>,
    /// Repositories that were refused and counted as empty, with the reason.
    hidden: BTreeMap<String, String>,
    /// The clocks of registries less this machine's, in milliseconds, by host.
    skews: HashMap<String, i64>,
}

impl Registry {
    pub fn new(agent: &Agent, cache: Option<Utf8PathBuf>) -> Self {
        Self {
            agent: agent.clone(),
            cache,
            credentials: auth::Credentials::default(),
            meter: budget::Meter::default(),
            known: Mutex::default(),
            lenient: false,
            hub_api: None,
            lag: Duration::from_secs(LAG_SECONDS),
            planned: OnceLock::new(),
        }
    }

    /// A client that finds Docker Hub's registry at another address, such as a mirror.
    pub fn hub_at(self, url: Option<String>) -> Self {
        Self { hub_api: url, ..self }
    }

    /// A client that waits so long for what was written.
    pub fn with_lag(self, lag: Duration) -> Self {
        Self { lag, ..self }
    }

    /// A client that knows what `DOCKER_AUTH_CONFIG` holds.
    pub fn with_variable(mut self, variable: Option<String>) -> Self {
        self.credentials.variable = variable;
        self
    }

    /// A registry whose repositories count as empty where this account may not read them, which is what a repository
    /// looks like that does not exist yet. For reads only; [`Self::hidden`] lists them.
    pub fn lenient(self, lenient: bool) -> Self {
        Self { lenient, ..self }
    }

    /// Repositories that were refused and counted as empty, with the reason.
    pub fn hidden(&self) -> BTreeMap<String, String> {
        self.known().hidden.clone()
    }

    /// What the registry said last about its limit of manifest reads; `None` where it named none.
    pub fn budget(&self, repository: &Repository) -> Option<Budget> {
        self.meter.last(repository.host())
    }

    /// Seconds since 1970 by the clock of a repository's registry, which all who share it see.
    pub fn now(&self, repository: &Repository) -> u64 {
        let skew = self.known().skews.get(repository.host()).copied().unwrap_or_default();
        let now = Timestamp::now().as_millisecond() + skew;
        u64::try_from(now / 1000).unwrap_or(0)
    }

    /// The account that requests to a host are made with.
    pub fn account(&self, runner: &Runner, host: &str) -> Result<Account> {
        self.credentials.account(runner, host)
    }

    /// The digest that a tag points at; `None` only on a clear 404.
    pub fn digest(&self, runner: &Runner, repository: &Repository, tag: &str) -> Result<Option<Digest>> {
        let name = repository.tag(tag);
        if let Some(known) = self.known().tags.get(&name) {
            return Ok(Some(known.clone()));
        }
        self.head(runner, repository, tag)
    }

    /// True if the registry has this manifest now.
    pub fn has(&self, runner: &Runner, repository: &Repository, digest: &str) -> Result<bool> {
        Ok(self.head(runner, repository, digest)?.is_some())
    }

    /// The digests that tags point at, in the order of the tags.
    pub fn digests(
        &self,
        runner: &Runner,
        repository: &Repository,
        tags: &[String],
    ) -> Result<Vec<Option<Digest>>> {
        side_by_side(tags, |tag| self.head(runner, repository, tag))
    }

    /// The digests that tags point at which never move; one that was seen is not asked for again.
    pub fn fixed_digests(
        &self,
        runner: &Runner,
        repository: &Repository,
        tags: &[String],
    ) -> Result<Vec<Option<Digest>>> {
        side_by_side(tags, |tag| {
            let digest = self.digest(runner, repository, tag)?;
            digest.iter().for_each(|digest| self.remember(repository, tag, digest));
            Ok(digest)
        })
    }

    /// A tag's or digest's manifest; `None` only on a clear 404.
    pub fn manifest(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Manifest>> {
        let digest = match reference.parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => match self.digest(runner, repository, reference)? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        if let Some(known) = self.cached(&digest) {
            return Ok(Some(known));
        }
        let Some(bytes) = self.read_manifest(runner, repository, &digest)? else { return Ok(None) };
        let name = repository.digest(&digest);
        let manifest = Manifest::parse(bytes).map_err(|why| anyhow::anyhow!("{name} {why}"))?;
        if manifest.digest != digest {
            bail!("{name} came with other bytes than its digest says: {}", manifest.digest);
        }
        self.keep(runner, &digest, &manifest.bytes);
        self.known().manifests.insert(digest, manifest.clone());
        Ok(Some(manifest))
    }

    /// Manifests side by side, in the order of the references.
    pub fn manifests<T: AsRef<str> + Sync>(
        &self,
        runner: &Runner,
        repository: &Repository,
        references: &[T],
    ) -> Result<Vec<Option<Manifest>>> {
        side_by_side(references, |reference| self.manifest(runner, repository, reference.as_ref()))
    }

    /// An image by tag, as an index: a single-platform image, which an engine pushes without one, counts as an index of
    /// the platform that its configuration names.
    pub fn image(&self, runner: &Runner, repository: &Repository, tag: &str) -> Result<Option<Manifest>> {
        let Some(manifest) = self.manifest(runner, repository, tag)? else { return Ok(None) };
        let Some(image) = manifest.as_image() else { return Ok(Some(manifest)) };
        let config = self.blob(runner, repository, image.config().digest().as_ref())?;
        let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
        let platform = format!("{}/{}", text("os"), text("architecture")).parse::<Platform>();
        Ok(Some(match platform {
            Ok(platform) => manifest.of_platform(platform),
            Err(_) => manifest,
        }))
    }

    /// The index under a tag if it holds every one of these platforms; a part of it counts as nothing.
    pub fn complete(
        &self,
        runner: &Runner,
        repository: &Repository,
        tag: &str,
        platforms: &[Platform],
    ) -> Result<Option<CompleteIndex>> {
        let found = self.image(runner, repository, tag)?;
        Ok(found.and_then(|manifest| CompleteIndex::new(manifest, platforms)))
    }

    /// Remembers what a tag points at that never changes its meaning, such as a content key.
    pub fn remember(&self, repository: &Repository, tag: &str, digest: &Digest) {
        self.known().tags.insert(repository.tag(tag), digest.clone());
    }

    /// Looks until it is true or a write should have become visible; the pauses grow.
    pub fn poll(&self, runner: &Runner, mut look: impl FnMut() -> Result<bool>) -> Result<bool> {
        let start = std::time::Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            if look()? {
                return Ok(true);
            }
            if start.elapsed() >= self.lag.min(runner.left()) {
                return Ok(false);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until a tag that was written reads as it was written.
    pub fn await_tag(
        &self,
        runner: &Runner,
        repository: &Repository,
        tag: &str,
        digest: &Digest,
    ) -> Result<()> {
        let seen = self.poll(runner, || Ok(self.head(runner, repository, tag)?.as_ref() == Some(digest)))?;
        if !seen {
            bail!("{} does not read back as {digest} within {} s", repository.tag(tag), self.lag.as_secs());
        }
        Ok(())
    }

    /// All tags of a repository; none where the repository does not exist yet.
    pub fn tags(&self, runner: &Runner, repository: &Repository) -> Result<Vec<String>> {
        if self.is_planned(repository) {
            return Ok(Vec::new());
        }
        let mut url = format!("{}/v2/{}/tags/list?n={PAGE}", self.api(repository), repository.path());
        let (mut tags, mut seen) = (Vec::new(), vec![url.clone()]);
        loop {
            let response = match self.get(runner, repository, &url) {
                Ok(response) => response,
                Err(error) => return self.or_hidden(repository, error),
            };
            match response.status().as_u16() {
                200 => {}
                404 if is_clear_404(&response) => return Ok(tags),
                _ => {
                    let error = self.refusal(runner, repository, "cannot list the tags", &response, "pull");
                    return self.or_hidden(repository, error);
                }
            }
            let page: Value = serde_json::from_slice(response.body())
                .with_context(|| format!("{repository} lists its tags in no JSON"))?;
            let names = page["tags"].as_array().into_iter().flatten();
            tags.extend(names.filter_map(|name| name.as_str().map(str::to_owned)));
            match self.follow(repository, &response, &mut seen)? {
                Some(next) => url = next,
                None => return Ok(tags),
            }
        }
    }

    /// The next page of a listing, whose pages so far are `seen`.
    fn follow<T>(
        &self,
        repository: &Repository,
        response: &Response<T>,
        seen: &mut Vec<String>,
    ) -> Result<Option<String>> {
        let current = seen.last().map(String::as_str).unwrap_or_default();
        let Some(next) = next_page(response, current) else { return Ok(None) };
        if !self.is_own(repository, &next) {
            bail!("{repository} names a page elsewhere, which gets no account: {next}");
        }
        if seen.contains(&next) {
            bail!("the pages lead back to {next} in a listing of {repository}");
        }
        seen.push(next.clone());
        Ok(Some(next))
    }

    /// True if an address lies at the registry of a repository: an account is for no other server.
    fn is_own(&self, repository: &Repository, url: &str) -> bool {
        let origin = |url: &str| {
            let url: Uri = url.parse().ok()?;
            let scheme = url.scheme_str()?.to_owned();
            let port = url.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
            Some((scheme, url.host()?.to_ascii_lowercase(), port))
        };
        origin(url).is_some_and(|it| origin(&self.api(repository)) == Some(it))
    }

    /// Counts the registry at a host as empty, since a dry run would start it.
    pub fn plan(&self, host: &str) {
        let _ = self.planned.set(host.to_owned());
    }

    fn is_planned(&self, repository: &Repository) -> bool {
        self.planned.get().is_some_and(|host| host == repository.host())
    }

    /// A blob that is JSON, kept by digest.
    pub fn blob(&self, runner: &Runner, repository: &Repository, digest: &str) -> Result<Value> {
        let digest: Digest = digest.parse().map_err(|why: String| anyhow::anyhow!(why))?;
        if let Some(bytes) = self.kept(&digest) {
            return Ok(serde_json::from_slice(&bytes)?);
        }
        let bytes = self.small_blob(runner, repository, &digest)?;
        self.keep(runner, &digest, &bytes);
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The bytes of a blob of at most [`DOCUMENT_LIMIT`].
    pub fn small_blob(&self, runner: &Runner, repository: &Repository, digest: &Digest) -> Result<Vec<u8>> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.api(repository), repository.path());
        let response = self.get(runner, repository, &url)?;
        if response.status() != 200 {
            let what = format!("cannot read blob {digest}");
            return Err(self.refusal(runner, repository, &what, &response, "pull"));
        }
        if Digest::of(response.body()) != *digest {
            bail!("blob {digest} of {repository} came with other bytes than its digest says");
        }
        Ok(response.into_body())
    }

    /// Asks what a tag or digest is, without reading it.
    fn head(&self, runner: &Runner, repository: &Repository, reference: &str) -> Result<Option<Digest>> {
        if self.is_planned(repository) {
            return Ok(None);
        }
        let url = self.manifest_url(repository, reference);
        let response = self.readable(runner, repository, |agent, auth| {
            authorized(agent.head(&url).header("Accept", ACCEPT), auth).call()
        });
        let response = match response {
            Ok(response) => response,
            Err(error) => return self.or_hidden(repository, error),
        };
        let name = name(repository, reference);
        match response.status().as_u16() {
            200 => match header(&response, "docker-content-digest").and_then(|text| text.parse().ok()) {
                Some(digest) => Ok(Some(digest)),
                // Only the bytes name the digest then.
                None => self.digest_of_bytes(runner, repository, reference),
            },
            404 if is_registry(&response) => Ok(None),
            // A 404 of something in between, or a registry without HEAD: the body of a GET decides.
            404 | 405 | 501 => self.digest_of_bytes(runner, repository, reference),
            _ => {
                let what = format!("cannot tell whether {name} exists");
                self.or_hidden(repository, self.refusal(runner, repository, &what, &response, "pull"))
            }
        }
    }

    /// The digest of the manifest that a GET answers with. A page that something in between sends is none.
    fn digest_of_bytes(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Digest>> {
        let Some(bytes) = self.read_manifest(runner, repository, reference)? else { return Ok(None) };
        let name = name(repository, reference);
        let manifest = Manifest::parse(bytes);
        manifest
            .map(|manifest| Some(manifest.digest))
            .map_err(|why| anyhow::anyhow!("cannot tell whether {name} exists: the answer {why}"))
    }

    /// What a refusal to read means: an error, or for a lenient look a repository that counts as empty.
    fn or_hidden<T: Default>(&self, repository: &Repository, error: anyhow::Error) -> Result<T> {
        if !self.lenient || !error.is::<Denied>() {
            return Err(error);
        }
        self.known().hidden.entry(repository.to_string()).or_insert_with(|| format!("{error:#}"));
        Ok(T::default())
    }

    /// The bytes of a manifest; `None` only on a clear 404.
    fn read_manifest(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Vec<u8>>> {
        if self.is_planned(repository) {
            return Ok(None);
        }
        let name = name(repository, reference);
        let response = self.get(runner, repository, &self.manifest_url(repository, reference))?;
        match response.status().as_u16() {
            200 => Ok(Some(response.into_body())),
            404 if is_clear_404(&response) => Ok(None),
            404 => bail!(
                "cannot tell whether {name} exists: HTTP 404 without the code MANIFEST_UNKNOWN or NAME_UNKNOWN"
            ),
            _ => {
                let what = format!("cannot tell whether {name} exists");
                Err(self.refusal(runner, repository, &what, &response, "pull"))
            }
        }
    }

    fn get(&self, runner: &Runner, repository: &Repository, url: &str) -> Result<Response<Vec<u8>>> {
        self.readable(runner, repository, |agent, auth| {
            let accept = format!("{ACCEPT}, application/octet-stream");
            authorized(agent.get(url).header("Accept", accept), auth).call()
        })
    }

    /// Sends a read. A repository that does not exist yet is hidden from those who may only pull, while its owner may
    /// push to it: a refusal is asked again with the right to push before it counts.
    fn readable(
        &self,
        runner: &Runner,
        repository: &Repository,
        request: impl Fn(&Agent, Option<&str>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Vec<u8>>> {
        let denied = |response: &Response<Vec<u8>>| matches!(response.status().as_u16(), 401 | 403);
        let response = match self.send(runner, repository, "pull", &request) {
            Ok(response) if !denied(&response) => return Ok(response),
            other => other,
        };
        let is_denied = response.as_ref().map_or_else(|error| error.is::<Denied>(), denied);
        let logged_in = self
            .credentials
            .account(runner, repository.host())
            .is_ok_and(|account| account != Account::Nobody);
        if !is_denied || !logged_in {
            return response;
        }
        match self.send(runner, repository, "pull,push", &request) {
            Ok(again) if !denied(&again) => Ok(again),
            _ => response,
        }
    }

    /// Gets the right to write before the first request with a body: a registry may refuse one without an account while
    /// the body is still on its way, and then no answer arrives.
    fn authorize(&self, runner: &Runner, repository: &Repository) -> Result<()> {
        let known = self.known().open.contains(repository.host());
        if known || self.credentials.header(repository, write::PUSH).is_some() {
            return Ok(());
        }
        let url = format!("{}/v2/", self.api(repository));
        let ping = |agent: &Agent, auth: Option<&str>| authorized(agent.get(&url), auth).call();
        if self.send(runner, repository, write::PUSH, ping)?.status() == 200
            && self.credentials.header(repository, write::PUSH).is_none()
        {
            self.known().open.insert(repository.host().to_owned());
        }
        Ok(())
    }

    /// Sends a request and reads its answer. A challenge is answered with the account that docker is logged in with, once:
    /// an expired token is renewed that way, and a second refusal is final.
    fn send(
        &self,
        runner: &Runner,
        repository: &Repository,
        action: &str,
        request: impl Fn(&Agent, Option<&str>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Vec<u8>>> {
        let attempt = |auth: Option<&str>| {
            let response = http::send(
                repository.host(),
                || runner.left(),
                || http::whole(request(&self.agent, auth)?, DOCUMENT_LIMIT),
            )?;
            self.note(repository.host(), &response);
            Ok::<_, anyhow::Error>(response)
        };
        let mut sent = self.credentials.header(repository, action);
        let mut response = attempt(sent.as_deref())?;
        // The second time for a secret that expired since it was read.
        for _ in 0..2 {
            let challenges = http::headers(&response, "www-authenticate");
            if response.status() != 401 || challenges.is_empty() {
                break;
            }
            let was_token = sent.as_deref().is_some_and(|it| it.starts_with("Bearer "));
            let (credentials, refused) = (&self.credentials, sent.as_deref());
            let answer = credentials.answer(&self.agent, runner, repository, action, &challenges, refused)?;
            let Some(fresh) = answer else { break };
            response = attempt(Some(&fresh))?;
            self.credentials.remember(repository, action, &fresh);
            if fresh.starts_with("Bearer ") || was_token {
                break;
            }
            sent = Some(fresh);
        }
        Ok(response)
    }

    fn manifest_url(&self, repository: &Repository, reference: &str) -> String {
        format!("{}/v2/{}/manifests/{reference}", self.api(repository), repository.path())
    }

    /// Base address of the API that holds a repository.
    fn api(&self, repository: &Repository) -> String {
        match &self.hub_api {
            Some(url) if repository.is_docker_hub() => url.clone(),
            _ => repository.api(),
        }
    }

    /// Takes note of the registry's clock and of its limit.
    fn note<T>(&self, host: &str, response: &Response<T>) {
        self.meter.note(host, response);
        if let Some(date) = http::date(response) {
            let skew = date.as_millisecond() - Timestamp::now().as_millisecond();
            self.known().skews.insert(host.to_owned(), skew);
        }
    }

    /// The error for a status that is no answer: account, repository and what was asked for are named.
    fn refusal(
        &self,
        runner: &Runner,
        repository: &Repository,
        what: &str,
        response: &Response<Vec<u8>>,
        action: &str,
    ) -> anyhow::Error {
        let (host, path, status) = (repository.host(), repository.path(), response.status().as_u16());
        // After Basic, 401 means the password; after a token it means the rights of the token.
        let sent = self.credentials.header(repository, action).unwrap_or_default();
        let basic = sent.starts_with("Basic ");
        let what = format!("{what} in {repository}: HTTP {status}{}", reason(response));
        match status {
            401 | 403 => match self.credentials.account(runner, host) {
                Ok(Account::Nobody) => Denied::error(format!(
                    "{what}: nobody is logged in to {host}, and {path} asks for {action}; run `docker login {host}`"
                )),
                Ok(account) if status == 401 && basic => Denied::error(format!(
                    "{what}: {host} refuses the login of {account}; run `docker login {host}`"
                )),
                Ok(account) => Denied::error(format!(
                    "{what}: {account} has no {action} access to {path}; run `docker login {host}` with an account or token that has"
                )),
                Err(error) => error.context(what),
            },
            429 => anyhow::Error::new(Refused(format!("{what}: rate limited{}", self.limit(host)))),
            // A gateway that gave up waiting cannot know what the registry has taken.
            408 => anyhow::anyhow!(what),
            400..=499 => anyhow::Error::new(Refused(what)),
            _ => anyhow::anyhow!(what),
        }
    }

    fn limit(&self, host: &str) -> String {
        match self.meter.last(host) {
            Some(Budget { limit, window: Some(window), .. }) => {
                format!(", {limit} manifests in {} h; wait, or log in with another account", window / 3600)
            }
            _ => "; wait, or log in".to_owned(),
        }
    }

    fn without_referrers(&self, repository: &Repository) -> bool {
        self.known().without_referrers.contains(&repository.to_string())
    }

    fn note_without_referrers(&self, repository: &Repository) {
        self.known().without_referrers.insert(repository.to_string());
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self, digest: &Digest) -> Option<Manifest> {
        if let Some(manifest) = self.known().manifests.get(digest) {
            return Some(manifest.clone());
        }
        let manifest = Manifest::parse(self.kept(digest)?).ok()?;
        self.known().manifests.insert(digest.clone(), manifest.clone());
        Some(manifest)
    }

    /// Bytes from an earlier run, if they are still those of the digest.
    fn kept(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.cache.as_ref()?.join(digest.hex())).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// A cache that cannot be written costs requests, not the run.
    fn keep(&self, runner: &Runner, digest: &Digest, bytes: &[u8]) {
        let Some(folder) = self.cache.as_ref().filter(|_| !runner.dry_run) else { return };
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            std::io::Write::write_all(&mut file, bytes)?;
            file.persist(folder.join(digest.hex()))?;
            Ok(())
        };
        let _ = write();
    }
}

fn name(repository: &Repository, reference: &str) -> String {
    if reference.starts_with("sha256:") { repository.digest(reference) } else { repository.tag(reference) }
}

/// The reason that a registry gives for a refusal (distribution-spec, "Error Codes"), in parentheses; nothing where there is
/// none, such as in a page of a gateway.
fn reason(response: &Response<Vec<u8>>) -> String {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let Some(message) = body["errors"][0]["message"].as_str().filter(|text| !text.is_empty()) else {
        return String::new();
    };
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    format!(" ({})", line.trim())
}

/// Adds the header where there is one: an empty one is an invalid request to some registries.
fn authorized<T>(request: RequestBuilder<T>, auth: Option<&str>) -> RequestBuilder<T> {
    match auth {
        Some(auth) => request.header("Authorization", auth),
        None => request,
    }
}

/// True if a registry answered, and no proxy or web server in between: an answer to HEAD has no body with an error code.
fn is_registry<T>(response: &Response<T>) -> bool {
    let json = header(response, "content-type").is_some_and(|kind| kind.contains("json"));
    json || header(response, "docker-distribution-api-version").is_some()
}

/// True if the body is a registry's error that says so (distribution-spec, "Error Codes").
fn is_clear_404(response: &Response<Vec<u8>>) -> bool {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let errors = body["errors"].as_array().into_iter().flatten();
    let mut codes = errors.filter_map(|error| error["code"].as_str());
    codes.any(|code| ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"].contains(&code))
}

/// The address of the next page of a listing (RFC 8288, `Link: <…>; rel="next"`).
fn next_page<T>(response: &Response<T>, url: &str) -> Option<String> {
    let link = header(response, "link")?;
    let next = link.split(',').find(|part| part.replace('"', "").contains("rel=next"))?;
    let target = next.split_once('<')?.1.split_once('>')?.0;
    Some(match target {
        path if path.starts_with('/') => {
            let host = url.match_indices('/').nth(2).map_or(url, |(end, _)| &url[..end]);
            format!("{host}{path}")
        }
        query if query.starts_with('?') => format!("{}{query}", url.split('?').next().unwrap_or_default()),
        url => url.to_owned(),
    })
}
