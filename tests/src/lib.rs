//! What the end-to-end tests and the demo share: a fleet of real processes, and load on it.

pub mod etcd;
pub mod farm;
pub mod hosts;
pub mod load;
pub mod moments;
pub mod pages;
pub mod processes;

/// Why the fleet does not do what it should.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;
