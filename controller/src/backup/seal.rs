//! The authority's key under a passphrase, so that a backup may lie where the key may not.

use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::{BackupError, file};

/// Rounds of the derivation: about half a second for whoever guesses a passphrase.
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not 0");

/// More rounds than this are no backup of ours, but take somebody's time.
const ROUNDS_MAX: u32 = 10_000_000;

const SALT_LEN: usize = 16;

/// What an operator keeps elsewhere.
pub struct Passphrase(String);

impl Passphrase {
    /// The first line of a private file.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let exposed = |cause| file("use the passphrase in", path)(std::io::Error::other(cause));
        rota_identity::check_mode(path).map_err(exposed)?;
        let text = std::fs::read_to_string(path).map_err(file("read the passphrase in", path))?;
        match text.lines().next() {
            Some(line) if line.len() >= 8 => Ok(Self(line.to_owned())),
            Some(_) | None => Err(BackupError::Seal("a passphrase has at least 8 bytes")),
        }
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A sealed key as it stands in the backup.
#[derive(Serialize, Deserialize)]
struct Sealed {
    v: u32,
    kdf: String,
    rounds: NonZeroU32,
    salt: String,
    nonce: String,
    sealed: String,
}

const KDF: &str = "pbkdf2-hmac-sha256, aes-256-gcm";

/// Seals a key.
pub(super) fn seal(key: &str, passphrase: &Passphrase) -> Result<Vec<u8>, BackupError> {
    let failed = |_| BackupError::Seal("this host gives no random numbers to seal with");
    let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
    let random = SystemRandom::new();
    random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(failed)?;
    let mut sealed = key.as_bytes().to_vec();
    let (aead, once) = (secret(passphrase, ROUNDS, &salt)?, Nonce::assume_unique_for_key(nonce));
    aead.seal_in_place_append_tag(once, Aad::empty(), &mut sealed).map_err(failed)?;
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    let (salt, nonce, sealed) = (text(&salt), text(&nonce), text(&sealed));
    let written = Sealed { v: 1, kdf: KDF.to_owned(), rounds: ROUNDS, salt, nonce, sealed };
    serde_json::to_vec(&written).map_err(|_| BackupError::Seal("the sealed key cannot be written"))
}

/// Opens a sealed key.
pub(super) fn open(bytes: &[u8], passphrase: &Passphrase) -> Result<String, BackupError> {
    const BAD: BackupError = BackupError::Seal("the sealed key of the backup cannot be read");
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(|_| BAD)?;
    if sealed.v != 1 || sealed.kdf != KDF || sealed.rounds.get() > ROUNDS_MAX {
        return Err(BackupError::Seal(
            "the key was sealed in a way that this program does not know",
        ));
    }
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| BAD);
    let (salt, nonce) = (bytes(&sealed.salt)?, bytes(&sealed.nonce)?);
    let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| BAD)?;
    let (mut content, aead) = (bytes(&sealed.sealed)?, secret(passphrase, sealed.rounds, &salt)?);
    let open = aead.open_in_place(nonce, Aad::empty(), &mut content);
    let open =
        open.map_err(|_| BackupError::Seal("this is not the passphrase that it was sealed with"))?;
    String::from_utf8(open.to_vec()).map_err(|_| BAD)
}

fn secret(
    passphrase: &Passphrase,
    rounds: NonZeroU32,
    salt: &[u8],
) -> Result<LessSafeKey, BackupError> {
    let mut key = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, rounds, salt, passphrase.0.as_bytes(), &mut key);
    let key = UnboundKey::new(&AES_256_GCM, &key);
    key.map(LessSafeKey::new).map_err(|_| BackupError::Seal("a key has another length here"))
}
