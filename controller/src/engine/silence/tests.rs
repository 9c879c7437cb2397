//! When a node counts as silent.

use tokio::sync::mpsc;

use super::*;
use crate::engine::agents::record;
use crate::engine::cluster::Cluster;
use crate::engine::records::AgentRecord;
use crate::engine::state::Session;
use crate::engine::{Agent, Batch, Heartbeat, State};
use crate::store::{Entry, Record};

fn node() -> AgentRecord {
    let hello = rota_proto::agent::Hello { env: "prod".to_owned(), ..Default::default() };
    record(&hello, "10.0.0.1", None)
}

/// A node that was heard at this time, and the time until which this controller surely listened.
fn is_silent(heard: u64, listened: Option<u64>, now: u64) -> bool {
    let (record, heard) = (node(), Timestamp(heard));
    let agent = Agent::unheard(record, heard, true);
    let key = AgentKey::Node("web-01".parse().unwrap());
    let mut state = State::default();
    state.agents.insert(key.clone(), agent);
    if let Some(listened) = listened {
        state.ears.came(Timestamp(listened));
    }
    let mut batch = Batch::default();
    let (at, started) = (Timestamp(now), Timestamp(0));
    let mut turn = Turn { state: &mut state, batch: &mut batch, at, started };
    turn.notice_silence();
    turn.notice_silence(); // a second look finds nothing else
    !state.agents[&key].online
}

#[test]
fn who_says_nothing_for_three_heartbeats_is_silent_and_nobody_whom_nobody_listens_to() {
    for (heard, listened, now, silent) in [
        (1_000, None, 16_000, false),
        (1_000, None, 16_001, true),
        (1_000, Some(16_001), 16_100, true),
        // Ten thousand handshakes came first; what it has said lies behind them.
        (1_000, Some(16_000), 40_000, false),
        (1_000, Some(3_000), 40_000, false),
    ] {
        assert_eq!(is_silent(heard, listened, now), silent, "{heard} {listened:?} {now}");
    }
}

#[test]
fn what_others_say_of_a_node_does_not_shorten_its_time_to_come_back() {
    let (key, started) = (AgentKey::Node("web-01".parse().unwrap()), Timestamp(1_000));
    let mut state = State { cluster: Some(Cluster::default()), ..State::default() };
    let (record, heard) = (node(), Timestamp(900));
    let agent = Agent::unheard(record, heard, true);
    state.agents.insert(key.clone(), agent);
    let value = AgentRecord { version: "2.0.0".to_owned(), ..node() }.encode().unwrap();
    let entry = Entry { key: "/nodes/web-01".to_owned(), value, created: 1, modified: 2 };
    let grace = started.0 + RETURN_GRACE_MS;
    for (at, online) in [(5_000, true), (30_000, true), (grace, true), (grace + 1, false)] {
        let mut batch = Batch::default();
        let at = Timestamp(at);
        let mut turn = Turn { state: &mut state, batch: &mut batch, at, started };
        if at == Timestamp(5_000) {
            turn.agent_was_put(key.clone(), &entry).unwrap();
        }
        turn.notice_silence();
        assert_eq!(state.agents[&key].online, online, "{at:?}");
    }
    assert_eq!(state.agents[&key].record.version, "2.0.0");
}

/// The store was away: what its session would have brought, its end or a new one, was turned away.
#[test]
fn who_was_not_heard_since_the_store_came_back_has_the_time_to_return() {
    let (key, started) = (AgentKey::Node("web-01".parse().unwrap()), Timestamp(60_000));
    let (out, _reads) = mpsc::channel(1);
    let session = Some(Session { id: 7, out, beat: Heartbeat::default() });
    let agent = Agent { session, ..Agent::unheard(node(), Timestamp(900), true) };
    let mut state = State::default();
    state.agents.insert(key.clone(), agent);
    let grace = started.0 + RETURN_GRACE_MS;
    for (at, online) in [(60_001, true), (grace, true), (grace + 1, false)] {
        let (mut batch, at) = (Batch::default(), Timestamp(at));
        Turn { state: &mut state, batch: &mut batch, at, started }.notice_silence();
        assert_eq!(state.agents[&key].online, online, "{at:?}");
    }
}
