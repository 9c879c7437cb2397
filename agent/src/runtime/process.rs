//! Which process is it? A number alone may have been given to another; with the start time and the
//! boot it is one for ever.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// Bytes of a process's line in `/proc`: some fifty numbers of at most 20 digits, and a name of at most 64 bytes.
const STAT_BYTES_MAX: usize = 2048;

/// One process of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// Clock ticks from boot to its start: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessId {
    /// The process that has this number now; `None` when there is none.
    pub fn of(pid: i32) -> io::Result<Option<ProcessId>> {
        match stat(pid)? {
            Some(Stat { start_time, .. }) => {
                Ok(Some(ProcessId { pid, start_time, boot_id: boot_id()? }))
            }
            None => Ok(None),
        }
    }

    /// A descriptor that stays with this very process; `None` when it has ended.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        open(self.pid, self.start_time)
    }

    /// Every living process of the session that this process leads or led, itself included.
    ///
    /// While any of them lives, the kernel gives the number to nobody else. So when somebody else
    /// has it, the session is gone.
    pub fn session(&self) -> io::Result<Vec<Member>> {
        if self.boot_id != boot_id()? {
            return Ok(Vec::new());
        }
        if stat(self.pid)?.is_some_and(|it| it.start_time != self.start_time) {
            return Ok(Vec::new());
        }
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|it| it.parse().ok()) else { continue };
            let Some(found) = stat(pid)? else { continue };
            let ours = found.session == self.pid && found.start_time >= self.start_time;
            if ours && found.is_alive() {
                members.extend(Member::open(pid, found.start_time)?);
            }
        }
        Ok(members)
    }
}

/// A living process.
#[derive(Debug)]
pub struct Member {
    /// Its number.
    pub pid: i32,
    /// Stays with this very process.
    pub fd: OwnedFd,
}

impl Member {
    /// The process with this number; `None` when it has ended.
    pub fn with_pid(pid: i32) -> io::Result<Option<Member>> {
        match stat(pid)? {
            Some(found) if found.is_alive() => Member::open(pid, found.start_time),
            Some(_) | None => Ok(None),
        }
    }

    fn open(pid: i32, start_time: u64) -> io::Result<Option<Member>> {
        Ok(open(pid, start_time)?.map(|fd| Member { pid, fd }))
    }
}

/// First the descriptor, then the look: whoever has the number then is who the descriptor is for.
fn open(pid: i32, start_time: u64) -> io::Result<Option<OwnedFd>> {
    let Some(number) = Pid::from_raw(pid) else { return Ok(None) };
    let fd = match pidfd_open(number, PidfdFlags::NONBLOCK) {
        Err(Errno::SRCH) => return Ok(None),
        result => result?,
    };
    Ok(stat(pid)?.filter(|it| it.start_time == start_time && it.is_alive()).map(|_| fd))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What `/proc/PID/stat` says, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: u8,
    session: i32,
    start_time: u64,
}

impl Stat {
    /// A zombie has ended; only its parent has not looked yet.
    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

fn stat(pid: i32) -> io::Result<Option<Stat>> {
    match read_stat(pid) {
        Ok(text) => match parse(&text) {
            Some(stat) => Ok(Some(stat)),
            None => Err(io::Error::other(format!("/proc/{pid}/stat is not as expected"))),
        },
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        // A process that ends between open and read.
        Err(cause) if cause.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// In one read, which the kernel answers with the whole line: a stop looks at every process of the host, while its
/// node is out of traffic, and `fs::read` would ask four times as much.
fn read_stat(pid: i32) -> io::Result<Vec<u8>> {
    let mut line = vec![0; STAT_BYTES_MAX];
    let read = fs::File::open(format!("/proc/{pid}/stat"))?.read(&mut line)?;
    line.truncate(read);
    Ok(line)
}

/// The program's name stands in parentheses and may hold anything, so the fields are counted from
/// the last one.
fn parse(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        session: fields.get(3)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_program_is_called() {
        let rest = "S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 11 12";
        for name in ["(sh)", "(a b)", "(x) S 1 (y)", "(\u{fc})"] {
            let stat = parse(format!("42 {name} {rest}").as_bytes());
            assert_eq!(stat, Some(Stat { state: b'S', session: 42, start_time: 98765 }), "{name}");
        }
        for text in ["", "42 (sh", "42 (sh) S 1", "42 (sh) S 1 a b c"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn this_process_is_found_and_no_other_with_its_number() {
        let own = std::process::id().cast_signed();
        let found = ProcessId::of(own).expect("asks").expect("this process lives");
        assert!(found.open().expect("opens").is_some());
        let earlier = ProcessId { start_time: found.start_time - 1, ..found.clone() };
        assert!(earlier.open().expect("asks").is_none(), "another start time is another process");
        assert!(earlier.session().expect("asks").is_empty());
        let other_boot = ProcessId { boot_id: "other".into(), ..found };
        assert!(other_boot.open().expect("asks").is_none(), "another boot is another process");
        assert_eq!(ProcessId::of(i32::MAX).expect("asks"), None);
    }
}
