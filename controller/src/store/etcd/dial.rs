//! The way to one member of etcd: TCP, TLS where the operator asks for it, and one HTTP/2 channel.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rota_identity::tls::Credentials;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::config::{EtcdConfig, PASSWORD_VARIABLE, Trust, split};
use super::{StoreError, errors};

/// For TCP and TLS with one member: there may be others to try, and a lease of 5 s to be kept.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// How often a connection on which something waits is tried. Etcd ends those that are tried more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// How long the answer to such a try may take.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// What may be under way on one stream: pages of records and watches of a large fleet are some MiB.
const WINDOW_BYTES: u32 = 4 << 20;

/// A member that was not reached: nothing that was to be sent was sent.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be reached: {why}")]
pub(super) struct NotReached {
    why: String,
}

/// The TLS that the operator asks for; none is plain TCP.
pub(super) fn tls(config: &EtcdConfig) -> Result<Option<Arc<ClientConfig>>, StoreError> {
    let roots = match &config.trust {
        Trust::Plain => return Ok(None),
        Trust::System => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
        Trust::File(path) => rota_identity::tls::roots(&text("ca", path)?)
            .map_err(|cause| unusable("ca", path, &errors::chain(&cause)))?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| StoreError::Unavailable(format!("this build has no TLS: {cause}")))?
        .with_root_certificates(roots);
    let mut made = match &config.certificate {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            rota_identity::files::check_mode(key)
                .map_err(|cause| unusable("key", key, &errors::chain(&cause)))?;
            let pair = Credentials::from_pem(&text("cert", cert)?, &text("key", key)?)
                .map_err(|cause| unusable("cert", cert, &errors::chain(&cause)))?;
            builder
                .with_client_auth_cert(pair.chain, pair.key)
                .map_err(|cause| unusable("key", key, &cause.to_string()))?
        }
    };
    // Etcd tells gRPC from its older API by this name.
    made.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(Arc::new(made)))
}

/// The password of the user, if there is one.
pub(super) fn password(config: &EtcdConfig) -> Result<Option<String>, StoreError> {
    let Some(user) = &config.user else { return Ok(None) };
    if let Some(path) = &config.password_file {
        rota_identity::files::check_mode(path)
            .map_err(|cause| unusable("password-file", path, &errors::chain(&cause)))?;
        let text = text("password-file", path)?;
        return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    match std::env::var(PASSWORD_VARIABLE) {
        Ok(password) if !password.is_empty() => Ok(Some(password)),
        Ok(_) | Err(_) => Err(StoreError::Unavailable(format!(
            "user={user} has no password: add `password-file=FILE`, or set {PASSWORD_VARIABLE}"
        ))),
    }
}

fn text(option: &str, path: &Path) -> Result<String, StoreError> {
    fs::read_to_string(path).map_err(|cause| unusable(option, path, &cause.to_string()))
}

fn unusable(option: &str, path: &Path, why: &str) -> StoreError {
    let path = path.display();
    StoreError::Unavailable(format!("cannot use {option}={path} of the etcd URL: {why}"))
}

/// A channel to `HOST:PORT` that dials with its first call, and again whenever the connection is broken.
pub(super) fn channel(
    member: &str,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Channel, StoreError> {
    let bad = || StoreError::Unavailable(format!("`{member}` is not HOST:PORT"));
    let (host, port) = split(member).map(|(host, port)| (host.to_owned(), port)).ok_or_else(bad)?;
    // With an https URI tonic would insist on TLS of its own; ours is in the connector.
    let endpoint = Endpoint::from_shared(format!("http://{member}"))
        .map_err(|_| bad())?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let tls = tls.cloned();
    let connector = service_fn(move |_| {
        let (host, tls) = (host.clone(), tls.clone());
        async move {
            let dialled = timeout(CONNECT_TIMEOUT, dial(&host, port, tls)).await;
            let why = match dialled {
                Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
                Ok(Err(cause)) => in_words(&cause),
                Err(_) => format!("no answer within {} ms", CONNECT_TIMEOUT.as_millis()),
            };
            Err(NotReached { why })
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// TCP with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn dial(
    host: &str,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, tcp).await?))
}

fn in_words(cause: &io::Error) -> String {
    rota_identity::reason(cause).unwrap_or_else(|| cause.to_string())
}
