//! Free ports for instances that may listen anywhere.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Ports that are not handed out again soon: whoever got one may not listen on it yet.
const RECENT_MAX: usize = 64;

/// Where they are looked for: below the ports that Linux gives to outgoing connections (32768 and up, unless somebody
/// set `net.ipv4.ip_local_port_range`). One of those could take the port before the instance listens on it.
const RANGE: Range<u16> = 20_000..32_768;

/// Hands out free ports.
#[derive(Debug, Default)]
pub struct Ports {
    recent: Mutex<VecDeque<u16>>,
}

impl Ports {
    /// A port on which nobody listens now and that was not handed out lately. The search begins anywhere in the range,
    /// so that several agents on one host do not meet.
    pub fn free(&self) -> io::Result<u16> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let many = u64::from(RANGE.end - RANGE.start);
        let anywhere = (RandomState::new().hash_one(std::process::id()) % many) as usize;
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        let all = RANGE.cycle().skip(anywhere).take(RANGE.len());
        let Some(port) = all.filter(|port| !recent.contains(port)).find(is_free) else {
            return Err(io::Error::other(format!("no port of {RANGE:?} is free")));
        };
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(port);
        Ok(port)
    }
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
}
