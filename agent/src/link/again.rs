//! Joins once more: who was removed before it started has a new token, and keeps everything else.

use tracing::{info, warn};

use super::Shared;
use crate::enrol;

impl Shared {
    /// The certificate with this number counts no more: is there another now? The token is tried once.
    pub(super) async fn join_again(&self, serial: &str) -> bool {
        let mut invited = self.invited.lock().await;
        if self.own.leaf().serial != serial {
            return true; // another session was faster
        }
        let Some(token) = invited.clone() else { return false };
        let joined = enrol::again(&self.setup.data, &self.addresses(), &token, &self.own).await;
        *invited = None;
        match joined {
            Ok(()) => info!("this agent was removed, and has joined again by its token"),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
                warn!("this agent was removed, and its token does not let it in: {error}{cause}");
                return false;
            }
        }
        true
    }
}
