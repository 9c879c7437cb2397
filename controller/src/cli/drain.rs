//! `rota node drain` and `undrain`: a node out of traffic for work on its host, and back; with `--wait` until it is so.

use std::time::Duration;

use clap::Args;
use rota_proto::operator::{NodeVerb, change};
use rota_rollout::names::{NodeName, Span};
use tokio::time::{Instant, sleep};

use super::desk::{self, Desk};
use super::outcome::{Exit, Failure};
use super::talk::{self, Format};
use super::{args, words};
use crate::client::Client;
use crate::view::DrainView;

/// Between two looks: people wait for this, and it costs the controller one small read.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What `drain` is told.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The node
    name: NodeName,
    /// Why, for the events and the audit log
    #[arg(short, long, value_name = "WHY", default_value = "", hide_default_value = true)]
    #[arg(value_parser = words::why)]
    message: String,
    /// Although an app would have less capacity than its strategy promises
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What `undrain` is told.
#[derive(Debug, Args)]
pub struct UndrainArgs {
    /// The node
    name: NodeName,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Whether to wait.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Return when it is so; exit code 3 when it is not in time
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = args::some_duration)]
    timeout: Span,
}

/// Takes a node out of traffic.
pub async fn drain(desk: &Desk, args: DrainArgs) -> Result<Exit, Failure> {
    let DrainArgs { name, message, force, wait } = args;
    let verb = NodeVerb {
        name: name.to_string(),
        verb: "drain".to_owned(),
        message,
        force,
        ..NodeVerb::default()
    };
    if !wait.wait {
        let done = format!("{name} is leaving traffic; `rota node inspect {name}` shows it");
        return desk.apply(change::Change::Node(verb), &done).await;
    }
    let mut waiting = Waiting::new(desk, &name, wait.timeout)?;
    loop {
        let view = waiting.look().await?;
        if view.drained {
            break;
        }
        if force || view.refusals.is_empty() {
            let change = desk::change(change::Change::Node(verb.clone()));
            match waiting.client.apply(change).await.map_err(Failure::from) {
                Ok(_) => break,
                // Somebody was faster than we looked: what is in the way now is seen at the next look.
                Err(refused) if refused.kind == "refused" && !force => {}
                Err(failure) => return Err(failure),
            }
        }
        let refusals = view.refusals.join("; ");
        waiting
            .pause(&format!("{name} may not be drained yet: {}", words::clean(&refusals)))
            .await?;
    }
    loop {
        let view = waiting.look().await?;
        if !view.drained {
            return Err(Failure::new("refused", format!("somebody has undrained {name}")));
        }
        if view.out {
            return waiting.done(&view, "is out of traffic, and nothing is in flight there");
        }
        waiting.pause(&under_way(&view)).await?;
    }
}

/// Brings a node back into traffic.
pub async fn undrain(desk: &Desk, args: UndrainArgs) -> Result<Exit, Failure> {
    let UndrainArgs { name, wait } = args;
    let verb =
        NodeVerb { name: name.to_string(), verb: "undrain".to_owned(), ..NodeVerb::default() };
    let done = format!("{name} is returning to traffic");
    if !wait.wait {
        return desk.apply(change::Change::Node(verb), &done).await;
    }
    let mut waiting = Waiting::new(desk, &name, wait.timeout)?;
    waiting.client.apply(desk::change(change::Change::Node(verb))).await?;
    loop {
        let view = waiting.look().await?;
        if view.drained {
            return Err(Failure::new("refused", format!("somebody has drained {name} again")));
        }
        if view.serves {
            return waiting.done(&view, "is in traffic");
        }
        waiting.pause(&under_way(&view)).await?;
    }
}

/// What is not yet as it should be.
fn under_way(view: &DrainView) -> String {
    if view.state == "offline" {
        return format!("{} is offline: it hears of it when it is back", view.node);
    }
    let apps: Vec<String> = view
        .apps
        .iter()
        .map(|app| {
            let in_flight = words::count(app.in_flight, "request");
            match app.traffic.as_str() {
                "in" if app.health == "healthy" => format!("{} is in traffic", app.app),
                _ if app.in_flight > 0 => format!("{}: {in_flight} in flight", app.app),
                traffic => format!("{} is {}, traffic {traffic}", app.app, app.health),
            }
        })
        .collect();
    format!("{}: {}", view.node, words::clean(&apps.join(", ")))
}

struct Waiting<'a> {
    desk: &'a Desk,
    client: Client,
    name: &'a NodeName,
    began: Instant,
    timeout: Span,
    told: String,
}

impl<'a> Waiting<'a> {
    fn new(desk: &'a Desk, name: &'a NodeName, timeout: Span) -> Result<Self, Failure> {
        let (client, began) = (desk.client()?, Instant::now());
        Ok(Self { desk, client, name, began, timeout, told: String::new() })
    }

    async fn look(&mut self) -> Result<DrainView, Failure> {
        let json = self.client.read(&format!("drains/{}", self.name)).await?;
        talk::parse(&json)
    }

    /// Says what it waits for, once, and waits; ends when the time is over.
    async fn pause(&mut self, what: &str) -> Result<(), Failure> {
        if self.began.elapsed() >= Duration::from_millis(self.timeout.0) {
            let message = format!("{} did not get there within {}", self.name, self.timeout);
            let mut failure = Failure::new("held", message)
                .stands([what.to_owned()])
                .hint(format!("`rota node inspect {}` shows how it stands", self.name));
            failure.exit = Exit::Stopped;
            return Err(failure);
        }
        if self.told != what {
            self.desk.talk.say(what);
            what.clone_into(&mut self.told);
        }
        sleep(LOOK_EVERY).await;
        Ok(())
    }

    fn done(&self, view: &DrainView, what: &str) -> Result<Exit, Failure> {
        match self.desk.talk.format {
            Format::Table => self.desk.talk.say(&format!("{} {what}", self.name)),
            Format::Json => {
                let json = serde_json::to_string(view)
                    .map_err(|error| Failure::internal("cannot print the answer", &error))?;
                self.desk.talk.data(&talk::pretty(&json)?)?;
            }
        }
        Ok(Exit::Done)
    }
}
