//! Every verb of nodes, environments, releases and controllers, and every way to start a rollout, in every state that
//! they tell apart: tables of `docs/verbs.md`, compared with what the code says. `ROTA_BLESS=1` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use rota_rollout::names::{Span, Timestamp};
use rota_rollout::node::{Failure, Left, Measured, Report, StepName};
use rota_rollout::rollout::Kind;
use rota_rollout::strategy::Amount;
use rota_rollout::{Attempt, What};

use crate::access::{Action, Role};
use crate::engine::own::Service;
use crate::engine::records::{AgentRecord, AppRecord, Current, FleetRecord, ReleaseRecord};
use crate::engine::{
    Agent, AgentKey, Answer, Ask, Asked, Batch, Drain, RunAsked, Start, State, Turn,
};

/// The tables and the sentences lie between these lines.
const BEGIN: &str = "<!-- from here on written by a test of the engine: ROTA_BLESS=1 -->\n";
const END: &str = "<!-- to here -->\n";

const NODES: [&str; 3] = ["web-01", "web-02", "web-03"];

fn release(version: &str, letter: char, more: &str) -> ReleaseRecord {
    let manifest = format!(
        "app = \"shop\"\n[artifact]\npath = \"dist\"\n[run]\ncommand = [\"./shop\"]\n\
         port = \"auto\"\n[traffic]\nvia = \"none\"\n[target]\nroles = [\"web\"]\n{more}\n"
    );
    ReleaseRecord {
        app: "shop".parse().unwrap(),
        version: version.parse().unwrap(),
        digest: letter.to_string().repeat(64).parse().unwrap(),
        size: 1,
        format: "tar".to_owned(),
        manifest,
        manifest_name: "rota.toml".to_owned(),
        created: Timestamp(1),
        who: "ann".to_owned(),
    }
}

/// 0.9.0 was there before; 2.0.0 has no way back; 0.5.0 nobody needs.
fn releases() -> [ReleaseRecord; 5] {
    let one = "[strategy]\nbatch = 1\nmonitor = \"0s\"";
    let fence =
        format!("{one}\non_failure = \"rollback\"\n[compatibility]\nrollback_to = \">=2.0.0\"");
    [
        release("0.5.0", '5', one),
        release("0.9.0", '9', one),
        release("1.0.0", 'a', one),
        release("1.1.0", 'b', &format!("{one}\nrehearse_rollback = true")),
        release("2.0.0", 'c', &fence),
    ]
}

fn node(zone: &str) -> Agent {
    let app = AppRecord {
        app: "shop".parse().unwrap(),
        release: Some(releases()[2].release()),
        health: "healthy".to_owned(),
        traffic: "in".to_owned(),
    };
    let record = AgentRecord {
        env: "prod".to_owned(),
        roles: vec!["web".to_owned()],
        labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
        labels_set: BTreeMap::new(),
        address: String::new(),
        traffic_address: String::new(),
        pools: Vec::new(),
        version: String::new(),
        drained: false,
        apps: vec![app],
        last_seen: Timestamp(1),
        offline: false,
    };
    Agent::unheard(record, Timestamp(1), true)
}

/// 1.0.0 is current on three nodes.
fn at_rest() -> State {
    let mut state = State { name: "c1".to_owned(), ..State::default() };
    for name in NODES {
        state.agents.insert(AgentKey::Node(name.parse().unwrap()), node("a"));
    }
    let edge = AgentRecord { roles: Vec::new(), apps: Vec::new(), ..node("a").record };
    let edge = Agent { record: edge, ..node("a") };
    state.agents.insert(AgentKey::Edge("lb-01".parse().unwrap()), edge);
    let mut fleet = FleetRecord::new(rota_rollout::Revision(2));
    let all = releases();
    fleet.currents = (1_u64..)
        .zip(&all[1..3])
        .map(|(revision, release)| Current {
            revision: rota_rollout::Revision(revision),
            release: release.release(),
            declared: None,
        })
        .collect();
    state.fleets.insert(("shop".parse().unwrap(), "prod".parse().unwrap()), fleet);
    for release in all {
        state.releases.insert((release.app.clone(), release.version.clone()), release);
    }
    state
}

fn turn<T>(state: &mut State, deed: impl FnOnce(&mut Turn<'_>) -> T) -> T {
    let mut batch = Batch::default();
    let at = Timestamp(1_000_000); // a Thursday, 00:16 UTC
    let mut turn = Turn { state, batch: &mut batch, at, started: Timestamp(1) };
    turn.windows_moved();
    deed(&mut turn)
}

fn ask(state: &mut State, ask: Ask) -> Answer {
    turn(state, |turn| turn.asked(Asked { who: "ann".to_owned(), ask, forwarded: false }))
}

fn start(kind: Kind, version: &str) -> Start {
    let run = (kind == Kind::Run).then(|| RunAsked {
        argv: vec!["true".to_owned()],
        timeout: Span::seconds(9),
        on: Vec::new(),
        batch: Amount::try_from(1).unwrap(),
        max_failures: 0,
    });
    let version = (!version.is_empty()).then(|| version.parse().unwrap());
    let start = Start::new("shop".parse().unwrap(), "prod".parse().unwrap(), kind);
    Start { version, run, ..start }
}

fn forced(start: Start) -> Start {
    Start { break_fence: true, message: "the new format".to_owned(), ..start }
}

fn converge() -> Start {
    let only = Some([NODES[0].parse().unwrap()].into_iter().collect());
    Start { only, ..start(Kind::Deploy, "") }
}

fn service(draining: bool, force: bool) -> Ask {
    Ask::Serve(Service { name: "c1".parse().unwrap(), draining, force, handover: false })
}

fn drain(name: &str) -> Ask {
    Ask::DrainNode { name: name.parse().unwrap(), asked: Drain::default() }
}

fn label(value: &str) -> Ask {
    let labels = BTreeMap::from([("zone".to_owned(), value.to_owned())]);
    Ask::LabelNode { name: NODES[0].parse().unwrap(), labels }
}

fn freeze() -> Ask {
    Ask::Freeze { env: "prod".parse().unwrap(), why: "sale".to_owned(), until: None }
}

fn window() -> Ask {
    let (env, why) = ("prod".parse().unwrap(), String::new());
    Ask::AddWindow { env, window: "Mon 22:00-23:00 UTC".parse().unwrap(), why }
}

#[expect(clippy::type_complexity, reason = "rows of a table")]
const VERBS: [(&str, fn() -> Ask); 21] = [
    ("deploy", || Ask::Start(start(Kind::Deploy, "1.1.0"))),
    ("deploy --supersede", || {
        Ask::Start(Start { supersede: true, ..start(Kind::Deploy, "1.1.0") })
    }),
    ("rollout undo", || Ask::Start(start(Kind::Undo, ""))),
    ("restart", || Ask::Start(start(Kind::Restart, ""))),
    ("run", || Ask::Start(start(Kind::Run, ""))),
    ("node converge", || Ask::Start(converge())),
    ("node drain", || drain(NODES[0])),
    ("node drain EDGE", || drain("lb-01")),
    ("node undrain", || Ask::UndrainNode { name: NODES[0].parse().unwrap() }),
    ("node label", || label("b")),
    ("node label, as it is", || label("a")),
    ("node rm", || Ask::MayRemove(AgentKey::Node(NODES[0].parse().unwrap()))),
    ("env freeze", freeze),
    ("env unfreeze", || Ask::Unfreeze { env: "prod".parse().unwrap() }),
    ("env window add", window),
    ("env window rm", || Ask::RemoveWindow { env: "prod".parse().unwrap(), which: "1".into() }),
    ("release push, another artifact", || Ask::Push(release("1.1.0", 'f', ""))),
    ("release rm, of 1.0.0", || Ask::RemoveRelease {
        app: "shop".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
    }),
    ("release rm, of 0.5.0", || Ask::RemoveRelease {
        app: "shop".parse().unwrap(),
        version: "0.5.0".parse().unwrap(),
    }),
    ("controller drain --force", || service(true, true)),
    ("controller undrain", || service(false, false)),
];

fn after(asks: impl IntoIterator<Item = Ask>) -> State {
    let mut state = at_rest();
    for wanted in asks {
        ask(&mut state, wanted).unwrap();
    }
    state
}

/// A rollout under way, and what its nodes have reported.
fn rolling(start: Start, reports: &[(&str, Report)]) -> State {
    let mut state = after([Ask::Start(start)]);
    let id = state.rollouts.keys().next().unwrap().clone();
    let hear = |state: &mut State, node: &str, report: &Report| {
        let (node, attempt) = (node.parse().unwrap(), Attempt(1));
        let what = What::Reported { node, attempt, report: report.clone() };
        turn(state, |turn| turn.step(&id, what));
    };
    NODES.iter().for_each(|node| hear(&mut state, node, &Report::Prepared));
    reports.iter().for_each(|(node, report)| hear(&mut state, node, report));
    state
}

fn failed() -> Report {
    Report::Failed(Failure {
        step: StepName::Smoke,
        text: "500".to_owned(),
        output: String::new(),
        left: Left::Restored,
        measured: Measured::default(),
        current: None,
    })
}

fn states() -> Vec<(&'static str, State)> {
    let done = || Report::Done(Measured::default());
    let mut nothing = at_rest();
    nothing.fleets.clear();
    nothing.agents.values_mut().for_each(|agent| agent.record.apps.clear());
    let mut offline = at_rest();
    offline.agents.get_mut(&AgentKey::Node(NODES[1].parse().unwrap())).unwrap().online = false;
    let gone = after([Ask::ForgetAgent(AgentKey::Node(NODES[0].parse().unwrap()))]);
    let deploy = |version: &str| start(Kind::Deploy, version);
    vec![
        ("at rest", at_rest()),
        ("nothing deployed", nothing),
        ("a rollout runs", rolling(deploy("1.1.0"), &[])),
        ("rehearsing the way back", rolling(deploy("1.1.0"), &[("web-01", done())])),
        (
            "held: fence",
            rolling(forced(deploy("2.0.0")), &[("web-01", done()), ("web-02", failed())]),
        ),
        ("a command runs", rolling(start(Kind::Run, ""), &[])),
        ("frozen", after([freeze()])),
        ("outside the windows", after([window()])),
        ("web-01 drained", after([drain(NODES[0])])),
        ("web-02 drained", after([drain(NODES[1])])),
        ("web-02 offline", offline),
        ("web-01 removed", gone),
        ("controller drained", after([service(true, true)])),
    ]
}

/// What a verb comes to: done, nothing to do, or refused.
enum Cell {
    Done,
    Nothing(String),
    Refused(String),
}

fn cell(state: &str, word: &str, answer: Answer) -> Cell {
    match answer {
        Ok(value) => match value["text"].as_str() {
            Some(text) if text.contains("already") => Cell::Nothing(text.to_owned()),
            Some(_) | None => Cell::Done,
        },
        Err(error) => {
            let told = format!("{state}, {word}: {} ({})", error.message, error.hint);
            assert!(matches!(error.kind.as_str(), "refused" | "not_found"), "{told}");
            assert!(!error.message.is_empty() && !error.hint.is_empty(), "{told}");
            Cell::Refused(format!("error: {}\n    hint: {}", error.message, error.hint))
        }
    }
}

/// The verbs are the rows here, since there are more of them than states.
fn page() -> String {
    let mut table = String::from("\n| |");
    let names: Vec<&str> = states().iter().map(|(name, _)| *name).collect();
    names.iter().for_each(|name| write!(table, " {name} |").unwrap());
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(names.len()));
    let mut sentences = String::new();
    for (word, verb) in VERBS {
        write!(table, "\n| {word} |").unwrap();
        let mut told: Vec<(String, Vec<&str>)> = Vec::new();
        for (name, mut state) in states() {
            let (mark, text) = match cell(name, word, ask(&mut state, verb())) {
                Cell::Done => ("yes", None),
                Cell::Nothing(text) => ("nothing to do", Some(text)),
                Cell::Refused(text) => ("", Some(text)),
            };
            write!(table, " {mark} |").unwrap();
            let Some(text) = text else { continue };
            match told.iter_mut().find(|(known, _)| *known == text) {
                Some((_, names)) => names.push(name),
                None => told.push((text, vec![name])),
            }
        }
        if !told.is_empty() {
            write!(sentences, "\n### {word}\n").unwrap();
        }
        for (text, names) in told {
            write!(sentences, "\n{}:\n\n    {text}\n", names.join(", ")).unwrap();
        }
    }
    format!("{table}\n{}{sentences}\n", roles())
}

/// Who may do what, by role.
fn roles() -> String {
    let mut table = String::from("\n| to | viewer | deployer | admin |\n|---|---|---|---|");
    for action in Action::ALL {
        write!(table, "\n| {} |", action.in_words()).unwrap();
        for role in Role::ALL {
            table.push_str(if role >= action.role() { " yes |" } else { "  |" });
        }
    }
    table + "\n"
}

#[test]
fn the_page_says_what_the_code_does() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../docs/verbs.md"].iter().collect();
    let there = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = there.split_once(BEGIN).unwrap();
    let (body, foot) = rest.split_once(END).unwrap();
    if std::env::var_os("ROTA_BLESS").is_some() {
        let page = page();
        return std::fs::write(&path, format!("{head}{BEGIN}{page}{END}{foot}")).unwrap();
    }
    assert_eq!(body, page(), "`ROTA_BLESS=1 cargo test -p rota matrix` writes it anew");
}

/// What is asked for twice is said to be so already, or refused with what would be right; and changes nothing more.
#[test]
fn what_is_asked_for_twice() {
    let unfrozen = || Ask::Unfreeze { env: "prod".parse().unwrap() };
    let undrain = || Ask::UndrainNode { name: NODES[0].parse().unwrap() };
    #[expect(clippy::type_complexity, reason = "rows of a table")]
    let rows: [(&str, Vec<Ask>, Box<dyn Fn() -> Ask>); 8] = [
        ("drain", vec![], Box::new(|| drain(NODES[0]))),
        ("undrain", vec![drain(NODES[0])], Box::new(undrain)),
        ("label", vec![], Box::new(|| label("b"))),
        ("freeze", vec![], Box::new(freeze)),
        ("unfreeze", vec![freeze()], Box::new(unfrozen)),
        ("window add", vec![], Box::new(window)),
        ("controller drain", vec![], Box::new(|| service(true, true))),
        ("controller undrain", vec![service(true, true)], Box::new(|| service(false, false))),
    ];
    for (word, before, verb) in rows {
        let mut state = after(before);
        let first = ask(&mut state, verb());
        assert!(matches!(cell("once", word, first.clone()), Cell::Done), "{word}");
        let again = ask(&mut state, verb());
        assert_ne!(first, again, "{word} is done twice without a word");
        cell("twice", word, again);
    }
}
