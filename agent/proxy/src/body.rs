//! Bodies on their way through: streamed frame by frame, never held whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::shared::Exchange;
use crate::ticket::Cut;
use crate::upstream::{Link, poll_body};

/// A request's body on its way to a member.
#[derive(Debug)]
pub enum Outgoing {
    /// There is none, so the request can be sent again.
    Empty,
    /// From the client.
    Stream(Incoming),
}

impl From<Incoming> for Outgoing {
    fn from(body: Incoming) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Stream(body) }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// By the member.
    #[error("the member broke off its response")]
    Member(#[source] hyper::Error),
    /// By us.
    #[error(transparent)]
    Cut(#[from] Cut),
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub enum Reply {
    /// None.
    Empty,
    /// The proxy's own words.
    Text(Bytes),
    /// From a member; the exchange is in flight as long as this lives.
    Stream(Delivery),
}

/// The rest of an exchange: the response's body, and the link that it comes from.
#[derive(Debug)]
pub struct Delivery {
    body: Incoming,
    /// Given back at the end. If the client breaks off, dropped before the exchange ends.
    link: Option<Box<Link>>,
    exchange: Option<Exchange>,
}

impl Reply {
    /// What follows a response's head.
    pub fn new(body: Incoming, link: Box<Link>, exchange: Exchange) -> Self {
        let ended = body.is_end_stream();
        let mut delivery = Delivery { body, link: Some(link), exchange: Some(exchange) };
        if ended {
            delivery.finish();
            return Self::Empty;
        }
        Self::Stream(delivery)
    }
}

impl Delivery {
    /// The response is whole: the link may serve another request.
    fn finish(&mut self) {
        let link = self.link.take().and_then(|mut link| link.is_alive().then_some(link));
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(link);
        }
    }

    fn fail(&mut self) {
        self.link = None;
        if let Some(exchange) = self.exchange.take() {
            exchange.count_failed();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let (Some(link), Some(exchange)) = (&mut self.link, &self.exchange) else {
            return Poll::Ready(None);
        };
        if exchange.poll_cut(cx).is_ready() {
            self.fail();
            return Poll::Ready(Some(Err(Cut.into())));
        }
        match poll_body(link, &mut self.body, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                if self.body.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(cause))) => {
                self.fail();
                Poll::Ready(Some(Err(Broken::Member(cause))))
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.link = None;
        self.exchange = None;
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) if text.is_empty() => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Stream(delivery) => delivery.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_empty(),
            Self::Stream(delivery) => delivery.exchange.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Stream(delivery) => delivery.body.size_hint(),
        }
    }
}
