//! How this host becomes a member of the fleet, once, by a token.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rota_identity::{
    BadToken, FileError, Identity, IdentityFiles, KeyError, Kind, Leaf, PrivateKey, TlsError,
    Token, pinned_client_config,
};
use rota_proto::agent::EnrolRequest;
use rota_proto::agent::enrolment_client::EnrolmentClient;
use tonic::Code;
use tracing::{info, warn};

use crate::backoff::{Backoff, chance};
use crate::config::Config;
use crate::dial::{NoConnection, dial};
use crate::own::{Own, OwnError};

/// With these words a controller turns away who shows a certificate that counts no more.
pub const REVOKED: &str = "was revoked";

/// Why this host has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Neither an identity nor an invitation.
    #[error(
        "{} holds no identity yet, and no token was given: make one with \
         `rota token create --for {word} --name {name}` and start once with `--token`",
        .place.display()
    )]
    NoToken { place: PathBuf, word: &'static str, name: String },
    /// The token itself.
    #[error("`--token` cannot be used")]
    Token(#[from] BadToken),
    /// The identity is another's.
    #[error(
        "{} holds the identity of {found}, but this agent was told to be {wanted}: use its own \
         `--data` folder, or the name that it joined with",
        .place.display()
    )]
    SomebodyElse { place: PathBuf, found: Identity, wanted: Identity },
    /// It is too late for a renewal.
    #[error(
        "the certificate in {} has ended: join again with `rota token create --for {word} \
         --name {name}` and `--token`",
        .place.display()
    )]
    Ended { place: PathBuf, word: &'static str, name: String },
    /// No controller of the list may be asked.
    #[error("no controller of the list is one of ours; the last: {0}")]
    NotOurs(NoConnection),
    /// A controller said no.
    #[error("the controller at {address} refused this agent: {message}")]
    Refused { address: String, message: String },
    /// Reading or writing it.
    #[error("cannot keep this agent's identity")]
    Files(#[from] FileError),
    /// The key.
    #[error("cannot make this agent's key")]
    Key(#[from] KeyError),
    /// What came is no identity.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// The pinned connection.
    #[error("cannot prepare the first connection")]
    Tls(#[from] TlsError),
}

/// Where the identity lies.
pub fn place(data: &Path) -> PathBuf {
    data.join("identity")
}

/// The identity of this host: the one on disk, or a new one for the token.
pub async fn identity(config: &Config) -> Result<Own, EnrolError> {
    let kind = if config.edges.is_empty() { Kind::Node } else { Kind::Edge };
    let wanted = Identity::new(kind, &config.name).map_err(OwnError::from)?;
    let place = place(&config.data);
    if let Some(files) = IdentityFiles::load(&place)? {
        let own = Own::new(&files)?;
        if *own.identity() != wanted {
            let found = own.identity().clone();
            return Err(EnrolError::SomebodyElse { place, found, wanted });
        }
        if own.leaf().not_after > SystemTime::now() {
            return Ok(own);
        }
        if config.token.is_none() {
            let (word, name) = (kind.token_word(), config.name.clone());
            return Err(EnrolError::Ended { place, word, name });
        }
    }
    let Some(text) = &config.token else {
        let (word, name) = (kind.token_word(), config.name.clone());
        return Err(EnrolError::NoToken { place, word, name });
    };
    let token = Token::parse_for(text, kind)?;
    let files = join(&config.controllers, &token, &wanted).await?;
    let own = Own::new(&files)?;
    files.save(&place)?;
    info!("joined as {wanted}; the token is no longer needed");
    Ok(own)
}

/// A new certificate for who was removed and is invited again; everything else of it stays as it is.
pub async fn again(
    data: &Path,
    controllers: &[String],
    token: &str,
    own: &Own,
) -> Result<(), EnrolError> {
    let token = Token::parse_for(token, own.identity().kind())?;
    let files = join(controllers, &token, own.identity()).await?;
    // Kept before it is used.
    files.save(&place(data))?;
    own.renewed(&files)?;
    Ok(())
}

/// Asks the controllers in turn, until one answers. While none is there we wait: at a first
/// start of a whole site, agents are often up before their controllers.
async fn join(
    controllers: &[String],
    token: &Token,
    wanted: &Identity,
) -> Result<IdentityFiles, EnrolError> {
    let key = PrivateKey::generate()?;
    let request = EnrolRequest {
        token: token.reveal(),
        csr_pem: key.request()?,
        kind: wanted.kind().as_str().to_owned(),
        name: wanted.name().to_owned(),
    };
    let mut backoff = Backoff::default();
    loop {
        let mut not_ours = None;
        let mut worth_waiting = false;
        for address in controllers {
            match ask(address, token, &request).await {
                Ok(reply) => {
                    let ca = reply.ca_pem;
                    let files =
                        IdentityFiles { key: key.to_pem(), cert: reply.certificate_pem, ca };
                    check_holder(&files, wanted)?;
                    return Ok(files);
                }
                Err(Asked::NotOurs(why)) => not_ours = Some(why),
                Err(Asked::Later(why)) => {
                    worth_waiting = true;
                    warn!("cannot join by {address} yet: {why}");
                }
                Err(Asked::Refused(error)) => return Err(error),
            }
        }
        if let (Some(why), false) = (not_ours, worth_waiting) {
            return Err(EnrolError::NotOurs(why));
        }
        tokio::time::sleep(backoff.after_failure(chance())).await;
    }
}

fn check_holder(files: &IdentityFiles, wanted: &Identity) -> Result<(), EnrolError> {
    let credentials = files.credentials()?;
    let leaf = Leaf::parse(credentials.leaf()?).map_err(OwnError::from)?;
    if leaf.identity == *wanted {
        return Ok(());
    }
    let wanted = wanted.clone();
    Err(OwnError::SomebodyElse { found: leaf.identity, wanted }.into())
}

/// Why a controller did not give a certificate.
enum Asked {
    /// It is not there, or busy.
    Later(String),
    /// Not the token's CA.
    NotOurs(NoConnection),
    /// It said no, and would again.
    Refused(EnrolError),
}

async fn ask(
    address: &str,
    token: &Token,
    request: &EnrolRequest,
) -> Result<rota_proto::agent::EnrolReply, Asked> {
    let config = pinned_client_config(token.ca).map_err(|error| Asked::Refused(error.into()))?;
    let dialled = dial(address, config).await.map_err(|why| match why.is_final() {
        true => Asked::NotOurs(why),
        false => Asked::Later(why.to_string()),
    })?;
    let reply = EnrolmentClient::new(dialled.channel).enrol(request.clone()).await;
    reply.map(tonic::Response::into_inner).map_err(|status| match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::Unimplemented => {
            let (address, message) = (address.to_owned(), status.message().to_owned());
            Asked::Refused(EnrolError::Refused { address, message })
        }
        _ => Asked::Later(status.message().to_owned()),
    })
}
