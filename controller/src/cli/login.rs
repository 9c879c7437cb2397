//! `rota login`: exchanges a token for an operator's certificate, and keeps it as a context.

use clap::Args;
use rota_identity::{Kind, PrivateKey, Token, pinned_client_config};
use rota_proto::agent::enrolment_client::EnrolmentClient;
use rota_proto::agent::{EnrolReply, EnrolRequest};
use rota_rollout::names::NodeName;
use tokio::time::timeout;
use tonic::Request;

use super::desk::{self, Desk};
use super::outcome::{Exit, Failure, chain};
use super::talk;
use crate::client::{CONNECT_TIMEOUT, Client, answered, broken};
use crate::context::{self, Context, Contexts, is_file};
use crate::serve_args::host_port;
use crate::view::ControllerView;

/// Make an operator's certificate and a context of it
///
/// The key is made here and never leaves this machine. The token carries the fingerprint of the
/// CA, so that the first connection is authenticated too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota login c1.example.net:7400 --token rota-operator-...\n  \
    rota login 10.0.0.5:7400 --token rota-operator-... --context staging --name alice\n\n\
    The token comes from `rota token create --for operator --role deployer`; \
    ROTA_TOKEN keeps it out of `ps`.")]
pub struct LoginArgs {
    /// Any controller
    #[arg(value_name = "HOST:PORT", value_parser = host_port)]
    address: String,
    /// The token
    #[arg(long, env = "ROTA_TOKEN", hide_env_values = true)]
    token: String,
    /// Your name, when the token is not bound to one; without it you are called after the token
    #[arg(long)]
    name: Option<NodeName>,
}

/// What the new context is called when nobody says.
const CONTEXT_DEFAULT: &str = "default";

/// Carries out `rota login`.
pub async fn run(desk: &Desk, args: LoginArgs) -> Result<Exit, Failure> {
    let context_name = name_of_new(desk)?;
    let path = desk::default_contexts()?;
    // Read before the token is spent: a file that cannot be used must not cost it.
    Contexts::load_or_empty(&path).map_err(|error| Failure::usage(chain(&error)))?;
    let key = PrivateKey::generate()
        .map_err(|error| Failure::internal("cannot make a private key", &error))?;
    let reply = enrol(&args, &key).await?;
    let context = Context {
        name: context_name.to_owned(),
        controllers: vec![args.address.clone()],
        ca: reply.ca_pem,
        cert: reply.certificate_pem,
        key: key.to_pem(),
    };
    let directory = controllers(desk, &context).await;
    let context = Context { controllers: directory.unwrap_or(vec![args.address]), ..context };
    context::add(&path, context)
        .map_err(|error| Failure::internal("the certificate is made, but not kept", &error))?;
    let (name, file) = (&reply.name, path.display());
    desk.talk.say(&format!("you are {name}; context {context_name} is in {file} and current"));
    if let Some(other) = desk.context_name().filter(|other| *other != context_name) {
        desk.talk.say(&format!(
            "but ROTA_CONTEXT names {other}, which goes before it: `unset ROTA_CONTEXT`, \
             or `--context {context_name}` with each command"
        ));
    }
    Ok(Exit::Done)
}

/// `--context` says what the new context is called. ROTA_CONTEXT says which one to use: where that is a file, it is no
/// name for a new one.
fn name_of_new(desk: &Desk) -> Result<&str, Failure> {
    match (desk.context_asked(), desk.context_name()) {
        (Some(file), _) if is_file(file) => {
            let message = format!("--context {file}: `rota login` takes a name, not a file");
            Err(Failure::usage(message).hint("for example `--context staging`"))
        }
        (None, Some(file)) if is_file(file) => Ok(CONTEXT_DEFAULT),
        (_, name) => Ok(name.unwrap_or(CONTEXT_DEFAULT)),
    }
}

async fn enrol(args: &LoginArgs, key: &PrivateKey) -> Result<EnrolReply, Failure> {
    let address = &args.address;
    let token = Token::parse_for(&args.token, Kind::Operator)
        .map_err(|error| Failure::usage(format!("--token: {}", chain(&error))))?;
    let internal = |error: &dyn std::error::Error| Failure::internal("cannot log in", error);
    let config = pinned_client_config(token.ca).map_err(|error| internal(&error))?;
    let csr_pem = key.request().map_err(|error| internal(&error))?;
    let unreachable = |cause: String| {
        Failure::new("unreachable", format!("no controller could be reached at {address}"))
            .stands([cause, "the token was not used".to_owned()])
    };
    let dialled = timeout(CONNECT_TIMEOUT, rota_identity::connect(address, config)).await;
    let channel = match dialled {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => {
            let cause = rota_identity::reason(&error).unwrap_or_else(|| chain(&error));
            return Err(unreachable(cause));
        }
        Err(_) => {
            let limit = CONNECT_TIMEOUT.as_secs();
            return Err(unreachable(format!("no answer within {limit} s")));
        }
    };
    let request = EnrolRequest {
        token: token.reveal(),
        csr_pem,
        kind: Kind::Operator.token_word().to_owned(),
        name: args.name.as_ref().map_or(String::new(), ToString::to_string),
    };
    match EnrolmentClient::new(channel).enrol(Request::new(request)).await {
        Ok(reply) => Ok(reply.into_inner()),
        Err(status) => Err(match answered(&status) {
            Some(error) => error.into(),
            None => Failure::new("unreachable", format!("{address}: {}", broken(&status)))
                .hint("whether the token was used is not known: ask for another if it fails"),
        }),
    }
}

/// The addresses of all controllers. A new identity should work at once; if it does not, the one
/// address that we have will do, and the next command says what is wrong.
async fn controllers(desk: &Desk, context: &Context) -> Option<Vec<String>> {
    let config = context.client_config().ok()?;
    let mut client = Client::new(context.controllers.clone(), config, 0);
    let all = match client.read("controllers").await {
        Ok(json) => talk::parse::<Vec<ControllerView>>(&json),
        Err(error) => Err(error.into()),
    };
    match all {
        Ok(all) => {
            let known = all.into_iter().map(|view| view.address).filter(|a| !a.is_empty());
            Some(known.collect::<Vec<_>>()).filter(|addresses| !addresses.is_empty())
        }
        Err(failure) => {
            desk.talk.say(&format!("cannot ask for the other controllers: {}", failure.message));
            None
        }
    }
}
