//! What the tests and the demo share: a fleet of real processes, load on it, a sample release.

pub mod etcd;
pub mod farm;
pub mod hosts;
pub mod load;
pub mod moments;
pub mod pages;
pub mod processes;
pub mod relay;
pub mod sample;
pub mod several;
pub mod takeover;

/// Why the fleet does not do what it should.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;
