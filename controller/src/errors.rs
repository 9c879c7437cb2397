//! One shape for every error that leaves the controller: the JSON of the public contract inside a
//! gRPC status.
//!
//! [`status`] packs an [`ErrorView`], [`view`] unpacks it at the other end, also from errors that
//! never were ours (a cut connection, a foreign server), so that the CLI prints and exits by one
//! type.

use rota_identity::reason;
use tonic::{Code, Status};

use crate::store::StoreError;
use crate::view::ErrorView;

/// What sort of error it is; decides the gRPC code and the CLI's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A wrong command line or request.
    Usage,
    /// A manifest that cannot be used.
    Manifest,
    /// Understood, and not done.
    Refused,
    /// No such thing.
    NotFound,
    /// No controller answers.
    Unreachable,
    /// The caller may not, or is nobody.
    NotPermitted,
    /// The store does not answer.
    Store,
    /// A fault of ours.
    Internal,
}

impl Sort {
    const ALL: [Self; 8] = [
        Self::Usage,
        Self::Manifest,
        Self::Refused,
        Self::NotFound,
        Self::Unreachable,
        Self::NotPermitted,
        Self::Store,
        Self::Internal,
    ];

    /// As [`ErrorView::kind`] says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Manifest => "manifest",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::NotPermitted => "not_permitted",
            Self::Store => "store",
            Self::Internal => "internal",
        }
    }

    /// The sort of an [`ErrorView::kind`]; one that a newer controller invented counts as internal.
    pub fn of(kind: &str) -> Self {
        Self::ALL.into_iter().find(|sort| sort.as_str() == kind).unwrap_or(Self::Internal)
    }

    /// An error of this sort.
    pub fn error(self, message: impl Into<String>, hint: impl Into<String>) -> ErrorView {
        ErrorView { kind: self.as_str().to_owned(), message: message.into(), hint: hint.into() }
    }

    fn code(self) -> Code {
        match self {
            Self::Usage | Self::Manifest => Code::InvalidArgument,
            Self::Refused => Code::FailedPrecondition,
            Self::NotFound => Code::NotFound,
            Self::Unreachable | Self::Store => Code::Unavailable,
            Self::NotPermitted => Code::PermissionDenied,
            Self::Internal => Code::Internal,
        }
    }
}

/// The most bytes of details in a status: headers of HTTP/2 are limited (16 KiB with tonic), and
/// base64 adds a third.
const DETAILS_MAX: usize = 8 * 1024;

/// An error on its way out.
pub fn status(error: ErrorView) -> Status {
    with_code(Sort::of(&error.kind).code(), error)
}

/// As [`status`], for callers who have not shown who they are.
pub fn unauthenticated(error: ErrorView) -> Status {
    with_code(Code::Unauthenticated, error)
}

fn with_code(code: Code, mut error: ErrorView) -> Status {
    clip(&mut error.message, DETAILS_MAX / 4);
    clip(&mut error.hint, DETAILS_MAX / 4);
    match serde_json::to_vec(&error) {
        Ok(details) => Status::with_details(code, error.message, details.into()),
        // Three strings always become JSON; the message alone would still be of use.
        Err(_) => Status::new(code, error.message),
    }
}

fn clip(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// The error in a status, whoever made it.
pub fn view(status: &Status) -> ErrorView {
    if let Ok(error) = serde_json::from_slice(status.details()) {
        return error;
    }
    let sort = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Sort::Usage,
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Sort::Refused,
        Code::NotFound => Sort::NotFound,
        Code::Unauthenticated | Code::PermissionDenied => Sort::NotPermitted,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            Sort::Unreachable
        }
        _ => Sort::Internal,
    };
    let message = reason(status).unwrap_or_else(|| status.message().to_owned());
    sort.error(message, "")
}

impl From<StoreError> for ErrorView {
    fn from(error: StoreError) -> Self {
        let hint = match &error {
            StoreError::Unavailable(_) => "nothing was changed; try again when the store is back",
            StoreError::Unknown(_) => "look whether it happened before trying again",
            StoreError::Corrupt(_) => {
                "upgrade, where `rota controller ls` shows newer ones; else restore a backup"
            }
        };
        Sort::Store.error(error.to_string(), hint)
    }
}

/// An error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_name_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open x")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("disk full"))), "cannot open x: disk full");
    }

    #[test]
    fn there_and_back() {
        for sort in Sort::ALL {
            let error = sort.error("rollout web/prod/7 is held", "`rota rollout resume`");
            assert_eq!(view(&status(error.clone())), error);
            assert_eq!(view(&unauthenticated(error.clone())), error);
            assert_eq!(Sort::of(sort.as_str()), sort);
        }
    }

    #[test]
    fn errors_of_others() {
        for (code, kind) in [
            (Code::Unknown, "unreachable"),
            (Code::Unavailable, "unreachable"),
            (Code::PermissionDenied, "not_permitted"),
            (Code::Unimplemented, "internal"),
        ] {
            let got = view(&Status::new(code, "text"));
            assert_eq!((got.kind.as_str(), got.message.as_str()), (kind, "text"));
        }
    }

    #[test]
    fn long_errors_fit_into_headers() {
        let error = Sort::Manifest.error("ä".repeat(20_000), "x".repeat(20_000));
        let status = status(error);
        assert!(status.details().len() <= DETAILS_MAX, "{}", status.details().len());
        assert!(view(&status).message.ends_with('…'));
    }
}
