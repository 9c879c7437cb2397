//! What commands print while they run, as the sessions pass it on: the tail of each, with its place in the whole.
//!
//! Nothing here is kept or repeated for its own sake: the report at a command's end has the tail that counts. A session
//! that begins late, or cannot send as fast as a command prints, passes on what is still here; the places show the gap.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Interval;

use super::session::every;
use crate::order::Rollout;
use crate::report::{OUTPUT_MAX, Piece};

/// News are told at once, and then no more often than this: a command may print without end.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// Which command: an attempt of this node in a rollout.
pub(super) type Which = (Rollout, u32);

/// The commands that run.
#[derive(Debug, Default)]
pub(super) struct Printed {
    tails: BTreeMap<Which, Tail>,
}

#[derive(Debug, Default)]
struct Tail {
    /// At most twice [`OUTPUT_MAX`].
    bytes: Vec<u8>,
    /// How much was printed in all.
    end: u64,
}

impl Tail {
    /// What of it comes after this place, and where that begins.
    fn after(&self, told: u64) -> (u64, &[u8]) {
        let kept = &self.bytes[self.bytes.len().saturating_sub(OUTPUT_MAX)..];
        let start = self.end - kept.len() as u64;
        let from = told.clamp(start, self.end);
        let skipped = usize::try_from(from - start).unwrap_or(kept.len());
        (from, &kept[skipped..])
    }
}

impl Printed {
    /// A command printed something.
    pub(super) fn add(&mut self, rollout: &Rollout, attempt: u32, bytes: &[u8]) {
        let tail = self.tails.entry((rollout.clone(), attempt)).or_default();
        tail.bytes.extend_from_slice(bytes);
        tail.end += bytes.len() as u64;
        if tail.bytes.len() > 2 * OUTPUT_MAX {
            tail.bytes.drain(..tail.bytes.len() - OUTPUT_MAX);
        }
    }

    /// It has ended: its report says the rest.
    pub(super) fn end(&mut self, rollout: &Rollout, attempt: u32) {
        self.tails.remove(&(rollout.clone(), attempt));
    }

    /// What a session that has told so much has still to tell; it counts as told then.
    pub(super) fn untold(&self, told: &mut BTreeMap<Which, u64>) -> Vec<Piece> {
        told.retain(|which, _| self.tails.contains_key(which));
        let mut news = Vec::new();
        for (which, tail) in &self.tails {
            let told = told.entry(which.clone()).or_default();
            let (offset, data) = tail.after(*told);
            *told = tail.end;
            if !data.is_empty() {
                let (rollout, attempt) = which.clone();
                news.push(Piece { rollout, attempt, offset, data: data.to_vec() });
            }
        }
        news
    }
}

/// What one session tells of it.
pub(super) struct Teller {
    printed: watch::Receiver<Printed>,
    told: BTreeMap<Which, u64>,
    due: Interval,
    rests: bool,
}

impl Teller {
    /// For a session that has told nothing yet.
    pub(super) fn of(printed: &watch::Sender<Printed>) -> Self {
        let mut printed = printed.subscribe();
        printed.mark_changed();
        Self { printed, told: BTreeMap::new(), due: every(TOLD_EVERY), rests: false }
    }

    /// The next pieces. Cancelling it loses none.
    pub(super) async fn next(&mut self) -> Vec<Piece> {
        loop {
            if self.rests {
                self.due.tick().await;
                self.rests = false;
            }
            if self.printed.changed().await.is_err() {
                return std::future::pending().await; // the agent stops, and so does the session
            }
            let news = self.printed.borrow_and_update().untold(&mut self.told);
            if !news.is_empty() {
                self.rests = true;
                self.due.reset();
                return news;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each session is told everything once; the places say what came too fast.
    #[test]
    fn every_session_is_told_all_that_is_still_here() {
        let rollout: Rollout = "shop/prod/7".parse().unwrap();
        let mut printed = Printed::default();
        let (mut early, mut late) = (BTreeMap::new(), BTreeMap::new());
        let tell = |printed: &Printed, told: &mut BTreeMap<Which, u64>| {
            let news = printed.untold(told);
            let text = |it: &Piece| {
                format!(
                    "{}:{}",
                    it.offset,
                    String::from_utf8_lossy(&it.data[..it.data.len().min(9)])
                )
            };
            news.iter().map(text).collect::<Vec<_>>().join(" ")
        };
        printed.add(&rollout, 1, b"one\n");
        assert_eq!(tell(&printed, &mut early), "0:one\n");
        assert_eq!(tell(&printed, &mut early), "");
        printed.add(&rollout, 1, b"two\n");
        assert_eq!(tell(&printed, &mut early), "4:two\n");
        assert_eq!(tell(&printed, &mut late), "0:one\ntwo\n");
        printed.add(&rollout, 1, &[b'x'; 3 * OUTPUT_MAX]);
        let start = 8 + 2 * OUTPUT_MAX;
        assert_eq!(tell(&printed, &mut late), format!("{start}:xxxxxxxxx"));
        printed.end(&rollout, 1);
        assert_eq!((tell(&printed, &mut late), late.len()), (String::new(), 0));
    }
}
