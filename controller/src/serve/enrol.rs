//! Enrolment: the only service for those who have no certificate yet.

use std::net::SocketAddr;
use std::sync::Arc;

use rota_identity::TRUST_DOMAIN;
use rota_proto::agent::enrolment_server::Enrolment;
use rota_proto::agent::{EnrolReply, EnrolRequest};
use rota_proto::operator::CreateToken;
use tonic::{Request, Response, Status};

use crate::access::audit::Deed;
use crate::access::tokens::{TokenError, Wish};
use crate::access::{Access, Ask, EnrolError, Invitation, Issued, now, peer_text};
use crate::errors::{Sort, status, unauthenticated};
use crate::view::ErrorView;

/// Lets in whoever has a good token.
pub struct Enrol {
    access: Arc<Access>,
}

impl Enrol {
    /// Over the access of this controller.
    pub fn new(access: Arc<Access>) -> Self {
        Self { access }
    }
}

#[tonic::async_trait]
impl Enrolment for Enrol {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let peer = request.remote_addr();
        let asked = request.into_inner();
        let ask = Ask {
            token: &asked.token,
            kind: &asked.kind,
            name: &asked.name,
            request_pem: &asked.csr_pem,
        };
        match self.access.enrol(&ask, now()).await {
            Ok(enrolled) => {
                let who = enrolled.issued.identity.to_string();
                self.write_down(&ask, peer, Ok(&who)).await;
                let mut reply = reply(&self.access, enrolled.issued);
                reply.environment = enrolled.env;
                Ok(Response::new(reply))
            }
            Err(error) => {
                let view = ErrorView::from(&error);
                self.write_down(&ask, peer, Err(&view.message)).await;
                Err(refusal(&error, view))
            }
        }
    }
}

impl Enrol {
    /// Every attempt is recorded; the token is not, beyond what it is for.
    async fn write_down(&self, ask: &Ask<'_>, peer: Option<SocketAddr>, done: Result<&str, &str>) {
        let peer = peer_text(peer);
        let target = format!("{} {}", ask.kind, ask.name);
        let deed = Deed {
            who: done.unwrap_or("-"),
            peer: &peer,
            what: "enrol",
            target: done.unwrap_or(target.trim_end()),
            message: "",
            result: done.map(|_| ()),
        };
        let audit = self.access.audit();
        let written = match done {
            Ok(_) => audit.record(&deed, now()).await.map(|_| ()),
            Err(_) => audit.record_stranger(&deed, now()).await,
        };
        if let Err(error) = written {
            tracing::error!(%error, %peer, "cannot write an enrolment to the audit log");
        }
    }
}

/// What goes back with a new certificate, from an enrolment or a renewal.
pub fn reply(access: &Access, issued: Issued) -> EnrolReply {
    EnrolReply {
        certificate_pem: issued.certificate_pem,
        ca_pem: access.ca().roots_pem().to_owned(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        name: issued.identity.name().to_owned(),
        environment: String::new(),
    }
}

fn refusal(error: &EnrolError, view: ErrorView) -> Status {
    match error {
        EnrolError::Store(_) | EnrolError::Ca(_) | EnrolError::BadIdentity(_) => status(view),
        EnrolError::NoName => status(view),
        EnrolError::BadToken(_)
        | EnrolError::Unknown
        | EnrolError::Expired(_)
        | EnrolError::Spent
        | EnrolError::WrongKind { .. }
        | EnrolError::WrongName { .. }
        | EnrolError::NameTaken(_) => unauthenticated(view),
    }
}

/// A token as it was asked for over the wire, checked.
pub fn invitation(asked: &CreateToken) -> Result<Invitation, TokenError> {
    Invitation::try_from(Wish {
        kind: &asked.kind,
        role: &asked.role,
        name: &asked.name,
        env: &asked.env,
        ttl_ms: asked.ttl_ms,
        uses: asked.uses,
    })
}

/// The other half of `Fleet.Renew`: the same identity, a new certificate.
pub async fn renew<T>(
    access: &Access,
    request: &Request<T>,
    csr_pem: &str,
) -> Result<EnrolReply, Status> {
    let caller = access.renewing(request).await?;
    let renewed = access.renew(&caller, csr_pem, now()).await;
    let error = match renewed {
        Ok(issued) => return Ok(reply(access, issued)),
        Err(error) => ErrorView::from(error),
    };
    let target = caller.identity.to_string();
    access.write_down(&caller, "renew", &target, Err(&error.message)).await;
    Err(if error.kind == Sort::NotPermitted.as_str() {
        unauthenticated(error)
    } else {
        status(error)
    })
}
