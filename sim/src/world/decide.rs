//! Somebody decides something, and what daemons do about decisions: storing them, a new certificate for a new role, and
//! the end of a node that was removed.
//!
//! Not here: what should follow from all that was decided (`rulings`).

use std::collections::BTreeSet;
use std::sync::Arc;

use gossipd::node::{Command, Order};
use gossipd::record::decision::{Decision, DecisionKey, Register, Subject};
use gossipd::record::{NodeId, Role, Status};
use gossipd::wire::decision::{Have, slot_hash};

use super::World;
use super::drive::Happening;
use super::rulings::{Accepted, Question, Rulings};
use crate::brain::Brain;
use crate::host::{EPOCH_UNIX_MS, HostId};
use crate::plan::Ruling;
use crate::view::View;

/// Time from learning of a new role to asking a manager for its certificate, in microseconds, and between two tries.
pub(super) const RENEW_US: u64 = 200_000;
const RENEW_AGAIN_US: u64 = 1_000_000;

impl World {
    /// All that was decided so far.
    pub const fn rulings(&self) -> &Rulings {
        &self.rulings
    }

    // ---- deciding ------------------------------------------------------------------------------------------------

    /// The operator of `host` decides something about others, as its daemon does it: signed, on the disk, taken in.
    ///
    /// # Errors
    /// The node's refusal, in words.
    pub fn decide(
        &mut self,
        host: HostId,
        about: &[HostId],
        ruling: &Ruling,
        reason: Option<&str>,
    ) -> Result<Vec<Arc<Decision>>, String> {
        if self.host(host).is_paused {
            return Err("its process is stopped".to_owned());
        }
        let order = |subject: &HostId| Order {
            subject: Subject::Node(self.node_id(*subject)),
            verdict: ruling.verdict(),
            reason: reason.map(str::to_owned),
            deadline_ms: None,
        };
        let orders: Vec<_> = about.iter().map(order).collect();
        let signed = self.with_node(host, |node, now| Some(node.gossipd_mut()?.handle_orders(now, orders)));
        let signed = match signed.flatten() {
            None => return Err("nothing runs there that could decide".to_owned()),
            Some(Err(error)) => {
                self.rulings.refused += 1;
                self.log(host, || format!("may not decide {ruling:?}: {error}"));
                return Err(error.to_string());
            }
            Some(Ok(signed)) => signed,
        };
        let mut made = Vec::new();
        for signed in &signed {
            let Ok(decision) = signed.decision() else { continue };
            self.trace.bytes(&signed.to_bytes());
            self.host_mut(host).kept.insert(slot_hash(&decision.slot()), Arc::new(signed.clone()));
            let waiting = self.reached(host, &decision);
            let target = self.host(host);
            let certified = gossipd::wire::credential::Certified {
                id: target.node_id,
                role: target.role,
                issued_ms: EPOCH_UNIX_MS + target.issued_ms,
            };
            let grows = self.rulings.accept((self.now_us, host), signed.clone(), decision.clone(), certified, waiting);
            self.checks.signed(host, grows, &decision);
            made.push(Arc::new(decision));
        }
        self.log(host, || format!("decides {ruling:?} about {about:?}"));
        self.with_node(host, |node, now| node.handle_command(now, Command::Decided(signed)));
        let lives = self.lives(host);
        for decision in made.iter().filter(|_| lives) {
            let holds = self.holds(host, decision);
            self.checks.accepted(host, holds, decision);
        }
        Ok(made)
    }

    /// The daemon on `host` waits until all have these.
    pub fn confirm(&mut self, host: HostId, decisions: &[Arc<Decision>]) {
        let have: Vec<_> =
            decisions.iter().map(|one| Have { slot: slot_hash(&one.slot()), stamp: one.stamp, ca: 0 }).collect();
        let asked = self.listed_active(host);
        let stamps = decisions.iter().map(|one| one.stamp).collect();
        let (at_us, life) = (self.now_us, self.host(host).life);
        // The answer may be there before the question's number is.
        let question = Question { by: host, life, nonce: 0, at_us, stamps, asked, answered_us: None };
        self.rulings.questions.push(question);
        let place = self.rulings.questions.len() - 1;
        let now = self.host(host).now(at_us);
        let nonce = self
            .host_mut(host)
            .node
            .as_mut()
            .and_then(Brain::gossipd_mut)
            .and_then(|node| node.handle_confirm(now, have));
        if let Some((question, nonce)) = self.rulings.questions.get_mut(place).zip(nonce) {
            question.nonce = nonce;
        }
        // Carries out what was asked for.
        self.with_node(host, |_, _| ());
    }

    fn listed_active(&self, host: HostId) -> Vec<HostId> {
        let others = self.living().filter(|other| *other != host);
        others.filter(|other| matches!(self.status(host, *other), Some(Status::Ready | Status::Suspect))).collect()
    }

    /// Those that a decision made on `host` should reach at once: they run, nothing is cut on the way,
    /// and they hold nothing later yet.
    fn reached(&self, host: HostId, decision: &Decision) -> BTreeSet<HostId> {
        let is_open = |other: &HostId| {
            let target = self.host(*other);
            *other != host
                && !target.is_paused
                && !self.rulings.is_removed(target.node_id)
                && self.net.is_open(host, *other, true)
                && !self.holds(*other, decision)
        };
        self.living().filter(is_open).collect()
    }

    /// Has `host` this decision, or a later one in its place?
    pub(super) fn holds(&self, host: HostId, decision: &Decision) -> bool {
        let stands = self.node(host).and_then(|node| node.decision(&decision.key()));
        stands.is_some_and(|stands| stands.stamp >= decision.stamp || decision.key().register == Register::Removed)
            || self.rulings.may_be_gone(decision)
    }

    // ---- following -----------------------------------------------------------------------------------------------

    /// An event came with a revision.
    pub(super) fn note_revision(&mut self, observer: HostId, revision: u64) {
        let follows = self.host_mut(observer).view.follow(revision);
        self.checks.revision(observer, follows, revision);
    }

    /// Something else stands in a register at `observer`.
    pub(super) fn note_decision(
        &mut self,
        observer: HostId,
        revision: u64,
        old: Option<Arc<Decision>>,
        new: Option<Arc<Decision>>,
    ) {
        self.note_revision(observer, revision);
        let Some(key) = new.as_ref().or(old.as_ref()).map(|decision| decision.key()) else { return };
        self.log(observer, || match &new {
            Some(new) => format!("holds for decided: {:?} {:?} at {:?}", key.subject, new.verdict, new.stamp.at),
            None => format!("holds for undecided: {key:?}"),
        });
        let before = self.host(observer).view.told(&key).map(|told| Arc::clone(&told.decision));
        self.checks.decision_told(observer, before == old, &key);
        if let Some(new) = &new {
            let is_true = self.rulings.get(new.stamp).is_some_and(|accepted| accepted.decision == *new);
            self.checks.decision_true(observer, is_true, new);
        }
        if let Some(old) = &old {
            let falls = new.as_ref().is_none_or(|new| new.stamp < old.stamp);
            let allowed = !falls || key.register == Register::Removed || self.rulings.may_be_gone(old);
            self.checks.decision_kept(observer, allowed, old, new.as_deref());
        }
        let now_us = self.now_us;
        self.host_mut(observer).view.decide(key.clone(), new.clone(), now_us);
        if let Some(new) = &new {
            self.rulings.seen(observer, new, now_us);
        }
        if key == self.role_key(observer) {
            self.see_to_role(observer, RENEW_US);
        }
    }

    /// A node says that it was removed.
    pub(super) fn note_removal(&mut self, host: HostId) {
        self.log(host, || "learns that it was removed".to_owned());
        let is_true = self.rulings.is_removed(self.node_id(host));
        self.checks.obeys_removal(host, is_true);
    }

    /// A node lists another one, or changes how: not one whose removal it knows.
    pub(super) fn check_not_removed(&mut self, observer: HostId, number: usize, id: NodeId) {
        if !self.rulings.is_removed(id) {
            return;
        }
        let key = DecisionKey { subject: Subject::Node(id), register: Register::Removed };
        let view = &self.host(observer).view;
        let again = view.told(&key).is_some() && view.get(number).is_none();
        let subject = self.truth.born.get(number).map_or(observer, |born| born.host);
        self.checks.lists_removed(observer, subject, again);
    }

    /// The view of a node that has just started: what it remembers is no news to anybody.
    pub(super) fn first_view(&mut self, host: HostId, node: &Brain) -> View {
        let (decisions, now_us) = (node.decisions(), self.now_us);
        for decision in &decisions {
            let is_true = self.rulings.get(decision.stamp).is_some_and(|accepted| accepted.decision == *decision);
            self.checks.decision_true(host, is_true, decision);
        }
        let mut view = View::new(node.revision(), decisions, now_us);
        view.shown = self.first_shown(host, node);
        view
    }

    /// A node has joined: it knows all that its peer knew when it started.
    pub(super) fn note_joined(&mut self, host: HostId, with: NodeId) {
        self.log(host, || "has joined".to_owned());
        let Some(peer) =
            self.truth.ids.get(&with).and_then(|number| self.truth.born.get(*number)).map(|born| born.host)
        else {
            return;
        };
        let began_us = self.host(host).started_us;
        let theirs: Vec<_> = self.host(peer).view.decisions().collect();
        let known = theirs.iter().filter(|(_, told)| told.since_us <= began_us);
        let lacking = known.into_iter().find(|(_, told)| !self.holds(host, &told.decision));
        let lacking = lacking.map(|(_, told)| Arc::clone(&told.decision));
        if !theirs.is_empty() {
            self.checks.joined(host, lacking.as_deref());
        }
    }

    /// All members have what `host` asked for, it says.
    pub(super) fn note_confirmed(&mut self, host: HostId, nonce: u32) {
        self.log(host, || format!("question {nonce} is answered by all"));
        let (now_us, life) = (self.now_us, self.host(host).life);
        let mine = |one: &&mut Question| one.by == host && one.life == life && one.nonce == nonce;
        let Some(question) = self.rulings.questions.iter_mut().rev().filter(mine).find(|one| one.answered_us.is_none())
        else {
            return;
        };
        question.answered_us = Some(now_us - question.at_us);
        let (asked, stamps) = (question.asked.clone(), question.stamps.clone());
        let listed = self.listed_active(host);
        for decision in stamps
            .iter()
            .filter_map(|stamp| self.rulings.get(*stamp))
            .map(|one| Arc::clone(&one.decision))
            .collect::<Vec<_>>()
        {
            let without =
                asked.iter().filter(|other| listed.contains(other)).find(|other| !self.holds(**other, &decision));
            let without = without.copied();
            self.checks.confirmed(host, without, &decision);
        }
    }

    // ---- what daemons do -----------------------------------------------------------------------------------------

    fn role_key(&self, host: HostId) -> DecisionKey {
        DecisionKey { subject: Subject::Node(self.node_id(host)), register: Register::Role }
    }

    /// The role that the node on `host` should have, by what it knows itself.
    fn role_due(&self, host: HostId) -> Option<Role> {
        self.node(host)?.decided(self.node_id(host)).role()
    }

    /// If that is another one than its certificate's, asks a manager for a certificate, soon.
    pub(super) fn see_to_role(&mut self, host: HostId, after_us: u64) {
        if self.role_due(host).is_some_and(|role| role != self.host(host).role) {
            let life = self.host(host).life;
            self.schedule(self.now_us + after_us, Happening::Renew { host, life });
        }
    }

    /// Some manager that is reached and knows of the new role issues the certificate.
    pub(super) fn renew_role(&mut self, host: HostId, life: u64) {
        let Some(role) = self.role_due(host).filter(|role| *role != self.host(host).role) else { return };
        if self.host(host).life != life {
            return;
        }
        let node_id = self.node_id(host);
        let issues = |other: &HostId| {
            let target = self.host(*other);
            *other != host
                && target.role == Role::Manager
                && !target.is_paused
                && self.net.is_open(host, *other, false)
                && self.node(*other).is_some_and(|node| node.decided(node_id).role() == Some(role))
        };
        let Some(issuer) = self.living().find(issues).filter(|_| !self.host(host).is_paused) else {
            return self.see_to_role(host, RENEW_AGAIN_US);
        };
        let key = self.role_key(host);
        let decided_ms = self.node(host).and_then(|node| node.decision(&key)).map_or(0, |one| one.stamp.at.ms());
        let issued_ms = self.host(issuer).now(self.now_us).unix_ms.max(decided_ms + 1).saturating_sub(EPOCH_UNIX_MS);
        self.log(host, || format!("is certified as {role} by {issuer}"));
        let target = self.host_mut(host);
        (target.role, target.issued_ms) = (role, issued_ms);
        let credential = self.issuer.credential(node_id, role, issued_ms);
        self.with_node(host, |node, now| node.handle_command(now, Command::Credential(credential)));
    }

    /// The node on `host` has learned that it was removed: its process ends, and its disk forgets the cluster.
    pub(super) fn obey_removal(&mut self, host: HostId) {
        self.log(host, || "was removed: it forgets the cluster".to_owned());
        self.kill(host);
        self.host_mut(host).forget_cluster();
    }

    // ---- agreement -----------------------------------------------------------------------------------------------

    /// Whether a decider still has what it alone may have.
    fn has_its_own(&self) -> impl Fn(&Accepted) -> bool {
        |accepted| self.lives(accepted.by) && self.node_id(accepted.by) == accepted.decision.stamp.signer
    }

    /// Whether all of `hosts` that run hold the same for decided, and, if these are all, what should follow from all
    /// that was decided.
    pub fn are_decided(&mut self, hosts: &[HostId], are_all: bool) -> bool {
        if self.rulings.all().is_empty() {
            return true;
        }
        let mut rulings = std::mem::take(&mut self.rulings);
        let expected = if are_all { rulings.expected(self.has_its_own()) } else { None };
        self.rulings = rulings;
        let mut folds = hosts.iter().filter(|host| self.lives(**host)).map(|host| self.host(*host).view.fold());
        let Some(first) = folds.next() else { return true };
        expected.is_none_or(|expected| expected == first) && folds.all(|fold| fold == first)
    }

    /// The checks of what was decided, once all is calm: `hosts` should hold the same.
    pub(crate) fn check_decided(&mut self, hosts: &[HostId], are_all: bool) {
        let hosts: Vec<_> = hosts.iter().copied().filter(|host| self.lives(*host)).collect();
        let Some(&first) = hosts.first().filter(|_| !self.rulings.all().is_empty()) else { return };
        let due = self.rulings.due();
        let is_certain = are_all && self.rulings.are_all_alive(self.has_its_own());
        let held = |host: HostId| -> Vec<Arc<Decision>> {
            self.host(host).view.decisions().map(|(_, told)| Arc::clone(&told.decision)).collect()
        };
        let reference = held(first);
        let mut checks = self.checks.clone();
        for host in &hosts {
            let theirs = held(*host);
            let odd = theirs
                .iter()
                .find(|one| !reference.contains(one))
                .or_else(|| reference.iter().find(|one| !theirs.contains(one)));
            checks.same_decisions([first, *host], odd.map(|one| &**one));
            for one in &theirs {
                checks.decision_good(*host, !due.void.contains(&one.stamp), one);
            }
            let certain = due.standing.iter().filter(|(key, _)| is_certain && !due.contested.contains(key));
            for (key, one) in certain {
                let stands = theirs.iter().find(|held| held.key() == *key);
                checks.decision_survives(*host, stands.map(|held| &**held), one);
            }
        }
        self.checks = checks;
    }
}
