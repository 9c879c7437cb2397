//! What operators do with a rollout, and what nodes keep of it.

use rota_tests::farm::{App, ENV, Farm};

use super::{deploy, run};

#[test]
fn nodes_keep_a_few_releases_and_no_more() {
    let farm = Farm::start(1).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    for number in 0..7 {
        // Another artifact each time, or the nodes would need no other folder's bytes.
        std::fs::create_dir_all(farm.path("app/dist")).unwrap();
        std::fs::write(farm.path("app/dist/number"), number.to_string()).unwrap();
        deploy(&farm, &format!("1.{number}.0"), app, 0);
    }
    let folder = farm.path("web-01/apps/shop/releases");
    let kept = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.is_dir()).count()
    };
    // The word that the rollout is over comes after the operator's answer.
    while kept() > 4 {
        std::thread::yield_now();
    }
    assert!(kept() >= 2, "the current one and its predecessor stay");
    run(&farm, &["rollout", "undo", "shop", "--env", "prod"], 0);
}

/// A manifest of the farm's app whose target no node has.
fn nowhere(farm: &Farm, manifest: &str) -> String {
    let text = std::fs::read_to_string(manifest).unwrap();
    let path = farm.path("app/nowhere.toml");
    std::fs::write(&path, text.replace("roles = [\"web\"]", "roles = [\"db\"]")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_refused_deploy_changes_nothing() {
    let farm = Farm::start(2).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    // Waits for an approval from now on.
    let held = App { strategy: "batch = 1\nmonitor = \"0s\"\napprove_after = [1]", ..app };
    deploy(&farm, "1.1.0", held, 3);
    let manifest = farm.write_app(app).unwrap().to_str().unwrap().to_owned();
    std::fs::write(farm.path("app/dist/more"), "makes it another artifact").unwrap();
    let nowhere = nowhere(&farm, &manifest);
    let releases = run(&farm, &["release", "ls", "-o", "json"], 0);
    let refused = |manifest: &str, more: &[&str], told: &str| {
        let args = ["deploy", "-f", manifest, "--version", "2.0.0", "--env", ENV];
        let said = run(&farm, &[&args, more].concat(), 1);
        assert!(said.contains(told) && said.contains("nothing was pushed"), "{said}");
        assert_eq!(run(&farm, &["release", "ls", "-o", "json"], 0), releases, "{told}");
    };
    refused(&manifest, &[], "rollout shop/prod/2 to 1.1.0");
    refused(&nowhere, &["--supersede"], "no node matches the target");
    run(&farm, &["env", "freeze", ENV, "-m", "sale"], 0);
    refused(&manifest, &["--supersede"], "environment prod is frozen: sale");
    assert_eq!(farm.rollout(|_| true).unwrap()["id"], "shop/prod/2", "and it was not replaced");
}

#[test]
fn a_once_job_that_hangs_says_so_and_what_it_printed() {
    let farm = Farm::start(1).unwrap();
    let strategy = "[once]\ncommand = [\"sh\", \"-c\", \"echo no such table; exec sleep 60\"]\n\
                    timeout = \"400ms\"";
    let said = deploy(&farm, "1.0.0", App { strategy, ..App::default() }, 3);
    let status = run(&farm, &["rollout", "status", "shop/prod"], 0);
    for told in ["did not end within 400ms", "| no such table"] {
        assert!(said.contains(told), "{told:?} is not in: {said}");
        assert!(status.contains(told), "{told:?} is not in: {status}");
    }
    assert!(!said.contains("124"), "{said}");
}
