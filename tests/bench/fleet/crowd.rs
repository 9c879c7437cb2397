//! All simulated agents together: how they join the fleet, and what is counted of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_agent::dial::dial;
use rota_agent::own::Own;
use rota_identity::{IdentityFiles, Kind, PrivateKey, Token, pinned_client_config};
use rota_proto::agent::EnrolRequest;
use rota_proto::agent::enrolment_client::EnrolmentClient;
use rota_tests::Trouble;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agent::Simulated;

/// Agents that join at the same time; the controller takes more, and more would only wait.
const JOINING_MAX: usize = 64;

/// Nothing in these benches takes longer, whatever the machine does beside them.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// What is counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Agents that have an identity.
    pub enrolled: usize,
    /// Sessions that were welcomed and live.
    pub up: usize,
    /// The same, by controller.
    pub up_at: BTreeMap<String, usize>,
    /// Updates that were done, by who ordered them.
    pub ordered_by: BTreeMap<String, usize>,
    /// Updates that were done, by rollout.
    pub updated: BTreeMap<String, usize>,
    /// The newest term in which an update was done, by rollout.
    pub terms: BTreeMap<String, u64>,
    /// Updates that a rollout asked of a node that had done one for it already.
    pub twice: usize,
    /// Orders of owners of yesterday.
    pub stale: usize,
    /// Agents that heard of a rollout's end, by rollout.
    pub settled: BTreeMap<String, usize>,
    /// Sessions that broke or did not begin, by reason.
    pub errors: BTreeMap<String, usize>,
}

impl Tally {
    /// A session with this controller lives.
    pub fn is_up(&mut self, controller: &str) {
        self.up += 1;
        *self.up_at.entry(controller.to_owned()).or_default() += 1;
    }

    /// It does not any more.
    pub fn is_down(&mut self, controller: &str) {
        self.up -= 1;
        if let Some(up) = self.up_at.get_mut(controller) {
            *up -= 1;
        }
    }

    /// A node did an update, ordered in this term.
    pub fn updates(&mut self, controller: &str, (rollout, term): (&str, u64), again: bool) {
        let newest = self.terms.entry(rollout.to_owned()).or_default();
        *newest = term.max(*newest);
        *self.ordered_by.entry(controller.to_owned()).or_default() += 1;
        *self.updated.entry(rollout.to_owned()).or_default() += 1;
        self.twice += usize::from(again);
    }

    /// Counts another part of the crowd in.
    pub fn and(mut self, other: &Self) -> Self {
        let add = |to: &mut BTreeMap<String, usize>, more: &BTreeMap<String, usize>| {
            for (key, count) in more {
                *to.entry(key.clone()).or_default() += count;
            }
        };
        add(&mut self.up_at, &other.up_at);
        add(&mut self.ordered_by, &other.ordered_by);
        add(&mut self.updated, &other.updated);
        add(&mut self.settled, &other.settled);
        add(&mut self.errors, &other.errors);
        for (rollout, term) in &other.terms {
            let newest = self.terms.entry(rollout.clone()).or_default();
            *newest = (*newest).max(*term);
        }
        self.enrolled += other.enrolled;
        self.up += other.up;
        self.twice += other.twice;
        self.stale += other.stale;
        self
    }
}

/// What all agents share.
pub struct Crowd {
    tally: watch::Sender<Tally>,
    spreads: AtomicBool,
}

impl Crowd {
    /// Nobody yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { tally: watch::Sender::default(), spreads: AtomicBool::new(false) })
    }

    /// Counts something.
    pub fn count(&self, change: impl FnOnce(&mut Tally)) {
        self.tally.send_modify(change);
    }

    /// Counts why a session ended.
    pub fn heard_error(&self, error: &Trouble) {
        self.count(|tally| *tally.errors.entry(error.to_string()).or_default() += 1);
    }

    /// Do agents that lose their session take up to half a minute to come back, like those that had it for long?
    pub fn spreads(&self) -> bool {
        self.spreads.load(Ordering::Relaxed)
    }

    /// Says so.
    pub fn set_spreads(&self, spreads: bool) {
        self.spreads.store(spreads, Ordering::Relaxed);
    }

    /// Waits until the count is as it should be.
    pub async fn wait(&self, what: &str, right: impl Fn(&Tally) -> bool) -> Result<(), Trouble> {
        let mut tally = self.tally.subscribe();
        let waited = tokio::time::timeout(PATIENCE, tally.wait_for(|tally| right(tally))).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the crowd is gone".into()),
            Err(_) => {
                let tally = self.tally.borrow();
                let secs = PATIENCE.as_secs();
                let slow = if cfg!(debug_assertions) {
                    "; this is a debug build, in which a large fleet is many times slower"
                } else {
                    ""
                };
                Err(format!("waited {secs} s until {what}{slow}; so far {tally:?}").into())
            }
        }
    }

    /// Tells of what is counted.
    pub fn counted(&self) -> watch::Receiver<Tally> {
        self.tally.subscribe()
    }

    /// The reasons why sessions ended, and how often each.
    pub fn errors(&self) -> BTreeMap<String, usize> {
        self.tally.borrow().errors.clone()
    }
}

/// Gives the agents with these numbers an identity each, by one token.
pub async fn enrol(
    crowd: &Arc<Crowd>,
    address: &str,
    token: &str,
    agents: std::ops::Range<usize>,
) -> Result<Vec<Arc<Simulated>>, Trouble> {
    let mut joining = JoinSet::new();
    let mut joined = Vec::with_capacity(agents.len());
    for number in agents {
        let (address, token, crowd) = (address.to_owned(), token.to_owned(), Arc::clone(crowd));
        joining.spawn(async move {
            let own = join(&address, &token, &format!("sim-{number:05}")).await?;
            crowd.count(|tally| tally.enrolled += 1);
            Ok::<_, Trouble>(Simulated::new(own, crowd))
        });
        if joining.len() >= JOINING_MAX {
            joined.extend(joining.join_next().await.transpose()?.transpose()?);
        }
    }
    while let Some(one) = joining.join_next().await {
        joined.push(one??);
    }
    Ok(joined)
}

async fn join(address: &str, token: &str, name: &str) -> Result<Own, Trouble> {
    let parsed = Token::parse_for(token, Kind::Node)?;
    let key = PrivateKey::generate()?;
    let request = EnrolRequest {
        token: token.to_owned(),
        csr_pem: key.request()?,
        kind: Kind::Node.as_str().to_owned(),
        name: name.to_owned(),
    };
    let dialled = dial(address, pinned_client_config(parsed.ca)?).await?;
    let reply = EnrolmentClient::new(dialled.channel).enrol(request).await?.into_inner();
    let files = IdentityFiles { key: key.to_pem(), cert: reply.certificate_pem, ca: reply.ca_pem };
    Ok(Own::new(&files)?)
}
