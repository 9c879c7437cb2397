//! What the tests of this crate share: small fleets, small events, and a text for what comes of them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::batches::{Target, plan};
use crate::names::{Attempt, NodeName, Release, Revision, RolloutId, Span, Timestamp};
use crate::node::{Failure, Left, Measured, Observed, Report, Serving, StepName};
use crate::rollout::{Change, Head, Kind, Limits, Rollout, Spec};
use crate::strategy::{Amount, Mode, StartOrder, Strategy, Tolerance};
use crate::verbs::Verb;
use crate::{Event, Order, Step, What, step};

/// When the rollouts of these tests begin.
pub(crate) const START: Timestamp = Timestamp(1_000_000);

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// `1.0.0` is what runs, `1.1.0` what is rolled out.
pub(crate) fn release(minor: u32) -> Release {
    Release {
        version: format!("1.{minor}.0").parse().unwrap(),
        digest: format!("{minor}").repeat(64).parse().unwrap(),
    }
}

pub(crate) fn number(number: u32) -> Amount {
    Amount::Number(NonZeroU32::new(number).unwrap())
}

pub(crate) fn healthy() -> Observed {
    Observed { online: true, serving: Serving::In, busy: false, drained: false, unsure: false }
}

/// A target on 1.0.0, told by letters after its name: `n1`, `n2 offline`, `n3 out`, `n4 absent`, `n5 drained`,
/// `n6 busy`, `n6 unsure`, `n7 current`, `n8 @a` (its value of the `spread_by` label).
pub(crate) fn target(text: &str) -> Target {
    let mut words = text.split(' ');
    let mut target = Target {
        name: name(words.next().unwrap()),
        observed: healthy(),
        runs: Some(release(0)),
        spread: None,
        left_alone: false,
    };
    for word in words {
        match word {
            "offline" => target.observed.online = false,
            "out" => target.observed.serving = Serving::Out,
            "absent" => (target.observed.serving, target.runs) = (Serving::Absent, None),
            "drained" => {
                (target.observed.drained, target.observed.serving) = (true, Serving::Out);
            }
            "busy" => target.observed.busy = true,
            "unsure" => target.observed.unsure = true,
            "current" => target.runs = Some(release(1)),
            zone => target.spread = Some(zone.strip_prefix('@').unwrap().to_owned()),
        }
    }
    target
}

pub(crate) fn targets(texts: &[&str]) -> Vec<Target> {
    texts.iter().map(|text| target(text)).collect()
}

/// One node at a time, no monitor time: what a test does not say otherwise.
pub(crate) fn one_by_one() -> Strategy {
    Strategy { batch: vec![number(1)], monitor: Span::ZERO, ..Strategy::default() }
}

pub(crate) fn window(width: u32) -> Strategy {
    Strategy { mode: Mode::Window, batch: vec![number(width)], ..one_by_one() }
}

/// A rollout as it was admitted, nothing begun.
pub(crate) fn admitted(texts: &[&str], strategy: Strategy) -> Rollout {
    let targets = targets(texts);
    let plan = plan(&targets, &strategy, &release(1), false);
    let spec = Spec {
        id: RolloutId {
            app: "shop".parse().unwrap(),
            env: "prod".parse().unwrap(),
            revision: Revision(7),
        },
        kind: Kind::Deploy,
        to: release(1),
        from: Some(release(0)),
        strategy,
        batches: plan.batches.clone(),
        targets: plan.targets,
        limits: Limits {
            prepare: Span::seconds(60),
            update: Span::seconds(120),
            monitor: Span::seconds(30),
            once: Span::seconds(60),
        },
        once: false,
        fence: None,
        started: START,
        who: "ann".to_owned(),
        message: String::new(),
    };
    Rollout::new(spec, Head::new(plan.in_traffic), plan.nodes(&targets))
}

/// A rollout and the time: says what happens, and hears what comes of it.
pub(crate) struct Story {
    pub rollout: Rollout,
    pub at: Timestamp,
}

impl Story {
    /// Started, and every online node prepared.
    pub fn prepared(texts: &[&str], strategy: Strategy) -> Self {
        Self::from(admitted(texts, strategy)).begun()
    }

    pub fn from(rollout: Rollout) -> Self {
        Self { rollout, at: START }
    }

    pub fn begun(mut self) -> Self {
        self.hear(What::Started);
        let preparing: Vec<NodeName> = self
            .rollout
            .nodes()
            .iter()
            .filter(|(_, node)| node.phase.deadline().is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for node in preparing {
            self.say(node.as_str(), Report::Prepared);
        }
        self
    }

    /// Every change is applied, and what must hold is looked at.
    pub fn hear(&mut self, what: What) -> Step {
        let event = Event { at: self.at, what };
        let made = step(&self.rollout, &event);
        assert_eq!(made, step(&self.rollout, &event), "the same event, another step");
        self.rollout.apply(made.changes.clone());
        let wrong = crate::invariants::violations(&self.rollout);
        assert!(wrong.is_empty(), "{wrong:?} after {event:?}");
        made
    }

    pub fn say(&mut self, node: &str, report: Report) -> Step {
        let node = name(node);
        let attempt = self.rollout.nodes()[&node].attempt;
        self.hear(What::Reported { node, attempt, report })
    }

    pub fn done(&mut self, node: &str) -> Step {
        self.say(node, Report::Done(Measured::default()))
    }

    pub fn fail(&mut self, node: &str, left: Left) -> Step {
        self.say(node, Report::Failed(failure(left)))
    }

    pub fn observe(&mut self, text: &str) -> Step {
        let Target { name, observed, runs, .. } = target(text);
        self.hear(What::Observed { node: name, observed, runs })
    }

    pub fn ask(&mut self, verb: Verb) -> Step {
        crate::verbs::allow(&self.rollout, &verb).unwrap();
        self.hear(What::Asked { verb, who: "ann".to_owned() })
    }

    pub fn wait(&mut self, seconds: u64) -> Step {
        self.at = self.at.after(Span::seconds(seconds));
        self.hear(What::Tick)
    }

    /// Who is being updated, by name.
    pub fn updating(&self) -> String {
        let nodes = self.rollout.nodes().iter().filter(|(_, node)| node.phase.is_running());
        nodes.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// The state, and why it is held.
    pub fn stands(&self) -> String {
        match &self.rollout.head.held {
            Some(held) => format!("{}: {}", self.rollout.state(), held.hold),
            None => self.rollout.state().to_owned(),
        }
    }
}

pub(crate) fn failure(left: Left) -> Failure {
    Failure {
        step: StepName::Smoke,
        text: "500".to_owned(),
        output: String::new(),
        left,
        measured: Measured::default(),
        current: None,
    }
}

/// The nodes that are ordered something, `n1 update` or `n1 prepare`.
pub(crate) fn ordered(made: &Step) -> String {
    let orders = made.orders.iter().filter_map(|order| match order {
        Order::Prepare { node, attempt } => Some(format!("prepare {node}#{attempt}")),
        Order::Update { node, attempt, to, .. } => Some(format!("update {node}#{attempt} {to}")),
        Order::Run { node, attempt } => Some(format!("run {node}#{attempt}")),
        Order::Once { node, attempt } => Some(format!("once {node}#{attempt}")),
        Order::Settle { node } => Some(format!("settle {node}")),
        Order::WakeAt(_) => None,
    });
    orders.collect::<Vec<_>>().join(", ")
}

/// A command on these nodes, so many at once, begun.
fn command(texts: &[&str], batch: u32, max_failures: u32) -> Story {
    let strategy = Strategy {
        batch: vec![number(batch)],
        order: StartOrder::StartFirst,
        max_failures: Tolerance::Number(max_failures),
        ..one_by_one()
    };
    let targets = targets(texts);
    let plan = plan(&targets, &strategy, &release(0), true);
    let Rollout { spec, .. } = admitted(texts, strategy);
    let (kind, batches) = (Kind::Run, plan.batches.clone());
    let spec = Spec { kind, to: release(0), batches, ..spec };
    let rollout = Rollout::new(spec, Head::new(plan.in_traffic), plan.nodes(&targets));
    let mut story = Story::from(rollout);
    story.hear(What::Started);
    story
}

fn asked(story: &Story) -> String {
    ordered(&Step { orders: crate::outstanding(&story.rollout), ..Step::default() })
}

#[test]
fn a_command_runs_batch_by_batch_and_moves_nothing() {
    let mut story = command(&["n1", "n2 out", "n3 offline", "n4"], 2, 0);
    let before: Vec<_> = story.rollout.nodes().values().map(|node| node.runs.clone()).collect();
    assert_eq!(asked(&story), "run n1#1, run n2#1", "who is down first, offline nodes never");
    assert_eq!(story.rollout.head.least_in_traffic, 2, "nobody leaves traffic for it");
    story.done("n1");
    story.observe("n3");
    story.done("n2");
    assert_eq!(asked(&story), "run n4#1", "who comes back later missed it");
    story.observe("n1 current");
    story.done("n4");
    assert_eq!(story.stands(), "completed");
    assert!(!story.rollout.becomes_current());
    let runs = story.rollout.nodes().values().map(|node| node.runs.clone());
    assert_eq!(runs.skip(1).collect::<Vec<_>>(), before[1..]);
}

#[test]
fn a_command_that_fails_goes_no_further_and_holds_nobody_up() {
    for (max_failures, expected) in [(0, "failed"), (1, "partial")] {
        let mut story = command(&["n1", "n2", "n3"], 1, max_failures);
        story.fail("n1", Left::Untouched);
        while let Some(node) = story.updating().split(' ').next().filter(|node| !node.is_empty()) {
            let node = node.to_owned();
            story.done(&node);
        }
        assert_eq!(story.stands(), expected, "{max_failures} are borne");
    }
    let mut story = command(&["n1", "n2", "n3"], 2, 0);
    story.fail("n1", Left::Untouched);
    assert_eq!(story.stands(), "rolling", "what is under way ends first");
    story.done("n2");
    assert_eq!(story.stands(), "partial");
}

#[test]
fn a_command_waits_its_turn_and_is_tried_again_only_when_asked() {
    let mut story = command(&["n1 busy", "n2"], 1, 1);
    assert_eq!(story.stands(), "held: another rollout is updating n1");
    story.observe("n1");
    assert_eq!(asked(&story), "run n1#1");
    story.fail("n1", Left::Untouched);
    assert_eq!(asked(&story), "run n2#1");
    story.ask(Verb::Retry(Vec::new()));
    story.done("n2");
    assert_eq!(asked(&story), "run n1#2", "a new attempt, by an operator's word");
    story.done("n1");
    assert_eq!(story.stands(), "completed");
    let refused = crate::verbs::allow(&command(&["n1"], 1, 0).rollout, &Verb::Rollback);
    assert!(refused.unwrap_err().reason.contains("runs a command"));
}

/// Who failed to fetch is asked again, and goes away, while the once-per-release job runs.
#[test]
fn who_comes_back_during_the_once_per_release_job_is_asked_to_fetch() {
    let mut rollout = admitted(&["n1", "n2"], one_by_one());
    rollout.spec.once = true;
    rollout.spec.strategy.max_failures = Tolerance::Number(1);
    let mut story = Story::from(rollout);
    story.hear(What::Started);
    story.fail("n2", Left::Untouched);
    story.say("n1", Report::Prepared);
    assert_eq!(asked(&story), "once n1#1");
    story.ask(Verb::Retry(Vec::new()));
    story.observe("n2 offline");
    assert_eq!(ordered(&story.observe("n2")), "prepare n2#3");
    assert_eq!(asked(&story), "prepare n2#3, once n1#1");
}

#[test]
fn nothing_is_changed_after_the_end() {
    let mut story = Story::prepared(&["n1"], one_by_one());
    story.done("n1");
    assert_eq!(story.stands(), "completed");
    for what in [What::Tick, What::Frozen(Some("x".to_owned())), What::Started] {
        assert_eq!(story.hear(what), Step::default());
    }
    assert_eq!(crate::outstanding(&story.rollout), []);
}

#[test]
fn a_step_changes_only_what_changed() {
    let mut story = Story::prepared(&["n1", "n2", "n3"], one_by_one());
    story.say("n1", Report::Began { step: StepName::Drain, in_flight: 3 });
    let made = story.say("n1", Report::Began { step: StepName::Stop, in_flight: 0 });
    let changed: BTreeMap<_, _> = made
        .changes
        .iter()
        .map(|change| match change {
            Change::Head(_) => ("head".to_owned(), ()),
            Change::Node(name, _) => (name.to_string(), ()),
        })
        .collect();
    assert_eq!(changed.into_keys().collect::<Vec<_>>(), ["n1"]);
    assert_eq!(made.orders, []);
}

/// An owner that repeats everything: the same orders, whoever asks, until they are answered.
#[test]
fn what_is_outstanding() {
    let mut story = Story::from(admitted(&["n1", "n2"], one_by_one()));
    let rows = |story: &Story| {
        let mut orders = crate::outstanding(&story.rollout);
        orders.retain(|order| !matches!(order, Order::WakeAt(_)));
        let names = story.rollout.nodes().keys();
        let each = names.flat_map(|name| crate::outstanding_of(&story.rollout, name));
        assert_eq!(each.collect::<Vec<_>>(), orders, "node by node it is the same");
        ordered(&Step { orders, ..Step::default() })
    };
    assert_eq!(rows(&story), "");
    story.hear(What::Started);
    assert_eq!(rows(&story), "prepare n1#1, prepare n2#1");
    story.say("n1", Report::Prepared);
    assert_eq!(rows(&story), "prepare n2#1");
    story.say("n2", Report::Prepared);
    assert_eq!(rows(&story), "update n1#1 1.1.0");
    story.say("n1", Report::Joined(Measured::default()));
    assert_eq!(rows(&story), "update n1#1 1.1.0");
    story.done("n1");
    assert_eq!(rows(&story), "update n2#1 1.1.0");
    story.ask(Verb::Rollback);
    assert_eq!(rows(&story), "update n2#1 1.1.0", "what runs forward ends first");
    story.fail("n2", Left::Restored);
    assert_eq!(rows(&story), "update n1#2 1.0.0");
    story.done("n1");
    assert_eq!(story.stands(), "rolled_back");
}

/// Reports of another attempt, of a stranger, twice, and much too late.
#[test]
fn reports_that_mean_nothing() {
    let mut story = Story::prepared(&["n1", "n2"], one_by_one());
    let report = |node: &str, attempt: u32, report| What::Reported {
        node: name(node),
        attempt: Attempt(attempt),
        report,
    };
    for what in [
        report("n1", 0, Report::Done(Measured::default())),
        report("n1", 2, Report::Done(Measured::default())),
        report("n2", 1, Report::Done(Measured::default())), // ready, but not ordered
        report("n2", 1, Report::Joined(Measured::default())),
        report("x9", 1, Report::Done(Measured::default())),
        report("n1", 1, Report::Prepared),
        report("n2", 1, Report::Broken { cause: String::new(), output: String::new() }),
    ] {
        assert_eq!(story.hear(what.clone()), Step::default(), "{what:?}");
    }
    story.done("n1");
    assert_eq!(story.done("n1"), Step::default(), "a repeat");
    assert_eq!(story.fail("n1", Left::Out), Step::default(), "too late to fail");
}
