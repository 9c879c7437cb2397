//! What `rota check` understood of a manifest, for each environment.

use std::fmt::Write as _;

use rota_rollout::names::Span;
use rota_rollout::strategy::{
    Deadline, Mode, Offline, OnFailure, OnNodeFailure, StartOrder, Strategy,
};
use serde::Serialize;

use super::outcome::Failure;
use crate::manifest::{
    Artifact, Body, Check, Compatibility, Fence, Health, Manifest, Needed, OnDrainTimeout, Port,
    Resolved, Smoke, SmokeTest, Via,
};

/// The whole manifest in words: what holds everywhere, then what an environment says otherwise.
pub fn text(manifest: &Manifest) -> String {
    let base = lines(manifest.base());
    let mut text = format!("{}\n", manifest.base().app);
    for (label, value) in &base {
        write_line(&mut text, label, value);
    }
    for env in manifest.environments() {
        writeln!(text, "\nin {env}").expect("strings take everything");
        let there = lines(&manifest.resolve(env));
        let mut other = there.iter().filter(|line| !base.contains(line)).peekable();
        if other.peek().is_none() {
            text.push_str("  nothing else\n");
        }
        for (label, value) in other {
            write_line(&mut text, label, value);
        }
    }
    text
}

fn write_line(text: &mut String, label: &str, value: &str) {
    writeln!(text, "  {label:<11} {value}").expect("strings take everything");
}

/// Every environment in full, as the types have it.
pub fn json(manifest: &Manifest) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Document<'a> {
        app: &'a str,
        base: &'a Resolved,
        envs: std::collections::BTreeMap<String, Resolved>,
    }
    let envs =
        manifest.environments().map(|env| (env.to_string(), manifest.resolve(env))).collect();
    let base = manifest.base();
    serde_json::to_string_pretty(&Document { app: base.app.as_str(), base, envs })
        .map(|text| text + "\n")
        .map_err(|error| Failure::internal("cannot print the manifest", &error))
}

/// What is said about one environment: a label and a sentence each.
fn lines(resolved: &Resolved) -> Vec<(&'static str, String)> {
    let mut lines = vec![("artifact", artifact(&resolved.artifact)), ("run", run(resolved))];
    lines.push(("health", health(&resolved.health)));
    lines.push(("traffic", traffic(resolved)));
    lines.extend(resolved.smoke.iter().map(|smoke| ("smoke", self::smoke(smoke))));
    let hooks = &resolved.hooks;
    let hooks = [
        ("before_drain", &hooks.before_drain),
        ("before_start", &hooks.before_start),
        ("after_join", &hooks.after_join),
        ("on_failure", &hooks.on_failure),
    ];
    for (name, commands) in hooks {
        lines.extend(commands.iter().map(|argv| (name, argv.join(" "))));
    }
    if let Some(once) = &resolved.once {
        let command = once.command.join(" ");
        lines.push(("once", format!("{command} (at most {})", once.timeout)));
    }
    lines.push(("strategy", strategy(&resolved.strategy)));
    lines.push(("failures", failures(&resolved.strategy)));
    lines.push(("target", target(resolved)));
    let Compatibility { schema, rollback_to } = &resolved.compatibility;
    lines.extend(schema.map(|schema| ("schema", schema.to_string())));
    lines.extend(rollback_to.as_ref().map(|fence| ("fence", back_to(fence))));
    lines
}

fn artifact(artifact: &Artifact) -> String {
    match artifact {
        Artifact::Path(path) => path.clone(),
        Artifact::Url { url, sha256 } => format!("{url} (sha256 {})", sha256.short()),
        Artifact::Image(image) => format!("image {image}"),
    }
}

fn run(resolved: &Resolved) -> String {
    let run = &resolved.run;
    let driver = run.driver.map_or("systemd where it is PID 1, else exec", |d| d.as_str());
    let command = match run.command.as_slice() {
        [] => "the image's own command".to_owned(),
        argv => argv.join(" "),
    };
    let port = match run.port {
        Port::None => "no port".to_owned(),
        Port::Auto => "a free port".to_owned(),
        Port::Fixed(port) => format!("port {port}"),
    };
    let user = run.user.as_ref().map_or(String::new(), |user| format!(", as {user}"));
    format!("{command} ({driver}; {port}{user})")
}

fn health(health: &Health) -> String {
    let what = match &health.check {
        Check::Alive => "the process is alive".to_owned(),
        Check::Http(path) => format!("GET {path} answers 2xx"),
        Check::Tcp => "the port accepts".to_owned(),
        Check::Command(argv) => format!("`{}` ends with 0", argv.join(" ")),
    };
    let long = match health.healthy_for {
        Span::ZERO => String::new(),
        span => format!(" for {span}"),
    };
    format!("{what}{long}, within {}", health.deadline)
}

fn traffic(resolved: &Resolved) -> String {
    let traffic = &resolved.traffic;
    let via = match &traffic.via {
        Via::Edge(pool) if traffic.edges == Needed::Reachable => {
            format!("reachable edges of pool {pool}")
        }
        Via::Edge(pool) => format!("edges of pool {pool}"),
        Via::Endpoint { settle } => {
            format!("load balancers that ask the node, {settle} answers each")
        }
        Via::Command(scripts) => format!("your own commands: {}", scripts.leave.join(" ")),
        Via::None => return "none: only the kernel's sockets are looked at".to_owned(),
    };
    let then = match traffic.on_drain_timeout {
        OnDrainTimeout::Cut => "cut and count",
        OnDrainTimeout::Fail => "fail",
    };
    format!("{via}; drain at most {}, then {then}", traffic.drain_timeout)
}

fn smoke(smoke: &Smoke) -> String {
    let test = match &smoke.test {
        SmokeTest::Http { path, status, body } => {
            let body = match body {
                Body::Any => String::new(),
                Body::Contains(text) => format!(" with {text:?}"),
                Body::Matches(regex) => format!(" matching /{regex}/"),
            };
            format!("GET {path} answers {status}{body}")
        }
        SmokeTest::Command(argv) => format!("`{}` ends with 0", argv.join(" ")),
    };
    format!("{}: {test}", smoke.name)
}

fn strategy(strategy: &Strategy) -> String {
    let sizes: Vec<String> = strategy.batch.iter().map(ToString::to_string).collect();
    let sizes = sizes.join(", then ");
    let mut text = match strategy.mode {
        Mode::Batches => format!("batches of {sizes}"),
        Mode::Window => format!("a window of {sizes}"),
    };
    text.push_str(match strategy.order {
        StartOrder::StopFirst => ", stop first",
        StartOrder::StartFirst => ", start first",
    });
    let mut more = |words: String| {
        text.push_str(", ");
        text.push_str(&words);
    };
    if let Some(limit) = strategy.max_unavailable {
        more(format!("at most {limit} out of traffic"));
    }
    if strategy.delay > Span::ZERO {
        more(format!("{} between batches", strategy.delay));
    }
    if strategy.monitor > Span::ZERO {
        more(format!("each node watched for {}", strategy.monitor));
    }
    if !strategy.approve_after.is_empty() {
        let after: Vec<String> = strategy.approve_after.iter().map(ToString::to_string).collect();
        more(format!("approval after batch {}", after.join(", ")));
    }
    if strategy.rehearse_rollback {
        more("the way back rehearsed with the first batch".to_owned());
    }
    if strategy.catch_up {
        more("nodes that drift are brought back by themselves".to_owned());
    }
    if let Some(label) = &strategy.spread_by {
        more(format!("one {label} at a time"));
    }
    if let Deadline::After(span) = strategy.deadline {
        more(format!("at most {span} in all"));
    }
    text
}

fn failures(strategy: &Strategy) -> String {
    let node = match strategy.on_node_failure {
        OnNodeFailure::Restore => "a failed node restores itself",
        OnNodeFailure::Leave => "a failed node stays out of traffic",
    };
    let then = match strategy.on_failure {
        OnFailure::Pause => "hold",
        OnFailure::Rollback => "roll back",
        OnFailure::Continue => "go on",
    };
    let offline = match strategy.offline {
        Offline::Skip => "offline nodes catch up later",
        Offline::Wait => "wait for offline nodes",
        Offline::Fail => "an offline node is a failure",
    };
    format!("{node}; after more than {}: {then}; {offline}", strategy.max_failures)
}

fn back_to(fence: &Fence) -> String {
    match fence {
        Fence::Version(wanted) => format!("back only to a version {wanted}"),
        Fence::Schema(least) => format!("back only to a schema of at least {least}"),
    }
}

fn target(resolved: &Resolved) -> String {
    let roles: Vec<&str> = resolved.target.roles.iter().map(String::as_str).collect();
    let labels: Vec<String> =
        resolved.target.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    match (roles.is_empty(), labels.is_empty()) {
        (true, true) => "every node of the environment".to_owned(),
        (false, true) => format!("role {}", roles.join(" or ")),
        (true, false) => labels.join(" and "),
        (false, false) => format!("role {}, {}", roles.join(" or "), labels.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
app = "shop"
[artifact]
path = "dist"
[run]
command = ["./shop", "--port", "{port}"]
port = 9000
[health]
http = "/healthz"
[traffic]
via = "edge"
pool = "shop"
[[smoke]]
name = "home page"
http = "/"
contains = "v{version}"
[strategy]
batch = "25%"
[target]
roles = ["web"]
[env.prod.strategy]
batch = [1, "10%"]
[env.test.strategy]
batch = "25%"
"#;

    #[test]
    fn what_was_understood() {
        let manifest = Manifest::parse(MANIFEST, "rota.toml").unwrap();
        let expected = "\
shop
  artifact    dist
  run         ./shop --port {port} (systemd where it is PID 1, else exec; port 9000)
  health      GET /healthz answers 2xx, within 1m
  traffic     edges of pool shop; drain at most 30s, then cut and count
  smoke       home page: GET / answers 200 with \"v{version}\"
  strategy    batches of 25%, stop first, each node watched for 5s
  failures    a failed node restores itself; after more than 0: hold; offline nodes catch up later
  target      role web

in prod
  strategy    batches of 1, then 10%, stop first, each node watched for 5s

in test
  nothing else
";
        assert_eq!(text(&manifest), expected);
    }
}
