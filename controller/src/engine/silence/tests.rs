//! When a node counts as silent.

use super::*;
use crate::engine::agents::record;
use crate::engine::{Agent, Batch, State};

/// A node that was heard at this time, and the time until which this controller surely listened.
fn is_silent(heard: u64, listened: Option<u64>, now: u64) -> bool {
    let hello = rota_proto::agent::Hello { env: "prod".to_owned(), ..Default::default() };
    let (record, heard) = (record(&hello, "10.0.0.1", None), Timestamp(heard));
    let agent = Agent { record, session: None, heard, online: true, pools: Vec::new() };
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
