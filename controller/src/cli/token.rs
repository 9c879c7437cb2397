//! `rota token`: invitations for agents, edges, controllers and operators.

use clap::{Subcommand, ValueEnum};
use rota_proto::operator::{CreateToken, change};
use rota_rollout::names::{EnvName, NodeName, Span};

use super::args;
use super::desk::{self, Desk};
use super::outcome::{Exit, Failure};
use super::render;
use super::talk::{self, Format};
use super::words;
use crate::view::{NewTokenView, TokenView};

/// Make, list and withdraw join tokens
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it alone goes to stdout, and is never shown again
    #[command(after_help = "Examples:\n  rota token create --for agent\n  \
        rota token create --for agent --uses 20 --ttl 2h\n  \
        rota token create --for operator --role deployer --name alice --env prod\n  \
        rota token create --for controller --name c2")]
    Create(CreateArgs),
    /// List the tokens that can still be used
    #[command(after_help = "Examples:\n  rota token ls\n  rota token ls --all")]
    Ls {
        /// Also those that are used up or expired
        #[arg(long)]
        all: bool,
    },
    /// Withdraw a token
    #[command(after_help = "Examples:\n  rota token rm 3f9a1c")]
    Rm {
        /// Its id, from `rota token ls`
        id: String,
    },
}

/// What `rota token create` is told.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Who may join with it
    #[arg(long = "for", value_enum, value_name = "KIND")]
    kind: TokenKind,
    /// What the operator may do [default for operators: viewer]
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// The only name it may be used for
    #[arg(long)]
    name: Option<NodeName>,
    /// The role only holds in this environment
    #[arg(long, requires = "role")]
    env: Option<EnvName>,
    /// How long it can be used
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = args::some_duration)]
    ttl: Span,
    /// How often it can be used
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TokenKind {
    Agent,
    Edge,
    Controller,
    Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Viewer,
    Deployer,
    Admin,
}

/// Carries out `rota token`.
pub async fn run(desk: &Desk, command: TokenCommand) -> Result<Exit, Failure> {
    match command {
        TokenCommand::Create(args) => create(desk, args).await,
        TokenCommand::Ls { all } => {
            let now = talk::now();
            let keep = |token: &TokenView| {
                let ends = words::moment(&token.expires_at);
                all || (token.uses_left > 0 && ends.is_none_or(|ends| ends > now))
            };
            desk.list_some("tokens", &render::TOKENS, keep).await
        }
        TokenCommand::Rm { id } => {
            let done = format!("token {id} cannot be used any more");
            desk.apply(change::Change::RemoveToken(id), &done).await
        }
    }
}

/// The word before a kind of token.
fn article(kind: &str) -> &'static str {
    if kind == "controller" { "a" } else { "an" }
}

async fn create(desk: &Desk, args: CreateArgs) -> Result<Exit, Failure> {
    let word = |value: &dyn ToString| value.to_string();
    let kind = match args.kind {
        TokenKind::Agent => "agent",
        TokenKind::Edge => "edge",
        TokenKind::Controller => "controller",
        TokenKind::Operator => "operator",
    };
    let role = match (args.kind, args.role) {
        (TokenKind::Operator, Some(Role::Deployer)) => "deployer",
        (TokenKind::Operator, Some(Role::Admin)) => "admin",
        (TokenKind::Operator, Some(Role::Viewer) | None) => "viewer",
        (TokenKind::Agent | TokenKind::Edge | TokenKind::Controller, None) => "",
        (TokenKind::Agent | TokenKind::Edge | TokenKind::Controller, Some(_)) => {
            let article = article(kind);
            let message =
                format!("--role is for operators, and this token is for {article} {kind}");
            return Err(Failure::usage(message).hint("leave --role out"));
        }
    };
    let request = CreateToken {
        kind: kind.to_owned(),
        role: role.to_owned(),
        name: args.name.as_ref().map_or(String::new(), |name| word(name)),
        ttl_ms: args.ttl.0,
        uses: args.uses,
        env: args.env.as_ref().map_or(String::new(), |env| word(env)),
    };
    let change = desk::change(change::Change::CreateToken(request));
    let json = desk.client()?.apply(change).await?;
    if desk.talk.format == Format::Json {
        desk.talk.data(&talk::pretty(&json)?)?;
        return Ok(Exit::Done);
    }
    let made: NewTokenView = talk::parse(&json)?;
    let role = if role.is_empty() { String::new() } else { format!(" ({role})") };
    let uses = words::count(args.uses, "use");
    let until = words::date(&made.expires_at);
    let id = &made.id;
    let article = article(kind);
    desk.talk.say(&format!("token {id} for {article} {kind}{role}, {uses}, until {until}"));
    desk.talk.say("keep it secret; it is not shown again");
    desk.talk.data(&format!("{}\n", made.token))?;
    Ok(Exit::Done)
}
