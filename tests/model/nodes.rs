//! What nodes do, and what happens to what is said between them and the controllers.

use super::*;

impl World {
    pub(super) fn deeds_between(
        &self,
        state: &State,
        controller: usize,
        node: usize,
        deeds: &mut Vec<Deed>,
    ) {
        let wire = &state.wires[controller][node];
        let chances = if state.left.repeats > 0 { &[false, true][..] } else { &[false] };
        for twice in chances.iter().copied() {
            for what in wire.down.iter().copied() {
                deeds.push(Deed::Deliver { controller, node, what, twice });
            }
        }
        let Some(process) = &state.controllers[controller] else { return };
        if process.runs.is_some() && process.doing == Doing::Nothing {
            for twice in chances.iter().copied() {
                let hear = |word: &Word| Deed::Hear { controller, node, word: *word, twice };
                deeds.extend(wire.up.iter().map(hear));
            }
        }
        if state.left.breaks > 0 {
            deeds.push(Deed::Break { controller, node });
        }
    }

    /// An order arrives.
    pub(super) fn deliver(
        &self,
        state: &mut State,
        (controller, node): (usize, usize),
        what: Down,
        twice: bool,
    ) {
        if twice {
            state.left.repeats -= 1;
        } else {
            state.wires[controller][node].down.remove(&what);
        }
        let Down { order, term } = what;
        let host = &mut state.nodes[node];
        let newest = self.real.term(host.agent);
        let heard = if self.lacks(Flaw::AgentIgnoresTerms) { term.max(newest) } else { term };
        let fed = self.real.order(host.agent, order, heard);
        let carried_out = fed.agent != host.agent || !fed.says.is_empty();
        if carried_out && term < host.accepted {
            state.wrong = Some(Wrong::OldTermCarriedOut);
        }
        if carried_out {
            host.accepted = host.accepted.max(term);
        }
        if self.real.term(fed.agent) < newest {
            state.wrong = Some(Wrong::TermFell);
        }
        self.take(state, node, fed);
    }

    /// It goes on with its update until it has something to say.
    pub(super) fn finish(&self, state: &mut State, node: usize, well: bool) {
        let fed = self.real.finish(state.nodes[node].agent, well);
        let as_well = self.real.finish(state.nodes[node].agent, true);
        if !well {
            if fed == as_well {
                return; // there was nothing that could fail
            }
            state.left.failures -= 1;
        }
        self.take(state, node, fed);
    }

    /// Takes over what the agent made of something, and tells every controller what it says.
    fn take(&self, state: &mut State, node: usize, fed: real::Fed) {
        let host = &mut state.nodes[node];
        host.agent = fed.agent;
        for attempt in fed.began {
            if host.begun & (1 << attempt) != 0 {
                state.wrong = Some(Wrong::UpdatedTwice);
            }
            host.begun |= 1 << attempt;
        }
        host.outbox.extend(&fed.says);
        for (controller, process) in state.controllers.iter().enumerate() {
            if process.as_ref().is_some_and(|process| process.runs.is_some()) {
                state.wires[controller][node].up.extend(&fed.says);
            }
        }
        if state.nodes.iter().filter(|host| self.real.is_out(host.agent)).count() > 1 {
            state.wrong = Some(Wrong::TwoOut);
        }
    }

    /// What was in a session is lost. In the next one the node repeats its reports, and the owner its orders.
    pub(super) fn break_session(&self, state: &mut State, controller: usize, node: usize) {
        state.left.breaks -= 1;
        let wire = &mut state.wires[controller][node];
        *wire = Wire::default();
        let run = state.controllers[controller].as_ref().and_then(|process| process.runs);
        let Some(run) = run else { return };
        wire.up.clone_from(&state.nodes[node].outbox);
        for order in self.real.outstanding(run.rollout).into_iter().filter(|it| it.node == node) {
            wire.down.insert(Down { order, term: run.term });
        }
    }
}
