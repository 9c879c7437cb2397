//! The store while things break: real etcd members that are killed, frozen and cut off, and processes that die while
//! they write. Skipped, loudly, where there is no etcd.
#![expect(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod history;
mod members;
mod moving;
mod processes;
mod secured;
mod writers;
