//! Who is calling: the first thing that every handler asks, and the only way to get a [`Caller`].

use std::net::SocketAddr;

use rota_identity::{Identity, Kind, Leaf};
use tonic::{Request, Status};

use super::audit::Deed;
use super::roles::{Action, Caller, Denied, allow};
use super::{Access, now, peer_text};
use crate::errors::{Sort, status, unauthenticated};
use crate::view::ErrorView;

/// A controller that asks another one for an operator names him here; his role is looked up where he is named.
pub const BEHALF: &str = "rota-operator";

/// Where the operator's call comes from.
pub const BEHALF_PEER: &str = "rota-peer";

fn said<'a, T>(request: &'a Request<T>, key: &str) -> Option<&'a str> {
    request.metadata().get(key)?.to_str().ok()
}

fn on_behalf_of<T>(request: &Request<T>) -> Option<Identity> {
    Identity::new(Kind::Operator, said(request, BEHALF)?).ok()
}

fn peer_on_behalf<T>(request: &Request<T>) -> Option<SocketAddr> {
    said(request, BEHALF_PEER)?.parse().ok()
}

impl Access {
    /// The operator who calls, with his role as of now. Everybody else is refused, and the refusal
    /// recorded.
    pub async fn operator<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let mut caller = self.known(request).await?;
        if caller.identity.kind() == Kind::Controller
            && let Some(operator) = on_behalf_of(request)
        {
            caller = Caller { identity: operator, forwarded: true, ..caller };
            caller.peer = peer_on_behalf(request).or(caller.peer);
        }
        if caller.identity.kind() != Kind::Operator {
            let why = format!("{} is no operator: this service is for operators", caller.identity);
            return Err(self.turn_away(&caller, "operator service", &why).await);
        }
        let found = self.operator_record(caller.identity.name()).await;
        match found.map_err(|error| status(error.into()))? {
            Some(operator) => {
                (caller.role, caller.env) = (Some(operator.role), operator.env);
                Ok(caller)
            }
            None => {
                let why = format!("{} has no role here (any more)", caller.identity);
                Err(self.turn_away(&caller, "operator service", &why).await)
            }
        }
    }

    /// The agent that calls, of a node or an edge. Everybody else is refused, and the refusal
    /// recorded.
    pub async fn agent<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.known(request).await?;
        match caller.identity.kind() {
            Kind::Node | Kind::Edge => Ok(caller),
            Kind::Controller | Kind::Operator => {
                let why = format!("{} is no agent: this service is for agents", caller.identity);
                Err(self.turn_away(&caller, "fleet service", &why).await)
            }
        }
    }

    /// The other controller that calls. Everybody else is refused, and the refusal recorded.
    pub async fn controller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.known(request).await?;
        match caller.identity.kind() {
            Kind::Controller => Ok(caller),
            Kind::Node | Kind::Edge | Kind::Operator => {
                let why = format!(
                    "{} is no controller: this service is for controllers",
                    caller.identity
                );
                Err(self.turn_away(&caller, "copies service", &why).await)
            }
        }
    }

    /// Anybody whose own certificate may be renewed here: agents and operators. A controller renews
    /// its own.
    pub async fn renewing<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.known(request).await?;
        match caller.identity.kind() {
            Kind::Node | Kind::Edge | Kind::Operator => Ok(caller),
            Kind::Controller => {
                let why = format!("{} renews its certificate itself", caller.identity);
                Err(self.turn_away(&caller, "renew", &why).await)
            }
        }
    }

    /// Refuses what the caller may not do, and records the refusal. `target` is for the record.
    pub async fn permit(
        &self,
        caller: &Caller,
        action: Action,
        env: Option<&str>,
        target: &str,
    ) -> Result<(), Status> {
        let Err(denied) = allow(caller, action, env) else { return Ok(()) };
        let error = ErrorView::from(Denied::clone(&denied));
        self.write_down(caller, action.in_words(), target, Err(&error.message)).await;
        Err(status(error))
    }

    /// Records what a caller did (or was refused). A log that cannot be written is told to ours;
    /// the deed is done.
    pub async fn write_down(
        &self,
        caller: &Caller,
        what: &str,
        target: &str,
        result: Result<(), &str>,
    ) {
        let (who, peer) = (caller.identity.to_string(), caller.peer_text());
        let deed = Deed { who: &who, peer: &peer, what, target, message: "", result };
        if let Err(error) = self.audit.record(&deed, now()).await {
            tracing::error!(%error, %who, what, target, "cannot write to the audit log");
        }
    }

    /// Somebody with a certificate of ours that still counts.
    async fn known<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let peer = request.remote_addr();
        let Some(leaf) = request.peer_certs().and_then(|chain| chain.first().cloned()) else {
            let error = Sort::NotPermitted.error(
                "this call needs a certificate, and none was shown",
                "operators: `rota login HOST:PORT --token T`; agents: start with --token once",
            );
            return Err(self.turn_stranger_away(peer, error).await);
        };
        let leaf = match Leaf::parse(&leaf) {
            Ok(leaf) => leaf,
            Err(why) => {
                let error = Sort::NotPermitted.error(why.to_string(), "");
                return Err(self.turn_stranger_away(peer, error).await);
            }
        };
        let caller = Caller {
            identity: leaf.identity,
            role: None,
            env: None,
            forwarded: false,
            peer,
            serial: leaf.serial,
            not_after: leaf.not_after,
        };
        if self.revoked.contains(&caller.serial) {
            let why = format!("the certificate of {} was revoked", caller.identity);
            return Err(self.turn_away(&caller, "call", &why).await);
        }
        if caller.not_after < std::time::SystemTime::now() {
            // The handshake was in time, the connection has outlived the certificate.
            let error = Sort::NotPermitted.error(
                format!("the certificate of {} has ended", caller.identity),
                "renew it, or join again with a new token",
            );
            return Err(unauthenticated(error));
        }
        Ok(caller)
    }

    async fn turn_away(&self, caller: &Caller, what: &str, why: &str) -> Status {
        // Whoever was thrown out goes on calling: it counts as a stranger, so that it cannot fill
        // the log either.
        let (who, peer) = (caller.identity.to_string(), caller.peer_text());
        let deed = Deed { who: &who, peer: &peer, what, target: "", message: "", result: Err(why) };
        self.note_stranger(&deed).await;
        status(Sort::NotPermitted.error(why, "an admin can invite again: `rota token create`"))
    }

    async fn turn_stranger_away(&self, peer: Option<SocketAddr>, error: ErrorView) -> Status {
        let (peer, why) = (peer_text(peer), error.message.as_str());
        let deed =
            Deed { who: "-", peer: &peer, what: "call", target: "", message: "", result: Err(why) };
        self.note_stranger(&deed).await;
        unauthenticated(error)
    }

    async fn note_stranger(&self, deed: &Deed<'_>) {
        if let Err(error) = self.audit.record_stranger(deed, now()).await {
            tracing::error!(%error, what = deed.what, "cannot write to the audit log");
        }
    }
}
