//! Membership as this daemon holds it: stored on the disk first, then in force.
//!
//! One place owns the certificate, the keys and, on managers, the CA and the tokens. Every change is written to the
//! state directory before it counts; a write that fails leaves everything as it was.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::state::{StateDir, StateError, StoredAnchor, StoredCa, StoredCluster, StoredKey, StoredManager};
use super::tls::{self, Configs, peer_of};
use super::token::{Refusal, Token, Tokens};
use super::unix_ms;
use crate::api::NodeOptions;
use crate::ca::{Authority, CaError, Issued, NodeKey, random, verify};
use crate::node::Peer;
use crate::record::{ClusterId, NodeId, Role};
use crate::wire::Keyring;
use crate::wire::admission::{Admission, CaSecret, ManagerSecrets, TokenRecord, possession};
use crate::wire::credential::{Anchor, Anchors, Certified, Credential, CredentialError, ca_digest};
use crate::wire::exchange::{Liveness, MemberEntry};

mod cas;

/// Membership could not be made, loaded or changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Keys or certificates.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A certificate or a key that cannot be used for signatures.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Keys or certificates that do not fit together.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The stored or received key ring is unusable.
    #[error(transparent)]
    Ring(#[from] crate::wire::frame::BadKeyring),
    /// The certificate is another node's.
    #[error("its certificate belongs to another node than this one, {0}: was node.json removed or replaced?")]
    Foreign(NodeId),
    /// This node has left the cluster meanwhile.
    #[error("this node has left the cluster")]
    Retired,
    /// Only managers can do that.
    #[error("this node is a worker")]
    NotManager,
    /// The asker's fault; to be told to it.
    #[error("{0}")]
    Refused(String),
}

impl From<Refusal> for TrustError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

/// The state directory, shared by those who write it.
pub(super) type SharedState = Arc<Mutex<StateDir>>;

/// Locks, also after a panic elsewhere: the data behind these locks is replaced as a whole, never half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Inner {
    stored: StoredCluster,
    ring: Keyring,
    credential: Credential,
    anchors: Anchors,
    /// In the order of the stored CAs.
    authorities: Vec<Authority>,
    /// The node has left: nothing may be stored any more, or it would be a member again after a restart.
    is_retired: bool,
}

impl Inner {
    fn save(&self, state: &SharedState, stored: &StoredCluster) -> Result<(), TrustError> {
        if self.is_retired {
            return Err(TrustError::Retired);
        }
        Ok(lock(state).save_cluster(stored)?)
    }

    /// The CA of that digest, if this manager has its key, and what managers know.
    fn authority(&self, ca: &[u8; 32]) -> Result<(&Authority, &StoredManager), TrustError> {
        let manager = self.stored.manager.as_ref().ok_or(TrustError::NotManager)?;
        let mut held = manager.cas.iter().zip(&self.authorities);
        let found = held.find(|(stored, _)| ca_digest(&stored.certificate) == *ca);
        let (_, authority) = found.ok_or_else(|| {
            TrustError::Refused("this manager does not have the key of that CA; ask another one".to_owned())
        })?;
        Ok((authority, manager))
    }
}

fn authorities(stored: &StoredCluster, now: SystemTime) -> Result<Vec<Authority>, TrustError> {
    let cas = stored.manager.iter().flat_map(|manager| &manager.cas);
    Ok(cas.map(|ca| Authority::load(stored.cluster_id, &ca.key, now)).collect::<Result<_, _>>()?)
}

fn anchors(stored: &StoredCluster) -> Result<Anchors, TrustError> {
    let trusted: Vec<_> = stored.trusted.iter().map(|anchor| anchor.certificate.as_slice()).collect();
    Ok(Anchors::new(&trusted)?)
}

fn configs(stored: &StoredCluster) -> Result<Configs, TrustError> {
    let StoredCluster { trusted, ca_certificate, certificate, private_key, .. } = stored;
    let trusted = trusted.iter().map(|anchor| anchor.certificate.as_slice());
    Ok(tls::member(trusted, ca_certificate, certificate, private_key)?)
}

/// This node's membership of one cluster.
pub(super) struct Trust {
    /// This node.
    pub me: NodeId,
    state: SharedState,
    inner: Mutex<Inner>,
    configs: RwLock<Arc<Configs>>,
    /// Somebody has shown a certificate of a CA that is not trusted here.
    has_met_unknown_ca: AtomicBool,
}

/// A membership that is not stored yet.
pub(super) struct NewMembership(StoredCluster);

/// Makes a new cluster with this node as its first manager.
///
/// # Errors
/// [`TrustError::Ca`] without randomness.
pub(super) fn found(
    me: NodeId,
    options: NodeOptions,
    cert_expiry: Duration,
    now: SystemTime,
) -> Result<NewMembership, TrustError> {
    let cluster_id = ClusterId::from_bytes(random()?);
    let (ca_certificate, ca_key, authority) = Authority::create(cluster_id, NodeKey::generate()?, now)?;
    let key = NodeKey::generate()?;
    let public = key.public().ok_or(CaError::Randomness)?;
    let Issued { certificate, expires_at_ms } =
        authority.issue(me, Role::Manager, public, cert_expiry, now, unix_ms(now))?;
    let tokens = Tokens::first(me, [(Role::Worker, random()?), (Role::Manager, random()?)]);
    let [key_id] = random::<1>()?;
    Ok(NewMembership(StoredCluster {
        format: StoredCluster::FORMAT,
        cluster_id,
        role: Role::Manager,
        joined_at_ms: unix_ms(now),
        options,
        trusted: vec![StoredAnchor { certificate: ca_certificate.clone() }],
        reserve: None,
        ca_certificate: ca_certificate.clone(),
        certificate,
        private_key: key.to_der(),
        certificate_issued_at_ms: unix_ms(now),
        certificate_expires_at_ms: expires_at_ms,
        data_path: None,
        primary_key: key_id,
        keys: vec![StoredKey { id: key_id, key: random()? }],
        manager: Some(StoredManager {
            cas: vec![StoredCa { certificate: ca_certificate, key: ca_key }],
            tokens: tokens.records().to_vec(),
            cert_expiry_s: cert_expiry.as_secs(),
        }),
    }))
}

/// Membership from what a manager admitted this node with.
pub(super) fn admitted(
    admission: &Admission,
    ca_certificate: Vec<u8>,
    key: &NodeKey,
    options: NodeOptions,
    now: SystemTime,
) -> NewMembership {
    let Admission { cluster, role, certificate, expires_at_ms, primary_key, keys, trusted, members: _, manager } =
        admission;
    let anchor = |certificate: &Vec<u8>| StoredAnchor { certificate: certificate.clone() };
    NewMembership(StoredCluster {
        format: StoredCluster::FORMAT,
        cluster_id: *cluster,
        role: *role,
        joined_at_ms: unix_ms(now),
        options,
        trusted: trusted.iter().map(anchor).collect(),
        reserve: None,
        ca_certificate,
        certificate: certificate.clone(),
        private_key: key.to_der(),
        certificate_issued_at_ms: unix_ms(now),
        certificate_expires_at_ms: *expires_at_ms,
        data_path: None,
        primary_key: *primary_key,
        keys: keys.iter().map(|(id, key)| StoredKey { id: *id, key: *key }).collect(),
        manager: manager.clone().map(stored_manager),
    })
}

/// Are two thirds of a certificate's life over?
fn is_mostly_over(issued_at_ms: u64, expires_at_ms: u64, now: SystemTime) -> bool {
    unix_ms(now) >= issued_at_ms + expires_at_ms.saturating_sub(issued_at_ms) / 3 * 2
}

fn stored_ca(CaSecret { certificate, key }: CaSecret) -> StoredCa {
    StoredCa { certificate, key }
}

fn ca_secrets(manager: &StoredManager) -> Vec<CaSecret> {
    let secret = |ca: &StoredCa| CaSecret { certificate: ca.certificate.clone(), key: ca.key.clone() };
    manager.cas.iter().map(secret).collect()
}

fn stored_manager(ManagerSecrets { cas, tokens, cert_expiry_s }: ManagerSecrets) -> StoredManager {
    StoredManager { cas: cas.into_iter().map(stored_ca).collect(), tokens, cert_expiry_s }
}

fn secrets(manager: &StoredManager) -> ManagerSecrets {
    let StoredManager { cas: _, tokens, cert_expiry_s } = manager;
    ManagerSecrets { cas: ca_secrets(manager), tokens: tokens.clone(), cert_expiry_s: *cert_expiry_s }
}

impl Trust {
    /// Puts a membership in force that is on the disk already.
    ///
    /// # Errors
    /// [`TrustError`] when it is damaged.
    pub(super) fn load(
        me: NodeId,
        state: SharedState,
        stored: StoredCluster,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        // What joiners are shown must be readable, trusted or not.
        Anchor::new(&stored.ca_certificate)?;
        let configs = configs(&stored)?;
        let authorities = authorities(&stored, now)?;
        let named = peer_of(&CertificateDer::from(stored.certificate.as_slice()));
        if named != Some(Peer { id: me, role: stored.role }) {
            return Err(TrustError::Foreign(me));
        }
        let ring = Keyring::new(stored.primary_key, stored.keys.iter().map(|StoredKey { id, key }| (*id, *key)))?;
        let credential = Credential::new(&stored.certificate, &stored.private_key)?;
        let anchors = anchors(&stored)?;
        let inner = Mutex::new(Inner { stored, ring, credential, anchors, authorities, is_retired: false });
        Ok(Self {
            me,
            state,
            inner,
            configs: RwLock::new(Arc::new(configs)),
            has_met_unknown_ca: AtomicBool::new(false),
        })
    }

    /// Stores a new membership and puts it in force: from here on this node has joined.
    ///
    /// # Errors
    /// [`TrustError`]; nothing is stored then.
    pub(super) fn commit(
        me: NodeId,
        state: SharedState,
        new: NewMembership,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let NewMembership(stored) = new;
        let trust = Self::load(me, Arc::clone(&state), stored.clone(), now)?;
        lock(&state).save_cluster(&stored)?;
        Ok(trust)
    }

    /// Forgets the membership on the disk; nothing is stored from then on.
    ///
    /// # Errors
    /// [`TrustError::State`]; the membership stays on the disk.
    pub(super) fn retire(&self) -> Result<(), TrustError> {
        let mut inner = lock(&self.inner);
        inner.is_retired = true;
        Ok(lock(&self.state).remove_cluster()?)
    }

    /// Which role would this secret give? Asked before any work is done for a stranger.
    ///
    /// # Errors
    /// [`TrustError::Refused`] is to be told to the joiner.
    pub(super) fn check_secret(&self, secret: &[u8; 16], now: SystemTime) -> Result<Role, TrustError> {
        Ok(self.tokens()?.admit(secret, self.me, unix_ms(now))?)
    }

    /// Is this a token whose uses are limited?
    pub(super) fn is_limited(&self, role: Role) -> bool {
        self.tokens().is_ok_and(|tokens| tokens.get(role).is_some_and(|record| record.max_uses.is_some()))
    }

    /// The data-path address with which attachments are written now.
    ///
    /// # Errors
    /// [`TrustError`]; the old one stays noted.
    pub(super) fn note_data_path(&self, addr: IpAddr) -> Result<(), TrustError> {
        let mut inner = lock(&self.inner);
        let stored = StoredCluster { data_path: Some(addr), ..inner.stored.clone() };
        inner.save(&self.state, &stored)?;
        inner.stored = stored;
        Ok(())
    }

    /// What is stored.
    pub(super) fn stored(&self) -> StoredCluster {
        lock(&self.inner).stored.clone()
    }

    /// The role that this node's certificate gives it.
    pub(super) fn role(&self) -> Role {
        lock(&self.inner).stored.role
    }

    /// SHA-256 of the certificate of the CA in use.
    pub(super) fn ca_digest(&self) -> [u8; 32] {
        ca_digest(&lock(&self.inner).stored.ca_certificate)
    }

    /// The datagram keys.
    pub(super) fn keyring(&self) -> Keyring {
        lock(&self.inner).ring.clone()
    }

    /// What decisions are verified against.
    pub(super) fn anchors(&self) -> Anchors {
        lock(&self.inner).anchors.clone()
    }

    /// What this node signs decisions with.
    pub(super) fn credential(&self) -> Credential {
        lock(&self.inner).credential.clone()
    }

    /// TLS configurations with the present certificate.
    pub(super) fn configs(&self) -> Arc<Configs> {
        Arc::clone(&self.configs.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Admits a joiner that showed `secret`.
    ///
    /// # Errors
    /// [`TrustError::Refused`] is to be told to the joiner.
    pub(super) fn admit(
        &self,
        joiner: NodeId,
        secret: &[u8; 16],
        public_key: [u8; 32],
        proof: &[u8],
        members: Vec<MemberEntry>,
        now: SystemTime,
    ) -> Result<Admission, TrustError> {
        if joiner == self.me {
            return Err(TrustError::Refused(format!(
                "the manager itself has the node id {joiner}: the joiner's state directory is a copy of the manager's; remove it and join again"
            )));
        }
        if members.iter().any(|member| member.id == joiner && member.liveness != Liveness::Down) {
            return Err(TrustError::Refused(format!(
                "node {joiner} is a member already and answers: if it has just left, try again in a few seconds; if this machine's state directory is a copy, remove it and join again"
            )));
        }
        if !verify(&public_key, &possession(&self.ca_digest(), joiner), proof) {
            return Err(TrustError::Refused("the joiner does not hold the key that it wants certified".to_owned()));
        }
        let mut inner = lock(&self.inner);
        let (authority, manager) = inner.authority(&ca_digest(&inner.stored.ca_certificate))?;
        let mut tokens = Tokens::new(manager.tokens.clone());
        let role = tokens.admit(secret, self.me, unix_ms(now))?;
        let validity = Duration::from_secs(manager.cert_expiry_s);
        let Issued { certificate, expires_at_ms } =
            authority.issue(joiner, role, public_key, validity, now, unix_ms(now))?;
        let secrets = ManagerSecrets { tokens: tokens.records().to_vec(), ..secrets(manager) };
        // Unlimited tokens need no exact count on the disk; a limited one does, or a restart would forget uses.
        if tokens.get(role).is_some_and(|record| record.max_uses.is_some()) {
            self.store_tokens(&mut inner, &tokens)?;
        }
        Ok(Admission {
            cluster: inner.stored.cluster_id,
            role,
            certificate,
            expires_at_ms,
            primary_key: inner.stored.primary_key,
            keys: inner.stored.keys.iter().map(|StoredKey { id, key }| (*id, *key)).collect(),
            trusted: inner.stored.trusted.iter().map(|anchor| anchor.certificate.clone()).collect(),
            members,
            manager: (role == Role::Manager).then_some(secrets),
        })
    }

    /// A new certificate for a member, and for a manager what managers know. It counts as issued after `decided_ms`, when
    /// its role was decided.
    ///
    /// # Errors
    /// [`TrustError::Refused`] is to be told to the member.
    pub(super) fn renew(
        &self,
        member: NodeId,
        (role, decided_ms): (Role, u64),
        ca: &[u8; 32],
        public_key: [u8; 32],
        proof: &[u8],
        now: SystemTime,
    ) -> Result<(Issued, Option<ManagerSecrets>), TrustError> {
        if !verify(&public_key, &possession(ca, member), proof) {
            return Err(TrustError::Refused("the asker does not hold the key that it wants certified".to_owned()));
        }
        let inner = lock(&self.inner);
        let (authority, manager) = inner.authority(ca)?;
        let validity = Duration::from_secs(manager.cert_expiry_s);
        let issued_ms = unix_ms(now).max(decided_ms + 1);
        let issued = authority.issue(member, role, public_key, validity, now, issued_ms)?;
        Ok((issued, (role == Role::Manager).then(|| secrets(manager))))
    }

    /// Puts a new certificate of this node in force, and the role that it gives: a manager takes the secrets in, a worker
    /// drops them.
    ///
    /// # Errors
    /// [`TrustError`]; the old one stays.
    pub(super) fn install(
        &self,
        key: &NodeKey,
        issued: Issued,
        secrets: Option<ManagerSecrets>,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        let mut inner = lock(&self.inner);
        let Certified { id, role, .. } = Credential::new(&issued.certificate, &key.to_der())?.certified();
        if id != self.me {
            return Err(TrustError::Foreign(self.me));
        }
        let held = inner.stored.manager.clone().or(secrets.map(stored_manager)).filter(|_| role == Role::Manager);
        let stored = StoredCluster {
            role,
            manager: held,
            // What it gives may have changed.
            reserve: inner.stored.reserve.clone().filter(|_| role == inner.stored.role),
            certificate: issued.certificate,
            certificate_issued_at_ms: unix_ms(now),
            certificate_expires_at_ms: issued.expires_at_ms,
            private_key: key.to_der(),
            ..inner.stored.clone()
        };
        self.put_in_force(&mut inner, stored, now)
    }

    /// Stores a changed membership, then lets it count.
    fn put_in_force(&self, inner: &mut Inner, stored: StoredCluster, now: SystemTime) -> Result<(), TrustError> {
        let credential = Credential::new(&stored.certificate, &stored.private_key)?;
        let (configs, authorities, anchors) = (configs(&stored)?, authorities(&stored, now)?, anchors(&stored)?);
        inner.save(&self.state, &stored)?;
        inner.stored = stored;
        inner.credential = credential;
        inner.anchors = anchors;
        inner.authorities = authorities;
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(configs);
        Ok(())
    }

    // ---- tokens --------------------------------------------------------------------------------------------------

    /// Whether two thirds of the certificate's life are over.
    pub(super) fn is_renewal_due(&self, now: SystemTime) -> bool {
        let inner = lock(&self.inner);
        let StoredCluster { certificate_issued_at_ms: from, certificate_expires_at_ms: to, .. } = inner.stored;
        is_mostly_over(from, to, now)
    }

    /// The tokens, on a manager.
    ///
    /// # Errors
    /// [`TrustError::NotManager`].
    pub(super) fn tokens(&self) -> Result<Tokens, TrustError> {
        let inner = lock(&self.inner);
        let manager = inner.stored.manager.as_ref().ok_or(TrustError::NotManager)?;
        Ok(Tokens::new(manager.tokens.clone()))
    }

    /// The text of `role`'s token; none when it is revoked.
    ///
    /// # Errors
    /// [`TrustError::NotManager`].
    pub(super) fn token_text(&self, role: Role) -> Result<Option<String>, TrustError> {
        let secret = self.tokens()?.get(role).and_then(|record| record.secret);
        Ok(secret.map(|secret| Token { ca_digest: self.ca_digest(), secret }.to_string()))
    }

    /// Takes in tokens, another manager's or newly decided ones; says what is known now.
    ///
    /// # Errors
    /// [`TrustError`]; nothing was taken in.
    pub(super) fn merge_tokens(&self, theirs: Vec<TokenRecord>) -> Result<Vec<TokenRecord>, TrustError> {
        let mut inner = lock(&self.inner);
        let manager = inner.stored.manager.as_ref().ok_or(TrustError::NotManager)?;
        let mut tokens = Tokens::new(manager.tokens.clone());
        if tokens.merge(theirs) {
            self.store_tokens(&mut inner, &tokens)?;
        }
        Ok(tokens.records().to_vec())
    }

    fn store_tokens(&self, inner: &mut Inner, tokens: &Tokens) -> Result<(), TrustError> {
        let manager = inner.stored.manager.clone().ok_or(TrustError::NotManager)?;
        let manager = StoredManager { tokens: tokens.records().to_vec(), ..manager };
        let stored = StoredCluster { manager: Some(manager), ..inner.stored.clone() };
        inner.save(&self.state, &stored)?;
        inner.stored = stored;
        Ok(())
    }
}
