//! Requests without a pause to one load balancer of the lab, each one counted, until standard input ends.
//!
//!     lab-load HOST:PORT CLIENTS PACE_MS BODY..
//!
//! Half of the clients keep their connection, half open one for each request. A request is good when its answer is a
//! whole 200, each line of which is one of the bodies; anything else has failed, and nothing is sent twice. A kept
//! connection that the other end has closed while it was idle is opened anew before a request is sent. One exception
//! (RFC 9112, 9.3.1): a request that crossed the close of its kept connection on the way, so that not a byte of an
//! answer came, is sent once more over a new one; those are counted, too. Twice a second, and at the end, a line says
//! what the clients saw so far:
//!
//!     kept GOOD FAILED REOPENED CROSSED new GOOD FAILED REOPENED CROSSED BODY=COUNT..

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rota_tests::Trouble;

/// An answer that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that takes longer than this has failed.
const CONNECT: Duration = Duration::from_secs(3);

/// Failures that are told one by one; the rest is counted.
const TOLD_MAX: u64 = 40;

/// After a failure a client rests: a load balancer that is gone fails thousands of requests a second else.
const REST: Duration = Duration::from_millis(100);

const USAGE: &str = "usage: lab-load HOST:PORT CLIENTS PACE_MS BODY..";

/// What to ask whom.
struct Task {
    edge: SocketAddr,
    clients: usize,
    pace: Duration,
    bodies: Vec<String>,
}

#[derive(Default)]
struct Counts {
    good: AtomicU64,
    failed: AtomicU64,
    reopened: AtomicU64,
    crossed: AtomicU64,
}

/// What all clients share.
struct Shared {
    task: Task,
    stop: AtomicBool,
    kept: Counts,
    new: Counts,
    bodies: Vec<AtomicU64>,
    told: Mutex<u64>,
}

/// Why a request has failed.
enum Lost {
    /// Not a byte of an answer came before the connection was closed.
    Unanswered(std::io::Error),
    Other(Trouble),
}

impl<E: Into<Trouble>> From<E> for Lost {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

type Connection = BufReader<TcpStream>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match task(&args) {
        Ok(task) => run(task),
        Err(error) => {
            eprintln!("error: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn task(args: &[String]) -> Result<Task, Trouble> {
    let [edge, clients, pace, bodies @ ..] = args else { return Err("too few arguments".into()) };
    Ok(Task {
        edge: edge.parse()?,
        clients: clients.parse()?,
        pace: Duration::from_millis(pace.parse()?),
        bodies: bodies.to_vec(),
    })
}

fn run(task: Task) {
    let bodies = task.bodies.iter().map(|_| AtomicU64::new(0)).collect();
    let clients = task.clients;
    let shared = Arc::new(Shared {
        task,
        stop: AtomicBool::new(false),
        kept: Counts::default(),
        new: Counts::default(),
        bodies,
        told: Mutex::new(0),
    });
    let start = |number: usize| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || client(&shared, number.is_multiple_of(2)))
    };
    let clients: Vec<_> = (0..clients).map(start).collect();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let until = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.send(until.is_ok())
    });
    while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_millis(500)) {
        println!("{}", shared.line());
    }
    shared.stop.store(true, Ordering::Relaxed);
    for client in clients {
        if client.join().is_err() {
            shared.kept.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    println!("{}", shared.line());
}

impl Shared {
    fn line(&self) -> String {
        let of = |counts: &Counts| {
            let all = [&counts.good, &counts.failed, &counts.reopened, &counts.crossed];
            all.map(|count| count.load(Ordering::Relaxed).to_string()).join(" ")
        };
        let bodies = self.task.bodies.iter().zip(&self.bodies);
        let bodies: String = bodies
            .map(|(body, count)| format!(" {}={}", name(body), count.load(Ordering::Relaxed)))
            .collect();
        format!("kept {} new {}{bodies}", of(&self.kept), of(&self.new))
    }

    fn failed(&self, counts: &Counts, how: &str, lost: &Lost) {
        counts.failed.fetch_add(1, Ordering::Relaxed);
        let Ok(mut told) = self.told.lock() else { return };
        *told += 1;
        if *told <= TOLD_MAX {
            let why = match lost {
                Lost::Unanswered(error) => format!("no answer: {error}"),
                Lost::Other(error) => error.to_string(),
            };
            eprintln!("{} {} {how}: {why}", jiff::Timestamp::now(), self.task.edge);
        }
    }
}

/// A body as one word.
fn name(body: &str) -> String {
    body.trim().replace(' ', "-")
}

fn client(shared: &Shared, keeps: bool) {
    let counts = if keeps { &shared.kept } else { &shared.new };
    let how = if keeps { "kept" } else { "new" };
    let mut kept: Option<Connection> = None;
    let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    while !shared.stop.load(Ordering::Relaxed) {
        let answered = match kept.take() {
            Some(connection) if is_closed(&connection) => {
                count(&counts.reopened);
                anew(shared, keeps)
            }
            Some(connection) => match ask(shared, connection, keeps) {
                Err(Lost::Unanswered(_)) => {
                    count(&counts.crossed);
                    anew(shared, keeps)
                }
                answered => answered,
            },
            None => anew(shared, keeps),
        };
        match answered {
            Ok(connection) => {
                count(&counts.good);
                kept = connection;
                std::thread::sleep(shared.task.pace); // the pace of the load, not a wait for anything
            }
            Err(lost) => {
                shared.failed(counts, how, &lost);
                std::thread::sleep(REST); // the pace of the load, too
            }
        }
    }
}

/// Has the other end closed it while it was idle?
fn is_closed(connection: &Connection) -> bool {
    let stream = connection.get_ref();
    let seen = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let open = matches!(seen, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_err() || !open
}

fn anew(shared: &Shared, keeps: bool) -> Result<Option<Connection>, Lost> {
    let stream = TcpStream::connect_timeout(&shared.task.edge, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    ask(shared, BufReader::new(stream), keeps)
}

/// One request; answers the connection, when the other end keeps it, too.
fn ask(
    shared: &Shared,
    mut connection: Connection,
    keeps: bool,
) -> Result<Option<Connection>, Lost> {
    let end = if keeps { "keep-alive" } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nhost: lab\r\nconnection: {end}\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).map_err(Lost::Unanswered)?;
    let first = connection.fill_buf().map(<[u8]>::len);
    match first {
        Ok(0) => return Err(Lost::Unanswered(std::io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            return Err(Lost::Unanswered(error));
        }
        Err(error) => return Err(error.into()),
    }
    let (status, length, close) = head(&mut connection)?;
    let mut body = Vec::new();
    connection.by_ref().take(length).read_to_end(&mut body)?;
    let body = String::from_utf8_lossy(&body);
    if status != 200 || u64::try_from(body.len())? != length {
        return Err(format!("status {status}, {} of {length} bytes", body.len()).into());
    }
    let is = |one: &&String| !body.is_empty() && body.lines().all(|line| line == one.as_str());
    let Some(which) = shared.task.bodies.iter().position(|one| is(&one)) else {
        return Err(format!("a strange body: {body:.80?}").into());
    };
    shared.bodies[which].fetch_add(1, Ordering::Relaxed);
    Ok(Some(connection).filter(|_| keeps && !close))
}

/// Reads a head: the status, the length of the body, and whether the connection is closed after it.
fn head(connection: &mut Connection) -> Result<(u16, u64, bool), Lost> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("not an answer: {line:?}"))?;
    let (mut length, mut close) = (0, false);
    loop {
        let mut header = String::new();
        if connection.read_line(&mut header)? == 0 {
            return Err("the head is cut off".into());
        }
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            return Ok((status, length, close));
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        close |= header == "connection: close";
    }
}
