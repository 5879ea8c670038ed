//! One HTTP client for registries and Docker Hub: a pool of connections, the host's roots of trust, one retry policy.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::Serialize;
pub use ureq::Agent;
use ureq::config::Config;
use ureq::http::{Method, Request, Response, Uri};
use ureq::middleware::MiddlewareNext;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Body, SendBody};

use crate::model::retry::{Cause, Tries};

/// Waits for an answer, in seconds, unless `DEVBOX_HTTP_TIMEOUT` says otherwise.
pub const TIMEOUT_SECONDS: u64 = 60;

/// What went to one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    pub requests: usize,
    /// Those of them that ask for a change.
    pub writes: usize,
}

static SENT: Mutex<BTreeMap<String, Sent>> = Mutex::new(BTreeMap::new());

/// What this process has sent so far, tries included, by host. What docker and crane send is their own.
pub fn sent() -> BTreeMap<String, Sent> {
    SENT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn count(request: Request<SendBody<'_>>, next: MiddlewareNext<'_>) -> Result<Response<Body>, ureq::Error> {
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let mut all = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    let sent = all.entry(host).or_default();
    sent.requests += 1;
    sent.writes += usize::from(writes);
    drop(all);
    next.handle(request)
}

/// The client of a run, whose copies share its pool. Its requests end after `timeout`, unless one says otherwise.
/// Answers of any status are answers.
pub fn agent(timeout: Duration) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder().http_status_as_error(false).tls_config(tls);
    let config = config.timeout_connect(Some(timeout.min(Duration::from_secs(10))));
    // As many connections stay open as a preflight uses.
    let config =
        config.middleware(count).max_idle_connections_per_host(16).timeout_global(Some(timeout)).build();
    Agent::with_parts(config, DefaultConnector::default(), OnceResolver::default())
}

/// Sends a request, again after causes that pass by themselves, each told. `left` is the time until nothing is tried
/// again; `host` is who is asked.
pub fn send(
    host: &str,
    left: impl Fn() -> Duration,
    request: impl Fn() -> Result<Response<Body>, ureq::Error>,
) -> Result<Response<Body>> {
    let mut tries = Tries::default();
    loop {
        let answer = request();
        let cause = match &answer {
            Ok(response) => {
                let after = header(response, "retry-after").and_then(|text| text.parse().ok());
                Cause::of_status(response.status().as_u16(), after)
            }
            Err(error) => cause_of(error),
        };
        let wait = cause.and_then(|cause| tries.next(cause, left()));
        let (Some(cause), Some(wait)) = (cause, wait) else {
            return answer.map_err(|error| anyhow!("{host} does not answer: {error}"));
        };
        eprintln!("{host}: {cause}; trying again in {:.1} s", wait.as_secs_f64());
        thread::sleep(wait);
    }
}

/// A header's text, where there is one.
pub fn header<T>(response: &Response<T>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The transient cause that an error of the HTTP client names.
fn cause_of(error: &ureq::Error) -> Option<Cause> {
    use std::io::ErrorKind;
    match error {
        ureq::Error::Timeout(_) => Some(Cause::Timeout),
        ureq::Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Some(Cause::Reset)
            }
            ErrorKind::UnexpectedEof => Some(Cause::UnexpectedEof),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(Cause::Timeout),
            _ => None,
        },
        _ => None,
    }
}

/// Asks for the address of a host once. A dozen connections that start together ask a dozen times else, and one lost
/// packet among them costs five seconds.
#[derive(Debug, Default)]
struct OnceResolver {
    known: Mutex<HashMap<String, Arc<Mutex<Option<ResolvedSocketAddrs>>>>>,
    asked: DefaultResolver,
}

impl Resolver for OnceResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let key = format!("{:?} {:?}", uri.scheme(), uri.authority());
        let entry = self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        // Held while asking, so that those who want the same host meanwhile wait for the one answer.
        let mut known = entry.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = match &mut *known {
            Some(addresses) => addresses,
            unknown => unknown.insert(self.asked.resolve(uri, config, timeout)?),
        };
        let mut copy = self.empty();
        addresses.iter().for_each(|address| copy.push(*address));
        Ok(copy)
    }
}
