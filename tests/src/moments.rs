//! Ends a process at an exact moment of its life: when it has just begun or just finished writing something down.
//! The process knows nothing of it: the kernel tells of the files (inotify), and kills.

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// How often a watch looks whether what it watches is over.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is made: what goes into it is not durable yet.
    Made,
    /// It was renamed into place, whole.
    Placed,
    /// Something was written into it.
    Written,
}

/// Watches one file of a folder.
pub struct Moments {
    inotify: OwnedFd,
    file: String,
}

impl Moments {
    /// From now on.
    pub fn of(folder: &Path, file: &str, deed: Deed) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = match deed {
            Deed::Made => WatchFlags::CREATE,
            Deed::Placed => WatchFlags::MOVED_TO,
            Deed::Written => WatchFlags::MODIFY,
        };
        inotify::add_watch(&inotify, folder, flags)?;
        Ok(Self { inotify, file: file.to_owned() })
    }

    /// Waits for the n-th time; `false`: it was over before that.
    pub fn wait(&self, nth: usize, over: &AtomicBool) -> io::Result<bool> {
        let mut seen = 0;
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes());
                    seen += usize::from(name == Some(self.file.as_bytes()));
                    if seen == nth {
                        return Ok(true);
                    }
                }
                Err(Errno::WOULDBLOCK) => {
                    if over.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
                    poll(&mut ready, Some(&LOOK_EVERY))?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Ends a child of ours at once, as a power cut would; when this returns, it runs no more.
pub fn end(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    kill_process(pid, Signal::KILL)?;
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    Ok(())
}
