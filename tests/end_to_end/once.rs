//! The once-per-release job, while agents and controllers are killed around it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rota_tests::farm::{App, ENV, Farm};
use rota_tests::moments::{Deed, Moments, end};

use super::{all_run, run, text};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// Its agent dies while it runs: its outcome is unknown, and said so. An operator says that it took effect, and the
/// controller dies at the n-th write of that, and the agent with it: the job never runs again.
#[test]
fn a_job_that_was_accepted_is_not_run_again_whoever_dies() {
    let mut farm = Farm::start(2).unwrap();
    let told = farm.path("migrations");
    let job = format!("echo {{version}} >> {}; exec sleep 600", told.display());
    let manifest = farm.write_app(FAST).unwrap();
    let plain = fs::read_to_string(&manifest).unwrap();
    let once = format!("[once]\ncommand = [\"sh\", \"-c\", \"{job}\"]\n");
    fs::write(&manifest, plain + &once).unwrap();
    let manifest = manifest.to_str().unwrap().to_owned();
    let mut expected = String::new();
    for nth in 1..=3 {
        let version = format!("1.{nth}.0");
        run(
            &farm,
            &["deploy", "-f", &manifest, "--version", &version, "--env", ENV, "--detach"],
            0,
        );
        expected += &format!("{version}\n");
        while fs::read_to_string(&told).unwrap_or_default() != expected {
            std::thread::yield_now();
        }
        farm.nodes[0].kill().unwrap();
        farm.nodes[0] = farm.start_node(1).unwrap();
        let view = farm.rollout(|view| view["hold"]["kind"] == "once").unwrap();
        assert!(view["hold"]["text"].as_str().unwrap().contains("not known"), "{view}");
        let over = AtomicBool::new(false);
        let moments = Moments::of(&farm.path("controller"), "rota.db-wal", Deed::Written).unwrap();
        let pid = farm.controller.pid();
        let (said, killed) = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let came = moments.wait(nth, &over).unwrap();
                if came {
                    end(pid).unwrap();
                }
                came
            });
            let said = farm.run(&["rollout", "resume", "shop/prod"]).unwrap();
            if said.status.code() == Some(0) {
                farm.rollout(|view| view.is_null() || view["state"] == "completed").unwrap();
            }
            over.store(true, Ordering::Relaxed);
            (said, killer.join().unwrap())
        });
        farm.nodes[0].kill().unwrap();
        if killed {
            farm.controller.kill().unwrap();
            farm.restart_controller().unwrap();
        }
        farm.nodes[0] = farm.start_node(1).unwrap();
        let answered = said.status.code() == Some(0);
        assert!(answered || said.status.code() == Some(5), "{}", text(&said));
        // What was not answered may be so or not; what was answered is so.
        let stands = |view: &serde_json::Value| {
            view["state"] == "completed" || (!answered && view["hold"]["kind"] == "once")
        };
        if farm.rollout(stands).unwrap()["state"] != "completed" {
            run(&farm, &["rollout", "resume", "shop/prod"], 0);
        }
        farm.rollout(|view| view["state"] == "completed").unwrap();
        all_run(&farm, &version, 2);
        assert_eq!(fs::read_to_string(&told).unwrap(), expected, "killed at write {nth}");
    }
    // It counts as done for good.
    run(&farm, &["rollout", "start", "shop", "--release", "1.1.0", "--env", ENV], 0);
    assert_eq!(fs::read_to_string(&told).unwrap(), expected);
}
