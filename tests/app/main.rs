//! The sample app: answers with its version, ends at once on SIGTERM, and can be told to be bad.
//!
//! `sample-app --port N [--broken-page | --never-healthy | --exit-at-once | --polite [--work MS]]`. Paths:
//! `/healthz` (200), `/slow?ms=N` (answers after so long), `/big?mib=N&ms=T` (so many MiB, spread over so long),
//! anything else: `v{ROTA_VERSION}`; with `--broken-page` these answer 500. A request to upgrade is granted; then every
//! byte comes back.
//!
//! It listens on loopback, with `--anywhere` on every address.
//!
//! With `--polite` it takes the socket that it is given, if any, works on each request for so long, and answers what it
//! has accepted before it ends. Without, it does nothing for whoever is in the middle of a request when it is told to
//! end: what a client does not lose was saved by the drain.

mod polite;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// What it was told to be.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Good,
    BrokenPage,
    NeverHealthy,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let told = |flag: &str| args.iter().any(|arg| arg == flag);
    if told("--exit-at-once") {
        eprintln!("this release finds no database and gives up");
        return ExitCode::from(3);
    }
    let mood = match (told("--broken-page"), told("--never-healthy")) {
        (true, _) => Mood::BrokenPage,
        (false, true) => Mood::NeverHealthy,
        (false, false) => Mood::Good,
    };
    let value = |flag: &str| args.get(args.iter().position(|arg| arg == flag)? + 1);
    let port = value("--port").and_then(|port| port.parse().ok()).unwrap_or(0);
    let work = value("--work").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let host = if told("--anywhere") { "0.0.0.0" } else { "127.0.0.1" };
    let served = match told("--polite") {
        true => polite::serve((host, port), work),
        false => serve((host, port), mood),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the sample app cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(at: (&str, u16), mood: Mood) -> std::io::Result<()> {
    let version = std::env::var("ROTA_VERSION").unwrap_or_default();
    let listener = TcpListener::bind(at)?;
    println!("sample app {version} listens at {}", listener.local_addr()?);
    match mood {
        Mood::Good => {}
        Mood::BrokenPage => {
            println!("this release answers 500 to everything but its health check");
        }
        Mood::NeverHealthy => println!("this release waits for a queue that nobody made"),
    }
    for stream in listener.incoming() {
        let (stream, version) = (stream?, version.clone());
        std::thread::spawn(move || {
            // A client that goes away in the middle is no mistake of ours.
            if let Err(error) = converse(&stream, &version, mood) {
                eprintln!("a connection broke: {error}");
            }
        });
    }
    Ok(())
}

/// A request's head, as far as it matters here.
struct Asked {
    path: String,
    close: bool,
    upgrade: bool,
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let mut asked = Asked { path, close: false, upgrade: false };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            return Ok(Some(asked));
        }
        asked.close |= header == "connection: close";
        asked.upgrade |= header.starts_with("upgrade:");
    }
}

/// A number in the path's query.
fn query(path: &str, name: &str) -> Option<u64> {
    let (_, query) = path.split_once('?')?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
}

/// One keep-alive connection.
fn converse(stream: &TcpStream, version: &str, mood: Mood) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(asked) = read_head(&mut reader)? {
        if asked.upgrade {
            let head = "HTTP/1.1 101 Switching Protocols\r\n\
                        upgrade: websocket\r\nconnection: upgrade\r\n\r\n";
            writer.write_all(head.as_bytes())?;
            return echo(reader, writer);
        }
        let end = if asked.close { "connection: close\r\n" } else { "" };
        if asked.path.starts_with("/big") {
            let mib = query(&asked.path, "mib").unwrap_or(1);
            let ms = query(&asked.path, "ms").unwrap_or(0);
            let length = mib << 20;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{end}\r\n");
            writer.write_all(head.as_bytes())?;
            let chunk = vec![b'x'; 1 << 20];
            for _ in 0..mib {
                // As slow as it was asked to be.
                std::thread::sleep(Duration::from_millis(ms / mib.max(1)));
                writer.write_all(&chunk)?;
            }
        } else {
            // As slow as it was asked to be.
            std::thread::sleep(Duration::from_millis(query(&asked.path, "ms").unwrap_or(0)));
            let (status, body) = match (asked.path.as_str(), mood) {
                ("/healthz", Mood::NeverHealthy) => {
                    ("503 Service Unavailable", "no queue yet\n".to_owned())
                }
                ("/healthz", Mood::Good | Mood::BrokenPage) => ("200 OK", "ok\n".to_owned()),
                (_, Mood::BrokenPage) => ("500 Internal Server Error", "broken\n".to_owned()),
                (_, Mood::Good | Mood::NeverHealthy) => ("200 OK", format!("v{version}\n")),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{end}\r\n");
            writer.write_all((head + &body).as_bytes())?;
        }
        if asked.close {
            return Ok(());
        }
    }
    Ok(())
}

fn echo(mut reader: impl Read, mut writer: impl Write) -> std::io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let count = reader.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        writer.write_all(&bytes[..count])?;
    }
}
