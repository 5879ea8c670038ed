//! Asks a server for a file or a document. An answer is one of four: present, absent (a clear 404), "not before T", unknown.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder};

use crate::model::availability::Verdict;
use crate::model::checksum::Checksum;
use crate::model::retry::{self, Cause, Tries};
use crate::model::source::Source;
use crate::output;

use super::http;

/// How long one large file may take.
const FILE_LIMIT: Duration = Duration::from_secs(900);
/// How long one question is asked again after failures that pass by themselves.
const PATIENCE: Duration = Duration::from_secs(90);
/// The largest document that is read, in bytes: metadata of packages with thousands of versions.
const DOCUMENT_LIMIT: u64 = 200_000_000;

/// What a server says about an address.
#[derive(Debug)]
pub enum Answer<T> {
    Present(T),
    /// 404 or 410, and nothing else.
    Absent,
    LimitedUntil(Timestamp),
    CannotTell(String),
}

impl<T> Answer<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        self.and_then(|value| Answer::Present(change(value)))
    }

    pub fn and_then<U>(self, change: impl FnOnce(T) -> Answer<U>) -> Answer<U> {
        match self {
            Self::Present(value) => change(value),
            Self::Absent => Answer::Absent,
            Self::LimitedUntil(until) => Answer::LimitedUntil(until),
            Self::CannotTell(why) => Answer::CannotTell(why),
        }
    }

    /// What is to be said of an answer without a value.
    pub fn reason(self) -> String {
        match self.known() {
            Ok(_) => "there is no such file".to_owned(),
            Err(verdict) => verdict.to_string(),
        }
    }

    /// The value if it is there, `None` on a clear 404; a verdict where the answer is neither.
    pub fn known(self) -> Result<Option<T>, Verdict> {
        match self {
            Self::Present(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::LimitedUntil(until) => Err(Verdict::RateLimited { until }),
            Self::CannotTell(why) => Err(Verdict::CannotTell { why }),
        }
    }

    /// The value, or an error that names what was asked for.
    pub fn required(self, what: &str) -> Result<T> {
        match self.known() {
            Ok(Some(value)) => Ok(value),
            Ok(None) => bail!("there is no {what}"),
            Err(verdict) => bail!("{what} {verdict}"),
        }
    }
}

/// Asks over the pool of a client, from any thread.
pub struct Web {
    agent: Agent,
    /// Registries that want an account.
    accounts: Vec<Source>,
}

impl Web {
    /// The client's timeout bounds a request for a document; files may take longer.
    pub fn new(agent: &Agent) -> Self {
        Self { agent: agent.clone(), accounts: Vec::new() }
    }

    /// The same, with the accounts that addresses came with.
    pub fn with_accounts<'a>(agent: &Agent, sources: impl IntoIterator<Item = &'a Source>) -> Self {
        let accounts = sources.into_iter().filter(|source| source.account.is_some()).cloned().collect();
        Self { agent: agent.clone(), accounts }
    }

    /// A request with the account of its server, where there is one.
    fn authorized<B>(&self, request: RequestBuilder<B>, url: &str) -> RequestBuilder<B> {
        match self.accounts.iter().find_map(|source| source.authorization(url)) {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    /// A JSON document.
    pub fn json<T: DeserializeOwned>(&self, url: &str, accept: &str) -> Answer<T> {
        self.read(url, accept, |body| Ok(body.with_config().limit(DOCUMENT_LIMIT).read_json()?))
    }

    /// True if the address is there; nothing of it is read.
    pub fn is_there(&self, url: &str) -> Answer<()> {
        self.ask(url, || self.authorized(self.agent.head(url), url).call()).map(drop)
    }

    /// Reads a file through to its end and returns the checksum that its bytes have, in the way of `like`.
    pub fn checksum(&self, url: &str, like: &Checksum) -> Answer<Checksum> {
        self.read(url, "*/*", |body| copy(body, like, &mut std::io::sink()))
    }

    /// Saves a file. Other bytes than the checksum's are an error.
    pub fn save(&self, url: &str, checksum: &Checksum, path: &Utf8Path) -> Result<()> {
        let saved = self.read(url, "*/*", |body| {
            let mut file = File::create(path).with_context(|| format!("cannot write {path}"))?;
            copy(body, checksum, &mut file)
        });
        if saved.required(url)? != *checksum {
            bail!("{url} has other bytes than its lock");
        }
        Ok(())
    }

    /// The bytes of a small file.
    pub fn bytes(&self, url: &str) -> Answer<Vec<u8>> {
        self.bounded(url, DOCUMENT_LIMIT)
    }

    /// The bytes of a file that has at most so many.
    pub fn bounded(&self, url: &str, limit: u64) -> Answer<Vec<u8>> {
        self.read(url, "*/*", |body| Ok(body.with_config().limit(limit + 1).read_to_vec()?))
    }

    /// Asks for an address and consumes its body, from the start again where the body breaks off.
    fn read<T>(&self, url: &str, accept: &str, consume: impl Fn(&mut Body) -> Result<T>) -> Answer<T> {
        let (mut tries, start) = (Tries::default(), Instant::now());
        loop {
            let error = match self.get(url, accept).map(|mut response| consume(response.body_mut())) {
                Answer::Present(Ok(value)) => return Answer::Present(value),
                Answer::Present(Err(error)) => error,
                Answer::Absent => return Answer::Absent,
                Answer::LimitedUntil(until) => return Answer::LimitedUntil(until),
                Answer::CannotTell(why) => return Answer::CannotTell(why),
            };
            let wait = tries.next(Cause::UnexpectedEof, PATIENCE.saturating_sub(start.elapsed()));
            let Some(wait) = wait else { return Answer::CannotTell(format!("{url}: {error:#}")) };
            output::note(format!("{url}: {error:#}; trying again in {:.1} s", wait.as_secs_f64()));
            thread::sleep(wait);
        }
    }

    fn get(&self, url: &str, accept: &str) -> Answer<Response<Body>> {
        self.ask(url, || {
            let request = self.authorized(self.agent.get(url), url).header("Accept", accept);
            // Files pass through here as well; what bounds a stalled one is its first byte.
            let first_byte = self.agent.config().timeouts().global;
            request.config().timeout_global(Some(FILE_LIMIT)).timeout_recv_response(first_byte).build().call()
        })
    }

    /// Repeats a request by the policy of [`http`] and sorts its answer.
    fn ask(
        &self,
        url: &str,
        request: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Answer<Response<Body>> {
        let host = url.split('/').nth(2).unwrap_or(url);
        let response = match http::send(host, || PATIENCE, request) {
            Ok(response) => response,
            Err(error) => return Answer::CannotTell(format!("{error:#}")),
        };
        match response.status().as_u16() {
            200..=299 => Answer::Present(response),
            404 | 410 => Answer::Absent,
            429 => {
                let seconds = http::retry_after(&response).unwrap_or(retry::LONGEST_WAIT.as_secs());
                let seconds = i64::try_from(seconds).unwrap_or(i64::from(u32::MAX));
                Answer::LimitedUntil(Timestamp::now() + SignedDuration::from_secs(seconds))
            }
            status => Answer::CannotTell(format!("{url}: HTTP {status}")),
        }
    }
}

/// Copies a body and returns the checksum of its bytes, in the way of `like`.
fn copy(body: &mut Body, like: &Checksum, sink: &mut dyn Write) -> Result<Checksum> {
    let mut hasher = like.hasher();
    let mut buffer = vec![0; 1 << 16];
    let mut reader = body.as_reader();
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        sink.write_all(&buffer[..count])?;
    }
}
