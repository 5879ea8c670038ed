//! What a public registry does beyond storing: accounts, lagging reads, a pull limit, referrers, immutable tags.
//!
//! One service can have several clients, each with its own address and faults; see [`crate::proxy`].

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use http::Method;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::accounts::{TokenServer, Tokens, basic};
use crate::deletion::Deletes;
use crate::http::{Request, Response};
use crate::immutable::ImmutableTags;
use crate::lag::{Lagging, View};
use crate::limits::Pulls;
use crate::referrers::{Referrers, subject};
use crate::registry::{Registry, digest};
use crate::route::Route;

pub(crate) struct Service {
    pub registry: Arc<Registry>,
    pub token_server: Mutex<Option<TokenServer>>,
    pub tokens: Tokens,
    pub lagging: Lagging,
    pub pulls: Pulls,
    pub referrers: Mutex<Referrers>,
    pub immutable: Mutex<Option<ImmutableTags>>,
    pub deletes: Mutex<Deletes>,
    /// How many tags a page of their list has.
    pub tags_per_page: Mutex<Option<usize>>,
}

impl Service {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            token_server: Mutex::default(),
            tokens: Tokens::default(),
            lagging: Lagging::default(),
            pulls: Pulls::default(),
            referrers: Mutex::default(),
            immutable: Mutex::default(),
            deletes: Mutex::default(),
            tags_per_page: Mutex::default(),
        }
    }

    /// Answers one request. `client` is where the rest of a large body comes from. Who is trusted needs no account.
    pub fn answer(
        &self,
        mut request: Request,
        route: &Route,
        client: Option<&TcpStream>,
        is_trusted: bool,
    ) -> io::Result<Response> {
        let account = if is_trusted {
            self.registry.authorize(&mut request);
            None
        } else {
            match self.authorize(&mut request, route) {
                Ok(account) => account,
                Err(answer) => return Ok(*answer),
            }
        };
        let account = account.as_deref();
        if route.is_manifest()
            && let Some(refusal) = self.pulls.count(account, &request)
        {
            return Ok(refusal);
        }
        let mut answer = match route {
            Route::Manifest { repository, reference } if request.method == Method::DELETE => {
                return self.delete(&request, repository, reference);
            }
            Route::Manifest { .. } if route.tag().is_some() => self.tag(&request, route),
            Route::Tags { repository } => self.tags(&request, repository),
            Route::Referrers { repository, digest } => self.referrers(&request, repository, digest),
            _ => self.forward(&request, client),
        }?;
        if route.is_manifest() && request.is_read() {
            self.pulls.state(account, &mut answer);
        } else if route.is_manifest() && answer.status.is_success() {
            self.note_subject(&request, route, &mut answer);
        }
        Ok(answer)
    }

    /// The account of a request (`None` for an anonymous one), or the answer to give instead of the registry's.
    fn authorize(&self, request: &mut Request, route: &Route) -> Result<Option<String>, Box<Response>> {
        let server = self.token_server.lock().unwrap().clone();
        let Some(server) = server else {
            return Ok(basic(request.header(AUTHORIZATION)).map(|(name, _)| name));
        };
        if *route == Route::Token {
            return Err(Box::new(self.tokens.answer(&server, request)));
        }
        let account = self.tokens.check(&server, request, route)?;
        request.headers.remove(AUTHORIZATION);
        Ok(account)
    }

    /// Passes a request on to the registry.
    fn forward(&self, request: &Request, client: Option<&TcpStream>) -> io::Result<Response> {
        self.registry.ask(request, client)
    }

    /// Reads or writes a tag.
    fn tag(&self, request: &Request, route: &Route) -> io::Result<Response> {
        let Some((repository, tag)) = route.tag() else { return self.forward(request, None) };
        let (name, lock) = (format!("{repository}:{tag}"), self.registry.lock(repository, tag));
        if request.is_read() {
            let _shared = lock.read().unwrap();
            return match self.lagging.read(&name) {
                View::Current => self.forward(request, None),
                View::Old(None) => Ok(unknown_tag(tag)),
                View::Old(Some(digest)) => self.forward(&by_digest(request, repository, &digest), None),
            };
        }
        let _alone = lock.write().unwrap();
        let before = self.registry.tag(repository, tag);
        let immutable = self.immutable.lock().unwrap().clone();
        let refusal = immutable.filter(|_| request.method == Method::PUT).and_then(|immutable| {
            immutable.refuse(repository, tag, before.as_deref(), &digest(&request.body))
        });
        if let Some(refusal) = refusal {
            return Ok(refusal);
        }
        let response = self.forward(request, None)?;
        if response.status.is_success() {
            self.lagging.note(&name, before, self.registry.tag(repository, tag));
        }
        Ok(response)
    }

    /// Deletes a manifest or a tag. Reads of its tags lag behind that as behind a write.
    fn delete(&self, request: &Request, repository: &str, reference: &str) -> io::Result<Response> {
        let form = *self.deletes.lock().unwrap();
        let before = self.registry.tags(repository);
        let response = match form.answer(&self.registry, request, repository, reference) {
            Some(answer) => answer,
            None => self.forward(request, None)?,
        };
        if response.status.is_success() {
            for (tag, digest) in before.into_iter().filter(|(tag, at)| tag == reference || at == reference) {
                self.lagging.note(&format!("{repository}:{tag}"), Some(digest), None);
            }
        }
        Ok(response)
    }

    fn referrers(&self, request: &Request, repository: &str, image: &str) -> io::Result<Response> {
        let form = *self.referrers.lock().unwrap();
        let is_visible = |digest: &str| self.lagging.view(&format!("{repository}@{digest}")) == View::Current;
        match form.answer(&self.registry, request, repository, image, is_visible) {
            Some(answer) => Ok(answer),
            None => self.forward(request, None),
        }
    }

    /// States that the subject of a pushed manifest was understood. In lists, it lags as a tag does.
    fn note_subject(&self, request: &Request, route: &Route, answer: &mut Response) {
        let form = *self.referrers.lock().unwrap();
        if form.confirms()
            && let Some(subject) = subject(&request.body)
        {
            answer.set("oci-subject", subject);
            let (repository, digest) = (route.repository().unwrap_or_default(), digest(&request.body));
            self.lagging.note(&format!("{repository}@{digest}"), None, Some(digest));
        }
    }

    /// A list of tags, without those whose first write is not visible yet, and perhaps in pages.
    fn tags(&self, request: &Request, repository: &str) -> io::Result<Response> {
        let mut response = self.forward(request, None)?;
        let Ok(mut list) = serde_json::from_slice::<Value>(&response.body) else { return Ok(response) };
        let is_visible = |tag: &&str| self.lagging.view(&format!("{repository}:{tag}")) != View::Old(None);
        let known = list["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut tags: Vec<String> = known.filter(is_visible).map(str::to_owned).collect();
        if !response.status.is_success() {
            return Ok(response);
        }
        if let Some(size) = *self.tags_per_page.lock().unwrap() {
            tags.sort();
            let query: HashMap<String, String> = request.query().into_iter().collect();
            let asked = query.get("n").and_then(|n| n.parse().ok()).unwrap_or(size).min(size);
            tags.retain(|tag| query.get("last").is_none_or(|last| tag > last));
            if tags.len() > asked {
                tags.truncate(asked);
                let last = tags.last().cloned().unwrap_or_default();
                let next = format!("<{}?last={last}&n={asked}>; rel=\"next\"", request.path());
                response.set("link", next);
            }
        }
        list["tags"] = json!(tags);
        response.set_body(list.to_string().into_bytes());
        Ok(response)
    }
}

/// The same request for a digest.
fn by_digest(request: &Request, repository: &str, digest: &str) -> Request {
    Request {
        method: request.method.clone(),
        target: format!("/v2/{repository}/manifests/{digest}"),
        headers: request.headers.clone(),
        body: Vec::new(),
        is_whole: true,
    }
}

/// The registry's own answer for a tag that does not exist.
fn unknown_tag(tag: &str) -> Response {
    let error =
        json!({ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": { "Tag": tag } });
    Response::json(404, &json!({ "errors": [error] }))
}
