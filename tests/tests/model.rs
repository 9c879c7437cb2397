//! Every interleaving of two controllers, two nodes and what may go wrong between them; see `model/mod.rs`.
//!
//! `ROTA_MODEL=whole cargo test --release -p rota-tests --test model -- --nocapture` lets more go wrong in one run,
//! which takes minutes.

#[path = "../model/mod.rs"]
mod model;

use std::collections::BTreeSet;

use model::real::Real;
use model::{Flaw, Left, World};
use stateright::{Checker, HasDiscoveries, Model};

const NONE: Left =
    Left { crashes: 0, leases: 0, breaks: 0, repeats: 0, answers: 0, handovers: 0, failures: 0 };

/// What may go wrong in one run, in every run of the tests.
const TOGETHER: [(&str, Left); 7] = [
    ("a crash, a lease that ends", Left { crashes: 1, leases: 1, ..NONE }),
    ("a crash, a broken session, a repeat", Left { crashes: 1, breaks: 1, repeats: 1, ..NONE }),
    ("a lease that ends, a broken session", Left { leases: 1, breaks: 1, ..NONE }),
    ("a lease that ends, a repeat", Left { leases: 1, repeats: 1, ..NONE }),
    ("a lease that ends, a lost answer", Left { leases: 1, answers: 1, ..NONE }),
    ("a crash, a handover, a failure", Left { crashes: 1, handovers: 1, failures: 1, ..NONE }),
    ("a lease that ends, a failure", Left { leases: 1, failures: 1, ..NONE }),
];

/// The same, when there is time.
const WHOLE: [(&str, Left); 2] = [
    (
        "a crash, a lease that ends, a broken session, a repeat",
        Left { crashes: 1, leases: 1, breaks: 1, repeats: 1, ..NONE },
    ),
    (
        "a lease that ends, a lost answer, a handover, a failure",
        Left { leases: 1, answers: 1, handovers: 1, failures: 1, ..NONE },
    ),
];

const LATER: &str = "it completes in a later term";

/// Explores everything; says how much that was. Gives back what it found, with the deeds that lead there.
fn explore(what: &str, left: Left, flaw: Option<Flaw>) -> Vec<(&'static str, String)> {
    let began = std::time::Instant::now();
    let world = World { real: Real::new(), may_go_wrong: left, flaw };
    let all = HasDiscoveries::AllOf(BTreeSet::from(["there is no such property: go on"]));
    let stop = if flaw.is_some() { HasDiscoveries::AnyFailures } else { all };
    // One thread finds the same counterexample every time.
    let threads = if flaw.is_some() { 1 } else { 2 };
    let checker = world.checker().threads(threads).finish_when(stop).spawn_bfs().join();
    let (states, deep, took) =
        (checker.unique_state_count(), checker.max_depth(), began.elapsed().as_secs_f32());
    println!("{what}: {states} states, at most {deep} deeds, {took:.1} s");
    let told = |(name, path): (&'static str, stateright::Path<_, model::Deed>)| {
        let deeds = path.into_actions().into_iter().map(|deed| format!("  {deed:?}\n"));
        (name, deeds.collect::<String>())
    };
    checker.discoveries().into_iter().map(told).collect()
}

#[test]
fn whatever_goes_wrong_the_promises_hold() {
    let whole = std::env::var_os("ROTA_MODEL").is_some();
    for (what, left) in TOGETHER.iter().chain(WHOLE.iter().filter(|_| whole)) {
        let found = explore(what, *left, None);
        let wrong: Vec<_> = found.iter().filter(|(name, _)| *name != LATER).collect();
        for (name, deeds) in &wrong {
            println!("broken: {name}\n{deeds}");
        }
        assert!(wrong.is_empty(), "{what}: see above");
        assert_eq!(found.len(), 1, "{what}: no run of it completes in a later term");
    }
}

/// A model that cannot fail shows nothing: without a piece of the design it must find what that piece is for.
#[test]
fn without_any_piece_of_the_design_a_promise_breaks() {
    let lease = Left { leases: 1, ..NONE };
    let durable = "an owner knows what is durable";
    for (flaw, left, broken) in [
        (Flaw::CommitsWithoutFence, lease, durable),
        (Flaw::ClaimsFromTheLiving, NONE, durable),
        (Flaw::ClaimsInTheSameTerm, lease, "no two processes commit in one term"),
        (Flaw::ClaimsWithoutReading, lease, durable),
        (Flaw::AgentIgnoresTerms, lease, "an order of an older term is never carried out"),
        (Flaw::NeverOrdersAgain, lease, "it comes to its end"),
        (Flaw::NeverAsksAgain, lease, "it comes to its end"),
    ] {
        let found = explore(&format!("{flaw:?}"), left, Some(flaw));
        let deeds = found.iter().find(|(name, _)| *name == broken).map(|(_, deeds)| deeds);
        let Some(deeds) = deeds else { panic!("{flaw:?}: \"{broken}\" holds; found: {found:?}") };
        println!("{flaw:?} breaks \"{broken}\":\n{deeds}");
    }
}
