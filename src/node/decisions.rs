//! The decisions that are in force.
//!
//! Availability, labels and tokens are registers: of two decisions about one the later one stands (clock, then signer).
//! Roles, removals and the steps of a new CA decide who may decide, so none of them is forgotten (of a CA's, until it is
//! the only one): which of them are good follows from the whole
//! set, in order of time, and all nodes that have the same set agree on it, in whatever order it came.
//!
//! * A manager's certificate entitles to everything; a worker's to pausing or draining its own node.
//! * It does so no longer for what was signed after its holder was demoted or removed by a good decision. A certificate
//!   issued after a demotion counts again.
//! * A node that was removed has no register any more.
//! * When a demotion or a removal arrives, what its subject signed after it goes; whatever stood there before is brought
//!   back by those that still have it.
//!
//! A decision from further ahead than [`DRIFT_MS_MAX`] is refused: a clock that is years ahead cannot lock a register.
//!
//! Not here: signatures (`wire::decision`), and who gets which decision when (`decide`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::decision::{
    CaPhase, CaStep, DRIFT_MS_MAX, Decided, Decision, DecisionKey, Hlc, Register, Slot, Stamp, Subject, Verdict,
};
use crate::record::{Availability, NodeId, Role};
use crate::wire::credential::Certified;
use crate::wire::decision::{Have, SignedDecision, share, slot_hash};

/// Registers held, at most: 10,000 nodes with some labels each. More of them are refused.
pub(super) const DECISIONS_MAX: usize = 262_144;

/// Why a decision does not count. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// It cannot be read, or breaks a limit.
    Malformed,
    /// Its signature or its certificate is not good.
    Forged,
    /// Its signer may not decide that.
    NotEntitled,
    /// It is too far ahead of the clock.
    Early,
    /// A later one is held, or its subject was removed.
    Stale,
    /// There is no room for more.
    Full,
}

impl Refused {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 6] = [Self::Malformed, Self::Forged, Self::NotEntitled, Self::Early, Self::Stale, Self::Full];

    /// The label's value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::NotEntitled => "not-entitled",
            Self::Early => "early",
            Self::Stale => "stale",
            Self::Full => "full",
        }
    }
}

/// A decision that is kept, with its proof.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) signed: Arc<SignedDecision>,
    pub(super) decision: Arc<Decision>,
    /// What the signer's certificate says.
    pub(super) certified: Certified,
    /// The CA that it is proven under.
    pub(super) ca: u32,
    hash: u64,
}

impl Held {
    /// `certified` is what the verified certificate says, and `ca` which CA proves it.
    pub(super) fn new(signed: SignedDecision, decision: Decision, (certified, ca): (Certified, u32)) -> Self {
        let hash = slot_hash(&decision.slot());
        Self { signed: Arc::new(signed), decision: Arc::new(decision), certified, ca, hash }
    }

    /// Is that the same decision, whatever proves it?
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash && self.decision.stamp == other.decision.stamp
    }

    pub(super) fn have(&self) -> Have {
        Have { slot: self.hash, stamp: self.decision.stamp, ca: self.ca }
    }
}

/// What became of what stands in a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) key: DecisionKey,
    pub(super) old: Option<Arc<Decision>>,
    pub(super) new: Option<Arc<Decision>>,
}

/// What a decision did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Decisions that are not kept any more.
    pub(super) forgotten: Vec<Slot>,
    /// What stands now.
    pub(super) changes: Vec<Changed>,
}

/// Which CAs are trusted, as far as that was decided.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Cas {
    /// The only one, when it became that; none: the one that the node knows.
    pub(super) base: Option<Vec<u8>>,
    /// Those that came since then, oldest first.
    pub(super) introduced: Vec<Vec<u8>>,
    /// The latest of these is shown already.
    pub(super) is_used: bool,
    /// When the first was made the only one.
    since: Option<Stamp>,
}

impl Cas {
    fn add(&mut self, stamp: Stamp, CaStep { certificate, phase }: &CaStep) {
        let is_latest = self.introduced.last() == Some(certificate);
        match phase {
            CaPhase::Trust => {
                self.introduced.retain(|one| one != certificate);
                self.introduced.push(certificate.clone());
                self.is_used = false;
            }
            CaPhase::Use => self.is_used |= is_latest,
            CaPhase::Only => {
                *self = Self { base: Some(certificate.clone()), since: Some(stamp), ..Self::default() };
            }
        }
    }
}

/// What follows from all roles, removals and steps of a CA.
#[derive(Debug, Default, Clone)]
struct Standing {
    /// When nodes were demoted or removed by good decisions.
    falls: BTreeMap<NodeId, Vec<(Hlc, bool)>>,
    /// The role that stands, the removal, and the last step of a CA.
    decided: BTreeMap<DecisionKey, Held>,
    cas: Cas,
}

impl Standing {
    fn entitles(&self, certified: Certified, decision: &Decision) -> bool {
        let Stamp { at, signer } = decision.stamp;
        let (mut demoted, mut removed) = (false, false);
        for (fell_at, is_removal) in self.falls.get(&signer).into_iter().flatten().filter(|(fell_at, _)| *fell_at < at)
        {
            removed |= is_removal;
            demoted |= certified.issued_ms <= fell_at.ms();
        }
        let is_about_itself = decision.subject == Subject::Node(signer);
        let is_modest = matches!(decision.verdict, Verdict::Availability(Availability::Pause | Availability::Drain));
        !removed && ((certified.role == Role::Manager && !demoted) || (is_about_itself && is_modest))
    }

    /// Takes in the next one, in order of time.
    fn add(&mut self, held: &Held) {
        if !self.entitles(held.certified, &held.decision) {
            return;
        }
        if let Verdict::Ca(step) = &held.decision.verdict {
            self.cas.add(held.decision.stamp, step);
            self.decided.insert(held.decision.key(), held.clone());
        }
        let Subject::Node(node) = held.decision.subject else { return };
        let is_removal = held.decision.verdict == Verdict::Removed;
        if is_removal || held.decision.verdict == Verdict::Role(Role::Worker) {
            self.falls.entry(node).or_default().push((held.decision.stamp.at, is_removal));
        }
        let key = held.decision.key();
        // Of roles the last, of removals the first.
        if !is_removal || !self.decided.contains_key(&key) {
            self.decided.insert(key, held.clone());
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Decisions {
    held: BTreeMap<Slot, Held>,
    by_hash: BTreeMap<u64, Slot>,
    standing: Standing,
    digest: u128,
}

impl Decisions {
    /// What stands in a register.
    pub(super) fn get(&self, key: &DecisionKey) -> Option<&Held> {
        self.standing.decided.get(key).or_else(|| self.held.get(&(key.clone(), None)))
    }

    pub(super) fn by_hash(&self, hash: u64) -> Option<&Held> {
        self.held.get(self.by_hash.get(&hash)?)
    }

    pub(super) fn kept(&self, slot: &Slot) -> Option<&Held> {
        self.held.get(slot)
    }

    /// Those that stand.
    pub(super) fn standing(&self) -> impl Iterator<Item = &Arc<Decision>> {
        let registers = self.held.iter().filter(|((_, kept), _)| kept.is_none()).map(|(_, held)| held);
        self.standing.decided.values().chain(registers).map(|held| &held.decision)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Equal digests, equal decisions.
    pub(super) const fn digest(&self) -> u128 {
        self.digest
    }

    pub(super) fn haves(&self) -> Vec<Have> {
        self.held.values().map(Held::have).collect()
    }

    /// Which CAs are trusted, as far as that was decided.
    pub(super) const fn cas(&self) -> &Cas {
        &self.standing.cas
    }

    /// All that is kept.
    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// Puts the same decision in its place with another proof.
    pub(super) fn prove_again(&mut self, held: Held) {
        if let Some(standing) = self.standing.decided.get_mut(&held.decision.key())
            && standing.decision.stamp == held.decision.stamp
        {
            *standing = held.clone();
        }
        self.put(held.decision.slot(), held);
    }

    fn about(&self, node: NodeId) -> impl Iterator<Item = (&Slot, &Held)> {
        let subject = Subject::Node(node);
        let from = (DecisionKey { subject, register: Register::Availability }, None);
        self.held.range(from..).take_while(move |((key, _), _)| key.subject == subject)
    }

    /// All that stands about one node; nothing about one that was removed.
    pub(super) fn decided(&self, node: NodeId) -> Decided {
        if self.removal(node).is_some() {
            return Decided::default();
        }
        let registers = self.about(node).filter(|((_, kept), _)| kept.is_none()).map(|(_, held)| &held.decision);
        let role = self.get(&DecisionKey { subject: Subject::Node(node), register: Register::Role });
        Decided::collect(registers.chain(role.map(|held| &held.decision)))
    }

    pub(super) fn removal(&self, node: NodeId) -> Option<&Held> {
        self.standing.decided.get(&DecisionKey { subject: Subject::Node(node), register: Register::Removed })
    }

    /// The latest time that is not too far ahead of `now_ms`: what a new decision must be later than.
    pub(super) fn newest(&self, now_ms: u64) -> Hlc {
        let times = self.held.values().map(|held| held.decision.stamp.at);
        times.filter(|at| at.ms() <= now_ms + DRIFT_MS_MAX).max().unwrap_or_default()
    }

    /// Would this decision be kept, were it signed well? Cheap, so that it is asked before any signature is looked at.
    pub(super) fn judge(&self, now_ms: u64, decision: &Decision) -> Result<(), Refused> {
        let stamp = decision.stamp;
        if stamp.at.ms() > now_ms + DRIFT_MS_MAX {
            return Err(Refused::Early);
        }
        let slot = decision.slot();
        if let Subject::Node(node) = decision.subject
            && slot.1.is_none()
            && self.removal(node).is_some()
        {
            return Err(Refused::Stale);
        }
        if slot.0.register == Register::Ca && self.standing.cas.since.is_some_and(|since| stamp < since) {
            return Err(Refused::Stale);
        }
        match self.held.get(&slot) {
            // One that is too far ahead holds its register only until a sound one comes.
            Some(held) if held.decision.stamp.at.ms() <= now_ms + DRIFT_MS_MAX && held.decision.stamp >= stamp => {
                Err(Refused::Stale)
            }
            None if self.held.len() >= DECISIONS_MAX => Err(Refused::Full),
            _ => Ok(()),
        }
    }

    /// May it be kept with this certificate? Roles and removals by managers always: whether they are good is found out
    /// in order of time.
    pub(super) fn admits(&self, certified: Certified, decision: &Decision) -> bool {
        match decision.slot().1 {
            Some(_) => certified.role == Role::Manager,
            None => self.standing.entitles(certified, decision),
        }
    }

    /// May this signer decide that, now?
    pub(super) fn entitles(&self, certified: Certified, decision: &Decision) -> bool {
        self.standing.entitles(certified, decision)
    }

    /// Keeps a decision that was judged, verified and admitted.
    pub(super) fn insert(&mut self, new: Held) -> Outcome {
        let slot = new.decision.slot();
        let decision = Arc::clone(&new.decision);
        let old = self.put(slot.clone(), new);
        let mut outcome = Outcome::default();
        if slot.1.is_some() {
            self.settle(&mut outcome);
        } else {
            outcome.changes.push(Changed { key: slot.0, old, new: Some(decision) });
        }
        outcome
    }

    /// Forgets a decision.
    pub(super) fn forget(&mut self, slot: &Slot) -> Outcome {
        let mut outcome = Outcome::default();
        self.drop(slot.clone(), &mut outcome);
        if slot.1.is_some() {
            self.settle(&mut outcome);
        }
        outcome
    }

    /// Those that are further ahead of `now_ms` than they may be.
    pub(super) fn early(&self, now_ms: u64) -> Vec<Slot> {
        let is_early = |held: &Held| held.decision.stamp.at.ms() > now_ms + DRIFT_MS_MAX;
        self.held.iter().filter(|(_, held)| is_early(held)).map(|(slot, _)| slot.clone()).collect()
    }

    fn put(&mut self, slot: Slot, new: Held) -> Option<Arc<Decision>> {
        self.digest = self.digest.wrapping_add(share(new.have()));
        self.by_hash.insert(new.hash, slot.clone());
        let old = self.held.insert(slot, new)?;
        self.digest = self.digest.wrapping_sub(share(old.have()));
        Some(old.decision)
    }

    fn drop(&mut self, slot: Slot, outcome: &mut Outcome) {
        let Some(held) = self.held.remove(&slot) else { return };
        self.by_hash.remove(&held.hash);
        self.digest = self.digest.wrapping_sub(share(held.have()));
        if slot.1.is_none() {
            outcome.changes.push(Changed { key: slot.0.clone(), old: Some(held.decision), new: None });
        }
        outcome.forgotten.push(slot);
    }

    /// Works out again which roles and removals stand, and drops the registers that they leave nobody's.
    fn settle(&mut self, outcome: &mut Outcome) {
        let mut kept: Vec<_> = self.held.iter().filter(|((_, kept), _)| kept.is_some()).map(|(_, held)| held).collect();
        kept.sort_by_key(|held| held.decision.stamp);
        let mut standing = Standing::default();
        kept.into_iter().for_each(|held| standing.add(held));
        let before = std::mem::replace(&mut self.standing, standing);
        let decision_of =
            |from: &Standing, key: &DecisionKey| from.decided.get(key).map(|held| Arc::clone(&held.decision));
        let keys: std::collections::BTreeSet<_> =
            before.decided.keys().chain(self.standing.decided.keys()).cloned().collect();
        for key in keys {
            let (old, new) = (decision_of(&before, &key), decision_of(&self.standing, &key));
            if old != new {
                outcome.changes.push(Changed { key, old, new });
            }
        }
        let is_orphan = |((key, kept), held): &(&Slot, &Held)| {
            if key.register == Register::Ca {
                return self.standing.cas.since.is_some_and(|since| held.decision.stamp < since);
            }
            let is_removed = matches!(key.subject, Subject::Node(node) if self.removal(node).is_some());
            kept.is_none() && (is_removed || !self.standing.entitles(held.certified, &held.decision))
        };
        let orphans: Vec<_> = self.held.iter().filter(is_orphan).map(|(slot, _)| slot.clone()).collect();
        orphans.into_iter().for_each(|slot| self.drop(slot, outcome));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ca::fixture;
    use crate::record::ClusterId;

    const NOW_MS: u64 = 1_780_000_000_000;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn decision(subject: u8, verdict: Verdict, at: u64, signer: u8) -> Decision {
        let stamp = Stamp { at: Hlc::from_ms(NOW_MS + at), signer: id(signer) };
        Decision { subject: Subject::Node(id(subject)), verdict, reason: None, deadline_ms: None, stamp }
    }

    fn holder(signer: u8, role: Role, issued: u64) -> Certified {
        Certified { id: id(signer), role, issued_ms: NOW_MS + issued }
    }

    fn manager(decision: Decision) -> (Decision, Certified) {
        let certified = Certified { id: decision.stamp.signer, role: Role::Manager, issued_ms: NOW_MS };
        (decision, certified)
    }

    fn proof() -> SignedDecision {
        let cluster = ClusterId::from_bytes([1; 16]);
        let credential = fixture::credential(cluster, id(1), Role::Manager, NOW_MS);
        SignedDecision::sign(&decision(1, Verdict::Removed, 0, 1), cluster, &credential)
    }

    /// Hands in decisions in turn, again and again, as anti-entropy would, until nothing changes any more.
    fn settle(decisions: &[(Decision, Certified)], proof: &SignedDecision) -> Decisions {
        let mut out = Decisions::default();
        for _ in 0..decisions.len() + 2 {
            for (decision, certified) in decisions {
                if out.judge(NOW_MS, decision).is_ok() && out.admits(*certified, decision) {
                    out.insert(Held::new(proof.clone(), decision.clone(), (*certified, 0)));
                }
            }
        }
        out
    }

    fn standing(decisions: &Decisions) -> Vec<Decision> {
        decisions.standing().map(|decision| (**decision).clone()).collect()
    }

    #[test]
    fn rules_of_entitlement() {
        use Verdict::{Availability as A, Label, Role as R};
        let none = Decisions::default();
        let cases = [
            (Role::Manager, decision(2, A(Availability::Drain), 1, 1), true),
            (Role::Manager, decision(2, R(Role::Manager), 1, 1), true),
            (Role::Worker, decision(2, A(Availability::Drain), 1, 1), false),
            (Role::Worker, decision(1, A(Availability::Drain), 1, 1), true),
            (Role::Worker, decision(1, A(Availability::Pause), 1, 1), true),
            (Role::Worker, decision(1, A(Availability::Active), 1, 1), false),
            (Role::Worker, decision(1, R(Role::Manager), 1, 1), false),
            (Role::Worker, decision(1, Label("k".to_owned(), None), 1, 1), false),
            (Role::Worker, decision(1, Verdict::Removed, 1, 1), false),
        ];
        for (role, decision, entitled) in cases {
            assert_eq!(none.entitles(holder(1, role, 0), &decision), entitled, "{role} {decision:?}");
        }
        let proof = proof();
        let demoted = settle(&[manager(decision(1, R(Role::Worker), 5, 9))], &proof);
        let drain = |at| decision(2, A(Availability::Drain), at, 1);
        assert!(demoted.entitles(holder(1, Role::Manager, 0), &drain(5)), "at that very time");
        assert!(!demoted.entitles(holder(1, Role::Manager, 0), &drain(6)));
        assert!(!demoted.entitles(holder(1, Role::Manager, 5), &drain(9)));
        assert!(demoted.entitles(holder(1, Role::Manager, 6), &drain(9)), "promoted again");
        let removed = settle(&[manager(decision(1, Verdict::Removed, 5, 9))], &proof);
        assert!(!removed.entitles(holder(1, Role::Worker, 7), &decision(1, A(Availability::Drain), 8, 1)));
        assert_eq!(removed.judge(NOW_MS, &decision(1, A(Availability::Pause), 7, 9)), Err(Refused::Stale));
    }

    #[test]
    fn of_two_managers_that_demote_each_other_the_later_one_has_come_too_late() {
        let proof = proof();
        let first = manager(decision(2, Verdict::Role(Role::Worker), 10, 1));
        let second = manager(decision(1, Verdict::Role(Role::Worker), 11, 2));
        for order in [[first.clone(), second.clone()], [second, first.clone()]] {
            assert_eq!(standing(&settle(&order, &proof)), std::slice::from_ref(&first.0));
        }
    }

    #[test]
    fn a_removed_node_has_no_registers_and_takes_what_it_signed_later_with_it() {
        let proof = proof();
        let mut held = Decisions::default();
        for (decision, certified) in [
            manager(decision(3, Verdict::Availability(Availability::Drain), 1, 1)),
            manager(decision(2, Verdict::Label("zone".to_owned(), Some("a".to_owned())), 4, 3)),
            manager(decision(2, Verdict::Availability(Availability::Pause), 8, 3)),
        ] {
            held.insert(Held::new(proof.clone(), decision, (certified, 0)));
        }
        let (removal, certified) = manager(decision(3, Verdict::Removed, 5, 1));
        let outcome = held.insert(Held::new(proof, removal.clone(), (certified, 0)));
        assert_eq!(outcome.forgotten.len(), 2, "its own availability, and what it signed afterwards");
        assert_eq!(outcome.changes.len(), 3);
        assert!(held.removal(id(3)).is_some());
        assert!(held.decided(id(2)).labels.contains_key("zone"), "signed before");
        assert_eq!(held.decided(id(2)).availability(), None);
    }

    #[test]
    fn a_clock_that_is_ahead_neither_gets_in_nor_stays() {
        let proof = proof();
        let (early, certified) = manager(decision(2, Verdict::Availability(Availability::Drain), DRIFT_MS_MAX + 1, 1));
        assert_eq!(Decisions::default().judge(NOW_MS, &early), Err(Refused::Early));
        // Taken in while this node's own clock was ahead too.
        let mut held = Decisions::default();
        held.insert(Held::new(proof.clone(), early.clone(), (certified, 0)));
        let sound = decision(2, Verdict::Availability(Availability::Active), 0, 1);
        assert_eq!(held.judge(NOW_MS, &sound), Ok(()));
        assert_eq!(held.newest(NOW_MS), Hlc::default());
        assert_eq!(held.early(NOW_MS), [early.slot()]);
        held.insert(Held::new(proof, sound.clone(), (certified, 0)));
        assert_eq!(standing(&held), [sound]);
    }

    fn any_decision() -> impl Strategy<Value = (Decision, Certified)> {
        let verdict = prop_oneof![
            Just(Verdict::Availability(Availability::Drain)),
            Just(Verdict::Availability(Availability::Active)),
            Just(Verdict::Role(Role::Worker)),
            Just(Verdict::Role(Role::Worker)),
            Just(Verdict::Role(Role::Manager)),
            Just(Verdict::Label("zone".to_owned(), Some("a".to_owned()))),
            Just(Verdict::Removed),
        ];
        // A signer's own clock never stands still, so a stamp names one decision.
        (0_u8..4, verdict, 0_u64..100_000, 0_u8..4, 0_u64..3).prop_map(|(subject, verdict, at, signer, kind)| {
            let role = if kind == 0 { Role::Worker } else { Role::Manager };
            (decision(subject, verdict, at, signer), holder(signer, role, kind * 30_000))
        })
    }

    proptest! {
        #[test]
        fn what_stands_does_not_depend_on_the_order(
            (decisions, shuffled) in proptest::collection::vec(any_decision(), 1..14)
                .prop_map(|mut all| { all.sort_by_key(|(d, _)| d.stamp); all.dedup_by_key(|(d, _)| d.stamp); all })
                .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        ) {
            let proof = proof();
            let (a, b) = (settle(&decisions, &proof), settle(&shuffled, &proof));
            prop_assert_eq!(standing(&a), standing(&b));
            prop_assert_eq!(a.digest(), b.digest());
            prop_assert_eq!(a.by_hash.len(), a.held.len());
        }
    }
}
