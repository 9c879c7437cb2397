//! Sending an artifact: from where the last try ended, with progress for people.

use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rota_proto::operator::upload_part::Part;
use rota_proto::operator::{UploadHeader, UploadPart, UploadReply};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::desk::Desk;
use super::outcome::Failure;
use super::progress::{Progress, REDRAW_EVERY};
use super::words;
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
    let progress = Progress::new(desk, "uploading", packed.size, offset);
    let mut clock = interval(REDRAW_EVERY);
    let answer = {
        let mut call = std::pin::pin!(client.upload(ReceiverStream::new(receiver)));
        loop {
            tokio::select! {
                answer = &mut call => break answer,
                _ = clock.tick() => progress.draw(sent.load(Ordering::Relaxed), packed.size),
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
