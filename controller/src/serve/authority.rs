//! With whose authority a controller works: its own with the embedded store, that of the installation where several
//! share one.

use std::sync::Arc;
use std::time::SystemTime;

use rota_rollout::names::Timestamp;

use super::run::ServeError;
use crate::access::installation::Door;
use crate::access::join::Invited;
use crate::access::{Ca, admin};
use crate::serve_args::{ServeArgs, StoreArg};
use crate::store::Store;

/// The certificate authority, and whether its first admin has to be made.
pub(super) struct Authority {
    pub ca: Arc<Ca>,
    pub needs_admin: bool,
}

impl Authority {
    /// The one that is here, or another one's by a token, or a new one at the first start.
    pub async fn find(args: &ServeArgs, store: &dyn Store) -> Result<Self, ServeError> {
        let now = SystemTime::now();
        let (ca, needs_admin) = match &args.store {
            StoreArg::Sqlite => {
                let identity = args.data.join("identity");
                let ca = match Ca::open(&identity)? {
                    Some(ca) => ca,
                    None => Ca::create(&identity, now)?,
                };
                (ca, admin::is_due(&args.data))
            }
            StoreArg::Etcd(_) => {
                let inside = door(args, store).enter(now).await?;
                (inside.ca, inside.founds && !admin::admin_file(&args.data).exists())
            }
        };
        Ok(Self { ca: Arc::new(ca), needs_admin })
    }
}

/// When all that a first start makes was made: the next one is none.
pub(super) async fn settle(
    args: &ServeArgs,
    store: &dyn Store,
    now: Timestamp,
) -> Result<(), ServeError> {
    match &args.store {
        StoreArg::Sqlite => Ok(admin::was_made(&args.data)?),
        StoreArg::Etcd(_) => Ok(door(args, store).settle(now).await?),
    }
}

fn door<'a>(args: &'a ServeArgs, store: &'a dyn Store) -> Door<'a> {
    let invited = args.join.as_deref().zip(args.token.as_deref());
    let invited = invited.map(|(address, token)| Invited { address, token });
    Door { store, dir: &args.data, name: args.name.as_str(), invited }
}
