//! The active health check of one member, from when it joins until it leaves.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::pool::Probe;
use crate::shared::Shared;
use crate::ticket::{MemberId, Stay};

/// For one check. A health page that takes longer does not tell of a healthy app.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a check did not pass.
#[derive(Debug, thiserror::Error)]
enum Unwell {
    #[error("connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no answer: {0}")]
    Answer(#[source] hyper::Error),
    #[error("the path is no URI: {0}")]
    Path(#[source] hyper::http::uri::InvalidUri),
    #[error("status {0}")]
    Status(u16),
}

/// Checks a member until this stay of it ends.
pub async fn watch(shared: Arc<Shared>, id: MemberId, stay: Stay) {
    while let Some(checking) = shared.begin_check(id, stay) {
        let ticket = checking.probe.ticket.clone();
        let check = tokio::time::timeout(CHECK_TIMEOUT, check(&checking.probe));
        let result = match ticket.guard(check).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(unwell))) => Err(format!("health check: {unwell}")),
            Ok(Err(_late)) => Err(format!("health check: no answer in {CHECK_TIMEOUT:?}")),
            Err(_cut) => return, // The member left; the check is dropped and so abandoned.
        };
        let Some(next) = checking.finish(result) else { return };
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = shared.stopped() => return,
        }
    }
}

async fn check(probe: &Probe) -> Result<(), Unwell> {
    let stream = TcpStream::connect(probe.address).await.map_err(Unwell::Connect)?;
    if probe.path.is_empty() {
        return Ok(());
    }
    let status = ask(stream, probe).await?.status();
    if status.is_success() { Ok(()) } else { Err(Unwell::Status(status.as_u16())) }
}

/// One request on a connection of its own, which is dropped with this future.
async fn ask(stream: TcpStream, probe: &Probe) -> Result<Response<hyper::body::Incoming>, Unwell> {
    let uri: Uri = probe.path.parse().map_err(Unwell::Path)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&probe.address.to_string()) {
        headers.insert(HOST, host);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static("rota-health"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let io = TokioIo::new(stream);
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(io).await.map_err(Unwell::Answer)?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let mut driver = std::pin::pin!(driver);
    tokio::select! {
        biased;
        answer = &mut answer => return answer.map_err(Unwell::Answer),
        ended = &mut driver => ended.map_err(Unwell::Answer)?,
    }
    answer.await.map_err(Unwell::Answer)
}
