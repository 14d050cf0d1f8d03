//! A member that brings decisions which nobody may make, or which are over. Nothing may come of them.
//!
//! Not here: when it comes (`run`).

use gossipd::node::Peer;
use gossipd::record::decision::{Decision, Hlc, Register, Stamp, Subject, Verdict};
use gossipd::record::{Availability, ClusterId, NodeId, Role};
use gossipd::wire::credential::Credential;
use gossipd::wire::decision::{Batch, SignedDecision};
use gossipd::wire::exchange::Request;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha12Rng;

use super::World;
use crate::authority::Issuer;
use crate::host::{EPOCH_UNIX_MS, HostId};

/// Kinds of forgeries.
const KINDS: u32 = 9;
/// A clock that is years ahead, in milliseconds.
const YEARS_MS: u64 = 3 * 31_557_600_000;
/// Of so many decisions one is replayed.
const REPLAYED_MAX: usize = 32;

impl World {
    /// Brings `host` a decision that must not count, and checks that nothing comes of it.
    pub(crate) fn forge(&mut self, fault: u64, host: HostId, rng: &mut ChaCha12Rng) {
        if !self.lives(host) || self.host(host).is_paused {
            return;
        }
        let Some((what, signed)) = self.forgery(host, rng) else { return };
        let request = Request::Decided { decisions: Batch::all(std::iter::once(&signed)) }.to_bytes();
        self.trace.bytes(&request);
        // Whoever brings it is a member: with certificate and datagram keys, but without the CA's.
        let courier = self.living().find(|other| *other != host).unwrap_or(host);
        let peer = Peer { id: self.node_id(courier), role: self.host(courier).role };
        let state = |world: &Self| world.node(host).map(|node| (node.decisions(), node.members(), node.revision()));
        let before = state(self);
        self.with_node(host, |node, now| node.handle_request(now, peer, &request));
        let same = state(self) == before;
        self.hit(Some(fault));
        self.checks.forged(host, same, what);
    }

    fn forgery(&self, host: HostId, rng: &mut ChaCha12Rng) -> Option<(&'static str, SignedDecision)> {
        let managers: Vec<_> = self.living().filter(|other| self.host(*other).role == Role::Manager).collect();
        let manager = self.node_id(*managers.get(rng.random_range(0..managers.len().max(1)))?);
        let workers: Vec<_> = self.living().filter(|other| self.host(*other).role == Role::Worker).collect();
        let worker = self.node_id(*workers.get(rng.random_range(0..workers.len().max(1)))?);
        let victim = self.node_id(HostId::new(rng.random_range(0..self.hosts.len())));
        let now_ms = EPOCH_UNIX_MS + self.now_us / 1_000;
        let drain = Verdict::Availability(Availability::Drain);
        let issuer = &self.issuer;
        let elsewhere = ClusterId::from_bytes([rng.random(); 16]);
        let of_manager = || issuer.credential(manager, Role::Manager, 0);
        let of_worker = || issuer.credential(worker, Role::Worker, 0);
        let sign = |(subject, verdict), at_ms, signer, cluster, credential: &Credential| {
            SignedDecision::sign(&decision(subject, verdict, at_ms, signer), cluster, credential)
        };
        let own = self.cluster;
        let other = if victim == worker { manager } else { victim };
        Some(match rng.next_u32() % KINDS {
            0 => {
                let stranger = Issuer::new(elsewhere).credential(manager, Role::Manager, 0);
                ("a decision of another CA", sign((victim, drain), now_ms, manager, own, &stranger))
            }
            1 => ("a worker's decision about another", sign((other, drain), now_ms, worker, own, &of_worker())),
            2 => (
                "a worker's promotion of itself",
                sign((worker, Verdict::Role(Role::Manager)), now_ms, worker, own, &of_worker()),
            ),
            3 => ("a worker's removal of another", sign((other, Verdict::Removed), now_ms, worker, own, &of_worker())),
            4 => ("a worker's decision in a manager's name", sign((victim, drain), now_ms, manager, own, &of_worker())),
            5 => ("a decision of another cluster", sign((victim, drain), now_ms, manager, elsewhere, &of_manager())),
            6 => {
                let thief = issuer.stolen(manager, Role::Manager, 0, worker);
                ("a decision signed with another key", sign((victim, drain), now_ms, manager, own, &thief))
            }
            7 => ("a decision from years ahead", sign((victim, drain), now_ms + YEARS_MS, manager, own, &of_manager())),
            _ => self.used(host, rng)?,
        })
    }

    /// A true decision: with one bit turned, or once more where a later one stands.
    fn used(&self, host: HostId, rng: &mut ChaCha12Rng) -> Option<(&'static str, SignedDecision)> {
        let count = self.rulings.all().len().min(REPLAYED_MAX);
        let accepted = self.rulings.recent(rng.random_range(0..count.max(1)))?;
        let key = accepted.decision.key();
        let stands = self.node(host)?.decision(&key);
        let is_over = stands.is_some_and(|stands| stands.stamp >= accepted.decision.stamp);
        if is_over && !matches!(key.register, Register::Role | Register::Removed) && rng.random_range(0..2_u32) == 0 {
            return Some(("a decision that is over", accepted.signed.clone()));
        }
        let mut bytes = accepted.signed.to_bytes();
        let bit = rng.random_range(0..bytes.len() * 8);
        bytes.get_mut(bit / 8).into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
        SignedDecision::from_bytes(&bytes).ok().map(|signed| ("a decision with one bit turned", signed))
    }
}

fn decision(subject: NodeId, verdict: Verdict, at_ms: u64, signer: NodeId) -> Decision {
    let stamp = Stamp { at: Hlc::from_ms(at_ms), signer };
    Decision { subject: Subject::Node(subject), verdict, reason: None, deadline_ms: None, stamp }
}
