//! What is durable at the controllers' side: with one controller a commit compares the term, with several its member's
//! key, and whatever else it was decided by.

use std::collections::BTreeMap;
use std::rc::Rc;

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
    /// An update is under way.
    pub moving: bool,
}

#[derive(Debug, Clone)]
pub struct Kept {
    pub rollout: Rollout,
    pub term: u64,
    /// The name of its controller, as a number. With one controller nobody asks.
    pub owner: usize,
    /// The created revision of the member's key under which it was claimed: an earlier life's is nobody's.
    pub place: u64,
    /// Which app in which environment.
    pub line: usize,
}

/// A controller that is alive, as the others know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The created revision of its key.
    pub created: u64,
    /// When its lease ends unless it is kept alive.
    pub until: u64,
}

/// What operators want of a controller, whether or not it is alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    pub draining: bool,
    pub handover: bool,
    pub cap: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct Store {
    pub rollouts: BTreeMap<u64, Rc<Kept>>,
    pub inventories: Vec<Inventory>,
    pub drained: Vec<bool>,
    /// Counts the operators' wishes.
    pub wishes: u64,
    /// By environment.
    pub frozen: Vec<Option<String>>,
    pub closed: Vec<Option<Closed>>,
    /// Edges that no controller hears now.
    pub edges_offline: Vec<NodeName>,
    /// By line.
    pub current: Vec<Option<usize>>,
    pub members: BTreeMap<usize, Member>,
    pub wishes_for: BTreeMap<usize, Wish>,
    /// The name of the lead, and the created revision of its key.
    pub lead: Option<(usize, u64)>,
    /// How often something was put that keeps updates from starting, by environment.
    pub guard: Vec<u64>,
    pub revision: u64,
}

impl Store {
    /// `false`: a newer owner has claimed it, and nothing was changed.
    pub fn commit(&mut self, revision: u64, term: u64, changes: &[Change]) -> bool {
        let Some(kept) = self.rollouts.get_mut(&revision).map(Rc::make_mut) else { return false };
        if kept.term != term {
            return false;
        }
        kept.rollout.apply(changes.iter().cloned());
        true
    }

    /// Claims what runs in a higher term; the state comes back through its written form.
    pub fn claim(&mut self, revision: u64) -> Option<Kept> {
        let kept = Rc::make_mut(self.rollouts.get_mut(&revision)?);
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
        Some(Kept { rollout: read, term: kept.term, owner: kept.owner, place: 0, line: kept.line })
    }

    /// The rollouts of a line that are not over.
    pub fn open(&self, line: usize) -> impl Iterator<Item = (u64, &Rc<Kept>)> {
        let open = move |kept: &Rc<Kept>| kept.line == line && !kept.rollout.is_ended();
        let found = self.rollouts.iter().filter(move |(_, kept)| open(kept));
        found.map(|(revision, kept)| (*revision, kept))
    }
}

/// Through JSON and back, as through any store.
pub fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("it can be written");
    serde_json::from_str(&text).expect("it can be read back")
}
