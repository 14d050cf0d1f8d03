//! What really is the case, written down when it happens, and the book of what nodes saw of it.
//!
//! Not here: whether what they saw is allowed (`checks`), and what it amounts to (`figures`).

use std::collections::BTreeMap;

use gossipd::node::{Degraded, Event, Identity, Member};
use gossipd::record::{NodeId, Status};

use super::World;
use crate::brain::Brain;
use crate::checks::Step;
use crate::host::{HostId, address_number};
use crate::outcome::{CHANGES_MAX, StatusChange};
use crate::view::{Common, Row, View};

/// A host counts as healthy this long after its last fault ended, in microseconds.
pub(super) const RECOVERY_US: u64 = 10_000_000;
/// In larger worlds the first appearances of nodes are not kept.
const FIRST_KEPT_MAX: usize = 64;

/// One node id.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) id: NodeId,
    pub(super) host: HostId,
    /// All its lives, in order.
    lives: Vec<Identity>,
    /// The life that runs now.
    present: Option<Identity>,
    /// The highest incarnation known of a life.
    incarnation: (u64, u16),
    /// The life that said goodbye.
    left: Option<u64>,
    /// The life that announced its absence.
    away: Option<u64>,
    /// What observers list of it.
    pub(super) common: Common,
}

/// All node ids that ever were.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) ids: BTreeMap<NodeId, usize>,
    pub(super) born: Vec<Born>,
    /// Who ever had an address, by its number.
    had: Vec<Vec<usize>>,
    /// Rows of running observers that say the truth.
    pub(super) right: usize,
    suspects: usize,
    /// Pairs that an observer lists as active at one address, and since when.
    pub(super) doubles: BTreeMap<(HostId, usize, usize), u64>,
}

impl Truth {
    pub(super) fn number(&mut self, id: NodeId, host: HostId) -> usize {
        let next = self.born.len();
        let number = *self.ids.entry(id).or_insert(next);
        if number == next {
            self.born.push(Born {
                id,
                host,
                lives: Vec::new(),
                present: None,
                incarnation: (0, 0),
                left: None,
                away: None,
                common: Common::default(),
            });
        }
        number
    }

    fn note_life(&mut self, number: usize, identity: Identity) {
        if let Some(born) = self.born.get_mut(number) {
            born.lives.push(identity);
            born.present = Some(identity);
            // A life that begins by itself may go on counting; only a start begins at 0.
            born.incarnation = (identity.generation, 0);
        }
        if let Some(address) = address_number(identity.addr) {
            if self.had.len() <= address {
                self.had.resize_with(address + 1, Vec::new);
            }
            if let Some(had) = self.had.get_mut(address).filter(|had| !had.contains(&number)) {
                had.push(number);
            }
        }
    }
}

/// Counts of what was seen, since the world began or since they were last set to zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Suspicions, of anybody by anybody.
    pub suspicions: u64,
    /// Of these: of running nodes that no fault touched.
    pub healthy_suspected: u64,
    /// Of these: at healthy observers.
    pub collateral_suspicions: u64,
    /// Running nodes listed as down, by anybody.
    pub false_downs: u64,
    /// Of these: nodes that no fault touched.
    pub healthy_downs: u64,
    /// Of these: at healthy observers.
    pub collateral_downs: u64,
    /// Suspicions and downs of healthy running nodes, told by nodes that a fault touched.
    pub accusations_by_sick: u64,
    /// Back from down within ten seconds, the same process running all the time.
    pub flaps: u64,
    /// New generations that running nodes took at their old address.
    pub renewals: u64,
    /// Of these: of nodes that no fault touched.
    pub collateral_renewals: u64,
    /// Changes of status, life or address, first appearances left out.
    pub changes: u64,
    /// Downs and suspicions told about nodes that were leaving or had announced their absence.
    pub leavers_accused: u64,
    /// Times that a node called itself isolated.
    pub isolated_told: u64,
    /// Times that a node called itself slow.
    pub slow_told: u64,
    /// Times that a node said that only TCP works for it.
    pub udp_blocked_told: u64,
    /// Most downs that one observer saw of one subject.
    pub downs_per_pair_max: u64,
}

/// A status that is waited for at all who should see it.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Of whom.
    pub subject: HostId,
    number: usize,
    generation: u64,
    status: Status,
    /// Since when.
    pub at_us: u64,
    waiting: Vec<bool>,
    /// Who saw it how long after.
    pub seen: Vec<(HostId, u64)>,
    is_open: bool,
    /// The process ended; with a goodbye it did not.
    pub is_crash: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Book {
    /// Changes, in order.
    pub(crate) changes: Vec<StatusChange>,
    /// Counts.
    pub(crate) counts: Counts,
    /// Watches, closed ones too.
    pub(crate) watches: Vec<Watch>,
    /// Downs that an observer saw of a subject, and when the last one was.
    downs: BTreeMap<(HostId, usize), (u64, u64)>,
    /// Conflicts of identity that were reported, and whether the reporter gave way.
    pub(crate) conflicts: Vec<(HostId, bool)>,
    /// Datagrams that did not fit into a buffer.
    pub(crate) buffer_drops: u64,
    /// The longest queue that was ever seen in a node.
    pub(crate) queue_max: usize,
    /// Exchanges that failed.
    pub(crate) exchange_failures: u64,
}

impl Book {
    /// Counts from now on.
    pub(crate) fn reset(&mut self) {
        self.counts = Counts::default();
        self.downs.clear();
    }

    /// Who reported another node with its id, in order, and whether it then gave way.
    pub fn conflicts(&self) -> &[(HostId, bool)] {
        &self.conflicts
    }

    /// Counts so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl World {
    // ---- who agrees ----------------------------------------------------------------------------------------------

    /// Whether every running node lists exactly the running ones as ready, each in its present life at its present
    /// address, and nobody as suspect.
    pub fn is_settled(&self) -> bool {
        let pairs = self.living.saturating_mul(self.living.saturating_sub(1));
        self.truth.right as u64 == pairs && self.truth.suspects == 0 && self.lists_no_others()
    }

    /// Nobody is listed as ready who does not run. Asked only when all else is right.
    fn lists_no_others(&self) -> bool {
        self.living().all(|observer| {
            self.host(observer).view.iter().all(|(number, row)| {
                row.status != Status::Ready || self.truth.born.get(number).is_some_and(|born| born.present.is_some())
            })
        })
    }

    /// Share of ordered pairs of running nodes in which the observer lists the subject rightly, in parts per million.
    pub fn convergence_ppm(&self) -> u32 {
        let pairs = self.living.saturating_mul(self.living.saturating_sub(1)).max(1);
        u32::try_from(self.truth.right as u64 * 1_000_000 / pairs).unwrap_or(u32::MAX)
    }

    /// Whether each of `core` that runs lists each other one as ready in its present life.
    pub fn agree(&self, core: &[HostId]) -> bool {
        core.iter().filter(|observer| self.lives(**observer)).all(|observer| {
            core.iter().filter(|subject| *subject != observer && self.lives(**subject)).all(|subject| {
                let seen = self.row(*observer, *subject).map(Row::seen);
                seen.zip(self.host(*subject).identity).is_some_and(|(seen, life)| seen == (life, Status::Ready))
            })
        })
    }

    /// Up to `count` of what is not as it should be, in words.
    pub fn disagreements(&self, count: usize) -> Vec<String> {
        let pairs = self.living().flat_map(|observer| self.living().map(move |subject| (observer, subject)));
        let odd = pairs.filter(|(observer, subject)| observer != subject).filter_map(|(observer, subject)| {
            let row = self.row(observer, subject).map(Row::seen);
            let right = row.zip(self.host(subject).identity).is_some_and(|(row, life)| row == (life, Status::Ready));
            (!right).then(|| match row {
                Some((life, status)) => format!("{observer} lists {subject} as {} {}", status.word(), life.generation),
                None => format!("{observer} does not list {subject}"),
            })
        });
        odd.take(count).collect()
    }

    pub(super) fn is_right(&self, number: usize, row: Option<&Row>) -> bool {
        let present = self.truth.born.get(number).and_then(|born| born.present);
        row.zip(present).is_some_and(|(row, life)| row.seen() == (life, Status::Ready))
    }

    /// The truth about a node changes: who was right may be wrong now.
    fn set_truth(&mut self, number: usize, change: impl FnOnce(&mut World)) {
        self.recount(number, |right| *right -= 1);
        change(self);
        self.recount(number, |right| *right += 1);
    }

    /// Counts those who are right about a node.
    fn recount(&mut self, number: usize, count: impl Fn(&mut usize)) {
        for observer in 0..self.hosts.len() {
            let right = self.hosts.get(observer).is_some_and(|host| self.is_right(number, host.view.get(number)));
            let Some(host) = self.hosts.get_mut(observer).filter(|_| right) else { continue };
            count(&mut host.view.right);
            if host.node.is_some() {
                count(&mut self.truth.right);
            }
        }
    }

    // ---- lives ---------------------------------------------------------------------------------------------------

    pub(super) fn follow_start(&mut self, host: HostId, view: View) {
        let target = self.host_mut(host);
        target.view = view;
        target.identity = target.node.as_ref().map(Brain::identity);
        let (number, identity) = (target.number, target.identity);
        if let Some(identity) = identity {
            self.close_watches(number);
            self.set_truth(number, |world| world.truth.note_life(number, identity));
        }
    }

    pub(super) fn follow_end(&mut self, host: HostId) {
        let (number, identity) = (self.host(host).number, self.host(host).identity);
        self.rulings.ended(host);
        self.tables_end(host);
        let view = &self.host(host).view;
        let (right, suspects) = (view.right, view.suspect());
        self.truth.right -= right;
        self.truth.suspects -= suspects;
        // From here on its rows do not count; its node is still there for `set_truth`, which must not count them again.
        let node = self.host_mut(host).node.take();
        let rival = self.hosts.iter().find(|other| other.number == number && other.node.is_some());
        let remains = rival.and_then(|other| other.identity);
        self.set_truth(number, |world| {
            if let Some(born) = world.truth.born.get_mut(number).filter(|born| born.present == identity) {
                born.present = remains;
            }
        });
        self.host_mut(host).node = node;
    }

    /// A running node may take a new identity by itself.
    pub(super) fn follow_identity(&mut self, host: HostId) {
        let now_us = self.now_us;
        let target = self.host(host);
        let identity = target.node.as_ref().map(Brain::identity);
        if identity == target.identity {
            return;
        }
        let (number, before, healthy) = (target.number, target.identity, target.is_healthy(now_us));
        self.host_mut(host).identity = identity;
        let Some(identity) = identity else { return };
        if before.map(|before| before.addr) == Some(identity.addr) {
            self.log(host, || format!("renews itself as {}", identity.generation));
            self.book.counts.renewals += 1;
            self.book.counts.collateral_renewals += u64::from(healthy);
        }
        self.set_truth(number, |world| world.truth.note_life(number, identity));
    }

    /// The node on `host` says goodbye, or that it will be back.
    pub(super) fn note_farewell(&mut self, host: HostId, returns: bool) {
        let (number, life) = (self.host(host).number, self.host(host).identity);
        if let Some((born, life)) = self.truth.born.get_mut(number).zip(life) {
            let place = if returns { &mut born.away } else { &mut born.left };
            *place = Some(life.generation);
        }
    }

    // ---- watches -------------------------------------------------------------------------------------------------

    /// From now on, notes when each of `observers` sees `status` of the life of `subject` that runs, or ran last.
    pub fn watch(&mut self, subject: HostId, status: Status, observers: &[HostId], is_crash: bool) {
        let number = self.host(subject).number;
        let Some(life) = self.truth.born.get(number).and_then(|born| born.lives.last()).copied() else { return };
        let mut waiting = vec![false; self.hosts.len()];
        for observer in observers.iter().filter(|observer| self.lives(**observer)) {
            let lists = self
                .row(*observer, subject)
                .is_some_and(|row| row.identity == life && matches!(row.status, Status::Ready | Status::Suspect));
            if let Some(place) = waiting.get_mut(observer.index()) {
                *place = lists;
            }
        }
        self.book.watches.push(Watch {
            subject,
            number,
            generation: life.generation,
            status,
            at_us: self.now_us,
            waiting,
            seen: Vec::new(),
            is_open: true,
            is_crash,
        });
    }

    /// Those who still run and have not seen what `watch` waits for.
    pub fn missed(&self, watch: &Watch) -> usize {
        self.living().filter(|host| watch.waiting.get(host.index()).copied().unwrap_or_default()).count()
    }

    fn close_watches(&mut self, number: usize) {
        for watch in self.book.watches.iter_mut().filter(|watch| watch.number == number) {
            watch.is_open = false;
        }
    }

    fn note_watches(&mut self, observer: HostId, number: usize, row: &Row) {
        let now_us = self.now_us;
        for watch in self.book.watches.iter_mut().filter(|watch| {
            watch.is_open
                && watch.number == number
                && watch.status == row.status
                && watch.generation <= row.identity.generation
        }) {
            if let Some(waits) = watch.waiting.get_mut(observer.index()).filter(|waits| **waits) {
                *waits = false;
                watch.seen.push((observer, now_us - watch.at_us));
            }
        }
    }

    // ---- events --------------------------------------------------------------------------------------------------

    pub(super) fn note_event(&mut self, observer: HostId, event: Event) {
        self.trace.number(self.now_us);
        self.trace.number(observer.index() as u64);
        self.trace.event(&event);
        self.publish(observer, &event);
        match event {
            Event::Member { revision, old, new, .. } => {
                self.marks_are_due(observer);
                self.note_revision(observer, revision);
                self.note_member(observer, old.as_deref(), new.as_deref());
            }
            Event::Decision { revision, old, new, .. } => self.note_decision(observer, revision, old, new),
            Event::Table { revision, change, down_since_ms, .. } => {
                self.note_revision(observer, revision);
                self.note_table(observer, &change, down_since_ms);
            }
            Event::Conflict { revision, .. } => self.note_revision(observer, revision),
            Event::Removed(_) => self.note_removal(observer),
            Event::Confirmed { nonce } => self.note_confirmed(observer, nonce),
            Event::LeaveDone { acknowledged } => self.log(observer, || format!("has left: {acknowledged}")),
            Event::Examined { .. } => {}
            Event::Joined { with } => self.note_joined(observer, with),
            Event::Health(health) => {
                self.log(observer, || {
                    let words: Vec<_> = health.reasons.iter().map(|reason| reason.word()).collect();
                    format!("rates itself {} {}", health.score, words.join(" "))
                });
                let Book { counts, .. } = &mut self.book;
                counts.isolated_told += u64::from(health.reasons.contains(&Degraded::Isolated));
                counts.slow_told += u64::from(health.reasons.contains(&Degraded::Slow));
                counts.udp_blocked_told += u64::from(health.reasons.contains(&Degraded::UdpBlocked));
            }
            Event::IdentityConflict { addr, generation, gives_way } => {
                self.log(observer, || format!("meets its double, gives way: {gives_way}"));
                self.checks.conflict(observer, || format!("{observer}: {generation} at {addr:?}"));
                self.book.conflicts.push((observer, gives_way));
            }
        }
    }

    fn note_member(&mut self, observer: HostId, old: Option<&Member>, new: Option<&Member>) {
        let Some(id) = new.or(old).map(|member| member.swim.identity.id) else { return };
        if id == self.node_id(observer) {
            return self.checks.own(observer, new.map(|member| member.status));
        }
        let Some(&number) = self.truth.ids.get(&id) else {
            return self.checks.unborn(observer, &format!("{id}"));
        };
        if new.is_some() {
            self.check_not_removed(observer, number, id);
        }
        let born = self.truth.born.get_mut(number);
        let row = new.zip(born).map(|(new, born)| born.common.share(new.into()));
        let (right, suspects) = (self.is_right(number, row.as_deref()), self.host(observer).view.suspect());
        let before = self.host_mut(observer).view.put(number, row.clone());
        let was_right = self.is_right(number, before.as_deref());
        self.owe_marks(observer, before.as_deref(), row.as_deref());
        let view = &mut self.host_mut(observer).view;
        view.right = view.right + usize::from(right) - usize::from(was_right);
        let more_suspects = view.suspect();
        self.truth.right = self.truth.right + usize::from(right) - usize::from(was_right);
        self.truth.suspects = self.truth.suspects + more_suspects - suspects;
        let told = old.map(Row::from);
        self.check_step(observer, number, told.as_ref(), before.as_deref(), row.as_deref());
        if let Some(row) = &row {
            self.note_watches(observer, number, row);
        }
        if before.as_deref().map(Row::seen) != row.as_deref().map(Row::seen) {
            self.note_change(observer, number, before.as_deref(), row.as_deref());
        }
    }

    fn check_step(
        &mut self,
        observer: HostId,
        number: usize,
        told: Option<&Row>,
        old: Option<&Row>,
        new: Option<&Row>,
    ) {
        if let Some(row) = new {
            self.refresh_incarnation(number, row);
        }
        let Some(born) = self.truth.born.get(number) else { return };
        let subject = born.host;
        let active = |row: &&Row| matches!(row.status, Status::Ready | Status::Suspect);
        let doubled = new.filter(active).and_then(|row| {
            let had = self.truth.had.get(address_number(row.identity.addr)?)?;
            had.iter().copied().filter(|other| *other != number).find(|other| {
                let other = self.host(observer).view.get(*other);
                other.filter(active).is_some_and(|other| other.identity.addr == row.identity.addr)
            })
        });
        self.note_double(observer, number, doubled);
        let Some(born) = self.truth.born.get(number) else { return };
        let step = Step {
            at_us: self.now_us,
            observer,
            subject,
            told,
            old,
            new,
            was_born: new.is_none_or(|row| born.lives.contains(&row.identity)),
            incarnation_max: new
                .filter(|row| row.identity.generation == born.incarnation.0)
                .map(|_| born.incarnation.1),
            said_goodbye: new.is_some_and(|row| Some(row.identity.generation) <= born.left),
            has_double: doubled.is_some(),
            is_calm: self.net.is_lossless()
                && self.net.is_clear()
                && self.host(subject).is_healthy(self.now_us)
                && self.host(observer).is_healthy(self.now_us),
        };
        self.checks.step(&step);
    }

    fn note_double(&mut self, observer: HostId, number: usize, doubled: Option<usize>) {
        let now_us = self.now_us;
        let doubles = &mut self.truth.doubles;
        let pair = doubled.map(|other| (observer, number.min(other), number.max(other)));
        if !doubles.is_empty() {
            doubles.retain(|key, _| {
                let (who, one, other) = *key;
                who != observer || (one != number && other != number) || Some(*key) == pair
            });
        }
        if let Some(pair) = pair {
            doubles.entry(pair).or_insert(now_us);
        }
    }

    /// Somebody speaks of a higher incarnation than is known: ask the subject itself.
    fn refresh_incarnation(&mut self, number: usize, row: &Row) {
        let Some(born) = self.truth.born.get(number) else { return };
        let (generation, known) = born.incarnation;
        if row.identity.generation != generation || row.incarnation <= known {
            return;
        }
        let members = self.host(born.host).node.as_ref().map(Brain::members).unwrap_or_default();
        let own = members.iter().find(|member| member.swim.identity == row.identity);
        let incarnation = own.map(|own| own.swim.incarnation);
        // A life that is over cannot be asked any more.
        let over = born.present.is_none_or(|present| present.generation != generation);
        if let Some(born) = self.truth.born.get_mut(number) {
            born.incarnation.1 = match incarnation {
                Some(incarnation) => known.max(incarnation),
                None if over => u16::MAX,
                None => known,
            };
        }
    }

    fn note_change(&mut self, observer: HostId, number: usize, old: Option<&Row>, new: Option<&Row>) {
        let Some(born) = self.truth.born.get(number) else { return };
        let Some(row) = new.or(old) else { return };
        let subject = born.host;
        let change = StatusChange {
            at_us: self.now_us,
            observer: observer.index(),
            subject: subject.index(),
            old: old.map(|row| row.status),
            new: new.map(|row| row.status),
            generation: row.identity.generation,
            subject_runs: born.present == Some(row.identity) && !self.rulings.is_removed(row.identity.id),
            subject_is_healthy: self.host(subject).is_healthy(self.now_us),
            observer_is_healthy: self.host(observer).is_healthy(self.now_us),
        };
        self.log(observer, || {
            let word = |status: Option<Status>| status.map_or("nothing", Status::word);
            format!("sees {subject} {} -> {}", word(change.old), word(change.new))
        });
        self.count_change(observer, number, &change);
        let first = change.old.is_none() && change.new == Some(Status::Ready);
        if self.book.changes.len() < CHANGES_MAX && (!first || self.hosts.len() <= FIRST_KEPT_MAX) {
            self.book.changes.push(change);
        }
    }

    fn count_change(&mut self, observer: HostId, number: usize, change: &StatusChange) {
        let StatusChange { at_us, old, new, subject_runs, subject_is_healthy, observer_is_healthy, .. } = *change;
        let leaves =
            self.truth.born.get(number).is_some_and(|born| Some(change.generation) <= born.left.max(born.away));
        let Book { counts, downs, .. } = &mut self.book;
        counts.changes += u64::from(old.is_some());
        let falsely = subject_runs && subject_is_healthy;
        match new {
            Some(Status::Suspect) => {
                counts.suspicions += 1;
                counts.healthy_suspected += u64::from(falsely);
                counts.collateral_suspicions += u64::from(falsely && observer_is_healthy);
                counts.accusations_by_sick += u64::from(falsely && !observer_is_healthy);
                counts.leavers_accused += u64::from(leaves);
            }
            Some(Status::Down) if old != Some(Status::Down) => {
                counts.false_downs += u64::from(subject_runs);
                counts.healthy_downs += u64::from(falsely);
                counts.collateral_downs += u64::from(falsely && observer_is_healthy);
                counts.accusations_by_sick += u64::from(falsely && !observer_is_healthy);
                counts.leavers_accused += u64::from(leaves);
                let (count, last_us) = downs.entry((observer, number)).or_default();
                (*count, *last_us) = (*count + 1, at_us);
                counts.downs_per_pair_max = counts.downs_per_pair_max.max(*count);
            }
            Some(Status::Ready) if old == Some(Status::Down) => {
                let last_us = downs.get(&(observer, number)).map_or(0, |(_, last_us)| *last_us);
                counts.flaps += u64::from(subject_runs && subject_is_healthy && at_us - last_us < RECOVERY_US);
            }
            _ => {}
        }
    }
}
