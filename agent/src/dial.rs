//! One fresh connection: TCP, TLS with our own certificate, HTTP/2, and who answered.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use rota_identity::dial::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use rota_identity::{BadIdentity, DialError, Identity};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// A connection and its other end. It never dials again: when it breaks, whoever holds it learns.
#[derive(Debug)]
pub struct Dialled {
    /// For calls.
    pub channel: Channel,
    /// Who answered, by its certificate.
    pub peer: Identity,
    /// Where it is.
    pub remote: SocketAddr,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    /// TCP or TLS.
    #[error("{}", rota_identity::reason(.0).unwrap_or_else(|| .0.to_string()))]
    Dial(DialError),
    /// A certificate that passed TLS and names nobody.
    #[error("cannot tell who answers at {address}")]
    Nobody {
        address: String,
        #[source]
        cause: BadIdentity,
    },
}

impl NoConnection {
    /// Will another try fail the same way, because the other end is not one of ours?
    pub fn is_final(&self) -> bool {
        match self {
            Self::Nobody { .. } | Self::Dial(DialError::Address(_)) => true,
            Self::Dial(DialError::Tls { cause, .. }) => {
                let tls = cause.get_ref().and_then(|inner| inner.downcast_ref());
                matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
            }
            Self::Dial(DialError::Tcp { .. } | DialError::Slow { .. } | DialError::Http { .. }) => {
                false
            }
        }
    }
}

/// Connects to HOST:PORT.
pub async fn dial(address: &str, config: Arc<ClientConfig>) -> Result<Dialled, NoConnection> {
    let both = timeout(CONNECT_TIMEOUT, handshake(address, config)).await;
    let slow = || DialError::Slow { address: address.to_owned() };
    let stream = both.unwrap_or_else(|_| Err(slow())).map_err(NoConnection::Dial)?;
    let (tcp, tls) = stream.get_ref();
    let remote = tcp.peer_addr().map_err(|cause| NoConnection::Dial(tcp_error(address, cause)))?;
    let leaf = tls.peer_certificates().and_then(<[_]>::first);
    let peer = match leaf {
        Some(leaf) => Identity::from_certificate(leaf),
        None => Err(BadIdentity::Nameless),
    };
    let peer = peer.map_err(|cause| NoConnection::Nobody { address: address.to_owned(), cause })?;
    let channel = channel(address, stream).await.map_err(NoConnection::Dial)?;
    Ok(Dialled { channel, peer, remote })
}

fn tcp_error(address: &str, cause: io::Error) -> DialError {
    DialError::Tcp { address: address.to_owned(), cause: Arc::new(cause) }
}

async fn handshake(
    address: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let tcp = TcpStream::connect(address).await.map_err(|cause| tcp_error(address, cause))?;
    tcp.set_nodelay(true).map_err(|cause| tcp_error(address, cause))?;
    // Who the server is stands in its certificate's URI; this name is neither sent nor compared.
    let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|cause| DialError::Tls { address: address.to_owned(), cause: Arc::new(cause) })
}

/// A channel over this one stream. tonic would dial again by itself; the connector refuses that.
async fn channel(address: &str, stream: TlsStream<TcpStream>) -> Result<Channel, DialError> {
    // With an https URI tonic would insist on TLS of its own.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| DialError::Address(address.to_owned()))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let only = Arc::new(Mutex::new(Some(stream)));
    let connector = service_fn(move |_| {
        let stream = only.lock().map(|mut only| only.take()).unwrap_or_default();
        async move {
            let spent = || io::Error::new(io::ErrorKind::NotConnected, "the connection is over");
            stream.map(TokioIo::new).ok_or_else(spent)
        }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|cause| DialError::Http { address: address.to_owned(), cause: Arc::new(cause) })
}
