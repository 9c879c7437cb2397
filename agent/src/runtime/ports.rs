//! Free ports for instances that may listen anywhere.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

/// Ports that are not handed out again soon: whoever got one may not listen on it yet.
const RECENT_MAX: usize = 64;

/// Where they are looked for: below the ports that Linux gives to outgoing connections (32768 and up, unless somebody
/// set `net.ipv4.ip_local_port_range`). One of those could take the port before the instance listens on it.
const RANGE: Range<u16> = 20_000..32_768;

/// Hands out free ports.
#[derive(Debug, Default)]
pub struct Ports {
    recent: Mutex<VecDeque<Given>>,
}

/// A port that was handed out, and the claim that keeps other agents of this host off it until the instance listens.
/// It ends with the agent: the next one finds the instance listening, or draws anew.
#[derive(Debug)]
struct Given {
    port: u16,
    /// `None`: names cannot be had here, or somebody else has them all.
    _claim: Option<UnixDatagram>,
}

impl Ports {
    /// A port on which nobody listens now and that was not handed out lately, here or by another agent of this host.
    /// The search begins anywhere in the range, so that agents seldom look at the same ports.
    pub fn free(&self) -> io::Result<u16> {
        let many = u64::from(RANGE.end - RANGE.start);
        self.free_from((RandomState::new().hash_one(std::process::id()) % many) as usize)
    }

    fn free_from(&self, place: usize) -> io::Result<u16> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |port: &u16| recent.iter().all(|given| given.port != *port);
        let all = || RANGE.cycle().skip(place).take(RANGE.len()).filter(is_new);
        // Claimed before it is looked at: to look is to listen for a moment, which would be in another's way.
        let claimed = all().find_map(|port| {
            let _claim = Some(claim(port)?);
            is_free(&port).then_some(Given { port, _claim })
        });
        let unclaimed = || all().find(is_free).map(|port| Given { port, _claim: None });
        let Some(given) = claimed.or_else(unclaimed) else {
            return Err(io::Error::other(format!("no port of {RANGE:?} is free")));
        };
        let port = given.port;
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(given);
        Ok(port)
    }
}

fn is_free(port: &u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()
}

/// A name without a file, which one process of a network namespace can have, as it is with the port.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("rota-port-{port}")).ok()?;
    UnixDatagram::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_not_given_twice() {
        let ports = Ports::default();
        let mut given: Vec<u16> = (0..RECENT_MAX).map(|_| ports.free().expect("a port")).collect();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), RECENT_MAX);
    }

    /// Nobody listens on them yet, and both look at the same ports.
    #[test]
    fn two_agents_of_a_host_get_different_ports() {
        let (one, other) = (Ports::default(), Ports::default());
        for place in [0, 5000] {
            let first = one.free_from(place).expect("a port");
            assert_ne!(other.free_from(place).expect("a port"), first);
        }
        let given = one.free_from(9000).expect("a port");
        assert!(claim(given).is_none());
        drop(one);
        assert!(claim(given).is_some(), "it is free when its agent is gone");
    }
}
