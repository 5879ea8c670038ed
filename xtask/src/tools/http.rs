//! One HTTP client for registries and Docker Hub: a pool of connections, the host's roots of trust, one retry policy.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::model::retry::{Cause, Tries};

/// Waits for an answer, in seconds, unless `DEVBOX_HTTP_TIMEOUT` says otherwise.
pub const TIMEOUT_SECONDS: u64 = 60;

/// A client whose requests end after `timeout`. Answers of any status are answers.
pub fn agent(timeout: Duration) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder().http_status_as_error(false).tls_config(tls);
    let config = config.timeout_connect(Some(timeout.min(Duration::from_secs(10))));
    // As many connections stay open as a preflight uses.
    config.max_idle_connections_per_host(16).timeout_global(Some(timeout)).build().into()
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
