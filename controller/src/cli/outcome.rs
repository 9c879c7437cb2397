//! How a command ends: one of eight exit codes, and an error that says what happened, what stands
//! now, and what to do.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

pub use crate::errors::chain;
use crate::view::ErrorView;

/// The exit codes of the contract; scripts are written against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Refused, or an internal error.
    Refused = 1,
    /// A mistake in the command line or the manifest.
    Usage = 2,
    /// The rollout failed, is held or was aborted.
    Stopped = 3,
    /// The rollout took its nodes back.
    RolledBack = 4,
    /// No controller could be reached.
    Unreachable = 5,
    /// The caller's role does not allow it.
    NotPermitted = 6,
    /// Ctrl-C: the rollout goes on, and how it ends is not known here. As shells count SIGINT, so that
    /// `rota deploy && next` does not go on as if it had completed.
    Detached = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The code for an error of this kind; kinds of a newer controller count as refusals.
    pub fn of_kind(kind: &str) -> Self {
        match kind {
            "usage" | "manifest" => Self::Usage,
            "unreachable" => Self::Unreachable,
            "not_permitted" => Self::NotPermitted,
            _ => Self::Refused,
        }
    }
}

/// Why a command did not end with [`Exit::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its exit code.
    pub exit: Exit,
    /// As in [`ErrorView`], or the state that a rollout stopped in.
    pub kind: String,
    /// What is wrong, with the name of the thing.
    pub message: String,
    /// What stands now, a line each.
    pub stands: Vec<String>,
    /// What to do; may be empty.
    pub hint: String,
    /// What people see in place of all that, where somebody has drawn a better picture.
    pub picture: Option<Box<str>>,
}

impl Failure {
    /// A failure of one of [`ErrorView`]'s kinds, which determines the exit code.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self {
            exit: Exit::of_kind(kind),
            kind: kind.to_owned(),
            message: message.into(),
            stands: Vec::new(),
            hint: String::new(),
            picture: None,
        }
    }

    /// The command line or a file that it names is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message)
    }

    /// Something that should have worked did not; keeps the whole chain of causes.
    pub fn internal(deed: &str, cause: &dyn Error) -> Self {
        Self::new("internal", format!("{deed}: {}", chain(cause)))
    }

    /// The same, with a way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same, with what stands now.
    pub fn stands(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.stands.extend(lines);
        self
    }

    /// For people: `error:`, what stands now, `hint:`.
    pub fn in_words(&self) -> String {
        if let Some(picture) = &self.picture {
            return picture.to_string();
        }
        let mut text = format!("error: {}\n", self.message);
        for line in &self.stands {
            text.push_str(if line.is_empty() { "" } else { "  " });
            text.push_str(line);
            text.push('\n');
        }
        if !self.hint.is_empty() {
            writeln!(text, "hint: {}", self.hint).expect("strings take everything");
        }
        text
    }

    /// For programs: one line of JSON.
    pub fn in_json(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            kind: &'a str,
            message: &'a str,
            hint: &'a str,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            details: &'a [String],
        }
        let Self { kind, message, hint, stands, .. } = self;
        let error = Body { kind, message, hint, details: stands };
        let mut text = serde_json::to_string(&Document { error })
            .unwrap_or_else(|_| r#"{"error":{"kind":"internal","message":"","hint":""}}"#.into());
        text.push('\n');
        text
    }
}

impl From<ErrorView> for Failure {
    fn from(error: ErrorView) -> Self {
        Self::new(&error.kind, error.message).hint(error.hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        for (kind, code) in [
            ("usage", 2),
            ("manifest", 2),
            ("refused", 1),
            ("not_found", 1),
            ("unreachable", 5),
            ("not_permitted", 6),
            ("store", 1),
            ("internal", 1),
            ("of a newer controller", 1),
        ] {
            assert_eq!(Failure::new(kind, "").exit as u8, code, "{kind}");
        }
        assert_eq!(Exit::Done as u8, 0);
        assert_eq!(Exit::Stopped as u8, 3);
        assert_eq!(Exit::RolledBack as u8, 4);
    }

    #[test]
    fn words() {
        let failure = Failure::new("refused", "node web-9 is not known")
            .stands(["nothing was changed".to_owned()])
            .hint("`rota node ls` shows all nodes");
        assert_eq!(
            failure.in_words(),
            "error: node web-9 is not known\n  nothing was changed\n\
             hint: `rota node ls` shows all nodes\n"
        );
        assert_eq!(Failure::new("store", "x").in_words(), "error: x\n");
    }

    #[test]
    fn json() {
        let plain = Failure::new("not_found", "no \"x\"").hint("look");
        assert_eq!(
            plain.in_json(),
            "{\"error\":{\"kind\":\"not_found\",\"message\":\"no \\\"x\\\"\",\"hint\":\"look\"}}\n"
        );
        let view: serde_json::Value =
            serde_json::from_str(&plain.stands(["a".to_owned()]).in_json()).unwrap();
        assert_eq!(view["error"]["details"][0], "a");
        assert_eq!(view["error"]["hint"], "look");
    }
}
