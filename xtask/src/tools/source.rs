//! Hosts that pinned downloads come from.

use std::time::Duration;

use super::http::agent;

/// True if the address is there, within a few seconds. A build that cannot have it goes on without it.
pub fn answers(url: &str) -> bool {
    agent(Duration::from_secs(5)).head(url).call().is_ok_and(|response| response.status().is_success())
}

/// True if the host answers at all, be it with a refusal.
pub fn responds(url: &str) -> bool {
    agent(Duration::from_secs(5)).get(url).call().is_ok()
}
