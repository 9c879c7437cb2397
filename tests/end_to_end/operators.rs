//! What operators do with a rollout, and what nodes keep of it.

use rota_tests::farm::{App, Farm};

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
