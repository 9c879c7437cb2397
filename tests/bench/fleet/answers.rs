//! How fast a controller of a large fleet answers operators: at rest, and in the middle of a rollout.

use std::time::{Duration, Instant};

use rota_tests::Trouble;
use rota_tests::farm::ENV;

use super::super::shop::Shop;
use super::super::table::Samples;
use super::Fleet;

/// So often each question is asked.
const ASKED: usize = 10;

impl Fleet {
    /// Asks everything, and once more while a rollout waits in its middle.
    pub(super) async fn answers(&mut self) -> Result<(), Trouble> {
        let mut shop = Shop::open(&self.farm, "batch = \"10%\"\napprove_after = [1]")?;
        shop.pass();
        let plan = shop.planned();
        let plan: Vec<&str> = plan.iter().map(String::as_str).collect();
        self.ask("at rest", &plan)?;
        shop.start(&self.farm)?;
        self.farm.rollout(|view| view["state"] == "held")?;
        self.ask("in a rollout", &plan)?;
        let id = format!("shop/{ENV}");
        self.farm.run(&["rollout", "promote", &id])?;
        self.farm.rollout(|view| view["state"] == "completed").map(drop)
    }

    fn ask(&mut self, when: &str, plan: &[&str]) -> Result<(), Trouble> {
        let id = format!("shop/{ENV}");
        let commands: [(&str, &[&str]); 6] = [
            ("rota --version (for comparison)", &["--version"]),
            ("rota plan", plan),
            ("rota status", &["status"]),
            ("rota node ls", &["node", "ls"]),
            ("rota rollout status", &["rollout", "status", &id]),
            ("rota rollout status -o json", &["rollout", "status", &id, "-o", "json"]),
        ];
        for (what, args) in commands {
            let mut samples = Samples::default();
            for _ in 0..ASKED {
                let begun = Instant::now();
                let said = self.farm.run(args)?;
                samples.add_ms(begun.elapsed());
                if said.status.code().is_none_or(|code| code > 1) {
                    return Err(String::from_utf8_lossy(&said.stderr).into_owned().into());
                }
            }
            self.times(&format!("{what}, {when}"), &samples);
        }
        for path in ["status", "nodes", "rollouts/shop/prod", "rollouts"] {
            let mut samples = Samples::default();
            for _ in 0..ASKED {
                let begun = Instant::now();
                let text = self.farm.read(&format!("/api/v1/{path}")).ok_or("no answer")?;
                samples.add_ms(begun.elapsed());
                if text.is_empty() || begun.elapsed() > Duration::from_secs(60) {
                    return Err(format!("{path} does not answer").into());
                }
            }
            self.times(&format!("GET /api/v1/{path}, {when}"), &samples);
        }
        Ok(())
    }

    fn times(&mut self, what: &str, samples: &Samples) {
        let [least, middle, most] = samples.shown();
        eprintln!("bench: {what}: {middle} ms");
        self.table.row([what, "ms", &least, &middle, &most]);
    }
}
