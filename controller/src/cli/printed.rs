//! What nodes print, in the order in which it is heard: live while they run, the rest from what they leave behind.

use std::collections::BTreeMap;

use rota_rollout::names::Span;

use super::desk::Desk;
use super::outcome::Failure;
use super::talk::{self, Format};
use super::words;
use crate::view::{LiveView, NodeProgress, RolloutView, TraceView};

/// How far the output of one node is shown.
#[derive(Debug, Default)]
struct Shown {
    attempt: u32,
    /// Up to this byte of all that it printed.
    upto: u64,
    ended: bool,
}

/// What is printed of a piece, and how much before it was never heard.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    missing: u64,
    lines: Vec<String>,
}

impl Shown {
    /// Begins anew when the node does.
    fn of_attempt(&mut self, attempt: u32) {
        if self.attempt < attempt {
            *self = Self { attempt, ..Self::default() };
        }
    }

    /// What is new in a piece that begins at this byte.
    fn take(&mut self, offset: u64, text: &str) -> Piece {
        let known = usize::try_from(self.upto.saturating_sub(offset)).unwrap_or(usize::MAX);
        let missing = offset.saturating_sub(self.upto);
        let Some(news) = text.get(known..).filter(|news| !news.is_empty()) else {
            return Piece { missing: 0, lines: Vec::new() };
        };
        self.upto = offset + text.len() as u64;
        Piece { missing, lines: news.lines().map(words::clean).collect() }
    }
}

/// What the nodes of a run printed. Every line is shown once, with the node's name before it.
pub(super) struct Outputs<'a> {
    desk: &'a Desk,
    id: &'a str,
    shown: BTreeMap<String, Shown>,
}

impl<'a> Outputs<'a> {
    pub fn of(desk: &'a Desk, id: &'a str) -> Self {
        Self { desk, id, shown: BTreeMap::new() }
    }

    /// Shows what nodes print while they run.
    pub fn hear(&mut self, view: &RolloutView, json: &str) -> Result<(), Failure> {
        let news: Vec<LiveView> = talk::parse(json)?;
        for LiveView { node, attempt, offset, text } in news {
            let shown = self.shown.entry(node.clone()).or_default();
            shown.of_attempt(attempt);
            if shown.attempt > attempt || shown.ended {
                continue;
            }
            let piece = shown.take(offset, &text);
            self.print(width(view), &node, &piece)?;
        }
        Ok(())
    }

    /// Shows the rest of what nodes printed that have ended, and how they ended.
    pub async fn show(&mut self, view: &RolloutView) -> Result<(), Failure> {
        if self.desk.talk.format == Format::Json {
            return Ok(());
        }
        let pad = width(view);
        for node in view.nodes.iter().filter(|node| has_ended(node)) {
            let shown = self.shown.entry(node.name.clone()).or_default();
            shown.of_attempt(node.attempt);
            if std::mem::replace(&mut shown.ended, true) {
                continue;
            }
            let name = &node.name;
            let trace = self.of_node(node).await?;
            for printed in &trace.outputs {
                let offset = printed.bytes.saturating_sub(printed.output.len() as u64);
                let shown = self.shown.entry(name.clone()).or_default();
                let piece = shown.take(offset, &printed.output);
                self.print(pad, name, &piece)?;
            }
            let took = trace.took_ms.map(|ms| format!(" after {}", words::span(Span(ms))));
            let ended = match &node.error {
                Some(error) => words::clean(error),
                None => "exit code 0".to_owned(),
            };
            self.desk.talk.say(&format!("{name:pad$}   {ended}{}", took.unwrap_or_default()));
        }
        Ok(())
    }

    fn print(&self, pad: usize, name: &str, piece: &Piece) -> Result<(), Failure> {
        if piece.missing > 0 {
            let size = words::bytes(piece.missing);
            self.desk.talk.say(&format!("{name:pad$}   {size} of its output are not shown"));
        }
        let lines = piece.lines.iter().map(|line| format!("{name:pad$} | {line}\n"));
        self.desk.talk.data(&lines.collect::<String>())
    }

    async fn of_node(&self, node: &NodeProgress) -> Result<TraceView, Failure> {
        let path = format!("rollouts/{}/traces/{}", self.id, node.name);
        let traces: Vec<TraceView> = talk::parse(&self.desk.client()?.read(&path).await?)?;
        Ok(traces.into_iter().rfind(|trace| trace.attempt == node.attempt).unwrap_or_default())
    }
}

/// Of the longest name.
fn width(view: &RolloutView) -> usize {
    view.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0)
}

/// Has the command ended there, well or not?
fn has_ended(node: &NodeProgress) -> bool {
    matches!(node.state.as_str(), "done" | "failed" | "restored") && node.attempt > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces overlap after every reconnect, and the end comes once more in the trace.
    #[test]
    fn no_line_is_shown_twice_and_gaps_are_told() {
        let mut shown = Shown::default();
        shown.of_attempt(1);
        for (offset, text, missing, lines) in [
            (0, "one\ntwo\n", 0, "one|two"),
            (0, "one\ntwo\n", 0, ""),
            (4, "two\nthree\n", 0, "three"),
            (20, "late\n", 6, "late"),
            (8, "three\n......late\nend", 0, "end"),
        ] {
            let piece = shown.take(offset, text);
            assert_eq!((piece.missing, piece.lines.join("|").as_str()), (missing, lines), "{text}");
        }
        shown.of_attempt(2);
        assert_eq!(shown.take(0, "again").lines, ["again"]);
    }
}
