//! Tables as transcripts.

use std::collections::BTreeMap;

use super::*;
use crate::cli::sample::{broken, env, held, node, pipe, rollout as sample, with_nodes};
use crate::cli::table::Ink;
use crate::view::{
    BatchView, EtaView, FileChange, FilesView, FreezeView, HistoryEntry, KeyChange, OnceView,
    PlanView, PlannedHoldView, RolloutView, SkippedView, StepView,
};

const AT: &str = "2026-11-24T03:40:42.000Z";

fn app(release: &str, health: &str, traffic: &str) -> AppView {
    AppView {
        app: "shop".to_owned(),
        release: release.to_owned(),
        health: health.to_owned(),
        traffic: traffic.to_owned(),
    }
}

fn a_node(name: &str, state: &str, seen: Option<&str>, apps: Vec<AppView>) -> NodeView {
    NodeView {
        name: name.to_owned(),
        env: "prod".to_owned(),
        roles: vec!["web".to_owned()],
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        state: state.to_owned(),
        version: "0.1.0".to_owned(),
        apps,
        last_seen: seen.map(str::to_owned),
    }
}

#[test]
fn nodes_in_a_table() {
    let list = vec![
        a_node("web-01", "ready", Some(AT), vec![app("1.1.0", "healthy", "in")]),
        a_node("web-02", "drained", Some(AT), vec![app("1.0.3", "unhealthy", "out")]),
        a_node("web-03", "offline", None, Vec::new()),
    ];
    let expected = "\
NAME    ENV   STATE    SEEN    AGENT  ROLES  RUNS
web-01  prod  ready    5m ago  0.1.0  web    shop 1.1.0
web-02  prod  drained  5m ago  0.1.0  web    shop 1.0.3 unhealthy out of traffic
web-03  prod  offline  never   0.1.0  web    -
";
    assert_eq!(nodes(&list, &pipe()), expected);
}

#[test]
fn a_narrow_terminal_shortens_only_the_last_column() {
    let list = vec![a_node("web-02", "drained", Some(AT), vec![app("1.0.3", "unhealthy", "out")])];
    let page = Page { columns: Some(70), ..pipe() };
    let expected = "\
NAME    ENV   STATE    SEEN    AGENT  ROLES  RUNS
web-02  prod  drained  5m ago  0.1.0  web    shop 1.0.3 unhealthy o...
";
    assert_eq!(nodes(&list, &page), expected);
}

#[test]
fn one_node() {
    let one = a_node("web-01", "ready", Some(AT), vec![app("1.1.0", "healthy", "draining")]);
    let expected = "\
node:         web-01
environment:  prod
state:        ready
last seen:    5m ago
agent:        0.1.0
roles:        web
labels:       zone=a

APP   RELEASE  HEALTH   TRAFFIC
shop  1.1.0    healthy  draining
";
    assert_eq!(super::node(&one, &pipe()), expected);
}

fn member(node: &str, state: &str, in_flight: u64) -> MemberView {
    MemberView {
        node: node.to_owned(),
        edge: "lb-01".to_owned(),
        address: "10.0.0.1:9000".to_owned(),
        state: state.to_owned(),
        in_flight,
        version: "1.1.0".to_owned(),
    }
}

#[test]
fn pools_and_their_members() {
    let shop = PoolView {
        pool: "shop".to_owned(),
        env: "prod".to_owned(),
        edges: vec!["lb-01".to_owned()],
        members: vec![member("web-01", "in", 3), member("web-02", "draining", 14)],
        requests: 1_234_567,
        failed: 0,
        cut: 2,
    };
    let expected = "\
POOL  ENV   EDGES  IN  OF   REQUESTS  FAILED  CUT
shop  prod  lb-01   1   2  1 234 567       0    2
";
    assert_eq!(pools(std::slice::from_ref(&shop), &pipe()), expected);
    let expected = "\
pool:         shop
environment:  prod
edges:        lb-01
served:       1 234 567 requests, 0 failed, 2 cut

NODE    EDGE   STATE     IN FLIGHT  VERSION  ADDRESS
web-01  lb-01  in                3  1.1.0    10.0.0.1:9000
web-02  lb-01  draining         14  1.1.0    10.0.0.1:9000
";
    assert_eq!(pool(&shop, &pipe()), expected);
}

#[test]
fn environments_controllers_and_tokens() {
    let freeze = FreezeView {
        until: Some("2026-11-25T06:00:00Z".to_owned()),
        message: "sale".to_owned(),
        who: "bob".to_owned(),
        since: AT.to_owned(),
    };
    let list = vec![env("prod", 6, Some(freeze)), env("test", 2, None)];
    let expected = "\
ENV   NODES  STATE   UNTIL                 BY   WHY
prod      6  frozen  2026-11-25 06:00:00Z  bob  sale
test      2  open    -                     -
";
    assert_eq!(envs(&list, &pipe()), expected);
    let list = vec![ControllerView {
        name: "c1".to_owned(),
        state: "draining".to_owned(),
        rollouts: vec!["shop/prod/14".to_owned()],
        version: "0.1.0".to_owned(),
        address: String::new(),
    }];
    let expected = "\
NAME  STATE     VERSION  ROLLOUTS
c1    draining  0.1.0    shop/prod/14
";
    assert_eq!(controllers(&list, &pipe()), expected);
    let list = vec![TokenView {
        id: "3f9a1c".to_owned(),
        kind: "operator".to_owned(),
        role: Some("deployer".to_owned()),
        name: None,
        uses_left: 1,
        expires_at: "2026-11-24T04:30:42.000Z".to_owned(),
    }];
    let expected = "\
ID      FOR       ROLE      NAME  USES LEFT  ENDS
3f9a1c  operator  deployer  -             1  in 45m 0s
";
    assert_eq!(tokens(&list, &pipe()), expected);
}

#[test]
fn releases_in_a_table() {
    let list = vec![ReleaseView {
        app: "shop".to_owned(),
        version: "1.1.0".to_owned(),
        digest: "ab".repeat(32),
        size: 104_857_600,
        created_at: AT.to_owned(),
        who: "alice".to_owned(),
        current_in: vec!["prod".to_owned(), "test".to_owned()],
    }];
    let expected = "\
APP   VERSION  DIGEST             SIZE  PUSHED  BY     CURRENT IN
shop  1.1.0    abababababab  100.0 MiB  5m ago  alice  prod, test
";
    assert_eq!(releases(&list, &pipe()), expected);
}

#[test]
fn a_rollout_with_a_failure() {
    let view = with_nodes(
        "held",
        vec![
            node("web-01 done"),
            broken("web-02 restored", "smoke \"home page\" answered 500", "panic: oops"),
            node("web-03 pending"),
        ],
    );
    let view = held(view, "failures", "1 of 3 nodes failed and the limit is 0", "fix it");
    let expected = "\
rollout:     shop/prod/14
release:     1.0.3 -> 1.1.0
state:       held
waits:       1 of 3 nodes failed and the limit is 0
since:       12s ago
hint:        fix it
why:         faster search
started:     2026-11-24 03:45:00Z by alice
controller:  c1 (term 3)

NODE    STATE     STEP  RELEASE  IN FLIGHT  OUT OF TRAFFIC  NOTE
web-01  done      -     1.1.0            -          812 ms
web-02  restored  -     1.0.3            -               -  smoke \"home page\" answered 500
web-03  pending   -     1.0.3            -               -

web-02 printed:
  | panic: oops

took 42.0 s; at least 2 of 3 in traffic; 120 931 requests, 0 failed, 0 cut
out of traffic: web-01 812 ms
";
    assert_eq!(rollout(&view, &pipe()), expected);
    let full = rollout_in_full(&view, &pipe());
    assert!(full.contains("BATCH  STATE    NODES\n    1  done     web-01\n"), "{full}");
}

#[test]
fn rollouts_and_history() {
    let list = vec![sample("rolling", &["a done", "b updating drain"])];
    let expected = "\
ID            RELEASE         STATE    NODES  STARTED  WHY
shop/prod/14  1.0.3 -> 1.1.0  rolling    1/2  42s ago  faster search
";
    assert_eq!(rollouts(&list, &pipe()), expected);
    let entry = |revision, state: &str, end: Option<&str>| HistoryEntry {
        break_glass: None,
        revision,
        release: "1.1.0".to_owned(),
        kind: match state {
            "failed" => "run",
            "completed" => "undo",
            _ => "deploy",
        }
        .to_owned(),
        command: (state == "failed").then(|| "./shop check".to_owned()),
        state: state.to_owned(),
        message: "why".to_owned(),
        who: "alice".to_owned(),
        started_at: "2026-11-24T03:40:00.000Z".to_owned(),
        finished_at: end.map(str::to_owned),
    };
    let ran = entry(16, "failed", Some(AT));
    let list = vec![ran, entry(15, "rolling_back", None), entry(9, "completed", Some(AT))];
    let expected = "\
REV  RELEASE       STATE         STARTED               TOOK    BY     WHY
 16  1.1.0         failed        2026-11-24 03:40:00Z  42.0 s  alice  why (run: ./shop check)
 15  1.1.0         rolling back  2026-11-24 03:40:00Z  -       alice  why
  9  1.1.0 (undo)  completed     2026-11-24 03:40:00Z  42.0 s  alice  why
";
    assert_eq!((HISTORY.draw)(&list, &pipe()), expected);
}

#[test]
fn a_plan() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let view = PlanView {
        batches: vec![names(&["web-01"]), names(&["web-02", "web-03", "web-04"])],
        targets: 5,
        skipped: vec![SkippedView {
            name: "web-05".to_owned(),
            why: "already runs 1.1.0".to_owned(),
        }],
        least_in_traffic: 2,
        refusals: vec!["prod is frozen: sale".to_owned()],
        notes: vec!["10 % of 37 = 3".to_owned()],
        from: Some("1.0.3".to_owned()),
        to: "1.1.0".to_owned(),
        steps: vec![
            StepView { batch: 1, out: 1, in_traffic: 4 },
            StepView { batch: 2, out: 3, in_traffic: 2 },
        ],
        approvals: vec![1],
        holds: vec![PlannedHoldView {
            kind: "offline".to_owned(),
            text: "1 node offline: web-04".to_owned(),
            hint: "it goes on when they return".to_owned(),
            nodes: names(&["web-04"]),
        }],
        once: Some(OnceView { node: "web-01".to_owned(), command: names(&["./migrate", "up"]) }),
        eta: Some(EtaView {
            ms: 240_000,
            rollouts: 3,
            at_least: false,
            text: "about 4 min, from 3 earlier rollouts here".to_owned(),
        }),
        changes: vec![
            KeyChange { key: "strategy.batch".to_owned(), old: Some("1".to_owned()), new: None },
            KeyChange { key: "run.user".to_owned(), old: None, new: Some("\"shop\"".to_owned()) },
        ],
        files: Some(FilesView {
            changed: vec![
                FileChange { path: "new".to_owned(), old: None, new: Some(2048) },
                FileChange { path: "shop".to_owned(), old: Some(1024), new: Some(2048) },
                FileChange { path: "old".to_owned(), old: Some(10), new: None },
            ],
            total: 5,
            not_compared: String::new(),
        }),
    };
    let expected = "\
1.1.0 (now 1.0.3): 5 targets in 2 batches
  BATCH  SIZE  OUT  IN TRAFFIC  NODES
      1     1    1           4  web-01
      2     3    3           2  web-02 to web-04
at least 2 of 5 in traffic
takes about 4 min, from 3 earlier rollouts here
10 % of 37 = 3
after batch 1 it waits for `rota rollout promote`
once, on web-01, before anything is drained: ./migrate up
left alone: web-05, already runs 1.1.0

what is different from 1.0.3:
  strategy.batch  1 -> not written
  run.user        not written -> \"shop\"
  + new           2.0 KiB
  ~ shop          1.0 KiB -> 2.0 KiB
  - old           10 B
  and 2 more files

it would be held: 1 node offline: web-04
  it goes on when they return
refused: prod is frozen: sale
";
    assert_eq!(plan(&view, &pipe()), expected);
}

#[test]
fn events_and_audit() {
    let about = EventView {
        seq: 7,
        at: AT.to_owned(),
        app: Some("shop".to_owned()),
        env: Some("prod".to_owned()),
        rollout: Some("shop/prod/14".to_owned()),
        node: Some("web-01".to_owned()),
        kind: "rollout".to_owned(),
        text: "drained in 812 ms".to_owned(),
        in_traffic: None,
        state: None,
    };
    let expected = "2026-11-24 03:40:42Z  shop/prod/14  web-01  drained in 812 ms\n";
    assert_eq!(event(&about, &pipe()), expected);
    let about = EventView { app: None, env: None, rollout: None, node: None, ..about };
    assert_eq!(event(&about, &pipe()), "2026-11-24 03:40:42Z  rollout  drained in 812 ms\n");
    let list = vec![AuditView {
        seq: 1,
        at: AT.to_owned(),
        who: "operator/alice".to_owned(),
        peer: "10.0.0.9".to_owned(),
        what: "rollout pause".to_owned(),
        target: "shop/prod/14".to_owned(),
        message: "errors".to_owned(),
        result: "done".to_owned(),
    }];
    let expected = "\
AT                    WHO             FROM      DID            TO            RESULT  WHY
2026-11-24 03:40:42Z  operator/alice  10.0.0.9  rollout pause  shop/prod/14  done    errors
";
    assert_eq!(audit(&list, &pipe()), expected);
}

#[test]
fn batches_are_named_and_colours_change_no_words() {
    let mut view: RolloutView = sample("rolling", &["a updating drain"]);
    view.batches =
        vec![BatchView { index: 1, nodes: vec!["a".to_owned()], state: "running".to_owned() }];
    let coloured = rollout(&view, &Page { ink: Ink::Colour, ..pipe() });
    assert!(coloured.contains("\x1b[36mrolling\x1b[0m, batch 1 of 1"), "{coloured}");
}
