//! Hosts that pinned downloads come from.

use std::time::Duration;

use super::registry::agent;

/// True if the address is there, within a few seconds. A build that cannot have it goes on without it.
pub fn answers(url: &str) -> bool {
    let request = agent().head(url).config().timeout_global(Some(Duration::from_secs(5))).build();
    request.call().is_ok_and(|response| response.status().is_success())
}
