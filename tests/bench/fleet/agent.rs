//! One simulated agent: the real protocol over real mTLS sessions, and an app that takes no time at all.
//!
//! It says what a real agent says in an update, report by report and with an inventory after each step, so that the
//! controllers have the same work. Like a real one it holds a session with every controller of which it is told, says
//! everything to all of them, and repeats what is not acknowledged. It holds nothing on a disk.

mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rota_agent::backoff::{Backoff, chance};
use rota_agent::dial::dial;
use rota_agent::own::Own;
use rota_proto::agent::fleet_client::FleetClient;
use rota_proto::agent::{
    Ack, Directory, Heartbeat, Hello, Order, ToAgent, from_agent, order, to_agent,
};
use rota_tests::Trouble;
use rota_tests::farm::ENV;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::crowd::Crowd;
use state::{Out, State, now_ms, say};

/// What this agent speaks.
const PROTOCOL: u32 = 1;

/// One agent.
pub struct Simulated {
    own: Own,
    crowd: Arc<Crowd>,
    state: Mutex<State>,
}

impl Simulated {
    /// One that has an identity, and runs nothing.
    pub fn new(own: Own, crowd: Arc<Crowd>) -> Arc<Self> {
        Arc::new(Self { own, crowd, state: Mutex::default() })
    }

    /// Holds a session with this controller, and with every other one of which it hears, until the program ends.
    pub fn live(self: &Arc<Self>, address: String) {
        if self.state().targets.insert(address.clone()) {
            tokio::spawn(Arc::clone(self).keep(address));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep(self: Arc<Self>, address: String) {
        let mut backoff = Backoff::default();
        loop {
            let mut welcomed = None;
            if let Err(error) = Box::pin(self.session(&address, &mut welcomed)).await {
                self.crowd.heard_error(&error);
            }
            // Real agents spread their return as the controller said; the bench says whether these do.
            let wait = match welcomed {
                Some((controller, spread)) => {
                    self.state().sessions.remove(&controller);
                    self.crowd.count(|tally| tally.is_down(&controller));
                    let spread = if self.crowd.spreads() { spread } else { Duration::ZERO };
                    backoff.after_life(spread, chance())
                }
                None => backoff.after_failure(chance()),
            };
            tokio::time::sleep(wait).await; // the agents' own pause between two tries
        }
    }

    async fn session(
        self: &Arc<Self>,
        address: &str,
        welcomed: &mut Option<(String, Duration)>,
    ) -> Result<(), Trouble> {
        let dialled = dial(address, self.own.to_controllers()).await?;
        let controller = dialled.peer.name().to_owned();
        let (out, outbound) = mpsc::unbounded_channel();
        let hello = self.hello();
        let told = hello.inventory.clone();
        out.send(say(from_agent::Message::Hello(hello)))?;
        let mut client = FleetClient::new(dialled.channel);
        let outbound = UnboundedReceiverStream::new(outbound);
        let mut inbound = client.session(outbound).await?.into_inner();
        let first = inbound.message().await?.and_then(|first| first.message);
        let Some(to_agent::Message::Welcome(welcome)) = first else {
            return Err("the controller did not begin with a welcome".into());
        };
        *welcomed = Some((controller.clone(), Duration::from_millis(welcome.spread_ms)));
        self.crowd.count(|tally| tally.is_up(&controller));
        let period = Duration::from_millis(welcome.heartbeat_ms.max(1));
        let first = tokio::time::Instant::now() + part(period);
        let mut heartbeat = tokio::time::interval_at(first, period);
        self.state().begin(&controller, &out, told.as_ref());
        self.learn(welcome.directory.unwrap_or_default());
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let message = message?.ok_or("the controller ended the session")?;
                    self.hear(&controller, message, &out)?;
                }
                _ = heartbeat.tick() => {
                    let beat = Heartbeat { sent_at_ms: now_ms() };
                    out.send(say(from_agent::Message::Heartbeat(beat)))?;
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            env: ENV.to_owned(),
            roles: vec!["web".to_owned()],
            inventory: Some(self.state().inventory()),
            protocol: PROTOCOL,
            address: "127.0.0.1".to_owned(),
            ..Hello::default()
        }
    }

    fn learn(self: &Arc<Self>, directory: Directory) {
        directory.controllers.into_iter().for_each(|address| self.live(address));
    }

    fn hear(self: &Arc<Self>, from: &str, message: ToAgent, out: &Out) -> Result<(), Trouble> {
        match message.message {
            Some(to_agent::Message::Order(order)) => self.obey(from, order),
            Some(to_agent::Message::Goodbye(goodbye)) => Err(goodbye.reason.into()),
            Some(to_agent::Message::Directory(directory)) => {
                self.learn(directory);
                Ok(())
            }
            Some(to_agent::Message::Ack(Ack { seq })) => {
                self.state().acked(seq);
                Ok(())
            }
            Some(to_agent::Message::Again(_)) => {
                self.state().again(out);
                Ok(())
            }
            Some(
                to_agent::Message::Welcome(_)
                | to_agent::Message::Standing(_)
                | to_agent::Message::Count(_),
            )
            | None => Ok(()),
        }
    }

    fn obey(&self, from: &str, order: Order) -> Result<(), Trouble> {
        let Order { rollout, attempt, term, work } = order;
        let mut state = self.state();
        if !state.accepts(&rollout, attempt, term) {
            self.crowd.count(|tally| tally.stale += 1);
            return Ok(());
        }
        match work.ok_or("an order without work")? {
            order::Work::Prepare(_) => state.prepare(&rollout, attempt),
            order::Work::Update(update) => {
                let release = update.release.ok_or("an update without a release")?;
                if let Some(again) = state.update(&rollout, attempt, &release) {
                    self.crowd.count(|tally| tally.updates(from, (&rollout, term), again));
                }
            }
            order::Work::Settle(_) => {
                if state.settle(&rollout) {
                    self.crowd.count(|tally| *tally.settled.entry(rollout).or_default() += 1);
                }
            }
            order::Work::Run(_) => return Err("the bench runs no commands".into()),
            order::Work::Once(_) => return Err("the bench has no once-per-release job".into()),
        }
        Ok(())
    }
}

/// A uniform part of a period, so that heartbeats are spread over it.
fn part(period: Duration) -> Duration {
    period.mul_f64(chance() as f64 / u64::MAX as f64)
}
