//! Decisions when the cluster's CA is another one.

use super::*;
use crate::record::decision::{CaPhase, CaStep, Decision, Hlc, Stamp, Subject, Verdict};
use crate::wire::decision::{Batch, SignedDecision};

fn decided_by(ca: u8, signer: u8, at: u64, subject: Subject, verdict: Verdict) -> SignedDecision {
    let stamp = Stamp { at: Hlc::from_ms(NOW.unix_ms + at), signer: id(signer) };
    let credential = fixture::credential_of(ca, cluster(), id(signer), Role::Manager, NOW.unix_ms);
    let decision = Decision { subject, verdict, reason: None, deadline_ms: None, stamp };
    SignedDecision::sign(&decision, cluster(), &credential)
}

fn step(ca: u8, phase: CaPhase) -> Verdict {
    Verdict::Ca(CaStep { certificate: fixture::authority(cluster(), ca, NOW.unix_ms).0, phase })
}

fn drained(by_ca: u8, at: u64, subject: u8) -> SignedDecision {
    let verdict = Verdict::Availability(Availability::Drain);
    decided_by(by_ca, 2, at, Subject::Node(id(subject)), verdict)
}

impl Pair {
    fn take(&mut self, signed: SignedDecision) -> bool {
        self.node.take_decision(NOW, signed, false)
    }

    /// Another certificate of this node, and the time that it takes to vouch.
    fn certified_by(&mut self, ca: u8) {
        let credential = fixture::credential_of(ca, cluster(), id(1), Role::Manager, NOW.unix_ms);
        self.node.handle_command(NOW, Command::Credential(credential));
        for pauses in 1..20 {
            self.node.handle_timeout(Now { mono_us: NOW.mono_us + pauses * 20_000, ..NOW });
        }
        drain(&mut self.node);
    }
}

#[test]
fn decisions_outlive_the_ca_under_which_they_were_signed() {
    let mut pair = Pair::new();
    pair.certified_by(1);
    // More than are proven anew at once.
    let count = 300_u16;
    for subject in 0..count {
        let label = Verdict::Label(format!("l{subject}"), Some(String::new()));
        assert!(pair.take(decided_by(1, 2, 10 + u64::from(subject), Subject::Node(id(3)), label)));
    }
    assert!(!pair.take(drained(2, 500, 3)), "nobody knows that CA");
    assert!(pair.take(decided_by(1, 2, 600, Subject::Cluster, step(2, CaPhase::Trust))));
    let change = pair.node.authorities().change.unwrap();
    assert_eq!((change.phase, change.waiting), (CaPhase::Trust, vec![id(2), id(1)]));
    assert!(pair.take(drained(2, 601, 3)), "both are trusted");
    let told = pair.node.revision();

    assert!(pair.take(decided_by(1, 2, 610, Subject::Cluster, step(2, CaPhase::Use))));
    pair.certified_by(2);
    let ca = ca_tag(&fixture::authority(cluster(), 2, NOW.unix_ms).0);
    assert!(pair.node.decisions.all().all(|held| held.ca == ca), "all is proven under the new CA");
    assert_eq!(pair.node.revision(), told + 1, "that is no news to anybody");

    // Somebody who comes after that knows the new CA only.
    assert!(pair.take(decided_by(2, 2, 620, Subject::Cluster, step(2, CaPhase::Only))));
    assert_eq!(pair.node.authorities().change, None);
    assert!(!pair.take(drained(1, 700, 4)), "what the old CA certified decides nothing");
    let anchors = Anchors::new(&pair.node.authorities().trusted).unwrap();
    let kept: Vec<_> = pair.node.decisions.all().map(|held| (*held.signed).clone()).collect();
    assert_eq!(kept.len(), usize::from(count) + 2, "the labels, the drain and the last step");
    for signed in kept {
        signed.verify(cluster(), &anchors, signed.decision().unwrap().stamp).unwrap();
    }
    // A step from before that comes late is over.
    assert!(!pair.take(decided_by(2, 2, 605, Subject::Cluster, step(3, CaPhase::Trust))));
}

#[test]
fn of_two_proofs_the_one_under_the_later_ca_is_kept_wherever_it_comes_first() {
    let worker = fixture::credential_of(2, cluster(), id(2), Role::Manager, NOW.unix_ms);
    let old = drained(1, 10, 3);
    let both = Anchors::new(&[1, 2].map(|n| fixture::authority(cluster(), n, NOW.unix_ms).0)).unwrap();
    let (certified, _) = old.verify(cluster(), &both, old.decision().unwrap().stamp).unwrap();
    let new = old.vouched_for(certified, NOW.unix_ms, cluster(), &worker);
    let digest = |order: [&SignedDecision; 2]| {
        let mut pair = Pair::new();
        assert!(pair.take(decided_by(1, 2, 20, Subject::Cluster, step(2, CaPhase::Trust))));
        for signed in order {
            pair.take(signed.clone());
        }
        assert!(!pair.take(old.clone()) && !pair.take(new.clone()), "neither is news any more");
        pair.node.decisions.digest()
    };
    assert_eq!(digest([&old, &new]), digest([&new, &old]));
    // Who has the old proof only is told the new one.
    let mut pair = Pair::new();
    pair.take(decided_by(1, 2, 20, Subject::Cluster, step(2, CaPhase::Trust)));
    pair.take(old.clone());
    let theirs = pair.node.decisions.haves();
    pair.take(new.clone());
    let Reply::Decisions { decisions, wanted, .. } = pair.node.compare_decisions(&theirs) else { panic!() };
    let told: Vec<_> = decisions.into_iter().flat_map(Batch::into_decisions).collect();
    assert_eq!((told, wanted), (vec![new], vec![]));
}
