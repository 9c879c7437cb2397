//! Whole stories of the core as text: what happens, and below it what comes of that. `scenarios/*.txt` are read like
//! code.
//!
//! A line that begins with `>` happens; the lines below it are made by the core. `ROTA_BLESS=1` writes them anew.
//!
//!     fleet n1, n2 offline, n3 @a      targets, and what the fleet says of them
//!     strategy batch 1 50%             what differs from one node at a time
//!     > n1 failed smoke restored: 500  a report; `n1#2` is one of attempt 2
//!     > n1 is offline                  what the fleet says of a node now
//!     > n4 absent joins                a node that came after the rollout was admitted, or was made anew
//!     > ann asks retry n1              a verb
//!     > ann breaks the glass: resume   a verb with --break-glass
//!     > closed: outside the windows    the windows of the environment; `opened`
//!     > at 90s                         the clock, since the start

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use rota_rollout::batches::{Target, plan};
use rota_rollout::event::OnceResult;
use rota_rollout::names::{Attempt, NodeName, Release, Revision, RolloutId, Span, Timestamp};
use rota_rollout::node::{Failure, Left, Measured, Observed, Phase, Report, Serving, StepName};
use rota_rollout::rollout::{Change, Head, Kind, Limits, Rollout, Spec};
use rota_rollout::shut::Closed;
use rota_rollout::strategy::{Amount, Deadline, Strategy, Tolerance};
use rota_rollout::verbs::{Refusal, Verb, allow, with_glass};
use rota_rollout::{Event, Order, Step, What, invariants, outstanding, step};

fn refused(refusal: &Refusal) -> String {
    format!("  refused: {}\n  hint: {}\n", refusal.reason, refusal.hint)
}

/// When every story begins.
const START: Timestamp = Timestamp(1_000_000);

#[test]
fn every_story_goes_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let bless = std::env::var_os("ROTA_BLESS").is_some();
    let files = std::fs::read_dir(&folder).expect("the folder of the stories");
    let mut paths: Vec<_> = files.map(|file| file.expect("a story").path()).collect();
    paths.sort();
    let mut wrong = Vec::new();
    for path in paths {
        let told = std::fs::read_to_string(&path).expect("a story");
        let goes = tell(&told);
        if bless {
            std::fs::write(&path, &goes).expect("a story");
        } else if goes != told {
            wrong.push(format!("{}:\n{}", path.display(), difference(&told, &goes)));
        }
    }
    assert!(wrong.is_empty(), "{}\nROTA_BLESS=1 writes them as they go now", wrong.join("\n"));
}

/// The first line that is not as told, with what came before it.
fn difference(told: &str, goes: &str) -> String {
    let (told, goes): (Vec<&str>, Vec<&str>) = (told.lines().collect(), goes.lines().collect());
    let same = told.iter().zip(&goes).take_while(|(a, b)| a == b).count();
    let before = same.saturating_sub(4);
    let after = (same + 3).min(goes.len());
    let expected = told.get(same).copied().unwrap_or("(the end)");
    format!("{}\nwas told: {expected}", goes[before..after].join("\n"))
}

/// Tells a story again: its own lines kept, what comes of them made anew.
fn tell(told: &str) -> String {
    let mut text = String::new();
    let mut given = Given::default();
    let mut story: Option<Story> = None;
    for line in told.lines() {
        if let Some(happens) = line.strip_prefix("> ") {
            let story = story.get_or_insert_with(|| Story::new(std::mem::take(&mut given)));
            writeln!(text, "{line}").expect("text");
            text.push_str(&story.happens(happens));
        } else if !line.starts_with(' ') {
            writeln!(text, "{line}").expect("text");
            match line.split_once(' ') {
                Some(("fleet", nodes)) => given.fleet = nodes.split(", ").map(target).collect(),
                Some(("strategy", asked)) => ask_for(&mut given.strategy, asked),
                Some(("once", _)) => given.once = true,
                Some(("fence", why)) => given.fence = Some(why.to_owned()),
                Some(("#", _)) | None => {}
                Some((word, _)) => panic!("`{word}` begins no line of a story: {line}"),
            }
        }
    }
    text
}

struct Given {
    fleet: Vec<Target>,
    strategy: Strategy,
    once: bool,
    fence: Option<String>,
}

impl Default for Given {
    fn default() -> Self {
        let batch = vec![Amount::try_from(1).expect("one")];
        let strategy = Strategy { batch, monitor: Span::ZERO, ..Strategy::default() };
        Self { fleet: Vec::new(), strategy, once: false, fence: None }
    }
}

fn release(minor: u32) -> Release {
    Release {
        version: format!("1.{minor}.0").parse().expect("a version"),
        digest: minor.to_string().repeat(64).parse().expect("a digest"),
    }
}

/// `n3 offline @a`.
fn target(text: &str) -> Target {
    let mut words = text.split(' ');
    let name = words.next().unwrap_or_default().parse().expect("a node's name");
    let observed =
        Observed { online: true, serving: Serving::In, busy: false, drained: false, unsure: false };
    let mut target =
        Target { name, observed, runs: Some(release(0)), spread: None, left_alone: false };
    for word in words {
        match word {
            "online" => {}
            "offline" => target.observed.online = false,
            "out" => target.observed.serving = Serving::Out,
            "absent" => (target.observed.serving, target.runs) = (Serving::Absent, None),
            "drained" => {
                target.observed = Observed { drained: true, serving: Serving::Out, ..observed }
            }
            "busy" => target.observed.busy = true,
            "current" => target.runs = Some(release(1)),
            zone => target.spread = Some(zone.trim_start_matches('@').to_owned()),
        }
    }
    target
}

/// `batch 1 50%; max_unavailable 2; on_failure rollback`.
fn ask_for(strategy: &mut Strategy, asked: &str) {
    for part in asked.split("; ") {
        let (key, value) = part.split_once(' ').expect("a key and its value");
        match key {
            "mode" => strategy.mode = word(value),
            "batch" => strategy.batch = value.split(' ').map(amount).collect(),
            "order" => strategy.order = word(value),
            "max_unavailable" => strategy.max_unavailable = Some(amount(value)),
            "delay" => strategy.delay = span(value),
            "monitor" => strategy.monitor = span(value),
            "max_failures" => {
                strategy.max_failures = Tolerance::Number(value.parse().expect("a number"));
            }
            "on_failure" => strategy.on_failure = word(value),
            "on_node_failure" => strategy.on_node_failure = word(value),
            "offline" => strategy.offline = word(value),
            "approve_after" => {
                let numbers = value.split(' ').map(|n| n.parse().expect("a number"));
                strategy.approve_after = numbers.collect();
            }
            "spread_by" => strategy.spread_by = Some(value.to_owned()),
            "rehearse_rollback" => strategy.rehearse_rollback = value == "true",
            "deadline" => strategy.deadline = Deadline::After(span(value)),
            other => panic!("there is no `{other}` in a strategy"),
        }
    }
}

fn word<T: serde::de::DeserializeOwned>(value: &str) -> T {
    serde_json::from_value(value.into()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn amount(text: &str) -> Amount {
    match text.parse::<i64>() {
        Ok(number) => Amount::try_from(number).expect("an amount"),
        Err(_) => text.parse().expect("an amount"),
    }
}

fn span(text: &str) -> Span {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
    Span::seconds(seconds.unwrap_or_else(|| panic!("`{text}`: write seconds, such as 90s")))
}

struct Story {
    rollout: Rollout,
    at: Timestamp,
    stands: String,
}

impl Story {
    fn new(given: Given) -> Self {
        let Given { fleet, strategy, once, fence } = given;
        let plan = plan(&fleet, &strategy, &release(1), false);
        assert_eq!(plan.refusals, Vec::<String>::new());
        let parsed = || ("shop".parse().expect("an app"), "prod".parse().expect("an environment"));
        let (app, env) = parsed();
        let spec = Spec {
            id: RolloutId { app, env, revision: Revision(7) },
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
            once,
            fence,
            started: START,
            who: "ann".to_owned(),
            message: String::new(),
        };
        let rollout = Rollout::new(spec, Head::new(plan.in_traffic), plan.nodes(&fleet));
        Self { rollout, at: START, stands: String::new() }
    }

    /// What comes of a line.
    fn happens(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let what = match words[..] {
            ["started"] => What::Started,
            ["at", time] => {
                self.at = START.after(span(time));
                What::Tick
            }
            ["frozen:", ..] => What::Frozen(Some(line["frozen: ".len()..].to_owned())),
            ["thawed"] => What::Frozen(None),
            ["closed:", ..] => {
                let text = line["closed: ".len()..].to_owned();
                What::Closed(Some(Closed { text, opens: self.at.after(Span::seconds(3600)) }))
            }
            ["opened"] => What::Closed(None),
            [who, "breaks", "the", "glass:", verb, ref nodes @ ..] => {
                let nodes = nodes.iter().map(|node| node.parse().expect("a node")).collect();
                return match with_glass(&self.rollout, verb_of(verb, nodes)) {
                    Ok(verbs) => verbs.into_iter().map(|verb| self.asked(verb, who)).collect(),
                    Err(refusal) => refused(&refusal),
                };
            }
            ["edges", "offline:", ref edges @ ..] => {
                let names = edges.iter().map(|edge| edge.parse().expect("an edge"));
                What::EdgesOffline(names.collect())
            }
            ["the", "controller", "restarts"] => {
                let orders = outstanding(&self.rollout);
                return self.render(&Step { orders, ..Step::default() });
            }
            [who, "asks", verb, ref nodes @ ..] => {
                let nodes = nodes.iter().map(|node| node.parse().expect("a node")).collect();
                let verb = verb_of(verb, nodes);
                if let Err(refusal) = allow(&self.rollout, &verb) {
                    return refused(&refusal);
                }
                What::Asked { verb, who: who.to_owned() }
            }
            [_, .., "joins"] => {
                What::Newcomer(target(line.strip_suffix(" joins").unwrap_or_default()))
            }
            [node, "is", ..] => {
                let Target { name, observed, runs, .. } = target(&line.replacen(" is", "", 1));
                assert_eq!(name.as_str(), node);
                What::Observed { node: name, observed, runs }
            }
            [node, "once", ref result @ ..] => {
                let (node, attempt) = self.node(node);
                What::OnceEnded { node, attempt, result: once(result) }
            }
            [node, ref report @ ..] => {
                let (node, attempt) = self.node(node);
                What::Reported { node, attempt, report: report_of(report) }
            }
            [] => panic!("an empty line happens"),
        };
        self.steps(what, line)
    }

    fn asked(&mut self, verb: Verb, who: &str) -> String {
        let line = verb.to_string();
        self.steps(What::Asked { verb, who: who.to_owned() }, &line)
    }

    fn steps(&mut self, what: What, line: &str) -> String {
        let made = step(&self.rollout, &Event { at: self.at, what });
        self.rollout.apply(made.changes.clone());
        let wrong = invariants::violations(&self.rollout);
        assert!(wrong.is_empty(), "{line}: {wrong:?}");
        self.render(&made)
    }

    /// `n1` speaks of its newest attempt, `n1#2` of that one.
    fn node(&self, text: &str) -> (NodeName, Attempt) {
        let (name, attempt) = text.split_once('#').unwrap_or((text, ""));
        let name: NodeName = name.parse().expect("a node's name");
        let newest = self.rollout.nodes().get(&name).map_or(Attempt(0), |node| node.attempt);
        (name, attempt.parse().map_or(newest, Attempt))
    }

    fn render(&mut self, made: &Step) -> String {
        let mut text = String::new();
        for note in &made.notes {
            let about = note.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
            writeln!(text, "  {about}{}", note.text).expect("text");
        }
        for change in &made.changes {
            if let Change::Node(name, node) = change {
                writeln!(text, "  {name} = {}", phase(&node.phase)).expect("text");
            }
        }
        for order in &made.orders {
            writeln!(text, "  -> {}", order_text(order)).expect("text");
        }
        let stands = self.stands();
        if stands != self.stands {
            writeln!(text, "  [{stands}]").expect("text");
            self.stands = stands;
        }
        if text.is_empty() { "  nothing\n".to_owned() } else { text }
    }

    fn stands(&self) -> String {
        let state = self.rollout.state();
        match &self.rollout.head.held {
            Some(held) => {
                format!("{state}: {}; {}", held.hold, held.hold.hint(&self.rollout.spec))
            }
            None => state.to_owned(),
        }
    }
}

fn verb_of(verb: &str, nodes: Vec<NodeName>) -> Verb {
    match verb {
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "promote" => Verb::Promote,
        "abort" => Verb::Abort,
        "rollback" => Verb::Rollback,
        "retry" => Verb::Retry(nodes),
        "skip" => Verb::Skip(nodes),
        other => panic!("there is no verb `{other}`"),
    }
}

fn once(result: &[&str]) -> OnceResult {
    match result {
        ["succeeded"] => OnceResult::Succeeded,
        ["failed:", text @ ..] => {
            OnceResult::Failed { text: text.join(" "), output: String::new() }
        }
        ["is", "unknown"] => OnceResult::Unknown,
        ["never", "began"] => OnceResult::NeverBegan,
        other => panic!("a job does not end like this: {other:?}"),
    }
}

/// `failed smoke restored: 500`, `began drain 12`, `done cut 1`.
fn report_of(words: &[&str]) -> Report {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match words {
        ["prepared"] => Report::Prepared,
        ["began", step] => Report::Began { step: word::<StepName>(step), in_flight: 0 },
        ["began", step, in_flight] => {
            Report::Began { step: word::<StepName>(step), in_flight: number(in_flight) }
        }
        ["joined"] => Report::Joined(Measured::default()),
        ["done"] => Report::Done(Measured::default()),
        ["done", "cut", cut] => Report::Done(Measured { cut: number(cut), ..Measured::default() }),
        ["broke:", cause @ ..] => Report::Broken { cause: cause.join(" "), output: String::new() },
        ["failed", step, left, text @ ..] => Report::Failed(Failure {
            step: word::<StepName>(step),
            text: text.join(" "),
            output: String::new(),
            left: match *left {
                "restored:" => Left::Restored,
                "out:" => Left::Out,
                "untouched:" => Left::Untouched,
                other => panic!("nothing is left `{other}`"),
            },
            measured: Measured::default(),
            current: None,
        }),
        other => panic!("nobody reports this: {other:?}"),
    }
}

fn since_start(at: Timestamp) -> Span {
    at.since(START)
}

fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Waiting => "waiting".to_owned(),
        Phase::Preparing { deadline } => format!("preparing until {}", since_start(*deadline)),
        Phase::Ready => "ready".to_owned(),
        Phase::Updating { direction, step, deadline, takes_out } => {
            let step = step.map(|step| format!(" at {step}")).unwrap_or_default();
            let out = if *takes_out { ", taken out" } else { "" };
            format!("updating {direction:?}{step} until {}{out}", since_start(*deadline))
        }
        Phase::Monitoring { direction, deadline } => {
            format!("monitoring {direction:?} until {}", since_start(*deadline))
        }
        Phase::Done => "done".to_owned(),
        Phase::Failed { left, .. } => format!("failed, left {left:?}"),
        Phase::Skipped { why } => format!("skipped, {why:?}"),
        Phase::RolledBack => "rolled back".to_owned(),
    }
}

fn order_text(order: &Order) -> String {
    match order {
        Order::Prepare { node, attempt } => format!("prepare {node}#{attempt}"),
        Order::Update { node, attempt, direction, to } => {
            format!("update {node}#{attempt} {direction:?} to {to}")
        }
        Order::Run { node, attempt } => format!("run {node}#{attempt}"),
        Order::Once { node, attempt } => format!("once {node}#{attempt}"),
        Order::Settle { node } => format!("settle {node}"),
        Order::WakeAt(at) => format!("wake at {}", since_start(*at)),
    }
}

/// Two stories with one name would be one; a story without a reason is none.
#[test]
fn every_story_begins_with_its_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut reasons: BTreeMap<String, String> = BTreeMap::new();
    for file in std::fs::read_dir(&folder).expect("the folder of the stories") {
        let path = file.expect("a story").path();
        let text = std::fs::read_to_string(&path).expect("a story");
        let reason = text.lines().next().unwrap_or_default().to_owned();
        assert!(reason.starts_with("# "), "{} begins without a reason", path.display());
        let before = reasons.insert(reason, path.display().to_string());
        assert_eq!(before, None, "{} tells the same", path.display());
    }
    assert!(reasons.len() >= 12, "{} stories", reasons.len());
}
