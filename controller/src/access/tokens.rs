//! Invitations: `/tokens/ID`, stored as hashes, spent in one transaction with what they let in.

use rota_identity::certificate::{hex, unhex};
use rota_identity::{BadIdentity, Identity, Kind, Token};
use rota_rollout::names::{EnvName, Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{decode, encode, rfc3339};
use super::roles::Role;
use super::{Access, TRIES_MAX, contended};
use crate::errors::Sort;
use crate::store::{Compare, Entry, Op, Outcome, StoreError, Txn};
use crate::view::{ErrorView, TokenView};

/// The most tokens at one time, spent and expired ones included. They are for joining, not for
/// keeping.
pub const TOKENS_MAX: usize = 1000;
/// How long a token lives when nobody says: time to paste it.
pub const TTL_DEFAULT: Span = Span::seconds(3600);
/// The longest life of a token: a machine image should not invite for ever.
pub const TTL_MAX: Span = Span::seconds(30 * 24 * 3600);
/// The most uses of one token: the largest fleet that is planned for.
pub const USES_MAX: u32 = 10_000;
/// How long a token is still listed, and refused by its own message, after it expired.
const KEPT_AFTER: Span = Span::seconds(7 * 24 * 3600);

const PREFIX: &str = "/tokens/";

/// Who is invited, and for how long: checked, ready to become a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What the bearer may become.
    pub guest: Guest,
    /// The only name that it may be used for.
    pub name: Option<String>,
    /// How long it is good.
    pub ttl: Span,
    /// How often it is good.
    pub uses: u32,
}

/// What an invitation is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Guest {
    /// A node's agent.
    Agent,
    /// An edge's agent.
    Edge,
    /// Another controller.
    Controller,
    /// A person or a script.
    Operator {
        /// What he may do.
        role: Role,
        /// The only environment where he may; none: everywhere.
        env: Option<String>,
    },
}

impl Guest {
    /// The kind of identity that it becomes.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Agent => Kind::Node,
            Self::Edge => Kind::Edge,
            Self::Controller => Kind::Controller,
            Self::Operator { .. } => Kind::Operator,
        }
    }
}

/// A token as an operator asked for it, in words; empty means not given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// `agent|edge|controller|operator`.
    pub kind: &'a str,
    /// `viewer|deployer|admin`, for operators.
    pub role: &'a str,
    /// A DNS label.
    pub name: &'a str,
    /// The environment of an operator's role.
    pub env: &'a str,
    /// 0: [`TTL_DEFAULT`].
    pub ttl_ms: u64,
    /// 0: once.
    pub uses: u32,
}

/// Why there will be no such token, or why there is none.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// An unknown kind.
    #[error("`{0}` is not what a token can be for: use agent, edge, controller or operator")]
    Kind(String),
    /// An operator without a role.
    #[error("a token for an operator needs a role: viewer, deployer or admin")]
    NoRole,
    /// An unknown role.
    #[error("`{0}` is not a role: use viewer, deployer or admin")]
    Role(String),
    /// A role or an environment for something that has none.
    #[error("{0} belongs to tokens for operators, not to one for {1}")]
    NotForThis(&'static str, &'static str),
    /// A bad name.
    #[error(transparent)]
    Name(#[from] BadIdentity),
    /// A bad environment.
    #[error("{0}")]
    Env(rota_rollout::names::BadName),
    /// Too long a life.
    #[error("a token lives for {max} at most, and {asked} was asked for", max = TTL_MAX)]
    Ttl { asked: Span },
    /// Too many uses.
    #[error("a token can be used {max} times at most, and {asked} was asked for", max = USES_MAX)]
    Uses { asked: u32 },
    /// Several uses of one name.
    #[error("a token for the name {0} can be used once only, because a name has one holder")]
    UsesOfOneName(String),
    /// Too many.
    #[error("there are {max} tokens already: remove some with `rota token rm`", max = TOKENS_MAX)]
    TooMany,
    /// No such token.
    #[error("there is no token {0}")]
    Missing(String),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] rota_identity::keys::NoRandomness),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TokenError> for ErrorView {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            TokenError::Missing(_) => {
                Sort::NotFound.error(error.to_string(), "`rota token ls` shows those there are")
            }
            TokenError::TooMany => Sort::Refused.error(error.to_string(), "`rota token ls`"),
            TokenError::NoRandomness(_) => Sort::Internal.error(error.to_string(), ""),
            TokenError::Kind(_)
            | TokenError::NoRole
            | TokenError::Role(_)
            | TokenError::NotForThis(..)
            | TokenError::Name(_)
            | TokenError::Env(_)
            | TokenError::Ttl { .. }
            | TokenError::Uses { .. }
            | TokenError::UsesOfOneName(_) => {
                Sort::Usage.error(error.to_string(), "`rota token create --help`")
            }
        }
    }
}

impl TryFrom<Wish<'_>> for Invitation {
    type Error = TokenError;

    fn try_from(wish: Wish<'_>) -> Result<Self, TokenError> {
        let kind = Kind::from_token_word(wish.kind);
        let kind = kind.ok_or_else(|| TokenError::Kind(wish.kind.to_owned()))?;
        let guest = guest(kind, wish.role, wish.env)?;
        let name = match wish.name {
            "" => None,
            name => Some(Identity::new(kind, name)?.name().to_owned()),
        };
        let ttl = if wish.ttl_ms == 0 { TTL_DEFAULT } else { Span(wish.ttl_ms) };
        if ttl > TTL_MAX {
            return Err(TokenError::Ttl { asked: ttl });
        }
        let uses = wish.uses.max(1);
        if uses > USES_MAX {
            return Err(TokenError::Uses { asked: uses });
        }
        match name {
            Some(name) if uses > 1 => Err(TokenError::UsesOfOneName(name)),
            name => Ok(Self { guest, name, ttl, uses }),
        }
    }
}

fn guest(kind: Kind, role: &str, env: &str) -> Result<Guest, TokenError> {
    if kind == Kind::Operator {
        if role.is_empty() {
            return Err(TokenError::NoRole);
        }
        let role = role.parse().map_err(|_| TokenError::Role(role.to_owned()))?;
        let env = match env {
            "" => None,
            env => Some(String::from(env.parse::<EnvName>().map_err(TokenError::Env)?)),
        };
        return Ok(Guest::Operator { role, env });
    }
    for (what, given) in [("a role", role), ("an environment", env)] {
        if !given.is_empty() {
            return Err(TokenError::NotForThis(what, kind.with_article()));
        }
    }
    Ok(match kind {
        Kind::Node => Guest::Agent,
        Kind::Edge => Guest::Edge,
        Kind::Controller | Kind::Operator => Guest::Controller,
    })
}

/// What the store knows of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    /// SHA-256 of the secret, hexadecimal.
    pub hash: String,
    pub guest: Guest,
    pub name: Option<String>,
    pub expires: Timestamp,
    pub uses_left: u32,
    pub created: Timestamp,
    pub created_by: String,
}

impl TokenRecord {
    /// Is this the token? The same time for every wrong secret.
    pub fn is(&self, token: &Token) -> bool {
        unhex(&self.hash).is_ok_and(|hash| token.secret.matches(&hash))
    }

    fn view(self, id: &str) -> TokenView {
        let role = match &self.guest {
            Guest::Operator { role, .. } => Some(role.to_string()),
            Guest::Agent | Guest::Edge | Guest::Controller => None,
        };
        TokenView {
            id: id.to_owned(),
            kind: self.guest.kind().token_word().to_owned(),
            role,
            name: self.name,
            uses_left: self.uses_left,
            expires_at: rfc3339(self.expires),
        }
    }
}

pub(super) fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

impl Access {
    /// Makes a token. It is shown once; the store keeps a hash.
    pub async fn create_token(
        &self,
        invitation: &Invitation,
        by: &str,
        now: Timestamp,
    ) -> Result<Token, TokenError> {
        let _turn = self.turn.lock().await;
        let held = self.sweep_tokens(now).await?;
        if held >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let token = Token::generate(invitation.guest.kind(), self.fingerprint())?;
        let record = TokenRecord {
            hash: hex(&token.secret.hash()),
            guest: invitation.guest.clone(),
            name: invitation.name.clone(),
            expires: now.after(invitation.ttl),
            uses_left: invitation.uses,
            created: now,
            created_by: by.to_owned(),
        };
        let key = key(&token.id);
        let txn = Txn {
            compares: vec![Compare::Absent(key.clone())],
            ops: vec![Op::put(key.clone(), encode(&record)?)],
        };
        match self.store.commit(txn).await? {
            Outcome::Done(_) => Ok(token),
            // Two ids of 64 random bits: the next try finds another.
            Outcome::Refused => Err(contended(&key).into()),
        }
    }

    /// All tokens that are still kept.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        let (entries, _) = self.store.scan(PREFIX, "", TOKENS_MAX).await?;
        entries.iter().map(|entry| Ok(decode::<TokenRecord>(entry)?.view(id_of(entry)))).collect()
    }

    /// Removes a token, so that it lets nobody in any more.
    pub async fn remove_token(&self, id: &str) -> Result<(), TokenError> {
        let key = key(id);
        for _ in 0..TRIES_MAX {
            let found = self.store.get(&key).await?;
            let found = found.ok_or_else(|| TokenError::Missing(id.to_owned()))?;
            let txn = Txn {
                compares: vec![Compare::Modified(key.clone(), found.modified)],
                ops: vec![Op::Delete(key.clone())],
            };
            if let Outcome::Done(_) = self.store.commit(txn).await? {
                return Ok(());
            }
        }
        Err(contended(&key).into())
    }

    /// Removes what expired long ago; says how many remain.
    async fn sweep_tokens(&self, now: Timestamp) -> Result<usize, StoreError> {
        let (entries, _) = self.store.scan(PREFIX, "", TOKENS_MAX).await?;
        let mut held = entries.len();
        for entry in entries {
            if decode::<TokenRecord>(&entry)?.expires.after(KEPT_AFTER) < now {
                let ops = vec![Op::Delete(entry.key)];
                self.store.commit(Txn { compares: Vec::new(), ops }).await?;
                held -= 1;
            }
        }
        Ok(held)
    }
}

fn id_of(entry: &Entry) -> &str {
    entry.key.strip_prefix(PREFIX).unwrap_or(&entry.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes() {
        let agent = Wish { kind: "agent", ..Wish::default() };
        let operator = Wish { kind: "operator", role: "deployer", ..Wish::default() };
        let day = 24 * 3600 * 1000;
        for (wish, right) in [
            (agent, Ok(Guest::Agent)),
            (Wish { kind: "edge", name: "lb-01", ..agent }, Ok(Guest::Edge)),
            (Wish { kind: "controller", ..agent }, Ok(Guest::Controller)),
            (operator, Ok(Guest::Operator { role: Role::Deployer, env: None })),
            (
                Wish { env: "prod", ..operator },
                Ok(Guest::Operator { role: Role::Deployer, env: Some("prod".into()) }),
            ),
            (Wish { uses: USES_MAX, ..agent }, Ok(Guest::Agent)),
            (Wish { kind: "", ..agent }, Err("`` is not what a token can be for")),
            (Wish { kind: "node", ..agent }, Err("`node` is not what a token can be for")),
            (Wish { role: "", ..operator }, Err("needs a role")),
            (Wish { role: "root", ..operator }, Err("`root` is not a role")),
            (Wish { role: "admin", ..agent }, Err("a role belongs to tokens for operators")),
            (Wish { env: "prod", ..agent }, Err("an environment belongs")),
            (Wish { env: "Prod", ..operator }, Err("`Prod` is not an environment's name")),
            (Wish { name: "Web", ..agent }, Err("`Web` is not a name")),
            (Wish { ttl_ms: 31 * day, ..agent }, Err("lives for 720h at most, and 744h was")),
            (Wish { uses: USES_MAX + 1, ..agent }, Err("used 10000 times at most")),
            (Wish { name: "web-01", uses: 2, ..agent }, Err("can be used once only")),
        ] {
            match (Invitation::try_from(wish), right) {
                (Ok(got), Ok(right)) => assert_eq!(got.guest, right, "{wish:?}"),
                (Err(got), Err(right)) => {
                    assert!(got.to_string().contains(right), "{wish:?}: {got}");
                    assert_eq!(ErrorView::from(got).kind, "usage");
                }
                (got, right) => panic!("{wish:?}: {got:?} instead of {right:?}"),
            }
        }
        let made = Invitation::try_from(agent).unwrap();
        assert_eq!((made.ttl, made.uses), (TTL_DEFAULT, 1), "what was not given");
    }
}
