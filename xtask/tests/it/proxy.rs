//! A proxy before a registry that counts requests and breaks one write as it is told.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens at the write whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The registry has taken it; then the process group of the client is killed.
    KillAfter,
    Status(u16),
    /// The connection ends without an answer.
    Reset,
    /// No answer, for longer than anybody waits.
    Silence,
}

#[derive(Default)]
pub struct State {
    pub requests: AtomicUsize,
    pub writes: AtomicUsize,
    /// The fault and the number of the write that it strikes, from 1.
    plan: Mutex<Option<(usize, Fault)>>,
    /// Writes whose address has this in it are refused, as a registry refuses what it will not keep.
    pub refused: Mutex<Option<String>>,
    /// Process group to kill.
    pub group: AtomicUsize,
    /// After a kill nothing more gets through, as from a machine that lost its power.
    dead: AtomicBool,
}

pub struct Proxy {
    pub host: String,
    pub state: Arc<State>,
}

impl Proxy {
    /// Starts a proxy before a registry on a loopback port.
    pub fn start(registry: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                // Errors are clients that went away, which is what they are made to do here.
                thread::spawn(move || state.serve(client, registry).ok());
            }
        });
        Self { host, state }
    }

    /// Begins a new count, with a fault at the `n`-th write if one is given.
    pub fn arm(&self, fault: Option<(usize, Fault)>) {
        *self.state.plan.lock().unwrap() = fault;
        self.state.requests.store(0, Ordering::SeqCst);
        self.state.writes.store(0, Ordering::SeqCst);
        self.state.dead.store(false, Ordering::SeqCst);
    }

    /// Requests and writes since the last [`Self::arm`].
    pub fn counts(&self) -> (usize, usize) {
        (self.state.requests.load(Ordering::SeqCst), self.state.writes.load(Ordering::SeqCst))
    }
}

impl State {
    /// One request a connection: `Connection: close` keeps the rest of the protocol out of here.
    fn serve(&self, mut client: TcpStream, registry: u16) -> std::io::Result<()> {
        let (head, rest) = read_head(&mut client)?;
        if self.dead.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let is_write = !(head.starts_with("GET ") || head.starts_with("HEAD "));
        let target = head.split(' ').nth(1).unwrap_or_default();
        if is_write && self.refused.lock().unwrap().as_deref().is_some_and(|part| target.contains(part)) {
            return client
                .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
        let fault = if is_write {
            let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
            self.plan.lock().unwrap().filter(|(n, _)| *n == number).map(|(_, fault)| fault)
        } else {
            None
        };
        match fault {
            Some(Fault::Reset) => return Ok(()),
            Some(Fault::Silence) => {
                thread::sleep(Duration::from_secs(6));
                return Ok(());
            }
            Some(Fault::Status(status)) => {
                thread::sleep(Duration::from_millis(20));
                let answer =
                    format!("HTTP/1.1 {status} Fault\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                return client.write_all(answer.as_bytes());
            }
            Some(Fault::KillAfter) | None => {}
        }
        let mut server = TcpStream::connect(("127.0.0.1", registry))?;
        server.write_all(head.as_bytes())?;
        server.write_all(&rest)?;
        let (mut body, mut sink) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || std::io::copy(&mut body, &mut sink));
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        if fault == Some(Fault::KillAfter) {
            self.dead.store(true, Ordering::SeqCst);
            let group = self.group.load(Ordering::SeqCst);
            Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status()?;
            return Ok(());
        }
        client.write_all(&answer)?;
        client.shutdown(Shutdown::Both)
    }
}

/// The head of a request, made to be the only one of its connection, and what of the body came with it.
fn read_head(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut chunk = [0; 8192];
        let count = client.read(&mut chunk)?;
        bytes.extend(&chunk[..count]);
        // crane tries TLS first, and speaks plainly as soon as it is answered so.
        if bytes.first() == Some(&0x16) {
            client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let kept = head.lines().filter(|line| !line.to_lowercase().starts_with("connection:"));
    let head = kept.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n";
    Ok((head, bytes.split_off(end + 4)))
}
