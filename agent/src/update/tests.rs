//! Rows and transcripts of the machine.
