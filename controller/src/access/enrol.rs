//! Letting somebody in: a token becomes a certificate, once.
//!
//! The token's use, the name and (for operators) the role change in one transaction that compares
//! what was judged, so that of two who come with the same single-use token exactly one gets in.
//!
//! A name has one holder. A token for *any* name never takes over a name that is held; a token that
//! was made *for* that name does (a host that was installed anew), and the certificates of the
//! former holder are revoked with it.

use rota_identity::{BadIdentity, BadToken, Identity, Kind, Token};
use rota_rollout::names::{Span, Timestamp};

use super::members::{Certificate, Member, Operator, member_key, operator_key};
use super::record::{decode, encode, system_time};
use super::revoked;
use super::share;
use super::tokens::{self, Guest, TokenRecord};
use super::{Access, CaError, Issued, TRIES_MAX, contended};
use crate::errors::Sort;
use crate::store::{Compare, Entry, Op, Outcome, StoreError, Txn};
use crate::view::ErrorView;

/// So much of a token's id is in the name of an operator who has no other.
const TOKEN_SHOWN: usize = 8;

/// What somebody who wants in has said.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The token's text.
    pub token: &'a str,
    /// `node|edge|controller|operator`.
    pub kind: &'a str,
    /// Empty: the name that the token is bound to.
    pub name: &'a str,
    /// The certificate request.
    pub request_pem: &'a str,
}

/// Who got in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The certificate.
    pub issued: Issued,
    /// The environment of an operator's role; empty: everywhere, or not an operator.
    pub env: String,
}

/// Why somebody did not get in.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The text is no token, or one for something else.
    #[error(transparent)]
    BadToken(#[from] BadToken),
    /// Never made here, removed, or the secret is wrong: a stranger does not learn which.
    #[error(
        "this token is not known here: it was mistyped, removed, or made by another installation"
    )]
    Unknown,
    /// Too late.
    #[error("this token expired {0} ago: make a new one with `rota token create`")]
    Expired(Span),
    /// Used up.
    #[error("this token has been used already: make a new one with `rota token create`")]
    Spent,
    /// The store's record is for something else than the text says.
    #[error(
        "this is a token for {}, but {} is joining",
        .is.with_article(), .wanted.with_article()
    )]
    WrongKind { is: Kind, wanted: Kind },
    /// Bound to another name.
    #[error("this token is for {} `{bound}`, not for `{asked}`", .kind.token_word())]
    WrongName { kind: Kind, bound: String, asked: String },
    /// Neither the token nor the request has a name.
    #[error("this token is for any name, so one must be given (`--name`)")]
    NoName,
    /// Not a kind or a name.
    #[error(transparent)]
    BadIdentity(#[from] BadIdentity),
    /// Somebody has the name.
    #[error(
        "{0} is registered already; if this host was installed anew, join with a token that is \
         bound to the name: `rota token create --for {word} --name {name}`",
        word = .0.kind().token_word(), name = .0.name()
    )]
    NameTaken(Identity),
    /// The request cannot be signed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<&EnrolError> for ErrorView {
    fn from(error: &EnrolError) -> Self {
        match error {
            EnrolError::Store(error) => error.clone().into(),
            EnrolError::Ca(CaError::Request(_))
            | EnrolError::BadIdentity(_)
            | EnrolError::NoName => Sort::Usage.error(error.to_string(), ""),
            EnrolError::Ca(error) => Sort::Internal.error(error.to_string(), ""),
            EnrolError::BadToken(_)
            | EnrolError::Unknown
            | EnrolError::Expired(_)
            | EnrolError::Spent
            | EnrolError::WrongKind { .. }
            | EnrolError::WrongName { .. }
            | EnrolError::NameTaken(_) => Sort::NotPermitted.error(error.to_string(), ""),
        }
    }
}

impl Access {
    /// Exchanges a token for a certificate.
    pub async fn enrol(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Enrolled, EnrolError> {
        let kind: Kind = ask.kind.parse()?;
        let token = Token::parse_for(ask.token, kind)?;
        let key = tokens::key(&token.id);
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES_MAX {
            let entry = self.store.get(&key).await?.ok_or(EnrolError::Unknown)?;
            let record: TokenRecord = decode(&entry)?;
            let identity = judge(&record, &token, ask, now)?;
            let holder = self.store.get(&member_key(&identity)).await?;
            if holder.is_some() && record.name.is_none() {
                return Err(EnrolError::NameTaken(identity));
            }
            let issued = self.ca.issue(ask.request_pem, &identity, system_time(now))?;
            let arrival = Arrival { token: &token, entry, record, holder };
            let (txn, replaced) = self.admission(&arrival, &issued, now)?;
            if let Outcome::Done(_) = self.store.commit(txn).await? {
                self.revoked.learn(&issued.identity, replaced);
                return Ok(Enrolled { issued, env: env_of(&arrival.record.guest) });
            }
        }
        Err(contended(&key).into())
    }

    /// The transaction that lets somebody in, and the certificates that it revokes.
    fn admission(
        &self,
        arrival: &Arrival<'_>,
        issued: &Issued,
        now: Timestamp,
    ) -> Result<(Txn, Vec<String>), EnrolError> {
        let Arrival { token, entry, record, holder } = arrival;
        let identity = &issued.identity;
        let member_key = member_key(identity);
        let mut compares = vec![Compare::Modified(entry.key.clone(), entry.modified)];
        let uses_left = record.uses_left.saturating_sub(1);
        let spent = TokenRecord { uses_left, ..record.clone() };
        let mut ops = vec![Op::put(entry.key.clone(), encode(&spent)?)];
        let mut replaced = Vec::new();
        match holder {
            None => compares.push(Compare::Absent(member_key.clone())),
            Some(holder) => {
                compares.push(Compare::Modified(member_key.clone(), holder.modified));
                let why = format!("{identity} joined anew with token {}", token.id);
                for certificate in decode::<Member>(holder)?.certificates {
                    ops.push(revoked::op(&certificate, identity, &why, now)?);
                    replaced.push(certificate.serial);
                }
            }
        }
        let member = Member {
            certificates: vec![Certificate::of(issued)],
            enrolled: now,
            token: token.id.clone(),
        };
        ops.push(Op::put(member_key, encode(&member)?));
        match &record.guest {
            Guest::Agent | Guest::Edge => {}
            Guest::Controller => ops.push(share::op(&self.ca, token, identity.name(), now)?),
            Guest::Operator { role, env } => {
                let operator = Operator { role: *role, env: env.clone() };
                ops.push(Op::put(operator_key(identity.name()), encode(&operator)?));
            }
        }
        Ok((Txn { compares, ops }, replaced))
    }
}

/// Somebody with a good token, and what the store knows.
struct Arrival<'a> {
    token: &'a Token,
    entry: Entry,
    record: TokenRecord,
    /// Who has the name now.
    holder: Option<Entry>,
}

/// Is this token good for this request, now? Then whose certificate it gives. Whoever does not know
/// the secret learns nothing beyond that.
fn judge(
    record: &TokenRecord,
    token: &Token,
    ask: &Ask<'_>,
    now: Timestamp,
) -> Result<Identity, EnrolError> {
    if !record.is(token) {
        return Err(EnrolError::Unknown);
    }
    let kind = record.guest.kind();
    if kind != token.kind {
        return Err(EnrolError::WrongKind { is: kind, wanted: token.kind });
    }
    if now >= record.expires {
        let whole_seconds = now.since(record.expires).0 / 1000;
        return Err(EnrolError::Expired(Span::seconds(whole_seconds)));
    }
    if record.uses_left == 0 {
        return Err(EnrolError::Spent);
    }
    let unnamed;
    let name = match (&record.name, ask.name) {
        (None, "") if kind == Kind::Operator => {
            unnamed = name_for(token, record.uses_left);
            &unnamed
        }
        (None, "") => return Err(EnrolError::NoName),
        (None, asked) => asked,
        (Some(bound), "") => bound,
        (Some(bound), asked) if bound == asked => bound,
        (Some(bound), asked) => {
            let asked = Identity::new(kind, asked)?.name().to_owned();
            return Err(EnrolError::WrongName { kind, bound: bound.clone(), asked });
        }
    };
    Ok(Identity::new(kind, name)?)
}

/// What an operator is called when nobody gave a name: after the token, and no two alike.
fn name_for(token: &Token, uses_left: u32) -> String {
    let short: String = token.id.chars().take(TOKEN_SHOWN).collect();
    match uses_left {
        0 | 1 => format!("operator-{short}"),
        more => format!("operator-{short}-{more}"),
    }
}

fn env_of(guest: &Guest) -> String {
    match guest {
        Guest::Operator { env, .. } => env.clone().unwrap_or_default(),
        Guest::Agent | Guest::Edge | Guest::Controller => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_identity::Fingerprint;
    use rota_identity::certificate::hex;

    #[test]
    fn tokens_are_judged() {
        let token = Token::generate(Kind::Node, Fingerprint([1; 32])).unwrap();
        let good = TokenRecord {
            hash: hex(&token.secret.hash()),
            guest: Guest::Agent,
            name: None,
            expires: Timestamp(1000),
            uses_left: 1,
            created: Timestamp(0),
            created_by: "operator alice".into(),
        };
        let bound = TokenRecord { name: Some("web-01".into()), ..good.clone() };
        let edge = TokenRecord { guest: Guest::Edge, ..good.clone() };
        let operator = TokenRecord {
            guest: Guest::Operator { role: crate::access::Role::Viewer, env: None },
            uses_left: 3,
            ..good.clone()
        };
        let operators = Token { kind: Kind::Operator, ..token.clone() };
        let ask = Ask { token: "", kind: "operator", name: "", request_pem: "" };
        let called = judge(&operator, &operators, &ask, Timestamp(0)).unwrap();
        assert_eq!(called.name(), format!("operator-{}-3", &token.id[..8]));
        let spent = TokenRecord { uses_left: 0, ..good.clone() };
        let other = TokenRecord { hash: hex(&[0; 32]), ..spent.clone() };
        for (record, name, at, right) in [
            (&good, "web-01", 0, "node web-01"),
            (&good, "web-01", 999, "node web-01"),
            (&bound, "web-01", 0, "node web-01"),
            (&bound, "", 0, "node web-01"),
            (&good, "web-01", 1000, "this token expired 0s ago"),
            (&good, "web-01", 61_000, "this token expired 1m ago"),
            (&spent, "web-01", 0, "this token has been used already"),
            (&edge, "web-01", 0, "a token for an edge, but an agent is joining"),
            (&bound, "web-02", 0, "this token is for agent `web-01`, not for `web-02`"),
            (&good, "", 0, "for any name, so one must be given"),
            (&good, "Web", 0, "`Web` is not a name"),
            (&other, "web-01", 0, "this token is not known here"),
            (&other, "web-01", 5000, "this token is not known here"),
        ] {
            let ask = Ask { token: "", kind: "node", name, request_pem: "" };
            let got = match judge(record, &token, &ask, Timestamp(at)) {
                Ok(identity) => identity.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(got.contains(right), "{name} at {at}: {got}");
        }
    }
}
