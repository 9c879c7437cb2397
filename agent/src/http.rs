//! One GET on a connection of its own: what health checks and smoke tests ask of an app.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status line's number.
    pub status: u16,
    /// The body, or its beginning.
    pub body: Vec<u8>,
    /// Whether `body` is all of it.
    pub whole: bool,
}

/// How long and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// From the connect to the last byte that is read.
    pub timeout: Duration,
    /// Bytes of the body that are read; the rest is not waited for.
    pub body: usize,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Nobody listens there (yet).
    #[error("nothing listens on {address}")]
    Refused { address: SocketAddr },
    /// The connection could not be made.
    #[error("cannot connect to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        cause: std::io::Error,
    },
    /// The time is over.
    #[error("no complete answer from {address}{path} within {timeout:?}")]
    Timeout { address: SocketAddr, path: String, timeout: Duration },
    /// The path cannot be asked for.
    #[error("`{path}` is not a path: it must begin with / and have no spaces")]
    Path { path: String },
    /// The peer broke off, or does not speak HTTP.
    #[error("no valid answer from {address}{path}")]
    Broken {
        address: SocketAddr,
        path: String,
        #[source]
        cause: hyper::Error,
    },
}

/// Asks `address` for `path` once.
pub async fn get(address: SocketAddr, path: &str, bounds: Bounds) -> Result<Answer, HttpError> {
    let request = request(address, path)?;
    match tokio::time::timeout(bounds.timeout, exchange(address, request, path, bounds.body)).await
    {
        Ok(result) => result,
        Err(_elapsed) => {
            Err(HttpError::Timeout { address, path: path.into(), timeout: bounds.timeout })
        }
    }
}

fn request(address: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>, HttpError> {
    let refuse = || HttpError::Path { path: path.into() };
    if !path.starts_with('/') {
        return Err(refuse());
    }
    Request::get(path)
        .header(HOST, address.to_string())
        .header(USER_AGENT, concat!("rota-agent/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| refuse())
}

async fn exchange(
    address: SocketAddr,
    request: Request<Empty<Bytes>>,
    path: &str,
    body_max: usize,
) -> Result<Answer, HttpError> {
    let broken = |cause| HttpError::Broken { address, path: path.into(), cause };
    let stream = TcpStream::connect(address).await.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::ConnectionRefused => HttpError::Refused { address },
        _ => HttpError::Connect { address, cause },
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let (body, whole) = read_body(response.into_body(), body_max).await?;
        Ok(Answer { status, body, whole })
    });
    tokio::select! {
        answer = &mut answer => answer,
        // The connection ends before the last bytes are taken from it; its error reaches `answer`
        // too.
        _ended = connection => answer.await,
    }
    .map_err(broken)
}

async fn read_body(
    mut body: hyper::body::Incoming,
    max: usize,
) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = max - bytes.len();
            if data.len() > room {
                bytes.extend_from_slice(&data[..room]);
                return Ok((bytes, false));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok((bytes, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one connection with these bytes, then keeps it open or closes it.
    async fn serve(reply: &'static [u8], keep_open: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut asked = [0; 1024];
            let read = stream.read(&mut asked).await.expect("a request");
            assert!(asked[..read].starts_with(b"GET /x?y=1 HTTP/1.1\r\n"));
            stream.write_all(reply).await.expect("writes");
            if keep_open {
                std::future::pending::<()>().await;
            }
        });
        address
    }

    async fn check(reply: &'static [u8], keep_open: bool, expected: &str) {
        let address = serve(reply, keep_open).await;
        let bounds = Bounds { timeout: Duration::from_millis(200), body: 8 };
        let got = match get(address, "/x?y=1", bounds).await {
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                format!("{} {body} {}", answer.status, answer.whole)
            }
            Err(error) => error.to_string().replace(&address.to_string(), "HERE"),
        };
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn answers() {
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true, "200 ok true").await;
        check(b"HTTP/1.1 503 No\r\n\r\nuntil", false, "503 until true").await;
        check(b"HTTP/1.0 204 No\r\n\r\n", false, "204  true").await;
        check(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n",
            true,
            "200 12345678 false",
        )
        .await;
        check(b"", true, "no complete answer from HERE/x?y=1 within 200ms").await;
        check(b"SSH-2.0-x\r\n", false, "no valid answer from HERE/x?y=1").await;
        check(b"", false, "no valid answer from HERE/x?y=1").await;
        check(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
            false,
            "no valid answer from HERE/x?y=1",
        )
        .await;
    }

    #[tokio::test]
    async fn nobody_there_and_no_path() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let bounds = Bounds { timeout: Duration::from_secs(1), body: 0 };
        let refused = get(address, "/", bounds).await.unwrap_err();
        assert!(matches!(refused, HttpError::Refused { .. }), "{refused}");
        for path in ["", "x", "/a b", "http://evil/"] {
            let error = get(address, path, bounds).await.unwrap_err();
            assert!(matches!(error, HttpError::Path { .. }), "{path}: {error}");
        }
    }
}
