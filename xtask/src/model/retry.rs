//! Which failures are worth another try, how often, and after which wait.
//!
//! Only causes with a name here are transient. Everything else fails at once, since trying it again would only hide
//! what has to be fixed. Refuses to wait longer than [`LONGEST_WAIT`].

use std::fmt;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// How often something is tried before its failure counts.
pub const ATTEMPTS: usize = 5;
/// The longest wait between two tries; a longer `Retry-After` fails with a message.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A failure that may pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// 429, with the seconds of `Retry-After` where they were given (RFC 6585, RFC 9110).
    RateLimited(Option<u64>),
    /// 502, 503 or 504.
    Unavailable(u16),
    /// The peer closed the connection, or it broke.
    Reset,
    /// No answer in time, the TLS handshake included.
    Timeout,
    /// A name that did not resolve, or a host that did not take the connection.
    Unreachable,
    /// A blob that was mounted from another repository is not visible yet.
    UnknownBlob,
    UnexpectedEof,
    /// An access token expired while crane wrote (go-containerregistry 0.20 then sends the request without its body).
    TokenExpired,
    /// No output for as long as a command may be silent; worth one more try only.
    Stalled,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited(None) => f.write_str("rate limited (429)"),
            Self::RateLimited(Some(seconds)) => write!(f, "rate limited (429, Retry-After {seconds} s)"),
            Self::Unavailable(status) => write!(f, "unavailable ({status})"),
            Self::Reset => f.write_str("connection reset"),
            Self::Timeout => f.write_str("timed out"),
            Self::Unreachable => f.write_str("not reached"),
            Self::UnknownBlob => f.write_str("unknown blob"),
            Self::UnexpectedEof => f.write_str("unexpected EOF"),
            Self::TokenExpired => f.write_str("access token expired"),
            Self::Stalled => f.write_str("no output"),
        }
    }
}

impl Cause {
    /// The cause that an HTTP status names; `None` if the answer is final.
    pub fn of_status(status: u16, retry_after: Option<u64>) -> Option<Self> {
        match status {
            429 => Some(Self::RateLimited(retry_after)),
            502..=504 => Some(Self::Unavailable(status)),
            _ => None,
        }
    }

    /// The cause that the last lines of docker or crane name; `None` if they name none of them.
    pub fn of_output(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        let causes: [(&[&str], Self); 10] = [
            (&["with body length 0"], Self::TokenExpired),
            (&["toomanyrequests", "429 too many requests", "status code 429"], Self::RateLimited(None)),
            (&["502 bad gateway", "status code 502"], Self::Unavailable(502)),
            (&["503 service unavailable", "status code 503"], Self::Unavailable(503)),
            (&["504 gateway time", "status code 504"], Self::Unavailable(504)),
            (
                &["connection reset", "broken pipe", "server closed idle connection", "econnreset"],
                Self::Reset,
            ),
            (&["tls handshake timeout", "i/o timeout", "etimedout"], Self::Timeout),
            // The words of apt, of curl and pip, and of npm.
            (
                &[
                    "unable to connect to",
                    "temporary failure",
                    "could not resolve host",
                    "eai_again",
                    "econnrefused",
                ],
                Self::Unreachable,
            ),
            (&["unknown blob", "blob_unknown", "blob unknown"], Self::UnknownBlob),
            (&["unexpected eof", ": eof"], Self::UnexpectedEof),
        ];
        let names = |words: &[&str]| words.iter().any(|word| text.contains(word));
        causes.into_iter().find(|(words, _)| names(words)).map(|(_, cause)| cause)
    }
}

/// How many of the last lines of a program are its last words, unless it is BuildKit.
const LAST: usize = 15;

/// What of a failed program's output says why. BuildKit first repeats the last lines of each step that failed, between
/// two lines of six hyphens, then the whole recipe of the step, then one line with its verdict.
pub fn last_words(output: &[String]) -> Vec<&str> {
    let mut words = Vec::new();
    let mut within = false;
    for line in output {
        if line == "------" {
            within = !within;
        } else if within || (!words.is_empty() && line.starts_with("ERROR: ")) {
            words.push(line.as_str());
        }
    }
    if words.is_empty() {
        words = output.iter().skip(output.len().saturating_sub(LAST)).map(String::as_str).collect();
    }
    words
}

/// The waits of one operation, and what has been tried.
pub struct Tries {
    waits: Box<dyn Iterator<Item = Duration>>,
    stalled: bool,
}

impl Default for Tries {
    fn default() -> Self {
        let builder = ExponentialBuilder::default().with_min_delay(Duration::from_millis(250));
        let builder = builder.with_max_delay(LONGEST_WAIT).with_max_times(ATTEMPTS - 1).with_jitter();
        Self { waits: Box::new(builder.build()), stalled: false }
    }
}

impl Tries {
    /// The wait before the next try; `None` if the failure counts. `left` is the time until the phase's deadline.
    pub fn next(&mut self, cause: Cause, left: Duration) -> Option<Duration> {
        if cause == Cause::Stalled && std::mem::replace(&mut self.stalled, true) {
            return None;
        }
        let backoff = self.waits.next()?;
        let wait = match cause {
            Cause::RateLimited(Some(seconds)) => Duration::from_secs(seconds),
            _ => backoff,
        };
        (wait <= LONGEST_WAIT.min(left)).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn retry_after_is_honoured_up_to_the_longest_wait() {
        let next = |seconds, left| Tries::default().next(Cause::RateLimited(Some(seconds)), left);
        assert_eq!(next(7, LONG), Some(Duration::from_secs(7)));
        assert_eq!(next(3600, LONG), None);
        assert_eq!(next(7, Duration::from_secs(3)), None);
    }

    #[test]
    fn tries_are_bounded_and_grow_with_jitter() {
        let mut tries = Tries::default();
        let waits: Vec<Duration> = std::iter::from_fn(|| tries.next(Cause::Reset, LONG)).collect();
        assert_eq!(waits.len(), ATTEMPTS - 1);
        // Backoff doubles, and jitter adds at most the same again.
        for (index, wait) in waits.iter().enumerate() {
            let least = Duration::from_millis(250 << index);
            assert!(*wait >= least && *wait <= 2 * least, "{index}: {wait:?}");
        }
    }

    #[test]
    fn a_stalled_command_gets_one_more_try() {
        let mut tries = Tries::default();
        assert!(tries.next(Cause::Stalled, LONG).is_some());
        assert!(tries.next(Cause::Stalled, LONG).is_none());
    }

    #[track_caller]
    fn output(text: &str, cause: Option<Cause>) {
        assert_eq!(Cause::of_output(text), cause, "{text}");
    }

    #[test]
    fn only_named_causes_are_transient() {
        for status in [502, 503, 504] {
            assert_eq!(Cause::of_status(status, Some(7)), Some(Cause::Unavailable(status)));
        }
        let limited = Cause::of_status(429, Some(7)).expect("a cause");
        assert_eq!(
            (&limited, limited.to_string().as_str()),
            (&Cause::RateLimited(Some(7)), "rate limited (429, Retry-After 7 s)")
        );
        for status in [200, 400, 401, 403, 404, 500] {
            assert_eq!(Cause::of_status(status, None), None, "{status}");
        }
        output("PUT https://r/v2/x: TOOMANYREQUESTS: pull rate limit", Some(Cause::RateLimited(None)));
        output("unexpected status code 503 Service Unavailable", Some(Cause::Unavailable(503)));
        output("read tcp 127.0.0.1:1: read: connection reset by peer", Some(Cause::Reset));
        output("net/http: TLS handshake timeout", Some(Cause::Timeout));
        output("BLOB_UNKNOWN: blob unknown to registry", Some(Cause::UnknownBlob));
        output("Put \"http://r/v2/\": EOF", Some(Cause::UnexpectedEof));
        output("W: Failed to fetch http://d/x Unable to connect to d:http:", Some(Cause::Unreachable));
        output("npm error code ETIMEDOUT", Some(Cause::Timeout));
        output("npm error code EAI_AGAIN", Some(Cause::Unreachable));
        assert_eq!(Cause::Unreachable.to_string(), "not reached");
        output(
            "Put \"http://r/v2/\": http: ContentLength=1033 with Body length 0",
            Some(Cause::TokenExpired),
        );
        output("error: npm ERR! 404 no such package", None);
        output("UNAUTHORIZED: authentication required", None);
        output("unexpected status code 500 Internal Server Error", None);
    }

    #[test]
    fn last_words_are_those_of_the_failed_step() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let recipe = "   1 | RUN <<'SH'\n".repeat(50);
        let text = format!(
            "#7 CACHED\n------\n > [a 1/1] RUN x:\n1.2 E: no\n------\nDockerfile:1\n{recipe}ERROR: exit code: 1\n"
        );
        assert_eq!(last_words(&lines(&text)), [" > [a 1/1] RUN x:", "1.2 E: no", "ERROR: exit code: 1"]);
        let many: Vec<String> = (0..40).map(|it| it.to_string()).collect();
        assert_eq!(last_words(&many), (25..40).map(|it| it.to_string()).collect::<Vec<_>>());
        assert_eq!(last_words(&lines("ERROR: a\nb")), ["ERROR: a", "b"]);
        assert_eq!(last_words(&[]), [""; 0]);
    }
}
