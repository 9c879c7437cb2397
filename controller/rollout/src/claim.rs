//! Who takes a rollout whose owner is gone, and to whom a controller that is drained hands what it runs.
//!
//! Every controller asks this of what it knows by itself. Two that know different things may both claim, and then the
//! store lets one of them; so this spreads the load, and the claim's compares keep it safe.

use std::fmt;

use crate::names::{AppName, ControllerName, EnvName, Span, Timestamp};

/// So long an orphan is left to the one whose turn it is. Afterwards anybody may take it who can: that one may be slow,
/// or dead, or may not know of it.
pub const GRACE: Span = Span(1_500);

/// A controller that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: ControllerName,
    /// It is being drained: it finishes what it runs and takes nothing new.
    pub draining: bool,
    /// The open rollouts that it owns.
    pub owns: usize,
    /// The most open rollouts that it takes by itself.
    pub cap: Option<usize>,
}

/// The open rollouts of one app in one environment: they have one owner, who is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The app.
    pub app: AppName,
    /// The environment.
    pub env: EnvName,
    /// How many rollouts that is.
    pub rollouts: usize,
    /// When the one who asks first saw that they have no owner.
    pub since: Timestamp,
}

/// Why nobody takes an orphan, by the controllers that are alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nobody {
    /// These are being drained.
    pub draining: Vec<ControllerName>,
    /// These own as many as they may.
    pub full: Vec<ControllerName>,
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons = Vec::new();
        for (who, one, many) in [
            (&self.draining, "is being drained", "are being drained"),
            (&self.full, "owns as many rollouts as it may", "own as many rollouts as they may"),
        ] {
            let names: Vec<&str> = who.iter().map(ControllerName::as_str).collect();
            match names.as_slice() {
                [] => {}
                [name] => reasons.push(format!("{name} {one}")),
                names => reasons.push(format!("{} {many}", names.join(", "))),
            }
        }
        if reasons.is_empty() {
            return f.write_str("no controller is alive that could take it");
        }
        write!(f, "no controller can take it: {}", reasons.join("; "))
    }
}

impl Member {
    /// May it take so many rollouts more? One that owns nothing takes whatever belongs together: else a small limit
    /// would leave it without an owner for ever.
    pub fn can_take(&self, rollouts: usize) -> bool {
        let fits = self.cap.is_none_or(|cap| self.owns.saturating_add(rollouts) <= cap);
        let any = self.owns == 0 && self.cap != Some(0);
        !self.draining && (fits || any)
    }
}

/// Who gets so many rollouts that belong together: of those that can take them the one with the fewest, then by name.
pub fn heir(members: &[Member], rollouts: usize) -> Result<&ControllerName, Nobody> {
    let able = members.iter().filter(|member| member.can_take(rollouts));
    let first = able.min_by(|a, b| (a.owns, &a.name).cmp(&(b.owns, &b.name)));
    first.map(|member| &member.name).ok_or_else(|| {
        let named = |draining: bool| {
            let these = members.iter().filter(|member| member.draining == draining);
            these.map(|member| member.name.clone()).collect()
        };
        Nobody { draining: named(true), full: named(false) }
    })
}

/// Which of the orphans `me` claims now: those whose turn it is to get, and those that somebody else should have taken
/// within [`GRACE`]. `members`: all that are alive, `me` among them.
pub fn takes<'a>(
    me: &ControllerName,
    members: &[Member],
    orphans: &'a [Orphan],
    now: Timestamp,
) -> Vec<&'a Orphan> {
    let mut ordered: Vec<&Orphan> = orphans.iter().collect();
    ordered.sort_by(|a, b| (&a.app, &a.env).cmp(&(&b.app, &b.env)));
    let mut spread = members.to_vec();
    let mut taken = Vec::new();
    let mut left = Vec::new();
    for orphan in ordered {
        let heir = heir(&spread, orphan.rollouts).cloned();
        match heir {
            Ok(name) => {
                if name == *me {
                    taken.push(orphan);
                } else {
                    left.push(orphan);
                }
                gets(&mut spread, &name, orphan);
            }
            Err(Nobody { .. }) => left.push(orphan),
        }
    }
    for orphan in left {
        let overdue = now >= orphan.since.after(GRACE);
        let able = spread.iter().any(|it| it.name == *me && it.can_take(orphan.rollouts));
        if overdue && able {
            gets(&mut spread, me, orphan);
            taken.push(orphan);
        }
    }
    taken
}

fn gets(members: &mut [Member], name: &ControllerName, orphan: &Orphan) {
    for member in members.iter_mut().filter(|member| member.name == *name) {
        member.owns += orphan.rollouts;
    }
}

#[cfg(test)]
mod tests;
