//! Plans as rows: targets and strategy on the left, batches on the right.

use crate::strategy::{Amount, Offline, StartOrder, Strategy};
use crate::tests::{number, one_by_one, release, targets, window};

use super::plan;

fn percent(text: &str) -> Amount {
    text.parse().unwrap()
}

fn batches(amounts: &[Amount]) -> Strategy {
    Strategy { batch: amounts.to_vec(), ..one_by_one() }
}

/// Batches as `n1 n2 | n3`, then who is left alone.
fn check(texts: &[&str], strategy: Strategy, expected: &str) {
    let plan = plan(&targets(texts), &strategy, &release(1), false);
    let names = |names: &Vec<crate::NodeName>| {
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut text = plan.batches.iter().map(names).collect::<Vec<_>>().join(" | ");
    for (name, why) in &plan.skipped {
        text.push_str(&format!("; {name} {why:?}"));
    }
    assert_eq!(text, expected, "{texts:?}");
}

#[test]
fn sizes() {
    let six = ["n1", "n2", "n3", "n4", "n5", "n6"];
    check(&six, batches(&[number(4)]), "n1 n2 n3 n4 | n5 n6");
    check(&six, batches(&[number(1), number(2)]), "n1 | n2 n3 | n4 n5 | n6");
    check(&six, batches(&[number(1), percent("50%")]), "n1 | n2 n3 n4 | n5 n6");
    check(&six, batches(&[percent("1%")]), "n1 | n2 | n3 | n4 | n5 | n6");
    check(&six, batches(&[percent("34%")]), "n1 n2 | n3 n4 | n5 n6");
    check(&six, batches(&[percent("100%")]), "n1 n2 n3 n4 n5 n6");
    check(&six, batches(&[number(100)]), "n1 n2 n3 n4 n5 n6");
    check(&["n1"], batches(&[number(3)]), "n1");
    check(&[], batches(&[number(3)]), "");
}

/// A percentage is of all targets, not of those that move.
#[test]
fn who_is_left_alone() {
    let skip = |offline| Strategy { offline, ..batches(&[percent("50%")]) };
    let texts = ["n1", "n2 offline", "n3 drained", "n4 current"];
    check(&texts, skip(Offline::Skip), "n1; n2 Offline; n3 Drained; n4 AlreadyCurrent");
    check(&texts, skip(Offline::Wait), "n2 n1; n3 Drained; n4 AlreadyCurrent");
    check(&texts, skip(Offline::Fail), "n2 n1; n3 Drained; n4 AlreadyCurrent");
    check(&["n1 current out"], one_by_one(), "n1");
    check(&["n1 absent", "n2 busy"], one_by_one(), "n1 | n2");
}

#[test]
fn what_is_down_goes_first() {
    check(&["n1", "n2 out", "n3"], one_by_one(), "n2 | n1 | n3");
    check(&["n1", "n2", "n3 absent"], window(2), "n3 n1 | n2");
}

#[test]
fn no_two_zones_in_one_batch() {
    let spread = |size| Strategy { spread_by: Some("zone".to_owned()), ..batches(&[number(size)]) };
    let zones = ["n1 @a", "n2 @b", "n3 @a", "n4 @b", "n5 @a"];
    check(&zones, spread(2), "n1 n3 | n5 | n2 n4");
    check(&zones, spread(9), "n1 n3 n5 | n2 n4");
    check(&["n1 @a", "n2", "n3 @a"], spread(9), "n2 | n1 n3");
    check(&["n1 @a", "n2 @b"], batches(&[number(2)]), "n1 n2");
    check(&["n1 @a", "n2 @a out"], spread(2), "n2 n1");
}

#[test]
fn the_capacity_that_it_leaves() {
    let limited = |batch, limit| Strategy { max_unavailable: Some(limit), ..batches(&[batch]) };
    let rows = [
        (vec!["n1", "n2", "n3", "n4"], batches(&[number(1)]), 4, 3),
        (vec!["n1", "n2", "n3", "n4"], batches(&[percent("50%")]), 4, 2),
        (vec!["n1", "n2", "n3", "n4"], limited(number(3), number(1)), 4, 3),
        (vec!["n1", "n2 offline", "n3", "n4"], batches(&[number(2)]), 3, 1),
        (vec!["n1", "n2 out", "n3 absent"], batches(&[number(1)]), 1, 1),
        (vec!["n1", "n2"], window(2), 2, 0),
        (vec!["n1 current", "n2 current"], window(2), 2, 2),
        (
            vec!["n1", "n2"],
            Strategy { order: StartOrder::StartFirst, ..batches(&[number(2)]) },
            2,
            2,
        ),
    ];
    for (texts, strategy, now, least) in rows {
        let plan = plan(&targets(&texts), &strategy, &release(1), false);
        assert_eq!((plan.in_traffic, plan.least_in_traffic), (now, least), "{texts:?}");
    }
}

#[test]
fn what_it_refuses_and_how_shares_resolve() {
    let strategy = Strategy {
        batch: vec![number(1), percent("10%"), percent("10%")],
        max_unavailable: Some(percent("34%")),
        ..one_by_one()
    };
    let three = targets(&["n1", "n2", "n3"]);
    let made = plan(&three, &strategy, &release(1), false);
    assert_eq!(made.notes, ["batch: 10 % of 3 = 1", "max_unavailable: 34 % of 3 = 1"]);
    assert_eq!(made.refusals, Vec::<String>::new());
    let made = plan(&targets(&["n1", "n2 offline", "n3"]), &strategy, &release(1), false);
    assert_eq!(
        made.refusals,
        ["1 of 3 targets are offline (n2) and max_unavailable is 1: \
             no serving node could be updated"]
    );
    let none = plan(&[], &strategy, &release(1), false);
    assert!(none.refusals[0].starts_with("no node matches the target"), "{:?}", none.refusals);
}

#[test]
fn a_restart_touches_what_is_current() {
    let texts = targets(&["n1 current", "n2 current"]);
    assert_eq!(plan(&texts, &one_by_one(), &release(1), true).batches.len(), 2);
    assert_eq!(plan(&texts, &one_by_one(), &release(1), false).batches.len(), 0);
}
