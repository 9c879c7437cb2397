//! What operators want of controllers: out of service, back, or forgotten.

use rota_proto::operator::{ControllerVerb, Document};
use tonic::{Response, Status};

use super::asked::controller;
use super::{Done, ask, write_down};
use crate::access::controllers::RemoveError;
use crate::access::{Action, Caller, now};
use crate::engine::{Answer, applied};
use crate::serve::operators::{OperatorService, document};
use crate::view::ErrorView;

/// Carries one out.
pub(super) async fn apply(
    service: &OperatorService,
    caller: &Caller,
    verb: ControllerVerb,
) -> Result<Response<Document>, Status> {
    let removes = verb.verb == "rm";
    let action = if removes { Action::RemoveController } else { Action::DrainController };
    service.access.permit(caller, action, None, &verb.name).await?;
    let (what, target) = (format!("controller {}", verb.verb), verb.name.clone());
    let answer = match removes {
        true => remove(service, &verb.name, caller.identity.name()).await,
        false => match controller(verb) {
            Ok(wanted) => ask(service, caller, wanted).await,
            Err(error) => Err(error),
        },
    };
    write_down(service, caller, Done { what: &what, target, message: "" }, &answer).await;
    document(answer)
}

async fn remove(service: &OperatorService, name: &str, by: &str) -> Answer {
    if service.api.engine.read().name == name {
        return Err(ErrorView::from(RemoveError::Alive(name.to_owned())));
    }
    let why = format!("controller rm by {by}");
    service.access.remove_controller(name, &why, now()).await.map_err(ErrorView::from)?;
    applied(format!("controller {name} is forgotten and its certificates are revoked"))
}
