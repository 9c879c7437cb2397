//! Who may do what: one table, and a refusal for everything that is not in it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::SystemTime;

use rota_identity::{Identity, Kind};
use serde::{Deserialize, Serialize};

use crate::errors::Sort;
use crate::view::ErrorView;

/// What an operator was made. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything.
    Viewer,
    /// Moves apps.
    Deployer,
    /// Invites, removes and freezes.
    Admin,
}

impl Role {
    /// All of them, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Deployer, Self::Admin];

    /// As the command line writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ErrorView;
    fn from_str(text: &str) -> Result<Self, ErrorView> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            Sort::Usage.error(format!("`{text}` is not a role"), "use viewer, deployer or admin")
        })
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Any document of the fleet. A list over all environments needs no environment here, but must
    /// leave out what the caller does not see ([`Caller::sees`]).
    Read,
    /// The audit log.
    ReadAudit,
    /// Uploads and releases, which do nothing until they are rolled out.
    PushRelease,
    /// What a rollout would do.
    Plan,
    /// Deploy, undo, restart.
    StartRollout,
    /// Pause, resume, promote, abort, rollback, retry, skip.
    ActOnRollout,
    /// Drain and undrain a node.
    DrainNode,
    /// Change a node's labels.
    LabelNode,
    /// Remove a node or an edge, and revoke it.
    RemoveNode,
    /// Freeze and unfreeze an environment, add and remove its windows.
    Freeze,
    /// Start or steer a rollout although the environment is frozen or its windows are closed.
    BreakGlass,
    /// Create, list and remove tokens.
    Tokens,
    /// Remove a release.
    RemoveRelease,
    /// Drain and undrain a controller.
    DrainController,
    /// Forget a lost controller, and revoke it.
    RemoveController,
}

/// Where an action has its effect.
enum Reach {
    /// It belongs to no environment and harms none: a role that holds in one environment is enough.
    /// When an environment is named, the role must hold there.
    Anywhere,
    /// In the environment that must be named.
    Environment,
    /// In all of them: only a role that holds everywhere is enough.
    Fleet,
}

/// The table.
fn needs(action: Action) -> (Role, Reach) {
    match action {
        Action::Read => (Role::Viewer, Reach::Anywhere),
        Action::ReadAudit => (Role::Viewer, Reach::Fleet),
        Action::PushRelease => (Role::Deployer, Reach::Anywhere),
        Action::Plan => (Role::Viewer, Reach::Environment),
        Action::StartRollout => (Role::Deployer, Reach::Environment),
        Action::ActOnRollout => (Role::Deployer, Reach::Environment),
        Action::DrainNode => (Role::Deployer, Reach::Environment),
        Action::LabelNode => (Role::Admin, Reach::Environment),
        Action::RemoveNode => (Role::Admin, Reach::Environment),
        Action::Freeze | Action::BreakGlass => (Role::Admin, Reach::Environment),
        Action::Tokens => (Role::Admin, Reach::Fleet),
        Action::RemoveRelease => (Role::Admin, Reach::Fleet),
        Action::DrainController | Action::RemoveController => (Role::Admin, Reach::Fleet),
    }
}

impl Action {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 15] = [
        Self::Read,
        Self::ReadAudit,
        Self::Plan,
        Self::PushRelease,
        Self::StartRollout,
        Self::ActOnRollout,
        Self::DrainNode,
        Self::LabelNode,
        Self::RemoveNode,
        Self::Freeze,
        Self::BreakGlass,
        Self::Tokens,
        Self::RemoveRelease,
        Self::DrainController,
        Self::RemoveController,
    ];

    /// The least role that may.
    #[cfg(test)]
    pub fn role(self) -> Role {
        needs(self).0
    }

    /// In words that follow "to".
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadAudit => "read the audit log",
            Self::PushRelease => "push releases",
            Self::Plan => "plan a rollout",
            Self::StartRollout => "start a rollout",
            Self::ActOnRollout => "steer a rollout",
            Self::DrainNode => "drain a node",
            Self::LabelNode => "label a node",
            Self::RemoveNode => "remove a node",
            Self::Freeze => "freeze an environment",
            Self::BreakGlass => "break the glass",
            Self::Tokens => "manage tokens",
            Self::RemoveRelease => "remove a release",
            Self::DrainController => "drain a controller",
            Self::RemoveController => "remove a controller",
        }
    }
}

/// Somebody who calls, as far as the connection and the store know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name in the certificate.
    pub identity: Identity,
    /// An operator's role; none for everybody else.
    pub role: Option<Role>,
    /// The only environment where the role holds; none: everywhere.
    pub env: Option<String>,
    /// Another controller asks on his behalf: it decides here or nowhere.
    pub forwarded: bool,
    /// Where the call comes from.
    pub peer: Option<SocketAddr>,
    /// The number of the certificate.
    pub serial: String,
    /// The end of the certificate; a session should not outlive it.
    pub not_after: SystemTime,
}

impl Caller {
    /// May it see what belongs to this environment?
    pub fn sees(&self, env: &str) -> bool {
        self.role.is_some() && self.env.as_deref().is_none_or(|own| own == env)
    }

    /// Where the call comes from, for the audit log.
    pub fn peer_text(&self) -> String {
        self.peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string())
    }
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nodes, edges and controllers do not do what operators do.
    #[error("{who} may not {}: that is for operators", .action.in_words())]
    NotAnOperator { who: Identity, action: Action },
    /// The role is too low.
    #[error("{who} is {has}, and to {} takes {needs}", .action.in_words())]
    Role { who: Identity, action: Action, has: Role, needs: Role },
    /// The role holds elsewhere.
    #[error("{who} is {role} in {own} only, not in {env}")]
    Environment { who: Identity, role: Role, own: String, env: String },
    /// The role holds in one environment, and this concerns all.
    #[error(
        "{who} is {role} in {own} only, and to {} concerns every environment",
        .action.in_words()
    )]
    Fleet { who: Identity, role: Role, own: String, action: Action },
}

impl From<Denied> for ErrorView {
    fn from(denied: Denied) -> Self {
        let hint = match &denied {
            Denied::NotAnOperator { .. } => "use an operator's context: `rota login`".to_owned(),
            Denied::Role { who, needs, .. } => format!(
                "an admin can change that: `rota token create --for operator --role {needs} --name \
                 {}`, then `rota login` with the token",
                who.name()
            ),
            Denied::Environment { .. } | Denied::Fleet { .. } => {
                "ask somebody whose role holds everywhere".to_owned()
            }
        };
        Sort::NotPermitted.error(denied.to_string(), hint)
    }
}

/// May the caller do this there?
pub fn allow(caller: &Caller, action: Action, env: Option<&str>) -> Result<(), Denied> {
    let who = || caller.identity.clone();
    let (Kind::Operator, Some(has)) = (caller.identity.kind(), caller.role) else {
        return Err(Denied::NotAnOperator { who: who(), action });
    };
    let (needs, reach) = needs(action);
    if has < needs {
        return Err(Denied::Role { who: who(), action, has, needs });
    }
    let Some(own) = caller.env.as_deref() else { return Ok(()) };
    match (reach, env) {
        (Reach::Anywhere, None) => Ok(()),
        (Reach::Anywhere | Reach::Environment, Some(env)) if env == own => Ok(()),
        (Reach::Anywhere | Reach::Environment, Some(env)) => Err(Denied::Environment {
            who: who(),
            role: has,
            own: own.to_owned(),
            env: env.to_owned(),
        }),
        (Reach::Environment, None) | (Reach::Fleet, _) => {
            Err(Denied::Fleet { who: who(), role: has, own: own.to_owned(), action })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uri: &str, role: Option<Role>, env: Option<&str>) -> Caller {
        Caller {
            identity: uri.parse().unwrap(),
            role,
            env: env.map(str::to_owned),
            forwarded: false,
            peer: None,
            serial: "01".into(),
            not_after: SystemTime::UNIX_EPOCH,
        }
    }

    /// Each action: what viewer, deployer and admin may, everywhere; then an admin of prod, in
    /// prod, in test and with no environment named.
    #[test]
    fn the_table() {
        for (action, roles, prod_admin) in [
            (Action::Read, "yyy", "y-y"),
            (Action::ReadAudit, "yyy", "---"),
            (Action::PushRelease, "-yy", "y-y"),
            (Action::Plan, "yyy", "y--"),
            (Action::StartRollout, "-yy", "y--"),
            (Action::ActOnRollout, "-yy", "y--"),
            (Action::DrainNode, "-yy", "y--"),
            (Action::LabelNode, "--y", "y--"),
            (Action::RemoveNode, "--y", "y--"),
            (Action::Freeze, "--y", "y--"),
            (Action::BreakGlass, "--y", "y--"),
            (Action::Tokens, "--y", "---"),
            (Action::RemoveRelease, "--y", "---"),
            (Action::DrainController, "--y", "---"),
            (Action::RemoveController, "--y", "---"),
        ] {
            let mark = |result: Result<(), Denied>| if result.is_ok() { 'y' } else { '-' };
            let got: String = Role::ALL
                .map(|role| caller("spiffe://rota/operator/alice", Some(role), None))
                .map(|caller| mark(allow(&caller, action, Some("prod"))))
                .iter()
                .collect();
            assert_eq!(got, roles, "{action:?}");
            let admin = caller("spiffe://rota/operator/bob", Some(Role::Admin), Some("prod"));
            let got: String = [Some("prod"), Some("test"), None]
                .map(|env| mark(allow(&admin, action, env)))
                .iter()
                .collect();
            assert_eq!(got, prod_admin, "{action:?} as admin of prod");
            for uri in
                ["spiffe://rota/node/a", "spiffe://rota/edge/a", "spiffe://rota/controller/a"]
            {
                // A role by mistake makes no operator of a node.
                assert!(allow(&caller(uri, Some(Role::Admin), None), action, None).is_err());
            }
            let stranger = caller("spiffe://rota/operator/eve", None, None);
            assert!(allow(&stranger, action, Some("prod")).is_err(), "no role, no right");
        }
    }

    #[test]
    fn refusals_say_what_would_be_needed() {
        let viewer = caller("spiffe://rota/operator/alice", Some(Role::Viewer), None);
        let denied = allow(&viewer, Action::StartRollout, Some("prod")).unwrap_err();
        let error = ErrorView::from(denied);
        assert_eq!(
            error.message,
            "operator alice is viewer, and to start a rollout takes deployer"
        );
        assert!(error.hint.contains("--role deployer --name alice"), "{}", error.hint);
        assert_eq!(error.kind, "not_permitted");
    }

    #[test]
    fn what_a_caller_sees() {
        let of = |env| caller("spiffe://rota/operator/alice", Some(Role::Viewer), env);
        assert!(of(None).sees("prod") && of(Some("prod")).sees("prod"));
        assert!(!of(Some("prod")).sees("test"));
        assert!(!caller("spiffe://rota/node/a", None, None).sees("prod"));
    }
}
