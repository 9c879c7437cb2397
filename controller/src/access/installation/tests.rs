//! How a controller comes in, from what its directory and the store say.

use super::super::memory::Memory;
use super::*;

const OURS: [u8; 32] = [1; 32];

/// The CA in the directory, the name in `controller.json`, the CA in `/installation`: each may be missing. Then words:
/// `known` (the store has the name), `full` (it holds something), `invited`.
fn check(own: Option<u8>, who: Option<&str>, record: Option<u8>, words: &str, right: &str) {
    let store = Memory::default();
    let invited = words.contains("invited");
    let invited = invited.then_some(Invited { address: "h1:7400", token: "rota-controller-.." });
    let door = Door { store: &store, dir: Path::new("/d"), name: "c2", invited };
    let print = |byte: u8| Fingerprint([byte; 32]);
    let record = record.map(|byte| Installation {
        ca: print(byte).to_string(),
        founded: Timestamp(0),
        by: "c1".into(),
    });
    let seen = Seen {
        own: own.map(print),
        who: who.map(|name| Who { name: name.to_owned() }),
        empty: record.is_none() && !words.contains("full"),
        record,
        known: words.contains("known"),
    };
    let got = match door.way(&seen) {
        Ok(way) => format!("{way:?}"),
        Err(error) => {
            let view = ErrorView::from(error);
            assert!(!view.hint.is_empty(), "{}", view.message);
            format!("{}; {}", view.message, view.hint)
        }
    };
    assert!(got.contains(right), "{own:?} {who:?} {words}: {got}");
}

#[test]
fn ways_in() {
    let ours = Some(OURS[0]);
    // The first start, its repeat after a crash, and a CA that the operator brought.
    check(None, None, None, "", "Found");
    check(ours, None, None, "", "Found");
    check(ours, None, None, "full", "Found"); // copied there by `rota store copy`
    // Coming back; also after a crash between the CA and the file beside it.
    check(ours, Some("c2"), ours, "known", "Return");
    check(ours, None, ours, "known", "Return");
    check(ours, None, ours, "", "Return");
    check(ours, Some("c2"), ours, "known invited", "Return");
    // Joining, and again after it was removed.
    check(None, None, ours, "invited", "Join");
    check(None, None, ours, "known invited", "Join");
    check(ours, Some("c2"), ours, "invited", "Join");
}

#[test]
fn closed_doors() {
    let (ours, other) = (Some(OURS[0]), Some(2));
    check(None, None, ours, "", "that controller c2 has not joined; `rota token create --for con");
    check(
        None,
        None,
        None,
        "invited",
        "the store is empty: it is not the one of the controller at h1",
    );
    check(None, None, None, "full", "its CA is not in /d; first start the controller from whose");
    check(ours, Some("c2"), None, "", "/d belongs to an installation, and the store has none; che");
    check(ours, Some("c2"), None, "full", "remove /d/identity/controller.json");
    check(
        ours,
        Some("c1"),
        ours,
        "known",
        "/d is the data directory of controller c1, and `--name` says c2",
    );
    check(
        ours,
        Some("c2"),
        ours,
        "",
        "controller c2 was removed from this installation; `rota tok",
    );
    check(
        other,
        Some("c2"),
        ours,
        "known",
        "the store belongs to another installation than /d: its CA",
    );
    check(
        other,
        None,
        ours,
        "invited",
        "check --store and its prefix; a new controller has a --data",
    );
}
