//! Transactions larger than one request to etcd: their parts are laid down first, then one transaction decides.
//!
//! The parts lie under `/staged/ID/N`, on a lease: a writer that dies before the decision leaves nothing behind. The
//! deciding transaction has every compare, every operation whose key is compared or leased, and takes all parts off
//! that lease: from then on they are decided, and stay until they are carried out. Each is carried out by a transaction
//! that also deletes it, so that happens once, whoever does it: the writer at once, or [`settle`] of another process.
//! What is decided is carried out in the order of the decisions.

use std::collections::HashSet;
use std::time::Duration;

use prost::Message;
use rota_proto::etcd::etcdserverpb::{Compare as WireCompare, RequestOp, TxnRequest};
use rota_proto::etcd::mvccpb::KeyValue;

use super::EtcdStore;
use super::nest;
use crate::store::limits;
use crate::store::{Compare, LeaseId, Op, Outcome, Store, StoreError, Txn};

/// Bytes of one request. Etcd takes 1.5 MiB when nothing else is said; a part has room around it.
pub(super) const REQUEST_BYTES_MAX: usize = 1_310_720;

/// Bytes of one value with its key: some are left for what stands around it, and for the prefix.
pub(super) const VALUE_BYTES_MAX: usize = REQUEST_BYTES_MAX - 2048;

/// Bytes of one part, where it is not one operation that has more.
const PART_BYTES_MAX: usize = 1_000_000;

/// Bytes beside key and value that one operation or compare takes on the wire.
const AROUND: usize = 32;

/// For laying the parts down: 32 MiB take a few seconds where the disks are slow.
const STAGING_TTL: Duration = Duration::from_secs(120);

/// Does the transaction fit one request?
pub(super) fn fits(txn: &Txn, prefix: usize) -> bool {
    let compares = txn.compares.iter().map(|compare| compare.key().len());
    let all: usize = compares.sum::<usize>() + limits::size(txn);
    all + (txn.compares.len() + txn.ops.len()) * (AROUND + prefix) <= REQUEST_BYTES_MAX
}

/// Lays the parts of a transaction down, decides it, and carries the parts out. `unsettled` says whether something is
/// decided and not carried out: it stays so when this is broken off.
pub(super) async fn commit(
    store: &EtcdStore,
    txn: Txn,
    unsettled: &mut bool,
) -> Result<Outcome, StoreError> {
    if *unsettled {
        settle(store).await?;
        *unsettled = false;
    }
    let (deciding, parts) = split(store, txn)?;
    let lease = store.grant(STAGING_TTL).await?;
    let id = format!("{:016x}/", lease.0);
    let count = parts.len();
    for (n, success) in parts.into_iter().enumerate() {
        let part = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
        let put = nest::put(store.keys.part(&id, n), part.encode_to_vec(), Some(lease));
        // An unknown outcome is no harm: what is not decided goes with its lease.
        let laid = store.decide(nest::transaction(&store.keys, Vec::new(), vec![put])).await;
        let why = match laid {
            Ok(Outcome::Done(_)) => continue,
            Ok(Outcome::Refused) => "the lease of its parts has ended".to_owned(),
            Err(why) => why.to_string(),
        };
        clear(store, lease).await;
        return Err(StoreError::Unavailable(format!("cannot lay down a large transaction: {why}")));
    }
    let Some(compare) = store.compares(&deciding.compares) else {
        clear(store, lease).await;
        return Ok(Outcome::Refused);
    };
    let mut ops: Vec<RequestOp> =
        deciding.ops.iter().map(|op| nest::operation(&store.keys, op)).collect();
    ops.extend((0..count).map(|n| nest::keep(store.keys.part(&id, n))));
    *unsettled = true;
    match store.decide(nest::transaction(&store.keys, compare, ops)).await? {
        Outcome::Refused => {
            *unsettled = false;
            clear(store, lease).await;
            Ok(Outcome::Refused)
        }
        Outcome::Done(revision) => {
            carry_out(store, &id).await.map_err(|why| {
                StoreError::Unknown(format!("it is decided, and not all of it carried out: {why}"))
            })?;
            *unsettled = false;
            // The lease has nothing left, and ends by itself where this fails.
            clear(store, lease).await;
            Ok(Outcome::Done(revision))
        }
    }
}

/// What decides, and the parts of the rest.
fn split(store: &EtcdStore, txn: Txn) -> Result<(Txn, Vec<Vec<RequestOp>>), StoreError> {
    let compared: HashSet<String> = txn.compares.iter().map(|c| c.key().to_owned()).collect();
    let decides =
        |op: &Op| compared.contains(op.key()) || matches!(op, Op::Put { lease: Some(_), .. });
    let (first, rest): (Vec<Op>, Vec<Op>) = txn.ops.into_iter().partition(decides);
    let deciding = Txn { compares: txn.compares, ops: first };
    let around = AROUND + store.keys.added();
    // Room is left for the parts' own keys.
    if !fits(&deciding, store.keys.added() + AROUND) {
        return Err(limits::refused(
            "what it compares is more than etcd takes in one request; compare fewer keys",
        ));
    }
    let (mut parts, mut bytes) = (Vec::new(), usize::MAX);
    for op in rest {
        let size = op.size() + around;
        if op.size() > VALUE_BYTES_MAX {
            let (key, is) = (op.key(), op.size());
            return Err(limits::refused(&format!(
                "{key} with its value is {is} bytes, and etcd takes at most {VALUE_BYTES_MAX}"
            )));
        }
        if bytes.saturating_add(size) > PART_BYTES_MAX {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(nest::operation(&store.keys, &op));
        }
    }
    Ok((deciding, parts))
}

/// Removes parts that were not decided. Where that fails, their lease ends by itself.
async fn clear(store: &EtcdStore, lease: LeaseId) {
    if let Err(why) = store.revoke(lease).await {
        tracing::debug!(%why, "staged parts stay until their lease ends");
    }
}

/// Carries out what is decided and was not carried out, of every writer.
pub(super) async fn settle(store: &EtcdStore) -> Result<(), StoreError> {
    carry_out(store, "").await
}

/// Carries out the decided parts of one transaction, or of all, the first decided first.
async fn carry_out(store: &EtcdStore, id: &str) -> Result<(), StoreError> {
    let (entries, _) = store.range(store.keys.staged(id), usize::MAX).await?;
    let mut decided: Vec<KeyValue> = entries.into_iter().filter(|kv| kv.lease == 0).collect();
    decided
        .sort_by(|one, other| (one.mod_revision, &one.key).cmp(&(other.mod_revision, &other.key)));
    for part in decided {
        let key = String::from_utf8_lossy(&part.key).into_owned();
        let TxnRequest { success: mut ops, .. } = TxnRequest::decode(&*part.value)
            .map_err(|cause| StoreError::Corrupt(format!("{key}: {cause}")))?;
        ops.push(nest::delete(part.key.clone()));
        let still = vec![nest::created(part.key, part.create_revision)];
        match store.decide(nest::transaction(&store.keys, still, ops)).await? {
            Outcome::Done(_) => {}
            // Somebody else carried it out.
            Outcome::Refused => tracing::debug!(%key, "a staged part was carried out already"),
        }
    }
    Ok(())
}

impl EtcdStore {
    /// The compares for etcd; `None`: one of them never holds.
    pub(super) fn compares(&self, asked: &[Compare]) -> Option<Vec<WireCompare>> {
        asked.iter().map(|asked| nest::compare(&self.keys, asked)).collect()
    }
}
