//! Listening sockets that outlive their apps (`[run] socket = true`): connections that come while an app is swapped
//! wait in the kernel for the next one.
//!
//! The agent holds one copy and the app the other, so either may end. A new agent takes its copy from the app that
//! runs.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, socket_acceptconn};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::Instance;

/// Connections that may wait for the app: while it is swapped they all wait here. The kernel takes less where
/// `net.core.somaxconn` is lower.
const BACKLOG: i32 = 4096;

/// Which descriptor an app finds its socket at; programs that know socket activation expect it there.
pub(super) const FIRST_FD: i32 = 3;

/// See the file's first lines.
#[derive(Debug, Default)]
pub struct Listeners {
    held: Mutex<BTreeMap<String, (u16, OwnedFd)>>,
}

impl Listeners {
    /// A copy of the app's socket, which is made if there is none.
    pub(super) fn give(&self, app: &str, port: u16) -> io::Result<OwnedFd> {
        let mut held = self.held();
        if held.get(app).is_none_or(|(at, _)| *at != port) {
            held.remove(app);
            held.insert(app.to_owned(), (port, listening(port)?));
        }
        match held.get(app) {
            Some((_, socket)) => socket.try_clone(),
            None => Err(io::Error::other("the socket is not held")),
        }
    }

    /// Takes a copy from an app that an earlier agent started. Without one the socket lives as long as the app.
    pub(super) fn adopt(&self, instance: &Instance, process: &OwnedFd) {
        let app = &instance.app;
        if let Some(port) = instance.port.filter(|_| instance.socket)
            && let Err(cause) = self.keep(app, port, process)
        {
            tracing::warn!(
                app,
                port,
                %cause,
                "cannot hold its socket: the next restart may refuse connections"
            );
        }
    }

    fn keep(&self, app: &str, port: u16, process: &OwnedFd) -> io::Result<()> {
        let mut held = self.held();
        if held.get(app).is_some_and(|(at, _)| *at == port) {
            return Ok(());
        }
        let socket = pidfd_getfd(process, FIRST_FD, PidfdGetfdFlags::empty())?;
        let address = SocketAddr::try_from(getsockname(&socket)?)?;
        if address.port() != port || !socket_acceptconn(&socket)? {
            let text = format!("its descriptor {FIRST_FD} does not listen on {port}");
            return Err(io::Error::other(text));
        }
        held.insert(app.to_owned(), (port, socket));
        Ok(())
    }

    /// The app needs none any more.
    pub(super) fn close(&self, app: &str) {
        self.held().remove(app);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, (u16, OwnedFd)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On all addresses; on those of IPv4 alone where the host has no IPv6.
fn listening(port: u16) -> io::Result<OwnedFd> {
    let everywhere = [
        (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        (AddressFamily::INET, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    ];
    let mut why = io::Error::other("there is no IPv4 and no IPv6 here");
    for (family, address) in everywhere {
        let Ok(socket) = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None) else {
            continue;
        };
        set_socket_reuseaddr(&socket, true)?;
        if family == AddressFamily::INET6 {
            set_ipv6_v6only(&socket, false)?;
        }
        match bind(&socket, &address).and_then(|()| listen(&socket, BACKLOG)) {
            Ok(()) => return Ok(socket),
            Err(cause) => why = cause.into(),
        }
    }
    Err(why)
}
