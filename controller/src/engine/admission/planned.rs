//! What a rollout would do, told before it begins: the same finding that it would start from.

use rota_rollout::Hold;
use rota_rollout::names::{NodeName, RolloutId};
use rota_rollout::rollout::{Kind, Spec};
use rota_rollout::strategy::{Deadline, OnFailure};

use super::{Found, Start, find, in_the_way, spec_of};
use crate::calendar::ahead;
use crate::engine::Turn;
use crate::engine::batch::Answer;
use crate::engine::pace;
use crate::engine::windows::instant;
use crate::errors::Sort;
use crate::manifest::changes;
use crate::view::{EtaView, KeyChange, OnceView, PlanView, PlannedHoldView, SkippedView, StepView};

impl Turn<'_> {
    /// What a rollout would do, with every reason why it would be refused.
    pub(in crate::engine) fn plan_only(&mut self, start: Start) -> Answer {
        let found = find(self.state, &start)?;
        let mut refusals = found.plan.refusals.clone();
        if let Some(running) = self.state.stays(&start) {
            let in_the_way = in_the_way(&running.rollout);
            refusals.insert(0, format!("{}: {}", in_the_way.message, in_the_way.hint));
        }
        let id = self.next_id(&start.app, &start.env);
        let eta = self.eta(&start, &found);
        let spec = spec_of(&id, &start, &found.resolved, &found.release);
        let holds = self.holds((&start, &found), &eta, &spec);
        let from = self.state.current(&start.app, &start.env).map(|from| from.version.to_string());
        let (once, changes) = (self.once_ahead(&id, &start, &found), self.changes(&start, &found));
        let plan = found.plan;
        let texts = |names: &[NodeName]| names.iter().map(NodeName::to_string).collect();
        let skipped = plan.skipped.iter();
        let view = PlanView {
            batches: plan.batches.iter().map(|batch| texts(batch)).collect(),
            targets: plan.targets,
            skipped: skipped
                .map(|(name, why)| SkippedView { name: name.to_string(), why: why.to_string() })
                .collect(),
            least_in_traffic: plan.least_in_traffic,
            refusals,
            notes: plan.notes,
            from,
            to: found.release.version.to_string(),
            steps: plan
                .steps
                .iter()
                .map(|step| StepView {
                    batch: step.batch,
                    out: step.out,
                    in_traffic: step.in_traffic,
                })
                .collect(),
            approvals: plan.approvals,
            holds,
            once,
            eta: Some(eta),
            changes,
            files: None,
        };
        serde_json::to_value(view).map_err(|e| Sort::Internal.error(e.to_string(), ""))
    }

    fn eta(&self, start: &Start, found: &Found) -> EtaView {
        let fleet = self.state.fleets.get(&(start.app.clone(), start.env.clone()));
        let paces = fleet.map(|fleet| fleet.paces.as_slice()).unwrap_or_default();
        let sizes: Vec<usize> = found.plan.batches.iter().map(Vec::len).collect();
        pace::eta(&found.resolved.strategy, found.plan.targets, &sizes, paces)
    }

    /// What would hold it, or turn it round.
    fn holds(
        &self,
        (start, found): (&Start, &Found),
        eta: &EtaView,
        spec: &Spec,
    ) -> Vec<PlannedHoldView> {
        let closed = self.state.closed(&start.env).filter(|_| start.break_glass.is_none());
        let closed = closed.map(|closed| Hold::Closed(closed.clone()));
        let strategy = &found.resolved.strategy;
        let late = match strategy.deadline {
            Deadline::After(after) if eta.ms > after.0 => Some(Hold::Deadline { after }),
            Deadline::After(_) | Deadline::None => None,
        };
        let view = |hold: &Hold| {
            let turns = strategy.on_failure == OnFailure::Rollback;
            let more = match hold {
                Hold::Closed(closed) => {
                    format!(" ({})", ahead(instant(self.at), instant(closed.opens)))
                }
                Hold::Failures { .. } if turns => ": it would roll back".to_owned(),
                Hold::Failures { .. }
                | Hold::Fence { .. }
                | Hold::RollbackFailed { .. }
                | Hold::Rehearsal { .. }
                | Hold::Approval { .. }
                | Hold::Capacity { .. }
                | Hold::Offline { .. }
                | Hold::Busy { .. }
                | Hold::Edges { .. }
                | Hold::Frozen { .. }
                | Hold::Deadline { .. }
                | Hold::OnceUnknown { .. }
                | Hold::Once { .. } => String::new(),
            };
            PlannedHoldView {
                kind: hold.kind().to_owned(),
                text: format!("{hold}{more}"),
                hint: hold.hint(spec),
                nodes: hold.nodes().iter().map(NodeName::to_string).collect(),
            }
        };
        closed.iter().chain(&found.plan.holds).chain(&late).map(view).collect()
    }

    /// Where the once-per-release job would run: on the first target by name that takes part.
    fn once_ahead(&self, id: &RolloutId, start: &Start, found: &Found) -> Option<OnceView> {
        let once = found.resolved.once.as_ref()?;
        if start.kind != Kind::Deploy || self.once_done(id, &found.release) {
            return None;
        }
        let online = |name: &&NodeName| self.state.node(name).is_some_and(|node| node.online);
        let node = found.plan.batches.iter().flatten().filter(online).min()?;
        Some(OnceView { node: node.to_string(), command: once.command.clone() })
    }

    /// What the manifest says otherwise than the current release's.
    fn changes(&self, start: &Start, found: &Found) -> Vec<KeyChange> {
        let now = self
            .state
            .current(&start.app, &start.env)
            .and_then(|now| self.state.releases.get(&(start.app.clone(), now.version.clone())));
        let Some(now) = now else { return Vec::new() };
        let new = start.manifest.as_ref().map_or(&found.release.manifest, |given| &given.text);
        changes(&now.manifest, new, &start.env)
    }
}
