//! The smallest HTTP backend: one thread for a connection, one write for an answer. It should cost little beside the
//! balancers in front of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rota_tests::Trouble;

/// Bytes of a request that is understood.
const REQUEST_MAX: usize = 8 * 1024;

/// A page of 1 KiB.
const PAGE: [u8; 1024] = [b'x'; 1024];

/// Serves until the program ends.
pub fn start() -> Result<SocketAddr, Trouble> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that goes away in the middle is no mistake of ours.
            std::thread::spawn(move || drop(converse(stream)));
        }
    });
    Ok(address)
}

/// Is there a whole answer?
pub fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&PAGE))
    };
    ask().unwrap_or(false)
}

/// Requests without a body, one after the other.
fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST_MAX];
    let mut have = 0;
    loop {
        let read = stream.read(request.get_mut(have..).unwrap_or_default())?;
        if read == 0 {
            return Ok(());
        }
        have += read;
        let text = &request[..have];
        if !text.ends_with(b"\r\n\r\n") {
            continue;
        }
        let closes = contains(text, b"close\r\n");
        have = 0;
        let end = if closes { "connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{end}\r\n", PAGE.len());
        stream.write_all(&[head.as_bytes(), &PAGE].concat())?;
        if closes {
            return Ok(());
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}
