//! The loop of an agent that runs no apps: an edge. It knows the edges, and refuses work.

use tokio::sync::watch;
use tracing::{info, warn};

use crate::agent::Agent;
use crate::link::Event;
use crate::local::Request;
use crate::report::{Failed, Left, Measured, Report, Step, What};

/// Runs until `stop` is set.
pub async fn run(mut agent: Agent, mut stop: watch::Receiver<bool>) {
    let mut seq = 0;
    loop {
        tokio::select! {
            event = agent.events.recv() => match event {
                None => return,
                Some(Event::Order { controller, order }) => {
                    warn!(controller, rollout = %order.rollout, "this agent runs no apps");
                    seq += 1;
                    let why = "this agent runs no apps: it only serves pools".to_owned();
                    agent.link.report(Report {
                        seq,
                        rollout: order.rollout,
                        attempt: order.attempt,
                        at_ms: 0,
                        what: What::Failed(Box::new(untouched(why))),
                    });
                }
                Some(Event::Directory(directory)) => agent.edges.know(&directory.edges),
                Some(Event::Up(name)) => info!("controller {name} is here"),
                Some(Event::Down(name)) => info!("controller {name} is gone"),
                Some(Event::Standing(_) | Event::Acked(_)) => {}
            },
            request = agent.requests.recv() => match request {
                None => return,
                Some(request) => answer(request),
            },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn untouched(cause: String) -> Failed {
    Failed {
        step: Step::Fetch,
        cause,
        output: Vec::new(),
        left: Left::Untouched,
        restore_error: None,
        measured: Measured::default(),
        release: None,
    }
}

/// Whoever asked may be gone meanwhile; then nobody needs the answer.
fn answer(request: Request) {
    let none = |app: String| format!("this agent does not run {app}: it only serves pools");
    let told = match request {
        Request::Updates(reply) => reply.send(Vec::new()).is_ok(),
        Request::Apps(reply) => reply.send(Vec::new()).is_ok(),
        Request::Rollback { app, reply } | Request::Release { app, reply } => {
            reply.send(Err(none(app))).is_ok()
        }
    };
    if !told {
        info!("whoever asked is gone");
    }
}
