//! How another controller gets the CA, so that no single controller is the only one that can let
//! people in.
//!
//! Whoever holds a controller's token knows 32 random bytes that, besides him, only the controller
//! sees that accepts the token. Under a key made of these, the CA is put into the store
//! (`/ca/NAME`) in the transaction that lets the new controller in; it takes the CA out, keeps it
//! in its own data directory, and removes what lay in the store.

use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use rota_identity::Token;
use rota_rollout::names::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::ca::{Ca, CaError};
use super::record::{decode, encode};
use crate::store::{Compare, Entry, Op, Store, StoreError, Txn, scan_all};

/// Why a joining controller has no CA.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Nothing was put there for it.
    #[error(
        "the store holds no CA for controller {0}: it was taken already, or this is not the store \
         of the controller that accepted the token"
    )]
    Missing(String),
    /// Another token.
    #[error("the CA in the store was not sealed for this token")]
    Sealed,
    /// What came out is no CA, or cannot be kept.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// When it was put there.
    #[serde(default)]
    at: Timestamp,
    /// AES-256-GCM, with its tag; the key is used once, so that the nonce is zero.
    sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    certificate: String,
    key: String,
}

const PREFIX: &str = "/ca/";

/// How long a sealed CA waits for whom it was sealed. Joining takes seconds; a broken one may wait for a person.
const KEPT_FOR: Span = Span::seconds(24 * 3600);

pub(super) fn store_key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The change that leaves the CA for controller `name`, who has `token`.
pub(super) fn op(ca: &Ca, token: &Token, name: &str, at: Timestamp) -> Result<Op, CaError> {
    let content = Content { certificate: ca.roots_pem().to_owned(), key: ca.key_pem().to_owned() };
    let mut sealed = serde_json::to_vec(&content).map_err(|_| CaError::Seal)?;
    let (key, nonce) = secret_key(token, name);
    let done = key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed);
    done.map_err(|_| CaError::Seal)?;
    let value = encode(&Sealed { at, sealed }).map_err(|_| CaError::Seal)?;
    Ok(Op::put(store_key(name), value))
}

/// Takes the CA that was left for controller `name` and keeps it in `dir` (`DIR/identity`).
pub async fn take(
    store: &dyn Store,
    token: &Token,
    name: &str,
    dir: &Path,
) -> Result<Ca, ShareError> {
    let entry = store.get(&store_key(name)).await?;
    let entry = entry.ok_or_else(|| ShareError::Missing(name.to_owned()))?;
    let ca = open(&entry, token, name)?.keep(dir)?;
    // Only after it is kept durably here.
    forget(store, name).await?;
    Ok(ca)
}

/// Is the CA there for controller `name`, sealed for this token?
pub(super) async fn is_for(
    store: &dyn Store,
    token: &Token,
    name: &str,
) -> Result<bool, StoreError> {
    let entry = store.get(&store_key(name)).await?;
    Ok(entry.is_some_and(|entry| open(&entry, token, name).is_ok()))
}

/// Removes what lies in the store for controller `name`.
pub(super) async fn forget(store: &dyn Store, name: &str) -> Result<(), StoreError> {
    let key = store_key(name);
    if store.get(&key).await?.is_some() {
        store.commit(Txn { compares: Vec::new(), ops: vec![Op::Delete(key)] }).await?;
    }
    Ok(())
}

/// Removes what nobody took; says how much. For a daily call.
pub async fn sweep(store: &dyn Store, now: Timestamp) -> Result<usize, StoreError> {
    let (waiting, _) = scan_all(store, PREFIX).await?;
    let mut gone = 0;
    for entry in waiting {
        if decode::<Sealed>(&entry)?.at.after(KEPT_FOR) < now {
            let compares = vec![Compare::Modified(entry.key.clone(), entry.modified)];
            store.commit(Txn { compares, ops: vec![Op::Delete(entry.key)] }).await?;
            gone += 1;
        }
    }
    Ok(gone)
}

fn open(entry: &Entry, token: &Token, name: &str) -> Result<Ca, ShareError> {
    let mut sealed = decode::<Sealed>(entry)?.sealed;
    let (key, nonce) = secret_key(token, name);
    let open = key.open_in_place(nonce, Aad::empty(), &mut sealed);
    let open = open.map_err(|_| ShareError::Sealed)?;
    let content: Content = serde_json::from_slice(open).map_err(|_| ShareError::Sealed)?;
    Ok(Ca::from_pem(&content.certificate, &content.key)?)
}

/// The key for one token and one name. Whoever reads the store cannot guess 256 random bits.
fn secret_key(token: &Token, name: &str) -> (LessSafeKey, Nonce) {
    let info = [b"rota: the CA for controller ".as_slice(), name.as_bytes()];
    let secret = Salt::new(HKDF_SHA256, b"rota/ca/1").extract(token.secret.bytes());
    let expanded = secret.expand(&info, &AES_256_GCM).map(UnboundKey::from);
    let Ok(key) = expanded else { unreachable!("HKDF gives 32 bytes") };
    (LessSafeKey::new(key), Nonce::assume_unique_for_key([0; NONCE_LEN]))
}
