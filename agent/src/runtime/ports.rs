//! Free ports for instances that may listen anywhere.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Ports that are not handed out again soon: whoever got one may not listen on it yet.
const RECENT_MAX: usize = 64;
/// Tries; the kernel rarely gives the same port twice in a row.
const TRIES_MAX: usize = 256;

/// Hands out free ports.
#[derive(Debug, Default)]
pub struct Ports {
    recent: Mutex<VecDeque<u16>>,
}

impl Ports {
    /// A port on which nobody listens now and that was not handed out lately.
    pub fn free(&self) -> io::Result<u16> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // What the kernel gave but is not wanted is held until the end, so that it gives another
        // one.
        let mut unwanted = Vec::new();
        for _ in 0..TRIES_MAX {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let port = listener.local_addr()?.port();
            if recent.contains(&port) {
                unwanted.push(listener);
                continue;
            }
            if recent.len() == RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back(port);
            return Ok(port);
        }
        Err(io::Error::other("the kernel gives the same ports again and again"))
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
