//! A release as an agent's machine knows it, for the tests that drive the machine without a host.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_agent::spec;

/// An app `shop` in `prod` with one smoke test behind an edge, and these hooks.
pub fn spec(version: String, digest: String, hooks: spec::Hooks) -> spec::Spec {
    let seconds = Duration::from_secs;
    spec::Spec {
        app: "shop".to_owned(),
        env: "prod".to_owned(),
        version,
        digest,
        size: 1,
        format: spec::Format::Tar,
        run: spec::Run {
            driver: spec::Driver::Exec,
            command: Vec::new(),
            user: None,
            env: BTreeMap::new(),
            env_file: None,
            port: spec::Port::Auto,
            stop_signal: 15,
            stop_timeout: seconds(2),
            notify: false,
            socket: false,
            limits: spec::Limits::default(),
        },
        health: spec::Health {
            check: spec::Check::Alive,
            interval: Duration::from_millis(100),
            timeout: seconds(1),
            healthy_for: Duration::ZERO,
            deadline: seconds(10),
        },
        traffic: spec::Traffic {
            via: spec::Via::Edge("shop".to_owned()),
            drain_timeout: seconds(8),
            on_drain_timeout: spec::OnDrainTimeout::Cut,
            edges: spec::Needed::All,
        },
        smoke: vec![spec::Smoke {
            name: "home".to_owned(),
            test: spec::SmokeTest::Command(Vec::new()),
            timeout: seconds(1),
            retries: 0,
        }],
        image: None,
        hooks,
    }
}
