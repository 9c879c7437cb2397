//! How another controller joins: by its token it is let in at a running one, and takes the CA out of the store.
//!
//! The token is not spent before everything else fits: the store is that of the token, and knows it. Let in once, the
//! same token opens the CA that was sealed for it, until that was taken: so whatever breaks off is done again.

use std::time::Duration;

use rota_identity::{BadToken, Kind, PrivateKey, Token, pinned_client_config};
use rota_proto::agent::EnrolRequest;
use rota_proto::agent::enrolment_client::EnrolmentClient;
use tokio::time::{Instant, sleep, timeout};

use super::installation::{Door, EntryError, Installation};
use super::share::{self, ShareError};
use super::{CaError, tokens};
use crate::access::Ca;
use crate::client::{CONNECT_TIMEOUT, answered, broken};
use crate::errors::Sort;
use crate::members::keys as members;
use crate::store::StoreError;
use crate::view::ErrorView;

/// How long a controller that is not there is waited for: both may be starting. Then systemd, or a person, tries again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries.
const RETRY: Duration = Duration::from_secs(1);

/// For the answer: one transaction.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a controller joins with.
#[derive(Debug, Clone, Copy)]
pub struct Invited<'a> {
    /// `--join`: HOST:PORT of a running controller.
    pub address: &'a str,
    /// `--token`
    pub token: &'a str,
}

/// Why a controller did not join.
#[derive(Debug, thiserror::Error)]
pub enum NotJoined {
    /// The text is no token for a controller.
    #[error("--token: {0}")]
    Token(#[from] BadToken),
    /// Made by another installation than the store's.
    #[error(
        "the token is of another installation than the store: its CA has SHA-256 {token}, the \
         store's has {store}"
    )]
    AnotherInstallation { token: String, store: String },
    /// Not in this store.
    #[error(
        "the store knows no token {id}: it was removed, or this is not the store of the controller \
         at {address}"
    )]
    UnknownToken { id: String, address: String },
    /// Somebody has the name now.
    #[error("another controller named {0} is running")]
    Alive(String),
    /// Nobody answers.
    #[error("cannot join by the controller at {address}: {why}")]
    Unreachable { address: String, why: String },
    /// It said no.
    #[error("the controller at {address} does not let {name} in: {message}")]
    Refused { address: String, name: String, message: String },
    /// The key, or the CA's.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The CA is not there for it.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<&NotJoined> for ErrorView {
    fn from(error: &NotJoined) -> Self {
        let again = "make another one: `rota token create --for controller --name NAME`";
        let (sort, hint) = match error {
            NotJoined::Store(error) => return error.clone().into(),
            NotJoined::Token(_) => (Sort::Usage, again),
            NotJoined::AnotherInstallation { .. } | NotJoined::UnknownToken { .. } => {
                (Sort::Refused, "check --store and its prefix; the token was not used")
            }
            NotJoined::Alive(_) => {
                (Sort::Refused, "give this one another --name; the token was not used")
            }
            NotJoined::Unreachable { .. } => {
                (Sort::Unreachable, "the same command, with the same token, tries again")
            }
            NotJoined::Refused { .. } | NotJoined::Share(ShareError::Missing(_)) => {
                (Sort::Refused, again)
            }
            NotJoined::Ca(_) | NotJoined::Share(_) => (Sort::Refused, ""),
        };
        sort.error(crate::errors::chain(error), hint)
    }
}

/// The CA of the installation, kept in the data directory.
pub(super) async fn join(
    door: &Door<'_>,
    invited: &Invited<'_>,
    record: &Installation,
) -> Result<Ca, EntryError> {
    let token = Token::parse_for(invited.token, Kind::Controller).map_err(NotJoined::from)?;
    if token.ca.to_string() != record.ca {
        let (token, store) = (token.ca.to_string(), record.ca.clone());
        return Err(NotJoined::AnotherInstallation { token, store }.into());
    }
    if door.store.get(&members::member(door.name)).await?.is_some() {
        return Err(NotJoined::Alive(door.name.to_owned()).into());
    }
    if !share::is_for(door.store, &token, door.name).await? {
        if door.store.get(&tokens::key(&token.id)).await?.is_none() {
            let (id, address) = (token.id, invited.address.to_owned());
            return Err(NotJoined::UnknownToken { id, address }.into());
        }
        enrol(door.name, invited.address, &token).await?;
    }
    let identity = door.dir.join("identity");
    let ca = share::take(door.store, &token, door.name, &identity).await;
    let ca = ca.map_err(NotJoined::from)?;
    tracing::info!("joined as controller {}; the token is no longer needed", door.name);
    Ok(ca)
}

/// Is let in at a running controller, whom the token's fingerprint tells from everybody else. The certificate that
/// comes back is not needed: with the CA, a controller makes its own.
async fn enrol(name: &str, address: &str, token: &Token) -> Result<(), NotJoined> {
    let key = PrivateKey::generate().map_err(CaError::from)?;
    let request = EnrolRequest {
        token: token.reveal(),
        csr_pem: key.request().map_err(CaError::from)?,
        kind: Kind::Controller.as_str().to_owned(),
        name: name.to_owned(),
    };
    let begun = Instant::now();
    loop {
        let why = match ask(address, token, &request).await? {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if begun.elapsed() > PATIENCE {
            return Err(NotJoined::Unreachable { address: address.to_owned(), why });
        }
        tracing::warn!("cannot join by {address} yet: {why}");
        sleep(RETRY).await;
    }
}

/// The inner error passes: nobody answered.
async fn ask(
    address: &str,
    token: &Token,
    request: &EnrolRequest,
) -> Result<Result<(), String>, NotJoined> {
    let refused = |message: String| NotJoined::Refused {
        address: address.to_owned(),
        name: request.name.clone(),
        message,
    };
    let config = pinned_client_config(token.ca).map_err(|error| refused(error.to_string()))?;
    let channel = match timeout(CONNECT_TIMEOUT, rota_identity::connect(address, config)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => {
            return Ok(Err(rota_identity::reason(&error).unwrap_or_else(|| error.to_string())));
        }
        Err(_) => return Ok(Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    };
    let mut client = EnrolmentClient::new(channel);
    match timeout(CALL_TIMEOUT, client.enrol(request.clone())).await {
        Ok(Ok(_)) => Ok(Ok(())),
        Ok(Err(status)) => match answered(&status) {
            // Its store is away; it may be back in a moment.
            Some(error) if error.kind == Sort::Store.as_str() => Ok(Err(error.message)),
            Some(error) => Err(refused(error.message)),
            None => Ok(Err(broken(&status))),
        },
        Err(_) => Ok(Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}
