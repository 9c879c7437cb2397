//! What a plan prints is what a start does: compared over random fleets and strategies, to the node and to the refusal.

use std::collections::BTreeMap;

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use rota_rollout::names::Timestamp;
use rota_rollout::node::Phase;
use rota_rollout::rollout::Kind;
use rota_rollout::{Digest, Version};
use serde_json::Value;

use super::Start;
use crate::engine::records::{
    AgentRecord, AppRecord, Current, EnvRecord, FleetRecord, Freeze, ReleaseRecord,
};
use crate::engine::{Agent, AgentKey, Batch, State, Turn};

fn digest(letter: char) -> Digest {
    letter.to_string().repeat(64).parse().unwrap()
}

fn release(version: &str, letter: char, strategy: &str) -> ReleaseRecord {
    let manifest = format!(
        "app = \"shop\"\n[artifact]\npath = \"dist\"\n\
         [run]\ncommand = [\"./shop\"]\nport = \"auto\"\n\
         [traffic]\nvia = \"none\"\n[target]\nroles = [\"web\"]\n[strategy]\n{strategy}\n"
    );
    ReleaseRecord {
        app: "shop".parse().unwrap(),
        version: version.parse().unwrap(),
        digest: digest(letter),
        size: 1,
        format: "tar".to_owned(),
        manifest,
        manifest_name: "rota.toml".to_owned(),
        created: Timestamp(1),
        who: "ann".to_owned(),
    }
}

/// A node of which the number says how it stands.
fn agent(kind: u8, zone: u8, old: &ReleaseRecord, new: &ReleaseRecord) -> Agent {
    let runs = match kind {
        0 => None,
        1 => Some(new.release()),
        _ => Some(old.release()),
    };
    let (health, traffic) = if kind == 2 { ("unhealthy", "out") } else { ("healthy", "in") };
    let app = runs.map(|release| AppRecord {
        app: "shop".parse().unwrap(),
        release: Some(release),
        health: health.to_owned(),
        traffic: if kind == 3 { "out".to_owned() } else { traffic.to_owned() },
    });
    let record = AgentRecord {
        env: "prod".to_owned(),
        roles: vec![if kind == 5 { "db".to_owned() } else { "web".to_owned() }],
        labels: BTreeMap::from([("zone".to_owned(), format!("z{zone}"))]),
        labels_set: BTreeMap::new(),
        address: String::new(),
        traffic_address: String::new(),
        pools: Vec::new(),
        version: String::new(),
        drained: kind == 3,
        apps: app.into_iter().collect(),
        last_seen: Timestamp(1),
        offline: false,
    };
    Agent::unheard(record, Timestamp(1), kind != 4)
}

fn start(kind: Kind) -> Start {
    Start {
        version: (kind == Kind::Deploy).then(|| "1.1.0".parse::<Version>().unwrap()),
        ..Start::new("shop".parse().unwrap(), "prod".parse().unwrap(), kind)
    }
}

fn turn<T>(state: &mut State, deed: impl FnOnce(&mut Turn<'_>) -> T) -> T {
    let mut batch = Batch::default();
    let at = Timestamp(1_000_000);
    deed(&mut Turn { state, batch: &mut batch, at, started: Timestamp(1) })
}

fn texts(value: &Value) -> Vec<String> {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}

/// Plans, then starts the same, and compares.
fn check(nodes: &[(u8, u8)], strategy: &str, kind: Kind, frozen: bool) {
    let (old, new) = (release("1.0.0", 'a', "batch = 1"), release("1.1.0", 'b', strategy));
    let mut state = State { name: "c1".to_owned(), ..State::default() };
    for (index, (kind, zone)) in nodes.iter().enumerate() {
        let key = AgentKey::Node(format!("n{index:02}").parse().unwrap());
        state.agents.insert(key, agent(*kind, *zone, &old, &new));
    }
    let mut fleet = FleetRecord::new(rota_rollout::Revision(3));
    let become_current = |revision, release: &ReleaseRecord| Current {
        revision: rota_rollout::Revision(revision),
        release: release.release(),
        declared: None,
    };
    fleet.currents = match kind {
        Kind::Deploy | Kind::Restart | Kind::Run => vec![become_current(3, &old)],
        Kind::Undo => vec![become_current(2, &new), become_current(3, &old)],
    };
    let place = ("shop".parse().unwrap(), "prod".parse().unwrap());
    state.fleets.insert(place, fleet);
    for release in [old, new] {
        state.releases.insert((release.app.clone(), release.version.clone()), release);
    }
    if frozen {
        let (why, who) = ("sale".to_owned(), "ann".to_owned());
        let freeze = Freeze { why, who, since: Timestamp(1), until: None };
        let record = EnvRecord { frozen: Some(freeze), ..EnvRecord::default() };
        state.envs.insert("prod".parse().unwrap(), record);
    }
    let plan = turn(&mut state, |turn| turn.plan_only(start(kind)));
    let started = turn(&mut state, |turn| turn.start(start(kind), "ann"));
    let (plan, started) = match (plan, started) {
        (Ok(plan), started) => (plan, started),
        (Err(plan), Err(started)) => return assert_eq!(plan, started),
        (Err(plan), Ok(_)) => panic!("it starts, and there is no plan: {plan:?}"),
    };
    let refusals = texts(&plan["refusals"]);
    let rollout = match started {
        Ok(_) => {
            assert!(refusals.is_empty(), "it starts: {refusals:?}");
            &state.rollouts.values().next().unwrap().rollout
        }
        Err(refused) => {
            assert_eq!(refusals.first(), Some(&refused.message), "{refusals:?}");
            for other in &refusals[1..] {
                assert!(refused.hint.contains(other), "{other} is not in {}", refused.hint);
            }
            return assert!(state.rollouts.is_empty() && !refused.hint.is_empty());
        }
    };
    let names = |batch: &Vec<rota_rollout::NodeName>| {
        batch.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let batches: Vec<Vec<String>> = rollout.spec.batches.iter().map(names).collect();
    let planned: Vec<Vec<String>> = plan["batches"].as_array().unwrap().iter().map(texts).collect();
    assert_eq!(batches, planned);
    assert_eq!(plan["targets"], rollout.spec.targets);
    let skipped = rollout.nodes().iter().filter_map(|(name, node)| match &node.phase {
        Phase::Skipped { why } => Some((name.to_string(), why.to_string())),
        _ => None,
    });
    let skipped: BTreeMap<String, String> = skipped.collect();
    let said = plan["skipped"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let said: BTreeMap<String, String> =
        said.map(|it| (text(&it["name"]), text(&it["why"]))).collect();
    assert_eq!(skipped, said);
    assert!(!plan["eta"]["text"].as_str().unwrap().is_empty());
}

const STRATEGIES: [&str; 8] = [
    "batch = 2",
    "batch = [1, \"50%\"]\napprove_after = [1, 9]",
    "mode = \"window\"\nbatch = 3\nspread_by = \"zone\"",
    "batch = 1\nmax_unavailable = 1",
    "batch = \"30%\"\noffline = \"wait\"\nmax_unavailable = \"40%\"",
    "batch = 2\noffline = \"fail\"\norder = \"start-first\"",
    "batch = 3\ndelay = \"10s\"\ndeadline = \"5s\"",
    "batch = 1\nrehearse_rollback = true",
];

fn settings() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn a_start_does_what_its_plan_says(
        nodes in prop::collection::vec((0..12_u8, 0..3_u8), 0..20),
        strategy in 0..STRATEGIES.len(),
        kind in 0..3_u8,
        frozen in any::<bool>(),
    ) {
        let kind = [Kind::Deploy, Kind::Undo, Kind::Restart][usize::from(kind)];
        check(&nodes, STRATEGIES[strategy], kind, frozen && strategy % 4 == 0);
    }
}
