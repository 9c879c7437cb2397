//! What a release asks for -> what dockerd is told.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, ResourcesUlimits};

use crate::runtime::{LaunchError, StartSpec, environment};
use crate::spec::Limits;

/// A command's container has this label, so that the next agent removes it.
pub(super) const COMMAND: &str = "rota.command";

/// What a container is known by.
pub(super) struct Labels;

impl Labels {
    const APP: &str = "rota.app";
    const INSTANCE: &str = "rota.instance";
    const VERSION: &str = "rota.version";
    const DIGEST: &str = "rota.digest";
    const ENV: &str = "rota.env";
    const NODE: &str = "rota.node";
    /// The folder of the agent whose it is.
    pub(super) const ROOT: &str = "rota.agent";
}

/// The name of an instance's container. A label has no dot, so no app's name looks like another's second instance.
pub(super) fn name(app: &str, instance: &str) -> String {
    match instance {
        "" => format!("rota-{app}"),
        _ => format!("rota-{app}.{instance}"),
    }
}

/// The container of an instance. Its environment is the image's, and what the manifest says.
pub(super) fn body(
    start: &StartSpec,
    root: &Path,
    image: &str,
) -> Result<ContainerCreateBody, LaunchError> {
    let run = &start.spec.run;
    let command = start.values().render_all(&run.command)?;
    let env = environment::told(start)?;
    Ok(ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(command).filter(|words| !words.is_empty()),
        env: Some(pairs(&env)),
        user: run.user.clone(),
        labels: Some(labels(start, root)),
        stop_signal: Some(run.stop_signal.to_string()),
        stop_timeout: Some(whole_seconds(run.stop_timeout)),
        host_config: Some(host(&run.limits)),
        ..ContainerCreateBody::default()
    })
}

/// The container of a command beside the instance: the same image, environment and user, another program.
pub(super) fn command(
    start: &StartSpec,
    root: &Path,
    (image, argv): (&str, &[String]),
) -> Result<ContainerCreateBody, LaunchError> {
    let argv = start.values().render_all(argv)?;
    let Some((program, arguments)) = argv.split_first() else { return Err(LaunchError::Empty) };
    let mut body = body(start, root, image)?;
    body.entrypoint = Some(vec![program.clone()]);
    body.cmd = Some(arguments.to_vec());
    body.host_config = Some(host(&Limits::default()));
    body.labels.get_or_insert_default().insert(COMMAND.to_owned(), String::new());
    Ok(body)
}

fn labels(start: &StartSpec, root: &Path) -> HashMap<String, String> {
    let spec = &start.spec;
    let all = [
        (Labels::APP, spec.app.clone()),
        (Labels::INSTANCE, start.instance.clone()),
        (Labels::VERSION, spec.version.clone()),
        (Labels::DIGEST, spec.digest.clone()),
        (Labels::ENV, spec.env.clone()),
        (Labels::NODE, start.node.clone()),
        (Labels::ROOT, root.display().to_string()),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn pairs(env: &BTreeMap<String, String>) -> Vec<String> {
    env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// For whoever stops it by hand; dockerd knows no shorter time.
fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX)
}

fn host(limits: &Limits) -> HostConfig {
    let files = |most: u32| ResourcesUlimits {
        name: Some("nofile".to_owned()),
        soft: Some(i64::from(most)),
        hard: Some(i64::from(most)),
    };
    HostConfig {
        // The app listens on the node's own port, as under every driver.
        network_mode: Some("host".to_owned()),
        memory: limits.memory.and_then(|bytes| i64::try_from(bytes).ok()),
        // Without this it may swap as much again.
        memory_swap: limits.memory.and_then(|bytes| i64::try_from(bytes).ok()),
        nano_cpus: limits.cpu_percent.map(|percent| i64::from(percent) * 10_000_000),
        pids_limit: limits.tasks.map(i64::from),
        ulimits: limits.open_files.map(|most| vec![files(most)]),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers() {
        assert_eq!(name("shop", ""), "rota-shop");
        assert_eq!(name("shop", "b"), "rota-shop.b");
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, expected) in [(0, 0), (1, 1), (1000, 1), (1001, 2), (10_000, 10)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), expected, "{millis}");
        }
    }
}
