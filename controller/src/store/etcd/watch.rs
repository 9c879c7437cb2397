//! One watch: tells every change once and in order, and goes on by itself at another member or after a break.

use std::time::Duration;

use rota_proto::etcd::etcdserverpb::watch_client::WatchClient;
use rota_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use rota_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use rota_proto::etcd::mvccpb::event::EventType;
use rota_proto::etcd::mvccpb::{Event, KeyValue};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::cluster::{CALL_TIMEOUT, Shared};
use super::errors::{Failure, Sort, chain};
use super::keys::{Keys, Range};
use super::{MESSAGE_BYTES_MAX, Reach, StoreError, StoreRevision, entry, revision};
use crate::store::Change;

/// Changes that wait for the reader of a watch. When they are many the watch waits, and etcd goes on from its history.
const CHANGES_QUEUED_MAX: usize = 256;

/// Between two attempts while nobody answers: a new leader is there within a second or two.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What one watch needs.
pub(super) struct Watch {
    pub(super) cluster: Shared,
    pub(super) keys: Keys,
    /// What is watched; `None`: no key can be there.
    pub(super) range: Option<Range>,
    /// The last revision of which everything was told.
    pub(super) since: StoreRevision,
    /// Closed when the store is.
    pub(super) open: watch::Receiver<()>,
}

/// Why one stream is over.
enum Ended {
    /// Nobody listens any more, or the store was closed.
    Done,
    /// The history is gone.
    Compacted { now: StoreRevision },
    /// It broke; the next one goes on.
    Broken(String),
}

impl Watch {
    /// Starts it. It ends with its reader, with the store, and with the history that it needs.
    pub(super) fn start(self) -> mpsc::Receiver<Change> {
        let (changes, receiver) = mpsc::channel(CHANGES_QUEUED_MAX);
        tokio::spawn(self.run(changes));
        receiver
    }

    async fn run(mut self, changes: mpsc::Sender<Change>) {
        let (mut open, mut said) = (self.open.clone(), false);
        loop {
            let ended = tokio::select! {
                ended = self.stream(&changes) => ended,
                () = changes.closed() => Ended::Done,
                _ = open.changed() => Ended::Done,
            };
            match ended {
                Ended::Done => return,
                Ended::Compacted { now } => {
                    // Nobody listens: then nobody needs to know.
                    drop(changes.send(Change::Compacted { now }).await);
                    return;
                }
                Ended::Broken(why) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::info!(%why, since = self.since, "a watch goes on after a break");
                    }
                }
            }
            tokio::select! {
                () = sleep(RETRY_PAUSE) => {}
                () = changes.closed() => return,
                _ = open.changed() => return,
            }
        }
    }

    /// One stream at one member, from where the last one ended.
    async fn stream(&mut self, changes: &mpsc::Sender<Change>) -> Ended {
        let mut current = self.cluster.current();
        let now = match revision(&self.cluster, &self.keys).await {
            Ok(now) => now,
            Err(Failure::No(status)) => return Ended::Broken(status.message().to_owned()),
            Err(Failure::Away(why) | Failure::Lost(why)) => return Ended::Broken(why),
        };
        if now < self.since {
            // An older state was put back: what was told from there never happened.
            return Ended::Compacted { now };
        }
        let Some(range) = self.range.clone() else { return std::future::pending().await };
        let member = *current.borrow_and_update();
        let opened = timeout(CALL_TIMEOUT, self.open_at(member, range)).await;
        let (mut answers, _questions) = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return self.broken(member, why),
            Err(_) => return self.broken(member, "no watch in time".to_owned()),
        };
        let mut pending = Vec::new();
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer,
                _ = current.changed() => {
                    return Ended::Broken("its member does not answer".to_owned());
                }
            };
            match answer {
                Ok(Some(answer)) => {
                    if let Some(ended) = self.take(answer, &mut pending, changes).await {
                        return ended;
                    }
                }
                Ok(None) => return self.broken(member, "the member ended it".to_owned()),
                Err(status) => return self.broken(member, chain(&status)),
            }
        }
    }

    async fn open_at(
        &self,
        member: usize,
        (key, range_end): Range,
    ) -> Result<(Streaming<WatchResponse>, mpsc::Sender<WatchRequest>), String> {
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: i64::try_from(self.since + 1).unwrap_or(i64::MAX),
            progress_notify: true,
            fragment: true,
        };
        // The stream of questions stays open for as long as the watch is to.
        let (questions, asked) = mpsc::channel(1);
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        questions.send(create).await.map_err(|_| "cannot ask".to_owned())?;
        let signed = self.cluster.signed(member, ReceiverStream::new(asked)).await;
        let request = signed.map_err(in_words)?;
        let channel = self.cluster.watches(member);
        let mut client = WatchClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let stream = client.watch(request).await.map_err(|status| chain(&status))?.into_inner();
        Ok((stream, questions))
    }

    /// Leaves the member: another one may do better.
    fn broken(&self, member: usize, why: String) -> Ended {
        let (name, _) = self.cluster.member(member);
        let why = format!("{name}: {why}");
        self.cluster.leave(member);
        Ended::Broken(why)
    }

    /// Tells what an answer says, all of a revision at once.
    async fn take(
        &mut self,
        answer: WatchResponse,
        pending: &mut Vec<Event>,
        changes: &mpsc::Sender<Change>,
    ) -> Option<Ended> {
        let now = answer.header.map_or(0, |header| header.revision.unsigned_abs());
        if answer.canceled {
            if answer.compact_revision != 0 {
                let now = match revision(&self.cluster, &self.keys).await {
                    Ok(now) => now,
                    Err(_no_answer) => return Some(Ended::Broken(answer.cancel_reason)),
                };
                return Some(Ended::Compacted { now });
            }
            if answer.cancel_reason.contains("token") {
                self.cluster.forget_token().await;
            }
            return Some(Ended::Broken(answer.cancel_reason));
        }
        if answer.created {
            self.cluster.note(Reach::Here);
            return None;
        }
        if answer.events.is_empty() && !answer.fragment && pending.is_empty() {
            // An idle watch hears how far it is.
            self.since = self.since.max(now);
            return None;
        }
        pending.extend(answer.events);
        if answer.fragment {
            return None;
        }
        for event in pending.drain(..) {
            let kv = event.kv.unwrap_or_default();
            let at = kv.mod_revision.unsigned_abs();
            self.since = self.since.max(at);
            if self.keys.is_staged(&kv.key) {
                continue;
            }
            match change(&self.keys, event.r#type == i32::from(EventType::Delete), kv) {
                Ok(change) => {
                    if changes.send(change).await.is_err() {
                        return Some(Ended::Done);
                    }
                }
                Err(why) => tracing::warn!(%why, "a watch passes over a key"),
            }
        }
        None
    }
}

fn change(keys: &Keys, deleted: bool, kv: KeyValue) -> Result<Change, StoreError> {
    if deleted {
        let (key, at) = (keys.shown(&kv.key)?, kv.mod_revision.unsigned_abs());
        return Ok(Change::Deleted { key, at });
    }
    entry(keys, kv).map(Change::Put)
}

fn in_words(why: Sort) -> String {
    match why {
        Sort::Elsewhere(why) | Sort::Doubt(why) => why,
        Sort::TokenEnded => "the token has ended".to_owned(),
        Sort::No(status) => status.message().to_owned(),
    }
}
