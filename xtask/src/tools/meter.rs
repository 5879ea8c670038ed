//! A way to a port of this machine that counts the bytes in each direction, to measure what goes to a registry.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result};

/// Bytes since the meter was started.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

pub struct Meter {
    pub port: u16,
    counts: Arc<Counts>,
}

impl Meter {
    /// Listens on a free port and passes everything on to `target`, as long as this process lives.
    pub fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let port = listener.local_addr()?.port();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A client that finds the target gone sees its connection end, as it would without the meter.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                join(client, server, &shared);
            }
        });
        Ok(Self { port, counts })
    }

    /// Bytes that went to the target.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Bytes that came from it.
    pub fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }
}

fn join(client: TcpStream, server: TcpStream, counts: &Arc<Counts>) {
    let (Ok(client_copy), Ok(server_copy)) = (client.try_clone(), server.try_clone()) else { return };
    let (up, down) = (counts.clone(), counts.clone());
    thread::spawn(move || pass(client, server, &up.sent));
    thread::spawn(move || pass(server_copy, client_copy, &down.received));
}

/// Passes on until either side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 1 << 17];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_passed_on_and_counted() {
        let target = TcpListener::bind("127.0.0.1:0").expect("a port");
        let meter = Meter::start(target.local_addr().expect("an address").port()).expect("a meter");
        let server = thread::spawn(move || {
            let (mut stream, _) = target.accept().expect("a connection");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("a request");
            stream.write_all(b"hello, you").expect("an answer");
            text
        });
        let mut client = TcpStream::connect(("127.0.0.1", meter.port)).expect("the meter");
        client.write_all(b"hello").expect("sent");
        client.shutdown(Shutdown::Write).expect("ended");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!((server.join().expect("done").as_str(), answer.as_str()), ("hello", "hello, you"));
        assert_eq!((meter.sent(), meter.received()), (5, 10));
    }
}
