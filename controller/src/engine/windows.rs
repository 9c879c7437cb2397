//! The windows of environments: kept as text, read by the calendar, told to the rollouts that run there.

use rota_rollout::What;
use rota_rollout::names::{EnvName, RolloutId, Timestamp};
use rota_rollout::shut::Closed;

use super::batch::Answer;
use super::carry::NewEvent;
use super::cluster::Owner;
use super::records::{EnvRecord, WindowRecord};
use super::verbs::applied;
use super::{State, Turn};
use crate::calendar::{BadWindow, Standing, Window, ahead, standing};
use crate::errors::Sort;
use crate::view::ErrorView;
use crate::words;

/// An environment with more windows than this has a mistake in its script.
const WINDOWS_MAX: usize = 50;

/// Windows that cannot be read are read again after so long.
const UNREADABLE_FOR_MS: u64 = 60_000;

/// How the windows of an environment stand, until they stand otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Today {
    /// Set while they are closed.
    pub closed: Option<Closed>,
    /// Until then; `None`: without end.
    pub until: Option<Timestamp>,
    /// The same for people: `until Thu 05:00 Europe/Berlin`.
    pub text: String,
}

impl State {
    /// Why no update may start in an environment now: it has windows, and they are closed.
    pub fn closed(&self, env: &EnvName) -> Option<&Closed> {
        self.calendar.get(env)?.closed.as_ref()
    }
}

impl EnvRecord {
    /// Is nothing said of it?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The engine's clock as the calendar's.
pub fn instant(at: Timestamp) -> jiff::Timestamp {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

fn engine_time(at: jiff::Timestamp) -> Timestamp {
    Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

/// How an environment's windows stand.
fn today(env: &EnvName, record: &EnvRecord, at: Timestamp) -> Today {
    let read: Result<Vec<Window>, BadWindow> =
        record.windows.iter().map(|window| window.text.parse()).collect();
    let windows = match read {
        Ok(windows) => windows,
        // Rather closed than open at the wrong time.
        Err(error) => {
            let opens = Timestamp(at.0 + UNREADABLE_FOR_MS);
            let text = format!("the windows of {env} cannot be read: {error}");
            let closed = Some(Closed { text: text.clone(), opens });
            return Today { closed, until: Some(opens), text };
        }
    };
    let named = |at: jiff::Timestamp, window: &Window| window.moment(at);
    match (standing(&windows, instant(at)), windows.first()) {
        (Standing::Closed { opens, window }, _) => {
            let moment = named(opens, &windows[window]);
            let text = format!("outside the windows of {env}: opens {moment}");
            let closed = Some(Closed { text, opens: engine_time(opens) });
            Today { closed, until: Some(engine_time(opens)), text: moment }
        }
        (Standing::Open { until: Some(until) }, Some(window)) => {
            Today { closed: None, until: Some(engine_time(until)), text: named(until, window) }
        }
        (Standing::Open { .. }, _) => Today { closed: None, until: None, text: String::new() },
    }
}

impl Turn<'_> {
    /// Which windows are open now.
    pub(super) fn look_at_the_calendar(&mut self) {
        let at = self.at;
        let State { envs, calendar, .. } = &mut *self.state;
        calendar.retain(|env, _| envs.get(env).is_some_and(|record| !record.windows.is_empty()));
        for (env, record) in envs.iter().filter(|(_, record)| !record.windows.is_empty()) {
            let known = calendar.get(env);
            if known.is_none_or(|known| known.until.is_some_and(|until| until <= at)) {
                calendar.insert(env.clone(), today(env, record, at));
                self.batch.touched = true;
            }
        }
    }

    /// Looks at the calendar, and tells every rollout whose environment has opened or closed. Before anything else of a
    /// turn: nothing starts in the moment after a window closed.
    pub(super) fn windows_moved(&mut self) {
        self.look_at_the_calendar();
        let state = &*self.state;
        let news: Vec<(RolloutId, Option<Closed>)> = state
            .rollouts
            .iter()
            .filter(|(_, active)| active.owner == Owner::Us)
            .filter(|(id, active)| active.rollout.head.closed.as_ref() != state.closed(&id.env))
            .map(|(id, _)| (id.clone(), state.closed(&id.env).cloned()))
            .collect();
        for (id, closed) in news {
            self.step(&id, What::Closed(closed));
        }
    }

    pub(super) fn add_window(&mut self, env: &EnvName, window: WindowRecord) -> Answer {
        let mut record = self.state.envs.get(env).cloned().unwrap_or_default();
        if record.windows.iter().any(|there| there.text == window.text) {
            let message = format!("environment {env} has the window {} already", window.text);
            return Err(Sort::Refused.error(message, format!("`rota env window ls {env}`")));
        }
        if record.windows.len() >= WINDOWS_MAX {
            let message = format!("environment {env} has {WINDOWS_MAX} windows, and takes no more");
            let hint = format!("`rota env window rm {env} N` removes one");
            return Err(Sort::Refused.error(message, hint));
        }
        let said = format!("environment {env} has the window {}", window.text);
        let event = format!("{said}, by {}", window.who);
        record.windows.push(window);
        self.set_windows(env, record, event);
        applied(format!("{said}; {}", self.stands(env)))
    }

    pub(super) fn remove_window(&mut self, env: &EnvName, which: &str, who: &str) -> Answer {
        let mut record = self.state.envs.get(env).cloned().unwrap_or_default();
        let place = found(env, &record, which)?;
        let window = record.windows.remove(place);
        let said = format!("environment {env} has the window {} no more", window.text);
        let event = format!("{said}, by {who}");
        self.set_windows(env, record, event);
        applied(format!("{said}; {}", self.stands(env)))
    }

    fn set_windows(&mut self, env: &EnvName, record: EnvRecord, event: String) {
        self.keep_env(env, record);
        self.guard(env);
        self.state.calendar.remove(env);
        self.event(NewEvent { env: Some(env.to_string()), ..NewEvent::new("controller", event) });
        self.windows_moved();
    }

    /// What stands now, for the answer.
    fn stands(&self, env: &EnvName) -> String {
        match self.state.calendar.get(env) {
            None => "it has no window, and is always open".to_owned(),
            Some(Today { closed: None, until: None, .. }) => "it is always open".to_owned(),
            Some(Today { closed: None, text, .. }) => format!("it is open until {text}"),
            Some(Today { closed: Some(closed), text, .. }) => {
                let ahead = ahead(instant(self.at), instant(closed.opens));
                format!("it is closed until {text} ({ahead})")
            }
        }
    }
}

/// The window of this number, or with this text.
fn found(env: &EnvName, record: &EnvRecord, which: &str) -> Result<usize, ErrorView> {
    let written = which.parse::<Window>().map(|window| window.to_string());
    let text = written.as_deref().unwrap_or(which);
    let by_text = record.windows.iter().position(|window| window.text == text);
    let by_number = || {
        let number: usize = which.parse().ok()?;
        number.checked_sub(1).filter(|place| *place < record.windows.len())
    };
    by_text.or_else(by_number).ok_or_else(|| {
        let (message, hint) = match record.windows.len() {
            0 => (
                format!("environment {env} has no window, and is always open"),
                "`rota env ls` shows which environments have one".to_owned(),
            ),
            count => (
                format!(
                    "environment {env} has {}, and `{which}` is none of them",
                    words::count(count as u64, "window")
                ),
                format!("`rota env window ls {env}` numbers them"),
            ),
        };
        Sort::NotFound.error(message, hint)
    })
}
