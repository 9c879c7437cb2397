//! A control group for each instance, where the machine has a writable cgroup v2: so that nothing
//! it forks can escape.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::process::Member;
use crate::spec::Limits;

/// The kernel's own period for shares of a core, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// The control group of this process, when whoever manages groups has handed it over for groups of its own (systemd's
/// `Delegate=yes`). Elsewhere sessions have to do.
pub(crate) fn delegated() -> Option<PathBuf> {
    let all = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = all.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(|root| Path::new(root).join(own))
        .into_iter()
        .find(|group| group.join("cgroup.procs").exists())?;
    let mut value = [0; 1];
    let marks = ["user.delegate", "trusted.delegate"];
    let handed_over = marks.iter().any(|mark| {
        let read = rustix::fs::getxattr(&group, *mark, &mut value);
        matches!(read, Ok(1)) && value == *b"1"
    });
    handed_over.then_some(group)
}

/// Makes a group for one start; `None` when `base` is no writable cgroup v2, which is fine:
/// sessions are looked at, too.
pub(super) fn make(base: Option<&Path>, app: &str, instance: &str) -> Option<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let base = base.filter(|it| it.join("cgroup.procs").exists())?;
    let name = match instance {
        "" => format!("{app}.{}.{number}", std::process::id()),
        _ => format!("{app}.{instance}.{}.{number}", std::process::id()),
    };
    let group = base.join(name);
    match fs::create_dir(&group) {
        Ok(()) if group.join("cgroup.kill").exists() => Some(group),
        // A kernel before 5.14.
        Ok(()) => remove(&group).ok().and(None),
        Err(cause) => {
            tracing::debug!(group = %group.display(), %cause, "no control group for this instance");
            None
        }
    }
}

/// The first limit that no group below `base` can set, and why.
pub(super) fn cannot(base: Option<&Path>, limits: &Limits) -> Option<(&'static str, String)> {
    let all = [
        ("limits.memory", "memory", limits.memory.is_some()),
        ("limits.cpu", "cpu", limits.cpu_percent.is_some()),
        ("limits.tasks", "pids", limits.tasks.is_some()),
    ];
    let ready = base.and_then(|base| fs::read_to_string(base.join("cgroup.subtree_control")).ok());
    let ready = ready.unwrap_or_default();
    let has = |controller: &str| ready.split_whitespace().any(|it| it == controller);
    let (key, controller, _) = all.into_iter().find(|(_, it, wanted)| *wanted && !has(it))?;
    let why = format!(
        "it has no control group with the controller {controller}; use driver = \"systemd\" or \
         \"docker\", or remove the limit"
    );
    Some((key, why))
}

/// Sets the limits of one group, before anybody is in it.
pub(super) fn limit(group: &Path, limits: &Limits) -> io::Result<()> {
    let set = |name: &str, value: String| fs::write(group.join(name), value);
    if let Some(bytes) = limits.memory {
        set("memory.max", bytes.to_string())?;
    }
    if let Some(percent) = limits.cpu_percent {
        set("cpu.max", format!("{} {CPU_PERIOD_US}", u64::from(percent) * CPU_PERIOD_US / 100))?;
    }
    if let Some(tasks) = limits.tasks {
        set("pids.max", tasks.to_string())?;
    }
    Ok(())
}

/// The living processes of the group.
pub(super) fn members(group: &Path) -> io::Result<Vec<Member>> {
    let text = match fs::read_to_string(group.join("cgroup.procs")) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let mut members = Vec::new();
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        members.extend(Member::with_pid(pid)?);
    }
    Ok(members)
}

/// Kills all processes of the group at once, so that none can fork away.
pub(super) fn kill(group: &Path) -> io::Result<()> {
    match fs::write(group.join("cgroup.kill"), "1") {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes the empty group.
pub(super) fn remove(group: &Path) -> io::Result<()> {
    match fs::remove_dir(group) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
