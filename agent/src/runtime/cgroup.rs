//! A control group for each instance, where the machine has a writable cgroup v2: so that nothing
//! it forks can escape.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::process::Member;

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
