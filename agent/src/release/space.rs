//! Is there room for a release? Asked before anything is written, so that a full disk fails early
//! and with numbers.

use std::path::Path;

use super::error::{ReleaseError, at};
use crate::spec::{Format, Spec};

/// What a compressed artifact may grow to, typically: programs and text are 3 to 5 times smaller
/// when packed.
const UNPACKED_PER_PACKED: u64 = 5;

/// Refuses when fewer bytes are free than the unpacked release and `reserve` take.
pub(super) fn check(root: &Path, spec: &Spec, reserve: u64) -> Result<(), ReleaseError> {
    let disk =
        rustix::fs::statvfs(root).map_err(|errno| at("ask for room in", root)(errno.into()))?;
    let have = disk.f_bavail.saturating_mul(disk.f_frsize);
    let need = needed(spec, reserve);
    if have < need {
        let (app, version) = (spec.app.clone(), spec.version.clone());
        return Err(ReleaseError::NoSpace { app, version, root: root.into(), have, need });
    }
    Ok(())
}

fn needed(spec: &Spec, reserve: u64) -> u64 {
    let factor = match spec.format {
        Format::Tar => 1,
        Format::TarGz | Format::TarZst => UNPACKED_PER_PACKED,
    };
    spec.size.saturating_mul(factor).saturating_add(reserve)
}
