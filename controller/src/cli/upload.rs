//! Sending an artifact: from where the last try ended, with progress for people.

use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rota_proto::operator::upload_part::Part;
use rota_proto::operator::{UploadHeader, UploadPart, UploadReply};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::desk::Desk;
use super::outcome::Failure;
use super::table::fit;
use super::{talk, words};
use crate::artifact::Packed;
use crate::client::{Client, ClientError};

/// The largest piece that the wire allows.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces read ahead of the network: 1 MiB keeps it busy.
const PIECES_QUEUED_MAX: usize = 4;

/// Tries in a row that may send nothing new before we give up.
const TRIES_MAX: u32 = 5;

/// Between two tries: a restarted controller is back within a few of these.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Between two drawings of the progress.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// Sends the artifact unless it is there, going on where an interrupted upload ended.
pub async fn upload(desk: &Desk, client: &mut Client, packed: &Packed) -> Result<(), Failure> {
    let digest = packed.digest.as_str();
    let mut best = 0;
    let mut tries = 0;
    loop {
        let state = client.upload_state(digest).await?;
        if state.complete {
            desk.talk.detail(&format!("the controller has {digest} already"));
            return Ok(());
        }
        if state.have > best {
            (best, tries) = (state.have, 0);
        }
        let cause = match send(desk, client, packed, state.have).await? {
            Ok(reply) if reply.complete => return Ok(()),
            Ok(reply) => format!("the controller has {} of it", words::bytes(reply.have)),
            Err(ClientError::Broken { cause, .. }) => cause,
            Err(error) => return Err(error.into()),
        };
        tries += 1;
        if tries >= TRIES_MAX {
            let message = format!("the upload broke off {tries} times at the same place: {cause}");
            return Err(Failure::new("unreachable", message)
                .stands(["what was uploaded is kept; no release was made".to_owned()])
                .hint("the same command goes on where it ended"));
        }
        desk.talk.say(&format!("the upload broke off: {cause}; going on"));
        sleep(RETRY_AFTER).await;
    }
}

/// One try from an offset. The outer error is of this machine, the inner one of the connection.
async fn send(
    desk: &Desk,
    client: &mut Client,
    packed: &Packed,
    offset: u64,
) -> Result<Result<UploadReply, ClientError>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::internal(&format!("cannot read {}", packed.path.display()), &error)
    };
    let mut file = File::open(&packed.path).await.map_err(unreadable)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(unreadable)?;
    let (sender, receiver) = mpsc::channel(PIECES_QUEUED_MAX);
    let header = UploadHeader { digest: packed.digest.to_string(), size: packed.size, offset };
    let sent = Arc::new(AtomicU64::new(offset));
    let reading = tokio::spawn(read(file, header, sender, Arc::clone(&sent)));
    let progress = Progress::new(desk, packed.size, offset);
    let mut clock = interval(REDRAW_EVERY);
    let answer = {
        let mut call = std::pin::pin!(client.upload(ReceiverStream::new(receiver)));
        loop {
            tokio::select! {
                answer = &mut call => break answer,
                _ = clock.tick() => progress.draw(sent.load(Ordering::Relaxed)),
            }
        }
    };
    progress.end();
    match reading.await {
        Ok(Ok(())) => Ok(answer),
        Ok(Err(error)) => Err(unreadable(error)),
        Err(error) => Err(Failure::internal("the task that reads the artifact ended", &error)),
    }
}

/// Feeds the header and the pieces; ends quietly when the other side has gone, which the call says.
async fn read(
    mut file: File,
    header: UploadHeader,
    sender: mpsc::Sender<UploadPart>,
    sent: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let mut part = Part::Header(header);
    loop {
        if sender.send(UploadPart { part: Some(part) }).await.is_err() {
            return Ok(());
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).await?;
        if piece.is_empty() {
            return Ok(());
        }
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        part = Part::Data(piece);
    }
}

/// A line that grows on a terminal; elsewhere one line says what is sent.
struct Progress {
    live: bool,
    size: u64,
    offset: u64,
    began: Instant,
}

impl Progress {
    fn new(desk: &Desk, size: u64, offset: u64) -> Self {
        let live = desk.talk.live();
        if !live {
            let from = match offset {
                0 => String::new(),
                offset => format!(", going on at {}", words::bytes(offset)),
            };
            desk.talk.say(&format!("uploading {}{from}", words::bytes(size)));
        }
        Self { live, size, offset, began: Instant::now() }
    }

    fn draw(&self, sent: u64) {
        if !self.live {
            return;
        }
        let line = in_words(sent, self.size, sent - self.offset, self.began.elapsed());
        let line = fit(&line, talk::terminal_size().0.saturating_sub(1));
        talk::write_side(&format!("\r{line}\x1b[K"));
    }

    fn end(&self) {
        if self.live {
            talk::write_side("\r\x1b[K");
        }
    }
}

/// `uploading  45.1 MiB of 100.0 MiB  45 %  12.3 MiB/s`.
fn in_words(sent: u64, size: u64, moved: u64, took: Duration) -> String {
    let percent = (sent * 100).checked_div(size).unwrap_or(100);
    let (sent, size) = (words::bytes(sent), words::bytes(size));
    // The first moments say nothing about the pace.
    let pace = u128::from(moved) * 1000 / took.as_millis().max(1);
    let pace = if took < Duration::from_millis(300) {
        String::new()
    } else {
        format!("  {}/s", words::bytes(u64::try_from(pace).unwrap_or(u64::MAX)))
    };
    format!("uploading  {sent} of {size}  {percent} %{pace}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        for (sent, size, moved, ms, words) in [
            (0, 1024, 0, 0, "uploading  0 B of 1.0 KiB  0 %"),
            (512, 1024, 512, 1000, "uploading  512 B of 1.0 KiB  50 %  512 B/s"),
            (1024, 1024, 512, 500, "uploading  1.0 KiB of 1.0 KiB  100 %  1.0 KiB/s"),
            (0, 0, 0, 0, "uploading  0 B of 0 B  100 %"),
        ] {
            assert_eq!(in_words(sent, size, moved, Duration::from_millis(ms)), words);
        }
    }
}
