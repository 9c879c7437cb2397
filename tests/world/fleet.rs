//! What a seed makes: releases and how good they are, strategies, targets.

use std::num::NonZeroU32;

use rota_agent::spec;
use rota_rollout::names::{AppName, EnvName, Release, Span};
use rota_rollout::rollout::Limits;
use rota_rollout::strategy::{
    Amount, Deadline, Mode, Offline, OnFailure, OnNodeFailure, Percent, StartOrder, Strategy,
    Tolerance,
};
use rota_tests::sample;

use super::rng::Rng;

/// How a release behaves on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    Good,
    Corrupt,
    HookFails,
    ExitsAtStart,
    StartFails,
    NeverHealthy,
    SmokeFails,
    DiesInMonitor,
    DiesLate,
}

const BAD: [Quality; 8] = [
    Quality::Corrupt,
    Quality::HookFails,
    Quality::ExitsAtStart,
    Quality::StartFails,
    Quality::NeverHealthy,
    Quality::SmokeFails,
    Quality::DiesInMonitor,
    Quality::DiesLate,
];

/// A release in the words of both sides, and how good it is on each node.
#[derive(Debug, Clone)]
pub struct Made {
    pub release: Release,
    pub spec: spec::Spec,
    pub quality: Vec<Quality>,
}

/// An app in an environment.
#[derive(Debug, Clone)]
pub struct Line {
    pub app: AppName,
    pub env: EnvName,
    /// The environment as a number.
    pub env_number: usize,
    /// Its releases are so many from here on.
    pub first: usize,
}

/// So many releases has each line.
pub const RELEASES: usize = 4;

/// The apps and environments: `shop` in `prod`, then others.
pub fn lines(count: usize) -> Vec<Line> {
    let line = |(number, (app, env)): (usize, (&str, usize))| Line {
        app: app.parse().expect("an app"),
        env: ["prod", "test"][env].parse().expect("an environment"),
        env_number: env,
        first: number * RELEASES,
    };
    let all = [("shop", 0), ("api", 0), ("shop", 1)];
    all.into_iter().enumerate().map(line).take(count).collect()
}

/// The releases of a line; the first one is good, and runs everywhere in the beginning.
pub fn releases(rng: &mut Rng, nodes: usize, line: &Line) -> Vec<Made> {
    let policy =
        if rng.percent(80) { spec::OnDrainTimeout::Cut } else { spec::OnDrainTimeout::Fail };
    let hooks = rng.percent(30);
    (0..RELEASES)
        .map(|index| {
            let bad = if index == 0 { 0 } else { rng.pick(&[0, 0, 5, 15, 40, 100]) };
            let quality = (0..nodes)
                .map(|_| if rng.percent(bad) { rng.pick(&BAD) } else { Quality::Good })
                .collect();
            made((line, index), policy, hooks, quality)
        })
        .collect()
}

fn made(
    (line, index): (&Line, usize),
    policy: spec::OnDrainTimeout,
    hooks: bool,
    quality: Vec<Quality>,
) -> Made {
    let version = format!("1.{index}.0");
    let letter = b"abcdef0123456789"[line.first + index];
    let digest = char::from(letter).to_string().repeat(64);
    let script = if hooks { vec![vec!["script".to_owned()]] } else { Vec::new() };
    let hooks = spec::Hooks {
        before_drain: script.clone(),
        before_start: script.clone(),
        after_join: script.clone(),
        on_failure: script,
    };
    let mut spec = sample::spec(version.clone(), digest.clone(), hooks);
    spec.traffic.on_drain_timeout = policy;
    spec.app = line.app.to_string();
    spec.env = line.env.to_string();
    let version = version.parse().expect("a version");
    let digest = digest.parse().expect("a digest");
    Made { release: Release { version, digest }, spec, quality }
}

/// Long enough for an update and its restore when nothing else goes wrong.
pub fn limits(strategy: &Strategy) -> Limits {
    Limits {
        prepare: Span::seconds(60),
        update: Span::seconds(120),
        monitor: Span(strategy.monitor.0 + 60_000),
        once: Span::seconds(60),
    }
}

pub fn amount(rng: &mut Rng) -> Amount {
    if rng.percent(60) {
        Amount::Number(number(rng.range(1, 4)))
    } else {
        Amount::Percent(share(rng))
    }
}

fn share(rng: &mut Rng) -> Percent {
    Percent::try_from(rng.range(1, 100) as u32).expect("a share")
}

fn number(number: u64) -> NonZeroU32 {
    NonZeroU32::new(number as u32).expect("not zero")
}

/// Any strategy that an operator could write.
pub fn strategy(rng: &mut Rng) -> Strategy {
    let tolerance = match rng.range(0, 5) {
        0..=2 => Tolerance::Number(0),
        3 => Tolerance::Number(rng.range(1, 3) as u32),
        4 => Tolerance::Percent(share(rng)),
        _ => Tolerance::Number(100),
    };
    let approvals = if rng.percent(20) { rng.range(1, 2) } else { 0 };
    Strategy {
        mode: rng.pick(&[Mode::Batches, Mode::Window]),
        batch: (0..rng.range(1, 3)).map(|_| amount(rng)).collect(),
        order: rng.pick(&[StartOrder::StopFirst, StartOrder::StopFirst, StartOrder::StartFirst]),
        max_unavailable: if rng.percent(50) { Some(amount(rng)) } else { None },
        delay: Span(rng.pick(&[0, 0, 0, 2_000, 30_000])),
        monitor: Span(rng.pick(&[0, 500, 5_000, 20_000])),
        max_failures: tolerance,
        on_failure: rng.pick(&[OnFailure::Pause, OnFailure::Rollback, OnFailure::Continue]),
        on_node_failure: if rng.percent(85) {
            OnNodeFailure::Restore
        } else {
            OnNodeFailure::Leave
        },
        offline: rng.pick(&[Offline::Skip, Offline::Wait, Offline::Fail]),
        approve_after: (0..approvals).map(|_| number(rng.range(1, 3))).collect(),
        spread_by: rng.percent(25).then(|| "zone".to_owned()),
        deadline: if rng.percent(15) {
            Deadline::After(Span(rng.range(5_000, 300_000)))
        } else {
            Deadline::None
        },
        rehearse_rollback: rng.percent(25),
        catch_up: false,
    }
}
