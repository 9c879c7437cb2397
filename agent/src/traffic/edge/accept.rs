//! Opens the port of the `Traffic` service, and lets connections in once TLS has said who they are.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use crate::own::Own;

/// Nodes whose connections wait to be accepted; all nodes of a pool dial at once when an edge is
/// back.
const BACKLOG: u32 = 1024;

/// How long TLS may take with one node. Slow ones stand in nobody's way.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at the same time; each costs a signature and some memory before we know who it is.
pub(super) const HANDSHAKES_MAX: usize = 128;

/// After a failed accept: usually no descriptors are left, and the next try would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the port of the `Traffic` service.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // `TcpListener::bind` would ask for a backlog of 128.
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the service ends. A slow handshake stands in nobody's way.
pub(super) async fn accept(
    listener: TcpListener,
    own: Arc<Own>,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("cannot accept a node's connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let config = match own.as_server() {
            Ok(config) => config,
            Err(error) => {
                warn!("cannot show this edge's certificate: {error}");
                continue;
            }
        };
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let secured = async {
                tcp.set_nodelay(true)?;
                TlsAcceptor::from(config).accept(tcp).await
            };
            match timeout(HANDSHAKE_TIMEOUT, secured).await {
                Ok(Ok(stream)) => {
                    if accepted.send(Ok(stream)).await.is_err() {
                        debug!("{from} came while this edge stops");
                    }
                }
                Ok(Err(error)) => info!("{from} could not show who it is: {error}"),
                Err(_) => info!("{from} took too long to show who it is"),
            }
        });
    }
}
