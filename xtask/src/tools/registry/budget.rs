//! How many manifests a registry still lets this account read. Docker Hub counts each GET of a manifest, not HEAD, and
//! names the limit in `ratelimit-*` headers (Docker's "Usage and limits").

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use ureq::http::Response;

use crate::tools::http;

/// What a registry said last about its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Manifests that may be read in a window.
    pub limit: u64,
    /// How many of them are left.
    pub remaining: u64,
    /// Length of the window in seconds, where the registry names it.
    pub window: Option<u64>,
}

/// The limits of registries, by host: what one says is nothing about another.
#[derive(Default)]
pub struct Meter {
    last: Mutex<HashMap<String, Budget>>,
}

impl Meter {
    /// Takes note of the headers of an answer.
    pub fn note<T>(&self, host: &str, response: &Response<T>) {
        let read = |name| http::header(response, name).and_then(|text| parse(&text));
        let Some((remaining, window)) = read("ratelimit-remaining") else { return };
        let limit = read("ratelimit-limit").map_or(remaining, |(limit, _)| limit);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.insert(host.to_owned(), Budget { limit, remaining, window });
    }

    /// `None` where the registry named no limit.
    pub fn last(&self, host: &str) -> Option<Budget> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }
}

/// A count and its window, such as `100;w=21600`.
fn parse(text: &str) -> Option<(u64, Option<u64>)> {
    let mut parts = text.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    Some((count, parts.find_map(|part| part.strip_prefix("w=")?.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_count_and_may_have_a_window() {
        assert_eq!(parse("100;w=21600"), Some((100, Some(21600))));
        assert_eq!((parse("7"), parse(""), parse("x;w=1")), (Some((7, None)), None, None));
    }
}
