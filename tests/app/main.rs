//! The sample app: answers with its version, ends cleanly on SIGTERM, and can be told to be bad.
//!
//! `sample-app --port N [--broken-page]`. Paths: `/healthz` (200), `/slow?ms=N` (answers after so long), anything
//! else: `v{ROTA_VERSION}`; with `--broken-page` these answer 500.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).map(|at| at + 1);
    let port = after("--port").and_then(|at| args.get(at)?.parse().ok()).unwrap_or(0);
    let broken = args.iter().any(|arg| arg == "--broken-page");
    let version = std::env::var("ROTA_VERSION").unwrap_or_default();
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("sample app {version} listens at {}", listener.local_addr()?);
    if broken {
        println!("this release answers 500 to everything but its health check");
    }
    for stream in listener.incoming() {
        let (stream, version) = (stream?, version.clone());
        std::thread::spawn(move || {
            // A client that goes away in the middle is no mistake of ours.
            if let Err(error) = converse(&stream, &version, broken) {
                eprintln!("a connection broke: {error}");
            }
        });
    }
    Ok(())
}

/// One keep-alive connection.
fn converse(stream: &TcpStream, version: &str, broken: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next().transpose()? {
        let path = request.split_whitespace().nth(1).unwrap_or("/").to_owned();
        let mut close = false;
        for header in lines.by_ref() {
            let header = header?;
            if header.is_empty() {
                break;
            }
            close |= header.eq_ignore_ascii_case("connection: close");
        }
        if let Some(ms) = path.strip_prefix("/slow?ms=").and_then(|ms| ms.parse().ok()) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        let (status, body) = match path.as_str() {
            "/healthz" => ("200 OK", "ok\n".to_owned()),
            _ if broken => ("500 Internal Server Error", "broken\n".to_owned()),
            _ => ("200 OK", format!("v{version}\n")),
        };
        let end = if close { "connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{end}\r\n", body.len());
        (&*stream).write_all((head + &body).as_bytes())?;
        if close {
            return Ok(());
        }
    }
    Ok(())
}
