//! A run as the command line describes it: so many nodes, these faults at these times, so long.
//!
//! Not here: how it is typed (`main`), and how its figures are shown (`report`).

use gossipd::record::Status;
use rand::seq::SliceRandom;

use crate::host::{HostId, Totals};
use crate::luck::{Luck, Purpose};
use crate::net::CutId;
use crate::report::{Phase, Report, Settled, Spread};
use crate::view::Sighting;
use crate::world::{Setup, World};

/// Something that happens to so many hosts, drawn by the seed, at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// How many hosts.
    pub count: usize,
    /// When, in virtual microseconds.
    pub at_us: u64,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seed, network, node constants.
    pub setup: Setup,
    /// How many nodes.
    pub nodes: usize,
    /// How long, in virtual microseconds.
    pub span_us: u64,
    /// Time between two starts, in microseconds. All nodes but the first are told where the first one is.
    pub stagger_us: u64,
    /// Nodes that end without a word.
    pub crash: Fault,
    /// Nodes that say goodbye.
    pub leave: Fault,
    /// Nodes that are killed and started again at once.
    pub restart: Fault,
    /// From when to when two halves do not hear each other.
    pub split_us: Option<(u64, u64)>,
}

enum Act {
    Start,
    Crash,
    Leave,
    Restart,
    Split,
    Heal,
}

#[derive(Default)]
struct Victims {
    crash: Vec<HostId>,
    leave: Vec<HostId>,
    restart: Vec<HostId>,
}

/// Waiting until everybody agrees again after something.
struct Watch {
    after: &'static str,
    since_us: u64,
}

struct Run {
    world: World,
    victims: Victims,
    watch: Option<Watch>,
    settled: Vec<Settled>,
    phases: Vec<Phase>,
    cuts: Vec<CutId>,
}

impl Plan {
    /// Runs it.
    pub fn run(&self) -> Report {
        let mut run = Run {
            world: World::new(self.setup.clone()),
            victims: self.victims(),
            watch: None,
            settled: Vec::new(),
            phases: Vec::new(),
            cuts: Vec::new(),
        };
        for (at_us, act) in self.timeline() {
            run.advance(at_us.min(self.span_us));
            if at_us < self.span_us {
                run.act(&act, self.nodes);
            }
        }
        run.advance(self.span_us);
        self.conclude(run)
    }

    fn timeline(&self) -> Vec<(u64, Act)> {
        let starts = (0..self.nodes).map(|n| (n as u64 * self.stagger_us, Act::Start));
        let faults = [(self.crash, Act::Crash), (self.leave, Act::Leave), (self.restart, Act::Restart)];
        let faults = faults.into_iter().filter(|(fault, _)| fault.count > 0).map(|(fault, act)| (fault.at_us, act));
        let split = self.split_us.into_iter().flat_map(|(from_us, to_us)| [(from_us, Act::Split), (to_us, Act::Heal)]);
        let mut timeline: Vec<_> = starts.chain(faults).chain(split).collect();
        timeline.sort_by_key(|(at_us, _)| *at_us);
        timeline
    }

    /// Draws who is hit by what; nobody is hit twice.
    fn victims(&self) -> Victims {
        let mut order: Vec<_> = (0..self.nodes).map(HostId::new).collect();
        order.shuffle(&mut Luck::new(self.setup.seed).stream(Purpose::Victims));
        let mut order = order.into_iter();
        let mut take = |fault: Fault| order.by_ref().take(fault.count).collect();
        Victims { crash: take(self.crash), leave: take(self.leave), restart: take(self.restart) }
    }

    fn conclude(&self, mut run: Run) -> Report {
        run.overtake();
        let spreads = self.spreads(&run);
        let world = &mut run.world;
        for spread in &spreads {
            let Spread { what, expected, times_us } = spread;
            world.check("faults and goodbyes are seen by all", times_us.len() == *expected, || {
                format!("{what}: {} of {expected}", times_us.len())
            });
        }
        let settled = world.is_settled();
        world.check("everybody agrees at the end", settled, || "not settled".to_owned());
        let falsely = |status| move |sighting: &&Sighting| sighting.subject_lives && sighting.new == Some(status);
        let count = |status| world.sightings().iter().filter(falsely(status)).count();
        let (false_suspicions, false_downs) = (count(Status::Suspect), count(Status::Down));
        if self.setup.link.loss_ppm == 0 && self.split_us.is_none() {
            world.check("nobody alive is suspected without loss", false_suspicions + false_downs == 0, || {
                format!("{false_suspicions} suspicions, {false_downs} downs")
            });
        }
        let of_leavers = |sighting: &&Sighting| {
            run.victims.leave.contains(&sighting.subject)
                && sighting.at_us >= self.leave.at_us
                && matches!(sighting.new, Some(Status::Suspect | Status::Down))
        };
        let suspected = world.sightings().iter().filter(of_leavers).count();
        if !run.victims.leave.is_empty() {
            world.check("leavers are never suspected", suspected == 0, || format!("{suspected} sightings"));
        }
        world.check_all();
        let mut totals = Totals::default();
        world.hosts().for_each(|host| totals.merge(&world.totals(host)));
        run.phase("afterwards");
        Report {
            nodes: self.nodes,
            seed: self.setup.seed,
            span_us: self.span_us,
            link: self.setup.link,
            settled: run.settled,
            spreads,
            phases: run.phases,
            totals,
            false_suspicions,
            false_downs,
            handled: run.world.handled(),
            checks: run.world.checks().clone(),
            trace: run.world.trace(),
        }
    }

    /// When who saw what: for each fault, over all pairs of a victim and an observer that lived through it all.
    fn spreads(&self, run: &Run) -> Vec<Spread> {
        let Victims { crash, leave, restart } = &run.victims;
        let faults = [
            ("crash", crash, self.crash, Status::Down),
            ("leave", leave, self.leave, Status::Left),
            ("restart", restart, self.restart, Status::Ready),
        ];
        let observers: Vec<_> = run.world.living().filter(|host| !restart.contains(host)).collect();
        let happened = faults.into_iter().filter(|(_, hit, fault, _)| !hit.is_empty() && fault.at_us < self.span_us);
        happened
            .map(|(what, hit, fault, status)| {
                let mut first = std::collections::BTreeMap::new();
                for sighting in run.world.sightings() {
                    let Sighting { at_us, observer, subject, new, .. } = *sighting;
                    if at_us >= fault.at_us && new == Some(status) && hit.contains(&subject) {
                        first.entry((observer, subject)).or_insert(at_us - fault.at_us);
                    }
                }
                first.retain(|(observer, _), _| observers.contains(observer));
                let mut times_us: Vec<_> = first.into_values().collect();
                times_us.sort_unstable();
                Spread { what, expected: observers.len() * hit.len(), times_us }
            })
            .collect()
    }
}

impl Run {
    fn act(&mut self, act: &Act, nodes: usize) {
        self.overtake();
        let after = match act {
            Act::Start => {
                let contacts: Vec<_> = self.world.hosts().take(1).collect();
                self.world.spawn(&contacts);
                if self.world.hosts().count() < nodes {
                    return;
                }
                "the last start"
            }
            Act::Crash => {
                self.victims.crash.iter().for_each(|host| self.world.crash(*host));
                "the crash"
            }
            Act::Leave => {
                self.victims.leave.iter().for_each(|host| self.world.leave(*host));
                "the leave"
            }
            Act::Restart => {
                self.victims.restart.iter().for_each(|host| self.world.restart(*host));
                "the restart"
            }
            Act::Split => {
                let hosts: Vec<_> = self.world.hosts().collect();
                let (one, other) = hosts.split_at(hosts.len() / 2);
                self.cuts = self.world.split(one, other).to_vec();
                return;
            }
            Act::Heal => {
                self.cuts.drain(..).for_each(|cut| self.world.heal(cut));
                "the split"
            }
        };
        self.watch = Some(Watch { after, since_us: self.world.now_us() });
    }

    /// Runs until `until_us`, and notes when everybody agrees if that is being waited for.
    fn advance(&mut self, until_us: u64) {
        if let Some(Watch { after, since_us }) = &self.watch {
            let leavers = if *after == "the leave" { self.victims.leave.clone() } else { Vec::new() };
            let agree = |world: &World| leavers.iter().all(|host| !world.lives(*host)) && world.is_settled();
            if let Some(at_us) = self.world.run_until(until_us, agree) {
                self.settled.push(Settled { after, span_us: Some(at_us - since_us) });
                self.watch = None;
                if self.phases.is_empty() {
                    self.phase("while forming");
                }
            }
        }
        self.world.run_to(until_us);
    }

    /// What comes next is not to be counted as what is being waited for.
    fn overtake(&mut self) {
        if let Some(Watch { after, .. }) = self.watch.take() {
            self.settled.push(Settled { after, span_us: None });
        }
    }

    fn phase(&mut self, name: &'static str) {
        self.phases.push(Phase { name, sent: self.world.sent() });
    }
}
