//! What another controller decides is asked of it on the operator's behalf: he may talk to any of them.
//!
//! The other one is shown this controller's certificate and the operator's name, and looks his role up itself. Where it
//! does not answer, nothing was delivered, and whoever takes over what it ran is asked instead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_identity::{Dialer, Expect, Identity, Kind};
use rota_proto::operator::operator_client::OperatorClient;
use rota_proto::operator::{Change, Document, PushRequest, StartRequest};
use tonic::{Request, Response, Status};

use crate::access::callers::{BEHALF, BEHALF_PEER};
use crate::access::{Access, Caller};
use crate::engine::place::ELSEWHERE;
use crate::engine::{Handle, State};
use crate::errors::{self, Sort, chain, status};

/// So long a controller that should decide may be away: longer than it takes another one to take over.
const TRY_FOR: Duration = Duration::from_secs(15);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// For a connection to another controller.
const DIAL_MAX: Duration = Duration::from_secs(2);

/// For its answer; operators allow this one a little more.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// What an operator wants changed.
#[derive(Clone)]
pub enum Call {
    /// A new release.
    Push(PushRequest),
    /// A new rollout.
    Start(StartRequest),
    /// Anything else.
    Apply(Change),
}

impl Call {
    /// For the audit log, where nobody decided it.
    fn name(&self) -> &'static str {
        match self {
            Self::Push(_) => "release push",
            Self::Start(_) => "rollout start",
            Self::Apply(_) => "change",
        }
    }
}

/// The way to the other controllers.
#[derive(Clone)]
pub struct Forward {
    /// For what was asked in vain.
    pub access: Arc<Access>,
    /// Who they are.
    pub engine: Handle,
    /// This controller's end of the call.
    pub dialer: Dialer,
}

/// What came of asking another controller.
enum Asked {
    /// It answered.
    Answered(Result<Response<Document>, Status>),
    /// It was not reached.
    NotDelivered(String),
    /// The connection broke: it may have done it.
    Broken(String),
}

/// The controller that an answer names as the one to ask.
pub fn elsewhere<T>(answer: &Result<T, Status>) -> Option<String> {
    let view = errors::view(answer.as_ref().err()?);
    (view.kind == ELSEWHERE).then_some(view.message)
}

impl Forward {
    /// Asks here, and where that is not the place, there; again while the place is moving.
    pub async fn placed<F>(
        &self,
        caller: &Caller,
        call: Call,
        here: impl Fn(Call) -> F,
    ) -> Result<Response<Document>, Status>
    where
        F: Future<Output = Result<Response<Document>, Status>>,
    {
        let began = Instant::now();
        self.engine.catch_up().await;
        loop {
            let answer = here(call.clone()).await;
            let Some(name) = elsewhere(&answer) else { return answer };
            if caller.forwarded {
                return answer; // whoever sent it here looks again
            }
            let why = match self.ask(caller, &name, call.clone()).await {
                Asked::Answered(answer) if elsewhere(&answer).is_none() => return answer,
                Asked::Answered(_) => "it is not its to decide any more".to_owned(),
                Asked::NotDelivered(why) => why,
                Asked::Broken(why) => {
                    let message = format!("controller {name} was asked, and did not answer: {why}");
                    let hint = "it may have been done: look before trying again";
                    self.access.write_down(caller, call.name(), &name, Err(&message)).await;
                    return Err(status(Sort::Refused.error(message, hint)));
                }
            };
            if began.elapsed() > TRY_FOR {
                let whose = if name.is_empty() { "no controller" } else { name.as_str() };
                let message = format!("{whose} decides this, and cannot be asked: {why}");
                let hint = "nothing was done; `rota controller ls` shows the controllers";
                self.access.write_down(caller, call.name(), whose, Err(&message)).await;
                return Err(status(Sort::Refused.error(message, hint)));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self, caller: &Caller, name: &str, call: Call) -> Asked {
        let Some(address) = address_of(&self.engine.read(), name) else {
            return Asked::NotDelivered("nobody has taken over yet".to_owned());
        };
        let mut client = match self.dial(name, &address).await {
            Ok(client) => client,
            Err(why) => return Asked::NotDelivered(format!("{address}: {why}")),
        };
        let answered = match call {
            Call::Push(push) => client.push_release(on_behalf(caller, push)).await,
            Call::Start(start) => client.start(on_behalf(caller, start)).await,
            Call::Apply(change) => client.apply(on_behalf(caller, change)).await,
        };
        match answered {
            Err(error) if Sort::of(&errors::view(&error).kind) == Sort::Unreachable => {
                Asked::Broken(errors::view(&error).message)
            }
            answered => Asked::Answered(answered),
        }
    }

    async fn dial(
        &self,
        name: &str,
        address: &str,
    ) -> Result<OperatorClient<tonic::transport::Channel>, String> {
        let identity = Identity::new(Kind::Controller, name).map_err(|bad| bad.to_string())?;
        let config = self.dialer.config(Expect::Exactly(identity));
        let config = config.map_err(|error| chain(&error))?;
        let dialled = tokio::time::timeout(DIAL_MAX, rota_identity::connect(address, config)).await;
        match dialled {
            Ok(Ok(channel)) => Ok(OperatorClient::new(channel)),
            Ok(Err(error)) => Err(rota_identity::reason(&error).unwrap_or_else(|| chain(&error))),
            Err(_) => Err(format!("no answer within {} s", DIAL_MAX.as_secs())),
        }
    }
}

fn address_of(state: &State, name: &str) -> Option<String> {
    let member = state.cluster.as_ref()?.members.get(name)?;
    Some(member.advertise.clone())
}

/// The same request, for him.
fn on_behalf<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_MAX);
    for (key, value) in
        [(BEHALF, caller.identity.name().to_owned()), (BEHALF_PEER, caller.peer_text())]
    {
        // Names are DNS labels and addresses are ASCII: both always fit into a header.
        if let Ok(value) = value.parse() {
            request.metadata_mut().insert(key, value);
        }
    }
    request
}
