//! Proofs of the whole.
