//! `rota serve`: opens the store, builds everything, listens, and ends cleanly.

use std::fs::{DirBuilder, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rota_proto::agent::enrolment_server::EnrolmentServer;
use rota_proto::agent::fleet_server::FleetServer;
use rota_proto::controller::copies_server::CopiesServer;
use rota_proto::operator::operator_server::OperatorServer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tonic::transport::Server;

use super::agents::FleetService;
use super::authority::{self, Authority};
use super::copies::CopiesService;
use super::enrol::Enrol;
use super::forward::Forward;
use super::front::Front;
use super::operators::OperatorService;
use super::others::Others;
use super::stores::{self, DirError, Opened, Shared};
use super::{http, listen, upkeep};
use crate::access::installation::EntryError;
use crate::access::members::MemberError;
use crate::access::own::{OwnCertificate, OwnError};
use crate::access::{Access, CaError, admin, now};
use crate::api::Api;
use crate::artifact::peers::Artifacts;
use crate::artifact::store::{ArtifactError, ArtifactStore};
use crate::context::reachable;
use crate::engine::keep::Keep;
use crate::engine::{Engine, Handle, OpenError, Own};
use crate::members::Membership;
use crate::metrics::Metrics;
use crate::serve_args::{ServeArgs, StoreArg};
use crate::store::StoreError;

/// HTTP/2 pings, so that a cut cable is seen: interval and answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message from a client: a report with 64 KiB of output, an upload's part, a manifest.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Why a controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The command line asks for what cannot be.
    #[error("{message}")]
    Usage { message: String, hint: String },
    /// The store is not for this controller, or this controller not for it.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// `rota controller rm`, while it was cut off and thought lost.
    #[error("controller {0} was removed from this installation")]
    Removed(String),
    /// Its own certificate could not be written down.
    #[error(transparent)]
    Register(#[from] MemberError),
    /// A mistake of ours, told in the log.
    #[error("the engine has ended: see the log above")]
    Ended,
    /// The data directory.
    #[error("cannot use the data directory {}", .dir.display())]
    Data {
        dir: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    /// A port.
    #[error("cannot listen at {address} ({flag})")]
    Listen {
        address: SocketAddr,
        flag: &'static str,
        #[source]
        cause: std::io::Error,
    },
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state, or no place among the controllers.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something else in the data directory.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The artifacts.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The controller's own certificate.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// The first admin.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// gRPC.
    #[error("the gRPC server ended")]
    Grpc(#[from] tonic::transport::Error),
    /// Threads.
    #[error("cannot start the threads that serve")]
    Threads(#[source] std::io::Error),
    /// Signals.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs a controller until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs) -> Result<(), ServeError> {
    if let (Some(address), StoreArg::Sqlite) = (&args.join, &args.store) {
        let message = "--join needs a store that controllers share, and --store is sqlite";
        let hint = format!("--store etcd://HOST:PORT, as the controller at {address} has it");
        return Err(ServeError::Usage { message: message.to_owned(), hint });
    }
    let stopped = asked_to_stop()?;
    let built = build(&args).await?;
    let Built { grpc, http, engine, handle, access, artifacts, metrics, own, others, leave } =
        built;
    let addresses = (local(&grpc), local(&http));
    let api = Api {
        engine: handle.clone(),
        store: access.store(),
        access: Arc::clone(&access),
        artifacts: artifacts.clone(),
    };
    let config = own.config();
    let fleet = FleetService::new(handle.clone(), Arc::clone(&access), artifacts.clone());
    let copies = CopiesService::new(Arc::clone(&access), artifacts.clone());
    let keep = Keep { releases: args.keep_releases, rollouts: args.keep_rollouts as u64 };
    let forward =
        Forward { access: Arc::clone(&access), engine: handle.clone(), dialer: own.dialer() };
    let operators =
        OperatorService { api: api.clone(), access: Arc::clone(&access), forward, artifacts };
    let enrol = EnrolmentServer::new(Enrol::new(Arc::clone(&access)));
    let router = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(enrol.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(FleetServer::new(fleet).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(CopiesServer::new(copies).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(OperatorServer::new(operators).max_decoding_message_size(MESSAGE_BYTES_MAX));
    let front = Front::start().map_err(ServeError::Threads)?;
    front.beat(handle.ears());
    let mut engine = tokio::spawn(engine.run());
    let who = own.identity().clone();
    let mut beside = beside(&api, keep, own, leave.is_some());
    beside.spawn(others.follow());
    front.spawn(http::serve(http, api, metrics));
    let mut serving = front.spawn(async move {
        let incoming = listen::incoming(grpc, config, Arc::default());
        router.serve_with_incoming(incoming).await
    });
    say_ready(&args, addresses);
    let result = tokio::select! {
        ended = &mut serving => match ended {
            Ok(ended) => ended.map_err(ServeError::from),
            Err(_) => Err(ServeError::Ended),
        },
        () = stopped => Ok(()),
        () = access.until_removed(&who), if leave.is_some() => {
            Err(ServeError::Removed(args.name.to_string()))
        }
        _ = &mut engine => Err(ServeError::Ended),
    };
    drop((beside, front));
    engine.abort();
    if let Some((membership, _lock)) = leave {
        // Others take over at once, and not only when the lease ends.
        let place = handle.read().cluster.as_ref().and_then(|cluster| cluster.place);
        if let Some(place) = place {
            membership.give_up(place.lease).await;
        }
    }
    result
}

/// Ends when this process is asked to.
fn asked_to_stop() -> Result<impl Future<Output = ()>, ServeError> {
    let mut term = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping; apps and agents go on by themselves");
        notify(sd_notify::NotifyState::Stopping);
    })
}

/// What goes on beside answering, until it is dropped.
fn beside(api: &Api, keep: Keep, own: OwnCertificate, shared: bool) -> JoinSet<()> {
    let (engine, access, artifacts) = (&api.engine, &api.access, &api.artifacts);
    let mut tasks = JoinSet::new();
    tasks.spawn(upkeep::tell_banned(Arc::clone(access), engine.clone()));
    tasks.spawn(upkeep::sweep_daily(Arc::clone(access)));
    tasks.spawn(upkeep::trim_hourly(engine.clone(), Arc::clone(&api.store)));
    tasks.spawn(upkeep::make_room(api.clone(), artifacts.here.clone(), keep));
    tasks.spawn(upkeep::bring_in(engine.clone(), artifacts.clone()));
    tasks.spawn(own.keep_renewed(shared.then(|| Arc::clone(access))));
    tasks
}

struct Built {
    grpc: TcpListener,
    http: TcpListener,
    engine: Engine,
    handle: Handle,
    access: Arc<Access>,
    artifacts: Artifacts,
    metrics: Arc<Metrics>,
    own: OwnCertificate,
    others: Arc<Others>,
    /// Among several controllers: how this one leaves, and the lock of its data directory.
    leave: Option<(Membership, File)>,
}

/// Everything that can fail, before anybody is told that we are ready.
async fn build(args: &ServeArgs) -> Result<Built, ServeError> {
    let dir = &args.data;
    let data = |cause| ServeError::Data { dir: dir.clone(), cause };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(data)?;
    let Opened { store, shared } = stores::open(args).await?;
    let artifacts = ArtifactStore::open(dir).await?;
    let Authority { ca, needs_admin } = Authority::find(args, &*store).await?;
    let access = Arc::new(Access::open(Arc::clone(&store), Arc::clone(&ca)).await?);
    let own = OwnCertificate::new(ca, args.name.as_str(), SystemTime::now())?;
    let grpc = listen::bind(args.listen).map_err(|cause| ServeError::Listen {
        address: args.listen,
        flag: "--listen",
        cause,
    })?;
    let http = http::bind(args.http).await.map_err(|cause| ServeError::Listen {
        address: args.http,
        flag: "--http",
        cause,
    })?;
    let listens = local(&grpc);
    if needs_admin {
        let path = access.bootstrap_admin(dir, listens, now()).await?;
        tracing::info!(context = %path.display(), "made the first admin's context");
    } else {
        access.refresh_admin(dir, listens, now()).await?;
    }
    authority::settle(args, &*store, now()).await?;
    let metrics = Arc::new(Metrics::default());
    let counted = Arc::clone(&metrics);
    let measure = Box::new(move |measure| counted.count(measure));
    let advertise = args.advertise.clone().unwrap_or_else(|| reachable(listens));
    let name = args.name.to_string();
    let leave = shared.map(|Shared { instance, lock }| {
        let (store, name, advertise) = (Arc::clone(&store), name.clone(), advertise.clone());
        let rollouts_max = args.max_rollouts;
        (Membership { store, name, advertise, instance, rollouts_max }, lock)
    });
    let membership = leave.as_ref().map(|(membership, _)| membership.clone());
    let who = Own { name, advertise, membership };
    let (engine, handle) = Engine::open(store, who, measure).await?;
    if leave.is_some() {
        // Not before: now it alone has its name.
        own.register(&access, true).await?;
    }
    let others = Others::new(handle.clone());
    let artifacts = Artifacts::new(artifacts, others.clone(), own.dialer());
    Ok(Built { grpc, http, engine, handle, access, artifacts, metrics, own, others, leave })
}

fn local(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// The line and the notification that scripts wait for.
fn say_ready(args: &ServeArgs, (grpc, http): (SocketAddr, SocketAddr)) {
    tracing::info!("ready: controller {} grpc={grpc} http={http}", args.name);
    notify(sd_notify::NotifyState::Ready);
}

/// Without a notify socket this does nothing.
fn notify(state: sd_notify::NotifyState) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::debug!(%error, "nobody is told through the notify socket");
    }
}
