//! An operator's certificate is renewed by the way: the first command after two thirds of its life brings a new one.
//! Whoever is away for longer than the last third logs in again.

use std::time::SystemTime;

use rota_identity::{Leaf, PrivateKey};
use rota_proto::agent::RenewRequest;
use rota_proto::agent::fleet_client::FleetClient;
use tokio::time::timeout;

use super::desk::{self, Desk};
use super::outcome::chain;
use crate::client::{CONNECT_TIMEOUT, broken};
use crate::context::{self, Context};

/// Renews what is due. The command is done already: what goes wrong here is only said.
pub async fn when_due(desk: &Desk) {
    let Ok(default) = desk::default_contexts() else { return };
    let Ok(context) = Context::find(desk.context_name(), &default) else { return };
    let leaf = context.credentials().ok().and_then(|own| Leaf::parse(own.leaf().ok()?).ok());
    let Some(leaf) = leaf.filter(|leaf| leaf.renew_at() <= SystemTime::now()) else { return };
    let file = context::file_of(desk.context_name(), &default);
    let renewed = match renew(&context).await {
        Ok(renewed) => context::replace(&file, &renewed).map_err(|error| chain(&error)),
        Err(why) => Err(why),
    };
    match renewed {
        Ok(()) => desk.talk.detail(&format!("the certificate of {} is renewed", leaf.identity)),
        Err(why) => desk.talk.say(&format!(
            "the certificate of context {} could not be renewed: {why}; it is tried again with \
             the next command",
            context.name
        )),
    }
}

/// The same context with a new key and certificate, from any of its controllers.
async fn renew(context: &Context) -> Result<Context, String> {
    let key = PrivateKey::generate().map_err(|error| chain(&error))?;
    let csr_pem = key.request().map_err(|error| chain(&error))?;
    let config = context.client_config().map_err(|error| chain(&error))?;
    let mut last = "no controller is known".to_owned();
    for address in &context.controllers {
        let connected = rota_identity::connect(address, config.clone());
        let channel = match timeout(CONNECT_TIMEOUT, connected).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                last = rota_identity::reason(&error).unwrap_or_else(|| chain(&error));
                continue;
            }
            Err(_) => {
                last = format!("{address} does not answer");
                continue;
            }
        };
        let request = RenewRequest { csr_pem: csr_pem.clone() };
        return match FleetClient::new(channel).renew(request).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                let (ca, cert) = (reply.ca_pem, reply.certificate_pem);
                Ok(Context { ca, cert, key: key.to_pem(), ..context.clone() })
            }
            Err(status) => Err(broken(&status)),
        };
    }
    Err(last)
}
