//! One edge: dial, say what is wanted, hear what is, and again after a break.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rota_proto::traffic::traffic_client::TrafficClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, info, warn};

use super::{Known, Member, SeenMember, Shared, Wishes};
use crate::backoff::{Backoff, chance};
use crate::dial::{NoConnection, dial};
use crate::own::OwnError;
use crate::traffic::{Intent, Report};
use crate::wire;

/// Intents on their way to one edge.
const INTENTS_MAX: usize = 64;

/// An edge that does not take an intent for so long has lost its session.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an edge may take to begin a session.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait between two tries. An update may be waiting for this edge to confirm a drain.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// A session that lived so long was a good one: the next try comes at once.
const GOOD_AFTER: Duration = Duration::from_secs(1);

/// The largest report, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;

/// Why a session with an edge ended or never began.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    NoConnection(#[from] NoConnection),
    #[error(transparent)]
    Own(#[from] OwnError),
    #[error("{}", rota_identity::reason(.0).unwrap_or_else(|| .0.message().to_owned()))]
    Status(#[from] tonic::Status),
    #[error("the edge did not begin a session within {} s", BEGIN_TIMEOUT.as_secs())]
    NotBegun,
    #[error("the edge ended the session")]
    Closed,
    #[error("the edge takes nothing any more")]
    Stuck,
    #[error("the edge said something that cannot be understood: {0}")]
    Odd(#[from] wire::BadField),
    #[error("the edge has moved to another address")]
    Moved,
}

/// Holds the session with one edge.
pub(super) async fn keep(shared: Arc<Shared>, name: String) {
    let mut backoff = Backoff::up_to(RETRY_MAX);
    let mut last_error = String::new();
    loop {
        let begun = Instant::now();
        let Some(address) = shared.edges.borrow().get(&name).map(|edge| edge.address.clone())
        else {
            return; // no longer an edge; our supervisor ends us
        };
        let mut lived = false;
        let Err(ended) = Box::pin(session(&shared, &name, &address, &mut lived)).await;
        let error = ended.to_string();
        if lived || error != last_error {
            warn!(edge = name, address, "no session with the edge: {error}");
        } else {
            debug!(edge = name, address, "still no session with the edge: {error}");
        }
        shared.seen.send_modify(|seen| {
            if let Some(edge) = seen.get_mut(&name) {
                edge.remote = None;
                edge.error = Some(error.clone());
                edge.away_since.get_or_insert_with(Instant::now);
                let heard = std::mem::take(&mut edge.members);
                edge.last_known.extend(heard);
            }
        });
        last_error = error;
        let wait = match (&ended, lived) {
            (Ended::Moved, _) => Duration::ZERO,
            // Not spread as with controllers: an edge has far fewer callers, who wait for it.
            (_, true) if begun.elapsed() > GOOD_AFTER => {
                backoff = Backoff::up_to(RETRY_MAX);
                backoff.after_failure(chance())
            }
            (_, true | false) => backoff.after_failure(chance()),
        };
        let mut edges = shared.edges.subscribe();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            moved = edges.wait_for(|edges| {
                edges.get(&name).is_none_or(|edge| edge.address != address)
            }) => if moved.is_err() { return },
        }
    }
}

async fn session(
    shared: &Shared,
    name: &str,
    address: &str,
    lived: &mut bool,
) -> Result<std::convert::Infallible, Ended> {
    let dialled = dial(address, shared.own.to_edge(name)?).await?;
    let mut edges = shared.edges.subscribe();
    let mut wishes = shared.wishes.subscribe();
    let (to_wire, outbound) = mpsc::channel(INTENTS_MAX);
    let mut client = TrafficClient::new(dialled.channel).max_decoding_message_size(MESSAGE_MAX);
    let begin = timeout(BEGIN_TIMEOUT, client.session(ReceiverStream::new(outbound))).await;
    let mut inbound = begin.map_err(|_| Ended::NotBegun)??.into_inner();
    *lived = true;
    info!(edge = name, address, "traffic session");
    shared.seen.send_modify(|seen| {
        if let Some(edge) = seen.get_mut(name) {
            edge.remote = Some(dialled.remote.ip().to_canonical());
            edge.error = None;
            edge.away_since = None;
            edge.members.clear();
        }
    });
    let mut said: BTreeMap<Member, u64> = BTreeMap::new();
    loop {
        // Before each wait, what this edge has not heard yet.
        let known = edges.borrow_and_update().get(name).cloned();
        let Some(known) = known.filter(|known| known.address == address) else {
            return Err(Ended::Moved);
        };
        let unsaid = unsaid(shared.own.name(), &wishes.borrow_and_update(), &known, &mut said);
        for intent in unsaid {
            match timeout(SEND_TIMEOUT, to_wire.send(wire::intent_out(&intent))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Ended::Closed),
                Err(_) => return Err(Ended::Stuck),
            }
        }
        tokio::select! {
            report = inbound.message() => {
                let report = wire::member_report(report?.ok_or(Ended::Closed)?)?;
                hear(shared, name, report);
            }
            changed = wishes.changed() => changed.map_err(|_| Ended::Closed)?,
            changed = edges.changed() => changed.map_err(|_| Ended::Closed)?,
        }
    }
}

/// What is wanted of the members in this edge's pools, and was not said in this session.
fn unsaid(
    node: &str,
    wishes: &Wishes,
    edge: &Known,
    said: &mut BTreeMap<Member, u64>,
) -> Vec<Intent> {
    let mut intents = Vec::new();
    for (member, wish) in &wishes.members {
        let known = said.get(member) == Some(&wish.seq);
        if known || !edge.pools.contains(&member.pool) {
            continue;
        }
        said.insert(member.clone(), wish.seq);
        intents.push(Intent {
            seq: wish.seq,
            pool: member.pool.clone(),
            node: node.to_owned(),
            instance: member.instance.clone(),
            desired: wish.desired.clone(),
        });
    }
    intents
}

fn hear(shared: &Shared, name: &str, report: Report) {
    if let Some(why) = &report.refused {
        warn!(edge = name, pool = report.pool, "the edge refused: {why}");
    }
    let member = Member { pool: report.pool, instance: report.instance };
    let now = SeenMember {
        seq: report.seq,
        observed: report.observed,
        in_flight: report.in_flight,
        cut: report.cut,
        refused: report.refused,
        silent_since: None,
    };
    shared.seen.send_if_modified(|seen| {
        let Some(edge) = seen.get_mut(name) else { return false };
        let now = match report.silent {
            false => now,
            true => {
                let before = edge.members.get(&member).or_else(|| edge.last_known.get(&member));
                let before = before.cloned().unwrap_or(now);
                let since = before.silent_since.or_else(|| Some(Instant::now()));
                // Whatever was said counts no more, but as what was last known.
                SeenMember { seq: 0, silent_since: since, ..before }
            }
        };
        let news = edge.members.get(&member) != Some(&now);
        edge.members.insert(member, now);
        news
    });
}
