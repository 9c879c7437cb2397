//! How a client calls a controller or an edge: TCP, TLS with our own configuration, and one HTTP/2
//! channel.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::tls::Rejected;

/// How long TCP and TLS together may take: a controller that storms of reconnects keep busy answers
/// within it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle connection is tried; a cut cable shows after this and [`KEEPALIVE_TIMEOUT`].
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer to such a try may take.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection. Cheap to clone, because it travels through tonic's own error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// Not `HOST:PORT`.
    #[error("`{0}` is not an address: write HOST:PORT, for example 10.0.0.5:7400")]
    Address(String),
    /// TCP failed.
    #[error("cannot reach {address}")]
    Tcp {
        address: String,
        #[source]
        cause: Arc<io::Error>,
    },
    /// TLS failed.
    #[error("cannot agree on TLS with {address}")]
    Tls {
        address: String,
        #[source]
        cause: Arc<io::Error>,
    },
    /// Neither failed, but it took too long.
    #[error("{address} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Slow { address: String },
    /// HTTP/2 could not begin.
    #[error("cannot speak HTTP/2 with {address}")]
    Http {
        address: String,
        #[source]
        cause: Arc<tonic::transport::Error>,
    },
}

/// Connects to `HOST:PORT` now. The channel dials again by itself when a call finds the connection
/// broken.
pub async fn connect(address: &str, config: Arc<ClientConfig>) -> Result<Channel, DialError> {
    let (host, port) = split(address)?;
    // With an https URI tonic would insist on TLS of its own; ours is in the connector.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| DialError::Address(address.to_owned()))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let connector = service_fn(move |_| {
        let (host, config) = (host.clone(), Arc::clone(&config));
        async move { dial(&host, port, config).await.map(TokioIo::new) }
    });
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| match find::<DialError>(&error) {
        Some(ours) => ours.clone(),
        None => DialError::Http { address: address.to_owned(), cause: Arc::new(error) },
    })
}

/// `HOST:PORT`, `[::1]:PORT`.
fn split(address: &str) -> Result<(String, u16), DialError> {
    let bad = || DialError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
        None if host.contains(':') => return Err(bad()),
        None => host,
    };
    if bare.is_empty() || port == 0 { Err(bad()) } else { Ok((bare.to_owned(), port)) }
}

async fn dial(
    host: &str,
    port: u16,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let address =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let both = async {
        let tcp = TcpStream::connect((host, port)).await.and_then(|tcp| {
            tcp.set_nodelay(true)?;
            Ok(tcp)
        });
        let tcp = tcp
            .map_err(|cause| DialError::Tcp { address: address.clone(), cause: Arc::new(cause) })?;
        // Who the server is stands in its certificate's URI; this name is neither sent nor
        // compared.
        let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|cause| DialError::Tls { address: address.clone(), cause: Arc::new(cause) })
    };
    match timeout(CONNECT_TIMEOUT, both).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Slow { address: address.clone() }),
    }
}

/// The one sentence that explains a failed connection or call to a person, if its cause is about
/// TLS or the network.
///
/// With TLS 1.3 a client learns only with its first call that the server refused its certificate;
/// that error is a `tonic::Status`, whose causes are walked here too.
pub fn reason(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(rejected) = find::<Rejected>(error) {
        return Some(rejected.to_string());
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return Some(match tls {
            rustls::Error::AlertReceived(alert) => alert_in_words(*alert),
            other => other.to_string(),
        });
    }
    find::<DialError>(error).map(|dial| match dial {
        DialError::Tcp { cause, .. } | DialError::Tls { cause, .. } => format!("{dial}: {cause}"),
        DialError::Http { cause, .. } => format!("{dial}: {cause}"),
        DialError::Address(_) | DialError::Slow { .. } => dial.to_string(),
    })
}

fn alert_in_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => {
            "the server refused our certificate: it has ended, or the clocks differ".to_owned()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the server refused our certificate: its CA is not the server's".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "the server asks for a certificate and we have none".to_owned()
        }
        other => format!("the server refused the connection ({other:?})"),
    }
}

/// The first error of type `E` in a chain of causes, also inside io::Error and rustls::Error, which
/// hide theirs.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    /// Chains are short; this only guards against one that is a circle.
    const DEPTH_MAX: usize = 32;
    let mut next = Some(error);
    for _ in 0..DEPTH_MAX {
        let current = next?;
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        next = inside(current).or_else(|| current.source());
    }
    None
}

fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(shared) = error.downcast_ref::<Arc<io::Error>>() {
        return Some(&**shared);
    }
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return io.get_ref().map(|inner| inner as &(dyn Error + 'static));
    }
    match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            Some(&*other.0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, right) in [
            ("10.0.0.5:7400", Some(("10.0.0.5", 7400))),
            ("c1.example:7400", Some(("c1.example", 7400))),
            ("[::1]:7400", Some(("::1", 7400))),
            ("::1:7400", None),
            ("[::1:7400", None),
            (":7400", None),
            ("host", None),
            ("host:0", None),
            ("host:x", None),
            ("host:70000", None),
        ] {
            let got = split(text).ok();
            assert_eq!(got.as_ref().map(|(host, port)| (host.as_str(), *port)), right, "{text}");
        }
    }
}
