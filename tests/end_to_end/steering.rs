//! What operators do at a hold, and a rollout that takes the place of another one.

use rota_tests::farm::{App, ENV, Farm};
use serde_json::Value;

use super::{all_run, begin, deploy, run};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// Held, paused, in its job, on its way back: a newer rollout is refused, and replaces it when it is asked to.
#[test]
fn whatever_a_rollout_does_a_newer_one_takes_its_place() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let approve = "batch = 1\nmonitor = \"0s\"\napprove_after = [1]";
    let picky = "batch = 1\nmonitor = \"0s\"\n[[smoke]]\nname = \"picky\"\n\
                 command = [\"sh\", \"-c\", \"test {node} != web-02\"]";
    let once = "batch = 1\nmonitor = \"0s\"\n[once]\ncommand = [\"sh\", \"-c\", \"exit 1\"]";
    let slow_once = "batch = 1\n[once]\ncommand = [\"sh\", \"-c\", \"exec sleep 2\"]";
    let held = |kind: &'static str| move |view: &Value| view["hold"]["kind"] == kind;
    type Stands<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let pause = |view: &Value| {
        held("approval")(view) && {
            run(&farm, &["rollout", "pause", "shop/prod"], 0);
            true
        }
    };
    let rows: [(&str, Stands<'_>); 5] = [
        (approve, Box::new(held("approval"))),
        (approve, Box::new(pause)),
        (picky, Box::new(held("failures"))),
        (once, Box::new(held("once"))),
        (slow_once, Box::new(|view| view["state"] == "preparing")),
    ];
    for (number, (strategy, stands)) in rows.into_iter().enumerate() {
        let (old, new) = (format!("2.{number}.0"), format!("3.{number}.0"));
        begin(&farm, &old, App { strategy, ..FAST });
        let id = farm.rollout(stands).unwrap()["id"].as_str().unwrap().to_owned();
        replaced(&farm, &id, &new);
    }
}

/// The rollout that is under way refuses this version, gives way to it when told to, and all nodes run it then.
fn replaced(farm: &Farm, id: &str, new: &str) {
    let refused = deploy(farm, new, FAST, 1);
    assert!(refused.contains("--supersede") && refused.contains(id), "{refused}");
    let manifest = farm.write_app(FAST).unwrap();
    let newer = ["deploy", "-f", manifest.to_str().unwrap(), "--version", new, "--env", ENV];
    run(farm, &[&newer[..], &["--supersede", "--yes"]].concat(), 0);
    let over = |view: &Value| view["state"] == "aborted";
    farm.wait(&format!("/api/v1/rollouts/{id}"), over).unwrap();
    all_run(farm, new, 3);
}

/// One that gave way still finishes what is under way when the next one comes: two never roll, and all share one
/// capacity.
#[test]
fn of_three_only_the_newest_rolls() {
    let farm = Farm::start(5).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let slow = "batch = 1\nmonitor = \"0s\"\n[[smoke]]\nname = \"slow\"\n\
                command = [\"sleep\", \"1\"]";
    let slow = App { strategy: slow, ..FAST };
    begin(&farm, "2.0.0", slow);
    let is_out = |view: &Value| view["nodes"][0]["step"] == "smoke";
    farm.rollout(is_out).unwrap();
    let newer = |version: &str, app: App<'_>, more: &[&str], code: i32| {
        let manifest = farm.write_app(app).unwrap();
        let all = ["deploy", "-f", manifest.to_str().unwrap(), "--version", version, "--env", ENV];
        run(&farm, &[&all[..], more].concat(), code)
    };
    newer("3.0.0", slow, &["--supersede", "--yes", "--detach"], 0);
    let refused = newer("4.0.0", slow, &["--yes"], 1);
    assert!(refused.contains("shop/prod/3"), "the newest is in the way: {refused}");
    newer("4.0.0", slow, &["--supersede", "--yes"], 0);
    all_run(&farm, "4.0.0", 5);
    for (revision, state) in [(2, "aborted"), (3, "aborted"), (4, "completed")] {
        let over = |view: &Value| !view["finished_at"].is_null();
        let view = farm.wait(&format!("/api/v1/rollouts/shop/prod/{revision}"), over).unwrap();
        assert_eq!(view["state"], state, "{view}");
        assert!(view["evidence"]["least_in_traffic"].as_u64() >= Some(4), "{view}");
    }
}

/// In the middle of an update, on its way back, ending: the newer one waits for the nodes that are under way.
#[test]
fn a_rollout_that_moves_gives_way_too() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let slow = App { strategy: "batch = 1\nmonitor = \"1500ms\"", ..FAST };
    let first = |step: &'static str| move |view: &Value| view["nodes"][0]["step"] == step;
    let ask = |verb: &str| run(&farm, &["rollout", verb, "shop/prod", "--yes"], 0);
    type Stands<'a> = Box<dyn Fn() + 'a>;
    let rows: [Stands<'_>; 3] = [
        Box::new(|| drop(farm.rollout(first("monitor")).unwrap())),
        Box::new(|| {
            farm.rollout(|view| view["nodes"][1]["step"] == "monitor").unwrap();
            ask("rollback");
            farm.rollout(|view| view["state"] == "rolling_back").unwrap();
        }),
        Box::new(|| {
            farm.rollout(first("monitor")).unwrap();
            ask("abort");
        }),
    ];
    for (number, stands) in rows.into_iter().enumerate() {
        let (old, new) = (format!("2.{number}.0"), format!("3.{number}.0"));
        // One that was aborted is over as soon as its only node is, and must not be before it is asked to give way.
        let ends = App { strategy: "batch = 1\nmonitor = \"6s\"", ..FAST };
        begin(&farm, &old, if number == 2 { ends } else { slow });
        stands();
        let id = farm.rollout(|_| true).unwrap()["id"].as_str().unwrap().to_owned();
        replaced(&farm, &id, &new);
    }
}

/// Every undo that cannot be: with the reason, and what can be done instead.
#[test]
fn an_undo_that_cannot_be_says_why() {
    let farm = Farm::start(1).unwrap();
    let undo = |more: &[&str], told: &[&str]| {
        let said = run(&farm, &[&["rollout", "undo", "shop", "--env", ENV], more].concat(), 1);
        for told in told.iter().chain(&["hint:"]) {
            assert!(said.contains(told), "{told:?} is not in: {said}");
        }
    };
    undo(&[], &["no earlier release"]);
    deploy(&farm, "1.0.0", FAST, 0);
    undo(&[], &["shop has no earlier release in prod", "rota rollout history shop --env prod"]);
    undo(&["--to-revision", "7"], &["no revision 7", "rota rollout history"]);
    std::fs::write(farm.path("app/dist/more"), "another artifact").unwrap();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        deploy(&farm, version, FAST, 0);
    }
    let broken = App { args: &["--broken-page"], ..FAST };
    deploy(&farm, "2.0.0", broken, 3);
    undo(&["--to-revision", "5"], &["shop/prod/5", "still runs", "rollback shop/prod/5"]);
    undo(&[], &["shop/prod/5", "--supersede"]);
    run(&farm, &["rollout", "rollback", "shop/prod", "--yes"], 0);
    farm.rollout(|view| view["state"] == "rolled_back").unwrap();
    undo(&["--to-revision", "5"], &["never became current"]);
    run(&farm, &["release", "rm", "shop", "1.0.0", "--yes"], 0);
    let gone = ["revision 1 of shop in prod ran 1.0.0", "was removed", "rota rollout start shop"];
    undo(&["--to-revision", "1"], &gone);
    let untouched = farm.rollout(|_| true).unwrap();
    assert_eq!(untouched["revision"], 5, "a refusal changes nothing: {untouched}");
}

/// The cause is shown; failed nodes are tried again one by one, left out, or borne.
#[test]
fn what_an_operator_does_at_a_failure() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let flag = farm.path("mended");
    let test =
        format!("echo looking at {{node}}; test {{node}} != web-01 -o -e {}", flag.display());
    let strategy = format!(
        "batch = 1\nmonitor = \"0s\"\n[[smoke]]\nname = \"picky\"\n\
         command = [\"sh\", \"-c\", \"{test}\"]"
    );
    let said = deploy(&farm, "1.1.0", App { strategy: &strategy, ..FAST }, 3);
    for told in ["picky", "looking at web-01", "rota rollout retry shop/prod/2"] {
        assert!(said.contains(told), "{told:?} is not in: {said}");
    }
    let refused = run(&farm, &["rollout", "retry", "shop/prod", "web-02"], 1);
    assert!(refused.contains("web-02 has not failed"), "{refused}");
    run(&farm, &["rollout", "retry", "shop/prod", "web-01"], 0);
    let again = |view: &Value| view["state"] == "held" && view["nodes"][0]["attempt"] == 2;
    farm.rollout(again).unwrap();
    std::fs::write(flag, "").unwrap();
    run(&farm, &["rollout", "retry", "shop/prod", "web-01"], 0);
    farm.rollout(|view| view["state"] == "completed").unwrap();
    // Skipped, and a restart whose hint knows no way back.
    let picky = "batch = 1\nmonitor = \"0s\"\n[[smoke]]\nname = \"picky\"\n\
                 command = [\"sh\", \"-c\", \"test {node} != web-02\"]";
    deploy(&farm, "1.2.0", App { strategy: picky, ..FAST }, 3);
    run(&farm, &["rollout", "skip", "shop/prod", "web-02"], 0);
    farm.rollout(|view| view["state"] == "completed").unwrap();
    run(&farm, &["restart", "shop", "--env", ENV], 3);
    let view = farm.rollout(|view| view["hold"]["kind"] == "failures").unwrap();
    assert!(!view["hold"]["hint"].as_str().unwrap().contains("rollback"), "{view}");
    let refused = run(&farm, &["rollout", "rollback", "shop/prod", "--yes"], 1);
    assert!(refused.contains("is a restart"), "{refused}");
    run(&farm, &["rollout", "resume", "shop/prod"], 0);
    farm.rollout(|view| view["state"] == "partial").unwrap();
}

/// Every verb where it makes no sense: it is so already, or it is refused, with the reason and the right verb.
#[test]
fn verbs_that_make_no_sense_say_so() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let rows: [(&str, i32, &str); 18] = [
        ("node undrain web-01", 0, "is undrained already"),
        ("node drain web-01", 0, "leaves traffic"),
        ("node drain web-01", 0, "is drained already"),
        ("node undrain web-01", 0, "returns to traffic"),
        ("node drain lb-01", 1, "rota edge ls"),
        ("node drain web-09", 1, "rota node ls"),
        ("node rm web-09", 1, "rota node ls"),
        ("node converge web-09", 1, "rota node ls"),
        ("env unfreeze prod", 1, "rota env ls"),
        ("env window rm prod 1", 1, "rota env ls"),
        ("release rm shop 1.0.0", 1, "current in prod"),
        ("release rm shop 9.9.9", 1, "rota release ls shop"),
        ("token rm nothing", 1, "rota token ls"),
        ("controller undrain c1", 0, "in service already"),
        ("controller drain c9", 1, "rota controller ls"),
        ("rollout undo shop --env prod", 1, "rota rollout history shop --env prod"),
        ("rollout pause shop/prod", 1, "rota rollout status shop/prod/1"),
        ("rollout resume shop/prod/9", 1, "rota rollout history shop --env prod"),
    ];
    for (command, code, part) in rows {
        let args: Vec<&str> = command.split(' ').collect();
        let said = run(&farm, &args, code);
        assert!(said.contains(part), "{command}: {part:?} is not in: {said}");
    }
}
