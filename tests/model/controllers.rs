//! What controllers do: join, claim, decide, commit, send; and what happens to them.

use super::*;

impl State {
    pub(super) fn process(&mut self, who: usize) -> &mut Process {
        self.controllers[who].as_mut().expect("only who lives does anything")
    }

    /// It owns nothing any more, as far as it knows: what nodes said to it as the owner means nothing now.
    pub(super) fn loses_its_turn(&mut self, who: usize) {
        let process = self.process(who);
        process.runs = None;
        process.doing = Doing::Nothing;
        self.wires[who].iter_mut().for_each(|wire| wire.up.clear());
    }
}

impl World {
    pub(super) fn deeds_of_controller(&self, state: &State, who: usize, deeds: &mut Vec<Deed>) {
        let member = state.store.members[who];
        let Some(process) = &state.controllers[who] else {
            deeds.push(Deed::Start(who));
            if member.is_some() {
                deeds.push(Deed::LeaseEnds(who));
            }
            return;
        };
        if state.left.crashes > 0 {
            deeds.push(Deed::Crash(who));
        }
        if member.is_some() && (process.fence != member || state.left.leases > 0) {
            deeds.push(Deed::LeaseEnds(who));
        }
        match process.fence {
            None if member.is_none() => deeds.push(Deed::Join(who)),
            None => {}
            Some(_) if process.fence != member => deeds.push(Deed::Notice(who)),
            Some(_) => {}
        }
        if process.fence.is_none() {
            return;
        }
        match &process.doing {
            Doing::Nothing if process.runs.is_none() => deeds.push(Deed::Claim(who)),
            Doing::Nothing if state.left.handovers > 0 => deeds.push(Deed::HandOver(who)),
            Doing::Nothing => {}
            Doing::Read => deeds.push(Deed::Read(who)),
            Doing::Commit { .. } => {
                deeds.push(Deed::Commit(who, Answer::Comes));
                if state.left.answers > 0 {
                    deeds.push(Deed::Commit(who, Answer::Lost));
                    deeds.push(Deed::Commit(who, Answer::NeverSent));
                }
            }
            Doing::Send { .. } => deeds.push(Deed::Send(who)),
        }
    }

    pub(super) fn start(&self, state: &mut State, who: usize) {
        let lives = 2 - state.left.crashes.min(2);
        let number = u8::try_from(who).expect("few controllers") + 16 * (1 + lives);
        let doing = Doing::Nothing;
        state.controllers[who] = Some(Process { number, fence: None, runs: None, doing, old: 0 });
    }

    /// Puts its member key, as soon as that of an earlier life is gone.
    pub(super) fn join(&self, state: &mut State, who: usize) {
        state.store.created[who] += 1;
        state.store.members[who] = Some(state.store.created[who]);
        let (fence, rollout) = (state.store.members[who], state.store.rollout);
        let process = state.process(who);
        process.fence = fence;
        if self.lacks(Flaw::ClaimsWithoutReading) {
            process.old = rollout;
        }
    }

    pub(super) fn notice(&self, state: &mut State, who: usize) {
        state.process(who).fence = None;
        state.loses_its_turn(who);
    }

    pub(super) fn lease_ends(&self, state: &mut State, who: usize) {
        let member = state.store.members[who].take();
        let lives = state.controllers[who].as_ref().is_some_and(|it| it.fence == member);
        state.left.leases -= u8::from(lives);
    }

    pub(super) fn crash(&self, state: &mut State, who: usize) {
        state.left.crashes -= 1;
        state.controllers[who] = None;
        state.wires[who].iter_mut().for_each(|wire| wire.up.clear());
    }

    /// One transaction: the owner is as it was read, its member key is gone, mine is not.
    pub(super) fn claim(&self, state: &mut State, who: usize) {
        let store = &mut state.store;
        let fence = state.controllers[who].as_ref().and_then(|process| process.fence);
        let old = store.owner.controller;
        let gone = store.members[old].is_none() || self.lacks(Flaw::ClaimsFromTheLiving);
        // What it owned in an earlier life is an orphan like any other: claimed in a new term.
        if store.members[who] != fence || !(gone || old == who) {
            return;
        }
        let before = store.owner.term;
        let term = before + u8::from(!self.lacks(Flaw::ClaimsInTheSameTerm));
        store.owner = Owner { controller: who, term };
        let rollout = store.rollout;
        let process = state.process(who);
        process.runs = Some(Run { term, rollout: process.old });
        process.doing = Doing::Read;
        if !self.lacks(Flaw::ClaimsWithoutReading) {
            process.runs = Some(Run { term, rollout });
        }
    }

    /// Reads the rollout, settled: nothing older than its own claim is missing. Then it orders again.
    pub(super) fn read(&self, state: &mut State, who: usize) {
        let rollout = state.store.rollout;
        let stale = self.lacks(Flaw::ClaimsWithoutReading);
        let process = state.process(who);
        let Some(run) = &mut process.runs else { return };
        if !stale {
            run.rollout = rollout;
        }
        let orders = match self.lacks(Flaw::NeverOrdersAgain) {
            false => self.real.outstanding(run.rollout),
            true => Vec::new(),
        };
        process.doing = Doing::Send { orders, then: Then::AskAgain };
    }

    /// The owner hears what a node says.
    pub(super) fn hear(
        &self,
        state: &mut State,
        who: usize,
        (node, word): (usize, Word),
        twice: bool,
    ) {
        if twice {
            state.left.repeats -= 1;
        } else {
            state.wires[who][node].up.remove(&word);
        }
        let process = state.controllers[who].as_mut().expect("only who lives hears");
        let Some(run) = process.runs else { return };
        let Decided { number: step, changes, orders } = self.real.decide(run.rollout, node, word);
        if changes {
            process.doing = Doing::Commit { step, orders, ack: (node, word) };
        } else {
            state.nodes[node].outbox.remove(&word);
        }
    }

    /// One transaction behind the fence. Refused: it has lost its turn.
    pub(super) fn commit(&self, state: &mut State, who: usize, answer: Answer) {
        state.left.answers -= u8::from(answer != Answer::Comes);
        let process = state.controllers[who].as_mut().expect("only who lives commits");
        let doing = std::mem::replace(&mut process.doing, Doing::Read);
        let (Doing::Commit { step, orders, ack }, Some(run)) = (doing, process.runs) else {
            return;
        };
        let store = &mut state.store;
        let fenced = store.members[who] != process.fence;
        if answer == Answer::NeverSent {
            return; // like any answer that does not come: reads what is so
        }
        if fenced && !self.lacks(Flaw::CommitsWithoutFence) {
            if answer == Answer::Comes {
                state.loses_its_turn(who);
            }
            return;
        }
        let mine = self.real.apply(run.rollout, step);
        store.rollout = self.real.apply(store.rollout, step);
        let number = process.number;
        if answer == Answer::Comes {
            process.runs = Some(Run { rollout: mine, ..run });
            process.doing = Doing::Send { orders, then: Then::Ack(ack.0, ack.1) };
        }
        let wrong = if state.committed[usize::from(run.term)].is_some_and(|it| it != number) {
            Some(Wrong::TwoCommitted)
        } else if mine != state.store.rollout {
            Some(Wrong::NotWhatIsDurable)
        } else if !self.real.is_sound(mine) {
            Some(Wrong::CoreBroken)
        } else {
            None
        };
        state.committed[usize::from(run.term)] = Some(number);
        state.wrong = state.wrong.or(wrong);
    }

    pub(super) fn send(&self, state: &mut State, who: usize) {
        let process = state.controllers[who].as_mut().expect("only who lives sends");
        let doing = std::mem::replace(&mut process.doing, Doing::Nothing);
        let (Doing::Send { orders, then }, Some(run)) = (doing, process.runs) else { return };
        for order in orders {
            let down = &mut state.wires[who][order.node].down;
            down.insert(Down { order, term: run.term });
        }
        match then {
            Then::Ack(node, word) => {
                state.nodes[node].outbox.remove(&word);
            }
            Then::AskAgain if self.lacks(Flaw::NeverAsksAgain) => {}
            Then::AskAgain => {
                for (wire, host) in state.wires[who].iter_mut().zip(&state.nodes) {
                    wire.up.extend(&host.outbox);
                }
            }
        }
    }

    /// Under its own fence it names the other one, who claims it then.
    pub(super) fn hand_over(&self, state: &mut State, who: usize) {
        state.left.handovers -= 1;
        let process = state.controllers[who].as_mut().expect("only who lives hands over");
        if state.store.members[who] == process.fence {
            let term = state.store.owner.term + 1;
            state.store.owner = Owner { controller: 1 - who, term };
        }
        state.loses_its_turn(who);
    }
}
