//! How fast a controller of a large fleet answers operators: at rest, while a rollout waits in its middle, and while
//! one moves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rota_tests::Trouble;
use rota_tests::farm::ENV;

use super::super::shop::Shop;
use super::super::table::{Samples, Table};
use super::Fleet;

/// The rollout that is asked about.
const APP: &str = "shop";

/// It waits between two batches, so that it moves for long; nine batches of a tenth follow the first.
const MOVING: &str = "batch = \"10%\"\ndelay = \"2s\"";

impl Fleet {
    /// Asks everything, so often.
    pub(super) async fn answers(&mut self, asked: usize) -> Result<(), Trouble> {
        let title = format!("How fast it answers with {} nodes, {asked} times each", self.agents);
        let mut table = Table::new(&title, &["ms", "p50", "p99", "worst"]);
        let mut shop = Shop::open(&self.farm, "batch = \"10%\"\napprove_after = [1]")?;
        shop.pass();
        let plan = shop.planned();
        let asking = Asking { fleet: self, plan: &plan, asked };
        asking.all("at rest", &mut table)?;
        shop.start(&self.farm)?;
        self.farm.rollout(|view| view["state"] == "held")?;
        let asking = Asking { fleet: self, plan: &plan, asked };
        asking.all("held in a rollout", &mut table)?;
        self.promote()?;
        self.farm.rollout(|view| view["state"] == "completed")?;
        self.moving(&mut shop, &plan, asked, &mut table)?;
        self.watched(&mut shop, &mut table)?;
        self.tables.push(table);
        Ok(())
    }

    fn promote(&self) -> Result<(), Trouble> {
        let promoted = self.farm.run(&["rollout", "promote", &format!("{APP}/{ENV}")])?;
        if !promoted.status.success() {
            return Err(String::from_utf8_lossy(&promoted.stderr).into_owned().into());
        }
        Ok(())
    }

    /// While nodes are updated: whenever the rollout is over, the next one begins.
    fn moving(
        &self,
        shop: &mut Shop,
        plan: &[String],
        asked: usize,
        table: &mut Table,
    ) -> Result<(), Trouble> {
        shop.follow(MOVING)?;
        let asking = Asking { fleet: self, plan, asked };
        for question in asking.questions() {
            let mut samples = Samples::default();
            while samples.len() < asked {
                let over = self.farm.read(&format!("/api/v1/rollouts/{APP}/{ENV}"));
                let over = over.is_none_or(|view| !view.contains("\"finished_at\":null"));
                if over {
                    shop.start(&self.farm)?;
                }
                samples.add_ms(asking.ask(&question)?);
            }
            times(table, &format!("{}, while it moves", question.name()), &samples);
        }
        self.farm.rollout(|view| view["state"] == "completed").map(drop)
    }

    /// How long after something happened `rota rollout status -w` shows it.
    fn watched(&self, shop: &mut Shop, table: &mut Table) -> Result<(), Trouble> {
        shop.start(&self.farm)?;
        let id = format!("{APP}/{ENV}");
        let mut watching = self.farm.rota();
        watching.args(["rollout", "status", &id, "-w"]).stdout(Stdio::null());
        let mut watching = watching.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let said = watching.stderr.take().ok_or("a command without its words")?;
        let mut shown: BTreeMap<String, jiff::Timestamp> = BTreeMap::new();
        for line in BufReader::new(said).lines() {
            shown.entry(line?).or_insert_with(jiff::Timestamp::now);
        }
        watching.wait()?;
        let over = self.farm.rollout(|view| view["state"] == "completed")?;
        let path = format!("/api/v1/rollouts/{id}/{}/events", over["revision"]);
        let events: serde_json::Value =
            serde_json::from_str(&self.farm.read(&path).ok_or("no events")?)?;
        let mut lags = Samples::default();
        for event in events.as_array().ok_or("no list of events")? {
            let text = |key: &str| event[key].as_str().unwrap_or_default();
            let line = format!("{}  {}", text("node"), text("text"));
            let Some(shown) = shown.get(&line) else { continue };
            let happened: jiff::Timestamp = text("at").parse()?;
            lags.add_ms(shown.duration_since(happened).try_into().unwrap_or_default());
        }
        let what = format!("`rota rollout status -w`, from an event to its line ({})", lags.len());
        times(table, &what, &lags);
        Ok(())
    }
}

fn times(table: &mut Table, what: &str, samples: &Samples) {
    let [middle, late, worst] = samples.tail();
    eprintln!("bench: {what}: {middle} / {late} / {worst} ms");
    table.row([what, &middle, &late, &worst]);
}

/// Something that is asked.
enum Question {
    Command(&'static str, Vec<String>),
    Document(&'static str),
}

impl Question {
    fn name(&self) -> String {
        match self {
            Self::Command(name, _) => format!("`rota {name}`"),
            Self::Document(path) => format!("`/api/v1/{path}`"),
        }
    }
}

struct Asking<'a> {
    fleet: &'a Fleet,
    plan: &'a [String],
    asked: usize,
}

impl Asking<'_> {
    fn questions(&self) -> Vec<Question> {
        let id = format!("{APP}/{ENV}");
        let command = |name: &'static str, args: &[&str]| {
            Question::Command(name, args.iter().map(|&arg| arg.to_owned()).collect())
        };
        vec![
            command("--version", &["--version"]),
            Question::Command("plan", self.plan.to_vec()),
            command("status", &["status"]),
            command("node ls", &["node", "ls"]),
            command("rollout status", &["rollout", "status", &id]),
            command("rollout status -o json", &["rollout", "status", &id, "-o", "json"]),
            command("rollout inspect", &["rollout", "inspect", &id]),
            command("rollout inspect -o json", &["rollout", "inspect", &id, "-o", "json"]),
            Question::Document("status"),
            Question::Document("nodes"),
            Question::Document("rollouts"),
            Question::Document("rollouts/shop/prod"),
        ]
    }

    fn all(&self, when: &str, table: &mut Table) -> Result<(), Trouble> {
        for question in self.questions() {
            let mut samples = Samples::default();
            for _ in 0..self.asked {
                samples.add_ms(self.ask(&question)?);
            }
            times(table, &format!("{}, {when}", question.name()), &samples);
        }
        Ok(())
    }

    fn ask(&self, question: &Question) -> Result<Duration, Trouble> {
        let begun = Instant::now();
        match question {
            Question::Command(name, args) => {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let said = self.fleet.farm.run(&args)?;
                let took = begun.elapsed();
                if said.status.code().is_none_or(|code| code > 1) {
                    let why = String::from_utf8_lossy(&said.stderr);
                    return Err(format!("`rota {name}` fails: {why}").into());
                }
                Ok(took)
            }
            Question::Document(path) => {
                let text = self.fleet.farm.read(&format!("/api/v1/{path}"));
                let took = begun.elapsed();
                match text {
                    Some(text) if !text.is_empty() => Ok(took),
                    Some(_) | None => Err(format!("/api/v1/{path} does not answer").into()),
                }
            }
        }
    }
}
