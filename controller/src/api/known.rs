//! Names of which nobody ever heard: a slip of the pen is told, and not answered with an empty list.

use rota_rollout::names::AppName;

use super::{Api, Reader, asked, envs, name};
use crate::errors::Sort;
use crate::view::ErrorView;

impl Api {
    /// There is an app of this name: a release of it, or a rollout.
    pub(super) fn known_app(&self, app: &AppName) -> Result<(), ErrorView> {
        let state = self.engine.read();
        let known = state.releases.keys().any(|(of, _)| of == app)
            || state.fleets.keys().any(|(of, _)| of == app);
        let missing = || {
            let hint = "`rota release ls` lists all apps with their releases";
            Sort::NotFound.error(format!("there is no app {app}"), hint)
        };
        known.then_some(()).ok_or_else(missing)
    }

    /// There is an environment of this name that the reader sees.
    pub(super) fn known_env(&self, env: &str, reader: Reader<'_>) -> Result<(), ErrorView> {
        let known = reader.sees(env) && self.see(|state| envs::is_known(state, env));
        let missing = || {
            Sort::NotFound
                .error(format!("there is no environment {env}"), "`rota env ls` lists them")
        };
        known.then_some(()).ok_or_else(missing)
    }

    /// There is what `app=` and `env=` of a query name.
    pub(super) fn known_in(&self, query: &str, reader: Reader<'_>) -> Result<(), ErrorView> {
        if let Some(app) = asked(query, "app") {
            self.known_app(&name(app)?)?;
        }
        asked(query, "env").map_or(Ok(()), |env| self.known_env(env, reader))
    }
}
