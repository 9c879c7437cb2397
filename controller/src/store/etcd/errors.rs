//! What an answer of etcd that is not the expected one means: did it happen, and what is the way out?

use std::error::Error;

use tonic::{Code, Status};

use super::StoreError;
use super::config::{EtcdConfig, Trust};
use super::dial::NotReached;

/// What to do about it.
#[derive(Debug)]
pub(super) enum Sort {
    /// Nothing happened, and another member may do it.
    Elsewhere(String),
    /// Nothing happened: the token has ended.
    TokenEnded,
    /// Nothing happened, and no member would do it.
    No(Status),
    /// It may have happened.
    Doubt(String),
}

/// Why a call has no good answer, after every member was tried.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing happened; etcd says no.
    No(Status),
    /// Nothing happened; nobody answered.
    Away(String),
    /// The answer was lost.
    Lost(String),
}

/// What etcd says, by its words: the codes of gRPC are too few to tell whether something happened.
pub(super) fn sort(status: Status) -> Sort {
    let said = status.message();
    if let Some(why) = not_reached(&status) {
        return Sort::Elsewhere(why);
    }
    let is = |words: &[&str]| words.iter().any(|word| said.contains(word));
    // Said before anything was proposed to the members, or where it was dropped at once.
    if is(&["etcdserver: no leader", "too many requests", "proposal dropped", "for learner"]) {
        return Sort::Elsewhere(said.to_owned());
    }
    if is(&["invalid auth token", "revision of auth store is old", "revision in header is old"]) {
        return Sort::TokenEnded;
    }
    match status.code() {
        Code::Unavailable
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss => Sort::Doubt(chain(&status)),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Sort::No(status),
    }
}

/// The connection could not even be made.
fn not_reached(status: &Status) -> Option<String> {
    let mut next = status.source();
    while let Some(cause) = next {
        if let Some(ours) = cause.downcast_ref::<NotReached>() {
            return Some(ours.to_string());
        }
        if let Some(connect) = cause.downcast_ref::<tonic::ConnectError>() {
            let inner: &(dyn Error + 'static) = &*connect.0;
            return Some(chain(inner));
        }
        next = cause.source();
    }
    None
}

impl Failure {
    /// The store's error for a deed.
    pub(super) fn explain(self, deed: &str) -> StoreError {
        match self {
            Self::No(status) => refused(deed, &status),
            Self::Away(why) => StoreError::Unavailable(format!("cannot {deed}: {why}")),
            Self::Lost(why) => StoreError::Unknown(format!("cannot tell whether to {deed}: {why}")),
        }
    }

    /// As [`Self::explain`], for what changes nothing.
    pub(super) fn unread(self, deed: &str) -> StoreError {
        match self {
            Self::No(status) => refused(deed, &status),
            Self::Away(why) | Self::Lost(why) => {
                StoreError::Unavailable(format!("cannot {deed}: {why}"))
            }
        }
    }
}

fn refused(deed: &str, status: &Status) -> StoreError {
    let said = status.message();
    let ways = [
        (
            "database space exceeded",
            "etcd has reached its quota: compact and defragment it, then `etcdctl alarm disarm`",
        ),
        (
            "permission denied",
            "the user (without `user=`, the common name of the certificate) needs readwrite on \
             every key below the prefix",
        ),
        ("user name is empty", "etcd asks for a user: add `user=NAME` to its URL"),
        ("invalid user ID or password", "the user or the password is wrong"),
        ("authentication is not enabled", "etcd knows no users: leave `user=` out of its URL"),
        ("request is too large", "raise etcd's --max-request-bytes to its default again: 1572864"),
        ("too many operations", "raise etcd's --max-txn-ops to its default again: 128"),
    ];
    let way = ways.iter().find(|(words, _)| said.contains(words)).map(|(_, way)| *way);
    StoreError::Unavailable(match way {
        Some(way) => format!("cannot {deed}: {said}; {way}"),
        None => format!("cannot {deed}: {:?}: {said}", status.code()),
    })
}

/// The error of a first contact: names the etcd, and what may be wrong about the way in.
pub(super) fn first(config: &EtcdConfig, why: StoreError) -> StoreError {
    let told = |why: String| {
        let is = |words: &[&str]| words.iter().any(|word| why.contains(word));
        let closed =
            is(&["connection closed", "BadCertificate", "CertificateRequired", "broken pipe"])
                || is(&["connection reset", "http2 error", "h2 protocol error"]);
        let way = match (&config.trust, &config.certificate) {
            (Trust::Plain, _) if closed => "; etcd may ask for TLS: add `ca=FILE` to its URL",
            (Trust::System | Trust::File(_), None) if closed => {
                "; etcd may ask for a certificate: add `cert=FILE&key=FILE` to its URL"
            }
            (Trust::System | Trust::File(_), _) if is(&["InvalidContentType", "handshake eof"]) => {
                "; etcd has no TLS there: leave `ca` out of its URL"
            }
            (Trust::Plain | Trust::System | Trust::File(_), _) => "",
        };
        format!("{config}: {why}{way}")
    };
    match why {
        StoreError::Unavailable(why) => StoreError::Unavailable(told(why)),
        StoreError::Unknown(why) => StoreError::Unknown(told(why)),
        StoreError::Corrupt(what) => StoreError::Corrupt(told(what)),
    }
}

/// An error with its causes, without saying the same twice.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.contains(&text) {
            told = if told.is_empty() { text } else { format!("{told}: {text}") };
        }
        next = cause.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_told_apart() {
        for (code, said, right) in [
            (Code::Unavailable, "etcdserver: no leader", "elsewhere"),
            (Code::ResourceExhausted, "etcdserver: too many requests", "elsewhere"),
            (Code::Unknown, "raft proposal dropped", "elsewhere"),
            (Code::Unavailable, "etcdserver: request timed out", "doubt"),
            (Code::Unavailable, "etcdserver: leader changed", "doubt"),
            (Code::Unavailable, "transport is closing", "doubt"),
            (Code::Cancelled, "", "doubt"),
            (Code::Unauthenticated, "etcdserver: invalid auth token", "token"),
            (Code::PermissionDenied, "etcdserver: permission denied", "no"),
            (Code::InvalidArgument, "etcdserver: request is too large", "no"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "no"),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", "no"),
        ] {
            let sorted = match sort(Status::new(code, said)) {
                Sort::Elsewhere(_) => "elsewhere",
                Sort::TokenEnded => "token",
                Sort::No(_) => "no",
                Sort::Doubt(_) => "doubt",
            };
            assert_eq!(sorted, right, "{code:?} {said}");
        }
    }

    #[test]
    fn every_no_has_its_way_out() {
        for (said, way) in [
            ("etcdserver: mvcc: database space exceeded", "alarm disarm"),
            ("etcdserver: permission denied", "readwrite on every key"),
            ("etcdserver: user name is empty", "add `user=NAME`"),
            ("etcdserver: authentication is not enabled", "leave `user=` out"),
        ] {
            let told = Failure::No(Status::unknown(said)).explain("commit").to_string();
            assert!(told.contains("cannot commit") && told.contains(way), "{told}");
        }
    }
}
