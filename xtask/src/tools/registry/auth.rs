//! Who asks a registry: the account that docker is logged in with, and the tokens that it is given (Docker's token
//! authentication, distribution `docs/spec/auth`; RFC 7617 for Basic).
//!
//! crane finds the account as docker does: `auths`, `credsStore` and `credHelpers` of docker's configuration. Its answer
//! has three forms, recorded from crane 0.20: an account, "not found", and an error. Only the second means that nobody is
//! logged in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Deserialize;
use ureq::Agent;

use crate::error::missing;
use crate::model::reference::{self, Repository};
use crate::tools::crane;
use crate::tools::http;
use crate::tools::runner::Runner;

use super::{DOCUMENT_LIMIT, Denied};

/// What crane prints, with exit code 1, where docker's configuration has no entry for a host.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The user name that stands for an identity token (docker's `identitytoken`).
const IDENTITY: &str = "<token>";

/// Names this program to a token server.
const CLIENT: &str = "opencode-devbox";

/// Who is logged in to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    Nobody,
    User {
        name: String,
        secret: String,
    },
    /// A token that the token server exchanges for access tokens.
    Identity {
        token: String,
    },
}

/// crane's answer. Its names are capitalised, unlike those that its help shows.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Printed {
    username: String,
    secret: String,
}

impl Account {
    /// The account of a host in docker's configuration.
    pub fn find(runner: &Runner, host: &str) -> Result<Self> {
        let found = runner.ask(&crane::credentials(host))?;
        let said = format!("{}{}", found.stdout.trim(), found.stderr.trim());
        if !found.success && said.contains(NOT_FOUND) {
            return Ok(Self::Nobody);
        }
        if !found.success {
            let why = said.trim_start_matches("Error: ").lines().next().unwrap_or_default().to_owned();
            return Err(missing(format!(
                "the account for {host} cannot be read from docker's configuration: {why}; run `docker login {host}`"
            )));
        }
        Self::parse(&found.stdout).with_context(|| {
            format!("`{}` printed no account; run `docker login {host}`", crane::credentials(host))
        })
    }

    fn parse(text: &str) -> Result<Self> {
        // The text holds a secret, so an error must not quote it.
        let Ok(printed) = serde_json::from_str::<Printed>(text) else {
            bail!("expected {{\"Username\":…,\"Secret\":…}}");
        };
        match (printed.username, printed.secret) {
            (name, secret) if name.is_empty() || secret.is_empty() => {
                bail!("the entry has no user name or no secret")
            }
            (name, token) if name == IDENTITY => Ok(Self::Identity { token }),
            (name, secret) => Ok(Self::User { name, secret }),
        }
    }

    fn basic(&self) -> Option<String> {
        match self {
            Self::User { name, secret } => {
                Some(format!("Basic {}", BASE64.encode(format!("{name}:{secret}"))))
            }
            Self::Nobody | Self::Identity { .. } => None,
        }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::User { name, .. } => write!(f, "the account {name}"),
            Self::Identity { .. } => f.write_str("the account of the identity token"),
        }
    }
}

/// Accounts by host and authorization headers by repository and action, each found once.
#[derive(Default)]
pub struct Credentials {
    accounts: Mutex<HashMap<String, Account>>,
    headers: Mutex<HashMap<String, String>>,
}

impl Credentials {
    pub fn account(&self, runner: &Runner, host: &str) -> Result<Account> {
        // Held while asking, so that requests that start together start one crane.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(host) {
            return Ok(account.clone());
        }
        let account = Account::find(runner, host)?;
        accounts.insert(host.to_owned(), account.clone());
        Ok(account)
    }

    /// The header that was accepted last for this action, if any.
    pub fn header(&self, repository: &Repository, action: &str) -> Option<String> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.get(&format!("{repository} {action}")).cloned()
    }

    pub fn remember(&self, repository: &Repository, action: &str, header: &str) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.insert(format!("{repository} {action}"), header.to_owned());
    }

    /// The authorization header that answers a challenge; `None` where there is no account to answer it with.
    pub fn answer(
        &self,
        agent: &Agent,
        runner: &Runner,
        repository: &Repository,
        action: &str,
        challenge: &str,
    ) -> Result<Option<String>> {
        let account = self.account(runner, repository.host())?;
        let scheme = challenge.split(' ').next().unwrap_or_default().to_lowercase();
        match (scheme.as_str(), &account) {
            ("bearer", _) => {}
            ("basic", Account::Identity { .. }) => bail!(
                "{} asks for a user name and a password, and docker's configuration has an identity token: run `docker login {}`",
                repository.host(),
                repository.host()
            ),
            ("basic", _) => return Ok(account.basic()),
            _ => bail!("{} asks for the unknown authentication {scheme:?}", repository.host()),
        }
        let challenge = Challenge::parse(challenge)?;
        challenge.check_realm(repository)?;
        token(agent, runner, repository, action, &challenge, &account)
            .map(|token| Some(format!("Bearer {token}")))
    }
}

/// Where to ask for a token, and for which service.
struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    fn parse(text: &str) -> Result<Self> {
        let realm = challenge_part(text, "realm").context("a token challenge without a realm")?;
        Ok(Self { realm, service: challenge_part(text, "service") })
    }

    /// A password must not travel in the clear to another machine, whatever a challenge asks for.
    fn check_realm(&self, repository: &Repository) -> Result<()> {
        let plain = self.realm.strip_prefix("http://");
        let host = plain.and_then(|rest| rest.split('/').next());
        if host.is_some_and(|host| !reference::is_loopback(host)) {
            bail!(
                "{} names a token server without TLS, {}: no password is sent there",
                repository.host(),
                self.realm
            );
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Asks the token server. An identity token is exchanged by POST (`docs/spec/auth/oauth`), an account is named by Basic.
fn token(
    agent: &Agent,
    runner: &Runner,
    repository: &Repository,
    action: &str,
    challenge: &Challenge,
    account: &Account,
) -> Result<String> {
    // A scope for each repository; a form holds them in one field, a query repeats the field.
    let scope = format!("repository:{}:{action}", repository.path());
    let service = challenge.service.as_deref();
    let ask = || {
        let response = match account {
            Account::Identity { token } => {
                let form =
                    [("grant_type", "refresh_token"), ("client_id", CLIENT), ("scope", scope.as_str())];
                let form = form.into_iter().chain([("refresh_token", token.as_str())]);
                let form = form.chain(service.map(|service| ("service", service)));
                agent.post(&challenge.realm).send_form(form)?
            }
            Account::Nobody | Account::User { .. } => {
                let mut request = agent.get(&challenge.realm);
                for scope in scope.split(' ') {
                    request = request.query("scope", scope);
                }
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                if let Some(basic) = account.basic() {
                    request = request.header("Authorization", basic);
                }
                request.call()?
            }
        };
        http::whole(response, DOCUMENT_LIMIT)
    };
    let response = http::send(&challenge.realm, || runner.left(), ask)?;
    match response.status().as_u16() {
        200 => {}
        400 | 401 | 403 => return Err(refused(repository, action, account, response.status().as_u16())),
        status => bail!("{} gives no token: HTTP {status}", challenge.realm),
    }
    let answer: TokenAnswer = serde_json::from_slice(response.body())
        .with_context(|| format!("{} answers without a token", challenge.realm))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    token.with_context(|| format!("{} answers without a token", challenge.realm))
}

fn refused(repository: &Repository, action: &str, account: &Account, status: u16) -> anyhow::Error {
    let (host, path) = (repository.host(), repository.path());
    Denied::error(match account {
        Account::Nobody => {
            format!("nobody is logged in to {host}, and {path} asks for {action}; run `docker login {host}`")
        }
        _ => format!("{host} refuses the login of {account} (HTTP {status}); run `docker login {host}`"),
    })
}

/// `name="value"` in a WWW-Authenticate header (RFC 9110, 11.6.1); the quotes may be missing around a token.
fn challenge_part(challenge: &str, name: &str) -> Option<String> {
    let (_, parameters) = challenge.split_once(' ')?;
    let mut rest = parameters.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next.trim_start_matches([',', ' ']);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_the_form_that_crane_prints() {
        let user = Account::User { name: "you".into(), secret: "pw".into() };
        assert_eq!(Account::parse(r#"{"Username":"you","Secret":"pw"}"#).expect("an account"), user);
        let identity = Account::Identity { token: "abc".into() };
        let printed = "{\"Username\":\"\\u003ctoken\\u003e\",\"Secret\":\"abc\"}\n";
        assert_eq!(Account::parse(printed).expect("an account"), identity);
        // A `registrytoken` entry prints as two empty strings, and crane's help shows names that it does not print.
        for text in [r#"{"Username":"","Secret":""}"#, r#"{"username":"you","password":"pw"}"#, "", "null"] {
            assert!(Account::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_does_not_quote_the_secret() {
        let error = Account::parse(r#"{"Username":"you","Secret":"s3cret""#).expect_err("cut short");
        assert!(!format!("{error:#}").contains("s3cret"));
    }

    #[test]
    fn a_challenge_is_read_in_any_order_and_with_or_without_quotes() {
        let text = r#"Bearer service="a, b",realm="https://auth.example/token", scope=x"#;
        let part = |name| challenge_part(text, name);
        assert_eq!(part("realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(part("service").as_deref(), Some("a, b"));
        assert_eq!((part("scope").as_deref(), part("error")), (Some("x"), None));
    }

    #[test]
    fn no_password_is_sent_to_a_plain_token_server_elsewhere() {
        let repository: Repository = "registry.example/a".parse().expect("a repository");
        let at = |realm: &str| Challenge { realm: realm.into(), service: None }.check_realm(&repository);
        assert!(at("https://auth.example/token").is_ok() && at("http://127.0.0.1:5001/token").is_ok());
        assert!(at("http://auth.example/token").is_err());
    }
}
