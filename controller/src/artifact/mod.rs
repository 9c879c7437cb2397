//! Artifacts: the files of a release, packed into one archive whose digest names them.

mod contents;
pub mod download;
mod error;
mod listing;
pub mod pack;
pub mod peers;
pub mod store;
#[cfg(test)]
mod tests;
mod tree;

pub use listing::{Listing, compare, list};
pub use pack::{Format, PackError, Packed, check, inspect, pack};

/// The format of a release whose image stays in its registry.
pub const IMAGE: &str = "image";
