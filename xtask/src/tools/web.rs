//! Asks a server for a file or a document. An answer is one of four: there, a clear 404, "not before T", cannot tell.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::model::availability::Verdict;
use crate::model::checksum::Checksum;
use crate::model::retry;

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
}

impl Web {
    /// The client's timeout bounds a request for a document; files may take longer.
    pub fn new(agent: &Agent) -> Self {
        Self { agent: agent.clone() }
    }

    /// A JSON document.
    pub fn json<T: DeserializeOwned>(&self, url: &str, accept: &str) -> Answer<T> {
        self.get(url, accept).and_then(|mut response| {
            match response.body_mut().with_config().limit(DOCUMENT_LIMIT).read_json() {
                Ok(document) => Answer::Present(document),
                Err(error) => Answer::CannotTell(format!("{url}: {error}")),
            }
        })
    }

    /// True if the address is there; nothing of it is read.
    pub fn is_there(&self, url: &str) -> Answer<()> {
        self.ask(url, || self.agent.head(url).call()).map(drop)
    }

    /// Reads a file through to its end and returns the checksum that its bytes have, in the way of `like`.
    pub fn checksum(&self, url: &str, like: &Checksum) -> Answer<Checksum> {
        self.copy(url, like, &mut std::io::sink())
    }

    /// Saves a file. Other bytes than the checksum's are an error.
    pub fn save(&self, url: &str, checksum: &Checksum, path: &Utf8Path) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("cannot write {path}"))?;
        if self.copy(url, checksum, &mut file).required(url)? != *checksum {
            bail!("{url} has other bytes than its lock");
        }
        Ok(())
    }

    /// The bytes of a small file.
    pub fn bytes(&self, url: &str) -> Answer<Vec<u8>> {
        self.get(url, "*/*").and_then(|mut response| {
            match response.body_mut().with_config().limit(DOCUMENT_LIMIT).read_to_vec() {
                Ok(bytes) => Answer::Present(bytes),
                Err(error) => Answer::CannotTell(format!("{url}: {error}")),
            }
        })
    }

    fn copy(&self, url: &str, like: &Checksum, sink: &mut dyn Write) -> Answer<Checksum> {
        self.get(url, "*/*").and_then(|mut response| {
            let mut hasher = like.hasher();
            let mut buffer = vec![0; 1 << 16];
            let mut reader = response.body_mut().as_reader();
            loop {
                let read = reader.read(&mut buffer).and_then(|count| {
                    hasher.update(&buffer[..count]);
                    sink.write_all(&buffer[..count]).map(|()| count)
                });
                match read {
                    Ok(0) => return Answer::Present(hasher.finish()),
                    Ok(_) => {}
                    Err(error) => return Answer::CannotTell(format!("{url}: {error}")),
                }
            }
        })
    }

    fn get(&self, url: &str, accept: &str) -> Answer<Response<Body>> {
        self.ask(url, || {
            let request = self.agent.get(url).header("Accept", accept);
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
