//! Putting the previous release back: from whatever is true now to "it runs, healthy, in traffic", or a loud failure.
//!
//! There is no list of steps to undo. Each time the facts are looked at, and the first thing that is not as it should
//! be is mended; so a crash in the middle, or a restore that begins anywhere, need no rows of their own.

use serde::{Deserialize, Serialize};

use super::forward::{Facts, Failure, Phase, Update};
use super::{
    Did, Direction, Failed, HookSet, Instance, Job, Left, Machine, Said, Settled, Side, Step,
    Stray, Work,
};

/// One step of mending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mend {
    /// The old instance, which still runs, enters traffic again.
    OldRejoin,
    /// The new instance leaves traffic.
    NewLeave,
    /// The new process ends.
    NewStop,
    /// `current` points to the old release again.
    SwapBack,
    /// The old release starts.
    OldStart,
    /// It becomes healthy.
    OldHealth,
    /// It enters traffic.
    OldJoin,
    /// The operator's `on_failure` scripts.
    OnFailure,
}

impl Machine {
    /// An update failed: put things right again.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let at = self.at;
        let Work::Update(update) = &mut self.app.work else { return };
        if update.facts.new_in && !update.facts.old_in {
            update.left_traffic_at.get_or_insert(at); // it served already, and does no more
        }
        let update = &*update;
        self.notes.push(format!("{:?} failed: {}", failure.step, failure.cause));
        let (rollout, attempt) = (update.order.rollout.clone(), update.order.attempt);
        if update.facts.touched {
            self.say(&rollout, attempt, Said::Began { step: Step::Restore, in_flight: 0 });
        }
        self.mend_next(failure);
    }

    /// Mends the next thing, or ends.
    fn mend_next(&mut self, failure: Failure) {
        let Work::Update(update) = &self.app.work else { return };
        match next(update) {
            Some(mend) => self.mend(mend, failure),
            None => self.scripts_then_end(failure),
        }
    }

    fn mend(&mut self, mend: Mend, failure: Failure) {
        let counter = self.app.counter;
        let drained = self.app.drained;
        let Work::Update(update) = &mut self.app.work else { return };
        match mend {
            Mend::OldRejoin | Mend::OldJoin => update.facts.old_in = true,
            Mend::NewLeave => update.facts.new_in = false,
            Mend::OldStart => {
                let fresh = Instance { label: update.label.clone(), token: counter + 1, port: 0 };
                update.facts.old.get_or_insert(fresh);
                (update.old, update.side) = (update.back.clone(), Side::In);
            }
            Mend::NewStop | Mend::SwapBack | Mend::OldHealth | Mend::OnFailure => {}
        }
        let skip = drained && matches!(mend, Mend::OldRejoin | Mend::OldJoin);
        update.kept_out |= skip;
        let job = mend_job(update, mend).filter(|_| !skip);
        update.phase = Phase::Back { mend, failure: Box::new(failure) };
        match job {
            Some(job) => {
                let number = self.job(job);
                if let Work::Update(update) = &mut self.app.work {
                    update.action = number;
                }
            }
            None => self.mend_did(mend, Did::Ok),
        }
    }

    /// What the result of a mending step means.
    pub(crate) fn mend_did(&mut self, mend: Mend, result: Did) {
        let at = self.at;
        let Work::Update(update) = &mut self.app.work else { return };
        let Phase::Back { failure, .. } = &update.phase else { return };
        let failure = failure.as_ref().clone();
        if mend == Mend::OnFailure {
            if let Did::Failed { cause, .. } = result {
                self.notes.push(format!("hook on_failure failed: {cause}"));
            }
            // What was put back may have ended during the scripts.
            return match next(update) {
                Some(mend) => self.mend(mend, failure),
                None => self.end(failure, None),
            };
        }
        if let Did::Failed { cause, .. } = result {
            if mend == Mend::OldRejoin {
                self.notes.push(format!("{}: {cause}; it is looked after", mend.deed()));
                return self.mend(Mend::OldStart, failure); // does nothing if it runs
            }
            return self.mend_failed(cause);
        }
        match (mend, result) {
            (Mend::NewLeave, Did::Drained { cut, .. }) => update.measured.cut += cut,
            (Mend::NewStop, _) => update.facts.new = None,
            (Mend::SwapBack, _) => update.facts.swapped = false,
            (Mend::OldStart, Did::Started { port }) => {
                if let Some(old) = &mut update.facts.old {
                    old.port = port;
                }
                return self.mend(Mend::OldHealth, failure);
            }
            (Mend::OldHealth, _) => return self.mend(Mend::OldJoin, failure),
            (Mend::OldRejoin | Mend::OldJoin, _) => {
                if let Some(left) = update.left_traffic_at.take() {
                    update.measured.out_of_traffic_ms += at.saturating_sub(left);
                }
            }
            (Mend::NewLeave | Mend::OldStart | Mend::OnFailure, _) => {}
        }
        self.mend_next(failure);
    }

    /// The restore failed too: out of traffic, and loudly so.
    pub(crate) fn mend_failed(&mut self, cause: String) {
        let Work::Update(update) = &mut self.app.work else { return };
        let Phase::Back { failure, mend } = &update.phase else { return };
        let (failure, mend) = (failure.as_ref().clone(), *mend);
        let error = format!("{}: {cause}", mend.deed());
        self.notes.push(format!("the restore failed: {error}"));
        match mend {
            Mend::OldRejoin | Mend::OldStart | Mend::OldHealth | Mend::OldJoin => {
                update.facts.old_in = false;
            }
            // The old instance, if it still runs, is where it was.
            Mend::NewLeave | Mend::NewStop | Mend::SwapBack | Mend::OnFailure => {}
        }
        self.end(failure, Some(error));
    }

    fn scripts_then_end(&mut self, failure: Failure) {
        let Work::Update(update) = &self.app.work else { return };
        let scripts = update.order.direction == Direction::Forward
            && !update.order.spec.hooks.on_failure.is_empty();
        if scripts { self.mend(Mend::OnFailure, failure) } else { self.end(failure, None) }
    }

    /// The end of a failed update: what is left is said and kept.
    fn end(&mut self, failure: Failure, restore_error: Option<String>) {
        let at = self.at;
        let Work::Update(update) = std::mem::take(&mut self.app.work) else { return };
        let mut update = *update;
        if let Some(left) = update.left_traffic_at.take() {
            update.measured.out_of_traffic_ms += at.saturating_sub(left);
        }
        let (rollout, attempt) = (update.order.rollout.clone(), update.order.attempt);
        let belongs_in = update.facts.old.is_some() && update.side == Side::In;
        let runs = belongs_in && (restore_error.is_none() || update.facts.old_in);
        let left = match (update.facts.touched, runs) {
            (false, _) => Left::Untouched,
            (true, true) => Left::Restored,
            (true, false) => Left::Out,
        };
        let side = match left {
            Left::Restored => Side::In,
            Left::Untouched => update.side,
            Left::Out => Side::Out,
        };
        if left == Left::Out && update.back.is_some() {
            self.app.previous.clone_from(&update.back); // proven, and the way out of this
        }
        let Facts { old, old_in, new, swapped, .. } = update.facts;
        self.app.stray = old.as_ref().and(new.clone()).map(|instance| Stray {
            spec: update.order.spec.clone(),
            instance,
            cause: restore_error.clone().unwrap_or_default(),
            tries: 1,
        });
        self.app.current = if old.is_none() && (new.is_some() || swapped) {
            Some(Settled::new(update.order.spec, new, side))
        } else {
            update.old.map(|spec| Settled::new(spec, old, side))
        };
        if let Some(settled) = &mut self.app.current {
            settled.label.clone_from(&update.label); // counts while nothing runs
        }
        let release = self.app.current.as_ref().map(|settled| settled.spec.version.clone());
        // The operator's drain has ended meanwhile: what it kept out rejoins now.
        let rejoins = left == Left::Restored && update.kept_out && !self.app.drained;
        let mut measured = update.measured;
        measured.kept_out = rejoins;
        let failed = Failed { failure, left, restore_error, measured, release };
        self.say(&rollout, attempt, Said::Failed(Box::new(failed)));
        let waits = runs && left == Left::Untouched && !old_in && !self.app.drained;
        if waits && self.app.queued.is_none() {
            return self.restart(); // that is what the update had interrupted
        }
        if rejoins && self.app.queued.is_none() {
            return self.move_to(Side::In);
        }
        self.next_in_queue();
    }

    /// The old process ended while something was being mended.
    pub(crate) fn old_exited(&mut self) {
        let Work::Update(update) = &self.app.work else { return };
        if let Phase::Back { mend: Mend::OldRejoin, failure } = &update.phase {
            let failure = failure.as_ref().clone();
            self.mend_next(failure);
        }
    }

    /// After a crash of the agent: looks at the facts again.
    pub(crate) fn resume_back(&mut self, mend: Mend, failure: Failure) {
        match mend {
            // These know which process they are about; asking again is harmless.
            Mend::OldStart | Mend::OldHealth | Mend::OldJoin | Mend::OnFailure => {
                let Work::Update(update) = &self.app.work else { return };
                match mend_job(update, mend) {
                    Some(job) => {
                        let number = self.job(job);
                        if let Work::Update(update) = &mut self.app.work {
                            update.action = number;
                        }
                    }
                    None => self.mend_next(failure),
                }
            }
            Mend::OldRejoin | Mend::NewLeave | Mend::NewStop | Mend::SwapBack => {
                self.again(mend, failure);
            }
        }
    }

    fn again(&mut self, mend: Mend, failure: Failure) {
        let Work::Update(update) = &self.app.work else { return };
        if mend_job(update, mend).is_some() {
            self.mend(mend, failure);
        } else {
            self.mend_next(failure);
        }
    }
}

/// What is first not as it should be?
fn next(update: &Update) -> Option<Mend> {
    let facts = &update.facts;
    if update.order.leave_on_failure && facts.touched && facts.old.is_none() {
        return facts.new_in.then_some(Mend::NewLeave);
    }
    if facts.old.is_some() && !facts.old_in && facts.touched && update.side == Side::In {
        return Some(Mend::OldRejoin);
    }
    if facts.new.is_some() && facts.new_in {
        return Some(Mend::NewLeave);
    }
    if facts.new.is_some() {
        return Some(Mend::NewStop);
    }
    if facts.swapped {
        return Some(Mend::SwapBack);
    }
    let startable = update.back.is_some() && facts.old.is_none() && facts.touched;
    startable.then_some(Mend::OldStart)
}

fn mend_job(update: &Update, mend: Mend) -> Option<Job> {
    let facts = &update.facts;
    let old = update.old.clone().zip(facts.old.clone());
    let new = facts.new.clone();
    let spec = update.order.spec.clone();
    match mend {
        Mend::OldRejoin | Mend::OldJoin => old.map(|(spec, instance)| Job::Join { spec, instance }),
        Mend::NewLeave => new.map(|instance| Job::Drain { spec, instance, must: true }),
        Mend::NewStop => {
            new.map(|instance| {
                let forget = instance.label != update.label; // it was beside
                Job::Stop { spec, instance, forget }
            })
        }
        Mend::SwapBack => Some(Job::Swap(update.back.clone())),
        Mend::OldStart => old.map(|(spec, instance)| Job::Start {
            spec,
            label: instance.label,
            token: instance.token,
        }),
        Mend::OldHealth => old.map(|(spec, instance)| Job::Health { spec, instance }),
        Mend::OnFailure => {
            Some(Job::Hooks { spec, which: HookSet::OnFailure, instance: facts.old.clone() })
        }
    }
}

impl Mend {
    /// What was being done, for people.
    fn deed(self) -> &'static str {
        match self {
            Self::OldRejoin | Self::OldJoin => "the previous release could not rejoin traffic",
            Self::NewLeave => "the failed release could not leave traffic",
            Self::NewStop => "the failed release could not be stopped",
            Self::SwapBack => "the previous release could not be made current",
            Self::OldStart => "the previous release could not be started",
            Self::OldHealth => "the previous release did not get healthy",
            Self::OnFailure => "hook on_failure",
        }
    }
}
