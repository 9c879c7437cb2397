//! Why a session with a controller ended, or never began.

use super::session::WELCOME_TIMEOUT;
use crate::dial::NoConnection;

/// Why a session ended or never began.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    NoConnection(#[from] NoConnection),
    #[error("the same controller, {0}, is connected by another address")]
    Same(String),
    #[error("{}", said(.0))]
    Status(#[from] tonic::Status),
    #[error("the controller did not welcome this agent within {} s", WELCOME_TIMEOUT.as_secs())]
    NotWelcomed,
    #[error("the controller began with something else than a welcome")]
    OutOfOrder,
    #[error("the controller ended the session")]
    Closed,
    #[error("the controller said goodbye: {0}")]
    Goodbye(String),
    #[error("the controller takes no messages any more")]
    Stuck,
    #[error("this agent stops")]
    Stopping,
}

fn said(status: &tonic::Status) -> String {
    rota_identity::reason(status).unwrap_or_else(|| match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    })
}
