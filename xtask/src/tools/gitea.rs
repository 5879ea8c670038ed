//! A Gitea server's API (`/api/v1`, Gitea 1.20 and later): releases and pull requests of one repository.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::error::missing;
use crate::model::oci::Digest;

use super::http;

/// Answers that come back as pages are asked for in pages of this size, the largest that Gitea gives by default.
const PAGE: usize = 50;

/// A release of a repository (definition `Release` of Gitea's swagger file).
#[derive(Clone, Debug, Deserialize)]
pub struct Release {
    pub id: u64,
    pub tag_name: String,
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    pub html_url: String,
    #[serde(default)]
    pub draft: bool,
    #[serde(default)]
    pub prerelease: bool,
    #[serde(default)]
    pub published_at: Option<String>,
    #[serde(default)]
    assets: Vec<Asset>,
}

/// A file of a release (definition `Attachment`).
#[derive(Clone, Debug, Deserialize)]
struct Asset {
    id: u64,
    name: String,
    #[serde(default)]
    size: u64,
}

/// A pull request (definition `PullRequest`).
#[derive(Clone, Debug, Deserialize)]
pub struct PullRequest {
    pub number: u64,
    pub html_url: String,
    /// `open` or `closed`.
    pub state: String,
    pub title: String,
    #[serde(default)]
    pub merged: bool,
    /// False for one with conflicts; also while Gitea has not checked yet.
    #[serde(default)]
    pub mergeable: bool,
    head: Branch,
    base: Branch,
}

/// One side of a pull request (definition `PRBranchInfo`).
#[derive(Clone, Debug, Deserialize)]
struct Branch {
    /// Name of the branch. `ref` has it too, but only as long as the branch exists.
    label: String,
    #[serde(default)]
    repo_id: i64,
}

impl PullRequest {
    /// The branch that it merges, if that is one of the repository itself and not of a fork.
    pub fn branch(&self) -> Option<&str> {
        (self.head.repo_id == self.base.repo_id).then_some(self.head.label.as_str())
    }
}

/// A repository on a Gitea server.
pub struct Gitea {
    agent: Agent,
    server: String,
    /// `owner/name`.
    repository: String,
    token: Option<String>,
}

impl Gitea {
    /// `token` is an access token; without one only public repositories can be read.
    pub fn new(server: &str, repository: &str, token: Option<&str>, agent: &Agent) -> Self {
        Self {
            agent: agent.clone(),
            server: server.trim_end_matches('/').to_owned(),
            repository: repository.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    /// The newest releases, at most fifty.
    pub fn releases(&self) -> Result<Vec<Release>> {
        let url = self.address(&format!("releases?limit={PAGE}"));
        self.read(&url)?.with_context(|| format!("{} has no repository {}", self.server, self.repository))
    }

    /// Gives the release of a tag these notes: made where it is not there, edited where it says something else.
    /// Returns its address and whether anything changed.
    pub fn put_release(&self, tag: &str, notes: &str) -> Result<(String, bool)> {
        let there: Option<Release> = self.read(&self.address(&format!("releases/tags/{tag}")))?;
        let made: Release = match &there {
            Some(release) if release.body == notes => return Ok((release.html_url.clone(), false)),
            Some(release) => {
                let body = json!({ "body": notes });
                self.write("PATCH", &self.address(&format!("releases/{}", release.id)), &body, 200)?
            }
            None => {
                let body = json!({ "tag_name": tag, "name": tag, "body": notes, "draft": false, "prerelease": false });
                self.write("POST", &self.address("releases"), &body, 201)?
            }
        };
        if made.body != notes {
            bail!("{} took the notes of {tag} but shows others: run the same command again", self.server);
        }
        Ok((made.html_url, true))
    }

    /// Gives the release of a tag a file in the place of one with the same name. Returns whether anything changed: a file
    /// of the same length counts as the same.
    pub fn put_file(&self, tag: &str, name: &str, text: &str) -> Result<bool> {
        let there: Option<Release> = self.read(&self.address(&format!("releases/tags/{tag}")))?;
        let release = there.with_context(|| format!("{} has no release {tag}", self.server))?;
        let files = self.address(&format!("releases/{}/assets", release.id));
        // The API tells the size of a file and no checksum.
        let old: Vec<&Asset> = release.assets.iter().filter(|asset| asset.name == name).collect();
        if old.iter().any(|asset| asset.size == text.len() as u64) {
            return Ok(false);
        }
        for asset in old {
            self.delete(&format!("{files}/{}", asset.id))?;
        }
        let authorization = self.authorization().with_context(|| format!("no token for {}", self.server))?;
        // Servers before 1.22 take forms only (RFC 7578).
        let boundary = format!("devbox-{}", Digest::of(text.as_bytes()).hex());
        let head = format!("Content-Disposition: form-data; name=\"attachment\"; filename=\"{name}\"");
        let body =
            format!("--{boundary}\r\n{head}\r\nContent-Type: text/html\r\n\r\n{text}\r\n--{boundary}--\r\n");
        let url = format!("{files}?name={name}");
        let mut response = self.send(|| {
            let request = self.agent.post(&url).header("Authorization", &authorization);
            let kind = format!("multipart/form-data; boundary={boundary}");
            request.header("Content-Type", kind).send(&body)
        })?;
        match response.status().as_u16() {
            201 => Ok(true),
            _ => Err(self.refusal(&url, &mut response)),
        }
    }

    /// Deletes something; what is not there is deleted.
    fn delete(&self, url: &str) -> Result<()> {
        let authorization = self.authorization().with_context(|| format!("no token for {}", self.server))?;
        let mut response =
            self.send(|| self.agent.delete(url).header("Authorization", &authorization).call())?;
        match response.status().as_u16() {
            204 | 404 => Ok(()),
            _ => Err(self.refusal(url, &mut response)),
        }
    }

    /// All pull requests for a branch, open and closed. `pulls/{base}/{head}` gives any one of those that had these
    /// branches, and older servers do not filter by the base.
    pub fn pull_requests(&self, base: &str) -> Result<Vec<PullRequest>> {
        let mut all = Vec::new();
        for page in 1.. {
            let url = self.address(&format!("pulls?state=all&limit={PAGE}&page={page}"));
            let found: Option<Vec<PullRequest>> = self.read(&url)?;
            let found =
                found.with_context(|| format!("{} has no repository {}", self.server, self.repository))?;
            // A server may give less per page than it was asked for.
            if found.is_empty() {
                break;
            }
            all.extend(found);
        }
        all.retain(|pull| pull.base.label == base);
        Ok(all)
    }

    /// Gives a pull request another title and text.
    pub fn edit_pull_request(&self, number: u64, title: &str, body: &str) -> Result<PullRequest> {
        let request = json!({ "title": title, "body": body });
        // Gitea answers an edit as if it had created something.
        self.write("PATCH", &self.address(&format!("pulls/{number}")), &request, 201)
    }

    pub fn create_pull_request(
        &self,
        base: &str,
        head: &str,
        title: &str,
        body: &str,
    ) -> Result<PullRequest> {
        let request = json!({ "base": base, "head": head, "title": title, "body": body });
        self.write("POST", &self.address("pulls"), &request, 201)
    }

    fn address(&self, rest: &str) -> String {
        format!("{}/api/v1/repos/{}/{rest}", self.server, self.repository)
    }

    /// A document; `None` on a clear 404.
    fn read<T: DeserializeOwned>(&self, url: &str) -> Result<Option<T>> {
        let mut response = self.send(|| {
            let request = self.agent.get(url).header("Accept", "application/json");
            match self.authorization() {
                Some(value) => request.header("Authorization", value).call(),
                None => request.call(),
            }
        })?;
        match response.status().as_u16() {
            404 => Ok(None),
            200 => Ok(Some(response.body_mut().read_json()?)),
            _ => Err(self.refusal(url, &mut response)),
        }
    }

    fn write<T: DeserializeOwned>(&self, method: &str, url: &str, body: &Value, status: u16) -> Result<T> {
        let authorization = self.authorization().with_context(|| format!("no token for {}", self.server))?;
        let mut response = self.send(|| {
            let request = if method == "PATCH" { self.agent.patch(url) } else { self.agent.post(url) };
            request.header("Authorization", &authorization).send_json(body)
        })?;
        if response.status().as_u16() != status {
            return Err(self.refusal(url, &mut response));
        }
        Ok(response.body_mut().read_json()?)
    }

    fn send(&self, request: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
        http::send(&self.server, || Duration::from_secs(60), request)
    }

    fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("token {token}"))
    }

    /// Gitea says why in `message` (definition `APIError`).
    fn refusal(&self, url: &str, response: &mut Response<Body>) -> anyhow::Error {
        let status = response.status().as_u16();
        let body: Value = response.body_mut().read_json().unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default();
        match status {
            401 | 403 => missing(format!(
                "{} refuses the token for {}: give GITEA_TOKEN the scope write:repository ({message})",
                self.server, self.repository
            )),
            _ => anyhow::anyhow!("{url}: HTTP {status} {message}"),
        }
    }
}
