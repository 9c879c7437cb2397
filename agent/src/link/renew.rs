//! Renews this agent's certificate at two thirds of its life; sessions that live keep the old one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rota_identity::{FileError, IdentityFiles, KeyError, PrivateKey};
use rota_proto::agent::RenewRequest;
use rota_proto::agent::fleet_client::FleetClient;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Shared;
use crate::backoff::chance;
use crate::dial::dial;
use crate::enrol::place;
use crate::own::OwnError;

/// How often the clock is looked at. Hosts sleep and clocks are set, so one long sleep will not do.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The longest wait after a renewal that failed. A third of the life, 10 days, is left to retry.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// The shortest.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// How long one controller may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum NotRenewed {
    #[error("no controller gave one; the last: {0}")]
    Unreachable(String),
    #[error("cannot make a new key: {0}")]
    Key(#[from] KeyError),
    #[error("it cannot be used: {0}")]
    Own(#[from] OwnError),
    #[error("it cannot be kept: {0}")]
    Files(#[from] FileError),
}

/// Runs until the agent stops.
pub(super) async fn keep_fresh(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut retry = RETRY_MIN;
    loop {
        let due = shared.own.leaf().renew_at();
        let wait = match due.duration_since(SystemTime::now()) {
            Ok(left) => left.min(LOOK_EVERY),
            Err(_) => match renew(&shared).await {
                Ok(()) => {
                    retry = RETRY_MIN;
                    info!("renewed this agent's certificate");
                    continue;
                }
                Err(error) => {
                    warn!("this agent's certificate is due for renewal: {error}");
                    retry = (retry * 2).min(RETRY_MAX);
                    // Spread, because all agents of an installation joined on one day.
                    retry / 2 + (retry / 2).mul_f64(chance() as f64 / u64::MAX as f64)
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn renew(shared: &Shared) -> Result<(), NotRenewed> {
    let key = PrivateKey::generate()?;
    let request = RenewRequest { csr_pem: key.request()? };
    let mut last = "none is known".to_owned();
    for address in shared.addresses() {
        let dialled = match dial(&address, shared.own.to_controllers()).await {
            Ok(dialled) => dialled,
            Err(why) => {
                last = why.to_string();
                continue;
            }
        };
        let mut client = FleetClient::new(dialled.channel);
        let reply = match timeout(CALL_TIMEOUT, client.renew(request.clone())).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => {
                last = format!("{address}: {}", status.message());
                continue;
            }
            Err(_) => {
                last = format!("{address} took more than {} s", CALL_TIMEOUT.as_secs());
                continue;
            }
        };
        let (cert, ca) = (reply.certificate_pem, reply.ca_pem);
        let files = IdentityFiles { key: key.to_pem(), cert, ca };
        // In use only if it is good, and kept before it is used.
        crate::own::Own::new(&files)?;
        files.save(&place(&shared.setup.data))?;
        shared.own.renewed(&files)?;
        return Ok(());
    }
    Err(NotRenewed::Unreachable(last))
}
