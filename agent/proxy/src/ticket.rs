//! A ticket stands for one exchange in flight at a member. It can be cut from outside.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A member, as long as this process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId(pub(crate) u64);

/// The n-th time that a member joined. What began in an earlier stay is not used in a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay(pub(crate) u64);

/// One exchange in flight. The pool lists it; the exchange holds it, and is woken when it is cut.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) member: MemberId,
    pub(crate) stay: Stay,
    /// Where the pool's list has it; only changed under the pool's lock.
    pub(crate) place: AtomicUsize,
    cut: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// The exchange was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the member was taken out of traffic before the exchange ended")]
pub struct Cut;

impl Ticket {
    pub(crate) fn new(member: MemberId, stay: Stay, place: usize) -> Self {
        Self {
            member,
            stay,
            place: AtomicUsize::new(place),
            cut: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    /// Which member has it.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// Ends the exchange; true the first time.
    pub(crate) fn cut(&self) -> bool {
        if self.cut.swap(true, Ordering::AcqRel) {
            return false;
        }
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Is it cut? If not, the task is woken when it is.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Cut> {
        if self.cut.load(Ordering::Acquire) {
            return Poll::Ready(Cut);
        }
        {
            let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *waker {
                Some(known) => known.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        // It may have been cut while the waker was written down.
        if self.cut.load(Ordering::Acquire) { Poll::Ready(Cut) } else { Poll::Pending }
    }

    /// Runs `work` until it ends or the ticket is cut, whichever is first.
    pub async fn guard<F: Future>(&self, work: F) -> Result<F::Output, Cut> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_cut(cx).map(Err),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_cut_ends_the_work_and_counts_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let ticket = Arc::new(Ticket::new(MemberId(1), Stay(1), 0));
            let working = tokio::spawn({
                let ticket = ticket.clone();
                async move { ticket.guard(std::future::pending::<()>()).await }
            });
            tokio::task::yield_now().await;
            assert!(ticket.cut());
            assert!(!ticket.cut(), "a second cut is no second count");
            assert_eq!(working.await.unwrap(), Err(Cut));
            assert_eq!(ticket.guard(async { 7 }).await, Ok(7), "work that ended is not cut");
        });
    }
}
