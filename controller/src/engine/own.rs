//! This controller's own service: whether it takes new rollouts.

use rota_rollout::names::ControllerName;

use super::Turn;
use super::batch::Answer;
use super::carry::NewEvent;
use super::claims::others_active;
use super::verbs::applied;
use crate::errors::Sort;
use crate::view::ErrorView;
use crate::words;

/// What an operator wants of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which one.
    pub name: ControllerName,
    /// Out of service, or back.
    pub draining: bool,
    /// Although nobody takes over.
    pub force: bool,
    /// Running rollouts go to the others at once.
    pub handover: bool,
}

impl Turn<'_> {
    /// Takes nothing new from now on, or works again. It lasts until the process ends: a controller that was
    /// drained, upgraded and started works.
    pub(super) fn serve_on(&mut self, asked: &Service, who: &str) -> Answer {
        let name = &asked.name;
        if self.state.name != name.as_str() {
            return Err(Sort::NotFound.error(
                format!("there is no controller {name}"),
                "`rota controller ls` lists them",
            ));
        }
        let others = self.state.cluster.as_ref();
        let others = others.is_some_and(|cluster| others_active(cluster, &self.state.name));
        if asked.draining && !others {
            alone(asked, self.state.cluster.is_some())?;
        }
        let (deed, is, now) = match asked.draining {
            true => ("drained", "is drained", "takes nothing new"),
            false => ("undrained", "is in service", "takes new rollouts"),
        };
        let already = self.state.draining == asked.draining;
        if !already {
            self.set_draining(asked.draining);
            self.event(NewEvent::new("controller", format!("controller {name} {deed} by {who}")));
        }
        self.state.hands_over = asked.draining && (self.state.hands_over || asked.handover);
        let given = match asked.draining && asked.handover {
            true => self.hand_over("is drained"),
            false => 0,
        };
        let mut handed = match given {
            0 => String::new(),
            given => format!("; {} handed over", words::count(given as u64, "rollout")),
        };
        let left = self.state.own().count();
        if asked.draining && asked.handover && left > 0 {
            let left = words::count(left as u64, "rollout");
            handed += &format!(
                "; {left} to be handed over as soon as another controller can go on with it"
            );
        }
        match already && handed.is_empty() {
            true => applied(format!("controller {name} {is} already: it {now}")),
            false => applied(format!("controller {name} {now}{handed}")),
        }
    }
}

/// With the embedded store there is one controller, so nobody takes over what it leaves; nor where all others are
/// drained or lost.
fn alone(asked: &Service, of_several: bool) -> Result<(), ErrorView> {
    let name = &asked.name;
    let alone = match of_several {
        true => "the last one in service",
        false => "the only one",
    };
    if asked.handover {
        return Err(Sort::Refused.error(
            format!("controller {name} is {alone}: there is nobody to hand its rollouts to"),
            format!("`rota controller drain {name} --force --wait` lets it finish them itself"),
        ));
    }
    if !asked.force {
        return Err(Sort::Refused.error(
            format!("controller {name} is {alone}: while it is drained, nobody can roll out"),
            format!(
                "`rota controller drain {name} --force` does it all the same; \
                 starting it again ends it"
            ),
        ));
    }
    Ok(())
}
