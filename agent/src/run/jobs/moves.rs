//! The jobs that move an app in and out of traffic, and what is done when an edge does not answer.

use std::time::{Duration, Instant};

use super::{Desk, Did, Outcome, Trouble};
use crate::run::Happened;
use crate::spec::{OnDrainTimeout, Port, Spec, Via};
use crate::traffic::Observed;
use crate::traffic::client::{Member, Seen};
use crate::traffic::drain::{Leaving, Mover, TrafficError};
use crate::update::Instance;

/// How long every edge may take to read a member back as in: its health check must pass there too.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the edges may take to end and count what is cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a healthy app waits for an edge that is away. Then the update fails, and says so.
const EDGE_PATIENCE: Duration = Duration::from_secs(600);

impl Desk {
    pub(super) async fn join(&self, spec: &Spec, instance: &Instance) -> Outcome {
        match &spec.traffic.via {
            Via::None => Ok(Did::Ok),
            Via::Edge(_) => {
                let Some((member, desired)) = self.means.member(spec, instance) else {
                    return Ok(Did::Ok);
                };
                let begun = Instant::now();
                loop {
                    let joined = self.mover(spec).join(&member, &desired, JOIN_TIMEOUT).await;
                    match joined {
                        Ok(_) => return Ok(Did::Ok),
                        // The app is well: it is only that nobody is there to let it in.
                        Err(_) if self.edge_is_away(&member) && begun.elapsed() < EDGE_PATIENCE => {
                        }
                        Err(error) => return Err(Trouble::of(&error)),
                    }
                }
            }
            Via::Command(scripts) => self.join_by(scripts, spec, instance).await,
            Via::Endpoint { settle } => self.join_by_polls(*settle).await,
        }
    }

    /// Is there an edge of the pool with which there is no session now?
    fn edge_is_away(&self, member: &Member) -> bool {
        let seen = self.means.edges.watch();
        let seen = seen.borrow();
        let mut edges = seen.values().filter(|edge| edge.pools.contains(&member.pool));
        edges.any(|edge| edge.remote.is_none())
    }

    pub(super) async fn drain(&self, spec: &Spec, instance: &Instance, must: bool) -> Outcome {
        if !has_started(spec, instance) {
            return Ok(nothing_in_flight()); // it has not listened anywhere yet, so nobody could join it
        }
        let leaving = match &spec.traffic.via {
            // Nobody can be kept from connecting: who comes now is answered by whoever has the socket next, and the app
            // answers whom it has accepted before it ends.
            Via::None if spec.run.socket => return Ok(nothing_in_flight()),
            Via::None | Via::Edge(_) if instance.port == 0 => return Ok(nothing_in_flight()),
            Via::None => Leaving::Kernel { port: instance.port },
            Via::Edge(_) => match self.means.member(spec, instance) {
                Some((member, app)) => Leaving::Edges { member, app },
                None => return Ok(nothing_in_flight()),
            },
            Via::Command(scripts) => return self.drain_by(scripts, (spec, instance), must).await,
            Via::Endpoint { settle } => {
                return self.drain_by_polls(*settle, (spec, instance), must).await;
            }
        };
        let mover = self.mover(spec);
        let drained = tokio::select! {
            drained = mover.drain(&leaving, spec.traffic.drain_timeout) => drained,
            never = self.tell_progress(&leaving) => never,
        };
        match drained {
            Ok(drained) => Ok(Did::Drained {
                in_flight_at_start: drained.in_flight_at_start,
                cut: drained.cut,
            }),
            Err(error) if must || spec.traffic.on_drain_timeout == OnDrainTimeout::Cut => {
                self.cut(mover, &leaving, error, must).await
            }
            Err(error) => Err(Trouble::of(&error)),
        }
    }

    /// Waits until nobody is connected to the app any more. `cuts`: whoever still is in the end is counted as cut.
    pub(super) async fn quiet(
        &self,
        (spec, instance): (&Spec, &Instance),
        limit: Duration,
        cuts: bool,
    ) -> Result<Quiet, Trouble> {
        if instance.port == 0 {
            return Ok(Quiet { at_start: 0, cut: 0 });
        }
        let leaving = Leaving::Kernel { port: instance.port };
        match self.mover(spec).drain(&leaving, limit).await {
            Ok(drained) => Ok(Quiet { at_start: drained.in_flight_at_start, cut: 0 }),
            Err(TrafficError::NotDrained { in_flight_at_start, in_flight, .. }) if cuts => {
                Ok(Quiet { at_start: in_flight_at_start, cut: in_flight })
            }
            Err(error) => Err(Trouble::of(&error)),
        }
    }

    /// The deadline passed: what is still in flight is ended and counted. An edge that does not confirm that may go on
    /// sending requests: nothing is stopped then, unless it must be; what it last said was in flight is counted as cut.
    async fn cut(
        &self,
        mover: Mover<'_>,
        leaving: &Leaving,
        late: TrafficError,
        must: bool,
    ) -> Outcome {
        let TrafficError::NotDrained { in_flight_at_start, in_flight, waiting, .. } = late else {
            return Err(Trouble::of(&late));
        };
        let direct = waiting.connections as u64;
        let by_edges = match leaving {
            Leaving::Kernel { .. } => 0,
            Leaving::Edges { member, app } => match mover.cut(member, app, CUT_TIMEOUT).await {
                Ok(cut) => cut,
                Err(error) if !must => return Err(Trouble::of(&error)),
                Err(error) => {
                    tracing::warn!(app = self.app, %error, "not every edge confirmed the cut");
                    in_flight
                }
            },
        };
        Ok(Did::Drained { in_flight_at_start, cut: by_edges + direct })
    }

    /// Tells how many requests the drain still waits for, whenever an edge says so. Never ends by itself.
    async fn tell_progress<T>(&self, leaving: &Leaving) -> T {
        let mut seen = self.means.edges.watch();
        let mut last = None;
        loop {
            if let Leaving::Edges { member, .. } = leaving {
                let in_flight = in_flight(&seen.borrow_and_update(), member);
                if last != Some(in_flight) && (in_flight > 0 || last.is_some()) {
                    last = Some(in_flight);
                    let app = self.app.clone();
                    self.means.tell(Happened::Draining { app, in_flight }).await;
                }
            }
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The connections to an app, by the kernel's word.
pub(super) struct Quiet {
    /// Of the first look.
    pub at_start: u64,
    /// That were there to the end.
    pub cut: u64,
}

/// An app with a port has it from its first start on.
fn has_started(spec: &Spec, instance: &Instance) -> bool {
    instance.port > 0 || spec.run.port == Port::None
}

fn nothing_in_flight() -> Did {
    Did::Drained { in_flight_at_start: 0, cut: 0 }
}

/// Requests of a member that are in flight, over all edges.
fn in_flight(seen: &Seen, member: &Member) -> u64 {
    let members = seen.values().filter_map(|edge| edge.members.get(member));
    members.filter(|member| member.observed != Observed::Absent).map(|m| m.in_flight).sum()
}
