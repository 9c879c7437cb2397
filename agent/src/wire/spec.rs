//! A release as the order described it -> [`Spec`], checked.

use rota_proto::agent as proto;

use super::field::{At, BadField};
use crate::spec::{
    Check, Driver, Format, Health, Hooks, Limits, Needed, OnDrainTimeout, Port, Run, Scripts,
    Smoke, SmokeTest, Spec, Traffic, Via,
};

/// The most smoke tests of one release, and the most commands of one kind of hook.
const TESTS_MAX: usize = 100;

/// The most further tries of one smoke test; more than that is a health check.
const RETRIES_MAX: u32 = 100;

/// The largest compiled regular expression of a smoke test, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

pub(super) fn spec(at: &At, spec: proto::ReleaseSpec, default: Driver) -> Result<Spec, BadField> {
    let image = image(&at.field("image"), &spec)?;
    if spec.size == 0 && image.is_none() {
        return Err(at.field("size").bad("is 0: an artifact has at least one byte"));
    }
    let at_run = at.field("run");
    let run = run(&at_run, at_run.present(spec.run)?, default)?;
    let health = health(&at.field("health"), spec.health, run.port)?;
    let traffic = traffic(&at.field("traffic"), spec.traffic, run.port)?;
    Ok(Spec {
        app: at.field("app").label(spec.app)?,
        env: at.field("env").label(spec.env)?,
        version: at.field("version").version(spec.version)?,
        digest: at.field("digest").digest(spec.digest)?,
        size: spec.size,
        // What comes from a registry has none.
        format: match image {
            Some(_) => Format::Tar,
            None => format(&at.field("format"), &spec.format)?,
        },
        smoke: smokes(&at.field("smoke"), spec.smoke, run.port)?,
        hooks: hooks(&at.field("hooks"), spec.hooks.unwrap_or_default())?,
        run,
        health,
        traffic,
        image,
    })
}

/// An image names its digest, so that every node runs the same; the release's digest is that one.
fn image(at: &At, spec: &proto::ReleaseSpec) -> Result<Option<String>, BadField> {
    if spec.image.is_empty() {
        return Ok(None);
    }
    if !spec.image.ends_with(&format!("@sha256:{}", spec.digest)) {
        return Err(at.bad(format!("is {:?}, and the digest is {}", spec.image, spec.digest)));
    }
    Ok(Some(spec.image.clone()))
}

fn format(at: &At, text: &str) -> Result<Format, BadField> {
    match text {
        "tar" => Ok(Format::Tar),
        "tar.gz" => Ok(Format::TarGz),
        "tar.zst" => Ok(Format::TarZst),
        _ => Err(at.bad(format!("is {text:?}: this agent knows tar, tar.gz and tar.zst"))),
    }
}

fn run(at: &At, run: proto::Run, default: Driver) -> Result<Run, BadField> {
    let driver = match run.driver.as_str() {
        "" => default,
        "exec" => Driver::Exec,
        "systemd" => Driver::Systemd,
        "docker" => Driver::Docker,
        other => {
            let problem = format!("is {other:?}: this agent knows exec, systemd and docker");
            return Err(at.field("driver").bad(problem));
        }
    };
    let command = match driver {
        // An image has a command of its own.
        Driver::Docker if run.command.is_empty() => run.command,
        Driver::Exec | Driver::Systemd | Driver::Docker => at.field("command").argv(run.command)?,
    };
    let at_env = at.field("env");
    for (name, value) in &run.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(at_env.bad(format!("has the variable {name:?}, which cannot be set")));
        }
    }
    Ok(Run {
        driver,
        command,
        user: user(&at.field("user"), run.user)?,
        env: run.env.into_iter().collect(),
        env_file: not_empty(at.field("env_file").plain(run.env_file)?),
        port: port(&at.field("port"), run.port, run.no_port)?,
        stop_signal: signal(&at.field("stop_signal"), &run.stop_signal)?,
        stop_timeout: at.field("stop_timeout_ms").duration(run.stop_timeout_ms)?,
        notify: run.notify,
        socket: run.socket,
        limits: limits(run.limits.unwrap_or_default()),
    })
}

/// 0 is none.
fn limits(limits: proto::Limits) -> Limits {
    let some = |number: u32| (number > 0).then_some(number);
    Limits {
        memory: (limits.memory > 0).then_some(limits.memory),
        cpu_percent: some(limits.cpu_percent),
        tasks: some(limits.tasks),
        open_files: some(limits.open_files),
    }
}

fn not_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn user(at: &At, name: String) -> Result<Option<String>, BadField> {
    let right = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
    if name.starts_with('-') || !name.chars().all(right) {
        return Err(at.bad(format!("is {name:?}, which is not the name of a user")));
    }
    Ok(not_empty(name))
}

fn port(at: &At, port: u32, none: bool) -> Result<Port, BadField> {
    match (u16::try_from(port), none) {
        (Ok(0), true) => Ok(Port::None),
        (_, true) => Err(at.bad(format!("is {port}, but `no_port` says that there is none"))),
        (Ok(0), false) => Ok(Port::Auto),
        (Ok(port), false) => Ok(Port::Fixed(port)),
        (Err(_), false) => Err(at.bad(format!("is {port}: at most 65535"))),
    }
}

/// The numbers that Linux gives these signals on every architecture we build for.
const SIGNALS: [(&str, i32); 8] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("TERM", 15),
    ("WINCH", 28),
];

fn signal(at: &At, name: &str) -> Result<i32, BadField> {
    let known = SIGNALS.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).ok_or_else(|| {
        let names: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
        at.bad(format!("is {name:?}: use one of {}", names.join(", ")))
    })
}

fn health(at: &At, health: Option<proto::Health>, port: Port) -> Result<Health, BadField> {
    let health = at.present(health)?;
    let needs_port = |name| match port {
        Port::None => Err(at.field(name).bad("needs a port, and this app has none")),
        Port::Auto | Port::Fixed(_) => Ok(()),
    };
    use proto::health::Check as Wire;
    let check = match health.check {
        None => Check::Alive,
        Some(Wire::Http(path)) => {
            needs_port("http")?;
            Check::Http(at.field("http").http_path(path)?)
        }
        Some(Wire::Tcp(true)) => {
            needs_port("tcp")?;
            Check::Tcp
        }
        Some(Wire::Tcp(false)) => return Err(at.field("tcp").bad("is false: leave it out")),
        Some(Wire::Command(command)) => Check::Command(at.field("command").argv(command.argv)?),
    };
    Ok(Health {
        check,
        interval: at.field("interval_ms").nonzero_duration(health.interval_ms)?,
        timeout: at.field("timeout_ms").nonzero_duration(health.timeout_ms)?,
        healthy_for: at.field("healthy_for_ms").duration(health.healthy_for_ms)?,
        deadline: at.field("deadline_ms").nonzero_duration(health.deadline_ms)?,
    })
}

fn traffic(at: &At, plan: Option<proto::TrafficPlan>, port: Port) -> Result<Traffic, BadField> {
    let plan = at.present(plan)?;
    let via = match plan.via.as_str() {
        "edge" if port == Port::None => {
            return Err(at.field("via").bad("is \"edge\", and this app has no port to send to"));
        }
        "edge" => Via::Edge(at.field("pool").label(plan.pool)?),
        "endpoint" => {
            let settle = plan.settle;
            if settle == 0 {
                return Err(at.field("settle").bad("is 0: at least one answer is needed"));
            }
            Via::Endpoint { settle }
        }
        "command" => Via::Command(scripts(at, &plan)?),
        "none" => Via::None,
        other => {
            let problem = format!("is {other:?}: use edge, endpoint, command or none");
            return Err(at.field("via").bad(problem));
        }
    };
    Ok(Traffic {
        via,
        drain_timeout: at.field("drain_timeout_ms").duration(plan.drain_timeout_ms)?,
        on_drain_timeout: if plan.fail_on_drain_timeout {
            OnDrainTimeout::Fail
        } else {
            OnDrainTimeout::Cut
        },
        edges: if plan.reachable_edges { Needed::Reachable } else { Needed::All },
    })
}

fn scripts(at: &At, plan: &proto::TrafficPlan) -> Result<Scripts, BadField> {
    let argv = |name, command: &Option<proto::Command>| {
        let at = at.field(name);
        at.argv(at.present(command.clone())?.argv)
    };
    let in_flight = plan.in_flight.as_ref();
    Ok(Scripts {
        leave: argv("leave", &plan.leave)?,
        join: argv("join", &plan.join)?,
        in_flight: in_flight
            .map(|command| at.field("in_flight").argv(command.argv.clone()))
            .transpose()?,
    })
}

fn few<T>(at: &At, list: &[T]) -> Result<(), BadField> {
    if list.len() > TESTS_MAX {
        return Err(at.bad(format!("has {} entries: at most {TESTS_MAX}", list.len())));
    }
    Ok(())
}

fn smokes(at: &At, tests: Vec<proto::Smoke>, port: Port) -> Result<Vec<Smoke>, BadField> {
    few(at, &tests)?;
    tests.into_iter().map(|test| smoke(at, test, port)).collect()
}

fn smoke(at: &At, smoke: proto::Smoke, port: Port) -> Result<Smoke, BadField> {
    if smoke.retries > RETRIES_MAX {
        let problem = format!("is {}: at most {RETRIES_MAX}", smoke.retries);
        return Err(at.field("retries").bad(problem));
    }
    use proto::smoke::Test as Wire;
    let test = match at.field("test").present(smoke.test)? {
        Wire::Command(command) => SmokeTest::Command(at.field("command").argv(command.argv)?),
        Wire::Http(_) if port == Port::None => {
            return Err(at.field("http").bad("needs a port, and this app has none"));
        }
        Wire::Http(path) => SmokeTest::Http {
            path: at.field("http").http_path(path)?,
            status: status(&at.field("status"), smoke.status)?,
            contains: not_empty(smoke.contains),
            matches: regex(&at.field("matches"), smoke.matches)?,
        },
    };
    Ok(Smoke {
        name: smoke.name,
        test,
        timeout: at.field("timeout_ms").nonzero_duration(smoke.timeout_ms)?,
        retries: smoke.retries,
    })
}

fn status(at: &At, status: u32) -> Result<u16, BadField> {
    match u16::try_from(status) {
        Ok(status @ 100..=599) => Ok(status),
        Ok(_) | Err(_) => Err(at.bad(format!("is {status}: an HTTP status is 100 to 599"))),
    }
}

/// A pattern with a substitution (`v{version}`) is only complete on the node; `{` outside a count
/// is then no valid syntax yet, so it is compiled when it is used.
fn regex(at: &At, pattern: String) -> Result<Option<String>, BadField> {
    if pattern.is_empty() || pattern.contains('{') {
        return Ok(not_empty(pattern));
    }
    match regex_lite::RegexBuilder::new(&pattern).size_limit(REGEX_BYTES_MAX).build() {
        Ok(_) => Ok(Some(pattern)),
        Err(cause) => Err(at.bad(format!("is no regular expression: {cause}"))),
    }
}

fn hooks(at: &At, hooks: proto::Hooks) -> Result<Hooks, BadField> {
    let list = |name, commands: Vec<proto::Command>| {
        let at = at.field(name);
        few(&at, &commands)?;
        commands.into_iter().map(|command| at.argv(command.argv)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Hooks {
        before_drain: list("before_drain", hooks.before_drain)?,
        before_start: list("before_start", hooks.before_start)?,
        after_join: list("after_join", hooks.after_join)?,
        on_failure: list("on_failure", hooks.on_failure)?,
    })
}
