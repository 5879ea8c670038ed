//! A pull limit, counted as Docker Hub counts: each GET of a manifest is a pull, a HEAD is free.
//!
//! Docker does not document whether a GET that ends in 404 counts: here it does. The limit belongs to the account, and
//! to all who are not logged in together. Answers to HEAD and GET of a manifest that exists state what is left.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::Method;

use crate::faults::RetryAfter;
use crate::http::{Request, Response};
use crate::proxy::retry_after;

/// The window of Docker Hub's limit.
const SIX_HOURS: Duration = Duration::from_secs(21600);

#[derive(Clone, Copy, Debug)]
pub struct PullLimit {
    limit: usize,
    window: Duration,
    retry_after: Option<RetryAfter>,
}

impl From<usize> for PullLimit {
    fn from(limit: usize) -> Self {
        Self { limit, window: SIX_HOURS, retry_after: None }
    }
}

impl PullLimit {
    /// The time after which a pull is forgotten; six hours unless set.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// States when to try again.
    #[must_use]
    pub fn retry_after(mut self, retry_after: RetryAfter) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

/// The pulls of each account.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    limit: Mutex<Option<PullLimit>>,
    times: Mutex<HashMap<String, VecDeque<Instant>>>,
}

impl Pulls {
    /// Sets the limit and forgets all pulls.
    pub fn set(&self, limit: Option<PullLimit>) {
        *self.limit.lock().unwrap() = limit;
        self.times.lock().unwrap().clear();
    }

    /// Counts a request for a manifest; returns the refusal if nothing is left.
    pub fn count(&self, account: Option<&str>, request: &Request) -> Option<Response> {
        let limit = (*self.limit.lock().unwrap())?;
        if request.method != Method::GET {
            return None;
        }
        if self.left(limit, account) == 0 {
            let message = "You have reached your pull rate limit.";
            let mut answer = Response::error(429, "TOOMANYREQUESTS", message);
            if let Some(after) = limit.retry_after {
                answer.set("retry-after", retry_after(after));
            }
            return Some(answer);
        }
        let mut times = self.times.lock().unwrap();
        times.entry(key(account)).or_default().push_back(Instant::now());
        None
    }

    /// Adds what is left to the answer.
    pub fn state(&self, account: Option<&str>, answer: &mut Response) {
        let Some(limit) = *self.limit.lock().unwrap() else { return };
        if answer.status.is_success() {
            let window = limit.window.as_secs();
            answer.set("ratelimit-limit", format!("{};w={window}", limit.limit));
            answer.set("ratelimit-remaining", format!("{};w={window}", self.left(limit, account)));
            answer.set("docker-ratelimit-source", key(account));
        }
    }

    fn left(&self, limit: PullLimit, account: Option<&str>) -> usize {
        let mut times = self.times.lock().unwrap();
        let times = times.entry(key(account)).or_default();
        while times.front().is_some_and(|time| time.elapsed() >= limit.window) {
            times.pop_front();
        }
        limit.limit.saturating_sub(times.len())
    }
}

/// Docker Hub names the account, or the address of a client without one.
fn key(account: Option<&str>) -> String {
    account.unwrap_or("127.0.0.1").to_owned()
}
