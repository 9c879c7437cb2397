//! What a simulated agent knows: what runs, what it has said and nobody has acknowledged, and whose orders count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rota_proto::agent::{
    App, Done, FromAgent, Inventory, Joined, Measured, Prepared, ReleaseSpec, Report, StaleOrder,
    Step, StepBegan, from_agent, report,
};
use tokio::sync::mpsc;

/// The port of the app that is not there.
const PORT: u32 = 8080;

/// The steps of an update, and how the app is seen in each: health, traffic.
const STEPS: [(Step, &str, &str); 8] = [
    (Step::Fetch, "healthy", "in"),
    (Step::Drain, "healthy", "draining"),
    (Step::Stop, "healthy", "out"),
    (Step::Swap, "stopped", "out"),
    (Step::Start, "stopped", "out"),
    (Step::Health, "healthy", "out"),
    (Step::Join, "healthy", "out"),
    (Step::Monitor, "healthy", "in"),
];

/// The way to one controller.
pub type Out = mpsc::UnboundedSender<FromAgent>;

/// The state.
#[derive(Default)]
pub struct State {
    /// Controllers with which it holds a session, or tries to.
    pub targets: BTreeSet<String>,
    /// The sessions that were welcomed, by the controller's name.
    pub sessions: BTreeMap<String, Out>,
    /// What runs here: version and digest.
    runs: Option<(String, String)>,
    /// Health, traffic and step, while an update is under way.
    seen: Option<(&'static str, &'static str, String)>,
    seq: u64,
    waiting: VecDeque<Report>,
    fences: BTreeMap<String, Fence>,
}

/// The newest term and attempt accepted for a rollout, and what was last said of it.
#[derive(Default)]
struct Fence {
    term: u64,
    attempt: u32,
    last: Option<report::What>,
    settled: bool,
}

impl State {
    /// What runs here.
    pub fn inventory(&self) -> Inventory {
        let calm = ("healthy", "in", String::new());
        let (health, traffic, step) = self.seen.clone().unwrap_or(calm);
        let app = self.runs.as_ref().map(|(version, digest)| App {
            app: "shop".to_owned(),
            version: version.clone(),
            digest: digest.clone(),
            health: health.to_owned(),
            traffic: traffic.to_owned(),
            in_flight: 0,
            port: PORT,
            pool: String::new(),
            step,
        });
        Inventory { apps: app.into_iter().collect() }
    }

    /// A session was welcomed: it hears what waits, and what runs where that changed since it was told.
    pub fn begin(&mut self, controller: &str, out: &Out, told: Option<&Inventory>) {
        let inventory = self.inventory();
        if told != Some(&inventory) {
            tell(out, from_agent::Message::Inventory(inventory));
        }
        self.repeat(out);
        self.sessions.insert(controller.to_owned(), out.clone());
    }

    /// A controller wants to hear everything again.
    pub fn again(&self, out: &Out) {
        tell(out, from_agent::Message::Inventory(self.inventory()));
        self.repeat(out);
    }

    fn repeat(&self, out: &Out) {
        let waiting = self.waiting.iter().cloned();
        waiting.for_each(|report| tell(out, from_agent::Message::Report(report)));
    }

    /// Forgets the report that a controller acknowledges, and no other.
    pub fn acked(&mut self, seq: u64) {
        self.waiting.retain(|report| report.seq != seq);
    }

    /// Does this order come from the rollout's owner, as far as is known here?
    pub fn accepts(&mut self, rollout: &str, attempt: u32, term: u64) -> bool {
        let fence = self.fences.entry(rollout.to_owned()).or_default();
        let newest_term = fence.term;
        if term < newest_term {
            let stale = report::What::Stale(StaleOrder { newest_term });
            self.report(rollout, attempt, stale);
            return false;
        }
        fence.term = term;
        true
    }

    /// The release is there.
    pub fn prepare(&mut self, rollout: &str, attempt: u32) {
        self.report(rollout, attempt, report::What::Prepared(Prepared {}));
    }

    /// Does an update; one that was done is only told again. Answers whether the rollout had asked for one before.
    pub fn update(&mut self, rollout: &str, attempt: u32, release: &ReleaseSpec) -> Option<bool> {
        let fence = self.fences.entry(rollout.to_owned()).or_default();
        let known = fence.attempt;
        if attempt <= known {
            if let Some(last) = fence.last.clone().filter(|_| attempt == known) {
                self.report(rollout, attempt, last);
            }
            return None;
        }
        fence.attempt = attempt;
        let measured = Some(Measured::default());
        for (step, health, traffic) in STEPS {
            if step == Step::Swap {
                self.runs = Some((release.version.clone(), release.digest.clone()));
            }
            if step == Step::Monitor {
                let joined = Joined { measured: measured.clone() };
                self.report(rollout, attempt, report::What::Joined(joined));
            }
            let began = StepBegan { step: step.into(), in_flight: 0 };
            self.report(rollout, attempt, report::What::Step(began));
            let name = step.as_str_name().trim_start_matches("STEP_").to_lowercase();
            self.seen = Some((health, traffic, name));
            self.tell_inventory();
        }
        let done = report::What::Done(Done { measured });
        if let Some(fence) = self.fences.get_mut(rollout) {
            fence.last = Some(done.clone());
        }
        self.report(rollout, attempt, done);
        self.seen = None;
        self.tell_inventory();
        Some(known > 0)
    }

    /// The rollout is over; was that news?
    pub fn settle(&mut self, rollout: &str) -> bool {
        let fence = self.fences.entry(rollout.to_owned()).or_default();
        !std::mem::replace(&mut fence.settled, true)
    }

    fn tell_inventory(&self) {
        let inventory = self.inventory();
        let message = || from_agent::Message::Inventory(inventory.clone());
        self.sessions.values().for_each(|out| tell(out, message()));
    }

    fn report(&mut self, rollout: &str, attempt: u32, what: report::What) {
        self.seq += 1;
        let (rollout, what) = (rollout.to_owned(), Some(what));
        let report = Report { seq: self.seq, rollout, attempt, at_ms: now_ms(), what };
        self.waiting.push_back(report.clone());
        let message = || from_agent::Message::Report(report.clone());
        self.sessions.values().for_each(|out| tell(out, message()));
    }
}

fn tell(out: &Out, message: from_agent::Message) {
    // A session that is over is about to be forgotten, and the next one begins with all of it.
    drop(out.send(say(message)));
}

/// One message.
pub fn say(message: from_agent::Message) -> FromAgent {
    FromAgent { message: Some(message) }
}

/// Now, as agents write it.
pub fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
