//! Which answers of a registry are worth another try, and when.

use std::time::Duration;

/// How often a request is made before its failure counts.
pub const ATTEMPTS: u32 = 4;
/// The longest wait between two tries; a `Retry-After` beyond it is a failure, told to the user.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The wait before try `attempt + 1` after an HTTP status, or `None` if the answer is final.
/// 429 and 502–504 are transient (RFC 9110, RFC 6585); everything else is not.
pub fn after_status(status: u16, retry_after_seconds: Option<u64>, attempt: u32) -> Option<Duration> {
    let transient = matches!(status, 429 | 502..=504);
    let wait = retry_after_seconds.map_or_else(|| backoff(attempt), Duration::from_secs);
    (transient && attempt < ATTEMPTS && wait <= LONGEST_WAIT).then_some(wait)
}

/// Waits of 0.5, 1, 2 … seconds.
pub fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(250 << attempt.min(7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_statuses_are_retried_and_retry_after_is_honoured() {
        assert_eq!(after_status(429, Some(7), 1), Some(Duration::from_secs(7)));
        assert_eq!(after_status(429, Some(3600), 1), None);
        assert_eq!(after_status(503, None, 1), Some(Duration::from_millis(500)));
        assert_eq!(after_status(503, None, ATTEMPTS), None);
        for status in [400, 401, 403, 404, 500] {
            assert_eq!(after_status(status, None, 1), None, "{status}");
        }
    }
}
