//! The sample app as a good citizen: takes the socket that it is given, and ends only when it has answered everybody.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// What one request takes where nothing else is said, so that some are always under way.
const WORK: Duration = Duration::from_millis(5);

/// Serves until SIGTERM.
#[tokio::main(flavor = "current_thread")]
pub async fn serve(at: (&str, u16), work: Option<Duration>) -> io::Result<()> {
    let work = work.unwrap_or(WORK);
    let mut term = signal(SignalKind::terminate())?;
    let given = listenfd::ListenFd::from_env().take_tcp_listener(0)?;
    let how = if given.is_some() { "was given its socket" } else { "made its socket itself" };
    let listener = match given {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)?
        }
        None => TcpListener::bind(at).await?,
    };
    println!("sample app {how}");
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => drop(open.spawn(answer(accepted?.0, work))),
            _ = term.recv() => break,
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
    Ok(())
}

async fn answer(stream: TcpStream, work: Duration) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let health = line.contains(" /healthz ");
    while line.len() > 2 {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    if !health {
        // The request's work.
        tokio::time::sleep(work).await;
    }
    let body = format!("v{}\n", std::env::var("ROTA_VERSION").unwrap_or_default());
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
    stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await?;
    stream.shutdown().await
}
