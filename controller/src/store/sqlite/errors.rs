//! Says what SQLite's errors mean for an operator, and what to do about them.

use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use super::StoreError;

/// The store's error for a deed at the database that SQLite could not do.
pub(super) fn explain(path: &Path, deed: &str, cause: &Error) -> StoreError {
    let place = path.display();
    let code = cause.sqlite_error_code();
    if matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) {
        return StoreError::Corrupt(format!(
            "cannot {deed}: {place} is damaged or not a database: {cause}; put a backup back"
        ));
    }
    let way_out = match code {
        Some(ErrorCode::DiskFull) => {
            "the disk is full or the database has reached its limit; free space, then it goes on"
        }
        Some(ErrorCode::SystemIoFailure) => "look at the disk and at the system's log",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "the controller's user must own the file and its folder"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it locked; end that program's transaction"
        }
        _ => "nothing was changed",
    };
    StoreError::Unavailable(format!("cannot {deed} in {place}: {cause}; {way_out}"))
}

/// Did the disk refuse to confirm what was written? Then nobody knows what it holds, and the kernel
/// may have dropped the pages: only a fresh start that reads the file again may go on.
pub(super) fn is_unconfirmed(cause: &Error) -> bool {
    matches!(cause, Error::SqliteFailure(failure, _) if matches!(
        failure.extended_code,
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_way_out() {
        for (code, text) in [
            (ffi::SQLITE_FULL, "free space"),
            (ffi::SQLITE_IOERR_WRITE, "look at the disk"),
            (ffi::SQLITE_READONLY, "must own the file"),
            (ffi::SQLITE_BUSY, "another program"),
            (ffi::SQLITE_CORRUPT, "put a backup back"),
            (ffi::SQLITE_NOTADB, "put a backup back"),
            (ffi::SQLITE_CONSTRAINT, "nothing was changed"),
        ] {
            let cause = Error::SqliteFailure(ffi::Error::new(code), None);
            let told = explain(Path::new("/data/rota.db"), "commit", &cause).to_string();
            assert!(told.contains("/data/rota.db") && told.contains("cannot commit"), "{told}");
            assert!(told.contains(text), "{code}: {told}");
        }
    }

    #[test]
    fn only_a_failed_sync_leaves_doubt() {
        for (code, doubt) in [
            (ffi::SQLITE_IOERR_FSYNC, true),
            (ffi::SQLITE_IOERR_DIR_FSYNC, true),
            (ffi::SQLITE_IOERR_WRITE, false),
            (ffi::SQLITE_FULL, false),
        ] {
            let cause = Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(is_unconfirmed(&cause), doubt, "{code}");
        }
    }
}
