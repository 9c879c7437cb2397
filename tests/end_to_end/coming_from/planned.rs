//! What pages say of percentages and batches, against the planner itself on a fleet of that size.

use regex_lite::Regex;
use rota::manifest::Manifest;
use rota_rollout::batches::{Plan, Target, plan};
use rota_rollout::names::Release;
use rota_rollout::node::{Observed, Serving};

use super::merged;

/// All that is said in a line: how many claims, and those that are wrong.
pub fn check(prose: &str, base: &str) -> (usize, Vec<String>) {
    let share = Regex::new(r"(\d+) % of ([\d,]+) = ([\d,]+)").unwrap();
    let sizes =
        Regex::new(r"`([a-z_.]+ = [^`]+)` on ([\d,]+) nodes: ([\d, ]+\d)(?:; at least (\d+))?")
            .unwrap();
    let mut claims = 0;
    let mut wrong = Vec::new();
    for claim in share.captures_iter(prose) {
        claims += 1;
        let (percent, nodes, told) = (&claim[1], number(&claim[2]), number(&claim[3]));
        let plan = planned(base, &format!("strategy.batch = \"{percent}%\""), nodes);
        let said = format!("batch: {percent} % of {nodes} = {told}");
        if !plan.notes.contains(&said) {
            wrong.push(format!("{:?}, and the plan says {:?}", &claim[0], plan.notes));
        }
    }
    for claim in sizes.captures_iter(prose) {
        claims += 1;
        let plan = planned(base, &claim[1], number(&claim[2]));
        let sizes: Vec<String> = plan.batches.iter().map(|batch| batch.len().to_string()).collect();
        let least = plan.least_in_traffic;
        let right = claim.get(4).is_none_or(|told| number(told.as_str()) == least);
        if sizes.join(", ") != claim[3] || !right {
            let sizes = sizes.join(", ");
            wrong.push(format!("{:?}, and the plan says {sizes}; at least {least}", &claim[0]));
        }
    }
    (claims, wrong)
}

fn number(text: &str) -> usize {
    text.replace(',', "").parse().unwrap()
}

/// The plan of an update with this strategy on so many nodes that all serve.
fn planned(base: &str, strategy: &str, nodes: usize) -> Plan {
    let manifest = Manifest::parse(&merged(base, strategy).unwrap(), "rota.toml").unwrap();
    let release = |version: &str| Release {
        version: version.parse().unwrap(),
        digest: "0".repeat(64).parse().unwrap(),
    };
    let observed =
        Observed { online: true, serving: Serving::In, busy: false, drained: false, unsure: false };
    let target = |number: usize| Target {
        name: format!("web-{number:05}").parse().unwrap(),
        observed,
        runs: Some(release("1.0.0")),
        spread: None,
        left_alone: false,
    };
    let targets: Vec<Target> = (1..=nodes).map(target).collect();
    plan(&targets, &manifest.base().strategy, &release("1.1.0"), false)
}
