//! What the tests need: a proxy, apps behind it, and clients in front. Everything is in one
//! single-threaded runtime, on real sockets.

#![expect(dead_code, reason = "each test file uses a part of it")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rota_proxy::control::{CallError, Client, Stats, Subscription};
use rota_proxy::{Config, Intent, Key, MemberState, Observed, Want};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

/// Longer than anything here takes on a busy machine; ends a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// Waits, but not for ever.
#[track_caller]
pub fn soon<F: Future>(what: &str, work: F) -> impl Future<Output = F::Output> {
    let failed = format!("{what}: still not after {PATIENCE:?}");
    async move { tokio::time::timeout(PATIENCE, work).await.expect(&failed) }
}

pub fn text(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed_unsync()
}

/// So many zero bytes, in pieces of 64 KiB.
pub struct Zeros(pub u64);

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PIECE: [u8; 65536] = [0; 65536];
        let size = self.0.min(PIECE.len() as u64);
        self.0 -= size;
        Poll::Ready(
            (size > 0).then(|| Ok(Frame::data(Bytes::from_static(&PIECE[..size as usize])))),
        )
    }
}

/// What an app does, and what it has seen.
#[derive(Default)]
pub struct Doings {
    pub name: String,
    pub sick: AtomicBool,
    pub requests: AtomicU64,
    pub connections: AtomicU64,
    /// Checks that arrived, each on a connection of its own.
    pub checks: AtomicU64,
    /// Requests to `/slow` that arrived.
    pub arrived: Notify,
    /// `/slow` answers when there is a permit.
    pub gate: Option<Semaphore>,
}

/// An app with the paths that the tests need.
pub struct App {
    pub address: SocketAddr,
    pub doings: Arc<Doings>,
    task: JoinHandle<()>,
}

impl App {
    pub fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().unwrap())
    }

    /// Restarts are at the same address.
    pub fn start_at(name: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let doings = Arc::new(Doings {
            name: name.to_owned(),
            gate: Some(Semaphore::new(0)),
            ..Doings::default()
        });
        let task = tokio::spawn(serve(listener, doings.clone()));
        Self { address, doings, task }
    }

    /// Ends the app with all its connections, as a kill does.
    pub async fn kill(self) -> SocketAddr {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        self.address
    }

    pub fn let_slow_answer(&self) {
        self.doings.gate.as_ref().unwrap().add_permits(1);
    }

    pub fn requests(&self) -> u64 {
        self.doings.requests.load(Ordering::SeqCst)
    }

    /// Connections but those of the checks; one whose check has not arrived yet counts.
    pub fn connections(&self) -> u64 {
        let checks = self.doings.checks.load(Ordering::SeqCst);
        self.doings.connections.load(Ordering::SeqCst) - checks
    }

    pub fn intent(&self, want: Want) -> Intent {
        Intent {
            key: Key::new(&self.doings.name, ""),
            address: self.address,
            want,
            cut: false,
            health_path: "/healthz".to_owned(),
            version: "1.0.0".to_owned(),
        }
    }

    /// Connections of the kernel that are established at the app's port.
    pub fn established(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X}", self.address.port());
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[1].ends_with(&port) && row[3] == "01").count()
    }
}

async fn serve(listener: TcpListener, doings: Arc<Doings>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        doings.connections.fetch_add(1, Ordering::SeqCst);
        let doings = doings.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(doings.clone(), request);
                async { Ok::<_, Infallible>(answer.await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let connection = http.serve_connection(TokioIo::new(stream), service);
            // A client that breaks off is part of several tests.
            drop(connection.with_upgrades().await);
        });
    }
}

async fn answer(doings: Arc<Doings>, mut request: Request<Incoming>) -> Response<AnyBody> {
    let counted = match request.uri().path() {
        "/healthz" => &doings.checks,
        _ => &doings.requests,
    };
    counted.fetch_add(1, Ordering::SeqCst);
    let mut response = Response::new(text(""));
    *response.body_mut() = match request.uri().path() {
        "/healthz" if doings.sick.load(Ordering::SeqCst) => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            text("sick")
        }
        "/healthz" => text("well"),
        "/slow" => {
            doings.arrived.notify_one();
            doings.gate.as_ref().unwrap().acquire().await.unwrap().forget();
            text(format!("slowly, {}", doings.name))
        }
        "/half" => {
            doings.arrived.notify_one();
            half(doings).boxed_unsync()
        }
        "/zeros" => Zeros(50 << 20).boxed_unsync(),
        "/count" => {
            let mut body = request.into_body();
            let mut count = 0;
            while let Some(frame) = body.frame().await {
                count += frame.unwrap().into_data().unwrap().len();
            }
            text(count.to_string())
        }
        "/headers" => text(format!("{:?} {:?}", request.version(), request.headers())),
        "/chat" => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
                writer.write_all(b"hello ").await.unwrap();
                // The other side may cut it.
                drop(tokio::io::copy(&mut reader, &mut writer).await);
            });
            Empty::new().boxed_unsync()
        }
        _ => text(doings.name.clone()),
    };
    response
}

/// Half of a body; the end comes when the gate opens.
struct Half(Option<Bytes>, Pin<Box<dyn Future<Output = ()> + Send>>);

fn half(doings: Arc<Doings>) -> Half {
    let gate = async move { doings.gate.as_ref().unwrap().acquire().await.unwrap().forget() };
    Half(Some(Bytes::from("half")), Box::pin(gate))
}

impl Body for Half {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => self.1.as_mut().poll(cx).map(|()| None),
        }
    }
}

/// A proxy that runs in this process.
pub struct Proxy {
    pub address: SocketAddr,
    pub client: Client,
    pub folder: Arc<tempfile::TempDir>,
    task: JoinHandle<Result<(), rota_proxy::Error>>,
}

impl Proxy {
    pub async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    pub async fn start_in(folder: Arc<tempfile::TempDir>) -> Self {
        let config = Self::config(&folder);
        let control = config.control.clone();
        let task = tokio::spawn(rota_proxy::run(config));
        let client = soon("the proxy answers", connect(control, &task)).await;
        let address = client.stats().await.unwrap().listen;
        Self { address, client, folder, task }
    }

    pub fn config(folder: &tempfile::TempDir) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            control: folder.path().join("control.sock"),
            state: folder.path().join("state.json"),
        }
    }

    pub async fn stop(self) -> Arc<tempfile::TempDir> {
        self.client.shutdown().await.unwrap();
        soon("the proxy stops", self.task).await.unwrap().unwrap();
        self.folder
    }

    /// Waits for its end, after it was asked to stop.
    pub async fn ended(self) {
        soon("the proxy stops", self.task).await.unwrap().unwrap();
    }

    /// Apps that are in when this returns.
    pub async fn with(names: &[&str]) -> (Self, Vec<App>) {
        let proxy = Self::start().await;
        let apps: Vec<_> = names.iter().map(|name| App::start(name)).collect();
        for app in &apps {
            proxy.bring_in(app).await;
        }
        (proxy, apps)
    }

    pub async fn bring_in(&self, app: &App) {
        let mut changes = self.client.subscribe().await.unwrap();
        self.client.apply(app.intent(Want::In)).await.unwrap();
        until(&mut changes, &app.doings.name, Observed::In).await;
    }

    /// Drains the app's member; when this returns it is out.
    pub async fn take_out(&self, app: &App) -> MemberState {
        let mut changes = self.client.subscribe().await.unwrap();
        let state = self.client.apply(app.intent(Want::Out)).await.unwrap();
        match state.observed {
            Observed::Out => state,
            _ => until(&mut changes, &app.doings.name, Observed::Out).await,
        }
    }

    pub async fn state(&self, app: &App) -> MemberState {
        let list = self.client.list().await.unwrap();
        list.into_iter().find(|state| state.key.node == app.doings.name).unwrap()
    }

    pub async fn stats(&self) -> Stats {
        self.client.stats().await.unwrap()
    }

    /// Waits until the counters are as they should.
    pub async fn until_stats(&self, what: &str, is: impl Fn(&Stats) -> bool) -> Stats {
        let waiting = async {
            loop {
                let stats = self.stats().await;
                if is(&stats) {
                    return stats;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(what, waiting).await
    }
}

async fn connect(path: PathBuf, task: &JoinHandle<Result<(), rota_proxy::Error>>) -> Client {
    loop {
        match Client::connect(&path).await {
            Ok(client) => return client,
            Err(CallError::Connect { .. }) if !task.is_finished() => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("the proxy ended at once: {error}"),
        }
    }
}

/// The first time that the member is seen so.
pub async fn until(changes: &mut Subscription, node: &str, observed: Observed) -> MemberState {
    let waiting = async {
        loop {
            let state = changes.next().await.unwrap().expect("the proxy still runs");
            if state.key.node == node && state.observed == observed {
                return state;
            }
        }
    };
    soon(&format!("{node} is {observed:?}"), waiting).await
}

/// A client with one keep-alive connection.
pub struct Visitor {
    sender: SendRequest<AnyBody>,
    pub driver: JoinHandle<()>,
}

impl Visitor {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        let (sender, driver) = hyper::client::conn::http1::handshake(io).await.unwrap();
        // Errors come out of the request, too.
        let driver = tokio::spawn(async { drop(driver.with_upgrades().await) });
        Self { sender, driver }
    }

    pub async fn send(&mut self, request: Request<AnyBody>) -> Response<Incoming> {
        self.try_send(request).await.unwrap()
    }

    pub async fn try_send(
        &mut self,
        request: Request<AnyBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        soon("connection is ready", self.sender.ready()).await?;
        soon("an answer", self.sender.send_request(request)).await
    }

    /// Status and text.
    pub async fn get(&mut self, path: &str) -> (u16, String) {
        read(self.send(get(path)).await).await
    }
}

pub fn get(path: &str) -> Request<AnyBody> {
    Request::get(path).header("host", "shop.example").body(text("")).unwrap()
}

pub fn post(path: &str, body: AnyBody) -> Request<AnyBody> {
    Request::post(path).header("host", "shop.example").body(body).unwrap()
}

pub async fn read(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Reads so many bytes as text.
pub async fn read_text(reader: &mut (impl AsyncReadExt + Unpin), count: usize) -> String {
    let mut bytes = vec![0; count];
    soon("bytes", reader.read_exact(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}
