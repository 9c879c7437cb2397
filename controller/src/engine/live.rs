//! What commands print while they run: kept in memory for whoever watches, until their nodes report the end.
//!
//! Nothing of it is durable, and nothing is decided by it. A controller that was restarted is told the tail anew by the
//! agents; every piece has its place in the whole, so that nobody shows it twice.

use std::collections::BTreeMap;

use rota_rollout::names::{NodeName, RolloutId};
use rota_rollout::rollout::Kind;

use super::trace::{Printed, TraceRecord};
use super::{AgentKey, State, Turn};
use crate::view::LiveView;
use crate::wire::{Piece, plain};

/// What is kept of one command while it runs: as much as agents report in the end.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// What is kept of all together. Where more nodes run a command at once, less is kept of each.
const ALL_BYTES_MAX: usize = 32 << 20;

/// A line without an end is shown when it has become so long.
const LINE_BYTES_MAX: usize = 4096;

/// What one command has printed by now: its tail.
#[derive(Debug, Default)]
pub struct Live {
    attempt: u32,
    bytes: Vec<u8>,
    end: u64,
}

/// The commands that run, by rollout and node.
pub type Lives = BTreeMap<RolloutId, BTreeMap<NodeName, Live>>;

/// How far each node's output was told: its attempt, and the place.
pub type Told = BTreeMap<NodeName, (u32, u64)>;

impl Live {
    /// Takes in what is new of a piece, and keeps no more than so many bytes.
    fn add(&mut self, offset: u64, data: &[u8], keep: usize) {
        let known = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(news) = data.get(known..).filter(|news| !news.is_empty()) else { return };
        if offset > self.end {
            self.bytes.clear(); // what lies between was dropped
        }
        self.bytes.extend_from_slice(news);
        self.end = offset + data.len() as u64;
        let excess = self.bytes.len().saturating_sub(keep);
        self.bytes.drain(..excess);
    }

    /// The whole lines after this place, and where they begin.
    fn lines_after(&self, told: u64) -> Option<(u64, &[u8])> {
        let start = self.end - self.bytes.len() as u64;
        let from = told.clamp(start, self.end);
        let news = &self.bytes[usize::try_from(from - start).ok()?..];
        let lines = match news.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => &news[..=last],
            None if news.len() > LINE_BYTES_MAX => whole_letters(news),
            None => return None,
        };
        Some((from, lines))
    }
}

/// Without a letter of which only a part is there.
fn whole_letters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    }
}

/// What a follower of a rollout was not told yet; `None`: the rollout is over.
pub fn news(state: &State, id: &RolloutId, told: &mut Told) -> Option<Vec<LiveView>> {
    state.rollouts.get(id)?;
    let mut news = Vec::new();
    for (node, live) in state.live.get(id).into_iter().flatten() {
        let told = told.entry(node.clone()).or_default();
        if told.0 != live.attempt {
            *told = (live.attempt, 0);
        }
        let Some((offset, lines)) = live.lines_after(told.1) else { continue };
        told.1 = offset + lines.len() as u64;
        let (node, text) = (node.to_string(), plain(lines));
        news.push(LiveView { node, attempt: live.attempt, offset, text });
    }
    Some(news)
}

impl Turn<'_> {
    /// A command printed something. Of a command that does not run as far as we know, nothing is kept.
    pub(super) fn printed(&mut self, key: &AgentKey, piece: Piece) {
        let AgentKey::Node(node) = key else { return };
        let Piece { id, attempt, offset, data } = piece;
        let rollout = self.state.rollouts.get(&id).map(|active| &active.rollout);
        let runs = rollout.is_some_and(|rollout| {
            let node = rollout.nodes().get(node);
            rollout.spec.kind == Kind::Run
                && node.is_some_and(|node| node.phase.is_running() && node.attempt == attempt)
        });
        if !runs {
            return;
        }
        let count: usize = self.state.live.values().map(BTreeMap::len).sum();
        let keep = (ALL_BYTES_MAX / (count + 1)).clamp(LINE_BYTES_MAX, TAIL_BYTES_MAX);
        let live = self.state.live.entry(id).or_default().entry(node.clone()).or_default();
        if live.attempt != attempt.0 {
            *live = Live { attempt: attempt.0, ..Live::default() };
        }
        live.add(offset, &data, keep);
        self.batch.touched = true;
    }

    /// A command has ended. Where its agent was killed and knows nothing any more, what we heard is what is kept.
    pub(super) fn has_printed(
        &mut self,
        id: &RolloutId,
        node: &NodeName,
        trace: &TraceRecord,
    ) -> TraceRecord {
        let mut trace = trace.clone();
        let live = self.state.live.get_mut(id).and_then(|nodes| nodes.remove(node));
        if let Some(live) = live.filter(|live| live.attempt == trace.attempt)
            && trace.printed.is_empty()
        {
            let output = plain(&live.bytes);
            trace.printed.push(Printed { what: "command".to_owned(), output, bytes: live.end });
        }
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(live: &Live, told: u64) -> String {
        live.lines_after(told).map_or("-".to_owned(), |(at, it)| format!("{at}:{}", plain(it)))
    }

    /// Pieces come twice, overlap, and leave gaps; lines are told once they are whole.
    #[test]
    fn pieces_become_lines() {
        let mut live = Live::default();
        for (offset, piece, from, is) in [
            (0, "one\ntw", 0, "0:one\n"),
            (0, "one\ntw", 4, "-"),
            (2, "e\ntwo\n", 4, "4:two\n"),
            (8, "three\n", 8, "8:three\n"),
            (3, "\ntwo\n", 8, "8:three\n"),
            (100, "later\n", 14, "100:later\n"),
        ] {
            live.add(offset, piece.as_bytes(), 64);
            assert_eq!(told(&live, from), is, "{piece:?}");
        }
        live.add(106, &[b'x'; 100], 64);
        assert_eq!((live.bytes.len(), live.end), (64, 206));
    }

    #[test]
    fn a_line_without_an_end_is_told_when_it_is_long() {
        let mut live = Live::default();
        live.add(0, "ü".repeat(LINE_BYTES_MAX).as_bytes(), TAIL_BYTES_MAX);
        live.add(2 * LINE_BYTES_MAX as u64, &[0xc3], TAIL_BYTES_MAX);
        let (at, line) = live.lines_after(0).unwrap();
        assert_eq!((at, line.len()), (0, 2 * LINE_BYTES_MAX));
        assert!(live.lines_after(2 * LINE_BYTES_MAX as u64).is_none());
    }
}
