//! One watch: reads the history from where its reader is, and waits for the next commit when there
//! is no more.

use tokio::sync::{mpsc, watch};

use super::reader::{self, Page, Readers};
use super::{Change, StoreError, StoreRevision};

/// Changes that wait for the reader of a watch. When they are many the watch waits, and goes on
/// from the history.
const CHANGES_QUEUED_MAX: usize = 256;

/// What one watch needs.
struct Watch {
    readers: Readers,
    /// The last revision; closed when the store is.
    wake: watch::Receiver<StoreRevision>,
    prefix: String,
    since: StoreRevision,
    changes: mpsc::Sender<Change>,
}

/// Starts a watch of everything under `prefix` after `since`. It ends with its reader, and with the
/// store.
pub(super) fn start(
    readers: Readers,
    wake: watch::Receiver<StoreRevision>,
    prefix: String,
    since: StoreRevision,
) -> mpsc::Receiver<Change> {
    let (changes, receiver) = mpsc::channel(CHANGES_QUEUED_MAX);
    let watch = Watch { readers, wake, prefix, since, changes };
    tokio::spawn(async move {
        let prefix = watch.prefix.clone();
        if let Err(why) = watch.run().await {
            tracing::warn!(%prefix, %why, "a watch ended");
        }
    });
    receiver
}

impl Watch {
    async fn run(mut self) -> Result<(), StoreError> {
        loop {
            // Seen before the page is read, so that no commit between the two is slept through.
            self.wake.borrow_and_update();
            let (prefix, since) = (self.prefix.clone(), self.since);
            let read = move |conn: &_| reader::history(conn, &prefix, since);
            let (found, more) = match self.readers.run("read the history", read).await? {
                Page::Changes { changes, upto, more } => {
                    self.since = upto;
                    (changes, more)
                }
                Page::Compacted { now } => {
                    // Nobody listens: then nobody needs to know.
                    drop(self.changes.send(Change::Compacted { now }).await);
                    return Ok(());
                }
            };
            for change in found {
                if self.changes.send(change).await.is_err() {
                    return Ok(());
                }
            }
            if !more && !self.next_commit().await {
                return Ok(());
            }
        }
    }

    /// Sleeps until something was committed; `false`: the watch is over.
    async fn next_commit(&mut self) -> bool {
        tokio::select! {
            () = self.changes.closed() => false,
            woken = self.wake.changed() => woken.is_ok(),
        }
    }
}
