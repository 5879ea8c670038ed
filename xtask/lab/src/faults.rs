//! Faults, and the requests that they strike.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use crate::pattern::Pattern;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The registry has taken it; then the process group of the client is killed, and nothing more of it gets through.
    KillAfter,
    /// The registry has taken it; then the process group of the client is stopped for this time, and continued.
    PauseAfter(Duration),
    /// The registry does not get it, and this is the answer.
    Status(u16),
    /// The same with `Retry-After`.
    RetryLater(u16, RetryAfter),
    /// The same with a page in HTML, as from a gateway.
    Html(u16),
    /// The registry does not get it, and the connection is reset.
    Reset,
    /// The registry has taken it, and the connection is reset: the client cannot know.
    Lost,
    /// The registry does not get it, and no answer comes until the client gives up, for at most two minutes.
    Silence,
    /// The answer's body ends before its `Content-Length`; an answer without a body ends within its head.
    BreakOff,
    /// The last byte of the answer's body is another one.
    Garbled,
    /// All access tokens end before the registry gets it.
    ExpireTokens,
    /// The registry gets it this much later.
    Late(Duration),
    /// The registry gets it, and this much later again, as from a proxy that retries.
    Twice(Duration),
}

/// The form of a `Retry-After` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    Seconds(u64),
    /// This many seconds from now, as an HTTP date.
    Date(u64),
}

/// A short name in lower case, without spaces, which also fits into the name of a repository.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillAfter => write!(f, "kill"),
            Self::PauseAfter(time) => write!(f, "pause-{}ms", time.as_millis()),
            Self::Status(status) => write!(f, "{status}"),
            Self::RetryLater(status, RetryAfter::Seconds(time)) => write!(f, "{status}-retry-{time}s"),
            Self::RetryLater(status, RetryAfter::Date(time)) => write!(f, "{status}-retry-{time}s-date"),
            Self::Html(status) => write!(f, "{status}-html"),
            Self::Reset => write!(f, "reset"),
            Self::Lost => write!(f, "lost"),
            Self::Silence => write!(f, "silence"),
            Self::BreakOff => write!(f, "break-off"),
            Self::Garbled => write!(f, "garbled"),
            Self::ExpireTokens => write!(f, "expire-tokens"),
            Self::Late(time) => write!(f, "late-{}ms", time.as_millis()),
            Self::Twice(time) => write!(f, "twice-{}ms", time.as_millis()),
        }
    }
}

/// A fault and the requests that it strikes, counted since the rule was armed.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `METHOD path?query`; `None` matches all writes.
    pattern: Option<Pattern>,
    first: usize,
    times: usize,
    fault: Fault,
    seen: usize,
}

impl Rule {
    /// Strikes every request that matches `METHOD path?query`, in which `*` matches any text:
    /// `PUT */manifests/latest`, `* /token*`.
    pub fn on(requests: &str, fault: Fault) -> Self {
        Self { pattern: Some(Pattern::new(requests)), first: 1, times: usize::MAX, fault, seen: 0 }
    }

    /// Strikes the `n`-th write, from 1.
    pub fn at_write(n: usize, fault: Fault) -> Self {
        Self { pattern: None, first: n, times: 1, fault, seen: 0 }
    }

    /// Strikes the `n`-th request that matches, from 1, and no other.
    #[must_use]
    pub fn nth(self, n: usize) -> Self {
        self.from(n).times(1)
    }

    /// Strikes from the `n`-th request that matches, from 1.
    #[must_use]
    pub fn from(mut self, n: usize) -> Self {
        self.first = n;
        self
    }

    /// Strikes this often.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Counts a request, and returns true if it is struck.
    fn strikes(&mut self, request: &str, is_write: bool) -> bool {
        let counts = self.pattern.as_ref().map_or(is_write, |pattern| pattern.is_match(request));
        self.seen += usize::from(counts);
        counts && self.seen >= self.first && self.seen - self.first < self.times
    }
}

/// The rules of one client.
#[derive(Debug, Default)]
pub(crate) struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        *self.0.lock().unwrap() = rules.into_iter().collect();
    }

    pub fn add(&self, rule: Rule) {
        self.0.lock().unwrap().push(rule);
    }

    /// Counts a request in all rules; the first one that strikes decides.
    pub fn next(&self, request: &str, is_write: bool) -> Option<Fault> {
        let mut rules = self.0.lock().unwrap();
        let hits: Vec<Fault> = rules
            .iter_mut()
            .filter_map(|rule| rule.strikes(request, is_write).then_some(rule.fault))
            .collect();
        hits.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_strikes_the_requests_that_it_names() {
        let rules = Rules::default();
        let strikes = |rule: Rule| {
            rules.set([rule]);
            let requests = ["GET /v2/a/manifests/x", "PUT /v2/a/manifests/x", "PUT /v2/a/manifests/xy"];
            let requests = requests.iter().cycle().take(6).enumerate();
            let struck =
                |(_, request): &(usize, &&str)| rules.next(request, request.starts_with("PUT")).is_some();
            requests.filter(struck).map(|(index, _)| index).collect::<Vec<_>>()
        };
        let fault = Fault::Reset;
        assert_eq!(strikes(Rule::at_write(3, fault)), [4]);
        assert_eq!(strikes(Rule::on("* */manifests/x", fault)), [0, 1, 3, 4]);
        assert_eq!(strikes(Rule::on("PUT */manifests/x", fault).nth(2)), [4]);
        assert_eq!(strikes(Rule::on("PUT *", fault).from(2).times(2)), [2, 4]);
    }
}
