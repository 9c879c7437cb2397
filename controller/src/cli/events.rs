//! `rota events` and `rota audit`: what happened, and who asked for it.

use clap::Args;
use rota_rollout::names::{AppName, EnvName};
use serde::Deserialize;

use super::desk::{self, Desk};
use super::follow::{self, Feed};
use super::outcome::{Exit, Failure};
use super::render;
use super::talk::{self, Format};
use crate::view::EventView;

/// Show what happened; with -f go on showing it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota events\n  rota events -f --app shop --env prod\n  \
    rota events -f -o json")]
pub struct EventsArgs {
    /// Go on with new events until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only about this app
    #[arg(long)]
    app: Option<AppName>,
    /// Only in this environment
    #[arg(long)]
    env: Option<EnvName>,
}

/// Show who changed what, and why
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota audit\n  rota audit -o json")]
pub struct AuditArgs {}

/// Carries out `rota audit`.
pub async fn audit(desk: &Desk, _: &AuditArgs) -> Result<Exit, Failure> {
    desk.list("audit", &render::AUDIT).await
}

/// A document of an event log: one event, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Events {
    /// Several.
    Many(Vec<EventView>),
    /// One.
    One(Box<EventView>),
}

impl Events {
    /// All of them.
    pub fn list(self) -> Vec<EventView> {
        match self {
            Self::Many(events) => events,
            Self::One(event) => vec![*event],
        }
    }
}

/// Carries out `rota events`.
pub async fn events(desk: &Desk, args: EventsArgs) -> Result<Exit, Failure> {
    let path = desk::only("events", args.app.as_ref(), args.env.as_ref());
    let json = desk.client()?.read(&path).await?;
    if !args.follow {
        let lines = |events: &Vec<EventView>, page: &talk::Page| {
            events.iter().map(|event| render::event(event, page)).collect::<String>()
        };
        desk.talk.document(&json, lines)?;
        return Ok(Exit::Done);
    }
    let after = print(desk, &json)?;
    go_on(desk, path, after).await
}

/// Prints events as they come: a line each, with `-o json` a JSON line each.
async fn go_on(desk: &Desk, path: String, after: u64) -> Result<Exit, Failure> {
    let mut pressed = follow::ctrl_c()?;
    let mut feed = follow::feed(desk.client()?, path, after, newest);
    loop {
        tokio::select! {
            _ = pressed.recv() => return Ok(Exit::Done),
            fed = feed.recv() => match fed {
                Some(Feed::Document(json)) => {
                    print(desk, &json)?;
                }
                Some(Feed::Lost(cause)) => desk.talk.detail(&format!("connection lost: {cause}")),
                Some(Feed::Over(failure)) => return Err(failure),
                None => return Err(Failure::new("internal", "the stream's task ended early")),
            },
        }
    }
}

/// Prints the events of a document; the number of the last one.
fn print(desk: &Desk, json: &str) -> Result<u64, Failure> {
    let events = talk::parse::<Events>(json)?.list();
    for event in &events {
        match desk.talk.format {
            Format::Table => desk.talk.screen(&render::event(event, &desk.talk.page()))?,
            Format::Json => {
                let line = serde_json::to_string(event)
                    .map_err(|error| Failure::internal("cannot print an event", &error))?;
                desk.talk.data(&format!("{line}\n"))?;
            }
        }
    }
    Ok(events.iter().map(|event| event.seq).max().unwrap_or(0))
}

/// The number of the last event of a document; 0 when it has none.
pub fn newest(json: &str) -> u64 {
    let events = serde_json::from_str::<Events>(json).map(Events::list).unwrap_or_default();
    events.iter().map(|event| event.seq).max().unwrap_or(0)
}
