//! Members and orphans on the left, who takes what on the right.

use super::*;

/// `c1 3/5 draining`: a name, what it owns, of how many at most.
fn member(text: &str) -> Member {
    let mut words = text.split(' ');
    let name = words.next().unwrap().parse().unwrap();
    let numbers = words.next().unwrap();
    let (owns, cap) = numbers.split_once('/').unwrap_or((numbers, ""));
    let (owns, cap) = (owns.parse().unwrap(), cap.parse().ok());
    Member { name, draining: words.next() == Some("draining"), owns, cap }
}

/// `shop 2 @700`: an app, how many rollouts, since when.
fn orphan(text: &str) -> Orphan {
    let (text, since) = text.split_once(" @").unwrap_or((text, "0"));
    let (app, rollouts) = text.split_once(' ').unwrap_or((text, "1"));
    Orphan {
        app: app.parse().unwrap(),
        env: "prod".parse().unwrap(),
        rollouts: rollouts.parse().unwrap(),
        since: Timestamp(since.parse().unwrap()),
    }
}

fn takers(members: &[&str], orphans: &[&str], now: u64) -> String {
    let members: Vec<Member> = members.iter().map(|text| member(text)).collect();
    let orphans: Vec<Orphan> = orphans.iter().map(|text| orphan(text)).collect();
    let of = |me: &Member| {
        let taken = takes(&me.name, &members, &orphans, Timestamp(now));
        let apps: Vec<&str> = taken.iter().map(|orphan| orphan.app.as_str()).collect();
        format!("{}: {}", me.name, apps.join(" "))
    };
    members.iter().map(of).collect::<Vec<_>>().join("; ")
}

#[test]
fn who_takes_what() {
    let check = |members: &[&str], orphans: &[&str], expected: &str| {
        assert_eq!(takers(members, orphans, 0), expected, "{members:?} {orphans:?}");
    };
    // The fewest first, then by name; what is given counts at once.
    check(&["c1 0", "c2 0"], &["a", "b", "c"], "c1: a c; c2: b");
    check(&["c2 0", "c1 0"], &["c", "b", "a"], "c2: b; c1: a c");
    check(&["c1 2", "c2 0", "c3 1"], &["a", "b", "c"], "c1: ; c2: a b; c3: c");
    check(&["c1 0", "c2 0"], &["a 3", "b", "c", "d"], "c1: a; c2: b c d");
    check(&["c1 7"], &["a", "b"], "c1: a b");
    // Who is drained takes nothing; who is full takes nothing.
    check(&["c1 0 draining", "c2 5"], &["a", "b"], "c1: ; c2: a b");
    check(&["c1 0/1", "c2 4/9"], &["a", "b"], "c1: a; c2: b");
    check(&["c1 0/0", "c2 4/4"], &["a"], "c1: ; c2: ");
    check(&["c1 0 draining"], &["a"], "c1: ");
    // What belongs together is larger than any limit: one that has nothing else takes it.
    check(&["c1 0/2", "c2 1/2"], &["a 5"], "c1: a; c2: ");
    check(&["c1 1/2", "c2 1/2"], &["a 5"], "c1: ; c2: ");
    check(&["c1 0"], &[], "c1: ");
}

#[test]
fn after_the_grace_anybody_takes_it() {
    let check = |members: &[&str], orphans: &[&str], now: u64, expected: &str| {
        assert_eq!(takers(members, orphans, now), expected, "{members:?} {orphans:?} {now}");
    };
    check(&["c1 0", "c2 0"], &["a"], 1_499, "c1: a; c2: ");
    check(&["c1 0", "c2 0"], &["a"], 1_500, "c1: a; c2: a");
    check(&["c1 0", "c2 0"], &["a @900", "b @0"], 1_500, "c1: a b; c2: b");
    // Never who is drained or full.
    check(&["c1 0", "c2 0 draining", "c3 2/2"], &["a"], 9_000, "c1: a; c2: ; c3: ");
    check(&["c1 0/1", "c2 0/2"], &["a", "b", "c"], 9_000, "c1: a; c2: b c");
}

#[test]
fn whom_a_drained_one_hands_over_to() {
    let check = |members: &[&str], rollouts: usize, expected: &str| {
        let members: Vec<Member> = members.iter().map(|text| member(text)).collect();
        let text = match heir(&members, rollouts) {
            Ok(name) => name.to_string(),
            Err(nobody) => nobody.to_string(),
        };
        assert_eq!(text, expected, "{members:?}");
    };
    check(&["c2 1", "c3 0"], 1, "c3");
    check(&["c3 1", "c2 1"], 1, "c2");
    check(&["c2 1/2", "c3 2"], 2, "c3");
    check(&[], 1, "no controller is alive that could take it");
    check(&["c2 0 draining"], 1, "no controller can take it: c2 is being drained");
    check(
        &["c2 0 draining", "c3 1 draining", "c4 1/1", "c5 2/2"],
        1,
        "no controller can take it: c2, c3 are being drained; \
         c4, c5 own as many rollouts as they may",
    );
}
