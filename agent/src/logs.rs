//! The apps' output: appended by the app itself, rotated here, and read back from where an instance
//! began.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes after which a log is rotated. Five of these and the current one fit on any node.
pub const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Rotated files that are kept, `.1` the newest.
pub const LOGS_KEPT: u32 = 5;
/// Bytes of output that travel with a failure: enough for a stack trace, small enough for a report.
pub const TAIL_BYTES: u64 = 64 * 1024;

/// A log that could not be kept small, or read.
#[derive(Debug, Error)]
#[error("cannot {deed} the log {path}")]
pub struct LogError {
    deed: &'static str,
    path: PathBuf,
    #[source]
    cause: io::Error,
}

/// How long the log is now: the place from which a new instance's output is read. 0 when there is
/// none.
pub fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// Rotates when the log is larger than `max`: the app keeps its descriptor, so the file is copied
/// and cut.
///
/// What the app writes between the last copied byte and the cut is lost; that is microseconds.
pub fn rotate(path: &Path, max: u64) -> Result<bool, LogError> {
    if length(path) <= max {
        return Ok(false);
    }
    let failed = |cause| LogError { deed: "rotate", path: path.into(), cause };
    for number in (1..LOGS_KEPT).rev() {
        move_if_there(&numbered(path, number), &numbered(path, number + 1)).map_err(failed)?;
    }
    copy_and_cut(path, &numbered(path, 1)).map_err(failed)?;
    Ok(true)
}

/// The last `max` bytes written since the log was `since` bytes long, as text.
///
/// A log that is shorter than `since` was rotated meanwhile; then all of it is newer.
pub fn tail(path: &Path, max: u64, since: u64) -> Result<String, LogError> {
    match read_tail(path, max, since) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(cause) => Err(LogError { deed: "read", path: path.into(), cause }),
    }
}

fn read_tail(path: &Path, max: u64, since: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let since = if since > length { 0 } else { since };
    file.seek(SeekFrom::Start(since.max(length.saturating_sub(max))))?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn copy_and_cut(path: &Path, to: &Path) -> io::Result<()> {
    let mut from = OpenOptions::new().read(true).write(true).open(path)?;
    let mut copy = File::create(to)?;
    copy.set_permissions(from.metadata()?.permissions())?;
    // The second pass takes what was written during the first.
    for _ in 0..2 {
        io::copy(&mut from, &mut copy)?;
    }
    from.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn appending(path: &Path) -> File {
        OpenOptions::new().create(true).append(true).open(path).expect("opens")
    }

    #[test]
    fn tails() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.log");
        assert_eq!(tail(&path, 10, 0).expect("no log is no output"), "");
        std::fs::write(&path, b"0123456789\xff\xc3\xa4").expect("writes");
        let rows = [(100, 0, "0123456789\u{fffd}ä"), (3, 0, "\u{fffd}ä"), (100, 8, "89\u{fffd}ä")];
        for (max, since, expected) in rows {
            assert_eq!(tail(&path, max, since).expect("reads"), expected, "{max} {since}");
        }
        assert_eq!(tail(&path, 100, 13).expect("reads"), "", "nothing new");
        assert_eq!(tail(&path, 100, 14).expect("reads"), "0123456789\u{fffd}ä", "was rotated");
    }

    #[test]
    fn rotation_keeps_five_and_the_apps_descriptor() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.log");
        let mut app = appending(&path);
        assert!(!rotate(&path, 4).expect("nothing to do"));
        for round in 0..7 {
            write!(app, "round {round}").expect("writes");
            assert!(rotate(&path, 4).expect("rotates"));
            assert_eq!(length(&path), 0);
        }
        write!(app, "now").expect("writes");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(read("app.log").as_deref(), Some("now"));
        assert_eq!(read("app.log.1").as_deref(), Some("round 6"));
        assert_eq!(read("app.log.5").as_deref(), Some("round 2"));
        assert_eq!(read("app.log.6"), None);
    }
}
