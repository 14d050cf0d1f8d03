//! How a node gets in, stays in, and how managers agree on tokens: both ends of `wire::admission`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::metrics;
use super::stream::{Connection, PATIENCE_MAX, StreamError, Topic};
use super::token::{Refusal, Token, secret_digest};
use super::trust::{NewMembership, Trust, TrustError, admitted};
use super::{tls, unix_ms};
use crate::api::NodeOptions;
use crate::ca::{Issued, NodeKey};
use crate::node::{Command, Node, Peer};
use crate::record::decision::{DecisionKey, Register, Subject, TokenLimits, Verdict};
use crate::record::{NodeId, Role};
use crate::wire::admission::{ManagerSecrets, Reply, Request, possession};
use crate::wire::credential::ca_digest;

/// Managers that a worker names.
const MANAGERS_NAMED: usize = 8;
/// Managers asked at once for their tokens.
const MANAGERS_ASKED_AT_ONCE: usize = 8;
/// Addresses that a joiner tries in all, those that workers name included.
const REMOTES_MAX: usize = 64;

// ---- answering -------------------------------------------------------------------------------------------------------

/// Answers a request about admission. `peer` is none for strangers.
pub(super) async fn answer(
    trust: &Arc<Trust>,
    engine: &Engine,
    me: SocketAddr,
    peer: Option<Peer>,
    body: &[u8],
) -> Vec<u8> {
    let reply = match Request::from_bytes(body) {
        Err(error) => Reply::Refused(format!("{error}; do both nodes run compatible versions of gossipd?")),
        Ok(Request::Managers) => managers(trust, engine, me).await,
        Ok(Request::Join { node_id, secret, public_key, proof }) => {
            join(trust, engine, node_id, &secret, public_key, &proof).await
        }
        Ok(Request::Renew { public_key, proof, ca }) => match peer {
            None => Reply::Refused("only a member can renew a certificate".to_owned()),
            Some(peer) => renew_for(trust, engine, peer, &ca, (public_key, &proof)).await,
        },
        Ok(Request::ManagerSync { tokens }) => match peer {
            Some(peer) if is_manager(engine, peer).await => match trust.merge_tokens(tokens) {
                Ok(tokens) => Reply::Secrets { tokens, cas: trust.ca_secrets() },
                Err(error) => Reply::Refused(error.to_string()),
            },
            _ => Reply::Refused("only a manager may ask for tokens".to_owned()),
        },
    };
    reply.to_bytes()
}

/// What was decided about the join token of a role.
pub(super) fn decided_token(node: &Node, role: Role) -> Option<TokenLimits> {
    let key = DecisionKey { subject: Subject::Cluster, register: Register::Token(role) };
    match node.decision(&key)?.verdict {
        Verdict::Token(_, limits) => Some(limits),
        _ => None,
    }
}

/// Is it one, whatever its certificate still says?
async fn is_manager(engine: &Engine, Peer { id, role }: Peer) -> bool {
    let known = engine.query(move |node| (node.removal(id).is_some(), node.decided(id).role())).await;
    known.is_ok_and(|(is_removed, decided)| !is_removed && decided.unwrap_or(role) == Role::Manager)
}

/// A new certificate for a member, with the role that was decided for it.
async fn renew_for(
    trust: &Trust,
    engine: &Engine,
    peer: Peer,
    ca: &[u8; 32],
    (public_key, proof): ([u8; 32], &[u8]),
) -> Reply {
    let asked = engine.query(move |node| (node.removal(peer.id).is_some(), node.decided(peer.id)));
    let Ok((is_removed, decided)) = asked.await else {
        return Reply::Refused("the manager is shutting down; try another one".to_owned());
    };
    if is_removed {
        return Reply::Refused(format!("node {} was removed from the cluster", peer.id));
    }
    let decided_ms = decided.role.as_ref().map_or(0, |decision| decision.stamp.at.ms());
    let role = decided.role().unwrap_or(peer.role);
    match trust.renew(peer.id, (role, decided_ms), ca, public_key, proof, SystemTime::now()) {
        Ok((Issued { certificate, expires_at_ms }, manager)) => Reply::Renewed { certificate, expires_at_ms, manager },
        Err(error) => Reply::Refused(error.to_string()),
    }
}

async fn managers(trust: &Trust, engine: &Engine, me: SocketAddr) -> Reply {
    let mut managers = engine.query(|node| node.managers()).await.unwrap_or_default();
    if trust.role() == Role::Manager {
        managers.insert(0, (trust.me, me));
    }
    managers.truncate(MANAGERS_NAMED);
    Reply::Managers(managers)
}

async fn join(
    trust: &Arc<Trust>,
    engine: &Engine,
    joiner: NodeId,
    secret: &[u8; 16],
    public_key: [u8; 32],
    proof: &[u8],
) -> Reply {
    // The secret first: a stranger without one costs no more than this.
    let role = match trust.check_secret(secret, SystemTime::now()) {
        Ok(role) => role,
        Err(error) => return refused(joiner, error),
    };
    let asked = engine.query(move |node| (node.entries(), node.removal(joiner), decided_token(node, role)));
    let Ok((members, removed, decided)) = asked.await else {
        return Reply::Refused("the manager is shutting down; try another one".to_owned());
    };
    // Another manager has replaced it, and has not told this one the new secret yet.
    if decided.is_some_and(|limits| limits.secret_digest != Some(secret_digest(secret))) {
        return refused(joiner, Refusal::Unknown.into());
    }
    if removed.is_some() {
        let reason =
            format!("node {joiner} was removed from the cluster; remove its state directory to join as a new node");
        return refused(joiner, TrustError::Refused(reason));
    }
    match trust.admit(joiner, secret, public_key, proof, members, SystemTime::now()) {
        Ok(admission) => {
            // The other managers are to know of this use before the next one.
            if trust.is_limited(admission.role) {
                sync_managers(trust, engine).await;
            }
            metrics::admission("admitted");
            tracing::info!(node = %joiner, role = %admission.role, "node admitted");
            Reply::Admitted(Box::new(admission))
        }
        Err(error) => refused(joiner, error),
    }
}

fn refused(joiner: NodeId, error: TrustError) -> Reply {
    metrics::admission("refused");
    match error {
        TrustError::Refused(reason) => {
            // Strangers can cause this line: not above DEBUG. The joiner is told, and the metric counts.
            tracing::debug!(node = %joiner, reason, "join refused");
            Reply::Refused(reason)
        }
        TrustError::NotManager => Reply::Refused("this node is a worker and admits nobody".to_owned()),
        // The manager's own trouble: its log has the details.
        other => {
            tracing::error!(error = %other, "admission failed");
            Reply::Refused("the manager cannot admit anybody at present; see its log".to_owned())
        }
    }
}

// ---- asking ----------------------------------------------------------------------------------------------------------

/// A join did not work. Nothing was changed on this node.
#[derive(Debug, thiserror::Error)]
pub(super) enum JoinError {
    /// A manager said no.
    #[error("{addr} refused: {reason}")]
    Refused {
        /// The manager.
        addr: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// Every address was tried.
    #[error("no manager of the cluster was reached; tried {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// This node's own trouble.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// What a join brought.
pub(super) struct Joined {
    /// To be committed.
    pub membership: NewMembership,
    /// The role given.
    pub role: Role,
    /// Who admitted this node.
    pub by: SocketAddr,
    /// Where the members are.
    pub contacts: Vec<SocketAddr>,
}

/// Asks the members at `remotes` in turn to let this node in. A worker names the managers, which are asked next; the
/// secret is shown only to a manager of the cluster that the token names.
///
/// # Errors
/// [`JoinError`]: the first refusal by a manager, or what became of each address.
pub(super) async fn ask_to_join(
    me: NodeId,
    token: Token,
    remotes: Vec<SocketAddr>,
    options: NodeOptions,
) -> Result<Joined, JoinError> {
    let key = NodeKey::generate().map_err(TrustError::from)?;
    let config = tls::joiner(token.ca_digest).map_err(TrustError::from)?;
    let mut queue = remotes;
    let mut failures = Vec::new();
    let mut at = 0;
    while let Some(addr) = queue.get(at).copied() {
        at += 1;
        let connection = match Connection::open(addr, Arc::clone(&config), PATIENCE_MAX).await {
            Ok(connection) => connection,
            Err(error) => {
                failures.push(format!("{addr} ({error})"));
                continue;
            }
        };
        if connection.peer.role != Role::Manager {
            match ask_worker(connection).await {
                Ok(managers) if managers.is_empty() => {
                    failures.push(format!("{addr} (a worker that knows no manager)"));
                }
                Ok(managers) => {
                    failures.push(format!("{addr} (a worker)"));
                    for manager in managers {
                        if !queue.contains(&manager) && queue.len() < REMOTES_MAX {
                            queue.push(manager);
                        }
                    }
                }
                Err(error) => failures.push(format!("{addr} ({error})")),
            }
            continue;
        }
        match ask_manager(me, &token, &key, connection).await {
            Ok((Reply::Admitted(admission), ca_certificate)) => {
                let contacts = admission.members.iter().map(|member| member.addr).collect();
                let role = admission.role;
                let membership = admitted(&admission, ca_certificate, &key, options, SystemTime::now());
                return Ok(Joined { membership, role, by: addr, contacts });
            }
            Ok((Reply::Refused(reason), _)) => return Err(JoinError::Refused { addr, reason }),
            Ok(_) => failures.push(format!("{addr} (an unexpected answer)")),
            Err(error) => failures.push(format!("{addr} ({error})")),
        }
    }
    Err(JoinError::Unreachable(failures))
}

async fn ask_worker(connection: Connection) -> Result<Vec<SocketAddr>, StreamError> {
    let reply = connection.ask(Topic::Admission, &Request::Managers.to_bytes()).await?;
    Ok(match Reply::from_bytes(&reply) {
        Ok(Reply::Managers(managers)) => managers.into_iter().map(|(_, addr)| addr).collect(),
        _ => Vec::new(),
    })
}

async fn ask_manager(
    me: NodeId,
    token: &Token,
    key: &NodeKey,
    connection: Connection,
) -> Result<(Reply, Vec<u8>), StreamError> {
    let failed = |error: String| StreamError::Message(std::io::Error::other(error));
    let ca_certificate = connection.certificate(&token.ca_digest).ok_or(StreamError::WrongCluster)?;
    let public_key = key.public().ok_or_else(|| failed("no usable key".to_owned()))?;
    let proof = key.sign(&possession(&token.ca_digest, me)).map_err(|error| failed(error.to_string()))?;
    let request = Request::Join { node_id: me, secret: token.secret, public_key, proof };
    let reply = connection.ask(Topic::Admission, &request.to_bytes()).await?;
    let reply = Reply::from_bytes(&reply).map_err(|error| failed(error.to_string()))?;
    Ok((reply, ca_certificate))
}

async fn ask_member(trust: &Trust, addr: SocketAddr, request: &Request) -> Result<(Peer, Reply), StreamError> {
    let connection = Connection::open(addr, Arc::clone(&trust.configs().client), PATIENCE_MAX).await?;
    let peer = connection.peer;
    // What only managers may hear is said to managers only.
    if peer.role != Role::Manager || peer.id == trust.me {
        return Err(StreamError::NoPeer);
    }
    let reply = connection.ask(Topic::Admission, &request.to_bytes()).await?;
    let reply = Reply::from_bytes(&reply).map_err(|error| StreamError::Message(std::io::Error::other(error)))?;
    Ok((peer, reply))
}

/// A certificate just got, its key, and for managers what managers know.
type Certificate = (NodeKey, Issued, Option<ManagerSecrets>);

/// Renews this node's certificate, with the role that was decided for it.
///
/// # Errors
/// A text for the log; the old certificate stays in force.
pub(super) async fn renew(trust: &Trust, engine: &Engine) -> Result<(), String> {
    let (key, issued, secrets) = get_certificate(trust, engine, &trust.stored().ca_certificate).await?;
    trust.install(&key, issued, secrets, SystemTime::now()).map_err(|e| e.to_string())?;
    tell_certificate(trust, engine).await
}

/// Gets a certificate of another CA, and holds it ready.
///
/// # Errors
/// A text for the log; nothing has changed.
pub(super) async fn get_ready(trust: &Trust, engine: &Engine, ca_certificate: &[u8]) -> Result<(), String> {
    let (key, issued, _) = get_certificate(trust, engine, ca_certificate).await?;
    trust.hold_ready(ca_certificate.to_vec(), &key, issued, SystemTime::now()).map_err(|e| e.to_string())?;
    tell_certificate(trust, engine).await
}

/// A manager that stays one and has the CA's key issues its certificate itself, others ask the managers in turn.
async fn get_certificate(trust: &Trust, engine: &Engine, ca_certificate: &[u8]) -> Result<Certificate, String> {
    let ca = ca_digest(ca_certificate);
    let key = NodeKey::generate().map_err(|e| e.to_string())?;
    let public_key = key.public().ok_or("no usable key")?;
    let proof = key.sign(&possession(&ca, trust.me)).map_err(|e| e.to_string())?;
    let now = SystemTime::now();
    let me = trust.me;
    let decided = engine.query(move |node| node.decided(me)).await.map_err(|e| e.to_string())?;
    if trust.role() == Role::Manager && decided.role() != Some(Role::Worker) && trust.has_ca_key(ca_certificate) {
        let role = (Role::Manager, decided.role.as_ref().map_or(0, |decision| decision.stamp.at.ms()));
        let (issued, _) = trust.renew(me, role, &ca, public_key, &proof, now).map_err(|e| e.to_string())?;
        return Ok((key, issued, None));
    }
    let request = Request::Renew { public_key, proof, ca };
    let managers = engine.query(|node| node.managers()).await.map_err(|e| e.to_string())?;
    let mut last = "no manager is known".to_owned();
    for (_, addr) in managers {
        match ask_member(trust, addr, &request).await {
            Ok((_, Reply::Renewed { certificate, expires_at_ms, manager })) if expires_at_ms > unix_ms(now) => {
                return Ok((key, Issued { certificate, expires_at_ms }, manager));
            }
            Ok((_, Reply::Refused(reason))) => last = format!("{addr} refused: {reason}"),
            Ok(_) => last = format!("{addr} gave an unexpected answer"),
            Err(error) => last = format!("{addr}: {error}"),
        }
    }
    Err(last)
}

/// Signs with the certificate that is in force now, and tells others of it.
///
/// # Errors
/// The daemon is stopping.
pub(super) async fn tell_certificate(trust: &Trust, engine: &Engine) -> Result<(), String> {
    let mut details = engine.query(|node| node.details()).await.map_err(|e| e.to_string())?;
    details.certificate_expires_at_ms = trust.stored().certificate_expires_at_ms;
    (details.certificate_ca, details.reserve_ca) = trust.ca_tags();
    for command in [Command::Credential(trust.credential()), Command::Describe(Box::new(details))] {
        engine.command(command).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Tells all other managers this one's tokens and takes in theirs. Returns those that have not confirmed.
pub(super) async fn sync_managers(trust: &Arc<Trust>, engine: &Engine) -> Vec<NodeId> {
    let Ok(managers) = engine.query(|node| node.managers()).await else { return Vec::new() };
    let Ok(tokens) = trust.tokens() else { return Vec::new() };
    let request = Request::ManagerSync { tokens: tokens.records().to_vec() };
    let mut asked = JoinSet::new();
    let at_once = Arc::new(Semaphore::new(MANAGERS_ASKED_AT_ONCE));
    for (id, addr) in managers {
        let (trust, request, at_once) = (Arc::clone(trust), request.clone(), Arc::clone(&at_once));
        asked.spawn(async move {
            // Never closed, so always given.
            let _place = at_once.acquire().await;
            let confirmed = match tokio::time::timeout(Duration::from_secs(5), ask_member(&trust, addr, &request)).await
            {
                Ok(Ok((peer, Reply::Secrets { tokens, cas }))) => {
                    if let Err(error) = trust.merge_tokens(tokens).and_then(|_| trust.merge_cas(cas, SystemTime::now()))
                    {
                        tracing::warn!(%error, "what another manager knows could not be stored");
                    }
                    peer.id == id
                }
                _ => false,
            };
            (!confirmed).then_some(id)
        });
    }
    let mut unconfirmed: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
    unconfirmed.sort_unstable();
    unconfirmed
}
