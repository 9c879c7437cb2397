//! One HTTP/1.1 connection to a member.
//!
//! The connection is driven by whoever uses it, in the same task: no task of its own, no channel
//! between threads, and dropping a [`Link`] closes its socket there and then. That is what makes
//! "in flight is 0" mean that the member's port has no connection of ours.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;

use crate::body::Outgoing;

/// For a TCP connect. A second lost SYN (1 s, then 2 s) fits; a host that is down is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Silence before the kernel asks whether the member's host is still there. Long requests are
/// allowed, vanished hosts must not hold them for ever.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);

/// Between two such questions, of which three go unanswered.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);

/// Bytes of a response's head, and of what one connection buffers. Twice what common servers send
/// at most.
const HEAD_SIZE_MAX: usize = 64 * 1024;

type Driver = Connection<TokioIo<TcpStream>, Outgoing>;

/// A connection to a member.
#[derive(Debug)]
pub struct Link {
    sender: SendRequest<Outgoing>,
    driver: Option<Driver>,
    /// The driver ended, and must not be polled again.
    ended: bool,
    /// It carried a request before, so the member may have closed it in the meantime.
    pub used: bool,
}

/// What became of a request.
#[derive(Debug)]
pub enum Sent {
    /// The head of the response is here; the body comes while the link is driven.
    Answered(Response<Incoming>),
    /// Not a byte of it was written.
    Returned(Box<Request<Outgoing>>, hyper::Error),
    /// It may have been processed.
    Lost(hyper::Error),
}

impl Link {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> io::Result<Box<Self>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the TCP connect");
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(late)??;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_EVERY)?;
        sockopt::set_tcp_keepcnt(&stream, 3)?;
        let (sender, driver) = Builder::new()
            .max_buf_size(HEAD_SIZE_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(Self { sender, driver: Some(driver), ended: false, used: false }))
    }

    /// Moves bytes. Ready when nothing more will move.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(driver) = &mut self.driver else { return Poll::Ready(()) };
        if !self.ended && driver.poll_without_shutdown(cx).is_ready() {
            // Errors also reach whoever waits for the response or its body, who reports them.
            self.ended = true;
        }
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Could it carry a request now? Looks whether the member closed it.
    pub fn is_alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_drive(&mut cx).is_pending() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the response.
    pub async fn send(&mut self, request: Request<Outgoing>) -> Sent {
        self.used = true;
        let mut response = pin!(self.sender.try_send_request(request));
        let (driver, ended) = (&mut self.driver, &mut self.ended);
        let answer = std::future::poll_fn(|cx| {
            if let Some(driver) = driver
                && !*ended
            {
                *ended = driver.poll_without_shutdown(cx).is_ready();
            }
            let polled = response.as_mut().poll(cx);
            if polled.is_pending() && *ended && driver.take().is_some() {
                // With the driver goes the last that could answer; so this resolves.
                return response.as_mut().poll(cx);
            }
            polled
        });
        match answer.await {
            Ok(response) => Sent::Answered(response),
            Err(mut failed) => match failed.take_message() {
                Some(request) => Sent::Returned(Box::new(request), failed.into_error()),
                None => Sent::Lost(failed.into_error()),
            },
        }
    }

    /// Stops driving: a body that is still waited for ends now, with an error if it is not whole.
    pub fn close(&mut self) {
        self.driver = None;
        self.ended = true;
    }

    /// The bare connection after the member agreed to upgrade, and what it already sent.
    pub async fn into_tunnel(mut self: Box<Self>) -> Option<(TcpStream, Bytes)> {
        std::future::poll_fn(|cx| self.poll_drive(cx)).await;
        let parts = self.driver.take()?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}

/// The next piece of a response's body, moving bytes of the link that it comes from.
pub fn poll_body(
    link: &mut Link,
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>> {
    let polled = Pin::new(&mut *body).poll_frame(cx);
    if polled.is_ready() {
        return polled;
    }
    let ended = link.poll_drive(cx).is_ready();
    let polled = Pin::new(&mut *body).poll_frame(cx);
    if polled.is_pending() && ended {
        link.close();
        return Pin::new(body).poll_frame(cx);
    }
    polled
}
