//! One download: the bytes of a whole artifact, a chunk at a time.

use std::io::{ErrorKind, SeekFrom};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{ArtifactError, Digest, failed};

/// Bytes of one chunk: what one message of the wire carries.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that are read ahead of a slow receiver. With one in hand a download holds 768 KiB at
/// most.
const CHUNKS_AHEAD: usize = 2;

/// An artifact that is being read. It goes on when the artifact is removed meanwhile.
#[derive(Debug)]
pub struct Download {
    file: File,
    path: PathBuf,
    size: u64,
}

/// Opens an artifact at `offset`; at its very end there is nothing more, and that is no error.
pub(super) async fn begin(
    path: PathBuf,
    digest: &Digest,
    offset: u64,
) -> Result<Download, ArtifactError> {
    let mut file = match File::open(&path).await {
        Ok(file) => file,
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            return Err(ArtifactError::Missing { digest: digest.clone() });
        }
        Err(cause) => return Err(failed("open", &path)(cause)),
    };
    let size = file.metadata().await.map_err(failed("look at", &path))?.len();
    if offset > size {
        return Err(ArtifactError::BeyondEnd { digest: digest.clone(), offset, size });
    }
    file.seek(SeekFrom::Start(offset)).await.map_err(failed("read", &path))?;
    file.set_max_buf_size(CHUNK_BYTES);
    Ok(Download { file, path, size })
}

impl Download {
    /// Bytes of the whole artifact.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next 256 KiB, or what is left; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ArtifactError> {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        while chunk.len() < CHUNK_BYTES {
            let room = (CHUNK_BYTES - chunk.len()) as u64;
            let read = (&mut self.file).take(room).read_buf(&mut chunk).await;
            if read.map_err(failed("read", &self.path))? == 0 {
                break;
            }
        }
        Ok((!chunk.is_empty()).then(|| chunk.freeze()))
    }

    /// All that is left, for a call that streams; ends after an error.
    pub fn into_stream(mut self) -> ReceiverStream<Result<Bytes, ArtifactError>> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
        tokio::spawn(async move {
            while let Some(chunk) = self.next().await.transpose() {
                let last = chunk.is_err();
                // Nobody listens any more: the download was given up.
                if chunks.send(chunk).await.is_err() || last {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}
