//! What one transaction may be, alike in every store: a mistake is refused before it waits for anything.

use std::collections::HashSet;

use super::{Compare, Op, StoreError, Txn};

/// Bytes of a key. Ours are paths of a few names.
const KEY_BYTES_MAX: usize = 1024;

/// Bytes of all values of one transaction. Records are a few KB; a manifest with its environments
/// may be more.
pub(super) const TXN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Compares and operations of one transaction. 10,000 nodes that begin at once come to 40,000: each
/// has its record, its mark as busy with a compare, and its event; and half as much again.
pub(super) const TXN_OPS_MAX: usize = 60_000;

/// Refuses what no caller should ask.
pub(super) fn check(txn: &Txn) -> Result<(), StoreError> {
    let refuse = |why: String| Err(refused(&why));
    let count = txn.compares.len() + txn.ops.len();
    if count > TXN_OPS_MAX {
        return refuse(format!("{count} compares and operations, at most {TXN_OPS_MAX} are taken"));
    }
    let bytes = size(txn);
    if bytes > TXN_BYTES_MAX {
        return refuse(format!("{bytes} bytes, at most {TXN_BYTES_MAX} are taken"));
    }
    let mut seen = HashSet::with_capacity(txn.ops.len());
    for key in txn.ops.iter().map(Op::key) {
        if key.len() > KEY_BYTES_MAX || !key.starts_with('/') || key.contains('\0') {
            let shown: String = key.chars().take(64).collect();
            return refuse(format!(
                "the key {shown:?} is not 1 to {KEY_BYTES_MAX} bytes of text that begins with `/`"
            ));
        }
        if !seen.insert(key) {
            return refuse(format!("it changes {key} twice"));
        }
    }
    Ok(())
}

/// The error for what is refused.
pub(super) fn refused(why: &str) -> StoreError {
    StoreError::Unavailable(format!("refused a transaction: {why}"))
}

/// Bytes of keys and values.
pub(super) fn size(txn: &Txn) -> usize {
    txn.ops.iter().map(Op::size).sum()
}

impl Op {
    /// What it changes.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }

    /// Bytes of its key and value.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

impl Compare {
    /// What it looks at.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Created(key, _) | Self::Modified(key, _) => key,
        }
    }
}
