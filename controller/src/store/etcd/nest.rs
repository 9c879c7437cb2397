//! Many compares and operations as one transaction of etcd.
//!
//! Etcd takes 128 of each on the way from a transaction to the innermost one that it holds. So a large one is a tree
//! whose levels share the 128: two levels of 64 hold 4,096, three of 42 hold 74,088. Etcd decides which branches of the
//! whole tree are taken, and checks them, before it carries anything out. A nested transaction has its compares for
//! itself, though: the others would be carried out where they fail. So compares that have no room at the root stand in
//! nested transactions that ask for a revision of the far future where they fail, and etcd refuses the whole for that.

use rota_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rota_proto::etcd::etcdserverpb::request_op::Request;
use rota_proto::etcd::etcdserverpb::{
    Compare as WireCompare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::keys::Keys;
use crate::store::{Compare, LeaseId, Op, StoreRevision};

/// Compares and operations on one way through the tree: etcd's own `--max-txn-ops` when nothing else is said.
const OPS_MAX: usize = 128;

/// What etcd says when it reads the future: a nested compare did not hold.
pub(super) const FUTURE: &str = "required revision is a future revision";

/// One transaction of any size: all compares hold and all operations are carried out, or nothing is.
pub(super) fn transaction(
    keys: &Keys,
    compare: Vec<WireCompare>,
    mut ops: Vec<RequestOp>,
) -> TxnRequest {
    if ops.is_empty() {
        // Etcd answers one without operations from what this member happens to know; a read makes it ask the leader.
        ops.push(op(Request::RequestRange(look(keys, 0))));
    }
    let mut levels = 1_usize;
    loop {
        let width = OPS_MAX / levels;
        let (compares, leaves) = (compare.len().div_ceil(width), ops.len().div_ceil(width));
        let guards = if compares > 1 { compares } else { 0 };
        if levels == 1 && guards == 0 && leaves == 1 {
            return TxnRequest { compare, success: ops, failure: Vec::new() };
        }
        let room = width.saturating_pow(u32::try_from(levels - 1).unwrap_or(u32::MAX));
        if levels > 1 && guards + leaves <= room {
            return tree(keys, width, compare, ops);
        }
        levels += 1;
    }
}

fn tree(
    keys: &Keys,
    width: usize,
    mut compare: Vec<WireCompare>,
    ops: Vec<RequestOp>,
) -> TxnRequest {
    let mut nested = Vec::new();
    if compare.len() > width {
        for part in compare.chunks(width) {
            let failure = vec![op(Request::RequestRange(look(keys, i64::MAX)))];
            let guard = TxnRequest { compare: part.to_vec(), success: Vec::new(), failure };
            nested.push(op(Request::RequestTxn(guard)));
        }
        compare = Vec::new();
    }
    nested.extend(parts(ops, width));
    while nested.len() > width {
        nested = parts(nested, width);
    }
    TxnRequest { compare, success: nested, failure: Vec::new() }
}

/// Nested transactions of so many operations each.
fn parts(ops: Vec<RequestOp>, width: usize) -> Vec<RequestOp> {
    let mut rest = ops.into_iter().peekable();
    let mut parts = Vec::new();
    while rest.peek().is_some() {
        let success = rest.by_ref().take(width).collect();
        let nested = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
        parts.push(op(Request::RequestTxn(nested)));
    }
    parts
}

/// A read of nothing, as of a revision.
fn look(keys: &Keys, revision: i64) -> RangeRequest {
    RangeRequest { key: keys.nothing(), revision, count_only: true, ..RangeRequest::default() }
}

/// A compare for etcd; `None`: it never holds.
pub(super) fn compare(keys: &Keys, asked: &Compare) -> Option<WireCompare> {
    let at = |revision: StoreRevision| i64::try_from(revision).ok().filter(|at| *at > 0);
    let (target, union) = match asked {
        Compare::Absent(_) => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
        Compare::Created(_, created) => {
            (CompareTarget::Create, TargetUnion::CreateRevision(at(*created)?))
        }
        Compare::Modified(_, modified) => {
            (CompareTarget::Mod, TargetUnion::ModRevision(at(*modified)?))
        }
    };
    Some(equal(target, union, keys.stored(asked.key())))
}

/// The key was made at this revision of etcd's.
pub(super) fn created(key: Vec<u8>, revision: i64) -> WireCompare {
    equal(CompareTarget::Create, TargetUnion::CreateRevision(revision), key)
}

fn equal(target: CompareTarget, union: TargetUnion, key: Vec<u8>) -> WireCompare {
    WireCompare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key,
        target_union: Some(union),
    }
}

/// An operation for etcd.
pub(super) fn operation(keys: &Keys, asked: &Op) -> RequestOp {
    match asked {
        Op::Put { key, value, lease } => put(keys.stored(key), value.clone(), *lease),
        Op::Delete(key) => delete(keys.stored(key)),
    }
}

/// Puts etcd's key.
pub(super) fn put(key: Vec<u8>, value: Vec<u8>, lease: Option<LeaseId>) -> RequestOp {
    let lease = lease.map_or(0, |lease| lease.0);
    op(Request::RequestPut(PutRequest { key, value, lease, ignore_value: false }))
}

/// Takes etcd's key off its lease; refused where there is no such key any more.
pub(super) fn keep(key: Vec<u8>) -> RequestOp {
    op(Request::RequestPut(PutRequest { key, ignore_value: true, ..PutRequest::default() }))
}

/// Deletes etcd's key.
pub(super) fn delete(key: Vec<u8>) -> RequestOp {
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end: Vec::new() }))
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks etcd's limits, and counts compares and puts.
    fn walk(txn: &TxnRequest, room: usize) -> (usize, usize) {
        let widest = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
        assert!(widest <= room, "{widest} where {room} are left");
        let mut all = (txn.compare.len(), 0);
        for nested in &txn.success {
            match nested.request.as_ref().unwrap() {
                Request::RequestTxn(nested) => {
                    assert_eq!(nested.compare.is_empty(), nested.failure.is_empty());
                    let (compares, puts) = walk(nested, room - widest);
                    all = (all.0 + compares, all.1 + puts);
                }
                Request::RequestPut(_) => all.1 += 1,
                Request::RequestRange(_) | Request::RequestDeleteRange(_) => {}
            }
        }
        all
    }

    #[test]
    fn every_size_fits() {
        let keys = Keys::new("/rota");
        let compares = |count: usize| {
            let all = (0..count).map(|n| Compare::Absent(format!("/{n}")));
            all.map(|asked| compare(&keys, &asked).unwrap()).collect::<Vec<_>>()
        };
        let puts = |count: usize| {
            (0..count).map(|n| put(keys.stored(&format!("/{n}")), vec![], None)).collect::<Vec<_>>()
        };
        for (c, p) in [
            (0, 0),
            (1, 0),
            (128, 128),
            (129, 1),
            (1, 129),
            (64, 4096),
            (64, 4097),
            (2048, 2048),
            (4096, 1),
            (10_000, 10_000),
            (20_000, 0),
            (0, 20_000),
            (10_000, 50_000),
            (60_000, 0),
            (0, 60_000),
        ] {
            let txn = transaction(&keys, compares(c), puts(p));
            assert_eq!(walk(&txn, OPS_MAX), (c, p));
        }
    }
}
