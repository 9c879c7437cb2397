//! `rota rollout inspect`: everything that is known of one rollout, for people, programs and change tickets.

mod drawing;
mod nodes;
mod page;
mod story;
mod style;
#[cfg(test)]
mod tests;
mod text;

use clap::{Args, ValueEnum};

use super::args::RolloutRef;
use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::talk::{self, Format};
use crate::view::{EventView, NodeProgress, RolloutView, TraceView};

/// Show everything about a rollout: batches, each node's steps, in-flight curve and output
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota rollout inspect shop/prod/14\n  \
    rota rollout inspect shop/prod -o json\n  \
    rota rollout inspect shop/prod/14 --format html > change-4711.html\n\n\
    The page is one file without scripts: it opens from disk, prints, and fits a change ticket.")]
pub struct InspectArgs {
    /// APP/ENV/REVISION, or APP/ENV for the latest
    id: RolloutRef,
    /// As text, or as one page to attach to a change ticket
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    format: As,
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum As {
    /// As text; with `-o json` as JSON.
    Text,
    /// As one self-contained HTML page.
    Html,
}

/// Everything about one rollout.
#[derive(Debug)]
struct Dossier {
    view: RolloutView,
    traces: Vec<TraceView>,
    events: Vec<EventView>,
}

/// Carries out `rota rollout inspect`.
pub async fn run(desk: &Desk, args: InspectArgs) -> Result<Exit, Failure> {
    let mut client = desk.client()?;
    let json = client.read(&format!("rollouts/{}", args.id)).await?;
    let view: RolloutView = talk::parse(&json)?;
    let traces = client.read(&format!("rollouts/{}/traces", view.id)).await?;
    let mut dossier = Dossier { view, traces: talk::parse(&traces)?, events: Vec::new() };
    let as_json = desk.talk.format == Format::Json;
    if args.format == As::Text && !as_json {
        // It shows no events, of which a large fleet has tens of thousands.
        desk.talk.screen(&text::text(&dossier, &desk.talk.page()))?;
        return Ok(Exit::Done);
    }
    let events = client.read(&format!("rollouts/{}/events", dossier.view.id)).await?;
    match args.format {
        As::Html => {
            dossier.events = talk::parse(&events)?;
            desk.talk.data(&page::page(&dossier, talk::now()))?;
        }
        As::Text => {
            // Spliced, not parsed: a large fleet's traces and events are megabytes.
            let view = json.trim_end();
            let view = view.strip_suffix('}').unwrap_or(view);
            let whole = format!("{view},\"traces\":{traces},\"events\":{events}}}");
            desk.talk.data(&talk::pretty(&whole)?)?;
        }
    }
    Ok(Exit::Done)
}

impl Dossier {
    /// What the attempts of a node left behind, in order.
    fn of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a TraceView> {
        self.traces.iter().filter(move |trace| trace.node == node)
    }
}

impl Dossier {
    /// What a node printed that none of its attempts tells: an app that broke after it was done.
    fn untold<'a>(&self, node: &'a NodeProgress) -> Option<&'a str> {
        let told = |output: &str| {
            let mut printed = self.of(&node.name).flat_map(|trace| &trace.outputs);
            printed.any(|printed| printed.output == output)
        };
        node.output.as_deref().filter(|output| !told(output))
    }
}

/// The nodes in the order in which people look: failed ones first, then as they are named.
fn by_interest(view: &RolloutView) -> Vec<&NodeProgress> {
    let rank = |state: &str| match state {
        "failed" => 0,
        "restored" => 1,
        "updating" => 2,
        "rolled_back" => 3,
        "done" => 4,
        _ => 5,
    };
    let mut nodes: Vec<_> = view.nodes.iter().collect();
    nodes.sort_by_key(|node| rank(&node.state));
    nodes
}
