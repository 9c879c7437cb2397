//! When an operator may take a node out of traffic, or a controller out of service.

use rota_rollout::names::{Revision, Timestamp};
use rota_rollout::rollout::Kind;
use tokio::sync::mpsc;

use super::*;
use crate::engine::Service;
use crate::engine::agents::record;
use crate::engine::cluster::Cluster;
use crate::engine::records::{AgentRecord, AppRecord, Current, FleetRecord, ReleaseRecord};
use crate::engine::{Agent, Batch, Heartbeat, Input, Start, send};
use crate::members::{MemberRecord, Place};
use crate::store::LeaseId;

fn app() -> AppName {
    "shop".parse().unwrap()
}

fn release() -> ReleaseRecord {
    let manifest = "app = \"shop\"\nartifact.path = \"d\"\nrun.command = [\"x\"]\n\
                    traffic.via = \"none\"\nstrategy.batch = 1\n";
    ReleaseRecord {
        app: app(),
        version: "1.0.0".parse().unwrap(),
        digest: "a".repeat(64).parse().unwrap(),
        size: 1,
        format: "tar".to_owned(),
        manifest: manifest.to_owned(),
        manifest_name: "rota.toml".to_owned(),
        created: Timestamp(1),
        who: "ann".to_owned(),
    }
}

/// Three nodes that serve, of which the strategy lets one be out.
fn three() -> State {
    let mut state = State { name: "c1".to_owned(), ..State::default() };
    let hello = rota_proto::agent::Hello { env: "prod".to_owned(), ..Default::default() };
    for name in ["n1", "n2", "n3"] {
        let serves = AppRecord {
            app: app(),
            release: Some(release().release()),
            health: "healthy".to_owned(),
            traffic: "in".to_owned(),
        };
        let record = AgentRecord { apps: vec![serves], ..record(&hello, "10.0.0.1", None) };
        let agent = Agent::unheard(record, Timestamp(1), true);
        state.agents.insert(AgentKey::Node(name.parse().unwrap()), agent);
    }
    let mut fleet = FleetRecord::new(Revision(1));
    let current = Current { revision: Revision(1), release: release().release(), declared: None };
    fleet.currents = vec![current];
    state.fleets.insert((app(), "prod".parse().unwrap()), fleet);
    state.releases.insert((app(), release().version), release());
    state
}

fn turn<T>(state: &mut State, deed: impl FnOnce(&mut Turn<'_>) -> T) -> T {
    let mut batch = Batch::default();
    let at = Timestamp(1_000_000);
    deed(&mut Turn { state, batch: &mut batch, at, started: Timestamp(1) })
}

fn drain(state: &mut State, name: &str) -> String {
    let name = name.parse().unwrap();
    match turn(state, |turn| turn.drain_node(&name, &Drain::default(), "ann")) {
        Ok(_) => "done".to_owned(),
        Err(refused) => refused.message,
    }
}

/// An operator skipped it while it was offline, or its rollout has ended: the update takes it out all the same.
#[test]
fn who_goes_on_with_an_update_is_out() {
    let moving = |of: &str| {
        let mut state = three();
        let key = AgentKey::Node(of.parse().unwrap());
        state.agents.get_mut(&key).unwrap().moving.push(app());
        state
    };
    assert_eq!(drain(&mut three(), "n2"), "done");
    assert_eq!(drain(&mut moving("n2"), "n2"), "done");
    let said = drain(&mut moving("n1"), "n2");
    let expected = "node n2 cannot be drained now: shop: 1 of 3 nodes is out of traffic already \
                    (n1 is being updated) and its strategy allows 1";
    assert_eq!(said, expected);
}

/// With a session that takes one message, and what reads it.
fn connect(state: &mut State, name: &str) -> mpsc::Receiver<Box<rota_proto::agent::ToAgent>> {
    let (out, reads) = mpsc::channel(1);
    let key = AgentKey::Node(name.parse().unwrap());
    let agent = state.agents.get_mut(&key).unwrap();
    agent.session = Some(Session { id: 7, out, beat: Heartbeat::default() });
    reads
}

/// It was seen out of traffic and its app may have recovered since: to update it for nothing would be one too many.
#[test]
fn whose_session_has_ended_may_serve_again() {
    for by_itself in [true, false] {
        let mut state = three();
        let key = AgentKey::Node("n1".parse().unwrap());
        state.agents.get_mut(&key).unwrap().record.apps[0].traffic = "out".to_owned();
        let _reads = connect(&mut state, "n1");
        let start = Start::new(app(), "prod".parse().unwrap(), Kind::Restart);
        turn(&mut state, |turn| turn.start(start, "ann")).unwrap();
        let unsure = |state: &State| {
            let active = state.rollouts.values().next().unwrap();
            active.rollout.nodes()[&"n1".parse::<NodeName>().unwrap()].observed.unsure
        };
        assert!(!unsure(&state));
        if by_itself {
            let gone = Input::Gone { key, session: 7, revoked: false };
            turn(&mut state, |turn| turn.take(gone));
        } else {
            (0..2).for_each(|_| send(&mut state, &key, standing(false)));
            turn(&mut state, |turn| turn.tick());
        }
        assert!(unsure(&state), "{by_itself}");
    }
}

fn member(hears: usize, draining: bool) -> MemberRecord {
    MemberRecord {
        advertise: "c:7400".to_owned(),
        version: "1.0.0".to_owned(),
        instance: "i".to_owned(),
        lease: 1,
        slot: 0,
        draining,
        hears: Some(hears),
        rollouts_max: 9,
        since: Timestamp(1),
        speaks: 1,
    }
}

/// This one leads, as the other one, which hears all of them, is drained.
#[test]
fn who_hears_few_lets_nobody_be_drained() {
    for (there, heard, as_ever) in [(3, 0, false), (3, 1, false), (3, 2, true), (0, 0, true)] {
        let mut state = three();
        let mut cluster = Cluster { lead: Some(("c1".to_owned(), 1)), ..Cluster::default() };
        cluster.members.insert("c1".to_owned(), member(heard, false));
        cluster.members.insert("c2".to_owned(), member(there, true));
        state.cluster = Some(cluster);
        let reads: Vec<_> =
            ["n1", "n2"][..heard].iter().map(|name| connect(&mut state, name)).collect();
        for (_, agent) in state.agents.iter_mut().skip(reads.len()) {
            agent.online = false;
        }
        let key = AgentKey::Node("n3".parse().unwrap());
        let removed = turn(&mut state, |turn| turn.may_remove(&key)).map_err(|it| it.message);
        let drained = drain(&mut state, "n3");
        if as_ever {
            assert_eq!((drained.as_str(), removed.is_ok()), ("done", true), "{there} {heard}");
            continue;
        }
        let why = format!(
            "now: controller c1, which leads, hears {heard} of the agents and controller c2 3 \
             (`rota controller undrain c2`, if it is drained, lets that one lead)"
        );
        assert!(drained.ends_with(&why), "{drained}");
        assert!(removed.unwrap_err().ends_with(&why));
        let force = Drain { force: true, ..Drain::default() };
        let n3 = "n3".parse().unwrap();
        assert!(turn(&mut state, |turn| turn.drain_node(&n3, &force, "ann")).is_ok());
    }
}

/// The other one has just been started, and hears few of the agents.
#[test]
fn what_nobody_can_take_yet_is_handed_over_later() {
    let mut state = three();
    let place = Some(Place { lease: LeaseId(1), fence: 1, slot: 0 });
    let lead = Some(("c2".to_owned(), 1));
    let mut cluster = Cluster { place, lead, ..Cluster::default() };
    cluster.members.insert("c1".to_owned(), member(3, false));
    cluster.members.insert("c2".to_owned(), member(1, false));
    state.cluster = Some(cluster);
    let start = Start::new(app(), "prod".parse().unwrap(), Kind::Restart);
    turn(&mut state, |turn| turn.start(start, "ann")).unwrap();
    let drain =
        |handover| Service { name: "c1".parse().unwrap(), draining: true, force: false, handover };
    let said = turn(&mut state, |turn| turn.serve_on(&drain(true), "ann")).unwrap();
    let expected = "controller c1 takes nothing new; 1 rollout to be handed over as soon as \
                    another controller can go on with it";
    assert_eq!(said["text"], expected);
    turn(&mut state, |turn| turn.see_to_owners());
    assert_eq!(state.own().count(), 1);
    state.cluster.as_mut().unwrap().members.insert("c2".to_owned(), member(3, false));
    turn(&mut state, |turn| turn.see_to_owners());
    assert_eq!(state.own().count(), 0);
}
