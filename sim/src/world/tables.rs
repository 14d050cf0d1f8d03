//! Owners write, and what other nodes show of it is followed step by step.
//!
//! Not here: what was really written (`registry`), and looks at whole nodes (`tables_audit`).

use std::collections::BTreeSet;

use gossipd::node::Write;
use gossipd::node::tables::Changed;
use gossipd::record::{NodeId, Status, Version};
use gossipd::wire::table::{Body, Scope, Step};

use super::World;
use super::registry::{Burial, Pending, Registry};
use crate::brain::Brain;
use crate::host::{HostId, Input};
use crate::shown::{Name, Owed, Place, Record, hash_of};
use crate::view::Row;
use crate::writing::{self, ATTACHMENTS, scope_number};

/// A datagram or an exchange is under way no longer than this, in microseconds.
const FLIGHT_US: u64 = 12_000_000;
/// A process that was slow may have something old in its buffer for so long, in microseconds.
const LATE_US: u64 = 10_000_000;

impl World {
    /// All that owners wrote so far.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn owner(&self, host: HostId) -> u32 {
        u32::try_from(self.host(host).number).unwrap_or(u32::MAX)
    }

    fn owner_of(&self, id: NodeId) -> Option<u32> {
        u32::try_from(*self.truth.ids.get(&id)?).ok()
    }

    // ---- writing -------------------------------------------------------------------------------------------------

    /// A program on `host` writes into its node's own tables, on behalf of a writing of that number. A process that is
    /// stopped or busy takes it later.
    pub fn write(&mut self, host: HostId, number: u64, write: Write) {
        if self.lives(host) {
            self.arrive(host, Input::Write { number, write });
        } else {
            self.registry.refused += 1;
        }
    }

    pub(super) fn take_write(&mut self, host: HostId, number: u64, write: Write) {
        self.writer = Some(host);
        let written = self.with_node(host, |node, now| Some(node.gossipd_mut()?.handle_write(now, write)));
        self.writer = None;
        match written.flatten() {
            Some(Ok(Some(sight))) => {
                // Nobody else has it yet.
                let next = self.living().find(|other| *other != host);
                next.into_iter().for_each(|other| self.check_pair(host, other));
                self.log(host, || format!("writes {:?} {:?}", sight.scope, sight.version));
                self.hit(Some(number));
            }
            Some(Ok(None)) => self.hit(Some(number)),
            Some(Err(_)) | None => self.registry.refused += 1,
        }
    }

    /// `host` took part in the first network before the start of time.
    pub fn attach_before(&mut self, host: HostId) {
        let (id, vtep, owner) = (self.node_id(host), self.addr(host).ip(), self.owner(host));
        if let Some(step) = writing::attached_before(id, vtep) {
            let target = self.host_mut(host);
            target.disk = writing::BEFORE;
            target.kept_tables.keep(&step, &step.lives);
            self.registry.keep(owner, &step);
        }
    }

    /// A step is on the disk of `host` now, and counts.
    pub(super) fn note_kept(&mut self, host: HostId, step: &Step) {
        let owner = self.owner(host);
        let place = (owner, scope_number(step.scope));
        if self.registry.doubtful.contains(&owner) {
            return;
        }
        let follows = self.registry.keep(owner, step);
        self.checks.step_written(host, follows, step);
        // Whoever has its disk says nothing again.
        let is_asked = self.writer == Some(host) || self.host(host).has_lost_tables;
        self.checks.not_said_again(host, is_asked, step);
        self.registry.writes += 1;
        for change in step.changes.iter().filter(|change| place.1 == ATTACHMENTS && change.body.is_none()) {
            let network = scope_number(Scope::Network(change.key.network()));
            self.registry.excuse(host, Some(network));
        }
        let waiting: BTreeSet<_> = self.living().filter(|other| self.should_hear(host, *other, place.1)).collect();
        if !waiting.is_empty() {
            let pending = Pending { version: step.to(), at_us: self.now_us, waiting };
            self.registry.open.entry(place).or_default().push(pending);
        }
    }

    fn should_hear(&self, host: HostId, other: HostId, scope: u8) -> bool {
        let target = self.host(other);
        other != host
            && target.number != self.host(host).number
            && !target.is_paused
            && self.registry.is_attached(self.owner(other), scope)
            && self.net.is_open(host, other, true)
            && matches!(self.status(other, host), Some(Status::Ready | Status::Suspect))
    }

    // ---- lives ---------------------------------------------------------------------------------------------------

    /// What the node on `host` knew is gone with it.
    pub(super) fn tables_end(&mut self, host: HostId) {
        let now_us = self.now_us;
        for (place, sum) in self.host(host).view.shown.sums().collect::<Vec<_>>() {
            if let Some(table) = self.registry.tables.get_mut(&place) {
                table.left.insert(sum.version, now_us);
            }
        }
        self.registry.excuse(host, None);
        for burial in &mut self.registry.burials {
            burial.left.remove(&host);
        }
        self.close_burials();
    }

    /// The node on `host` has started with what was on its disk.
    pub(super) fn tables_start(&mut self, host: HostId, node: &Brain) {
        self.registry.changes += 1;
        let Some(node) = node.gossipd() else { return };
        for table in self.host(host).kept_tables.tables() {
            let (lives, records) = node.tables().own(table.scope);
            let same = lives == table.lives && records.eq(table.records.iter().map(|(key, body)| (*key, body)));
            self.checks.continues(host, same, table.scope);
        }
    }

    /// What `host` starts with is told to nobody: its listeners begin with a snapshot.
    pub(super) fn first_shown(&mut self, host: HostId, node: &Brain) -> crate::shown::Shown {
        let mut shown = crate::shown::Shown::default();
        let Some(node) = node.gossipd() else { return shown };
        for (place, name, hash) in self.held(node) {
            shown.put(place, name, Some(Record { hash, down_since_ms: None }));
        }
        for place in std::mem::take(&mut shown.touched) {
            shown.reach(place, node.tables().version(writing::scope(place.1), self.node_id(host)));
        }
        shown.fresh.clear();
        shown
    }

    /// All that a node holds and shows.
    pub(super) fn held(&self, node: &gossipd::node::Node) -> Vec<(Place, Name, u64)> {
        let tables = node.tables();
        let mut all = Vec::new();
        for (owner, network, attachment) in tables.attachments() {
            let body = Body::of_attachment(&attachment).ok();
            if let Some((owner, body)) = self.owner_of(owner).zip(body) {
                all.push(((owner, ATTACHMENTS), *network.as_bytes(), hash_of(Scope::Attachments, &body)));
            }
        }
        for network in tables.networks() {
            let scope = Scope::Network(network);
            for (name, body) in tables.endpoints(network) {
                if let Some(owner) = self.owner_of(name.owner) {
                    all.push(((owner, scope_number(scope)), *name.id.as_bytes(), hash_of(scope, body)));
                }
            }
        }
        all
    }

    /// The disk of `host` has no tables any more, or is that of another node: others have to forget what it was.
    pub(super) fn bury(&mut self, host: HostId, owner: u32, generation: u64, stays_down: bool) {
        let shows = |other: &HostId| {
            let mut all = self.host(*other).view.shown.of(owner);
            *other != host && all.any(|(.., record)| !stays_down || record.down_since_ms.is_none())
        };
        let left: BTreeSet<_> = self.living().filter(shows).collect();
        self.registry.lose(owner);
        self.registry.burials.push(Burial { owner, generation, stays_down, at_us: self.now_us, left });
        self.close_burials();
    }

    fn close_burials(&mut self) {
        let (now_us, registry) = (self.now_us, &mut self.registry);
        let over = registry.burials.iter().filter(|burial| burial.left.is_empty());
        registry.buried_us.extend(over.map(|burial| now_us - burial.at_us));
        registry.burials.retain(|burial| !burial.left.is_empty());
    }

    fn settle_burials(&mut self, observer: HostId, owner: u32) {
        let shown = &self.host(observer).view.shown;
        let old = |burial: &Burial| {
            let remains = shown.of(owner).find(|(scope, _, record)| {
                let version = shown.sum((owner, *scope)).version;
                version.generation < burial.generation && (!burial.stays_down || record.down_since_ms.is_none())
            });
            remains.is_some()
        };
        let mine = self.registry.burials.iter().enumerate().filter(|(_, burial)| burial.owner == owner && !old(burial));
        let rest: Vec<_> = mine.map(|(number, _)| number).collect();
        for number in rest {
            if let Some(burial) = self.registry.burials.get_mut(number) {
                burial.left.remove(&observer);
            }
        }
        self.close_burials();
    }

    // ---- events --------------------------------------------------------------------------------------------------

    /// A member's change was told: if it went down or came back, marks of all its records have to follow at once.
    pub(super) fn owe_marks(&mut self, observer: HostId, old: Option<&Row>, new: Option<&Row>) {
        let Some(new) = new.filter(|new| new.status != Status::Left) else { return };
        let since = down_since_ms(Some(new));
        if since == down_since_ms(old) {
            return;
        }
        let Some(owner) = self.owner_of(new.identity.id) else { return };
        let shown = &mut self.host_mut(observer).view.shown;
        let left: BTreeSet<_> = shown.of(owner).map(|(scope, name, _)| (scope, name)).collect();
        shown.owed = (!left.is_empty()).then_some(Owed { owner, left });
    }

    /// A record changed in the eyes of `observer`.
    pub(super) fn note_table(&mut self, observer: HostId, change: &Changed, marks: (Option<u64>, Option<u64>)) {
        let id = change.owner();
        let Some(owner) = self.owner_of(id) else {
            return self.checks.record_true(observer, false, || format!("a record of {id}, who never was"));
        };
        let (scope, name, old, new) = match change {
            Changed::Attachment { network, old, new, .. } => {
                let hash = |one: &gossipd::record::network::Attachment| Body::of_attachment(one).ok();
                let [old, new] = [old, new].map(|one| one.as_deref().and_then(hash));
                (Scope::Attachments, *network.as_bytes(), old, new)
            }
            Changed::Endpoint { name, old, new } => {
                let hash = |one: &gossipd::record::network::Endpoint| Body::of_endpoint(one).ok();
                let [old, new] = [old, new].map(|one| one.as_deref().and_then(hash));
                (Scope::Network(name.network), *name.id.as_bytes(), old, new)
            }
        };
        let place = (owner, scope_number(scope));
        let [old, new] = [old, new].map(|body| body.map(|body| hash_of(scope, &body)));
        let record = new.map(|hash| Record { hash, down_since_ms: marks.1 });
        let view = &mut self.host_mut(observer).view;
        let member = view.get(owner as usize).map(|row| down_since_ms(Some(row)));
        let before = view.shown.put(place, name, record);
        let is_owed = view.shown.owed.as_mut().map(|owed| owed.owner == owner && owed.left.remove(&(place.1, name)));
        let told = before.map(|before| (before.hash, before.down_since_ms)) == old.map(|hash| (hash, marks.0));
        self.registry.changes += 1;
        self.checks.record_told(observer, told, &place);
        if record.is_some() && self.owner(observer) != owner {
            self.checks.marked(observer, member == Some(marks.1) && is_owed != Some(false), &place);
        } else if is_owed == Some(false) {
            self.checks.marked(observer, false, &place);
        }
        if self.registry.doubtful.contains(&owner) {
            return;
        }
        if let Some(hash) = new {
            let is_true = self.registry.table(place).is_some_and(|table| table.was_written(&name, hash));
            self.checks.record_true(observer, is_true, || format!("{name:?} of {place:?}, which nobody wrote"));
        }
        if new.is_some() && place.1 != ATTACHMENTS {
            let is_attached = self.registry.is_attached(self.owner(observer), place.1);
            self.checks.attached(observer, is_attached, place.1);
        }
    }

    /// Something else was told while marks were still due.
    pub(super) fn marks_are_due(&mut self, observer: HostId) {
        if let Some(owed) = self.host_mut(observer).view.shown.owed.take() {
            let place = (owed.owner, owed.left.first().map_or(ATTACHMENTS, |(scope, _)| *scope));
            if !owed.left.is_empty() {
                self.checks.marked(observer, false, &place);
            }
        }
    }

    // ---- after an input ------------------------------------------------------------------------------------------

    /// An input is over: what the node on `host` shows now must be what owners wrote, version by version.
    pub(super) fn follow_tables(&mut self, host: HostId) {
        let Some(taken) = self.node(host).map(|node| node.stats().steps_taken) else { return };
        let shown = &mut self.host_mut(host).view.shown;
        if shown.touched.is_empty() && taken == shown.steps_taken && shown.owed.is_none() {
            return;
        }
        shown.steps_taken = taken;
        let mut touched = std::mem::take(&mut shown.touched);
        let fresh = std::mem::take(&mut shown.fresh);
        self.marks_are_due(host);
        let waits = |(_, open): &(&Place, &Vec<Pending>)| open.iter().any(|pending| pending.waiting.contains(&host));
        touched.extend(self.registry.open.iter().filter(waits).map(|(place, _)| *place));
        for place in &touched {
            self.settle_table(host, *place);
        }
        for (place, name) in fresh {
            self.check_risen(host, place, &name);
        }
    }

    fn settle_table(&mut self, observer: HostId, place: Place) {
        let (owner, scope) = (place.0, writing::scope(place.1));
        let Some(id) = self.id_of(owner) else { return };
        let held = self.node(observer).map(|node| node.tables().version(scope, id)).unwrap_or_default();
        let before = self.host_mut(observer).view.shown.reach(place, held);
        let content = self.host(observer).view.shown.sum(place).content();
        let now_us = self.now_us;
        if !self.registry.burials.is_empty() {
            self.settle_burials(observer, owner);
        }
        if self.registry.doubtful.contains(&owner) {
            return;
        }
        self.checks.version(observer, held >= before || held == Version::NONE, place, (before, held));
        let is_attached = self.host(observer).view.shown.get((owner, ATTACHMENTS), &[place.1; 16]).is_some();
        let is_shown = place.1 == ATTACHMENTS || is_attached;
        let table = self.registry.tables.entry(place).or_default();
        let written = if held == Version::NONE { Some((0, 0)) } else { table.contents.get(&held).copied() };
        let same = written == Some(content) || !is_shown && content == (0, 0);
        table.seen = table.seen.max(held);
        if held > before {
            table.left.insert(before, now_us);
        }
        self.checks.content(observer, same, place, held);
        self.registry.changes += u64::from(held > before);
        self.registry.arrived(place, observer, held, now_us);
    }

    /// A record has appeared at `observer`: nobody may have seen it deleted, unless somebody who runs had not.
    fn check_risen(&mut self, observer: HostId, place: Place, name: &Name) {
        // A slow process reads what was said long ago, and cannot know that.
        let is_late = self.now_us < self.host(observer).slow_us + LATE_US;
        if self.registry.doubtful.contains(&place.0) || is_late && self.host(observer).slow_us > 0 {
            return;
        }
        let (Some(id), scope) = (self.id_of(place.0), writing::scope(place.1)) else { return };
        let version = |host: HostId| self.node(host).map(|node| node.tables().version(scope, id)).unwrap_or_default();
        let held = version(observer);
        let fate = self.registry.table(place).and_then(|table| table.fate(name, held));
        let Some((from, gone)) = fate else { return self.checks.risen(observer, None, place, held) };
        let lingers = |version: Version| version >= from && version < gone;
        let is_held = self.living().any(|other| other != observer && lingers(version(other)));
        let was_held = self
            .registry
            .table(place)
            .is_some_and(|table| table.left.range(from..gone).any(|(_, left_us)| left_us + FLIGHT_US >= self.now_us));
        let again = self.host(observer).view.shown.sum(place).version >= gone;
        let is_risen = again || !is_held && !was_held;
        self.checks.risen(observer, is_risen.then_some(gone), place, held);
    }

    pub(super) fn id_of(&self, owner: u32) -> Option<NodeId> {
        self.truth.born.get(owner as usize).map(|born| born.id)
    }
}

/// Since when a member is down.
pub(super) fn down_since_ms(row: Option<&Row>) -> Option<u64> {
    row.filter(|row| row.status == Status::Down).map(|row| row.since_ms)
}
