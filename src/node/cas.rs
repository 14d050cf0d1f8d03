//! Changing the cluster's CA: which ones are trusted, who has done what the present step asks for, and decisions proven
//! anew by those who have a certificate of the new one, so that the old one can go.
//!
//! Not here: keys and certificates (`agent::trust`), and who decides the next step (`agent::rotate_ca`).

use super::decisions::Held;
use super::timers::Timer;
use super::{Effect, Node, Now};
use crate::record::decision::{CaPhase, Decision, DecisionKey, Register, Subject};
use crate::record::{NodeId, Role, Status};
use crate::wire::credential::{Anchors, ca_tag};
use crate::wire::decision::{Have, SignedDecision, slot_hash};

/// Decisions proven anew without a pause: each costs a signature, some 20 µs.
const VOUCHED_AT_ONCE: usize = 128;
/// The pause after them, in microseconds.
const VOUCH_PAUSE_US: u64 = 20_000;

/// The CAs of a cluster, as a member knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Those that are trusted, the oldest first; certificates, DER.
    pub trusted: Vec<Vec<u8>>,
    /// The change under way; none: the one that is trusted is in use.
    pub change: Option<CaChange>,
}

/// A change of the CA that is under way. The last one trusted is the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaChange {
    /// The step that members are taking.
    pub phase: CaPhase,
    /// The decision.
    pub decision: std::sync::Arc<Decision>,
    /// Members that have not taken it yet.
    pub waiting: Vec<NodeId>,
}

impl Node {
    /// Which CAs are trusted, and how far a change of them is.
    pub fn authorities(&self) -> Authorities {
        let trusted: Vec<_> = self.anchors.certificates().map(<[u8]>::to_vec).collect();
        let cas = self.decisions.cas();
        let key = DecisionKey { subject: Subject::Cluster, register: Register::Ca };
        let change = cas.introduced.last().zip(self.decision(&key)).map(|(latest, decision)| {
            let phase = if cas.is_used { CaPhase::Use } else { CaPhase::Trust };
            CaChange { phase, decision, waiting: self.waiting_for_ca(phase, ca_tag(latest)) }
        });
        Authorities { trusted, change }
    }

    /// Who still has to get a certificate of that CA, or to show it.
    fn waiting_for_ca(&self, phase: CaPhase, tag: u32) -> Vec<NodeId> {
        let is_done = |record: Option<&std::sync::Arc<crate::record::NodeRecord>>| {
            let details = record.map(|record| &record.details);
            details.is_some_and(|details| {
                details.certificate_ca == tag || (phase == CaPhase::Trust && details.reserve_ca == tag)
            })
        };
        let is_waited_for = |status, record| status != Status::Left && !is_done(record);
        let own = self.own_member();
        let has_old_proofs = phase == CaPhase::Use && self.decisions.all().any(|held| held.ca != tag);
        let own = (is_waited_for(own.status, own.record.as_ref()) || has_old_proofs).then_some(own.swim.identity.id);
        let others = self
            .table
            .iter()
            .filter(|member| is_waited_for(member.status, member.record))
            .map(|member| member.swim.identity.id);
        others.chain(own).collect()
    }

    /// Trusts what was decided to be trusted.
    pub(super) fn follow_cas(&mut self) {
        let cas = self.decisions.cas();
        if *cas == super::decisions::Cas::default() {
            return;
        }
        let oldest = self.anchors.certificates().next().unwrap_or_default();
        let base = cas.base.as_deref().unwrap_or(oldest);
        let others = cas.introduced.iter().map(Vec::as_slice).filter(|one| *one != base);
        let wanted: Vec<_> = std::iter::once(base).chain(others).collect();
        // What is no certificate is no decision.
        if let Ok(anchors) = Anchors::new(&wanted) {
            self.anchors = anchors;
        }
    }

    /// Is `have` what `known` is to be replaced by: a later decision, or the same one proven under a later CA?
    pub(super) fn is_older(&self, known: &Have, have: &Have) -> bool {
        let rank = |have: &Have| (have.stamp, self.anchors.rank(have.ca));
        rank(known) < rank(have)
    }

    /// A decision that is kept, if `signed` proves it under a later CA.
    pub(super) fn better_proof(&self, known: &Held, signed: SignedDecision) -> Option<Held> {
        if self.anchors.is_latest(known.ca) {
            return None;
        }
        let stamp = known.decision.stamp;
        let proven = signed.verify(self.cluster, &self.anchors, stamp).ok()?;
        // The same stamp on another decision: its signer has signed two.
        let decision = signed.decision().ok().filter(|decision| *decision == *known.decision)?;
        let held = Held::new(signed, decision, proven);
        self.is_older(&known.have(), &held.have()).then_some(held)
    }

    /// Keeps a decision with another proof. Nothing has changed for anybody who listens.
    pub(super) fn prove_again(&mut self, held: Held) {
        let slot = slot_hash(&held.decision.slot());
        self.effect(Effect::Keep { slot, decision: std::sync::Arc::clone(&held.signed) });
        self.decisions.prove_again(held);
    }

    /// The same with this node's own certificate as the proof, where that is of a later CA and it may vouch.
    fn vouch(&self, now: Now, held: &Held, ca: u32) -> Option<Held> {
        if self.anchors.rank(ca) <= self.anchors.rank(held.ca) {
            return None;
        }
        let certified = self.credential.certified();
        if certified.role != Role::Manager && certified.id != held.decision.stamp.signer {
            return None;
        }
        let signed = held.signed.vouched_for(held.certified, self.fair_ms(now), self.cluster, &self.credential);
        Some(Held::new(signed, (*held.decision).clone(), (held.certified, ca)))
    }

    /// The CA of this node's own certificate, by its tag.
    fn own_ca(&self, now: Now) -> Option<u32> {
        self.anchors.issuer(self.credential.certificate(), self.fair_ms(now))
    }

    /// A decision as it came, or with a later proof.
    pub(super) fn vouched(&self, now: Now, held: Held) -> Held {
        if self.anchors.is_latest(held.ca) {
            return held;
        }
        self.own_ca(now).and_then(|ca| self.vouch(now, &held, ca)).unwrap_or(held)
    }

    /// This node has another certificate: perhaps of a CA that what it keeps is to be proven under. Some at a time, as
    /// each costs a signature.
    pub(super) fn vouch_for_all(&mut self, now: Now) {
        let Some(ca) = self.own_ca(now) else { return };
        let due = self.decisions.all().filter_map(|held| self.vouch(now, held, ca));
        let vouched: Vec<_> = due.take(VOUCHED_AT_ONCE).collect();
        if vouched.len() == VOUCHED_AT_ONCE {
            self.timers.submit(now.mono_us + VOUCH_PAUSE_US, Timer::Vouch);
        }
        vouched.into_iter().for_each(|held| self.prove_again(held));
    }
}
