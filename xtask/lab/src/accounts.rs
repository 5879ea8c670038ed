//! Accounts, and a token server with scopes as Docker Hub has it (distribution-spec, "Token Authentication").
//!
//! A token server grants what the account may do of what was asked, and answers 200 even if that is nothing: whether a
//! scope is missing shows only at the registry. Tokens are opaque, and known to this process alone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::http::{Request, Response};
use crate::pattern::Patterns;
use crate::route::{Route, TOKEN_PATH};

/// Name of the service in challenges.
const SERVICE: &str = "registry.lab";

#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    pub password: String,
    pull: Patterns,
    push: Patterns,
}

impl Account {
    /// An account that may do nothing yet. With htpasswd, every account may do everything.
    pub fn new(name: &str, password: &str) -> Self {
        let (name, password) = (name.to_owned(), password.to_owned());
        Self { name, password, pull: Patterns::default(), push: Patterns::default() }
    }

    /// May read the repositories that match; `*` matches any text, `/` included.
    #[must_use]
    pub fn may_pull(mut self, repositories: &str) -> Self {
        self.pull.add(repositories);
        self
    }

    /// May read, write and delete in the repositories that match.
    #[must_use]
    pub fn may_push(mut self, repositories: &str) -> Self {
        self.push.add(repositories);
        self.may_pull(repositories)
    }

    /// The value of an `Authorization` header.
    pub(crate) fn basic(&self) -> HeaderValue {
        let text = format!("Basic {}", BASE64.encode(format!("{}:{}", self.name, self.password)));
        text.parse().unwrap()
    }

    fn may(&self, action: &str, repository: &str) -> bool {
        match action {
            "pull" => self.pull.match_any(repository),
            "push" | "delete" => self.push.match_any(repository),
            _ => false,
        }
    }
}

/// How a registry answers a token that does not allow what is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// 401 with a challenge, as Docker Hub and the distribution registry do.
    #[default]
    Unauthorized,
    /// 403 `DENIED`, as GitHub, GitLab and Harbor do.
    Forbidden,
    /// 401 with a challenge for Basic, as Gitea does (`routers/api/packages/api.go`, reqPackageAccess). It takes a name and a
    /// password in place of a token, too.
    GiteaUnauthorized,
    /// 403 `DENIED` from the token server already, as GitHub does for a package that an account may not read, and for a
    /// wrong password.
    AtToken,
}

#[derive(Clone, Debug)]
pub struct TokenServer {
    accounts: Vec<Account>,
    public: Patterns,
    lifetime: Duration,
    has_identity_tokens: bool,
    has_oauth: bool,
    refusal: Refusal,
    status: Option<u16>,
}

impl TokenServer {
    /// Tokens of 300 s, identity tokens, OAuth2, and no public repository.
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self {
            accounts: accounts.into_iter().collect(),
            public: Patterns::default(),
            lifetime: Duration::from_secs(300),
            has_identity_tokens: true,
            has_oauth: true,
            refusal: Refusal::default(),
            status: None,
        }
    }

    /// Anyone may pull from the repositories that match, with or without an account.
    #[must_use]
    pub fn public(mut self, repositories: &str) -> Self {
        self.public.add(repositories);
        self
    }

    /// How long a token is accepted, and what `expires_in` states.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Hands out no refresh tokens, so that `docker login` keeps the password.
    #[must_use]
    pub fn without_identity_tokens(mut self) -> Self {
        self.has_identity_tokens = false;
        self
    }

    /// Answers POST with 404, as token servers without OAuth2 do.
    #[must_use]
    pub fn without_oauth(mut self) -> Self {
        self.has_oauth = false;
        self
    }

    #[must_use]
    pub fn refusal(mut self, refusal: Refusal) -> Self {
        self.refusal = refusal;
        self
    }

    /// Answers every request for a token with this status.
    #[must_use]
    pub fn failing_with(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.name == name)
    }

    /// What of an asked scope is granted.
    fn granted(&self, account: Option<&str>, scope: &Scope) -> Scope {
        let account = account.and_then(|name| self.account(name));
        let may = |action: &String| {
            account.is_some_and(|account| account.may(action, &scope.repository))
                || (action == "pull" && self.public.match_any(&scope.repository))
        };
        let actions = scope.actions.iter().filter(|action| may(action)).cloned().collect();
        Scope { repository: scope.repository.clone(), actions }
    }
}

/// `repository:NAME:ACTION,ACTION`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    repository: String,
    actions: Vec<String>,
}

impl Scope {
    /// All scopes of a space-separated list that are about repositories.
    fn list(text: &str) -> Vec<Self> {
        text.split(' ').filter_map(Self::parse).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let (repository, actions) = text.strip_prefix("repository:")?.rsplit_once(':')?;
        let actions = actions.split(',').map(str::to_owned).collect();
        Some(Self { repository: repository.to_owned(), actions })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "repository:{}:{}", self.repository, self.actions.join(","))
    }
}

#[derive(Debug)]
struct Grant {
    account: Option<String>,
    scopes: Vec<Scope>,
    expires: Instant,
}

/// Tokens that were handed out.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    access: Mutex<HashMap<String, Grant>>,
    /// Accounts by identity token.
    identity: Mutex<HashMap<String, String>>,
}

fn random_token() -> String {
    format!("lab-{:032x}", fastrand::u128(..))
}

impl Tokens {
    /// Ends all access tokens now; identity tokens stay valid.
    pub fn expire(&self) {
        self.access.lock().unwrap().clear();
    }

    /// Ends all identity tokens now.
    pub fn revoke_identities(&self) {
        self.identity.lock().unwrap().clear();
    }

    /// A token from which an account gets access tokens, as `docker login` keeps it.
    pub fn identity(&self, account: &str) -> String {
        let token = random_token();
        self.identity.lock().unwrap().insert(token.clone(), account.to_owned());
        token
    }

    /// Answers a request for a token: GET with Basic authorization or none, or an OAuth2 POST.
    pub fn answer(&self, server: &TokenServer, request: &Request) -> Response {
        if let Some(status) = server.status {
            return Response::failure(status);
        }
        match request.method {
            Method::GET => self.answer_get(server, request),
            Method::POST if server.has_oauth => self.answer_post(server, request),
            _ => Response::new(404, "text/plain", "404 page not found\n"),
        }
    }

    fn answer_get(&self, server: &TokenServer, request: &Request) -> Response {
        let query = request.query();
        let is_wanted = |name: &str| query.iter().any(|(field, value)| field == name && value == "true");
        let scopes = query.iter().filter(|(name, _)| name == "scope");
        let scopes: Vec<Scope> = scopes.flat_map(|(_, value)| Scope::list(value)).collect();
        let account = match basic(request.header(AUTHORIZATION)) {
            None if request.headers.contains_key(AUTHORIZATION) => return refuse_login(),
            None => None,
            Some((name, password)) => match server.account(&name) {
                Some(account) if account.password == password => Some(name),
                _ if server.refusal == Refusal::AtToken => return Response::error(403, "DENIED", "denied"),
                _ => return refuse_login(),
            },
        };
        if server.refusal == Refusal::AtToken
            && scopes.iter().any(|scope| server.granted(account.as_deref(), scope).actions != scope.actions)
        {
            return Response::error(403, "DENIED", "requested access to the resource is denied");
        }
        let (token, scopes) = self.grant(server, account.clone(), &scopes);
        let mut answer = token_answer(server, &token, &scopes);
        answer["token"] = json!(token);
        if let Some(account) = account.filter(|_| server.has_identity_tokens && is_wanted("offline_token")) {
            answer["refresh_token"] = json!(self.identity(&account));
        }
        Response::json(200, &answer)
    }

    fn answer_post(&self, server: &TokenServer, request: &Request) -> Response {
        let form: HashMap<String, String> = form_urlencoded::parse(&request.body).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let known = match field("grant_type") {
            "refresh_token" => self.identity.lock().unwrap().get(field("refresh_token")).cloned(),
            "password" => {
                let account = server.account(field("username"));
                account.filter(|it| it.password == field("password")).map(|it| it.name.clone())
            }
            _ => return Response::json(400, &json!({ "error": "unsupported_grant_type" })),
        };
        let Some(account) = known else { return refuse_login() };
        let (token, scopes) = self.grant(server, Some(account.clone()), &Scope::list(field("scope")));
        let mut answer = token_answer(server, &token, &scopes);
        if field("grant_type") == "refresh_token" {
            answer["refresh_token"] = json!(field("refresh_token"));
        } else if server.has_identity_tokens && field("access_type") == "offline" {
            answer["refresh_token"] = json!(self.identity(&account));
        }
        Response::json(200, &answer)
    }

    fn grant(&self, server: &TokenServer, account: Option<String>, asked: &[Scope]) -> (String, Vec<Scope>) {
        let granted = asked.iter().map(|scope| server.granted(account.as_deref(), scope));
        let scopes: Vec<Scope> = granted.filter(|scope| !scope.actions.is_empty()).collect();
        let token = random_token();
        let grant = Grant { account, scopes: scopes.clone(), expires: Instant::now() + server.lifetime };
        self.access.lock().unwrap().insert(token.clone(), grant);
        (token, scopes)
    }

    /// The account of a request (`None` for an anonymous one), or the answer that refuses it.
    pub fn check(
        &self,
        server: &TokenServer,
        request: &Request,
        route: &Route,
    ) -> Result<Option<String>, Box<Response>> {
        let needed = route.scopes(request);
        let bearer = request.header(AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
        let mut tokens = self.access.lock().unwrap();
        let by_name =
            basic(request.header(AUTHORIZATION)).filter(|_| server.refusal == Refusal::GiteaUnauthorized);
        let by_name = by_name.filter(|(name, password)| {
            server.account(name).is_some_and(|account| account.password == *password)
        });
        if let Some((name, _)) = by_name {
            let asked = needed.iter().map(|(repository, actions)| Scope {
                repository: repository.clone(),
                actions: actions.iter().map(|it| (*it).to_owned()).collect(),
            });
            let scopes = asked.map(|scope| server.granted(Some(&name), &scope)).collect();
            let expires = Instant::now() + server.lifetime;
            tokens.insert(bearer.to_owned(), Grant { account: Some(name), scopes, expires });
        } else if bearer.is_empty() {
            tokens.remove(bearer);
        }
        let Some(grant) = tokens.get(bearer).filter(|grant| grant.expires > Instant::now()) else {
            let error = if bearer.is_empty() { "" } else { "invalid_token" };
            return Err(Box::new(challenge(request, &needed, error)));
        };
        let allows = |repository: &str, action: &&str| {
            grant.scopes.iter().any(|scope| {
                scope.repository == repository && scope.actions.iter().any(|known| known == action)
            })
        };
        let is_allowed = needed.iter().all(|(name, actions)| actions.iter().all(|it| allows(name, it)));
        match server.refusal {
            _ if is_allowed => Ok(grant.account.clone()),
            Refusal::Unauthorized => Err(Box::new(challenge(request, &needed, "insufficient_scope"))),
            Refusal::GiteaUnauthorized => {
                let message = "user should have specific permission or be a site admin\n";
                let answer = Response::new(401, "text/plain;charset=utf-8", message);
                Err(Box::new(answer.with("www-authenticate", "Basic realm=\"Gitea Package API\"")))
            }
            Refusal::Forbidden | Refusal::AtToken => {
                let message = "requested access to the resource is denied";
                Err(Box::new(Response::error(403, "DENIED", message)))
            }
        }
    }
}

fn token_answer(server: &TokenServer, token: &str, scopes: &[Scope]) -> Value {
    let scope: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let issued = jiff::Timestamp::now().to_string();
    json!({
        "access_token": token, "scope": scope.join(" "),
        "expires_in": server.lifetime.as_secs(), "issued_at": issued,
    })
}

/// Docker Hub's answer to a wrong password.
fn refuse_login() -> Response {
    Response::json(401, &json!({ "details": "incorrect username or password" }))
}

fn challenge(request: &Request, needed: &[(String, Vec<&'static str>)], error: &str) -> Response {
    let realm = format!("http://{}{TOKEN_PATH}", request.header(HOST));
    let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"");
    let scope: Vec<String> =
        needed.iter().map(|(name, actions)| format!("repository:{name}:{}", actions.join(","))).collect();
    if !scope.is_empty() {
        challenge += &format!(",scope=\"{}\"", scope.join(" "));
    }
    if !error.is_empty() {
        challenge += &format!(",error=\"{error}\"");
    }
    Response::error(401, "UNAUTHORIZED", "authentication required").with("www-authenticate", challenge)
}

/// Name and password of a Basic authorization.
pub(crate) fn basic(authorization: &str) -> Option<(String, String)> {
    let bytes = BASE64.decode(authorization.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
