//! Hosts that pinned downloads come from.

use std::time::Duration;

use ureq::Agent;

/// True if the address is there, within that time. A build that cannot have it goes on without it.
pub fn answers(agent: &Agent, url: &str, patience: Duration) -> bool {
    let request = agent.head(url).config().timeout_global(Some(patience)).build();
    request.call().is_ok_and(|response| response.status().is_success())
}

/// True if the host answers at all within that time, be it with a refusal.
pub fn responds(agent: &Agent, url: &str, patience: Duration) -> bool {
    agent.get(url).config().timeout_global(Some(patience)).build().call().is_ok()
}
