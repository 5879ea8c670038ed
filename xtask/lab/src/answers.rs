//! Answers of the registry that it would repeat: between two writes the same request gets the same answer, and what a digest
//! names never changes. A test reads the same manifests dozens of times, and each read costs the registry milliseconds.

use std::collections::HashMap;
use std::sync::Mutex;

use http::header::{DATE, RANGE};
use http::{HeaderMap, Method, StatusCode};

use crate::http::{Request, Response};

#[derive(Default)]
pub(crate) struct Answers(Mutex<State>);

#[derive(Default)]
struct State {
    /// Writes so far.
    generation: u64,
    known: HashMap<String, Known>,
}

#[derive(Clone)]
struct Known {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Whether it holds until something is deleted.
    is_permanent: bool,
}

/// Where an answer belongs: the whole request, and the state in which it was asked.
pub(crate) struct Question {
    request: String,
    generation: u64,
    is_permanent: bool,
}

impl Answers {
    /// The question of a request whose answer may be repeated; nothing for a write.
    pub fn question(&self, request: &Request) -> Option<Question> {
        if !request.is_read() || request.headers.contains_key(RANGE) {
            return None;
        }
        let is_permanent = request.path().contains("/sha256:");
        let generation = self.0.lock().unwrap().generation;
        let request = format!("{} {} {:?}", request.method, request.target, request.headers);
        Some(Question { request, generation, is_permanent })
    }

    /// What the registry has answered, with the time of now.
    pub fn find(&self, question: &Question) -> Option<Response> {
        let known = self.0.lock().unwrap().known.get(&question.request).cloned()?;
        Some(Response { status: known.status, headers: known.headers, body: known.body, rest: None })
    }

    /// Keeps an answer, unless something was written since the question.
    pub fn keep(&self, question: Question, answer: &Response) {
        let mut state = self.0.lock().unwrap();
        let may_be_kept = [StatusCode::OK, StatusCode::NOT_FOUND].contains(&answer.status);
        if answer.rest.is_some() || !may_be_kept || state.generation != question.generation {
            return;
        }
        let mut headers = answer.headers.clone();
        headers.remove(DATE);
        let is_permanent = question.is_permanent && answer.status == StatusCode::OK;
        let known = Known { status: answer.status, headers, body: answer.body.clone(), is_permanent };
        state.known.insert(question.request, known);
    }

    /// Has to be called before and after each write.
    pub fn note_write(&self, method: &Method) {
        let mut state = self.0.lock().unwrap();
        state.generation += 1;
        state.known.retain(|_, known| known.is_permanent && *method != Method::DELETE);
    }

    /// Has to be called when the files of the registry change.
    pub fn forget(&self) {
        self.note_write(&Method::DELETE);
    }
}
