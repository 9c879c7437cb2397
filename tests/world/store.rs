//! What is durable at the controllers' side. A commit is refused unless the term is the newest one.

use std::collections::BTreeMap;

use rota_rollout::Rollout;
use rota_rollout::names::NodeName;
use rota_rollout::node::Node;
use rota_rollout::rollout::{Change, Head};
use rota_rollout::shut::Closed;

/// What nodes said of themselves, as the controllers keep it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The release that `current` points to.
    pub link: Option<usize>,
    pub healthy: bool,
    pub traffic_in: bool,
}

#[derive(Debug, Clone)]
pub struct Kept {
    pub rollout: Rollout,
    pub term: u64,
}

#[derive(Debug, Default)]
pub struct Store {
    pub rollouts: BTreeMap<u64, Kept>,
    pub inventories: Vec<Inventory>,
    pub drained: Vec<bool>,
    /// Counts the operators' wishes.
    pub wishes: u64,
    pub frozen: Option<String>,
    pub closed: Option<Closed>,
    /// Edges that no controller hears now.
    pub edges_offline: Vec<NodeName>,
    pub current: Option<usize>,
}

impl Store {
    /// `false`: a newer owner has claimed it, and nothing was changed.
    pub fn commit(&mut self, revision: u64, term: u64, changes: &[Change]) -> bool {
        let Some(kept) = self.rollouts.get_mut(&revision) else { return false };
        if kept.term != term {
            return false;
        }
        kept.rollout.apply(changes.iter().cloned());
        true
    }

    /// Claims what runs in a higher term; the state comes back through its written form.
    pub fn claim(&mut self, revision: u64) -> Option<Kept> {
        let kept = self.rollouts.get_mut(&revision)?;
        if kept.rollout.is_ended() {
            return None;
        }
        kept.term += 1;
        let rollout = &kept.rollout;
        let head: Head = reread(&rollout.head);
        let nodes = rollout.nodes().iter();
        let nodes = nodes.map(|(name, node)| (name.clone(), reread::<Node>(node))).collect();
        let read = Rollout::new(reread(&rollout.spec), head, nodes);
        assert_eq!(read, *rollout, "what was written is not what is read back");
        Some(Kept { rollout: read, term: kept.term })
    }
}

/// Through JSON and back, as through any store.
pub fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("it can be written");
    serde_json::from_str(&text).expect("it can be read back")
}
