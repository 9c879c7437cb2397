//! How long rollouts take: learned from those that ended here, and told of the next one. Pure.

use std::collections::BTreeMap;

use rota_rollout::Rollout;
use rota_rollout::names::{NodeName, Revision, Span, Timestamp};
use rota_rollout::node::{Direction, Phase};
use rota_rollout::strategy::{Mode, StartOrder, Strategy};
use serde::{Deserialize, Serialize};

use crate::view::EtaView;

/// So many rollouts are remembered: enough for a steady middle, few enough to follow an app that becomes slower.
pub const PACES_KEPT: usize = 10;

/// From so many nodes at once on, the slowest of them sets the pace.
const CROWD: usize = 4;

/// How long the nodes of one rollout took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// The rollout.
    pub revision: Revision,
    /// How many nodes were measured.
    pub nodes: usize,
    /// From the start until the first node was ordered.
    pub prepare: Span,
    /// From the order until it joined: half of the nodes needed less.
    pub median: Span,
    /// Nine of ten needed less.
    pub slow: Span,
}

/// What is measured while a rollout runs.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    first: Option<Timestamp>,
    ordered: BTreeMap<NodeName, Timestamp>,
    took: Vec<Span>,
}

fn goes_forward(phase: &Phase) -> bool {
    matches!(phase, Phase::Updating { direction: Direction::Forward, .. })
}

impl Clock {
    /// A node went from one phase to another.
    pub fn see(&mut self, name: &NodeName, (was, is): (&Phase, &Phase), at: Timestamp) {
        if goes_forward(is) && !goes_forward(was) {
            self.first.get_or_insert(at);
            self.ordered.insert(name.clone(), at);
        } else if goes_forward(was) && !goes_forward(is) {
            let joined = matches!(is, Phase::Monitoring { .. } | Phase::Done);
            let since = self.ordered.remove(name).filter(|_| joined);
            self.took.extend(since.map(|since| at.since(since)));
        }
    }

    /// What is learned from it when it is over; nothing, where no node was updated.
    pub fn learned(&mut self, rollout: &Rollout) -> Option<Pace> {
        let mut took = std::mem::take(&mut self.took);
        took.sort();
        let at = |share: usize| took.get((took.len() * share / 100).min(took.len() - 1)).copied();
        if took.is_empty() {
            return None;
        }
        Some(Pace {
            revision: rollout.spec.id.revision,
            nodes: took.len(),
            prepare: self.first?.since(rollout.spec.started),
            median: at(50)?,
            slow: at(90)?,
        })
    }
}

/// The one in the middle.
fn middle(spans: impl Iterator<Item = Span>) -> Span {
    let mut spans: Vec<Span> = spans.collect();
    spans.sort();
    spans.get(spans.len() / 2).copied().unwrap_or(Span::ZERO)
}

/// How long batches of so many nodes take, out of so many targets. Waiting for operators is not counted.
pub fn rolling(strategy: &Strategy, targets: usize, open: &[usize], paces: &[Pace]) -> Span {
    let (median, slow) =
        (middle(paces.iter().map(|p| p.median)), middle(paces.iter().map(|p| p.slow)));
    let mut total = 0;
    let mut rounds = 0;
    for (index, count) in open.iter().enumerate().filter(|(_, count)| **count > 0) {
        let limit = match strategy.order {
            StartOrder::StopFirst => strategy.unavailable_limit(index + 1, targets),
            StartOrder::StartFirst => targets,
        };
        let most = match strategy.mode {
            Mode::Batches => *count,
            Mode::Window => open.iter().sum(),
        };
        let width = strategy.batch_size(index + 1, targets).min(limit).clamp(1, most);
        let node = if width < CROWD { median } else { slow };
        let turns = count.div_ceil(width) as u64;
        let each = node.0 + strategy.monitor.0;
        total += match strategy.mode {
            Mode::Batches => turns * each,
            // It does not wait for the last one of a batch.
            Mode::Window => each * *count as u64 / width as u64,
        };
        rounds += match strategy.mode {
            Mode::Batches => 1,
            Mode::Window => turns,
        };
    }
    Span(total + strategy.delay.0 * u64::saturating_sub(rounds, 1))
}

/// A length of time, as exact as a forecast is: `700 ms`, `29 s`, `4 min`, `2 h 5 min`.
fn about(span: Span) -> String {
    let (seconds, minutes) = (span.0.div_ceil(1000), span.0.div_ceil(60_000));
    match span.0 {
        ms @ 0..1_000 => format!("{} ms", ms.div_ceil(100) * 100),
        1_000..120_000 => format!("{seconds} s"),
        120_000..7_200_000 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// How long a rollout of such batches will take, and on what that rests.
pub fn eta(strategy: &Strategy, targets: usize, batches: &[usize], paces: &[Pace]) -> EtaView {
    let rolling = rolling(strategy, targets, batches, paces);
    let moves = batches.iter().any(|count| *count > 0);
    let prepare = if moves { middle(paces.iter().map(|pace| pace.prepare)) } else { Span::ZERO };
    let all = Span(rolling.0 + prepare.0);
    let text = match (paces.len(), moves) {
        (_, false) => "nothing is to be done".to_owned(),
        (0, true) if all == Span::ZERO => "not known: nothing was rolled out here yet".to_owned(),
        (0, true) => format!(
            "at least {} of monitor time and delays; nothing was rolled out here yet",
            about(all)
        ),
        (1, true) => format!("about {}, as the last rollout here went", about(all)),
        (many, true) => format!("about {}, from {many} earlier rollouts here", about(all)),
    };
    EtaView { ms: all.0, rollouts: paces.len(), at_least: paces.is_empty() && moves, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_rollout::strategy::Amount;

    fn pace(revision: u64, median: u64, slow: u64) -> Pace {
        let (median, slow) = (Span(median), Span(slow));
        let prepare = Span::seconds(1);
        Pace { revision: Revision(revision), nodes: 9, prepare, median, slow }
    }

    #[test]
    fn how_long_it_takes() {
        let sizes = |amounts: &[i64]| Strategy {
            batch: amounts.iter().map(|it| Amount::try_from(*it).unwrap()).collect(),
            monitor: Span::ZERO,
            ..Strategy::default()
        };
        let watched = |strategy| Strategy { monitor: Span::seconds(5), ..strategy };
        let late = |strategy| Strategy { delay: Span::seconds(10), ..strategy };
        let window = |strategy| Strategy { mode: Mode::Window, ..strategy };
        let one = || Some(Amount::try_from(1).unwrap());
        let paces = [pace(1, 2_000, 8_000), pace(2, 3_000, 9_000), pace(3, 2_500, 9_500)];
        let know = |known: usize| &paces[..known];
        for (strategy, open, known, text) in [
            (sizes(&[1]), vec![1, 1, 1], 0, "not known: nothing was rolled out here yet"),
            (
                watched(sizes(&[1])),
                vec![1, 1, 1],
                0,
                "at least 15 s of monitor time and delays; nothing was rolled out here yet",
            ),
            (late(sizes(&[1])), vec![1, 1, 1], 3, "about 29 s, from 3 earlier rollouts here"),
            (sizes(&[1]), vec![1, 1, 1], 1, "about 7 s, as the last rollout here went"),
            (sizes(&[1]), vec![1, 1, 1], 3, "about 9 s, from 3 earlier rollouts here"),
            // Of many at once the slow ones count.
            (sizes(&[1, 9]), vec![1, 9], 3, "about 13 s, from 3 earlier rollouts here"),
            (window(sizes(&[2])), vec![2, 2, 1], 3, "about 8 s, from 3 earlier rollouts here"),
            (
                Strategy { max_unavailable: one(), ..sizes(&[3]) },
                vec![3, 3],
                3,
                "about 16 s, from 3 earlier rollouts here",
            ),
            (sizes(&[1]), vec![], 3, "nothing is to be done"),
        ] {
            let targets = open.iter().sum();
            assert_eq!(eta(&strategy, targets, &open, know(known)).text, text, "{open:?}");
        }
    }

    #[test]
    fn what_a_rollout_teaches() {
        let name = |number: u64| format!("n{number}").parse::<NodeName>().unwrap();
        let (mut clock, at) = (Clock::default(), Timestamp(1_000));
        let updating = Phase::Updating {
            direction: Direction::Forward,
            step: None,
            deadline: at,
            takes_out: true,
        };
        for number in 0..10 {
            clock.see(&name(number), (&Phase::Ready, &updating), at);
            let then = Timestamp(1_100 + number * 100);
            clock.see(&name(number), (&updating, &Phase::Done), then);
        }
        clock.see(&name(10), (&Phase::Ready, &updating), at);
        clock.see(&name(10), (&updating, &Phase::RolledBack), Timestamp(9_000));
        clock.took.sort();
        assert_eq!(clock.took.first(), Some(&Span(100)));
        assert_eq!((clock.took.len(), clock.took.last()), (10, Some(&Span(1_000))));
    }
}
