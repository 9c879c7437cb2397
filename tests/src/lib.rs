//! Proofs of the whole: what the demo and the end-to-end tests share.

pub mod farm;
pub mod load;
