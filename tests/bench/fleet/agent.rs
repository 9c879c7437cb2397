//! One simulated agent: the real protocol over a real mTLS session, and an app that takes no time at all.
//!
//! It says what a real agent says in an update, report by report and with an inventory after each step, so that the
//! controller has the same work. It holds nothing on a disk.

use std::sync::Arc;
use std::time::Duration;

use rota_agent::backoff::{Backoff, chance};
use rota_agent::dial::dial;
use rota_agent::own::Own;
use rota_proto::agent::fleet_client::FleetClient;
use rota_proto::agent::{
    App, Done, FromAgent, Heartbeat, Hello, Inventory, Joined, Measured, Order, Prepared,
    ReleaseSpec, Report, Step, StepBegan, ToAgent, from_agent, order, report, to_agent,
};
use rota_tests::Trouble;
use rota_tests::farm::ENV;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::crowd::Crowd;

/// What this agent speaks.
const PROTOCOL: u32 = 1;

/// Messages on their way to the controller, as in a real agent.
const OUTBOUND_MAX: usize = 64;

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

/// One agent.
pub struct Simulated {
    pub own: Own,
    pub crowd: Arc<Crowd>,
    /// What runs here: version and digest.
    pub runs: Option<(String, String)>,
    /// The number of the last report.
    pub seq: u64,
}

impl Simulated {
    /// Lives until the program ends.
    pub async fn live(mut self, address: String) {
        let mut backoff = Backoff::default();
        loop {
            let mut welcomed = None;
            if let Err(error) = Box::pin(self.session(&address, &mut welcomed)).await {
                self.crowd.heard_error(&error);
            }
            if welcomed.is_some() {
                self.crowd.count(|tally| tally.up -= 1);
            }
            // Real agents spread their return as the controller said; the bench says whether these do.
            let wait = match welcomed {
                Some(spread) if self.crowd.spreads() => backoff.after_life(spread, chance()),
                Some(_) => backoff.after_life(Duration::ZERO, chance()),
                None => backoff.after_failure(chance()),
            };
            tokio::time::sleep(wait).await; // the agents' own pause between two tries
        }
    }

    async fn session(
        &mut self,
        address: &str,
        welcomed: &mut Option<Duration>,
    ) -> Result<(), Trouble> {
        let dialled = dial(address, self.own.to_controllers()).await?;
        let (out, outbound) = mpsc::channel(OUTBOUND_MAX);
        out.send(say(from_agent::Message::Hello(self.hello()))).await?;
        let mut client = FleetClient::new(dialled.channel);
        let mut inbound = client.session(ReceiverStream::new(outbound)).await?.into_inner();
        let first = inbound.message().await?.and_then(|first| first.message);
        let Some(to_agent::Message::Welcome(welcome)) = first else {
            return Err("the controller did not begin with a welcome".into());
        };
        *welcomed = Some(Duration::from_millis(welcome.spread_ms));
        self.crowd.count(|tally| tally.up += 1);
        let period = Duration::from_millis(welcome.heartbeat_ms.max(1));
        let first = tokio::time::Instant::now() + part(period);
        let mut heartbeat = tokio::time::interval_at(first, period);
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let message = message?.ok_or("the controller ended the session")?;
                    self.hear(message, &out).await?;
                }
                _ = heartbeat.tick() => {
                    let beat = Heartbeat { sent_at_ms: now_ms() };
                    out.send(say(from_agent::Message::Heartbeat(beat))).await?;
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            env: ENV.to_owned(),
            roles: vec!["web".to_owned()],
            inventory: Some(self.inventory("healthy", "in", "")),
            protocol: PROTOCOL,
            address: "127.0.0.1".to_owned(),
            ..Hello::default()
        }
    }

    fn inventory(&self, health: &str, traffic: &str, step: &str) -> Inventory {
        let app = self.runs.as_ref().map(|(version, digest)| App {
            app: "shop".to_owned(),
            version: version.clone(),
            digest: digest.clone(),
            health: health.to_owned(),
            traffic: traffic.to_owned(),
            in_flight: 0,
            port: PORT,
            pool: String::new(),
            step: step.to_owned(),
        });
        Inventory { apps: app.into_iter().collect() }
    }

    async fn hear(&mut self, message: ToAgent, out: &Out) -> Result<(), Trouble> {
        match message.message {
            Some(to_agent::Message::Order(order)) => self.obey(order, out).await,
            Some(to_agent::Message::Goodbye(goodbye)) => Err(goodbye.reason.into()),
            Some(
                to_agent::Message::Welcome(_)
                | to_agent::Message::Ack(_)
                | to_agent::Message::Directory(_)
                | to_agent::Message::Standing(_)
                | to_agent::Message::Count(_)
                | to_agent::Message::Again(_),
            )
            | None => Ok(()),
        }
    }

    async fn obey(&mut self, order: Order, out: &Out) -> Result<(), Trouble> {
        let Order { rollout, attempt, work, .. } = order;
        let said = (rollout.as_str(), attempt);
        match work.ok_or("an order without work")? {
            order::Work::Prepare(_) => {
                self.report(said, report::What::Prepared(Prepared {}), out).await
            }
            order::Work::Update(update) => {
                let release = update.release.ok_or("an update without a release")?;
                self.update(said, &release, out).await
            }
            order::Work::Settle(_) => {
                self.crowd.count(|tally| *tally.settled.entry(rollout).or_default() += 1);
                Ok(())
            }
            order::Work::Run(_) => Err("the bench runs no commands".into()),
            order::Work::Once(_) => Err("the bench has no once-per-release job".into()),
        }
    }

    async fn update(
        &mut self,
        said: (&str, u32),
        release: &ReleaseSpec,
        out: &Out,
    ) -> Result<(), Trouble> {
        let measured = Some(Measured::default());
        for (step, health, traffic) in STEPS {
            if step == Step::Swap {
                self.runs = Some((release.version.clone(), release.digest.clone()));
            }
            if step == Step::Monitor {
                let joined = Joined { measured: measured.clone() };
                self.report(said, report::What::Joined(joined), out).await?;
            }
            let began = StepBegan { step: step.into(), in_flight: 0 };
            self.report(said, report::What::Step(began), out).await?;
            let name = step.as_str_name().trim_start_matches("STEP_").to_lowercase();
            let inventory = self.inventory(health, traffic, &name);
            out.send(say(from_agent::Message::Inventory(inventory))).await?;
        }
        self.report(said, report::What::Done(Done { measured }), out).await?;
        let inventory = self.inventory("healthy", "in", "");
        Ok(out.send(say(from_agent::Message::Inventory(inventory))).await?)
    }

    async fn report(
        &mut self,
        (rollout, attempt): (&str, u32),
        what: report::What,
        out: &Out,
    ) -> Result<(), Trouble> {
        self.seq += 1;
        let report = Report {
            seq: self.seq,
            rollout: rollout.to_owned(),
            attempt,
            at_ms: now_ms(),
            what: Some(what),
        };
        Ok(out.send(say(from_agent::Message::Report(report))).await?)
    }
}

type Out = mpsc::Sender<FromAgent>;

fn say(message: from_agent::Message) -> FromAgent {
    FromAgent { message: Some(message) }
}

/// A uniform part of a period, so that heartbeats are spread over it.
fn part(period: Duration) -> Duration {
    period.mul_f64(chance() as f64 / u64::MAX as f64)
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
