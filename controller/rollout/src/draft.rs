//! A rollout as it will be after the step that is being made: the old state, and over it what changes.

use std::collections::BTreeMap;

use crate::names::{NodeName, Span, Timestamp};
use crate::node::Node;
use crate::open::Open;
use crate::order::Order;
use crate::rollout::{Change, Head, Rollout, Spec, Tally};

/// Deadlines of nodes are rounded up to this, so that a thousand nodes need few wake-ups, not a thousand.
const DEADLINE_GRAIN: Span = Span::seconds(1);

/// What a step comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// The records that changed. Durable before any order leaves.
    pub changes: Vec<Change>,
    /// What to ask of nodes and clock.
    pub orders: Vec<Order>,
    /// What to write down for people.
    pub notes: Vec<Note>,
}

/// One line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The node it is about, if it is about one.
    pub node: Option<NodeName>,
    /// The line.
    pub text: String,
}

pub(crate) struct Draft<'a> {
    base: &'a Rollout,
    pub at: Timestamp,
    pub head: Head,
    changed: BTreeMap<NodeName, Node>,
    tally: Tally,
    orders: Vec<Order>,
    notes: Vec<Note>,
}

impl<'a> Draft<'a> {
    pub fn new(base: &'a Rollout, at: Timestamp) -> Self {
        Self {
            base,
            at,
            head: base.head.clone(),
            changed: BTreeMap::new(),
            tally: base.tally(),
            orders: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn spec(&self) -> &'a Spec {
        &self.base.spec
    }

    /// The rollout as it was before this step.
    pub fn base(&self) -> &'a Rollout {
        self.base
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What is open in the batch in turn, those that came late included.
    pub fn in_turn(&self) -> Open {
        let (batch, nodes) = (self.head.batch, self.base.nodes());
        let before = self.base.open().of(batch);
        let changed = self.changed.iter();
        changed.fold(before, |open, (name, node)| open.moved(batch, nodes.get(name), node))
    }

    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.changed.get(name).or_else(|| self.base.nodes().get(name))
    }

    /// How many targets there are.
    pub fn size(&self) -> usize {
        self.base.nodes().len() + self.added().count()
    }

    /// Those that are new in this step.
    fn added(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        self.changed.iter().filter(|(name, _)| !self.base.nodes().contains_key(*name))
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        let known = self.base.nodes().iter();
        known.map(|(name, old)| (name, self.changed.get(name).unwrap_or(old))).chain(self.added())
    }

    pub fn names(&self, which: impl Fn(&Node) -> bool) -> Vec<NodeName> {
        self.nodes().filter(|(_, node)| which(node)).map(|(name, _)| name.clone()).collect()
    }

    /// Sets a node; keeps the tally and the least capacity.
    pub fn set(&mut self, name: &NodeName, node: Node) {
        self.tally = self.tally.moved(self.node(name), &node);
        self.changed.insert(name.clone(), node);
        self.head.least_in_traffic = self.head.least_in_traffic.min(self.tally.serving);
    }

    pub fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    /// A deadline for a node, rounded up, with the wake-up that enforces it.
    pub fn deadline(&mut self, span: Span) -> Timestamp {
        let deadline = self.rounded_after(span);
        self.wake_at(deadline);
        deadline
    }

    /// The deadline alone, for who does not know yet whether it will count.
    pub fn rounded_after(&self, span: Span) -> Timestamp {
        let exact = self.at.after(span).0;
        Timestamp(exact.div_ceil(DEADLINE_GRAIN.0) * DEADLINE_GRAIN.0)
    }

    pub fn wake_at(&mut self, at: Timestamp) {
        if !self.orders.contains(&Order::WakeAt(at)) {
            self.orders.push(Order::WakeAt(at));
        }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(Note { node: None, text: text.into() });
    }

    pub fn note_on(&mut self, node: &NodeName, text: impl Into<String>) {
        self.notes.push(Note { node: Some(node.clone()), text: text.into() });
    }

    /// How many failures are borne before it stops.
    pub fn failures_borne(&self) -> usize {
        self.spec().strategy.max_failures.of(self.spec().targets).max(self.head.forgiven)
    }

    pub fn finish(self) -> Step {
        let mut changes = Vec::with_capacity(self.changed.len() + 1);
        if self.head != self.base.head {
            changes.push(Change::Head(self.head));
        }
        for (name, node) in self.changed {
            if self.base.nodes().get(&name) != Some(&node) {
                changes.push(Change::Node(name, Box::new(node)));
            }
        }
        Step { changes, orders: self.orders, notes: self.notes }
    }
}
