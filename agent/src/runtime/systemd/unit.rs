//! What a release asks for -> what systemd is told: the name and the properties of a unit.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use zbus::{Fd, Variant};

use super::bus::Property;
use crate::runtime::StartSpec;
use crate::runtime::shim::explain;
use crate::spec::Limits;

/// All apps are in one slice, beside the agent's own unit and never below it.
const SLICE: &str = "rota-apps.slice";

/// As `exec` sets it.
const UMASK: u32 = 0o022;

/// The name of the unit that runs this instance.
pub(super) fn name(app: &str, instance: &str) -> String {
    match instance {
        "" => format!("rota-{app}.service"),
        _ => format!("rota-{app}@{instance}.service"),
    }
}

/// What a unit is made of.
pub(super) struct Plan<'a> {
    pub start: &'a StartSpec,
    /// The program, and all arguments with the name it is called by.
    pub program: &'a Path,
    pub argv: &'a [String],
    /// `None`: root.
    pub user: Option<&'a str>,
    pub environment: &'a Path,
    pub log: &'a Path,
    pub socket: Option<OwnedFd>,
}

/// Everything but the name.
pub(super) fn properties(plan: Plan<'_>) -> Vec<Property<'_>> {
    let spec = &plan.start.spec;
    let run = &spec.run;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let argv: Vec<String> = plan.argv.iter().map(|word| word.replace('$', "$$")).collect();
    let kind = if run.notify { "notify" } else { "exec" };
    let mut all: Vec<Property<'_>> = vec![
        ("Description", format!("{} {}, run by Rota", spec.app, spec.version).into()),
        ("Type", kind.into()),
        // What the app's own children say counts, too: a wrapper may stand before it.
        ("NotifyAccess", if run.notify { "all" } else { "none" }.into()),
        ("ExecStart", vec![(text(plan.program), argv, false)].into()),
        ("WorkingDirectory", text(&plan.start.folder).into()),
        // Not as properties: anybody may read those.
        ("EnvironmentFiles", vec![(text(plan.environment), false)].into()),
        ("StandardOutputFileToAppend", text(plan.log).into()),
        ("StandardErrorFileToAppend", text(plan.log).into()),
        ("UMask", UMASK.into()),
        ("KillMode", "control-group".into()),
        ("KillSignal", run.stop_signal.into()),
        ("TimeoutStopUSec", micros(run.stop_timeout).into()),
        ("TimeoutStartUSec", micros(spec.health.deadline).into()),
        // The agent starts it again: with patience, and back into traffic only when it is healthy.
        ("Restart", "no".into()),
        ("StartLimitIntervalUSec", 0_u64.into()),
        // What has ended leaves nothing behind, also when no agent is there to look.
        ("CollectMode", "inactive-or-failed".into()),
        // How it ended can be read until this agent has done so.
        ("AddRef", true.into()),
        ("Slice", SLICE.into()),
        ("SyslogIdentifier", format!("rota-{}", spec.app).into()),
    ];
    match plan.socket {
        Some(socket) => all.push(("StandardInputFileDescriptor", Fd::from(socket).into())),
        None => all.push(("StandardInput", "null".into())),
    }
    all.extend(plan.user.map(|user| ("User", user.into())));
    all.extend(limits(&run.limits));
    all
}

/// 0 would be for ever.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1000)
}

fn limits(limits: &Limits) -> Vec<Property<'static>> {
    let files = limits.open_files.map(u64::from);
    let all = [
        ("MemoryMax", limits.memory),
        // Microseconds of a core in each second.
        ("CPUQuotaPerSecUSec", limits.cpu_percent.map(|percent| u64::from(percent) * 10_000)),
        ("TasksMax", limits.tasks.map(u64::from)),
        ("LimitNOFILE", files),
        ("LimitNOFILESoft", files),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, Variant::from(value?)))).collect()
}

/// The environment as systemd reads it from a file: every value in quotes, whatever is in it.
pub(super) fn environment(env: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in env {
        let mut quoted = String::with_capacity(value.len());
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '`' | '$') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        text += &format!("{name}=\"{quoted}\"\n");
    }
    text
}

/// The program's own path, which systemd wants in full; or why it cannot be run.
pub(super) fn locate(
    program: &str,
    folder: &Path,
    env: &BTreeMap<String, String>,
) -> Result<PathBuf, String> {
    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    let is_program = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    let found = if program.contains('/') {
        Some(clean(&folder.join(program))).filter(|path| is_program(path))
    } else {
        let path = env.get("PATH").map_or("", String::as_str);
        let places = path.split(':').map(|place| clean(&folder.join(place).join(program)));
        places.into_iter().find(|path| is_program(path))
    };
    found.ok_or_else(|| explain(program, (folder, env), &missing))
}

/// Without `.`, which systemd does not take.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        assert_eq!(name("shop", ""), "rota-shop.service");
        assert_eq!(name("shop", "b"), "rota-shop@b.service");
    }

    #[test]
    fn environment_files() {
        let rows = [
            ("plain", "A=\"plain\"\n"),
            ("", "A=\"\"\n"),
            ("two words # x", "A=\"two words # x\"\n"),
            ("a\"b\\c$d`e'f", "A=\"a\\\"b\\\\c\\$d\\`e'f\"\n"),
            ("two\nlines", "A=\"two\nlines\"\n"),
        ];
        for (value, expected) in rows {
            let env = BTreeMap::from([("A".to_owned(), value.to_owned())]);
            assert_eq!(environment(&env), expected, "{value:?}");
        }
    }

    #[test]
    fn programs_are_found_in_the_folder_or_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let env = BTreeMap::from([("PATH".to_owned(), "/nowhere:/bin".to_owned())]);
        let at = |program: &str| locate(program, folder.path(), &env);
        assert_eq!(at("sh"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(at("nope"), Err("there is no such program in /nowhere:/bin".into()));
        assert!(at("./nope").is_err_and(|why| why.starts_with("there is no file ")));
        assert_eq!(at("/bin/./sh"), Ok(PathBuf::from("/bin/sh")));
    }
}
