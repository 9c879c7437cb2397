//! One request: find a member, send it there, hand the answer back. A request that was certainly
//! not processed goes to another member.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};

use crate::body::{Outgoing, Reply};
use crate::headers::{self, Unfit};
use crate::shared::{Exchange, Given, MEMBER_WAIT, NoMember, Search, Shared};
use crate::ticket::Cut;
use crate::tunnel;
use crate::upstream::{Link, Sent};

/// How often a request is sent again after a kept connection closed under it. More in a row is no
/// race with a server's idle limit, but a request that ends servers.
const REPEATS_MAX: u32 = 2;

/// Why the proxy answers by itself.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no member of the pool was in traffic within {} s", MEMBER_WAIT.as_secs())]
    Absent,
    #[error("no member of the pool could be connected to within {} s", MEMBER_WAIT.as_secs())]
    Unreachable,
    #[error("no member of the pool is in traffic, and too many requests wait for one already")]
    Crowded,
    #[error("the member ended the connection before it answered")]
    Lost(#[source] hyper::Error),
    #[error(transparent)]
    Cut(#[from] Cut),
    #[error("the member changed the protocol without being asked to")]
    Upgrade,
    #[error("the request's body ended early")]
    Body(#[source] hyper::Error),
}

impl Failure {
    /// 503: certainly not processed. 502: perhaps. 400: the client's own doing.
    fn status(&self) -> StatusCode {
        match self {
            Self::Absent | Self::Unreachable | Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Lost(_) | Self::Cut(_) | Self::Upgrade => StatusCode::BAD_GATEWAY,
            Self::Body(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<NoMember> for Failure {
    fn from(none: NoMember) -> Self {
        match none {
            NoMember::Absent => Self::Absent,
            NoMember::Unreachable => Self::Unreachable,
            NoMember::Crowded => Self::Crowded,
        }
    }
}

/// How one try ended, when it did not fail.
enum Tried {
    /// With this response.
    Done(Response<Reply>),
    /// Nothing was processed: the same request may go anywhere.
    Again(Request<Outgoing>),
}

/// A request on its way: what was tried, and what may be.
struct Errand {
    upgrade: Option<OnUpgrade>,
    search: Search,
    repeats: u32,
}

/// Serves one request.
pub async fn serve(
    shared: Arc<Shared>,
    peer: HeaderValue,
    request: Request<Incoming>,
) -> Response<Reply> {
    shared.count_request();
    let (mut parts, body) = request.into_parts();
    let upgrades = match headers::to_member(&mut parts, &peer) {
        Ok(upgrades) => upgrades,
        Err(unfit) => return refuse(unfit),
    };
    let upgrade = if upgrades { parts.extensions.remove::<OnUpgrade>() } else { None };
    parts.extensions.clear();
    let mut errand = Errand { upgrade, search: Search::default(), repeats: 0 };
    let mut request = Request::from_parts(parts, Outgoing::from(body));
    loop {
        let tried = match shared.assign(&mut errand.search).await {
            Ok(given) => errand.attempt(given, request).await,
            Err(none) => Err(none.into()),
        };
        match tried {
            Ok(Tried::Done(response)) => return response,
            Ok(Tried::Again(again)) => request = again,
            Err(failure) => return fail(&shared, &failure),
        }
    }
}

impl Errand {
    async fn attempt(
        &mut self,
        given: Given,
        request: Request<Outgoing>,
    ) -> Result<Tried, Failure> {
        let Given { exchange, address, link } = given;
        let mut link = match link {
            Some(link) => link,
            None => match exchange.guard(Link::connect(address)).await? {
                Ok(link) => link,
                Err(error) => {
                    self.blame(&exchange, format!("connect: {error}"));
                    return Ok(Tried::Again(request));
                }
            },
        };
        let copy = if link.used { repeatable(&request) } else { None };
        let used = link.used;
        match exchange.guard(link.send(request)).await? {
            Sent::Answered(response) => self.answer(response, link, exchange).await,
            Sent::Returned(request, error) => {
                if !used {
                    self.blame(&exchange, format!("closed before the request: {error}"));
                }
                Ok(Tried::Again(*request))
            }
            Sent::Lost(error) => self.lost(&exchange, copy, error),
        }
    }

    /// The connection ended without an answer. A kept one was probably closed by an idle limit.
    fn lost(
        &mut self,
        exchange: &Exchange,
        copy: Option<Parts>,
        error: hyper::Error,
    ) -> Result<Tried, Failure> {
        if error.is_user() {
            return Err(Failure::Body(error));
        }
        self.blame(exchange, format!("no answer: {error}"));
        match copy {
            Some(parts) if self.repeats < REPEATS_MAX && !error.is_parse() => {
                self.repeats += 1;
                Ok(Tried::Again(Request::from_parts(parts, Outgoing::Empty)))
            }
            Some(_) | None => Err(Failure::Lost(error)),
        }
    }

    fn blame(&mut self, exchange: &Exchange, why: String) {
        tracing::debug!(member = ?exchange.member(), why, "trying another member");
        exchange.blame(why);
        self.search.failed(exchange.member());
    }

    async fn answer(
        &mut self,
        response: Response<Incoming>,
        link: Box<Link>,
        exchange: Exchange,
    ) -> Result<Tried, Failure> {
        let (mut parts, body) = response.into_parts();
        let upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        headers::to_client(&mut parts.headers, upgraded);
        parts.extensions.clear();
        if !upgraded {
            let reply = Reply::new(body, link, exchange);
            return Ok(Tried::Done(Response::from_parts(parts, reply)));
        }
        let client = self.upgrade.take().ok_or(Failure::Upgrade)?;
        let member = exchange.guard(link.into_tunnel()).await?.ok_or(Failure::Upgrade)?;
        tokio::spawn(tunnel::run(exchange, client, member));
        Ok(Tried::Done(Response::from_parts(parts, Reply::Empty)))
    }
}

/// What is needed to send the request once more, if RFC 9110 (9.2.2) lets a proxy do so.
fn repeatable(request: &Request<Outgoing>) -> Option<Parts> {
    if !request.method().is_idempotent() {
        return None;
    }
    match request.body() {
        Outgoing::Stream(_) => None,
        Outgoing::Empty => {
            let (mut parts, ()) = Request::new(()).into_parts();
            parts.method.clone_from(request.method());
            parts.uri.clone_from(request.uri());
            parts.headers.clone_from(request.headers());
            Some(parts)
        }
    }
}

fn fail(shared: &Shared, failure: &Failure) -> Response<Reply> {
    let status = failure.status();
    if status.is_server_error() {
        shared.count_failed();
    }
    tracing::debug!(%status, failure = failure as &dyn std::error::Error, "answered by the proxy");
    words(status, failure)
}

fn refuse(unfit: Unfit) -> Response<Reply> {
    let status = match unfit {
        Unfit::Connect => StatusCode::METHOD_NOT_ALLOWED,
        Unfit::Host | Unfit::Path => StatusCode::BAD_REQUEST,
    };
    words(status, &unfit)
}

fn words(status: StatusCode, why: &dyn std::error::Error) -> Response<Reply> {
    let text = Bytes::from(format!("{}: {why}\n", status.as_u16()));
    let mut response = Response::new(Reply::Text(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
