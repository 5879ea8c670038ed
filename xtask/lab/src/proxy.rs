//! The addresses that clients of the lab use, and the faults that strike there.
//!
//! A thread serves one connection, and a connection one request.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use http::header::DATE;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use socket2::SockRef;

use crate::faults::{Fault, RetryAfter, Rule, Rules};
use crate::http::{Request, Response};
use crate::record::{Counts, Entry, Record};
use crate::route::Route;
use crate::service::Service;

/// How long a silent server keeps a connection.
const SILENCE: Duration = Duration::from_secs(120);

/// How long the end of a connection may take.
const CLOSING: Duration = Duration::from_secs(5);

/// Loopback addresses, in the forms that users write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:PORT`
    #[default]
    V4,
    /// `[::1]:PORT`
    V6,
    /// `localhost:PORT`
    Name,
}

/// A client of the lab as the registry sees it: an address of its own, with its own faults, delays, clock, counts and
/// log.
pub struct Client {
    host: String,
    port: u16,
    address: Address,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

struct State {
    service: Arc<Service>,
    is_trusted: bool,
    rules: Rules,
    record: Record,
    delay: Mutex<Option<Delay>>,
    /// Seconds by which the registry's clock is ahead of this machine's.
    skew: Mutex<i64>,
    /// Process group of the client.
    group: AtomicU32,
    /// After a kill nothing more gets through, as from a machine that lost its power.
    is_dead: AtomicBool,
    is_closed: AtomicBool,
    /// Connections that are served.
    connections: AtomicUsize,
}

/// How long each request waits before the registry gets it.
#[derive(Clone, Debug)]
pub struct Delay {
    min: Duration,
    max: Duration,
    random: fastrand::Rng,
}

impl From<Duration> for Delay {
    fn from(delay: Duration) -> Self {
        Self::random(0, delay, delay)
    }
}

impl Delay {
    /// A new random delay for each request, the same ones for the same seed.
    pub fn random(seed: u64, min: Duration, max: Duration) -> Self {
        Self { min, max, random: fastrand::Rng::with_seed(seed) }
    }

    fn next(&mut self) -> Duration {
        self.min + (self.max - self.min).mul_f64(self.random.f64())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        // Wakes the listener, which then ends. The registry is deleted by the last one that knows it.
        if connect(self.address, self.port).is_ok()
            && let Some(listener) = self.listener.take()
        {
            let _ = listener.join();
        }
        let start = Instant::now();
        while self.state.connections.load(Ordering::SeqCst) > 0 && start.elapsed() < CLOSING {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn connect(address: Address, port: u16) -> io::Result<TcpStream> {
    match address {
        Address::V4 | Address::Name => TcpStream::connect(("127.0.0.1", port)),
        Address::V6 => TcpStream::connect(("::1", port)),
    }
}

impl Client {
    pub(crate) fn new(service: Arc<Service>, address: Address, is_trusted: bool) -> Self {
        let ip = if address == Address::V6 { "::1" } else { "127.0.0.1" };
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = match address {
            Address::V4 => format!("127.0.0.1:{port}"),
            Address::V6 => format!("[::1]:{port}"),
            Address::Name => format!("localhost:{port}"),
        };
        let state = Arc::new(State {
            service,
            is_trusted,
            rules: Rules::default(),
            record: Record::default(),
            delay: Mutex::default(),
            skew: Mutex::default(),
            group: AtomicU32::default(),
            is_dead: AtomicBool::default(),
            is_closed: AtomicBool::default(),
            connections: AtomicUsize::default(),
        });
        let shared = state.clone();
        let listener = Some(thread::spawn(move || shared.listen(&listener)));
        Self { host, port, address, state, listener }
    }

    /// Host and port, as in the name of a repository.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Begins new counts and a new log, with these faults and no others. Revives a client that was killed.
    pub fn arm(&self, rules: impl IntoIterator<Item = Rule>) {
        self.state.rules.set(rules);
        self.state.record.reset();
        self.state.is_dead.store(false, Ordering::SeqCst);
    }

    /// Adds a fault.
    pub fn add(&self, rule: Rule) {
        self.state.rules.add(rule);
    }

    /// Requests since the last [`Self::arm`].
    pub fn counts(&self) -> Counts {
        self.state.record.counts()
    }

    /// Requests since the last [`Self::arm`], in the order of their arrival.
    pub fn log(&self) -> Vec<Entry> {
        self.state.record.entries()
    }

    /// The log as text, a request per line.
    pub fn transcript(&self) -> String {
        self.log().iter().map(|entry| format!("{entry}\n")).collect()
    }

    /// The process group that [`Fault::KillAfter`] and [`Fault::PauseAfter`] strike.
    pub fn set_process_group(&self, group: u32) {
        self.state.group.store(group, Ordering::SeqCst);
    }

    /// Holds back each request.
    pub fn set_delay(&self, delay: impl Into<Delay>) {
        *self.state.delay.lock().unwrap() = Some(delay.into());
    }

    /// Sets the registry's clock, as this client sees it, ahead of this machine's by so many seconds.
    pub fn set_clock_skew(&self, seconds: i64) {
        *self.state.skew.lock().unwrap() = seconds;
    }
}

impl State {
    fn listen(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            if self.is_closed.load(Ordering::SeqCst) {
                return;
            }
            let state = self.clone();
            self.connections.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                // Errors are clients that went away, which is what they are made to do here.
                let _ = state.serve(client);
                state.connections.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let request = Request::read(&mut client)?;
        if self.is_dead.load(Ordering::SeqCst) {
            return Ok(());
        }
        let route = Route::of(&request);
        let place = self.record.begin(&request, &route);
        self.wait();
        let is_write = !request.is_read() && route != Route::Token;
        let fault = self.rules.next(&format!("{} {}", request.method, request.target), is_write);
        let is_head = request.method == Method::HEAD;
        if fault == Some(Fault::ExpireTokens) {
            self.service.tokens.expire();
        }
        let answer = match fault.map(before) {
            Some(Before::Answer(answer)) => Some(answer),
            Some(Before::Nothing) => None,
            Some(Before::Forward(time)) => {
                thread::sleep(time);
                Some(self.forward(request, &route, &client, fault)?)
            }
            None => Some(self.forward(request, &route, &client, fault)?),
        };
        if let Some(answer) = &answer {
            self.record.end(place, answer.status.as_u16());
        }
        match (fault, answer) {
            (Some(Fault::Silence), _) => self.read_until_end(&mut client, SILENCE),
            (Some(Fault::Reset | Fault::Lost), _) | (_, None) => reset(&client),
            (Some(Fault::KillAfter), _) => self.kill(),
            (fault, Some(answer)) => {
                if let Some(Fault::PauseAfter(time)) = fault {
                    self.pause(time)?;
                }
                self.send(answer, &mut client, is_head, fault)
            }
        }
    }

    fn wait(&self) {
        let delay = self.delay.lock().unwrap().as_mut().map(Delay::next);
        thread::sleep(delay.unwrap_or_default());
    }

    fn forward(
        &self,
        request: Request,
        route: &Route,
        client: &TcpStream,
        fault: Option<Fault>,
    ) -> io::Result<Response> {
        let again = match fault {
            Some(Fault::Twice(time)) if request.is_whole => Some((time, request.clone())),
            _ => None,
        };
        let answer = self.service.answer(request, route, Some(client), self.is_trusted)?;
        if let Some((time, request)) = again {
            let (service, route, is_trusted) = (self.service.clone(), route.clone(), self.is_trusted);
            thread::spawn(move || {
                thread::sleep(time);
                service.answer(request, &route, None, is_trusted).ok()
            });
        }
        Ok(answer)
    }

    fn send(
        &self,
        mut answer: Response,
        client: &mut TcpStream,
        is_head: bool,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        if let (Some(Fault::Garbled), Some(byte)) = (fault, answer.body.last_mut()) {
            *byte ^= 1;
        }
        let skew = *self.skew.lock().unwrap();
        if skew != 0 || !answer.headers.contains_key(DATE) {
            answer.set("date", http_date(skew));
        }
        if fault == Some(Fault::BreakOff) {
            let head = answer.head();
            let bytes = [head.as_slice(), &answer.body].concat();
            let end = if answer.body.is_empty() || is_head {
                head.len() / 2
            } else {
                head.len() + answer.body.len() / 2
            };
            client.write_all(&bytes[..end])?;
        } else {
            answer.send(client, is_head)?;
        }
        client.shutdown(Shutdown::Write)?;
        // If the kernel had unread bytes when the connection closes, it would reset it before the client has the answer.
        self.read_until_end(client, CLOSING)
    }

    /// Reads until the client closes the connection, or the lab ends.
    fn read_until_end(&self, client: &mut TcpStream, most: Duration) -> io::Result<()> {
        client.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (start, mut chunk) = (Instant::now(), [0; 8192]);
        while start.elapsed() < most && !self.is_closed.load(Ordering::SeqCst) {
            match client.read(&mut chunk) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn kill(&self) -> io::Result<()> {
        self.is_dead.store(true, Ordering::SeqCst);
        self.signal("KILL")
    }

    fn pause(&self, time: Duration) -> io::Result<()> {
        self.signal("STOP")?;
        thread::sleep(time);
        self.signal("CONT")
    }

    /// Strikes the leader's process group and all that descends from the leader: programs that it started may have groups
    /// of their own.
    fn signal(&self, signal: &str) -> io::Result<()> {
        let group = self.group.load(Ordering::SeqCst);
        assert!(group > 1, "the test has named no process group");
        let mut struck = vec![group];
        let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output()?.stdout;
        let listed = String::from_utf8_lossy(&listed);
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
        let pairs: Vec<_> = listed
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                number(words.next()).zip(number(words.next()))
            })
            .collect();
        let mut next = 0;
        while let Some(parent) = struck.get(next).copied() {
            struck.extend(pairs.iter().filter(|(_, it)| *it == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        let targets = struck[1..].iter().map(u32::to_string);
        let targets = [format!("-{group}")].into_iter().chain(targets);
        Command::new("kill").args([&format!("-{signal}"), "--"]).args(targets).status()?;
        Ok(())
    }
}

/// What happens before the registry gets a request.
enum Before {
    Answer(Response),
    Nothing,
    Forward(Duration),
}

fn before(fault: Fault) -> Before {
    match fault {
        Fault::Status(status) => Before::Answer(Response::failure(status)),
        Fault::Html(status) => Before::Answer(Response::html(status)),
        Fault::RetryLater(status, after) => {
            Before::Answer(Response::failure(status).with("retry-after", retry_after(after)))
        }
        Fault::Reset | Fault::Silence => Before::Nothing,
        Fault::Late(time) => Before::Forward(time),
        _ => Before::Forward(Duration::ZERO),
    }
}

/// The value of a `Retry-After` header.
pub(crate) fn retry_after(after: RetryAfter) -> String {
    match after {
        RetryAfter::Seconds(seconds) => seconds.to_string(),
        RetryAfter::Date(seconds) => http_date(i64::try_from(seconds).unwrap_or_default()),
    }
}

/// So many seconds from now, as an HTTP date.
fn http_date(seconds: i64) -> String {
    let now = Timestamp::try_from(SystemTime::now()).unwrap();
    let then = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    DateTimePrinter::new().timestamp_to_rfc9110_string(&then).unwrap()
}

/// Ends a connection without an answer.
fn reset(client: &TcpStream) -> io::Result<()> {
    SockRef::from(client).set_linger(Some(Duration::ZERO))
}
