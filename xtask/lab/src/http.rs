//! HTTP/1.1 with one request per connection: `Connection: close` keeps the rest of the protocol out of here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::registry::Upstream;

/// Bodies up to this size are read into memory, larger ones are passed through.
const BUFFERED: u64 = 4 << 20;

const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// The whole body, or its beginning if the rest is still to be read from the client.
    pub body: Vec<u8>,
    pub is_whole: bool,
}

impl Request {
    /// A HEAD for a manifest, with all media types accepted.
    pub fn head(target: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        for kind in MANIFEST_TYPES {
            headers.append(ACCEPT, HeaderValue::from_static(kind));
        }
        Self { method: Method::HEAD, target: target.to_owned(), headers, body: Vec::new(), is_whole: true }
    }

    /// Reads the head, and the body unless it is large.
    pub fn read(client: &mut TcpStream) -> io::Result<Self> {
        let (head, rest) = read_head(client, true)?;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&head).map_err(invalid)?;
        let method = parsed.method.unwrap_or_default().parse().map_err(invalid)?;
        let target = parsed.path.unwrap_or_default().to_owned();
        let headers = header_map(parsed.headers)?;
        let mut request = Self { method, target, headers, body: rest, is_whole: true };
        if request.headers.remove(EXPECT).is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.read_body(client)?;
        Ok(request)
    }

    fn read_body(&mut self, client: &mut TcpStream) -> io::Result<()> {
        if self.headers.contains_key(TRANSFER_ENCODING) {
            // Layers are sent in chunks of unknown number; manifests are small.
            self.is_whole = !self.path().contains("/blobs/");
            if self.is_whole {
                self.body = read_chunks(std::mem::take(&mut self.body), client)?;
                self.headers.remove(TRANSFER_ENCODING);
                self.headers.insert(CONTENT_LENGTH, self.body.len().into());
            }
            return Ok(());
        }
        let length = content_length(&self.headers).unwrap_or(0);
        self.is_whole = length <= BUFFERED;
        if self.is_whole {
            let missing = length.saturating_sub(self.body.len() as u64);
            client.take(missing).read_to_end(&mut self.body)?;
        }
        Ok(())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    pub fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// Sends the request to the registry. What is not read yet is copied from the client on a thread of its own.
    pub fn send(&self, server: &mut Upstream, client: Option<&TcpStream>) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        write_headers(&mut head, &self.headers);
        head.extend(&self.body);
        server.write_all(&head)?;
        if let Some(client) = client.filter(|_| !self.is_whole) {
            let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
            std::thread::spawn(move || io::copy(&mut from, &mut to));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Where the rest of a large body comes from.
    pub rest: Option<Upstream>,
}

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let status = StatusCode::from_u16(status).expect("a status has three digits");
        let mut response = Self { status, headers: HeaderMap::new(), body: body.into(), rest: None };
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers.insert(CONTENT_LENGTH, response.body.len().into());
        response
    }

    /// What a gateway or a captive portal answers.
    pub fn html(status: u16) -> Self {
        Self::new(status, "text/html", "<html><body>Not a registry</body></html>\n")
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// A registry's error (distribution-spec, "Error Codes").
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "errors": [{ "code": code, "message": message }] }))
    }

    /// An error that a test asks for.
    pub fn failure(status: u16) -> Self {
        let code = match status {
            401 => "UNAUTHORIZED",
            403 => "DENIED",
            404 => "NOT_FOUND",
            400 | 405 | 406 | 501 => "UNSUPPORTED",
            429 => "TOOMANYREQUESTS",
            _ => "UNKNOWN",
        };
        Self::error(status, code, "the registry fails as the test asks")
    }

    pub fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.set(name, value);
        self
    }

    pub fn set(&mut self, name: &'static str, value: impl AsRef<str>) {
        let value = HeaderValue::from_str(value.as_ref()).expect("a header is printable");
        self.headers.insert(name, value);
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: Vec<u8>) {
        self.headers.insert(CONTENT_LENGTH, body.len().into());
        self.body = body;
    }

    /// Reads an answer of the registry; a body is read whole unless it is large.
    pub fn read(mut server: Upstream, is_head: bool) -> io::Result<Self> {
        let (head, mut body) = read_head(&mut server, false)?;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        parsed.parse(&head).map_err(invalid)?;
        let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(invalid)?;
        let headers = header_map(parsed.headers)?;
        let is_small = content_length(&headers).is_some_and(|length| length <= BUFFERED);
        let rest = if is_small || is_head {
            server.read_to_end(&mut body)?;
            None
        } else {
            Some(server)
        };
        Ok(Self { status, headers, body, rest })
    }

    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status).into_bytes();
        write_headers(&mut head, &self.headers);
        head
    }

    /// Sends the answer; a HEAD gets no body.
    pub fn send(self, client: &mut TcpStream, is_head: bool) -> io::Result<()> {
        let mut bytes = self.head();
        if !is_head {
            bytes.extend(&self.body);
        }
        client.write_all(&bytes)?;
        if let Some(mut rest) = self.rest {
            io::copy(&mut rest, client)?;
        }
        Ok(())
    }
}

fn write_headers(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers.iter().filter(|(name, _)| *name != CONNECTION) {
        head.extend(name.as_str().as_bytes());
        head.extend(b": ");
        head.extend(value.as_bytes());
        head.extend(b"\r\n");
    }
    head.extend(b"connection: close\r\n\r\n");
}

fn header_map(headers: &[httparse::Header<'_>]) -> io::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for header in headers {
        let name: HeaderName = header.name.parse().map_err(invalid)?;
        map.append(name, HeaderValue::from_bytes(header.value).map_err(invalid)?);
    }
    Ok(map)
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// A head with its blank line, and the bytes that came after it.
fn read_head(stream: &mut (impl Read + Write), may_be_tls: bool) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 8192];
        let count = stream.read(&mut chunk)?;
        bytes.extend(&chunk[..count]);
        // crane tries TLS first, and plain HTTP as soon as it is answered in plain HTTP.
        if may_be_tls && bytes.first() == Some(&0x16) {
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
            return Err(ErrorKind::InvalidData.into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((bytes, rest));
        }
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The content of a body that is sent in chunks, without trailers.
fn read_chunks(mut bytes: Vec<u8>, client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let end = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((head, size))) => {
                let start = at + head;
                Some((start, start + usize::try_from(size).map_err(invalid)?))
            }
            Ok(httparse::Status::Partial) => None,
            Err(_) => return Err(ErrorKind::InvalidData.into()),
        };
        if let Some((start, end)) = end.filter(|(_, end)| bytes.len() >= end + 2) {
            if start == end {
                return Ok(body);
            }
            body.extend(&bytes[start..end]);
            at = end + 2;
            continue;
        }
        let mut chunk = [0; 8192];
        match client.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend(&chunk[..count]),
        }
    }
}
