//! Apps behind a load balancer, clients before it, and how to ask and wait.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rota_agent::traffic::{Balancer, Change, Key, Member, Observed, View, Want};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Is this program installed? If not, the test says loudly that it proves nothing here.
pub fn there(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let more = [Path::new("/usr/sbin").to_owned(), Path::new("/usr/local/sbin").to_owned()];
    let there = std::env::split_paths(&folders).chain(more).any(|it| it.join(program).is_file());
    if !there {
        eprintln!("SKIPPED: {program} is not installed (apt-get install {program})");
    }
    there
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A web app: answers its name; a request for `/hold` waits until it is let go.
pub struct App {
    pub address: SocketAddr,
    pub served: Arc<AtomicU64>,
    go: Arc<Notify>,
    held: watch::Receiver<u64>,
}

impl App {
    pub async fn start(name: &'static str) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (served, go) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let (holding, held) = watch::channel(0);
        let (counted, freed) = (Arc::clone(&served), Arc::clone(&go));
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let serve =
                    serve(stream, name, Arc::clone(&counted), Arc::clone(&freed), holding.clone());
                connections.spawn(serve);
            }
        });
        App { address, served, go, held }
    }

    /// Waits until so many requests are held.
    pub async fn holds(&self, count: u64) {
        let mut held = self.held.clone();
        let reached = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held == count)).await;
        reached.expect("held in time").expect("the app lives");
    }

    /// How many requests are held.
    pub fn held(&self) -> u64 {
        *self.held.borrow()
    }

    /// Lets all held requests go.
    pub fn let_go(&self) {
        self.go.notify_waiters();
    }
}

async fn serve(
    mut stream: TcpStream,
    name: &'static str,
    served: Arc<AtomicU64>,
    go: Arc<Notify>,
    held: watch::Sender<u64>,
) {
    let mut buffer = Vec::new();
    loop {
        let mut part = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut part).await else { return };
        buffer.extend_from_slice(&part[..read]);
        while let Some(end) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            if head.windows(6).any(|it| it == b" /hold") {
                let released = go.notified();
                held.send_modify(|held| *held += 1);
                released.await;
                held.send_modify(|held| *held -= 1);
            }
            served.fetch_add(1, Ordering::Relaxed);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// One request on a connection of its own: the body, and the cookie that it set.
pub async fn get(port: u16, path: &str, cookie: &str) -> Result<(String, String), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let cookie =
            if cookie.is_empty() { String::new() } else { format!("cookie: {cookie}\r\n") };
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: shop\r\n{cookie}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head.lines().next().unwrap_or_default().to_owned());
    }
    let set = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie").then(|| value.split(';').next().unwrap_or(value))
    });
    Ok((body.to_owned(), set.unwrap_or_default().to_owned()))
}

/// Requests one after the other until it is stopped; half of the clients keep their connection.
pub struct Load {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    pub fn start(port: u16, clients: usize) -> Load {
        let (stop, stopping) = watch::channel(false);
        let client =
            |number: usize| tokio::spawn(client(port, number.is_multiple_of(2), stopping.clone()));
        Load { stop, clients: (0..clients).map(client).collect() }
    }

    /// How many were answered, and what went wrong.
    pub async fn stop(self) -> (u64, Vec<String>) {
        self.stop.send_replace(true);
        let (mut good, mut bad) = (0, Vec::new());
        for client in self.clients {
            let (fine, failed) = client.await.expect("a client");
            good += fine;
            bad.extend(failed);
        }
        (good, bad)
    }
}

async fn client(port: u16, keep: bool, stopping: watch::Receiver<bool>) -> (u64, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    let mut kept: Option<TcpStream> = None;
    while !*stopping.borrow() {
        if keep {
            match ask(&mut kept, port).await {
                Ok(()) => good += 1,
                Err(error) => bad.push(format!("keep-alive: {error}")),
            }
        } else {
            match get(port, "/", "").await {
                Ok(_) => good += 1,
                Err(error) => bad.push(error),
            }
        }
    }
    (good, bad)
}

/// A request on a kept connection. One that the other end closed while it was idle is opened anew (RFC 9112, 9.3.1).
async fn ask(kept: &mut Option<TcpStream>, port: u16) -> Result<(), String> {
    let reused = kept.is_some();
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(("127.0.0.1", port)).await.map_err(|it| it.to_string())?,
    };
    let sent = stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let mut answer = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = match &sent {
            Ok(()) => stream.read(&mut part).await.unwrap_or(0),
            Err(_) => 0,
        };
        if read == 0 {
            return match answer.is_empty() && reused {
                true => Box::pin(ask(kept, port)).await,
                false => Err(format!("closed after {} bytes", answer.len())),
            };
        }
        answer.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
        if body.len() < length {
            continue;
        }
        if !head.starts_with("HTTP/1.1 200") {
            return Err(head.lines().next().unwrap_or_default().to_owned());
        }
        if !lower.contains("connection: close") {
            *kept = Some(stream);
        }
        return Ok(());
    }
}

pub fn key(node: &str) -> Key {
    Key { node: node.to_owned(), instance: String::new() }
}

pub fn change(node: &str, app: SocketAddr, want: Want) -> Change {
    Change {
        key: key(node),
        address: app,
        want,
        cut: false,
        health_path: None,
        version: "1.0.0".to_owned(),
    }
}

/// Puts it in force, however often that takes while the balancer does not answer.
pub async fn apply(balancer: &dyn Balancer, change: Change) -> Member {
    let begun = Instant::now();
    loop {
        match balancer.apply(change.clone()).await {
            Ok(member) => return member,
            Err(error) if begun.elapsed() > PATIENCE => panic!("{error}"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Waits until the view is as it should be.
pub async fn sees(balancer: &dyn Balancer, right: impl Fn(&View) -> bool) -> Arc<View> {
    let mut view = balancer.view();
    let seen = tokio::time::timeout(PATIENCE, view.wait_for(|view| right(view))).await;
    match seen {
        Ok(view) => Arc::clone(&view.expect("the balancer lives")),
        Err(_) => panic!("still {:?}", balancer.view().borrow()),
    }
}

pub async fn is(balancer: &dyn Balancer, node: &str, observed: Observed) -> Member {
    let key = key(node);
    let right = |view: &View| view.members.get(&key).is_some_and(|it| it.observed == observed);
    sees(balancer, |view| view.answers && right(view)).await.members[&key].clone()
}
