//! Calls to a cluster: each has a deadline, a member that does not answer is left for the next one, and what may have
//! happened is never done twice.

use std::sync::Arc;
use std::time::Duration;

use rota_proto::etcd::etcdserverpb::auth_client::AuthClient;
use rota_proto::etcd::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::config::EtcdConfig;
use super::errors::{Failure, Sort, sort};
use super::{Reach, StoreError, dial};

/// For one member to answer what may be asked of another one. A lease of 5 s is kept alive every 1.5 s, and must
/// outlive one member that is silent.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// For an answer in all, with every member that is tried. Nobody's lease lives longer without one.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// For the answer to a write. What was on its way to a leader that died gets none; where disks need longer, etcd itself
/// is looking for another leader.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// After every member has failed: a new leader is there within a second or two.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// What is said of a member that says nothing.
const SILENT: &str = "it did not answer in time";

/// Tokens that are asked for in one call: one that has ended, and one that ended just then.
const TOKENS_MAX: usize = 3;

/// May a call be made again where its answer was lost?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing, or nothing that matters, a second time.
    Yes,
    /// Nobody may know whether it happened.
    No,
}

/// The members and what we know of them.
#[derive(Debug)]
pub(super) struct Cluster {
    members: Vec<Member>,
    /// The member that is asked now. Watches move with it.
    current: watch::Sender<usize>,
    reach: watch::Sender<Reach>,
    user: Option<User>,
}

/// One member, and two connections to it. Watches have one of their own: where their reader is slow their data waits in
/// the connection's window, and behind it no call would get an answer.
#[derive(Debug)]
struct Member {
    name: String,
    calls: Channel,
    watches: Channel,
}

#[derive(Debug)]
struct User {
    name: String,
    password: Password,
    token: Mutex<Option<AsciiMetadataValue>>,
}

/// Does not show itself.
struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Cluster {
    /// Reads the files that the operator named; nothing is dialled yet.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let tls = dial::tls(config)?;
        let channel = |name: &String| dial::channel(name, tls.as_ref());
        let member = |name: &String| {
            Ok(Member { name: name.clone(), calls: channel(name)?, watches: channel(name)? })
        };
        let members =
            config.endpoints.iter().map(member).collect::<Result<Vec<_>, StoreError>>()?;
        let password = dial::password(config)?;
        let user = config.user.clone().zip(password).map(|(name, password)| User {
            name,
            password: Password(password),
            token: Mutex::new(None),
        });
        let (current, reach) = (watch::Sender::new(0), watch::Sender::new(Reach::Here));
        Ok(Self { members, current, reach, user })
    }

    /// Whether the cluster answers.
    pub(super) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    /// Tells of changes of the member that is asked.
    pub(super) fn current(&self) -> watch::Receiver<usize> {
        self.current.subscribe()
    }

    /// The name of a member, and the channel for calls.
    pub(super) fn member(&self, index: usize) -> (&str, Channel) {
        let Member { name, calls, .. } = &self.members[index];
        (name, calls.clone())
    }

    /// The channel for watches.
    pub(super) fn watches(&self, index: usize) -> Channel {
        self.members[index].watches.clone()
    }

    /// Leaves a member, unless somebody did already.
    pub(super) fn leave(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        self.current.send_if_modified(|current| {
            let leaves = *current == member && next != member;
            if leaves {
                *current = next;
            }
            leaves
        });
    }

    /// Says that the cluster answers, or why it does not.
    pub(super) fn note(&self, now: Reach) {
        self.reach.send_if_modified(|known| {
            let turned = matches!(known, Reach::Here) != matches!(now, Reach::Here);
            match (turned, &now) {
                (true, Reach::Here) => tracing::info!("etcd answers again"),
                (true, Reach::Away(why)) => tracing::warn!(%why, "etcd does not answer"),
                (false, _) => {}
            }
            if turned {
                *known = now;
            }
            turned
        });
    }

    /// Makes a call, at whichever member answers.
    pub(super) async fn ask<Q, A, F>(
        &self,
        repeat: Repeat,
        question: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let asked = self.ask_until(deadline, repeat, question, call).await;
        self.note(match &asked {
            Ok(_) | Err(Failure::No(_)) => Reach::Here,
            Err(Failure::Away(why) | Failure::Lost(why)) => Reach::Away(why.clone()),
        });
        asked
    }

    async fn ask_until<Q, A, F>(
        &self,
        deadline: Instant,
        repeat: Repeat,
        question: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (mut tried, mut tokens, mut told) = (0, 0, String::new());
        loop {
            let member = *self.current.borrow();
            let (name, channel) = self.member(member);
            let limit = deadline.min(match repeat {
                Repeat::Yes => Instant::now() + TRY_TIMEOUT,
                Repeat::No => Instant::now() + WRITE_TIMEOUT,
            });
            let sorted = match self.signed(member, question.clone()).await {
                Err(sorted) => sorted,
                Ok(request) => match timeout_at(limit, call(channel, request)).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner()),
                    Ok(Err(status)) => sort(status),
                    Err(_) => Sort::Doubt(SILENT.to_owned()),
                },
            };
            let why = match sorted {
                Sort::No(status) => return Err(Failure::No(status)),
                Sort::TokenEnded if tokens < TOKENS_MAX => {
                    tokens += 1;
                    self.forget_token().await;
                    continue;
                }
                Sort::TokenEnded => "it does not know the token that it gave".to_owned(),
                Sort::Elsewhere(why) => why,
                Sort::Doubt(why) if repeat == Repeat::Yes => why,
                Sort::Doubt(why) => {
                    self.leave(member);
                    return Err(Failure::Lost(format!("{name}: {why}")));
                }
            };
            // The last try may have had no time left: what an earlier one was told says more.
            if told.is_empty() || why != SILENT {
                told = format!("{name}: {why}");
            }
            self.leave(member);
            tried += 1;
            let pause = if tried % self.members.len() == 0 { ROUND_PAUSE } else { Duration::ZERO };
            if Instant::now() + pause >= deadline {
                return Err(Failure::Away(told));
            }
            sleep(pause).await;
        }
    }

    /// A request with what every one carries: that the member must have a leader, and who we are.
    pub(super) async fn signed<Q>(&self, member: usize, question: Q) -> Result<Request<Q>, Sort> {
        let mut request = Request::new(question);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(user) = &self.user {
            let token = self.token(user, member).await?;
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }

    /// The token, or a new one. Whoever else needs one waits for it.
    async fn token(&self, user: &User, member: usize) -> Result<AsciiMetadataValue, Sort> {
        let mut known = user.token.lock().await;
        if let Some(token) = &*known {
            return Ok(token.clone());
        }
        let (name, password) = (user.name.clone(), user.password.0.clone());
        let (_, channel) = self.member(member);
        let mut auth = AuthClient::new(channel);
        let asked = auth.authenticate(AuthenticateRequest { name, password });
        let slow = |_| Sort::Elsewhere("it gave no token in time".to_owned());
        // To ask for a token changes nothing: another member may give one.
        let answer = timeout(TRY_TIMEOUT, asked).await.map_err(slow)?;
        let answer = answer.map_err(|status| match sort(status) {
            Sort::Doubt(why) => Sort::Elsewhere(why),
            other => other,
        })?;
        let AuthenticateResponse { token, .. } = answer.into_inner();
        let token: AsciiMetadataValue = token
            .parse()
            .map_err(|_| Sort::Elsewhere("it gave a token that is not text".to_owned()))?;
        *known = Some(token.clone());
        Ok(token)
    }

    /// The next call asks for a new one.
    pub(super) async fn forget_token(&self) {
        if let Some(user) = &self.user {
            *user.token.lock().await = None;
        }
    }
}

/// Shared by the store and its watches.
pub(super) type Shared = Arc<Cluster>;
