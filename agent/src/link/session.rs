//! One controller: dial, say hello, talk until it ends, and again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rota_proto::agent::fleet_client::FleetClient;
use rota_proto::agent::{self as proto, from_agent, to_agent};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, info, warn};

use super::ended::Ended;
use super::printed::Teller;
use super::sender::Sender;
use super::{Event, Seen, SeenState, Shared};
use crate::backoff::{Backoff, SPREAD, chance};
use crate::dial::dial;
use crate::enrol;
use crate::report::Happening;
use crate::traffic::Refusal;
use crate::wire;

/// What this agent speaks; the controller refuses what it cannot.
const PROTOCOL: u32 = 1;

/// Messages on their way to one controller. When they do not leave, the session is dead.
const OUTBOUND_MAX: usize = 64;

/// How long a controller may take to welcome us: it writes to its store before it does.
pub(super) const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest message from a controller, in bytes: an order with a long manifest has some 10 KiB.
const MESSAGE_MAX: usize = 1 << 20;

/// How often at most an edge tells its members' numbers, because they move with every request.
const POOLS_EVERY: Duration = Duration::from_millis(100);

/// A clock that is off by more than this is worth a warning: certificates and logs suffer.
const CLOCK_OFF: Duration = Duration::from_secs(30);

/// Holds the session with this address until it is no longer in the list.
pub(super) async fn keep(shared: Arc<Shared>, address: String) {
    let mut backoff = Backoff::default();
    let mut stop = shared.stop.subscribe();
    let mut last_error = String::new();
    shared.note(&address, None, SeenState::Down, None);
    let mut inventory = shared.inventory.subscribe();
    tokio::select! {
        known = inventory.wait_for(Option::is_some) => if known.is_err() { return },
        _ = stop.wait_for(|stop| *stop) => return,
    }
    while shared.targets.borrow().contains(&address) && !*shared.stop.borrow() {
        let serial = shared.own.leaf().serial;
        let mut session = Session::new(&shared, &address);
        let ended = tokio::select! {
            ended = Box::pin(session.run()) => ended,
            _ = stop.wait_for(|stop| *stop) => Ended::Stopping,
        };
        let spread = session.spread;
        let lived = session.close().await;
        let mut error = ended.to_string();
        if error.contains(enrol::REVOKED) {
            error.push_str("; it was removed: start it with a new `--token` to join again");
            tokio::select! {
                joined = shared.join_again(&serial) => if joined { continue },
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        // One line for a change, not one for every try.
        if lived || last_error != error {
            warn!(address, "no session with the controller: {error}");
        } else {
            debug!(address, "still no session with the controller: {error}");
        }
        if let Ended::Same(name) = &ended {
            shared.note(&address, Some(name), SeenState::Same, None);
            let wait = shared.released(name);
            tokio::select! { () = wait => {}, _ = stop.wait_for(|stop| *stop) => break }
        } else {
            shared.note(&address, None, SeenState::Down, Some(error.clone()));
        }
        last_error = error;
        let wait = match lived {
            true => backoff.after_life(spread, chance()),
            false => backoff.after_failure(chance()),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    shared.seen().remove(&address);
}

impl Shared {
    fn note(&self, address: &str, name: Option<&str>, state: SeenState, error: Option<String>) {
        let mut seen = self.seen();
        let known = seen.get(address).and_then(|seen| seen.name.clone());
        let name = name.map(str::to_owned).or(known);
        let address = address.to_owned();
        seen.insert(address.clone(), Seen { address, name, state, error });
    }

    /// The next refusal that nobody was told of. Cancelling it loses none.
    async fn refused(&self) -> Option<Refusal> {
        self.refusals.1.lock().await.recv().await
    }

    /// The next thing that happened and nobody was told of. Cancelling it loses none.
    async fn happened(&self) -> Option<Happening> {
        self.happenings.1.lock().await.recv().await
    }

    /// Only one address may hold the session with a controller; a second Hello would end the
    /// first session there, and the two would take turns for ever.
    fn claim(&self, name: &str, address: &str) -> bool {
        self.claims.send_if_modified(|claims| {
            let free = !claims.contains_key(name);
            if free {
                claims.insert(name.to_owned(), address.to_owned());
            }
            free
        })
    }

    /// Waits until no address holds the session with this controller.
    async fn released(&self, name: &str) {
        let mut claims = self.claims.subscribe();
        // The sender lives in `self`: an error cannot happen while we wait.
        if claims.wait_for(|claims| !claims.contains_key(name)).await.is_err() {
            debug!("the claims are gone");
        }
    }
}

/// One try.
struct Session<'a> {
    shared: &'a Shared,
    address: &'a str,
    /// The controller's name, while we hold its claim.
    claimed: Option<String>,
    /// Was there a welcome?
    welcomed: bool,
    /// Within what time to come back when it ends.
    spread: Duration,
    /// The controller wants this edge to count anew: the n-th time that any wants it, and the controller's number.
    asked: Option<(u64, u64)>,
    /// The controller wants to hear everything again.
    again: bool,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, address: &'a str) -> Self {
        let (spread, asked) = (SPREAD, None);
        Self { shared, address, claimed: None, welcomed: false, spread, asked, again: false }
    }

    /// Gives back what the session held; says whether it had been welcomed.
    async fn close(self) -> bool {
        let Some(name) = self.claimed else { return false };
        self.shared.claims.send_modify(|claims| {
            claims.remove(&name);
        });
        if self.welcomed {
            self.shared.tell(Event::Down(name)).await;
        }
        self.welcomed
    }

    async fn run(&mut self) -> Ended {
        match self.talk().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn talk(&mut self) -> Result<std::convert::Infallible, Ended> {
        let dialled = dial(self.address, self.shared.own.to_controllers()).await?;
        let name = dialled.peer.name().to_owned();
        if !self.shared.claim(&name, self.address) {
            return Err(Ended::Same(name));
        }
        self.claimed = Some(name.clone());
        let (to_wire, outbound) = mpsc::channel(OUTBOUND_MAX);
        let sender = Sender { to_wire };
        let mut waiting = self.shared.waiting.subscribe();
        let mut inventory = self.shared.inventory.subscribe();
        let mut pools = self.shared.pools.subscribe();
        let mut prints = Teller::of(&self.shared.printed);
        sender.send(from_agent::Message::Hello(self.hello(&mut inventory))).await?;
        let mut client = FleetClient::new(dialled.channel).max_decoding_message_size(MESSAGE_MAX);
        let welcome = async {
            let mut inbound = client.session(ReceiverStream::new(outbound)).await?.into_inner();
            let welcome = next(&mut inbound).await?;
            Ok::<_, Ended>((inbound, welcome))
        };
        let welcome = timeout(WELCOME_TIMEOUT, welcome).await.map_err(|_| Ended::NotWelcomed)?;
        let (mut inbound, to_agent::Message::Welcome(welcome)) = welcome? else {
            return Err(Ended::OutOfOrder);
        };
        self.welcomed = true;
        if welcome.spread_ms > 0 {
            self.spread = Duration::from_millis(welcome.spread_ms);
        }
        let mut heartbeat = every(wire::heartbeat(welcome.heartbeat_ms));
        self.begin(&name, welcome).await;
        let mut sent = 0;
        let mut pools_due = every(POOLS_EVERY);
        let mut pools_told = false;
        loop {
            if std::mem::take(&mut self.again) {
                sent = 0;
                self.say_state(&mut inventory, &sender).await?;
                self.say_pools(&mut pools, &sender).await?;
            }
            // Before each wait, what this controller has not heard yet.
            sent = sender.reports(&mut waiting, sent).await?;
            tokio::select! {
                message = next(&mut inbound) => self.hear(&name, message?, &sender).await?,
                _ = heartbeat.tick() => {
                    let beat = proto::Heartbeat { sent_at_ms: now_ms() };
                    sender.send(from_agent::Message::Heartbeat(beat)).await?;
                    self.say_pools(&mut pools, &sender).await?;
                }
                changed = waiting.changed() => gone(changed)?,
                changed = inventory.changed() => {
                    gone(changed)?;
                    self.say_state(&mut inventory, &sender).await?;
                }
                Some(refusal) = self.shared.refused() => {
                    sender.send(from_agent::Message::Refusal(wire::refused(refusal))).await?;
                }
                Some(happening) = self.shared.happened() => {
                    sender.send(from_agent::Message::Happening(wire::happening(happening))).await?;
                }
                changed = pools.changed(), if !pools_told || self.asked.is_some() => {
                    gone(changed)?;
                    self.say_pools(&mut pools, &sender).await?;
                    pools_told = true;
                    pools_due.reset();
                }
                _ = pools_due.tick(), if pools_told => pools_told = false,
                news = prints.next() => sender.print(news).await?,
            }
        }
    }

    fn hello(
        &self,
        inventory: &mut watch::Receiver<Option<Arc<Vec<crate::report::App>>>>,
    ) -> proto::Hello {
        let apps = inventory.borrow_and_update().clone().unwrap_or_default();
        let setup = &self.shared.setup;
        proto::Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            env: setup.env.clone(),
            roles: setup.roles.clone(),
            labels: setup.labels.clone().into_iter().collect(),
            inventory: Some(wire::inventory(&apps)),
            traffic_address: setup.traffic_address.clone(),
            edges: setup.edges.clone(),
            protocol: PROTOCOL,
            address: setup.address.clone().unwrap_or_default(),
        }
    }

    /// What runs here.
    async fn say_state(
        &self,
        inventory: &mut watch::Receiver<Option<Arc<Vec<crate::report::App>>>>,
        sender: &Sender,
    ) -> Result<(), Ended> {
        let apps = inventory.borrow_and_update().clone().unwrap_or_default();
        sender.send(from_agent::Message::Inventory(wire::inventory(&apps))).await
    }

    async fn begin(&self, name: &str, welcome: proto::Welcome) {
        info!(controller = name, address = self.address, "session");
        self.shared.note(self.address, Some(name), SeenState::Up, None);
        // Who is removed from now on stays out until somebody starts it again with a token.
        *self.shared.invited.lock().await = None;
        let off = Duration::from_millis(now_ms().abs_diff(welcome.now_ms));
        if off > CLOCK_OFF {
            warn!("this host's clock and that of {name} differ by {} s", off.as_secs());
        }
        self.shared.tell(Event::Up(name.to_owned())).await;
        self.shared.tell(Event::Standing(wire::standing(welcome.standing))).await;
        if let Some(directory) = welcome.directory {
            self.learn(name, directory).await;
        }
    }

    async fn learn(&self, name: &str, directory: proto::Directory) {
        match wire::directory(directory) {
            Ok(directory) => self.shared.learn(directory).await,
            // The one before stays in use; the sessions that live are not touched.
            Err(error) => warn!("{name} sent a directory that cannot be used: {error}"),
        }
    }

    async fn hear(
        &mut self,
        name: &str,
        message: to_agent::Message,
        sender: &Sender,
    ) -> Result<(), Ended> {
        match message {
            to_agent::Message::Welcome(_) => return Err(Ended::OutOfOrder),
            to_agent::Message::Goodbye(goodbye) => return Err(Ended::Goodbye(goodbye.reason)),
            to_agent::Message::Directory(directory) => self.learn(name, directory).await,
            to_agent::Message::Again(_) => self.again = true,
            to_agent::Message::Count(count) => {
                self.shared.counts.send_modify(|counts| *counts += 1);
                self.asked = Some((*self.shared.counts.borrow(), count.number));
            }
            to_agent::Message::Standing(standing) => {
                self.shared.tell(Event::Standing(wire::standing(Some(standing)))).await;
            }
            to_agent::Message::Ack(ack) => {
                let mut settled = None;
                self.shared.waiting.send_if_modified(|waiting| {
                    settled = waiting.acked(ack.seq);
                    false // nobody has to send anything because of it
                });
                if let Some(seq) = settled {
                    self.shared.tell(Event::Acked(seq)).await;
                }
            }
            to_agent::Message::Order(order) => {
                let (rollout, attempt) = (order.rollout.clone(), order.attempt);
                match wire::order(order, self.shared.setup.driver) {
                    Ok(order) => {
                        let (controller, order) = (name.to_owned(), Box::new(order));
                        self.shared.tell(Event::Order { controller, order }).await;
                    }
                    Err(error) => {
                        warn!(rollout, attempt, controller = name, "{error}");
                        let answer = wire::refusal(&rollout, attempt, &error, now_ms());
                        sender.send(from_agent::Message::Report(answer)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn say_pools(
        &mut self,
        pools: &mut watch::Receiver<proto::EdgeState>,
        sender: &Sender,
    ) -> Result<(), Ended> {
        let mut state = pools.borrow_and_update().clone();
        if state.pools.is_empty() {
            return Ok(()); // not an edge
        }
        let answered = self.asked.take_if(|(wanted, _)| state.counted >= *wanted);
        state.counted = answered.map_or(0, |(_, number)| number);
        sender.send(from_agent::Message::Edge(state)).await
    }
}

/// The next message that we know; newer controllers may say things that we do not.
async fn next(inbound: &mut Streaming<proto::ToAgent>) -> Result<to_agent::Message, Ended> {
    loop {
        let message = inbound.message().await?.ok_or(Ended::Closed)?;
        match message.message {
            Some(message) => return Ok(message),
            None => debug!("the controller said something that this version does not know"),
        }
    }
}

/// The senders live as long as the agent; without them there is nothing more to say.
fn gone(changed: Result<(), watch::error::RecvError>) -> Result<(), Ended> {
    changed.map_err(|_| Ended::Stopping)
}

pub(super) fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
