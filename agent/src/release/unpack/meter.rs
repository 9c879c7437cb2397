//! Counts what goes into the decoder and what comes out, hashes the one and limits the other.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::{Limits, Rule};
use crate::journal::hex;
use crate::spec::Format;

/// The artifact as it is read, and the account of it.
pub(super) struct Meter {
    artifact: File,
    hasher: Sha256,
    packed: u64,
    unpacked: u64,
    /// Bytes that may still come out before the next entry's content; `None` while content is read.
    header_left: Option<u64>,
    is_packed: bool,
    limits: Limits,
    broken: Option<Rule>,
}

impl Meter {
    pub(super) fn new(artifact: File, format: Format, limits: &Limits) -> Meter {
        Meter {
            artifact,
            hasher: Sha256::new(),
            packed: 0,
            unpacked: 0,
            header_left: None,
            is_packed: format != Format::Tar,
            limits: *limits,
            broken: None,
        }
    }

    fn count(&mut self, bytes: u64) -> Option<Rule> {
        let limits = &self.limits;
        self.unpacked = self.unpacked.saturating_add(bytes);
        if let Some(left) = &mut self.header_left {
            let Some(less) = left.checked_sub(bytes) else {
                return Some(Rule::Headers(limits.header_bytes));
            };
            *left = less;
        }
        if self.unpacked > limits.unpacked_bytes {
            return Some(Rule::Bytes(limits.unpacked_bytes));
        }
        let large = self.is_packed && self.unpacked > limits.ratio_from_bytes;
        if large && self.unpacked / limits.ratio > self.packed {
            return Some(Rule::Ratio(limits.ratio));
        }
        None
    }
}

/// One meter, seen from both ends of the decoder.
#[derive(Clone)]
pub(super) struct Shared(Rc<RefCell<Meter>>);

impl Shared {
    pub(super) fn new(meter: Meter) -> Shared {
        Shared(Rc::new(RefCell::new(meter)))
    }

    /// The rule that was broken, if one was.
    pub(super) fn broken(&self) -> Option<Rule> {
        self.0.borrow().broken.clone()
    }

    /// From now on names and attributes are read, which the tar reader holds in memory.
    pub(super) fn begin_header(&self) {
        let mut meter = self.0.borrow_mut();
        meter.header_left = Some(meter.limits.header_bytes);
    }

    /// From now on an entry's content is read.
    pub(super) fn begin_content(&self) {
        self.0.borrow_mut().header_left = None;
    }

    /// Counts bytes that came out, or that a sparse file's holes stand for.
    pub(super) fn count(&self, bytes: u64) -> io::Result<()> {
        let mut meter = self.0.borrow_mut();
        match meter.count(bytes) {
            None => Ok(()),
            Some(rule) => {
                let error = io::Error::other(rule.to_string());
                meter.broken = Some(rule);
                Err(error)
            }
        }
    }

    /// Reads what the decoder did not need, and says the digest of everything.
    pub(super) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hex(&self.0.borrow().hasher.clone().finalize()))
    }
}

impl Read for Shared {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut meter = self.0.borrow_mut();
        let read = meter.artifact.read(into)?;
        meter.hasher.update(&into[..read]);
        meter.packed += read as u64;
        Ok(read)
    }
}

/// The unpacked stream, within its limits.
pub(super) struct Budgeted<R> {
    stream: R,
    meter: Shared,
}

impl<R> Budgeted<R> {
    pub(super) fn new(stream: R, meter: Shared) -> Budgeted<R> {
        Budgeted { stream, meter }
    }
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(into)?;
        self.meter.count(read as u64)?;
        Ok(read)
    }
}
