//! What this node says of its apps: release, health, traffic as the edges read it back.

use super::{Loop, Slot};
use crate::local;
use crate::report::{self, Health, TrafficState};
use crate::spec::{Needed, Spec, Via};
use crate::traffic::Observed;
use crate::traffic::client::{Member, SeenEdge};
use crate::update::{Instance, Mend, Phase, Revive, RevivePhase, Side, Step, Stray, Task, Work};

/// One app's leading instance, and whether it is known to be healthy.
struct Lead<'a> {
    spec: &'a Spec,
    instance: Option<&'a Instance>,
    health: Health,
    wanted: Side,
}

impl Loop {
    /// Tells the controllers what runs here; the link sends it only when it changed.
    pub(super) fn show(&self) {
        self.means.link.inventory(self.inventory());
    }

    /// Every app that has a release here.
    pub(super) fn inventory(&self) -> Vec<report::App> {
        let apps = self.slots.iter();
        apps.filter_map(|(app, slot)| {
            let lead = lead(slot)?;
            let (mut traffic, mut in_flight) = match lead.spec.traffic.via {
                Via::Endpoint { settle } => (self.traffic_by_polls(app, settle), 0),
                Via::Edge(_) | Via::Command(_) | Via::None => self.traffic(&lead),
            };
            if let Some(Stray { spec, instance, .. }) = &slot.state.stray {
                // The node is out of traffic when both are.
                let instance = Some(instance);
                let stray = Lead { spec, instance, health: Health::Healthy, wanted: Side::In };
                let (serves, more) = self.traffic(&stray);
                in_flight += more;
                if traffic == TrafficState::Out {
                    traffic = serves;
                }
            }
            let pool = match &lead.spec.traffic.via {
                Via::Edge(pool) => Some(pool.clone()),
                Via::Endpoint { .. } | Via::Command(_) | Via::None => None,
            };
            Some(report::App {
                app: app.clone(),
                release: Some((lead.spec.version.clone(), lead.spec.digest.clone())),
                health: lead.health,
                traffic,
                in_flight,
                port: lead.instance.map(|instance| instance.port).filter(|port| *port > 0),
                pool,
                step: step(slot),
            })
        })
        .collect()
    }

    /// Where an instance stands with the load balancers, by their own word.
    fn traffic(&self, lead: &Lead<'_>) -> (TrafficState, u64) {
        let Some(instance) = lead.instance else { return (TrafficState::Out, 0) };
        let Via::Edge(pool) = &lead.spec.traffic.via else {
            let is_in = lead.wanted == Side::In && lead.health != Health::Stopped;
            return (if is_in { TrafficState::In } else { TrafficState::Out }, 0);
        };
        let member = Member { pool: pool.clone(), instance: instance.label.clone() };
        let seen = self.means.edges.watch();
        let seen = seen.borrow();
        let serving: Vec<_> = seen.values().filter(|edge| edge.pools.contains(pool)).collect();
        let asked = |edge: &SeenEdge| edge.unreachable_since(&member).is_none();
        let enough =
            lead.spec.traffic.edges == Needed::Reachable && serving.iter().any(|it| asked(it));
        let serving = serving.into_iter().filter(|edge| !enough || asked(edge));
        let (mut edges, mut is_in, mut draining, mut in_flight) = (0, 0, false, 0);
        for edge in serving {
            edges += 1;
            // An edge that cannot be asked has not changed its mind for that.
            let heard = edge.members.get(&member).or_else(|| edge.last_known.get(&member));
            if let Some(member) = heard {
                is_in += usize::from(member.observed == Observed::In);
                draining |= member.observed == Observed::Draining;
                in_flight += member.in_flight;
            }
        }
        let state = if draining {
            TrafficState::Draining
        } else if edges > 0 && is_in == edges {
            TrafficState::In
        } else {
            TrafficState::Out
        };
        (state, in_flight)
    }

    /// The updates under way, for people on this node.
    pub(super) fn updates(&self) -> Vec<local::Update> {
        let updates = self.slots.values().filter_map(|slot| match &slot.state.work {
            Work::Update(update) => Some(local::Update {
                rollout: update.order.rollout.clone(),
                attempt: update.order.attempt,
                step: step(slot).map(|step| step.to_string()),
                to: update.order.spec.version.clone(),
            }),
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => None,
        });
        updates.collect()
    }
}

fn step(slot: &Slot) -> Option<Step> {
    match &slot.state.work {
        Work::Update(update) => Some(match &update.phase {
            Phase::Forward(task) => task.step(),
            Phase::Back { .. } => Step::Restore,
        }),
        Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => None,
    }
}

/// The instance that serves, or would.
fn lead(slot: &Slot) -> Option<Lead<'_>> {
    let state = &slot.state;
    if let Work::Update(update) = &state.work {
        let facts = &update.facts;
        let proven = match &update.phase {
            // Beside an old instance that serves, the new one leads when the old one leaves.
            Phase::Forward(_) if update.is_beside() && facts.old_in => false,
            Phase::Forward(task) => {
                matches!(task, Task::Join | Task::AfterJoin | Task::Monitor) || facts.new_in
            }
            Phase::Back { .. } => false,
        };
        return match (&facts.new, &facts.old, &update.old) {
            (Some(new), _, _) if proven => Some(Lead {
                spec: &update.order.spec,
                instance: Some(new),
                health: Health::Healthy,
                wanted: if facts.new_in { Side::In } else { Side::Out },
            }),
            (_, Some(old), Some(spec)) => {
                let starting = matches!(
                    update.phase,
                    Phase::Back { mend: Mend::OldStart | Mend::OldHealth, .. }
                );
                let health = if starting { Health::Stopped } else { Health::Healthy };
                let wanted = if facts.old_in { Side::In } else { Side::Out };
                Some(Lead { spec, instance: Some(old), health, wanted })
            }
            (_, None, Some(spec)) => {
                Some(Lead { spec, instance: None, health: Health::Stopped, wanted: Side::Out })
            }
            (_, _, None) => None,
        };
    }
    let settled = state.current.as_ref()?;
    let getting_up = matches!(
        state.work,
        Work::Revive(Revive {
            phase: RevivePhase::Wait | RevivePhase::Start | RevivePhase::Health | RevivePhase::Stop,
            ..
        })
    );
    let health = match &settled.instance {
        None => Health::Stopped,
        Some(_) if getting_up => Health::Stopped,
        Some(instance) if slot.unwell.contains(&instance.token) => Health::Unhealthy,
        Some(_) if settled.side == Side::Out => Health::Unhealthy,
        Some(_) => Health::Healthy,
    };
    let wanted = if state.drained { Side::Out } else { settled.side };
    Some(Lead { spec: &settled.spec, instance: settled.instance.as_ref(), health, wanted })
}
