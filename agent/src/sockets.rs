//! Who is connected to a local TCP port, as the kernel says (netlink SOCK_DIAG): what a drain waits
//! for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use thiserror::Error;

/// One established connection on the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Our end.
    pub local: SocketAddr,
    /// The client's end; an IPv4 client of a dual-stack listener is shown as IPv4.
    pub remote: SocketAddr,
}

/// The kernel did not tell.
#[derive(Debug, Error)]
#[error("cannot ask the kernel for the connections on port {port}")]
pub struct SocketsError {
    port: u16,
    #[source]
    cause: io::Error,
}

/// Bytes of one part of the kernel's answer; it sends at most 32 KiB at once.
const PART_BYTES: usize = 32 * 1024;
/// Answers are read until the kernel says done; this many parts are about 14 million connections.
const PARTS_MAX: usize = 65_536;

/// Every established connection whose local port is `port`, IPv4 and IPv6.
///
/// Takes about a millisecond for 1,000 connections, so it may be called from an async task.
pub fn established(port: u16) -> Result<Vec<Peer>, SocketsError> {
    let mut peers = Vec::new();
    for family in [AF_INET, AF_INET6] {
        dump(family, End::Local(port), &mut peers).map_err(|cause| SocketsError { port, cause })?;
    }
    Ok(peers)
}

/// The connections that this host has to an address.
pub fn connected_to(address: SocketAddr) -> Result<Vec<Peer>, SocketsError> {
    let port = address.port();
    let failed = |cause| SocketsError { port, cause };
    let mut peers = Vec::new();
    for family in [AF_INET, AF_INET6] {
        dump(family, End::Remote(port), &mut peers).map_err(failed)?;
    }
    peers.retain(|peer| peer.remote == address);
    Ok(peers)
}

/// Ends a connection of this host, as if the other end had broken it off. One that is gone is fine.
pub fn close(peer: &Peer) -> Result<(), SocketsError> {
    let failed = |cause| SocketsError { port: peer.remote.port(), cause };
    match destroy(peer) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed),
    }
}

fn destroy(peer: &Peer) -> io::Result<()> {
    let kernel = ask_kernel()?;
    let family = if peer.local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = request(family, End::Local(peer.local.port()));
    bytes[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    bytes[26..28].copy_from_slice(&peer.remote.port().to_be_bytes());
    for (at, ip) in [(28, peer.local.ip()), (44, peer.remote.ip())] {
        match ip {
            IpAddr::V4(ip) => bytes[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes[at..at + 16].copy_from_slice(&ip.octets()),
        }
    }
    bytes[64..72].fill(0xff); // no cookie: whichever socket has these ends
    send(&kernel, &bytes, SendFlags::empty())?;
    let mut part = vec![0; PART_BYTES];
    let read = receive(&kernel, &mut part)?;
    match part[..read].get(HEADER..HEADER + 4) {
        Some([0, 0, 0, 0]) => Ok(()),
        Some(code) => Err(kernel_error(code)),
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}

/// Which connections are asked for: by the port of one of their ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Local(u16),
    Remote(u16),
}

impl End {
    fn is_of(self, peer: &Peer) -> bool {
        match self {
            Self::Local(port) => peer.local.port() == port,
            Self::Remote(port) => peer.remote.port() == port,
        }
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLM_F_REQUEST_ACK: u16 = 0x5;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TCP_ESTABLISHED: u32 = 1;
const IPPROTO_TCP: u8 = 6;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;

fn dump(family: u8, end: End, peers: &mut Vec<Peer>) -> io::Result<()> {
    let kernel = ask_kernel()?;
    send(&kernel, &request(family, end), SendFlags::empty())?;
    let mut part = vec![0; PART_BYTES];
    for _ in 0..PARTS_MAX {
        let read = receive(&kernel, &mut part)?;
        if read_part(&part[..read], end, peers)? {
            return Ok(());
        }
    }
    Err(io::Error::other("the answer does not end"))
}

fn ask_kernel() -> io::Result<OwnedFd> {
    let protocol = Some(netlink::SOCK_DIAG);
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

fn receive(kernel: &OwnedFd, part: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(kernel, &mut *part, RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?.0),
        }
    }
}

fn request(family: u8, end: End) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    bytes[0..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = IPPROTO_TCP;
    bytes[20..24].copy_from_slice(&(1u32 << TCP_ESTABLISHED).to_ne_bytes());
    match end {
        End::Local(port) => bytes[24..26].copy_from_slice(&port.to_be_bytes()),
        End::Remote(port) => bytes[26..28].copy_from_slice(&port.to_be_bytes()),
    }
    bytes
}

/// Reads the messages of one part; `true` when the kernel has said all.
fn read_part(mut part: &[u8], end: End, peers: &mut Vec<Peer>) -> io::Result<bool> {
    while part.len() >= HEADER {
        let length = u32::from_ne_bytes([part[0], part[1], part[2], part[3]]) as usize;
        let kind = u16::from_ne_bytes([part[4], part[5]]);
        if length < HEADER || length > part.len() {
            return Err(io::Error::other("the kernel's answer has a message of a wrong length"));
        }
        let body = &part[HEADER..length];
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(kernel_error(body)),
            SOCK_DIAG_BY_FAMILY => peers.extend(peer(body).filter(|it| end.is_of(it))),
            _ => {}
        }
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn kernel_error(body: &[u8]) -> io::Error {
    match body.first_chunk::<4>() {
        Some(code) => io::Error::from_raw_os_error(-i32::from_ne_bytes(*code)),
        None => io::Error::other("the kernel's error has no code"),
    }
}

fn peer(body: &[u8]) -> Option<Peer> {
    let message = body.first_chunk::<MESSAGE>()?;
    let ip = |from: usize| match message[0] {
        AF_INET => {
            let four: [u8; 4] = message[from..from + 4].try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(four)))
        }
        AF_INET6 => {
            let sixteen: [u8; 16] = message[from..from + 16].try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(sixteen)).to_canonical())
        }
        _ => None,
    };
    let port = |from: usize| u16::from_be_bytes([message[from], message[from + 1]]);
    Some(Peer {
        local: SocketAddr::new(ip(8)?, port(4)),
        remote: SocketAddr::new(ip(24)?, port(6)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn remotes(port: u16) -> Vec<SocketAddr> {
        let mut remotes: Vec<_> =
            established(port).expect("asks").iter().map(|peer| peer.remote).collect();
        remotes.sort();
        remotes
    }

    #[track_caller]
    fn check(listen: &str, dial: &[&str]) {
        let Ok(listener) = TcpListener::bind(listen) else {
            eprintln!("skipped: cannot listen on {listen}");
            return;
        };
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(remotes(port), [], "listening is not a connection");
        let mut clients = Vec::new();
        let mut served = Vec::new();
        let mut expected = Vec::new();
        for host in dial {
            let client = TcpStream::connect((*host, port)).expect("connects");
            expected.push(client.local_addr().expect("an address"));
            served.push(listener.accept().expect("accepts").0);
            clients.push(client);
        }
        expected.sort();
        assert_eq!(remotes(port), expected, "{listen}");
        drop(clients);
        drop(served);
        assert_eq!(remotes(port), [], "closed");
    }

    #[test]
    fn both_families_are_seen() {
        check("127.0.0.1:0", &["127.0.0.1", "127.0.0.1"]);
        check("[::1]:0", &["::1"]);
        check("[::]:0", &["127.0.0.1", "::1"]);
    }

    #[test]
    fn many_connections_come_in_several_parts() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let pairs: Vec<_> = (0..450)
            .map(|_| {
                let client = TcpStream::connect(address).expect("connects");
                (client, listener.accept().expect("accepts").0)
            })
            .collect();
        assert_eq!(remotes(address.port()).len(), pairs.len());
    }

    #[test]
    fn a_torn_answer_is_an_error() {
        let mut part = vec![0; HEADER];
        part[0] = 200;
        assert!(read_part(&part, End::Local(1), &mut Vec::new()).is_err());
    }
}
