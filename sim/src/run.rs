//! Carries out a plan: starts, faults and looks in the order of their times, and what came of it.
//!
//! Not here: what a scenario is (`scenario`), and how the figures are made (`figures`).

use gossipd::node::Config;
use gossipd::record::Status;
use rand_chacha::ChaCha12Rng;

use crate::figures;
use crate::host::{BUFFER_BYTES, HostId, Totals};
use crate::luck::Luck;
use crate::outcome::{Matrix, Outcome, Protocol, Second};
use crate::plan::{Decree, Disk, Fault, Mode, Plan, What};
use crate::reading::Reading;
use crate::world::{Logs, Sent, Setup, World};

const SECOND_US: u64 = 1_000_000;
/// How exactly agreement is found, in microseconds.
const LOOK_US: u64 = 1_000;
/// How exactly it is found where every pair has to be asked, in microseconds.
const LOOK_CORE_US: u64 = 20_000;
/// Hosts shown in a matrix.
const MATRIX_HOSTS_MAX: usize = 100;
/// A listing is looked at whole every so many seconds.
const AUDIT_SECONDS: u64 = 16;
/// Most hosts whose listings are looked at in one second.
const AUDITS_MAX: usize = 32;

enum Act {
    Start(usize),
    /// All that know each other from the start.
    StartTogether,
    Begin(usize),
    End(usize),
    On(usize),
    Off(usize),
    Noise(usize),
    Decide(usize),
    Write(usize, u64),
    Look(usize),
    Measure,
    Matrix,
    Calm,
    Second(u64),
}

/// A run under way, and what was noted of it.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) world: World,
    /// Faults that are on.
    active: Vec<bool>,
    /// When each ended.
    pub(crate) ended_us: Vec<Option<u64>>,
    noise: Vec<ChaCha12Rng>,
    /// Decisions that came of each decree.
    pub(crate) decided: Vec<u64>,
    pub(crate) measured_from: Sent,
    pub(crate) tail_from: Sent,
    pub(crate) tables_from: Totals,
    last_second: (Sent, u64),
    pub(crate) seconds: Vec<Second>,
    pub(crate) convergence: Vec<(u64, u32)>,
    pub(crate) matrices: Vec<Matrix>,
    /// When all agreed after the last start and before the first fault.
    pub(crate) all_know_all_us: Option<u64>,
    /// When all agreed after the end of the faults.
    pub(crate) calm_after_us: Option<u64>,
    pub(crate) agrees_at_end: bool,
    /// The faults are over.
    is_calm: bool,
}

/// Runs `plan`.
pub fn run_plan(plan: &Plan) -> Outcome {
    run_logged(plan, Logs::Off)
}

/// Runs `plan`, and tells what happens as `logs` says.
pub fn run_logged(plan: &Plan, logs: Logs) -> Outcome {
    run_with(plan, plan.profile.config(), logs)
}

/// Runs `plan` with a fault built into every node.
#[cfg(feature = "mutants")]
pub fn run_mutant(plan: &Plan, mutant: gossipd::node::Mutant) -> Outcome {
    run_with(plan, Config { mutant: Some(mutant), ..plan.profile.config() }, Logs::Off)
}

/// Runs `plan` with half of the nodes of a later version, and each of the other one after a restart.
#[cfg(feature = "mutants")]
pub fn run_mixed(plan: &Plan) -> Outcome {
    run_with(plan, Config { is_later_version: true, ..plan.profile.config() }, Logs::Off)
}

fn run_with(plan: &Plan, config: Config, logs: Logs) -> Outcome {
    let mut run = Run::new(plan, config, logs);
    for (at_us, act) in timeline(plan) {
        run.advance(at_us);
        run.act(&act);
    }
    run.advance(plan.span_us);
    run.finish()
}

fn timeline(plan: &Plan) -> Vec<(u64, Act)> {
    let mut acts: Vec<(u64, Act)> = Vec::new();
    if plan.hosts.iter().any(|host| host.warm) {
        acts.push((0, Act::StartTogether));
    }
    let alone = plan.hosts.iter().enumerate().filter(|(_, host)| !host.warm);
    acts.extend(alone.map(|(n, host)| (host.start_us, Act::Start(n))));
    acts.push((plan.measure_from_us, Act::Measure));
    acts.extend(plan.matrices_us.iter().map(|at_us| (*at_us, Act::Matrix)));
    // Before faults of the same instant: a decider may crash right after.
    acts.extend(plan.decrees.iter().enumerate().map(|(n, decree)| (decree.at_us, Act::Decide(n))));
    for (n, writing) in plan.writings.iter().enumerate() {
        acts.extend(writing.turns().map(|(turn, at_us)| (at_us, Act::Write(n, turn))));
    }
    for (n, reading) in plan.readings.iter().enumerate() {
        acts.extend(reading.looks_us(plan.span_us).map(|at_us| (at_us, Act::Look(n))));
    }
    for (n, fault) in plan.faults.iter().enumerate() {
        acts.push((fault.at_us, Act::Begin(n)));
        let until_us = fault.until_us.unwrap_or(plan.span_us);
        if let Some(flap) = fault.flap {
            let mut at_us = fault.at_us + flap.on_us;
            while at_us < until_us {
                acts.push((at_us, Act::Off(n)));
                acts.push((at_us + flap.off_us, Act::On(n)));
                at_us += flap.off_us + flap.on_us;
            }
        }
        if let What::Noise { every_us } | What::Forge { every_us } = fault.what {
            let count = (until_us - fault.at_us) / every_us.max(1);
            acts.extend((1..count).map(|k| (fault.at_us + k * every_us, Act::Noise(n))));
        }
        acts.extend(fault.until_us.map(|at_us| (at_us, Act::End(n))));
    }
    acts.push((plan.calm.at_us, Act::Calm));
    acts.extend((1..=plan.span_us / SECOND_US).map(|n| (n * SECOND_US, Act::Second(n))));
    acts.retain(|(at_us, _)| *at_us <= plan.span_us);
    acts.sort_by_key(|(at_us, _)| *at_us);
    acts
}

pub(crate) fn ids(hosts: &[usize]) -> Vec<HostId> {
    hosts.iter().copied().map(HostId::new).collect()
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, config: Config, logs: Logs) -> Self {
        let setup =
            Setup { seed: plan.seed, network: plan.network.clone(), protocol: plan.protocol, node: config, logs };
        let mut world = World::new(setup);
        world.checks_mut().ask_for(&plan.checks);
        for host in &plan.hosts {
            world.add(host.region);
        }
        for host in plan.readings.iter().flat_map(|reading| ids(&reading.on)) {
            world.keep_history(host, plan.history);
        }
        let everybody: Vec<_> = world.hosts().collect();
        for (n, host) in plan.hosts.iter().enumerate() {
            // foca has no other way to know many from the start.
            let is_told_all = host.warm && plan.protocol == Protocol::Foca;
            let contacts = if is_told_all { everybody.clone() } else { ids(&host.contacts) };
            world.set_contacts(HostId::new(n), &contacts);
            if host.manager {
                world.set_manager(HostId::new(n));
            }
            if host.attached {
                world.attach_before(HostId::new(n));
            }
        }
        let luck = Luck::new(plan.seed);
        Self {
            plan,
            world,
            active: vec![false; plan.faults.len()],
            ended_us: vec![None; plan.faults.len()],
            noise: plan.faults.iter().map(|fault| luck.of_fault(fault.id)).collect(),
            decided: vec![0; plan.decrees.len()],
            measured_from: Sent::default(),
            tail_from: Sent::default(),
            tables_from: Totals::default(),
            last_second: (Sent::default(), 0),
            seconds: Vec::new(),
            convergence: Vec::new(),
            matrices: Vec::new(),
            all_know_all_us: None,
            calm_after_us: None,
            agrees_at_end: false,
            is_calm: false,
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    /// Runs on, looking out for agreement while it is waited for.
    fn advance(&mut self, until_us: u64) {
        while let Some(look_us) = self.looks_every_us() {
            if self.agrees() {
                let now_us = self.world.now_us();
                if self.is_calm {
                    self.calm_after_us = Some(now_us - self.plan.calm.at_us);
                } else {
                    self.all_know_all_us = Some(now_us - self.last_start_us());
                }
                continue;
            }
            if self.world.now_us() >= until_us {
                return;
            }
            let next_us = (self.world.now_us() + look_us).min(until_us);
            self.world.run_to(next_us);
        }
        self.world.run_to(until_us);
    }

    fn last_start_us(&self) -> u64 {
        self.plan.hosts.iter().map(|host| host.start_us).max().unwrap_or_default()
    }

    fn looks_every_us(&self) -> Option<u64> {
        let now_us = self.world.now_us();
        if self.is_calm {
            let core_us = if self.plan.calm.mode == Mode::Core { LOOK_CORE_US } else { LOOK_US };
            return self.calm_after_us.is_none().then_some(core_us);
        }
        let forms =
            now_us >= self.last_start_us() && self.all_know_all_us.is_none() && self.active.iter().all(|on| !on);
        let untouched = self.ended_us.iter().all(Option::is_none);
        (forms && untouched).then_some(LOOK_US)
    }

    fn agrees(&mut self) -> bool {
        match self.plan.calm.mode {
            Mode::Core if self.is_calm => {
                let core = ids(&self.plan.calm.core);
                self.world.agree(&core) && self.world.are_decided(&core, false) && self.world.are_tabled(&core)
            }
            _ => {
                let all: Vec<_> = self.world.hosts().collect();
                self.world.is_settled() && self.world.are_decided(&all, true) && self.world.are_tabled(&all)
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Start(n) => self.start(n),
            Act::StartTogether => self.start_together(),
            Act::Begin(n) => self.begin(n),
            Act::End(n) => self.end(n),
            Act::On(n) => self.set(n, true),
            Act::Off(n) => self.set(n, false),
            Act::Noise(n) => self.noise(n),
            Act::Decide(n) => self.decide(n),
            Act::Write(n, turn) => self.write(n, turn),
            Act::Look(n) => self.look(n),
            Act::Measure => {
                self.measured_from = self.world.sent();
                self.tables_from = self.world.all_totals();
                self.world.book_mut().reset();
            }
            Act::Matrix => self.draw_matrix(),
            Act::Calm => self.calm(),
            Act::Second(n) => self.second(n),
        }
    }

    fn start(&mut self, n: usize) {
        let host = HostId::new(n);
        if let Some(other) = self.plan.hosts.get(n).and_then(|plan| plan.clone_of) {
            self.world.copy_disk(HostId::new(other), host);
        }
        if let Some(other) = self.plan.hosts.get(n).and_then(|plan| plan.address_of) {
            self.world.take_address(HostId::new(other), host);
        }
        self.world.start(host);
    }

    fn start_together(&mut self) {
        let warm = self.plan.hosts.iter().enumerate().filter(|(_, host)| host.warm);
        let hosts: Vec<_> = warm.map(|(n, _)| HostId::new(n)).collect();
        self.world.start_together(&hosts);
    }

    fn calm(&mut self) {
        self.is_calm = true;
        let core = ids(&self.plan.calm.core);
        for (n, fault) in self.plan.faults.iter().enumerate() {
            let stays = self.plan.calm.mode == Mode::Core && ids(&fault.hosts).iter().all(|host| !core.contains(host));
            let is_over = matches!(fault.what, What::Leave | What::Readdress);
            let dead_for_good =
                matches!(fault.what, What::Kill { .. } | What::Crash { .. }) && fault.until_us.is_none();
            if !stays && !is_over && !dead_for_good {
                self.end(n);
            }
        }
    }

    fn second(&mut self, n: u64) {
        let now_us = self.world.now_us();
        let (sent, (before, handled)) = (self.world.sent(), self.last_second);
        let second = Second {
            datagrams: sent.datagrams - before.datagrams,
            datagram_bytes: sent.datagram_bytes - before.datagram_bytes,
            exchanges: sent.exchanges - before.exchanges,
            exchange_bytes: sent.exchange_bytes - before.exchange_bytes,
            events: self.world.handled() - handled,
            running: self.world.living_count(),
        };
        self.last_second = (sent, self.world.handled());
        if now_us + 10 * SECOND_US <= self.plan.span_us {
            self.tail_from = sent;
        }
        let peak = self.world.take_living_peak();
        self.world.checks_mut().second(second.datagrams, peak);
        self.world.check_doubles();
        self.seconds.push(second);
        self.convergence.push((now_us, self.world.convergence_ppm()));
        let hosts: Vec<_> = self.world.hosts().collect();
        for host in &hosts {
            self.world.check_resources(*host);
        }
        self.world.check_digests(usize::try_from(n).unwrap_or_default(), AUDITS_MAX);
        let turn = |host: &&HostId| (host.index() as u64 + n).is_multiple_of(AUDIT_SECONDS);
        for host in hosts.iter().filter(turn).take(AUDITS_MAX) {
            self.world.check_listing(*host);
        }
    }

    // ---- faults --------------------------------------------------------------------------------------------------

    fn begin(&mut self, n: usize) {
        let Some(fault) = self.plan.faults.get(n) else { return };
        for host in ids(&fault.hosts) {
            self.world.touch(host, true);
        }
        self.set(n, true);
    }

    fn end(&mut self, n: usize) {
        let Some(fault) = self.plan.faults.get(n) else { return };
        let began = self.world.now_us() >= fault.at_us;
        if !began || self.ended_us.get(n).copied().flatten().is_some() {
            return;
        }
        self.set(n, false);
        for host in ids(&fault.hosts) {
            self.world.touch(host, false);
        }
        if let Some(ended) = self.ended_us.get_mut(n) {
            *ended = Some(self.world.now_us());
        }
    }

    /// Puts a fault on or takes it off.
    fn set(&mut self, n: usize, on: bool) {
        let Some((fault, active)) = self.plan.faults.get(n).zip(self.active.get_mut(n)) else { return };
        let over = self.ended_us.get(n).copied().flatten().is_some();
        if *active == on || over {
            return;
        }
        *active = on;
        match &fault.what {
            What::Kill { .. } | What::Crash { .. } | What::Leave => self.set_life(fault, on),
            What::Net { path, effect } if on => self.world.begin_net(fault.id, path, *effect),
            What::Net { .. } => self.world.end_net(fault.id),
            What::Forge { .. } => {}
            What::Noise { .. } => ids(&fault.hosts).into_iter().for_each(|host| self.world.tap(host)),
            _ => {
                for host in ids(&fault.hosts) {
                    self.set_machine(fault, host, on);
                }
            }
        }
    }

    fn set_machine(&mut self, fault: &Fault, host: HostId, on: bool) {
        let (world, id) = (&mut self.world, on.then_some(fault.id));
        match fault.what {
            What::Pause => {
                world.under(host).pause = id;
                if on { world.pause(host) } else { world.resume(host) }
            }
            What::Slow { service_us } => {
                world.under(host).slow = id;
                world.slow(host, if on { service_us } else { 0 });
            }
            What::Starve { buffer_bytes } => {
                world.under(host).starve = id;
                world.starve(host, if on { buffer_bytes } else { BUFFER_BYTES });
            }
            What::Throttle { bytes_per_s } => {
                world.under(host).throttle = id;
                world.throttle(host, on.then_some(bytes_per_s));
            }
            What::Clock { step_ms, drift_ppm } => {
                world.under(host).clock = id;
                let (step_ms, drift_ppm) = if on { (step_ms, drift_ppm) } else { (0, 0) };
                world.set_clock(host, step_ms, drift_ppm);
            }
            What::Readdress if on => {
                world.readdress(host);
                world.count_hit(fault.id);
            }
            _ => {}
        }
    }

    fn set_life(&mut self, fault: &Fault, on: bool) {
        let hosts = ids(&fault.hosts);
        if !on {
            for host in hosts {
                self.world.under(host).death = None;
                match fault.what {
                    What::Kill { disk, moves, .. } | What::Crash { disk, moves } => {
                        if disk == Disk::Copied && self.world.has_copy(host) {
                            self.world.count_hit(fault.id);
                        }
                        self.world.revive(host, disk, moves)
                    }
                    _ => {}
                }
            }
            return;
        }
        let victims: Vec<_> = hosts.into_iter().filter(|host| self.world.lives(*host)).collect();
        let observers: Vec<_> =
            self.world.living().filter(|host| self.world.is_healthy(*host) && !victims.contains(host)).collect();
        for host in &victims {
            self.world.under(*host).death = Some(fault.id);
            self.world.count_hit(fault.id);
            match fault.what {
                What::Kill { announce_s: None, .. } => {
                    self.world.watch(*host, Status::Down, &observers, true);
                    self.world.kill(*host);
                }
                What::Crash { .. } => {
                    self.world.watch(*host, Status::Down, &observers, true);
                    self.world.crash(*host);
                }
                What::Kill { announce_s: Some(seconds), .. } => self.world.send_away(*host, seconds),
                _ => {
                    self.world.watch(*host, Status::Left, &observers, false);
                    self.world.leave(*host);
                }
            }
        }
    }

    fn noise(&mut self, n: usize) {
        let on = self.active.get(n).copied().unwrap_or_default();
        let Some((fault, rng)) = self.plan.faults.get(n).zip(self.noise.get_mut(n)).filter(|_| on) else { return };
        for host in ids(&fault.hosts) {
            match fault.what {
                What::Forge { .. } => self.world.forge(fault.id, host, rng),
                _ => self.world.throw(fault.id, host, rng),
            }
        }
    }

    fn decide(&mut self, n: usize) {
        let Some(Decree { by, about, reason, confirm, ruling, .. }) = self.plan.decrees.get(n) else { return };
        for host in ids(by) {
            let Ok(made) = self.world.decide(host, &ids(about), ruling, reason.as_deref()) else { continue };
            if let Some(count) = self.decided.get_mut(n) {
                *count += made.len() as u64;
            }
            if *confirm {
                self.world.confirm(host, &made);
            }
        }
    }

    fn write(&mut self, n: usize, turn: u64) {
        let Some(writing) = self.plan.writings.get(n) else { return };
        for host in ids(&writing.writers(turn)) {
            let write = writing.write(Luck::new(self.plan.seed), turn, host, self.world.addr(host).ip());
            self.world.write(host, writing.id, write);
        }
    }

    fn look(&mut self, n: usize) {
        let Some(Reading { on, bytes, drops_every, .. }) = self.plan.readings.get(n) else { return };
        let bytes = bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        ids(on).into_iter().for_each(|host| self.world.look(n, host, bytes, *drops_every));
    }

    // ---- the end -------------------------------------------------------------------------------------------------

    fn draw_matrix(&mut self) {
        let hosts: Vec<_> = self.world.hosts().collect();
        let step = hosts.len().div_ceil(MATRIX_HOSTS_MAX).max(1);
        let hosts: Vec<_> = hosts.into_iter().step_by(step).collect();
        let letter = |observer: HostId, subject: HostId| match self.world.status(observer, subject) {
            _ if !self.world.lives(observer) => 'x',
            _ if observer == subject => 'o',
            None => '.',
            Some(Status::Ready) => 'r',
            Some(Status::Suspect) => 's',
            Some(Status::Down) => 'd',
            Some(Status::Left) => 'l',
        };
        let rows = hosts.iter().map(|observer| hosts.iter().map(|subject| letter(*observer, *subject)).collect());
        self.matrices.push(Matrix {
            at_us: self.world.now_us(),
            label: self.phase().to_owned(),
            rows: rows.collect(),
            hosts: hosts.iter().map(|host| host.index()).collect(),
        });
    }

    /// Where the run is, in words.
    fn phase(&self) -> &'static str {
        let now_us = self.world.now_us();
        let begins_us = self.plan.faults.iter().map(|fault| fault.at_us).min();
        match begins_us {
            None => "without any fault",
            Some(begins_us) if now_us < begins_us => "before the faults",
            Some(_) if now_us < self.plan.calm.at_us => "during the faults",
            Some(_) => "after the faults",
        }
    }

    fn finish(mut self) -> Outcome {
        self.agrees_at_end = self.agrees();
        self.world.check_all();
        match self.plan.calm.mode {
            Mode::Core => {
                let core = ids(&self.plan.calm.core);
                self.world.check_decided(&core, false);
                self.world.check_tabled(&core);
            }
            Mode::Heal => {
                let all: Vec<_> = self.world.hosts().collect();
                self.world.check_decided(&all, true);
                self.world.check_tabled(&all);
            }
        }
        let watches = self.world.book().watches.clone();
        for watch in watches.iter().filter(|watch| watch.is_crash) {
            let missed = self.world.missed(watch);
            self.world.checks_mut().crash_seen(watch.subject, missed);
        }
        let counts = self.world.book().counts().clone();
        self.world.checks_mut().isolated(counts.isolated_told, counts.accusations_by_sick);
        figures::conclude(self)
    }
}
