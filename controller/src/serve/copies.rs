//! The Copies service: other controllers fetch artifacts here, and ask that one is kept here, too.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rota_proto::controller::copies_server::Copies;
use rota_proto::controller::{Chunk, FetchRequest, KeepRequest, Kept};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::changes;
use crate::access::Access;
use crate::artifact::peers::{Artifacts, Copying, NotBrought, Pace};
use crate::artifact::store::ArtifactError;
use crate::errors::{Sort, chain, status};

/// Artifacts that go to other controllers at once, beside those that go to agents.
const SENT_MAX: usize = 8;

/// How often a caller hears that a copy still runs; he gives up after five times this.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Messages that wait for a caller; the newest says it all.
const TOLD_QUEUED_MAX: usize = 2;

/// The service.
pub struct CopiesService {
    access: Arc<Access>,
    artifacts: Artifacts,
    sending: Arc<Semaphore>,
}

impl CopiesService {
    /// Over the artifacts of this controller.
    pub fn new(access: Arc<Access>, artifacts: Artifacts) -> Self {
        Self { access, artifacts, sending: Arc::new(Semaphore::new(SENT_MAX)) }
    }
}

/// What a stream of answers looks like to tonic.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Copies for CopiesService {
    type FetchStream = Answers<Chunk>;
    type KeepStream = Answers<Kept>;

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        self.access.controller(&request).await?;
        let asked = request.into_inner();
        let digest = changes::digest(&asked.digest).map_err(status)?;
        let gone = |_| status(Sort::Unreachable.error("this controller is stopping", ""));
        let turn = Arc::clone(&self.sending).acquire_owned().await.map_err(gone)?;
        let download = self.artifacts.here.read(&digest, asked.offset).await.map_err(unread)?;
        let size = download.size();
        let chunks = download.into_stream().map(move |chunk| {
            let _held_until_the_end = &turn;
            chunk.map(|data| Chunk { data, size }).map_err(unread)
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn keep(
        &self,
        request: Request<KeepRequest>,
    ) -> Result<Response<Self::KeepStream>, Status> {
        let caller = self.access.controller(&request).await?;
        let digest = changes::digest(&request.into_inner().digest).map_err(status)?;
        let first = Some(caller.identity.name());
        let begun = self.artifacts.begin(&digest, Pace::Hurried, first).await;
        let (tell, told) = mpsc::channel(TOLD_QUEUED_MAX);
        tokio::spawn(follow(begun.map_err(not_here)?, tell));
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}

/// Tells how far a copy is, until it has ended or nobody listens any more.
async fn follow(copying: Option<Copying>, tell: mpsc::Sender<Result<Kept, Status>>) {
    if let Some(copying) = copying {
        let mut told = copying.told();
        let mut end = std::pin::pin!(copying.end());
        loop {
            match timeout(TELL_EVERY, &mut end).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => return send(&tell, Err(not_here(error))).await,
                Err(_) if tell.is_closed() => return,
                Err(_) => {
                    let have = told.borrow_and_update().have;
                    send(&tell, Ok(Kept { have, whole: false })).await;
                }
            }
        }
    }
    send(&tell, Ok(Kept { have: 0, whole: true })).await;
}

async fn send(tell: &mpsc::Sender<Result<Kept, Status>>, kept: Result<Kept, Status>) {
    if tell.send(kept).await.is_err() {
        tracing::debug!("who wanted an artifact kept is gone");
    }
}

/// Why an artifact is not read.
pub(super) fn unread(error: ArtifactError) -> Status {
    let missing = matches!(error, ArtifactError::Missing { .. });
    let sort = if missing { Sort::NotFound } else { Sort::Internal };
    status(sort.error(chain(&error), "push the release again"))
}

fn not_here(error: NotBrought) -> Status {
    status(error.into())
}

#[cfg(test)]
mod tests;
