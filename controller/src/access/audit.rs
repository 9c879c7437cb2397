//! The audit log: who did what, when, from where and why, refusals included (`/audit/SEQ`).

use std::sync::Arc;
use std::time::Duration;

use rota_rollout::names::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::record::{decode, encode, rfc3339};
use super::{TRIES_MAX, contended};
use crate::store::{Compare, Op, Outcome, Store, StoreError, StoreRevision, Txn};
use crate::view::AuditView;

/// The most records kept, about 60 MB. Each new one removes the one this far back.
pub const RECORDS_MAX: u64 = 200_000;

/// The most refusals of callers without an identity that are recorded in [`STRANGERS_WINDOW`].
/// Anybody who reaches the port can cause them: at this rate it takes a stranger 80 days to push
/// one record out, and no time at all to be seen.
pub const STRANGERS_MAX: u32 = 100;
/// See [`STRANGERS_MAX`].
pub const STRANGERS_WINDOW: Duration = Duration::from_secs(3600);

/// The most bytes of each text in a record; a longer one is cut.
const TEXT_MAX: usize = 1024;

/// The most records that one read answers.
pub const LIST_MAX: usize = 1000;

const PREFIX: &str = "/audit/";
/// The number of the next record. Outside the prefix, so that it is not listed as one.
const HEAD: &str = "/audit-head";

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Head {
    next: u64,
}

/// One thing that was done or refused.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// The identity, `-` without one.
    pub who: &'a str,
    /// Its address.
    pub peer: &'a str,
    /// What was asked, in a few words: `rollout pause`.
    pub what: &'a str,
    /// On what.
    pub target: &'a str,
    /// Why, in the caller's words.
    pub message: &'a str,
    /// What became of it.
    pub result: Result<(), &'a str>,
}

/// The log.
pub struct Audit {
    store: Arc<dyn Store>,
    /// What is known of [`HEAD`]; none: it must be read.
    head: Mutex<Option<(Head, StoreRevision)>>,
    strangers: std::sync::Mutex<Strangers>,
}

impl Audit {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, head: Mutex::new(None), strangers: std::sync::Mutex::default() }
    }

    /// Writes a record and says its number.
    pub async fn record(&self, deed: &Deed<'_>, at: Timestamp) -> Result<u64, StoreError> {
        let mut known = self.head.lock().await;
        for _ in 0..TRIES_MAX {
            let (head, compare) = match *known {
                Some((head, modified)) => (head, Compare::Modified(HEAD.to_owned(), modified)),
                None => match self.store.get(HEAD).await? {
                    Some(entry) => {
                        (decode(&entry)?, Compare::Modified(HEAD.to_owned(), entry.modified))
                    }
                    None => (Head { next: 1 }, Compare::Absent(HEAD.to_owned())),
                },
            };
            let seq = head.next;
            let next = Head { next: seq + 1 };
            let mut ops = vec![
                Op::put(HEAD, encode(&next)?),
                Op::put(key(seq), encode(&view_of(deed, seq, at))?),
            ];
            if let Some(old) = seq.checked_sub(RECORDS_MAX) {
                ops.push(Op::Delete(key(old)));
            }
            // An error leaves open what the head is now.
            *known = None;
            match self.store.commit(Txn { compares: vec![compare], ops }).await? {
                Outcome::Done(revision) => {
                    *known = Some((next, revision));
                    return Ok(seq);
                }
                Outcome::Refused => {} // another controller wrote one: read the head again
            }
        }
        Err(contended(HEAD))
    }

    /// Writes a refusal of somebody without an identity, unless there were too many of these
    /// lately.
    pub async fn record_stranger(&self, deed: &Deed<'_>, at: Timestamp) -> Result<(), StoreError> {
        let allowed = match self.strangers.lock() {
            Ok(mut strangers) => strangers.allow(at),
            // A panic elsewhere must not open the log to floods.
            Err(_) => Verdict::Drop,
        };
        match allowed {
            Verdict::Record { missed: 0 } => self.record(deed, at).await.map(|_| ()),
            Verdict::Record { missed } => {
                let message = format!("{} (and {missed} more before, not recorded)", deed.message);
                let message = message.trim_start();
                self.record(&Deed { message, ..*deed }, at).await.map(|_| ())
            }
            Verdict::Drop => Ok(()),
        }
    }

    /// The records after number `after`, in order, at most `limit` and [`LIST_MAX`].
    pub async fn list(&self, after: u64, limit: usize) -> Result<Vec<AuditView>, StoreError> {
        let (entries, _) = self.store.scan(PREFIX, &key(after), limit.min(LIST_MAX)).await?;
        entries.iter().map(decode).collect()
    }

    /// The newest `limit` records, in order.
    pub async fn last(&self, limit: usize) -> Result<Vec<AuditView>, StoreError> {
        let limit = limit.min(LIST_MAX);
        let Some(entry) = self.store.get(HEAD).await? else { return Ok(Vec::new()) };
        let head: Head = decode(&entry)?;
        let span = u64::try_from(limit).unwrap_or(u64::MAX);
        self.list(head.next.saturating_sub(1).saturating_sub(span), limit).await
    }
}

fn key(seq: u64) -> String {
    format!("{PREFIX}{seq:020}")
}

fn view_of(deed: &Deed<'_>, seq: u64, at: Timestamp) -> AuditView {
    let result = match deed.result {
        Ok(()) => "done".to_owned(),
        Err(why) => format!("refused: {}", one_line(why)),
    };
    AuditView {
        seq,
        at: rfc3339(at),
        who: one_line(deed.who),
        peer: one_line(deed.peer),
        what: one_line(deed.what),
        target: one_line(deed.target),
        message: one_line(deed.message),
        result,
    }
}

/// At most [`TEXT_MAX`] bytes, and no line breaks or escapes that would forge other lines on a
/// terminal.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > TEXT_MAX {
            line.push('…');
            break;
        }
        line.push(c);
    }
    line
}

/// Counts what strangers cause in the current window.
#[derive(Debug, Default)]
struct Strangers {
    window_began: Timestamp,
    recorded: u32,
    missed: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Record { missed: u64 },
    Drop,
}

impl Strangers {
    fn allow(&mut self, at: Timestamp) -> Verdict {
        let window = Span(u64::try_from(STRANGERS_WINDOW.as_millis()).unwrap_or(u64::MAX));
        if at.since(self.window_began) >= window {
            (self.window_began, self.recorded) = (at, 0);
        }
        if self.recorded >= STRANGERS_MAX {
            self.missed += 1;
            return Verdict::Drop;
        }
        self.recorded += 1;
        Verdict::Record { missed: std::mem::take(&mut self.missed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::memory::Memory;

    fn deed<'a>(what: &'a str, result: Result<(), &'a str>) -> Deed<'a> {
        Deed { who: "operator alice", peer: "-", what, target: "web-01", message: "why", result }
    }

    #[tokio::test]
    async fn records_are_numbered_listed_and_kept_apart_between_controllers() {
        let store = Arc::new(Memory::default());
        let (one, two) = (Audit::new(store.clone()), Audit::new(store.clone()));
        for n in 0..6 {
            let audit = if n % 2 == 0 { &one } else { &two };
            let result = if n == 5 { Err("no\nright") } else { Ok(()) };
            let seq = audit.record(&deed("node drain", result), Timestamp(n)).await.unwrap();
            assert_eq!(seq, n + 1);
        }
        let list = one.list(0, 10).await.unwrap();
        assert_eq!(list.iter().map(|line| line.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(list[0].result, "done");
        assert_eq!(list[5].result, "refused: no right");
        assert_eq!(list[5].at, "1970-01-01T00:00:00.005Z");
        let seqs = |list: Vec<AuditView>| list.iter().map(|line| line.seq).collect::<Vec<_>>();
        assert_eq!(seqs(one.list(4, 10).await.unwrap()), [5, 6]);
        assert_eq!(seqs(one.list(1, 2).await.unwrap()), [2, 3]);
        assert_eq!(seqs(one.last(2).await.unwrap()), [5, 6]);
        assert_eq!(seqs(one.last(100).await.unwrap()).len(), 6);
    }

    #[tokio::test]
    async fn strangers_cannot_fill_the_log() {
        let audit = Audit::new(Arc::new(Memory::default()));
        let refused = deed("enrol", Err("not known"));
        let window = u64::try_from(STRANGERS_WINDOW.as_millis()).unwrap();
        for _ in 0..STRANGERS_MAX + 50 {
            audit.record_stranger(&refused, Timestamp(window)).await.unwrap();
        }
        let count = audit.list(0, LIST_MAX).await.unwrap().len();
        assert_eq!(count, usize::try_from(STRANGERS_MAX).unwrap());
        audit.record_stranger(&refused, Timestamp(2 * window)).await.unwrap();
        let last = audit.last(1).await.unwrap().remove(0);
        assert_eq!(last.message, "why (and 50 more before, not recorded)");
    }

    #[test]
    fn texts_are_one_short_line() {
        for (text, right) in [("a\nb\x1b[2Jc", "a b [2Jc"), ("", "")] {
            assert_eq!(one_line(text), right);
        }
        assert!(one_line(&"ä".repeat(5000)).len() <= TEXT_MAX + '…'.len_utf8());
    }
}
