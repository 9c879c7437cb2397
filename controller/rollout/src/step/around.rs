//! Everything around a rollout at once: for who takes it over, and for who decides anew because something had changed.

use super::observed;
use crate::draft::Draft;
use crate::event::Around;

/// Takes it all in. `false`: nothing of it is new.
pub(super) fn around(draft: &mut Draft, around: &Around) -> bool {
    let head = &mut draft.head;
    let same = head.frozen == around.frozen
        && head.closed == around.closed
        && head.edges_offline == around.edges_offline;
    head.frozen.clone_from(&around.frozen);
    head.closed.clone_from(&around.closed);
    head.edges_offline.clone_from(&around.edges_offline);
    let mut moved = !same;
    for (name, observed, runs) in &around.nodes {
        moved |= observed::observe(draft, name, *observed, runs);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::node::{Observed, Serving};
    use crate::order::Order;
    use crate::tests::{Story, name, one_by_one, window};

    fn frozen(why: Option<&str>, busy: &[&str]) -> What {
        let observed = |node: &&str| {
            let busy = busy.contains(node);
            Observed { online: true, serving: Serving::In, busy, drained: false, unsure: false }
        };
        let nodes = ["n1", "n2"].iter();
        let nodes = nodes.map(|node| (name(node), observed(node), Some(crate::tests::release(0))));
        What::Around(Box::new(Around {
            frozen: why.map(str::to_owned),
            closed: None,
            edges_offline: Vec::new(),
            nodes: nodes.collect(),
        }))
    }

    /// What it orders when it is told all of this while everything is frozen.
    fn ordered(strategy: crate::strategy::Strategy, what: What) -> String {
        let mut story = Story::from(crate::tests::admitted(&["n1", "n2"], strategy));
        story.hear(What::Started);
        story.hear(frozen(Some("a holiday"), &[]));
        for node in ["n1", "n2"] {
            story.say(node, crate::node::Report::Prepared);
        }
        let orders = story.hear(what).orders;
        let node = |order: &Order| match order {
            Order::Update { node, .. } => Some(node.to_string()),
            _ => None,
        };
        orders.iter().filter_map(node).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nothing_begins_by_half_of_it() {
        for (busy, expected) in
            [(&[][..], "n1 n2"), (&["n1"], "n2"), (&["n1", "n2"], ""), (&["n2"], "n1")]
        {
            assert_eq!(ordered(window(2), frozen(None, busy)), expected, "{busy:?} are busy");
            assert_eq!(ordered(window(2), frozen(Some("still"), busy)), "", "{busy:?}, frozen");
        }
        assert_eq!(ordered(one_by_one(), frozen(None, &[])), "n1");
    }
}
