//! Watching one rollout, as a pure machine: views and times go in; news, and the verdict whether to
//! go on watching, come out. Who draws and who dials is written elsewhere.

use std::collections::BTreeMap;

use rota_rollout::names::{Span, Timestamp};

use super::outcome::Exit;
use super::table::state_words;
use super::words;
use crate::view::{HoldView, NodeProgress, RolloutView};

/// Nodes that the first view of a rollout already under way lists one by one; more are counted.
const LISTED_AT_FIRST_MAX: usize = 20;

/// One rollout and what was seen of it.
#[derive(Debug, Clone)]
pub struct Watch {
    max_hold: Span,
    last: Option<RolloutView>,
    /// When what is left by earlier rollouts last changed.
    seen: Timestamp,
    held_since: Option<(String, Timestamp)>,
    pace_from: Option<(Timestamp, usize)>,
    left_traffic: BTreeMap<String, Timestamp>,
}

impl Watch {
    /// Nothing seen yet; holds that clear by themselves are borne this long.
    pub fn new(max_hold: Span) -> Self {
        Self {
            max_hold,
            last: None,
            seen: Timestamp(0),
            held_since: None,
            pace_from: None,
            left_traffic: BTreeMap::new(),
        }
    }

    /// Takes the next view, and says what is new in it, a line each.
    pub fn see(&mut self, at: Timestamp, view: RolloutView) -> Vec<String> {
        let news = news(self.last.as_ref(), &view);
        match (waiting(&view), &self.held_since) {
            (Some(hold), Some((kind, _))) if *kind == hold.kind => {}
            (Some(hold), _) => self.held_since = Some((hold.kind.clone(), at)),
            (None, _) => self.held_since = None,
        }
        if self.pace_from.is_none() && under_way(&view) {
            self.pace_from = Some((at, finished(&view)));
        }
        for node in &view.nodes {
            if is_out(node) {
                self.left_traffic.entry(node.name.clone()).or_insert(at);
            } else {
                self.left_traffic.remove(&node.name);
            }
        }
        let learned = |view: &RolloutView| view.eta_ms;
        if self.last.as_ref().and_then(learned) != learned(&view) {
            self.seen = at;
        }
        self.last = Some(view);
        news
    }

    /// The exit code when there is nothing more to watch; `None`: go on.
    pub fn verdict(&self, at: Timestamp) -> Option<Exit> {
        let view = self.last.as_ref()?;
        if let Some(exit) = exit_of(view) {
            return Some(exit);
        }
        let (_, since) = self.held_since.as_ref()?;
        (at.since(*since) >= self.max_hold).then_some(Exit::Stopped)
    }

    /// The newest view.
    pub fn view(&self) -> Option<&RolloutView> {
        self.last.as_ref()
    }

    /// How much longer: as earlier rollouts here went, else at the pace since the watching began, which is unknown
    /// before a node ended.
    pub fn remaining(&self, at: Timestamp) -> Option<Span> {
        let view = self.last.as_ref()?;
        if let (Some(learned), None) = (view.eta_ms, &self.held_since) {
            return Some(Span(learned.saturating_sub(at.since(self.seen).0)));
        }
        let (from, before) = self.pace_from?;
        let (ended, all) = (finished(view), view.nodes.len());
        if ended <= before || ended >= all || !under_way(view) || self.held_since.is_some() {
            return None;
        }
        let each = at.since(from).0 / (ended - before) as u64;
        Some(Span(each * (all - ended) as u64))
    }

    /// How long a node has been out of traffic: its controller's number, or, while it is out, ours.
    pub fn out_of_traffic(&self, node: &NodeProgress, at: Timestamp) -> Option<Span> {
        let ours = self.left_traffic.get(&node.name).map(|since| at.since(*since));
        if node.out_of_traffic_ms > 0 { Some(Span(node.out_of_traffic_ms)) } else { ours }
    }
}

/// How many nodes this rollout has nothing more to do with.
pub fn finished(view: &RolloutView) -> usize {
    let open = |node: &&NodeProgress| matches!(node.state.as_str(), "pending" | "updating");
    view.nodes.len() - view.nodes.iter().filter(open).count()
}

/// The batch that runs, and how many there are.
pub fn batch(view: &RolloutView) -> Option<(usize, usize)> {
    let running = view.batches.iter().find(|batch| batch.state == "running")?;
    Some((running.index, view.batches.len()))
}

fn under_way(view: &RolloutView) -> bool {
    matches!(view.state.as_str(), "rolling" | "rolling_back")
}

fn is_out(node: &NodeProgress) -> bool {
    let out = ["stop", "swap", "start", "health", "smoke", "join"];
    node.state == "updating" && node.doing().is_some_and(|step| out.contains(&step))
}

/// What the rollout waits for while nothing moves. A hold beside running updates is no waiting.
pub fn waiting(view: &RolloutView) -> Option<&HoldView> {
    let moving = view.nodes.iter().any(|node| node.state == "updating");
    view.hold.as_ref().filter(|_| view.state == "held" || !moving)
}

/// Does a hold of this kind need an operator? The others clear by themselves, so does one of a
/// newer controller as far as we know.
fn needs_operator(kind: &str) -> bool {
    matches!(kind, "failures" | "rehearsal" | "fence" | "approval" | "deadline" | "once")
}

/// Are all whom it waits for nodes that failed in this rollout and were left out of traffic? Nobody brings those back.
fn stays_out(view: &RolloutView, hold: &HoldView) -> bool {
    let left_out = |name: &String| {
        let node = view.nodes.iter().find(|node| node.name == *name);
        node.is_some_and(|node| node.state == "failed" && node.left.as_deref() == Some("out"))
    };
    hold.kind == "capacity" && !hold.nodes.is_empty() && hold.nodes.iter().all(left_out)
}

/// The exit code of a rollout that will not move on by itself.
pub fn exit_of(view: &RolloutView) -> Option<Exit> {
    match view.state.as_str() {
        "completed" => Some(Exit::Done),
        "rolled_back" => Some(Exit::RolledBack),
        "failed" | "aborted" | "partial" | "paused" => Some(Exit::Stopped),
        "held" => {
            let stops = |hold: &HoldView| needs_operator(&hold.kind) || stays_out(view, hold);
            view.hold.as_ref().is_none_or(stops).then_some(Exit::Stopped)
        }
        _ => None,
    }
}

/// What `view` says that `last` did not, a line each.
fn news(last: Option<&RolloutView>, view: &RolloutView) -> Vec<String> {
    let mut lines = Vec::new();
    match last {
        None => lines.push(format!("{}  {}", view.id, opening(view))),
        Some(last) if last.state != view.state && view.state != "held" => {
            lines.push(format!("{}  {}", view.id, state_words(&view.state)));
        }
        Some(_) => {}
    }
    for batch in view.batches.iter().filter(|batch| batch.state == "running") {
        let before = last.and_then(|last| last.batches.iter().find(|b| b.index == batch.index));
        if before.is_none_or(|before| before.state != "running") {
            let nodes = words::names(batch.nodes.iter().map(String::as_str));
            let all = view.batches.len();
            lines.push(format!("{}  batch {} of {all}: {nodes}", view.id, batch.index));
        }
    }
    lines.extend(news_of_nodes(last, view));
    if let Some(hold) = waiting(view) {
        let before = last.and_then(waiting);
        if before.is_none_or(|before| (&before.kind, &before.text) != (&hold.kind, &hold.text)) {
            lines.push(format!("{}  waits: {}", view.id, words::clean(&hold.text)));
        }
    }
    lines.extend(last.and_then(|last| takeover(&last.controller, view)));
    lines
}

/// Another controller has it than before.
pub fn takeover(before: &str, view: &RolloutView) -> Option<String> {
    let known = !before.is_empty() && !view.controller.is_empty();
    (known && before != view.controller)
        .then(|| format!("{}  {} took over from {before}", view.id, view.controller))
}

fn opening(view: &RolloutView) -> String {
    let verb = match view.kind.as_str() {
        "undo" => "return to",
        "restart" => "restart of",
        _ => "deploy of",
    };
    let was = view.from.as_ref().filter(|from| **from != view.to);
    let was = was.map_or(String::new(), |from| format!(" (was {from})"));
    let nodes = words::count(view.nodes.len() as u64, "node");
    let mut text = format!("{verb} {}{was}: {nodes}", view.to);
    match view.batches.len() {
        0 => {}
        1 => text.push_str(" in 1 batch"),
        batches => text.push_str(&format!(" in {batches} batches")),
    }
    text.push_str(&format!(", {}", state_words(&view.state)));
    text
}

fn news_of_nodes(last: Option<&RolloutView>, view: &RolloutView) -> Vec<String> {
    let before: BTreeMap<&str, &NodeProgress> = last
        .map(|last| last.nodes.iter().map(|node| (node.name.as_str(), node)).collect())
        .unwrap_or_default();
    let changed: Vec<&NodeProgress> = view
        .nodes
        .iter()
        .filter(|node| match before.get(node.name.as_str()) {
            Some(before) => {
                (&before.state, before.doing(), before.attempt)
                    != (&node.state, node.doing(), node.attempt)
            }
            None => node.state != "pending",
        })
        .collect();
    if last.is_none() && changed.len() > LISTED_AT_FIRST_MAX {
        return vec![format!("{}  {}", view.id, counts(view.nodes.iter()))];
    }
    let pad = view.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
    changed.iter().map(|node| node_line(node, pad)).collect()
}

/// How many nodes are in which state: `3 failed, 40 updating, 957 pending`.
pub fn counts<'a>(nodes: impl Iterator<Item = &'a NodeProgress> + Clone) -> String {
    let order = ["failed", "restored", "updating", "done", "rolled_back", "skipped", "pending"];
    let parts: Vec<String> = order
        .iter()
        .filter_map(|state| {
            let count = nodes.clone().filter(|node| node.state == *state).count();
            (count > 0).then(|| format!("{count} {}", state_words(state)))
        })
        .collect();
    parts.join(", ")
}

/// One node in one line: `web-01  drain  14 in flight`.
fn node_line(node: &NodeProgress, pad: usize) -> String {
    let word = match (node.state.as_str(), node.doing()) {
        ("updating", Some(step)) => step.to_owned(),
        (state, _) => state_words(state),
    };
    let line = format!("{:pad$}  {word}  {}", node.name, node_detail(node));
    line.trim_end().to_owned()
}

/// What there is to say about a node in its state; may be nothing.
pub fn node_detail(node: &NodeProgress) -> String {
    let error = node.error.as_deref().map(words::clean).unwrap_or_default();
    let release = node.release.as_deref().unwrap_or("no release");
    let again = if node.attempt > 1 { format!("attempt {}", node.attempt) } else { String::new() };
    match (node.state.as_str(), node.doing()) {
        ("updating", Some("drain")) => {
            join([format!("{} in flight", node.in_flight.max(node.in_flight_at_drain)), again])
        }
        ("updating", _) => again,
        ("done", _) => {
            let out = Span(node.out_of_traffic_ms);
            let out = (out > Span::ZERO).then(|| format!("out of traffic {}", words::span(out)));
            let cut = (node.cut > 0).then(|| format!("{} cut", node.cut));
            join([out.unwrap_or_default(), cut.unwrap_or_default()])
        }
        ("restored" | "rolled_back", _) => join([format!("on {release}"), error]),
        _ => error,
    }
}

fn join<const N: usize>(parts: [String; N]) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests;
