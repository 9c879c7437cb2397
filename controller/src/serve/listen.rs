//! The controller's port: accepts TCP, shakes hands in tasks of their own, and gives tonic what
//! passed.
//!
//! Nobody holds up anybody else: a handshake has a deadline, their number has a bound, and a
//! connection without a certificate (somebody who enrols) has a short life and is one of few.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use rota_identity::reason;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Connections that the kernel keeps until we accept them: a whole fleet reconnects at once. The
/// kernel may allow less (net.core.somaxconn).
const BACKLOG: u32 = 4096;
/// Handshakes at one time. Each costs 0.75 ms of a core; more at once would only make all of them
/// late.
const HANDSHAKES_MAX: usize = 512;
/// How long one may take: three round trips around the world, and a busy host.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections without a certificate at one time: a rack that joins.
const GUESTS_MAX: usize = 1024;
/// How long each of them lives: an enrolment is one call.
const GUEST_TIME: Duration = Duration::from_secs(60);
/// Connections that wait until tonic takes them.
const READY_QUEUE: usize = 64;
/// How long to wait after accept failed: descriptors come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What became of connections, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Handed to tonic.
    pub accepted: AtomicU64,
    /// Handshakes that failed: no TLS 1.3, a foreign CA, an ended certificate.
    pub refused: AtomicU64,
    /// Handshakes that took longer than [`HANDSHAKE_TIMEOUT`].
    pub slow: AtomicU64,
    /// Connections without a certificate beyond [`GUESTS_MAX`].
    pub crowded_out: AtomicU64,
    /// Times that accept itself failed (no descriptors left, for example).
    pub accept_errors: AtomicU64,
}

/// Listens at an address; port 0 picks a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The connections of a listener, for tonic's `serve_with_incoming`. Accepting ends when the stream
/// is dropped.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    counters: Arc<Counters>,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(READY_QUEUE);
    let door = Door {
        config,
        counters,
        ready,
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        guests: Arc::new(Semaphore::new(GUESTS_MAX)),
    };
    tokio::spawn(accept(listener, Arc::new(door)));
    ReceiverStream::new(connections)
}

struct Door {
    config: Arc<ArcSwap<ServerConfig>>,
    counters: Arc<Counters>,
    ready: mpsc::Sender<io::Result<Connection>>,
    handshakes: Arc<Semaphore>,
    guests: Arc<Semaphore>,
}

async fn accept(listener: TcpListener, door: Arc<Door>) {
    loop {
        // While all are busy, newcomers wait in the kernel's queue.
        let Ok(seat) = Arc::clone(&door.handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.ready.closed() => return,
        };
        match accepted {
            Ok((tcp, peer)) => {
                tokio::spawn(shake_hands(Arc::clone(&door), seat, tcp, peer));
            }
            Err(error) => {
                door.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn shake_hands(
    door: Arc<Door>,
    seat: OwnedSemaphorePermit,
    tcp: TcpStream,
    peer: SocketAddr,
) {
    let counters = &door.counters;
    if let Err(error) = tcp.set_nodelay(true) {
        // Slower answers are no reason to send anybody away.
        tracing::debug!(%error, %peer, "cannot set TCP_NODELAY");
    }
    let acceptor = TlsAcceptor::from(door.config.load_full());
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            let why = reason(&error).unwrap_or_else(|| error.to_string());
            tracing::debug!(%peer, %why, "refused a TLS handshake");
            return;
        }
        Err(_) => {
            counters.slow.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, "a TLS handshake took too long");
            return;
        }
    };
    drop(seat);
    let guest = if stream.get_ref().1.peer_certificates().is_some() {
        None
    } else if let Ok(seat) = Arc::clone(&door.guests).try_acquire_owned() {
        Some(Guest { ends: Box::pin(sleep(GUEST_TIME)), _seat: seat })
    } else {
        counters.crowded_out.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%peer, "too many connections without a certificate");
        return;
    };
    if door.ready.send(Ok(Connection { stream, guest })).await.is_ok() {
        counters.accepted.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection. A call on it knows its peer as with tonic's own TLS (`peer_certs`,
/// `remote_addr`).
pub struct Connection {
    stream: TlsStream<TcpStream>,
    guest: Option<Guest>,
}

/// What a connection without a certificate has: an end, and one of few seats.
struct Guest {
    ends: Pin<Box<Sleep>>,
    _seat: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            return Poll::Ready(result);
        }
        match &mut self.guest {
            None => Poll::Pending,
            Some(guest) => {
                ready!(guest.ends.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
