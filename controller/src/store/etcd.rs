//! The store in etcd (3.4 and later), for several controllers: one cluster, everything below one prefix.
//!
//! The client is ours, over tonic ([`cluster`]): calls with deadlines that go on at another member, and writes that are
//! never done twice. A transaction of any size is one of etcd's ([`nest`]) up to its limit of bytes; beyond that its
//! parts are laid down first ([`staged`]). A watch goes on by itself after a break ([`watch`]).
//!
//! Etcd counts revisions for everybody: they grow, but a commit may raise them by more than one, because others write
//! too. Durable means: a majority of the members had it on disk before `Done` was answered.

mod cluster;
mod config;
mod dial;
mod errors;
mod keys;
mod nest;
mod staged;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use rota_proto::etcd::etcdserverpb::kv_client::KvClient;
use rota_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use rota_proto::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use rota_proto::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RangeResponse,
    ResponseHeader, StatusRequest, TxnRequest,
};
use rota_proto::etcd::mvccpb::KeyValue;
use tokio::sync::{RwLock, mpsc};
use tonic::{Code, Request, Response, Status};

use super::{
    Change, Entry, LeaseId, Outcome, Reach, Store, StoreError, StoreRevision, Txn, limits,
};
use crate::store::snapshot::{FILLING, Snapshot, half_filled};
use cluster::{Cluster, Repeat, Shared};
pub use config::{EtcdConfig, PASSWORD_VARIABLE, Trust};
use errors::Failure;
use keys::{Keys, Range};
use watch::Watch;

/// Keys that are read at once. A page of records is a few hundred KB.
const PAGE: usize = 500;

/// The largest answer: a page of the largest values that etcd takes.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// The largest value, with its key: what is larger does not fit one request.
pub const VALUE_BYTES_MAX: usize = staged::VALUE_BYTES_MAX;

/// The longest lease that is granted. A lease says that somebody is alive; a day is no longer "now".
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a read of several pages begins anew because etcd was compacted meanwhile.
const READS_MAX: usize = 5;

/// The oldest etcd that has all we need.
const OLDEST: (u32, u32) = (3, 4);

/// The store in a cluster. Dropping the last handle ends its watches.
pub struct EtcdStore {
    cluster: Shared,
    keys: Keys,
    /// Commits go side by side; one that is staged goes alone, so that none of this process comes between its parts.
    /// `true`: something is decided and not carried out, and nothing else is written before it is.
    unsettled: RwLock<bool>,
    /// Watches end when this is dropped.
    open: tokio::sync::watch::Sender<()>,
}

impl EtcdStore {
    /// Connects, and finishes what somebody who died had decided. Refused where no member answers, where etcd is too
    /// old, and where it does not let us in.
    pub async fn open(config: EtcdConfig) -> Result<Arc<Self>, StoreError> {
        let cluster = Arc::new(Cluster::new(&config)?);
        let keys = Keys::new(&config.prefix);
        let store = Self {
            cluster,
            keys,
            unsettled: RwLock::new(false),
            open: tokio::sync::watch::Sender::new(()),
        };
        let first = store.check_version().await;
        first.map_err(|why| errors::first(&config, why))?;
        store.settle().await.map_err(|why| errors::first(&config, why))?;
        let filling = store.get(FILLING).await.map_err(|why| errors::first(&config, why))?;
        if filling.is_some() {
            let how = format!("empty it (`etcdctl del --prefix {}/`)", config.prefix);
            return Err(errors::first(&config, half_filled(&how)));
        }
        tracing::info!(etcd = %config, "the store is in etcd");
        Ok(Arc::new(store))
    }

    /// Everything that is there for good, as of one revision.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.settle().await?;
        let (found, revision) = self.ranges(&self.keys.visible("", ""), usize::MAX).await?;
        let shown = found.into_iter().map(|kv| {
            let (leased, key) = (kv.lease != 0, self.keys.shown(&kv.key)?);
            Ok((key, kv.value, leased))
        });
        Ok(Snapshot::of(revision, shown.collect::<Result<Vec<_>, StoreError>>()?))
    }

    async fn check_version(&self) -> Result<(), StoreError> {
        let ask = |channel, request: Request<StatusRequest>| async move {
            MaintenanceClient::new(channel).status(request).await
        };
        let asked = self.cluster.ask(Repeat::Yes, StatusRequest {}, ask).await;
        let version = asked.map_err(|why| why.unread("look at etcd"))?.version;
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if (major, minor) < OLDEST => {
                let (major, minor) = OLDEST;
                Err(StoreError::Unavailable(format!(
                    "this is etcd {version}, and {major}.{minor} is the oldest that will do"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Carries out a transaction of etcd's.
    async fn decide(&self, txn: TxnRequest) -> Result<Outcome, StoreError> {
        let ask = |channel, request: Request<TxnRequest>| async move {
            KvClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).txn(request).await
        };
        match self.cluster.ask(Repeat::No, txn, ask).await {
            Ok(answer) if answer.succeeded => Ok(Outcome::Done(at(answer.header))),
            Ok(_) => Ok(Outcome::Refused),
            Err(Failure::No(status)) if is_refusal(&status) => Ok(Outcome::Refused),
            Err(why) => Err(why.explain("commit")),
        }
    }

    /// Etcd's keys of a range, in order, all as of one revision.
    async fn range(
        &self,
        range: Range,
        limit: usize,
    ) -> Result<(Vec<KeyValue>, StoreRevision), StoreError> {
        self.ranges(&[range], limit).await
    }

    async fn ranges(
        &self,
        ranges: &[Range],
        limit: usize,
    ) -> Result<(Vec<KeyValue>, StoreRevision), StoreError> {
        let mut reads = 0;
        loop {
            match self.read(ranges, limit).await {
                // Etcd was compacted between two pages: what is there now is as good.
                Err(Failure::No(status))
                    if status.code() == Code::OutOfRange && reads < READS_MAX =>
                {
                    reads += 1;
                }
                other => return other.map_err(|why| why.unread("read keys")),
            }
        }
    }

    async fn read(
        &self,
        ranges: &[Range],
        limit: usize,
    ) -> Result<(Vec<KeyValue>, StoreRevision), Failure> {
        let (mut found, mut seen) = (Vec::new(), None);
        for (start, end) in ranges {
            let mut start = start.clone();
            loop {
                let want = (limit - found.len()).min(PAGE);
                if want == 0 {
                    break;
                }
                let request = RangeRequest {
                    key: start,
                    range_end: end.clone(),
                    limit: i64::try_from(want).unwrap_or(i64::MAX),
                    revision: seen.unwrap_or(0),
                    count_only: false,
                };
                let page = get(&self.cluster, request).await?;
                let revision = at(page.header);
                seen = seen.or(i64::try_from(revision).ok());
                found.extend(page.kvs);
                let last = found.last().filter(|_| page.more);
                let Some(last) = last else { break };
                start = last.key.clone();
                start.push(0);
            }
        }
        match seen {
            Some(revision) => Ok((found, revision.unsigned_abs())),
            None => Ok((found, revision(&self.cluster, &self.keys).await?)),
        }
    }
}

/// Etcd's revision as of now.
async fn revision(cluster: &Cluster, keys: &Keys) -> Result<StoreRevision, Failure> {
    let key = keys.nothing();
    let answer =
        get(cluster, RangeRequest { key, count_only: true, ..RangeRequest::default() }).await?;
    Ok(at(answer.header))
}

async fn get(cluster: &Cluster, request: RangeRequest) -> Result<RangeResponse, Failure> {
    let ask = |channel, request: Request<RangeRequest>| async move {
        KvClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).range(request).await
    };
    cluster.ask(Repeat::Yes, request, ask).await
}

fn at(header: Option<ResponseHeader>) -> StoreRevision {
    header.map_or(0, |header| header.revision.unsigned_abs())
}

/// A nested compare did not hold, or a lease of a put has ended.
fn is_refusal(status: &Status) -> bool {
    status.message().contains(nest::FUTURE) || is_no_lease(status)
}

fn is_no_lease(status: &Status) -> bool {
    status.message().contains("requested lease not found")
}

fn entry(keys: &Keys, kv: KeyValue) -> Result<Entry, StoreError> {
    Ok(Entry {
        key: keys.shown(&kv.key)?,
        value: kv.value,
        created: kv.create_revision.unsigned_abs(),
        modified: kv.mod_revision.unsigned_abs(),
    })
}

#[tonic::async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let request = RangeRequest { key: self.keys.stored(key), ..RangeRequest::default() };
        let answer = get(&self.cluster, request).await.map_err(|why| why.unread("read a key"))?;
        answer.kvs.into_iter().next().map(|kv| entry(&self.keys, kv)).transpose()
    }

    async fn scan(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Entry>, StoreRevision), StoreError> {
        let ranges = self.keys.visible(prefix, after);
        let (found, revision) = self.ranges(&ranges, limit).await?;
        let entries =
            found.into_iter().map(|kv| entry(&self.keys, kv)).collect::<Result<_, _>>()?;
        Ok((entries, revision))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        limits::check(&txn)?;
        if !staged::fits(&txn, self.keys.added()) {
            let mut unsettled = self.unsettled.write().await;
            return staged::commit(self, txn, &mut unsettled).await;
        }
        let mut beside = self.unsettled.read().await;
        while *beside {
            drop(beside);
            self.settle().await?;
            beside = self.unsettled.read().await;
        }
        let Some(compares) = self.compares(&txn.compares) else { return Ok(Outcome::Refused) };
        let ops = txn.ops.iter().map(|op| nest::operation(&self.keys, op)).collect();
        let outcome = self.decide(nest::transaction(&self.keys, compares, ops)).await;
        drop(beside);
        outcome
    }

    async fn watch(
        &self,
        prefix: &str,
        since: StoreRevision,
    ) -> Result<mpsc::Receiver<Change>, StoreError> {
        let (cluster, keys) = (Arc::clone(&self.cluster), self.keys.clone());
        let (range, open) = (self.keys.under(prefix), self.open.subscribe());
        Ok(Watch { cluster, keys, range, since, open }.start())
    }

    /// In whole seconds; etcd raises what is shorter than 2 s. A repeat leaves a lease that nobody uses, and that ends.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.min(LEASE_MAX).as_millis().div_ceil(1000).max(1);
        let request = LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX), id: 0 };
        let ask = |channel, request: Request<LeaseGrantRequest>| async move {
            LeaseClient::new(channel).lease_grant(request).await
        };
        let granted = self.cluster.ask(Repeat::Yes, request, ask).await;
        granted.map(|lease| LeaseId(lease.id)).map_err(|why| why.unread("begin a lease"))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let ask = |channel, request: Request<LeaseKeepAliveRequest>| async move {
            let (metadata, extensions, question) = request.into_parts();
            let stream = tokio_stream::once(question);
            let request = Request::from_parts(metadata, extensions, stream);
            let mut answers =
                LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable("etcd ended the stream"))
        };
        let request = LeaseKeepAliveRequest { id: lease.0 };
        let kept = self.cluster.ask(Repeat::Yes, request, ask).await;
        kept.map(|answer| answer.ttl > 0).map_err(|why| why.unread("keep a lease alive"))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let ask = |channel, request: Request<LeaseRevokeRequest>| async move {
            LeaseClient::new(channel).lease_revoke(request).await
        };
        match self.cluster.ask(Repeat::Yes, LeaseRevokeRequest { id: lease.0 }, ask).await {
            Ok(_) => Ok(()),
            Err(Failure::No(status)) if is_no_lease(&status) => Ok(()),
            Err(why) => Err(why.explain("end a lease")),
        }
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let mut unsettled = self.unsettled.write().await;
        staged::settle(self).await?;
        *unsettled = false;
        Ok(())
    }

    fn reach(&self) -> tokio::sync::watch::Receiver<Reach> {
        self.cluster.reach()
    }
}
