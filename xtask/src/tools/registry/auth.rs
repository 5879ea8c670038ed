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
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

use crate::error::missing;
use crate::model::reference::{self, Repository};
use crate::tools::crane;
use crate::tools::http;
use crate::tools::runner::Runner;

use super::{DOCUMENT_LIMIT, Denied, reason};

/// What crane prints, with exit code 1, where docker's configuration has no entry for a host.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The user name that marks an identity token (docker's `identitytoken`).
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
    /// `DOCKER_AUTH_CONFIG`, which docker 28.3 reads, and crane 0.20 only if there is a `config.json`.
    pub variable: Option<String>,
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
        if account == Account::Nobody && self.is_in_variable(host) {
            return Err(missing(format!(
                "the account for {host} is in DOCKER_AUTH_CONFIG, which crane reads beside a config.json of docker only: run \
                 `docker login {host}`"
            )));
        }
        accounts.insert(host.to_owned(), account.clone());
        Ok(account)
    }

    fn is_in_variable(&self, host: &str) -> bool {
        let config: Value =
            self.variable.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let name = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
        config["auths"][name].is_object()
    }

    /// The header that was accepted last for this action, if any.
    pub fn header(&self, repository: &Repository, action: &str) -> Option<String> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.get(&format!("{repository} {action}")).cloned()
    }

    /// Asks for the account of a host again: the secret of a helper may have expired. `None` if it is still the same.
    fn renewed(&self, runner: &Runner, host: &str, old: &Account) -> Result<Option<Account>> {
        let account = Account::find(runner, host)?;
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.insert(host.to_owned(), account.clone());
        Ok((account != *old).then_some(account))
    }

    pub fn remember(&self, repository: &Repository, action: &str, header: &str) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.insert(format!("{repository} {action}"), header.to_owned());
    }

    /// The authorization header that answers a challenge; `None` where there is no account to answer it with. `refused` is
    /// the header that was challenged.
    pub fn answer(
        &self,
        agent: &Agent,
        runner: &Runner,
        repository: &Repository,
        action: &str,
        challenges: &[String],
        refused: Option<&str>,
    ) -> Result<Option<String>> {
        let host = repository.host();
        let account = self.account(runner, host)?;
        let challenge = match (Challenge::choose(challenges)?, &account) {
            // A token was taken, and does not allow this: a password would not either.
            (Challenge::Basic, _) if refused.is_some_and(|it| it.starts_with("Bearer ")) => return Ok(None),
            (Challenge::Basic, Account::Identity { .. }) => bail!(
                "{host} asks for a user name and a password, and docker's configuration has an identity token: run `docker login {host}`"
            ),
            (Challenge::Basic, _) if refused.is_some() && refused == account.basic().as_deref() => {
                return Ok(self.renewed(runner, host, &account)?.and_then(|account| account.basic()));
            }
            (Challenge::Basic, _) => return Ok(account.basic()),
            (challenge @ Challenge::Bearer { .. }, _) => challenge,
        };
        let ask = |account: &Account| -> Result<Option<String>> {
            let token = token(agent, runner, repository, action, &challenge, account)?;
            Ok(Some(format!("Bearer {token}")))
        };
        match ask(&account) {
            Err(error) if error.is::<Denied>() => match self.renewed(runner, host, &account)? {
                Some(account) => ask(&account),
                None => Err(error),
            },
            answer => answer,
        }
    }
}

/// A way to log in that a registry offers.
enum Challenge {
    Basic,
    /// Where to ask for a token, and for which service.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// The one to answer of all that a registry offers, tokens first.
    fn choose(headers: &[String]) -> Result<Self> {
        let offered: Vec<(String, String)> = headers.iter().flat_map(|header| challenges(header)).collect();
        let of = |scheme: &str| offered.iter().find(|(own, _)| own.eq_ignore_ascii_case(scheme));
        if let Some((_, parameters)) = of("bearer") {
            let part = |name| challenge_part(parameters, name);
            let realm = part("realm").context("a token challenge without a realm")?;
            return Ok(Self::Bearer { realm, service: part("service") });
        }
        if of("basic").is_some() {
            return Ok(Self::Basic);
        }
        let schemes: Vec<&str> = offered.iter().map(|(scheme, _)| scheme.as_str()).collect();
        bail!("the registry asks for the unknown authentication {:?}", schemes.join(", "))
    }
}

/// A password must not travel in the clear to another machine, whatever a challenge asks for.
fn check_realm(realm: &str, repository: &Repository) -> Result<()> {
    let plain = realm.strip_prefix("http://");
    let host = plain.and_then(|rest| rest.split('/').next());
    if host.is_some_and(|host| !reference::is_loopback(host)) {
        bail!("{} names a token server without TLS, {realm}: no password is sent there", repository.host());
    }
    Ok(())
}

/// Schemes and parameters of a WWW-Authenticate header, which may hold several challenges (RFC 9110, 11.6.1).
fn challenges(header: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut quoted = false;
    let parts = header.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let (first, rest) = part.split_once(' ').unwrap_or((part, ""));
        match found.last_mut() {
            Some((_, parameters)) if first.contains('=') => *parameters += &format!(",{part}"),
            _ => found.push((first.to_owned(), rest.to_owned())),
        }
    }
    found
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
    let Challenge::Bearer { realm, service } = challenge else {
        bail!("no token answers a challenge for Basic")
    };
    check_realm(realm, repository)?;
    // A scope for each repository; a form holds them in one field, a query repeats the field.
    let scope = format!("repository:{}:{action}", repository.path());
    let service = service.as_deref();
    let ask = || {
        let response = match account {
            Account::Identity { token } => {
                let form =
                    [("grant_type", "refresh_token"), ("client_id", CLIENT), ("scope", scope.as_str())];
                let form = form.into_iter().chain([("refresh_token", token.as_str())]);
                let form = form.chain(service.map(|service| ("service", service)));
                agent.post(realm).send_form(form)?
            }
            Account::Nobody | Account::User { .. } => {
                let mut request = agent.get(realm);
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
    let response = http::send(realm, || runner.left(), ask)?;
    match response.status().as_u16() {
        200 => {}
        400 | 401 | 403 => return Err(refused(repository, action, account, &response)),
        status => bail!("{realm} gives no token: HTTP {status}{}", reason(&response)),
    }
    let answer: TokenAnswer = serde_json::from_slice(response.body())
        .with_context(|| format!("{realm} answers without a token"))?;
    // Either may be empty if the other is set.
    let mut tokens = [answer.token, answer.access_token].into_iter().flatten();
    tokens.find(|token| !token.is_empty()).with_context(|| format!("{realm} answers without a token"))
}

fn refused(
    repository: &Repository,
    action: &str,
    account: &Account,
    response: &Response<Vec<u8>>,
) -> anyhow::Error {
    let (host, path, status) = (repository.host(), repository.path(), response.status().as_u16());
    let reason = reason(response);
    Denied::error(match (account, status) {
        (Account::Nobody, _) => {
            format!("nobody is logged in to {host}, and {path} asks for {action}; run `docker login {host}`")
        }
        // GitHub answers so to a wrong password and to an account without the right.
        (_, 403) => format!(
            "{host} gives {account} no {action} access to {path}, or does not accept its password (HTTP 403{reason}); run \
             `docker login {host}` with an account or token that has"
        ),
        _ => format!("{host} refuses the login of {account} (HTTP {status}); run `docker login {host}`"),
    })
}

/// `name="value"` among the parameters of a challenge (RFC 9110, 11.6.1); the quotes may be missing around a token.
fn challenge_part(parameters: &str, name: &str) -> Option<String> {
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
        let text = r#"Negotiate, Bearer service="a, b",realm="https://auth.example/token", scope=x, Basic realm="c""#;
        let found = challenges(text);
        let schemes: Vec<&str> = found.iter().map(|(scheme, _)| scheme.as_str()).collect();
        assert_eq!(schemes, ["Negotiate", "Bearer", "Basic"]);
        let part = |name| challenge_part(&found[1].1, name);
        assert_eq!(part("realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(part("service").as_deref(), Some("a, b"));
        assert_eq!((part("scope").as_deref(), part("error")), (Some("x"), None));
    }

    #[test]
    fn no_password_is_sent_to_a_plain_token_server_elsewhere() {
        let repository: Repository = "registry.example/a".parse().expect("a repository");
        let at = |realm: &str| check_realm(realm, &repository);
        assert!(at("https://auth.example/token").is_ok() && at("http://127.0.0.1:5001/token").is_ok());
        assert!(at("http://auth.example/token").is_err());
    }
}
