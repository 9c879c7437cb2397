//! Random fleets, strategies, faults and operators drive the pure core; what was promised must hold after every step.
//!
//! A case is data that shrinks: the fleet, the strategy, and a list of numbers from which everything that happens is
//! drawn. When the numbers are used up, faults end, and the rollout has to end or to say what it waits for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by its panic")]

#[path = "fleets/case.rs"]
mod case;
#[path = "fleets/fleet.rs"]
mod fleet;
#[path = "fleets/promises.rs"]
mod promises;

use std::num::NonZeroU32;

use case::{Case, Place, Stands, case};
use fleet::Fleet;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use rota_rollout::Hold;
use rota_rollout::batches::plan;
use rota_rollout::names::Span;
use rota_rollout::rollout::{Outcome, Stage};
use rota_rollout::strategy::{Amount, Mode, Offline, OnFailure, Strategy};

/// Each of them is a whole rollout with everything that happens in it.
const CASES: u32 = 2_000;

fn settings() -> ProptestConfig {
    let cases = std::env::var("ROTA_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(CASES),
        failure_persistence: None, // what failed once is a named test below
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(settings())]

    /// Whatever fails and whoever interferes: the promises hold, and it ends or says why not.
    #[test]
    fn whatever_happens(case in case(), choices in prop::collection::vec(any::<u16>(), 0..400)) {
        Fleet::of(&case).live(&choices);
    }

    /// Where nothing fails, a rollout does what its plan said, to the node and to the number.
    #[test]
    fn what_the_plan_says_is_what_it_does(case in case()) {
        does_as_planned(&case);
    }

    /// Every target is in one batch or left alone, and no batch is larger than asked.
    #[test]
    fn every_target_once(case in case()) {
        let strategy = case.strategy();
        let targets = case.targets();
        let plan = plan(&targets, &strategy, &case::new(), false);
        let mut names: Vec<_> = plan.batches.iter().flatten().cloned().collect();
        names.extend(plan.skipped.iter().map(|(name, _)| name.clone()));
        names.sort();
        let mut all: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
        all.sort();
        prop_assert_eq!(names, all);
        for (index, batch) in plan.batches.iter().enumerate() {
            prop_assert!(!batch.is_empty());
            prop_assert!(batch.len() <= strategy.batch_size(index + 1, targets.len()));
        }
    }
}

/// `serves@0 out@1`, one word a target.
fn fleet(words: &str, strategy: Strategy) -> Case {
    let place = |word: &str| {
        let (stands, zone) = word.split_once('@').unwrap_or((word, "0"));
        let stands = match stands {
            "serves" => Stands::Serves,
            "out" => Stands::Out,
            "absent" => Stands::Absent,
            "offline" => Stands::Offline,
            "busy" => Stands::Busy,
            other => panic!("no target stands like `{other}`"),
        };
        Place { stands, zone: zone.parse().unwrap() }
    };
    Case { places: words.split(' ').map(place).collect(), strategy, once: false }
}

fn sizes(sizes: &[&str]) -> Strategy {
    let amount = |text: &&str| match text.parse::<i64>() {
        Ok(number) => Amount::try_from(number).unwrap(),
        Err(_) => text.parse().unwrap(),
    };
    let batch = sizes.iter().map(amount).collect();
    Strategy { batch, monitor: Span::ZERO, ..Strategy::default() }
}

/// A node that came back, went and came back once more was ordered twice in one step, and then not counted as out.
#[test]
fn who_comes_back_twice_is_ordered_once() {
    let approved = Strategy {
        on_failure: OnFailure::Continue,
        approve_after: vec![NonZeroU32::new(2).unwrap()],
        ..sizes(&["1%", "40%"])
    };
    let case = fleet("offline@1 serves busy serves serves", approved);
    Fleet::of(&case).live(&[56, 0, 1462, 6424, 32, 4832, 7392, 0, 14004]);
}

/// The plan said less than what was true, or more.
#[test]
fn plans_that_were_wrong() {
    let limited = |limit: &str, strategy| Strategy {
        max_unavailable: Some(limit.parse().unwrap()),
        ..strategy
    };
    let window = |spread: bool, strategy| Strategy {
        mode: Mode::Window,
        offline: Offline::Fail,
        on_failure: OnFailure::Continue,
        spread_by: spread.then(|| "zone".to_owned()),
        ..strategy
    };
    for (words, strategy) in [
        ("absent serves serves", limited("1%", sizes(&["2"]))),
        (
            "offline@1 out serves@1 serves serves@1 serves serves serves@1",
            limited("70%", window(true, sizes(&["4"]))),
        ),
        (
            "absent offline@1 serves serves serves serves serves offline",
            window(true, sizes(&["3"])),
        ),
    ] {
        does_as_planned(&fleet(words, strategy));
    }
}

/// Nothing fails and nobody interferes, but that approvals are given.
fn does_as_planned(case: &Case) {
    // A rehearsal takes the first batch three ways: what it costs is the same, the orders are not.
    let strategy = Strategy { rehearse_rollback: false, ..case.strategy() };
    let case = &Case { strategy, ..case.clone() };
    let planned = plan(&case.targets(), &case.strategy(), &case::new(), false);
    if !planned.refusals.is_empty() {
        return;
    }
    let mut fleet = Fleet::of(case);
    fleet.roll_in_step();
    let head = &fleet.rollout.head;
    let held = head.held.as_ref().map(|held| held.hold.clone());
    if let Some(first) = planned.holds.first() {
        if let Hold::Failures { .. } = first
            && case.strategy().on_failure == OnFailure::Rollback
        {
            return assert!(fleet.rollout.is_ended(), "it turns round, and has nowhere to go");
        }
        let kind = |hold: &Hold| hold.kind();
        assert_eq!(held.as_ref().map(kind), Some(kind(first)), "{:?}", fleet.story);
        return;
    }
    assert!(fleet.rollout.is_ended(), "it stands still, held {held:?}: {:#?}", fleet.story);
    assert_eq!(fleet.approved, planned.approvals);
    let skipped: Vec<_> = planned.skipped.iter().map(|(name, _)| name).collect();
    for (name, times) in &fleet.ordered {
        assert!(!skipped.contains(&name) && *times == 1, "{name} was ordered {times} times");
    }
    let planned_nodes: Vec<_> = planned.batches.iter().flatten().collect();
    if case.strategy().mode == Mode::Batches && fleet.rollout.tally().failed == 0 {
        let order: Vec<_> = fleet.order.iter().collect();
        let mut rest = order.as_slice();
        for batch in &planned.batches {
            let (these, others) = rest.split_at(batch.len());
            let mut these: Vec<_> = these.to_vec();
            these.sort();
            let mut wanted: Vec<_> = batch.iter().collect();
            wanted.sort();
            assert_eq!(these, wanted, "the batches are others than planned");
            rest = others;
        }
        assert_eq!(order.len(), planned_nodes.len());
        assert_eq!(head.least_in_traffic, planned.least_in_traffic, "{:#?}", fleet.story);
        for step in &planned.steps {
            let seen = fleet.least_of.get(&step.batch).copied().unwrap_or(planned.in_traffic);
            assert_eq!(seen, step.in_traffic, "in batch {}: {:#?}", step.batch, planned.steps);
        }
    } else {
        assert!(
            head.least_in_traffic >= planned.least_in_traffic,
            "{} in traffic, planned {}: {:#?}",
            head.least_in_traffic,
            planned.least_in_traffic,
            fleet.story
        );
    }
    if case.strategy().offline != Offline::Fail {
        let ended = &fleet.rollout.head.stage;
        let completed = matches!(ended, Stage::Ended { outcome: Outcome::Completed, .. });
        assert!(completed, "{ended:?}");
    }
}
