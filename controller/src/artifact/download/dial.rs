//! One connection to the host of an artifact, with TLS where its URL says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::DownloadError;
use super::place::Place;

/// For TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection that takes one request.
pub(super) async fn connect(place: &Place) -> Result<SendRequest<Empty<Bytes>>, DownloadError> {
    let host = || place.authority().to_owned();
    let roots = if place.secure { Some(roots()?) } else { None };
    let wire = match timeout(CONNECT_TIMEOUT, dial(place, roots)).await {
        Ok(dialled) => dialled.map_err(|cause| DownloadError::Reach { host: host(), cause })?,
        Err(_) => return Err(DownloadError::Silent { host: host(), after: CONNECT_TIMEOUT }),
    };
    let cause = |error| DownloadError::Reach { host: host(), cause: io::Error::other(error) };
    let (sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(cause)?;
    tokio::spawn(async move {
        // It ends with the answer, and whoever reads the answer is told why it broke.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection of a download broke");
        }
    });
    Ok(sender)
}

async fn dial(place: &Place, roots: Option<RootCertStore>) -> io::Result<Box<dyn Wire>> {
    let tcp = TcpStream::connect((place.host.as_str(), place.port)).await?;
    let Some(roots) = roots else { return Ok(Box::new(tcp)) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(place.host.clone()).map_err(io::Error::other)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    Ok(Box::new(tls))
}

/// Whom this machine trusts: its own list, or what SSL_CERT_FILE and SSL_CERT_DIR name.
fn roots() -> Result<RootCertStore, DownloadError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(DownloadError::NoRoots(why.unwrap_or_default()));
    }
    Ok(roots)
}
