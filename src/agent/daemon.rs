//! Membership's life in the daemon: resumed at start, founded by `init`, got by `join`, ended by `leave`.
//!
//! Each of these either happens in full or not at all. The instant that counts is the write of `cluster.json`: sockets
//! are bound and everything that can fail is done before it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::addr::{AddrError, AddrSpec, Addresses, Remote, interface_addrs};
use super::admission::{self, JoinError, Joined};
use super::clock::Clock;
use super::config::{OnTerminate, Settings};
use super::engine::{Engine, Progress, Shell};
use super::hub::Hub;
use super::lead::Leadership;
use super::lease::Leases;
use super::metrics::{self, Recorder};
use super::net::{BindError, Sockets};
use super::roam::{Roaming, SharedAddresses, Wanted};
use super::server::{self, Service};
use super::state::{StateDir, StoredCluster};
use super::token::Token;
use super::trust::{self, NewMembership, SharedState, Trust, TrustError, lock};
use super::upkeep::{maintain, save_contacts};
use super::{RunError, rfc3339};
use crate::api::watch::CloseReason;
use crate::api::{
    DEFAULT_PORT, InitRequest, InitResponse, JoinRequest, JoinResponse, LeaveResponse, NodeOptions, Problem,
    ProblemKind,
};
use crate::ca::{CERT_EXPIRY_DEFAULT, CERT_EXPIRY_MAX, CERT_EXPIRY_MIN, random};
use crate::node::{Command, KeptTable, Node, Start};
use crate::record::decision::Decision;
use crate::record::{NodeId, Role, Status};
use crate::wire::decision::SignedDecision;

/// How long a join waits for the first full-state exchange before it answers all the same.
const FIRST_EXCHANGE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a join may take, all remotes together.
const JOIN_DEADLINE: Duration = Duration::from_secs(50);
/// How long a leave may take; the protocol gives up earlier.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);
/// How long the announcement of a restart may take: whoever waits for the daemon to stop should hardly notice.
const AWAY_DEADLINE: Duration = Duration::from_secs(1);
/// Longest pause between two unattended joins.
const UNATTENDED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Membership in force: the tasks that make this node a member.
pub(super) struct Membership {
    /// Certificates and tokens.
    pub trust: Arc<Trust>,
    /// The protocol task.
    pub engine: Engine,
    /// Who leads, as published from here.
    pub leadership: Arc<Leadership>,
    /// Endpoints that are tied to connections.
    pub leases: Arc<Leases>,
    /// The changes that it has told.
    pub hub: Arc<Hub>,
    addresses: SharedAddresses,
    /// There was nobody to exchange state with at the start.
    pub is_first: bool,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Membership {
    async fn stop(&self, reason: CloseReason) {
        self.hub.close(reason);
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks {
            // A task that panicked has stopped too.
            let _ = task.await;
        }
    }

    /// Where this node is.
    pub(super) fn addresses(&self) -> Addresses {
        *lock(&self.addresses)
    }

    /// A full-state exchange has happened, or there was nobody to have it with.
    pub(super) fn is_joined(&self) -> bool {
        self.is_first || self.engine.progress().joined
    }
}

/// What a life needs that may not be there: a generation on the disk, and randomness.
struct NewLife {
    clock: Clock,
    generation: u64,
    seed: [u8; 32],
    decisions: Vec<SignedDecision>,
    tables: Vec<KeptTable>,
}

/// The daemon.
pub(super) struct Daemon {
    /// Its configuration.
    pub settings: Settings,
    /// Its metrics.
    pub recorder: Recorder,
    /// The state directory.
    pub state: SharedState,
    membership: RwLock<Option<Arc<Membership>>>,
    /// Held while membership changes, or what is stored beside it.
    pub changing: AsyncMutex<()>,
    is_stopping: watch::Sender<bool>,
    /// Told by the protocol task when this node is a member no more.
    removed: mpsc::Sender<Arc<Decision>>,
    /// Why this node is in no cluster any more, for whoever asks.
    expelled: Mutex<Option<String>>,
}

fn internal(error: impl std::fmt::Display) -> Problem {
    ProblemKind::Internal.problem(error.to_string())
}

/// Every membership has an id of its own: what was decided about the node that this machine was before, its removal above
/// all, is not about what it becomes, and machines started from one image are different nodes.
fn new_id() -> Result<NodeId, Problem> {
    Ok(NodeId::from_bytes(random().map_err(internal)?))
}

fn address_problem(error: &AddrError) -> Problem {
    ProblemKind::BadRequest.problem(error.to_string())
}

fn bind_problem(error: &BindError) -> Problem {
    ProblemKind::Conflict.problem(error.to_string())
}

impl Daemon {
    /// A daemon that is in no cluster yet.
    pub(super) fn new(
        settings: Settings,
        state: StateDir,
        recorder: Recorder,
        removed: mpsc::Sender<Arc<Decision>>,
    ) -> Self {
        Self {
            settings,
            removed,
            expelled: Mutex::new(None),
            recorder,
            state: Arc::new(Mutex::new(state)),
            membership: RwLock::new(None),
            changing: AsyncMutex::new(()),
            is_stopping: watch::Sender::new(false),
        }
    }

    /// The membership in force.
    pub(super) fn membership(&self) -> Option<Arc<Membership>> {
        self.membership.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The membership in force, or the problem to answer with.
    ///
    /// # Errors
    /// `not-in-cluster`.
    pub(super) fn member(&self) -> Result<Arc<Membership>, Problem> {
        self.membership().ok_or_else(|| {
            let why = lock(&self.expelled).clone();
            ProblemKind::NotInCluster.problem(why.unwrap_or_else(|| {
                "this node is in no cluster; use 'gossipctl init' to found one or 'gossipctl join' to join one"
                    .to_owned()
            }))
        })
    }

    /// This node's id.
    pub(super) fn me(&self) -> NodeId {
        lock(&self.state).node_id()
    }

    fn set_membership(&self, membership: Option<Arc<Membership>>) {
        if membership.is_some() {
            *lock(&self.expelled) = None;
        }
        *self.membership.write().unwrap_or_else(PoisonError::into_inner) = membership;
    }

    // ---- resume ------------------------------------------------------------------------------------------------------

    /// Comes back into the cluster that the state directory knows, if any.
    ///
    /// # Errors
    /// [`RunError`] when the state is damaged or the address cannot be had.
    pub(super) async fn resume(&self) -> Result<(), RunError> {
        let _changing = self.changing.lock().await;
        let Some(stored) = lock(&self.state).cluster()? else {
            self.settings.warn_of_addresses(&interface_addrs());
            return Ok(());
        };
        let addresses = Wanted::new(&stored.options, &self.settings)?.resolve()?;
        let sockets = Sockets::bind(addresses.listen)?;
        let addresses = addresses.with_bound_port(sockets.addr.port());
        let path = lock(&self.state).cluster_path();
        let trust = Trust::load(self.me(), Arc::clone(&self.state), stored, SystemTime::now())
            .map_err(|source| RunError::Membership { path, source: Box::new(source) })?;
        let life = self.new_life().map_err(RunError::Internal)?;
        // Configured ones first: the number is limited, and they are what an operator relies on.
        let mut contacts = self.resolve(&self.settings.join_remotes).await.0;
        contacts.extend(lock(&self.state).contacts());
        self.start(trust, sockets, addresses, contacts, life);
        Ok(())
    }

    fn bind(&self, options: &NodeOptions) -> Result<(Sockets, Addresses), Problem> {
        if let Some(text) = &options.data_path_addr {
            AddrSpec::without_port(text).map_err(|error| address_problem(&error))?;
        }
        let wanted = Wanted::new(options, &self.settings);
        let addresses = wanted.and_then(|wanted| wanted.resolve()).map_err(|error| address_problem(&error))?;
        let sockets = Sockets::bind(addresses.listen).map_err(|error| bind_problem(&error))?;
        let addresses = addresses.with_bound_port(sockets.addr.port());
        Ok((sockets, addresses))
    }

    // ---- init and join -----------------------------------------------------------------------------------------------

    /// Founds a cluster.
    ///
    /// # Errors
    /// A problem; nothing was changed then.
    pub(super) async fn init(&self, request: InitRequest) -> Result<InitResponse, Problem> {
        let _changing = self.changing.lock().await;
        self.refuse_second_cluster()?;
        let InitRequest { node: options, cert_expiry } = request;
        let cert_expiry = cert_expiry.as_deref().map_or(Ok(CERT_EXPIRY_DEFAULT), parse_cert_expiry)?;
        let (sockets, addresses) = self.bind(&options)?;
        let now = SystemTime::now();
        let me = new_id()?;
        let new = trust::found(me, options, cert_expiry, now).map_err(internal)?;
        let life = self.new_life().map_err(internal)?;
        let trust = self.commit(me, new)?;
        let cluster_id = trust.stored().cluster_id;
        let membership = self.start(trust, sockets, addresses, Vec::new(), life);
        let token = |role| match membership.trust.token_text(role) {
            Ok(Some(token)) => Ok(token),
            Ok(None) => Err(internal("a new cluster has no token")),
            Err(error) => Err(internal(error)),
        };
        tracing::info!(cluster = %cluster_id, listen = %addresses.listen, advertise = %addresses.advertise, "cluster founded");
        Ok(InitResponse {
            node_id: self.me(),
            cluster_id,
            advertise_addr: addresses.advertise,
            worker_token: token(Role::Worker)?,
            manager_token: token(Role::Manager)?,
        })
    }

    /// Joins a cluster.
    ///
    /// # Errors
    /// A problem; nothing was changed then.
    pub(super) async fn join(&self, request: JoinRequest) -> Result<JoinResponse, Problem> {
        let _changing = self.changing.lock().await;
        self.refuse_second_cluster()?;
        let JoinRequest { token, remotes, node: options } = request;
        let token: Token = token
            .parse()
            .map_err(|error: super::token::TokenError| ProblemKind::BadRequest.problem(error.to_string()))?;
        if remotes.is_empty() {
            return Err(ProblemKind::BadRequest.problem("no member to join through was named; give one as HOST:PORT"));
        }
        let parsed: Result<Vec<Remote>, AddrError> = remotes.iter().map(|remote| remote.parse()).collect();
        parsed.map_err(|error| address_problem(&error))?;
        let (sockets, addresses) = self.bind(&options)?;
        let (mut found, mut failures) = self.resolve(&remotes).await;
        // This node's own sockets are bound already, and answer nobody yet.
        if found.contains(&addresses.advertise) || found.contains(&sockets.addr) {
            found.retain(|addr| *addr != addresses.advertise && *addr != sockets.addr);
            failures.push(format!("{} (this node itself)", addresses.advertise));
        }
        let me = new_id()?;
        let asked = admission::ask_to_join(me, token, found, options);
        let joined = tokio::select! {
            joined = timeout(JOIN_DEADLINE, asked) => joined.unwrap_or_else(|_| {
                let tried = format!("the join was given up after {} s", JOIN_DEADLINE.as_secs());
                Err(JoinError::Unreachable(vec![tried]))
            }),
            () = self.stopping() => return Err(ProblemKind::Conflict.problem("the daemon is shutting down")),
        };
        let Joined { membership: new, role, by, mut contacts } = joined.map_err(|error| match error {
            JoinError::Refused { .. } => ProblemKind::Refused.problem(error.to_string()),
            JoinError::Unreachable(tried) => {
                failures.extend(tried);
                ProblemKind::Unreachable.problem(JoinError::Unreachable(failures).to_string())
            }
            JoinError::Trust(error) => internal(error),
        })?;
        contacts.push(by);
        contacts.retain(|addr| *addr != addresses.advertise);
        let life = self.new_life().map_err(internal)?;
        // Before the commit: a member must not forget the way back, whenever it is killed.
        lock(&self.state).save_contacts(contacts.clone()).map_err(internal)?;
        let trust = self.commit(me, new)?;
        let cluster_id = trust.stored().cluster_id;
        let membership = self.start(trust, sockets, addresses, contacts, life);
        // The node is a member now, come what may; the first exchange only fills its list.
        let _ = timeout(FIRST_EXCHANGE_DEADLINE, membership.engine.wait(|progress| progress.joined)).await;
        let nodes = count_nodes(&membership.engine).await;
        tracing::info!(cluster = %cluster_id, %role, %by, advertise = %addresses.advertise, nodes, "joined");
        Ok(JoinResponse { node_id: self.me(), cluster_id, role, admitted_by: by, nodes })
    }

    fn refuse_second_cluster(&self) -> Result<(), Problem> {
        match self.membership() {
            None => Ok(()),
            Some(membership) => Err(ProblemKind::AlreadyInCluster.problem(format!(
                "this node is already in cluster {}; use 'gossipctl leave' to leave it first",
                membership.trust.stored().cluster_id
            ))),
        }
    }

    fn commit(&self, me: NodeId, new: NewMembership) -> Result<Trust, Problem> {
        // The id first: without a membership it does no harm.
        let taken = lock(&self.state).take_id(me).map_err(TrustError::from);
        let committed = taken.and_then(|()| Trust::commit(me, Arc::clone(&self.state), new, SystemTime::now()));
        committed.map_err(|error| {
            // Contacts may be there already. What cannot be removed does no harm: they are of no use without membership.
            let _ = lock(&self.state).remove_cluster();
            internal(error)
        })
    }

    /// All of a new life that can fail, to be done before a membership is committed.
    fn new_life(&self) -> Result<NewLife, String> {
        let clock = Clock::start();
        let generation = lock(&self.state).next_generation(clock.now().unix_ms / 1_000).map_err(|e| e.to_string())?;
        let vault = lock(&self.state).vault();
        let decisions = vault.load().map_err(|e| e.to_string())?;
        let tables = vault.tables().map_err(|e| e.to_string())?;
        Ok(NewLife { clock, generation, seed: random().map_err(|e| e.to_string())?, decisions, tables })
    }

    /// Addresses of `HOST` or `HOST:PORT`, each once, and what could not be resolved.
    async fn resolve(&self, remotes: &[String]) -> (Vec<SocketAddr>, Vec<String>) {
        let mut found = Vec::new();
        let mut failures = Vec::new();
        for remote in remotes {
            match resolve_one(remote, self.settings.port).await {
                Ok(addresses) => {
                    for addr in addresses {
                        if !found.contains(&addr) {
                            found.push(addr);
                        }
                    }
                }
                Err(reason) => failures.push(format!("{remote} ({reason})")),
            }
        }
        (found, failures)
    }

    /// The protocol core of a new life.
    fn node(&self, trust: &Trust, addresses: Addresses, contacts: Vec<SocketAddr>, life: NewLife) -> Node {
        let NewLife { clock, generation, seed, decisions, tables } = life;
        let stored = trust.stored();
        let start = Start {
            cluster: stored.cluster_id,
            id: self.me(),
            generation,
            addr: addresses.advertise,
            record: self.own_record(&stored, addresses, generation),
            keyring: trust.keyring(),
            anchors: trust.anchors(),
            credential: trust.credential(),
            decisions,
            tables,
            seed,
            contacts,
            config: self.settings.protocol.clone(),
        };
        Node::new(start, clock.now())
    }

    fn start(
        &self,
        trust: Trust,
        sockets: Sockets,
        addresses: Addresses,
        contacts: Vec<SocketAddr>,
        life: NewLife,
    ) -> Arc<Membership> {
        let StoredCluster { role, options, certificate_expires_at_ms, .. } = trust.stored();
        metrics::certificate_expiry(certificate_expires_at_ms);
        let is_first = contacts.is_empty();
        let (clock, generation) = (life.clock, life.generation);
        let node = self.node(&trust, addresses, contacts, life);
        let trust = Arc::new(trust);
        let (stop, stopped) = watch::channel(false);
        let Sockets { udp, tcp, addr } = sockets;
        let hub = Arc::new(Hub::new(node.revision()));
        let shell = Shell {
            clock,
            udp,
            trust: Arc::clone(&trust),
            state: Arc::clone(&self.state),
            hub: Arc::clone(&hub),
            removed: self.removed.clone(),
        };
        let (engine, engine_task) = Engine::spawn(node, shell, stopped.clone());
        let shared: SharedAddresses = Arc::new(Mutex::new(addresses));
        let service =
            Arc::new(Service { trust: Arc::clone(&trust), engine: engine.clone(), addresses: Arc::clone(&shared) });
        let (listeners, moved) = mpsc::channel(1);
        let accept = tokio::spawn(server::serve(tcp, moved, service, stopped.clone()));
        let upkeep =
            tokio::spawn(maintain(Arc::clone(&trust), engine.clone(), Arc::clone(&self.state), stopped.clone()));
        let leases = Leases::resume(engine.clone(), lock(&self.state).vault());
        let mut tasks = vec![engine_task, accept, upkeep];
        let roams = Wanted::new(&options, &self.settings).ok().and_then(|wanted| wanted.roams(&addresses));
        if let Some(wanted) = roams {
            let roaming = Roaming { wanted, addresses: Arc::clone(&shared), engine: engine.clone(), listeners };
            tasks.push(tokio::spawn(roaming.follow(stopped)));
        }
        let tasks = Mutex::new(tasks);
        if let Some(doubt) = addresses.doubt(&interface_addrs()) {
            tracing::warn!(%addr, advertise = %addresses.advertise, "{doubt}");
        }
        tracing::info!(%addr, advertise = %addresses.advertise, data_path = %addresses.data_path, generation, %role, "gossip listens");
        let membership = Arc::new(Membership {
            trust,
            engine,
            leadership: Arc::default(),
            leases,
            hub,
            addresses: shared,
            is_first,
            stop,
            tasks,
        });
        self.set_membership(Some(Arc::clone(&membership)));
        membership
    }

    // ---- leave -------------------------------------------------------------------------------------------------------

    /// Leaves the cluster for good: says goodbye, then forgets it.
    ///
    /// # Errors
    /// A problem; unless it says otherwise this node is still a member.
    pub(super) async fn leave(&self, force: bool) -> Result<LeaveResponse, Problem> {
        let _changing = self.changing.lock().await;
        let membership = self.member()?;
        if !force && membership.trust.role() == Role::Manager {
            let others = membership.engine.query(|node| node.managers().len()).await.map_err(internal)?;
            if others == 0 {
                return Err(ProblemKind::Conflict.problem(
                    "this is the last manager: without it nobody can join the cluster any more, nor renew a certificate; use --force to leave all the same",
                ));
            }
        }
        let acknowledged = say_goodbye(&membership).await;
        membership.stop(CloseReason::Left).await;
        self.set_membership(None);
        membership.trust.retire().map_err(|error| {
            internal(format!("this node has left, but a restart would bring it back into the cluster: {error}"))
        })?;
        tracing::info!(acknowledged, "left the cluster");
        Ok(LeaveResponse { acknowledged })
    }

    /// This node was removed from its cluster: nobody there speaks with it any more. It forgets the cluster.
    pub(super) async fn expel(&self, decision: &Decision) {
        let _changing = self.changing.lock().await;
        let Some(membership) = self.membership() else { return };
        let at = rfc3339(decision.stamp.at.ms());
        let reason = decision.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        let why = format!(
            "this node was removed from its cluster by {} at {at}{reason}; use 'gossipctl join' to join one as a new node",
            decision.stamp.signer
        );
        tracing::error!(by = %decision.stamp.signer, at, reason = decision.reason, "removed from the cluster");
        membership.stop(CloseReason::Removed).await;
        self.set_membership(None);
        *lock(&self.expelled) = Some(why);
        if let Err(error) = membership.trust.retire() {
            tracing::error!(%error, "the state directory still says otherwise: remove it by hand");
        }
    }

    /// Returns once the daemon is to stop.
    async fn stopping(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Ends the tasks of membership, after the last word that the configuration asks for; the cluster is not forgotten.
    pub(super) async fn shut_down(&self) {
        self.is_stopping.send_replace(true);
        let _changing = self.changing.lock().await;
        let Some(membership) = self.membership() else { return };
        match (self.settings.on_terminate, self.settings.restart_grace_s) {
            (OnTerminate::Leave, _) => {
                say_goodbye(&membership).await;
            }
            (OnTerminate::Stop, 0) => {}
            (OnTerminate::Stop, grace_s) => {
                let acknowledged = last_word(&membership, Command::Away(grace_s), AWAY_DEADLINE).await;
                tracing::info!(grace_s, acknowledged, "restart announced");
            }
        }
        save_contacts(&membership.engine, &self.state, &mut Vec::new()).await;
        membership.stop(CloseReason::Shutdown).await;
        self.set_membership(None);
    }

    // ---- unattended --------------------------------------------------------------------------------------------------

    /// Joins through the configured members with the configured token, and tries until it works or somebody else has
    /// founded or joined a cluster.
    pub(super) async fn join_unattended(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let Some(token_file) = self.settings.join_token_file.clone() else { return };
        let mut pause = Duration::from_secs(1);
        while self.membership().is_none() {
            let attempt = async {
                let token = read_token(&token_file)?;
                let remotes = self.settings.join_remotes.clone();
                self.join(JoinRequest { token, remotes, node: NodeOptions::default() }).await
            };
            match attempt.await {
                Ok(_) => return,
                Err(problem) if problem.known_kind() == Some(ProblemKind::AlreadyInCluster) => return,
                Err(problem) => {
                    tracing::warn!(error = %problem, retry_in = ?pause, "unattended join failed");
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(UNATTENDED_PAUSE_MAX);
        }
    }
}

fn read_token(path: &Path) -> Result<String, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| internal(format!("cannot read join.token_file {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

async fn say_goodbye(membership: &Membership) -> bool {
    last_word(membership, Command::Leave, LEAVE_DEADLINE).await
}

/// Has the node say that it goes, and waits until somebody has heard it; `false`: nobody has within `deadline`.
async fn last_word(membership: &Membership, word: Command, deadline: Duration) -> bool {
    let said = async {
        membership.engine.command(word).await.ok()?;
        membership.engine.wait(|Progress { left, .. }| left.is_some()).await.ok()?.left
    };
    timeout(deadline, said).await.ok().flatten().unwrap_or(false)
}

/// Members that have not left, this node included.
pub(super) async fn count_nodes(engine: &Engine) -> usize {
    let count = |node: &Node| node.count_by_status().iter().filter(|(s, _)| **s != Status::Left).map(|(_, n)| n).sum();
    engine.query(count).await.unwrap_or(1)
}

async fn resolve_one(remote: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let remote: Remote = remote.parse().map_err(|error: AddrError| error.to_string())?;
    // Port 0 is for listening: the system chooses one.
    remote.resolve(if port == 0 { DEFAULT_PORT } else { port }).await
}

fn parse_cert_expiry(text: &str) -> Result<Duration, Problem> {
    let bad = |reason: String| ProblemKind::BadRequest.problem(format!("cert expiry {text:?}: {reason}"));
    let expiry =
        humantime::parse_duration(text).map_err(|error| bad(format!("{error}; expected for example 2160h")))?;
    if expiry < CERT_EXPIRY_MIN || expiry > CERT_EXPIRY_MAX {
        return Err(bad("expected 1h to 20 years".to_owned()));
    }
    Ok(expiry)
}

impl From<TrustError> for Problem {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::NotManager => ProblemKind::NotManager.problem(
                "this node is a worker; join tokens are kept by managers only: ask on a manager (see 'gossipctl members')",
            ),
            other => internal(other),
        }
    }
}
