//! Room on the disk: removes releases that nothing returns to, and rotates the apps' logs.

use std::sync::Arc;

use tracing::{info, warn};

use super::{Loop, Slot};
use crate::spec::Spec;

impl Loop {
    /// Removes releases and downloads that nothing returns to. While something is being fetched it does nothing: the
    /// next rollout's end asks again.
    pub(super) fn prune(&self, app: &str) {
        let Some(slot) = self.slots.get(app) else { return };
        let Ok(alone) = Arc::clone(&self.means.fetching).try_lock_owned() else { return };
        let mut keep = slot.keep.clone();
        keep.extend(slot.in_use().map(Spec::folder));
        let downloads: Vec<String> =
            self.slots.values().flat_map(Slot::in_use).map(|spec| spec.digest.clone()).collect();
        let (releases, app) = (self.means.releases.clone(), app.to_owned());
        let docker = self.means.launcher.docker().cloned();
        tokio::spawn(async move {
            match releases.prune(&app, &keep).await {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => info!(app, ?gone, "removed releases that nothing returns to"),
                Err(error) => warn!(app, %error, "cannot remove old releases"),
            }
            if let (Some(docker), Ok(kept)) = (docker, releases.installed(&app).await) {
                let kept: Vec<String> = kept.iter().map(|it| it.spec.folder()).collect();
                if let Err(error) = docker.prune(&app, &kept).await {
                    warn!(app, %error, "cannot remove old images");
                }
            }
            if let Err(error) = releases.prune_cache(&downloads).await {
                warn!(%error, "cannot remove old downloads");
            }
            drop(alone);
        });
    }

    pub(super) fn rotate(&self) {
        for (app, slot) in &self.slots {
            for running in slot.running.values() {
                let log = &running.instance().log;
                if let Err(error) = crate::logs::rotate(log, crate::logs::LOG_BYTES_MAX) {
                    warn!(app, %error, "cannot rotate the app's log");
                }
            }
        }
    }
}
