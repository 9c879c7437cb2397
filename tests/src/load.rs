//! Steady requests through an edge: keep-alive and not, short, slow and large, counted one by one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two requests of one client: steady, and far below what two cores bear.
const PACE: Duration = Duration::from_millis(4);

/// An answer that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How it shows that not a byte of an answer came.
const CLOSED_IDLE: std::io::ErrorKind = std::io::ErrorKind::ConnectionReset;

/// What one client asks for, again and again.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The path and query.
    pub path: &'static str,
    /// One connection for all requests, or a new one for each.
    pub keep_alive: bool,
}

/// Clients that run until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
struct Counts {
    /// Requests that got a whole 200 answer.
    good: AtomicU64,
    /// All others.
    failed: AtomicU64,
}

impl Load {
    /// Starts so many clients; every second one opens a new connection for each request.
    pub fn start(edge: SocketAddr, clients: usize) -> Self {
        let client = |number: usize| Client { path: "/", keep_alive: number.is_multiple_of(2) };
        Self::of(edge, (0..clients).map(client))
    }

    /// Starts so many clients that open a kept connection anew when the other end closed it while it was idle, as
    /// browsers do (RFC 9112, 9.3.1): load balancers that are not ours close them when they reload.
    pub fn reopening(edge: SocketAddr, clients: usize) -> Self {
        let client = |number: usize| Client { path: "/", keep_alive: number.is_multiple_of(2) };
        Self::begin(edge, (0..clients).map(client), true)
    }

    /// Starts these clients.
    pub fn of(edge: SocketAddr, clients: impl IntoIterator<Item = Client>) -> Self {
        Self::begin(edge, clients, false)
    }

    fn begin(edge: SocketAddr, clients: impl IntoIterator<Item = Client>, reopens: bool) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let start = |client: Client| {
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            std::thread::spawn(move || run(edge, (client, reopens), &stop, &counts))
        };
        let clients = clients.into_iter().map(start).collect();
        Self { stop, counts, clients }
    }

    /// So far: good and failed.
    pub fn so_far(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.counts.good), read(&self.counts.failed))
    }

    /// Ends the clients, each after its request: good and failed.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let Self { clients, counts, .. } = self;
        for client in clients {
            if client.join().is_err() {
                counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&counts.good), read(&counts.failed))
    }
}

fn run(edge: SocketAddr, (client, reopens): (Client, bool), stop: &AtomicBool, counts: &Counts) {
    let mut kept: Option<BufReader<TcpStream>> = None;
    let anew = || connect(edge).and_then(|connection| ask(connection, client));
    while !stop.load(Ordering::Relaxed) {
        let answered = match kept.take() {
            Some(connection) => match ask(connection, client) {
                Err(error) if reopens && error.kind() == CLOSED_IDLE => anew(),
                answered => answered,
            },
            None => anew(),
        };
        match answered {
            Ok((200, connection)) => {
                counts.good.fetch_add(1, Ordering::Relaxed);
                kept = Some(connection).filter(|_| client.keep_alive);
            }
            Ok((status, _)) => fail(counts, client, &format!("status {status}")),
            Err(error) => fail(counts, client, &error.to_string()),
        }
        std::thread::sleep(PACE); // the pace of the load, not a wait for anything
    }
}

fn fail(counts: &Counts, client: Client, why: &str) {
    counts.failed.fetch_add(1, Ordering::Relaxed);
    eprintln!("a request failed: {why} ({client:?})");
}

/// A connection to the edge.
pub fn connect(edge: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(edge)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// Reads a head; answers the status and the length of the body.
pub fn read_head(connection: &mut BufReader<TcpStream>) -> std::io::Result<(u16, u64)> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let bad = || std::io::Error::other(format!("not an answer: {line:?}"));
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if connection.read_line(&mut header)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            return Ok((status, length));
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
}

/// One request; answers the status and the connection.
fn ask(
    mut connection: BufReader<TcpStream>,
    client: Client,
) -> std::io::Result<(u16, BufReader<TcpStream>)> {
    let end = if client.keep_alive { "keep-alive" } else { "close" };
    let path = client.path;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: {end}\r\n\r\n");
    let closed = |error: std::io::Error| std::io::Error::new(CLOSED_IDLE, error);
    connection.get_mut().write_all(request.as_bytes()).map_err(closed)?;
    if connection.fill_buf().map_err(closed)?.is_empty() {
        return Err(std::io::Error::new(CLOSED_IDLE, "not an answer: \"\""));
    }
    let (status, length) = read_head(&mut connection)?;
    let got = std::io::copy(&mut connection.by_ref().take(length), &mut std::io::sink())?;
    if got < length {
        return Err(std::io::Error::other(format!("the body ended after {got} of {length} bytes")));
    }
    Ok((status, connection))
}
