//! Docker Hub's own API: the description of a repository.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::missing;
use crate::model::reference::Repository;

use super::registry::agent;

pub struct Hub {
    agent: Agent,
    url: String,
    token: String,
}

impl Hub {
    /// Logs in. `secret` is a password or access token; it travels in the body only.
    pub fn login(url: &str, username: &str, secret: &str) -> Result<Self> {
        let agent = agent();
        let body = json!({ "username": username, "password": secret });
        let mut response = agent
            .post(format!("{url}/v2/users/login"))
            .send_json(body)
            .with_context(|| format!("{url} does not answer"))?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => {
                return Err(missing(format!(
                    "Docker Hub refuses the login of {username}: check DOCKERHUB_TOKEN"
                )));
            }
            status => bail!("Docker Hub login: HTTP {status}"),
        }
        let body: Value = response.body_mut().read_json()?;
        let token = body["token"].as_str().context("Docker Hub login answers without a token")?.to_owned();
        Ok(Self { agent, url: url.to_owned(), token })
    }

    /// The full and the short description.
    pub fn description(&self, repository: &Repository) -> Result<(String, String)> {
        let mut response =
            self.agent.get(self.address(repository)).header("Authorization", self.bearer()).call()?;
        self.check(response.status().as_u16(), repository)?;
        let body: Value = response.body_mut().read_json()?;
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        Ok((text("full_description"), text("description")))
    }

    /// Replaces both descriptions.
    pub fn describe(&self, repository: &Repository, full: &str, short: &str) -> Result<()> {
        let body = json!({ "full_description": full, "description": short });
        let request = self.agent.patch(self.address(repository)).header("Authorization", self.bearer());
        self.check(request.send_json(body)?.status().as_u16(), repository)
    }

    fn address(&self, repository: &Repository) -> String {
        format!("{}/v2/repositories/{}/", self.url, repository.path())
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn check(&self, status: u16, repository: &Repository) -> Result<()> {
        match status {
            200 => Ok(()),
            401 | 403 => Err(missing(format!(
                "the Docker Hub account may not edit {repository}: give DOCKERHUB_TOKEN the scope read, write and delete"
            ))),
            404 => Err(missing(format!("Docker Hub has no repository {repository}: create it first"))),
            status => bail!("Docker Hub answers HTTP {status} for {repository}"),
        }
    }
}
