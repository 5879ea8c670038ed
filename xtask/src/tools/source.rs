//! Hosts that pinned downloads come from.

use std::time::Duration;

use ureq::Agent;

/// The answer of one request about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    Present,
    /// 404 or 410.
    Absent,
    /// Any other answer, or none.
    Unknown(String),
}

/// Asks once whether the address is there, within that time.
pub fn look(agent: &Agent, url: &str, patience: Duration) -> Look {
    match agent.head(url).config().timeout_global(Some(patience)).build().call() {
        Ok(response) => match response.status().as_u16() {
            200..=299 => Look::Present,
            404 | 410 => Look::Absent,
            status => Look::Unknown(format!("HTTP {status}")),
        },
        Err(error) => Look::Unknown(error.to_string()),
    }
}

/// True if the address is there, within that time.
pub fn answers(agent: &Agent, url: &str, patience: Duration) -> bool {
    look(agent, url, patience) == Look::Present
}

/// True if the host answers at all within that time, be it with a refusal.
pub fn responds(agent: &Agent, url: &str, patience: Duration) -> bool {
    agent.get(url).config().timeout_global(Some(patience)).build().call().is_ok()
}
