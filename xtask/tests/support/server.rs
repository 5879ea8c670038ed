//! An HTTP server on a loopback port, with a thread for each connection: clients of this project ask a dozen things at
//! once. Its answers are a list of expected requests, or a function where they depend on what came before.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    pub body: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads a request; none if the client closed the connection before it had sent one.
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => lines.push(line.trim_end().to_owned()),
            }
        }
        let mut words = lines[0].split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut request = Self { method, path, headers, body: String::new() };
        let length = request.header("Content-Length").map_or(0, |value| value.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        request.body = String::from_utf8_lossy(&body).into_owned();
        Some(request)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// `METHOD path`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_broken: bool,
}

impl Answer {
    /// Without a body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), is_broken: false }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::status(status).body(body.to_string()).header("Content-Type", "application/json")
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The connection closes after half of the body.
    pub fn broken(mut self) -> Self {
        self.is_broken = true;
        self
    }

    fn write(&self, mut stream: &TcpStream, method: &str) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        let sent = match (method, self.is_broken) {
            ("HEAD", _) => 0,
            (_, true) => self.body.len() / 2,
            (_, false) => self.body.len(),
        };
        stream.write_all(&self.body[..sent])
    }
}

/// Serves until the test ends.
pub struct Server {
    pub host: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by a function, which several threads may call at once.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (log, answer) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(answer));
        let shared = log.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (shared.clone(), answer.clone());
                thread::spawn(move || {
                    let Some(request) = Request::read(&stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    // A client that was killed reads no answer.
                    let _ = answer(&request).write(&stream, &request.method);
                });
            }
        });
        Self { host, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// `METHOD path` of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

/// A server that expects requests by their `METHOD path`. Any other is answered by 404 and fails the test when the server is
/// dropped.
pub struct Expecting {
    server: Server,
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
}

impl Expecting {
    pub fn start<const N: usize>(expected: [(&str, Answer); N]) -> Self {
        let answers = expected.map(|(line, answer)| (line.to_owned(), answer)).to_vec();
        let answers = Arc::new(Mutex::new(answers));
        let shared = answers.clone();
        let server = Server::start(move |request| {
            let (line, answers) = (request.line(), shared.lock().unwrap());
            let found = answers.iter().find(|(expected, _)| *expected == line);
            found.map_or(Answer::status(404), |(_, answer)| answer.clone())
        });
        Self { server, answers }
    }

    /// From now on a request gets this answer.
    pub fn expect(&self, line: &str, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(expected, _)| expected != line);
        answers.push((line.to_owned(), answer));
    }
}

impl std::ops::Deref for Expecting {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let answers = self.answers.lock().unwrap();
        let is_expected = |line: &String| answers.iter().any(|(expected, _)| expected == line);
        let others: Vec<String> = self.lines().into_iter().filter(|line| !is_expected(line)).collect();
        assert!(others.is_empty() || thread::panicking(), "unexpected requests: {others:?}");
    }
}
