//! The listener: accepts clients, speaks HTTP/1.1 and HTTP/2 with them, and stops gently.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::exchange;
use crate::shared::Shared;

/// Connections that the kernel accepts ahead of us. All clients may come back at once.
const BACKLOG: u32 = 4096;

/// Clients at once. Each holds a descriptor and some 10 KiB; more wait in the backlog.
const CLIENTS_MAX: usize = 16_384;

/// How long a client may be silent: before its first request, between two, and within a head.
/// Longer than the keep-alive of common clients and of load balancers in front (60 s), which
/// should be the ones that close.
const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(75);

/// Bytes of a request's head, and of what a client's connection buffers. Common servers stop at 8
/// to 32 KiB; a proxy should not be the stricter one.
const HEAD_SIZE_MAX: u32 = 64 * 1024;

/// Requests at once on one HTTP/2 connection, as other servers have it.
const STREAMS_MAX: u32 = 250;

/// Silence before the kernel asks whether a client's host is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// Out of descriptors: a breath, in which exchanges end and give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long requests in flight may take when the proxy stops; then they are cut and counted.
pub const STOP_LIMIT: Duration = Duration::from_secs(30);

/// After the cut: how long connections may take to tell their clients.
const CUT_LIMIT: Duration = Duration::from_secs(1);

/// Opens the listener.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit these.
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_AFTER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves clients until the proxy is asked to stop, and finishes what is in flight.
pub async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let builder = Arc::new(builder());
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = shared.stopped() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let (shared, builder, watcher) = (shared.clone(), builder.clone(), graceful.watcher());
        tokio::spawn(async move {
            tokio::select! {
                () = shared.stopped() => return,
                spoke = first_byte(&stream) => if let Err(error) = spoke {
                    tracing::debug!(%peer, %error, "client said nothing");
                    return;
                }
            }
            let peer = address(peer);
            let service = service_fn(move |request| {
                let served = exchange::serve(shared.clone(), peer.clone(), request);
                async { Ok::<_, Infallible>(served.await) }
            });
            let io = TokioIo::new(stream);
            let connection = builder.serve_connection_with_upgrades(io, service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(error, "client connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    finish(&shared, graceful).await;
}

async fn finish(shared: &Shared, graceful: GracefulShutdown) {
    let ended = async {
        graceful.shutdown().await;
        shared.quiet().await; // Tunnels have left their connections.
    };
    let mut ended = std::pin::pin!(ended);
    if tokio::time::timeout(STOP_LIMIT, &mut ended).await.is_ok() {
        return;
    }
    shared.pool().cut_all();
    if tokio::time::timeout(CUT_LIMIT, ended).await.is_err() {
        tracing::warn!("stopping with client connections open");
    }
}

/// The next client, as soon as there is room for one.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; without it a place would simply not be counted.
    let place = room.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) if is_of_one_client(&error) => {
                tracing::debug!(%error, "client gone before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept clients for a moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

async fn first_byte(stream: &TcpStream) -> io::Result<()> {
    match tokio::time::timeout(CLIENT_SILENCE_MAX, stream.readable()).await {
        Ok(readable) => readable,
        Err(_late) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// As X-Forwarded-For has it: IPv4 clients of a dual-stack listener are IPv4 clients.
fn address(peer: SocketAddr) -> HeaderValue {
    let text = peer.ip().to_canonical().to_string();
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_SILENCE_MAX)
        .max_buf_size(HEAD_SIZE_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_AFTER)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_SIZE_MAX);
    builder
}
