//! What a client has asked, in order, and how much of it.

use std::fmt;
use std::sync::Mutex;

use http::Method;

use crate::http::Request;
use crate::route::Route;

/// Requests since the counts were last reset. Requests for tokens count as nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All to the registry.
    pub requests: usize,
    pub writes: usize,
    /// What Docker Hub counts as pulls.
    pub manifest_gets: usize,
    pub manifest_heads: usize,
    pub tokens: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `None` without an answer.
    pub status: Option<u16>,
}

/// `PUT /v2/a/manifests/latest 201`, with what differs between two runs replaced.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map_or("-".to_owned(), |status| status.to_string());
        write!(f, "{} {} {status}", self.method, without_chance(&self.target))
    }
}

/// A path without the identifiers of uploads.
fn without_chance(target: &str) -> String {
    match target.split_once("/blobs/uploads/") {
        Some((head, rest)) if !rest.is_empty() && !rest.starts_with('?') => {
            let digest = rest.split_once("digest=").map_or("", |(_, digest)| digest);
            let joint = if digest.is_empty() { "" } else { "?digest=" };
            format!("{head}/blobs/uploads/UPLOAD{joint}{digest}")
        }
        _ => target.to_owned(),
    }
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    entries: Vec<Entry>,
    resets: usize,
}

/// Where the status of a request is noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    resets: usize,
    index: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<State>);

impl Record {
    pub fn reset(&self) {
        let mut state = self.0.lock().unwrap();
        *state = State { resets: state.resets + 1, ..State::default() };
    }

    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap().counts
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap().entries.clone()
    }

    /// Notes the arrival of a request.
    pub fn begin(&self, request: &Request, route: &Route) -> Place {
        let mut state = self.0.lock().unwrap();
        let counts = &mut state.counts;
        if *route == Route::Token {
            counts.tokens += 1;
        } else {
            counts.requests += 1;
            counts.writes += usize::from(!request.is_read());
            counts.manifest_gets += usize::from(route.is_manifest() && request.method == Method::GET);
            counts.manifest_heads += usize::from(route.is_manifest() && request.method == Method::HEAD);
        }
        let (method, target) = (request.method.to_string(), request.target.clone());
        state.entries.push(Entry { method, target, status: None });
        Place { resets: state.resets, index: state.entries.len() - 1 }
    }

    pub fn end(&self, place: Place, status: u16) {
        let mut state = self.0.lock().unwrap();
        if state.resets == place.resets {
            state.entries[place.index].status = Some(status);
        }
    }
}
