//! In and out of traffic by load balancers that ask this node (`via = "endpoint"`).
//!
//! What they are told turned before the job began, with the journal. Here it is waited for: until every one of them has
//! acted on it, and then until nobody is connected to the app.

use super::{Desk, Did, Outcome, Trouble};
use crate::run::Happened;
use crate::spec::{OnDrainTimeout, Spec};
use crate::traffic::drain::{Connections, Kernel};
use crate::traffic::endpoint::EndpointError;
use crate::update::Instance;

impl Desk {
    pub(super) async fn join_by_polls(&self, settle: u32) -> Outcome {
        self.known(settle).await.map_err(|error| Trouble::of(&error))?;
        Ok(Did::Ok)
    }

    /// Nothing is stopped while a load balancer may still send requests, unless it must be.
    pub(super) async fn drain_by_polls(
        &self,
        settle: u32,
        (spec, instance): (&Spec, &Instance),
        must: bool,
    ) -> Outcome {
        let cuts = must || spec.traffic.on_drain_timeout == OnDrainTimeout::Cut;
        let at_start = match instance.port {
            0 => 0,
            port => Kernel.to(port).map_err(|error| Trouble::of(&error))?.len() as u64,
        };
        let app = self.app.clone();
        self.means.tell(Happened::Draining { app, in_flight: at_start }).await;
        match self.known(settle).await {
            Ok(()) => {}
            Err(error) if !must => return Err(Trouble::of(&error)),
            Err(error) => {
                tracing::warn!(app = self.app, %error, "it leaves traffic all the same");
            }
        }
        let quiet = self.quiet((spec, instance), spec.traffic.drain_timeout, cuts).await?;
        Ok(Did::Drained { in_flight_at_start: at_start.max(quiet.at_start), cut: quiet.cut })
    }

    async fn known(&self, settle: u32) -> Result<(), EndpointError> {
        match &self.means.endpoint {
            Some(endpoint) => endpoint.reached(&self.app, settle).await,
            None => Err(EndpointError::Closed),
        }
    }
}
