//! Docker Hub's own API: the description of a repository.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::error::missing;
use crate::model::reference::Repository;

use super::http;

/// The account may log in, and may not edit the description: an organization's access token can push all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(String);

/// Which tags of a repository never move, by Docker Hub's settings.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ImmutableTags {
    #[serde(default)]
    enabled: bool,
    /// Regular expressions of tags; all tags where there are none.
    #[serde(default)]
    rules: Vec<String>,
}

impl ImmutableTags {
    /// The rule that keeps a tag where it is. A rule that cannot be read counts.
    pub fn keeps(&self, tag: &str) -> Option<&str> {
        if !self.enabled {
            return None;
        }
        if self.rules.is_empty() {
            return Some("all tags");
        }
        let applies = |rule: &&String| {
            regex::Regex::new(&format!("^(?:{rule})$")).map_or(true, |regex| regex.is_match(tag))
        };
        self.rules.iter().find(applies).map(String::as_str)
    }
}

/// Who edits descriptions, and where.
pub struct Account {
    /// Base address of the API.
    pub url: String,
    pub username: String,
    /// Password or access token; it travels in a body only.
    pub secret: String,
    /// The client of the run.
    pub agent: Agent,
}

pub struct Hub {
    agent: Agent,
    url: String,
    token: String,
}

impl Hub {
    /// Logs in (Docker Hub API, "Create access token"). A server without that endpoint has the one that it replaces.
    pub fn login(account: &Account) -> Result<Self> {
        let (agent, url) = (account.agent.clone(), account.url.clone());
        let body = json!({ "identifier": account.username, "secret": account.secret });
        let mut response = send(&url, || agent.post(format!("{url}/v2/auth/token")).send_json(&body))?;
        if response.status() == 404 {
            let body = json!({ "username": account.username, "password": account.secret });
            response = send(&url, || agent.post(format!("{url}/v2/users/login")).send_json(&body))?;
        }
        match response.status().as_u16() {
            200 => {}
            401 | 403 => {
                return Err(missing(format!(
                    "Docker Hub refuses the login of {}: check DOCKERHUB_TOKEN",
                    account.username
                )));
            }
            status => bail!("Docker Hub login: HTTP {status}"),
        }
        let body: Value = response.body_mut().read_json()?;
        let token = body["access_token"].as_str().or(body["token"].as_str());
        let token = token.context("Docker Hub login answers without a token")?.to_owned();
        Ok(Self { agent, url, token })
    }

    /// The full and the short description.
    pub fn description(&self, repository: &Repository) -> Result<(String, String)> {
        let body = self.repository(repository)?;
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        Ok((text("full_description"), text("description")))
    }

    /// Fails unless the account may edit the description. Docker Hub says so with the repository
    /// (`permissions.write`), and leaves it out for those who may only read.
    pub fn prove_edit(&self, repository: &Repository) -> Result<()> {
        let body = self.repository(repository)?;
        if body["permissions"]["write"] != true {
            return Err(forbidden(repository));
        }
        Ok(())
    }

    /// Which tags never move.
    pub fn immutable_tags(&self, repository: &Repository) -> Result<ImmutableTags> {
        let settings = self.repository(repository)?["immutable_tags_settings"].take();
        Ok(serde_json::from_value(settings).unwrap_or_default())
    }

    /// Replaces the full description, the short one, or both; what is not given stays.
    pub fn describe(&self, repository: &Repository, full: Option<&str>, short: Option<&str>) -> Result<()> {
        let fields = [("full_description", full), ("description", short)];
        let body: Map<String, Value> =
            fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))).collect();
        let request = || {
            let url = format!("{}/v2/repositories/{}/", self.url, repository.path());
            self.agent.patch(url).header("Authorization", self.bearer()).send_json(&body)
        };
        check(&send(&self.url, request)?, repository)
    }

    /// Deletes a tag; its manifest stays. False if there is no such tag. Docker's description of the API does not have
    /// this request; its own page of tags and public programs send it.
    pub fn delete_tag(&self, repository: &Repository, tag: &str) -> Result<bool> {
        let request = || {
            let url = format!("{}/v2/repositories/{}/tags/{tag}/", self.url, repository.path());
            self.agent.delete(url).header("Authorization", self.bearer()).call()
        };
        match send(&self.url, request)?.status().as_u16() {
            200..=204 => Ok(true),
            404 => Ok(false),
            401 | 403 => Err(missing(format!(
                "the Docker Hub account may not delete tags of {repository}: set DOCKERHUB_TOKEN to a personal access token \
                 with the scope read, write and delete"
            ))),
            status => bail!("Docker Hub answers HTTP {status} to the deletion of {}", repository.tag(tag)),
        }
    }

    fn repository(&self, repository: &Repository) -> Result<Value> {
        let request =
            || self.agent.get(self.address(repository)).header("Authorization", self.bearer()).call();
        let mut response = send(&self.url, request)?;
        check(&response, repository)?;
        Ok(response.body_mut().read_json()?)
    }

    /// Docker Hub API, "Get repository in a namespace".
    fn address(&self, repository: &Repository) -> String {
        let (namespace, name) = repository.path().split_once('/').unwrap_or(("library", repository.path()));
        format!("{}/v2/namespaces/{namespace}/repositories/{name}", self.url)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

fn send(url: &str, request: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
    http::send(url, || Duration::MAX, request)
}

fn check(response: &Response<Body>, repository: &Repository) -> Result<()> {
    match response.status().as_u16() {
        200 => Ok(()),
        401 | 403 => Err(forbidden(repository)),
        404 => Err(missing(format!("Docker Hub has no repository {repository}: create it first"))),
        status => bail!("Docker Hub answers HTTP {status} for {repository}"),
    }
}

fn forbidden(repository: &Repository) -> anyhow::Error {
    anyhow::Error::new(NotAllowed(format!(
        "the Docker Hub account may not edit the description of {repository}: set DOCKERHUB_TOKEN to a personal access token with the scope read, write and delete"
    )))
}
