//! One admin socket of HAProxy: a question, its answer. Each has a connection of its own, so an answer is never mixed
//! up with another one's, and a process that was replaced by a reload answers no more.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long HAProxy may take for an answer. It takes some hundred microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of an answer: 10,000 servers are some 4 MiB.
const ANSWER_MAX: u64 = 32 << 20;

/// HAProxy did not answer.
#[derive(Debug, Error)]
#[error("HAProxy does not answer on {}", path.display())]
pub struct Silent {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

/// Sends commands, separated by `;`, and reads all of what comes.
pub async fn ask(path: &Path, commands: &str) -> Result<String, Silent> {
    let exchange = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(commands.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    let answer = timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(late);
    answer.map_err(|cause| Silent { path: path.to_owned(), cause })
}
