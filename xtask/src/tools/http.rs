//! One HTTP client for registries and Docker Hub: a pool of connections, the host's roots of trust, one retry policy.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use jiff::{Timestamp, fmt::rfc2822};
use serde::{Deserialize, Serialize};
pub use ureq::Agent;
use ureq::config::Config;
use ureq::http::{Method, Request, Response, Uri};
use ureq::middleware::MiddlewareNext;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Body, Proxy, ProxyBuilder, SendBody};

use crate::model::retry::{Cause, Tries};
use crate::output;

/// Waits for an answer, in seconds, unless `DEVBOX_HTTP_TIMEOUT` says otherwise.
pub const TIMEOUT_SECONDS: u64 = 60;

/// What went to one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub requests: usize,
    /// Those of them that ask for a change.
    pub writes: usize,
}

static SENT: Mutex<BTreeMap<String, Sent>> = Mutex::new(BTreeMap::new());

/// Requests of this process so far, retries included, by host; without those of docker and crane.
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
/// `no_proxy` lists the hosts that are reached without the proxy of the environment, as `NO_PROXY` does; loopback hosts
/// always are, as in Go's programs (docker, crane).
pub fn agent(timeout: Duration, no_proxy: &str) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder().http_status_as_error(false).tls_config(tls);
    let config = config.proxy(proxy(no_proxy));
    let config = config.timeout_connect(Some(timeout.min(Duration::from_secs(10))));
    // As many connections stay open as a preflight uses.
    let config =
        config.middleware(count).max_idle_connections_per_host(16).timeout_global(Some(timeout)).build();
    Agent::with_parts(config, DefaultConnector::default(), OnceResolver::default())
}

/// The proxy that the environment names, kept away from loopback hosts.
fn proxy(no_proxy: &str) -> Option<Proxy> {
    let named = Proxy::try_from_env()?;
    let mut proxy = Proxy::builder(named.protocol()).host(named.host()).port(named.port());
    if let (Some(username), Some(password)) = (named.username(), named.password()) {
        proxy = proxy.username(username).password(password);
    }
    let hosts = ["localhost", "127.*", "::1", "[::1]"].into_iter().chain(no_proxy.split(',').map(str::trim));
    hosts.filter(|host| !host.is_empty()).fold(proxy, ProxyBuilder::no_proxy).build().ok()
}

/// Sends a request, again after causes that pass by themselves; each further try is reported. `left` is the time until
/// nothing is tried again; `host` is who is asked.
pub fn send<T>(
    host: &str,
    left: impl Fn() -> Duration,
    request: impl Fn() -> Result<Response<T>, ureq::Error>,
) -> Result<Response<T>> {
    let mut tries = Tries::default();
    loop {
        let answer = request();
        let cause = cause_of(&answer);
        let wait = cause.and_then(|cause| tries.next(cause, left()));
        let (Some(cause), Some(wait)) = (cause, wait) else {
            return answer.map_err(|error| anyhow!("{host} does not answer: {error}"));
        };
        output::note(format!("{host}: {cause}; trying again in {:.1} s", wait.as_secs_f64()));
        thread::sleep(wait);
    }
}

/// Why a request may succeed later; `None` if its answer is final.
pub fn cause_of<T>(answer: &Result<Response<T>, ureq::Error>) -> Option<Cause> {
    match answer {
        Ok(response) => Cause::of_status(response.status().as_u16(), retry_after(response)),
        Err(error) => cause_of_error(error),
    }
}

/// Reads the whole body, so that a body that breaks off counts as a failed request.
pub fn whole(response: Response<Body>, limit: u64) -> Result<Response<Vec<u8>>, ureq::Error> {
    let (parts, mut body) = response.into_parts();
    let bytes = body.with_config().limit(limit).read_to_vec()?;
    Ok(Response::from_parts(parts, bytes))
}

/// A header's text, where there is one.
pub fn header<T>(response: &Response<T>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The texts of all headers of that name.
pub fn headers<T>(response: &Response<T>, name: &str) -> Vec<String> {
    let values = response.headers().get_all(name).iter();
    values.filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect()
}

/// The server's clock (RFC 9110, 6.6.1).
pub fn date<T>(response: &Response<T>) -> Option<Timestamp> {
    Some(rfc2822::parse(&header(response, "date")?).ok()?.timestamp())
}

/// Seconds to wait by the `Retry-After` header, which holds seconds or a date (RFC 9110, 10.2.3). A date is compared with
/// the server's own clock.
pub fn retry_after<T>(response: &Response<T>) -> Option<u64> {
    let text = header(response, "retry-after")?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(seconds);
    }
    let until = rfc2822::parse(&text).ok()?.timestamp();
    let now = date(response).unwrap_or_else(Timestamp::now);
    Some(u64::try_from(until.duration_since(now).as_secs()).unwrap_or(0))
}

/// The transient cause that an error of the HTTP client names.
fn cause_of_error(error: &ureq::Error) -> Option<Cause> {
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
