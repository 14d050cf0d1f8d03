//! A plan: everything that decides a run, spelled out. With the same build, equal plans give equal runs, bit for bit.
//!
//! Not here: how a scenario and a seed become a plan (`scenario`), and how it is carried out (`run`).

use gossipd::node::Config;
use gossipd::record::decision::Verdict;
use gossipd::record::{Availability, Role};
use serde::{Deserialize, Serialize};

use crate::outcome::Protocol;
use crate::reading::Reading;
use crate::writing::Writing;

/// A million: the whole of a part given in parts per million.
pub const PPM: u32 = 1_000_000;

/// Which constants the nodes run with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One data centre.
    #[default]
    Lan,
    /// Several regions.
    Wan,
    /// One machine.
    Local,
}

impl Profile {
    /// The constants themselves.
    pub const fn config(self) -> Config {
        match self {
            Self::Lan => Config::lan(),
            Self::Wan => Config::wan(),
            Self::Local => Config::local(),
        }
    }
}

/// How every path behaves while no fault touches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Time one way from region to region, in microseconds: a row for each sender's region.
    pub latency_us: Vec<Vec<u64>>,
    /// Each datagram takes up to this much more or less, in percent, drawn anew: so datagrams overtake each other.
    pub jitter_percent: u64,
    /// Datagrams, and segments of exchanges, lost independently of each other, in parts per million.
    pub loss_ppm: u32,
}

impl Network {
    /// A private network within one data centre: round trips of 0.5 ms ± 20 %, nothing lost.
    pub fn lan() -> Self {
        Self { latency_us: vec![vec![250]], jitter_percent: 20, loss_ppm: 0 }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::lan()
    }
}

/// One machine. Everything beyond the start is optional in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostPlan {
    /// When its node starts.
    pub start_us: u64,
    /// Hosts whose addresses it is given.
    pub contacts: Vec<usize>,
    /// Its region, from 0.
    #[serde(skip_serializing_if = "is_default")]
    pub region: usize,
    /// It starts with a copy of that host's disk: two nodes with one id.
    #[serde(skip_serializing_if = "is_default")]
    pub clone_of: Option<usize>,
    /// It has the address that this host had.
    #[serde(skip_serializing_if = "is_default")]
    pub address_of: Option<usize>,
    /// It starts at once with all others of which this is said, and they know each other from the start, as if each had
    /// compared its state with the others.
    #[serde(skip_serializing_if = "is_default")]
    pub warm: bool,
    /// It is a manager; the first host always is one.
    #[serde(skip_serializing_if = "is_default")]
    pub manager: bool,
    /// It took part in the first network before.
    #[serde(skip_serializing_if = "is_default")]
    pub attached: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a stopped node finds on its disk when it starts again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disk {
    /// Everything: id, generation, peers.
    #[default]
    Kept,
    /// Id and generation, and no peers but its first contacts.
    Forgetful,
    /// Id, and a generation of long ago.
    Old,
    /// Everything but its own tables.
    Blank,
    /// Nothing: it is a new node on the same machine.
    Wiped,
    /// What was there when its node learned that it had been removed: somebody kept a copy.
    Copied,
}

/// Where packets go that a fault touches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Path {
    /// Senders.
    #[serde(skip_serializing_if = "is_default")]
    pub from: Vec<usize>,
    /// Receivers.
    #[serde(skip_serializing_if = "is_default")]
    pub to: Vec<usize>,
    /// And the other way.
    #[serde(skip_serializing_if = "is_default")]
    pub both: bool,
    /// Instead of sets: pairs, each in both directions.
    #[serde(skip_serializing_if = "is_default")]
    pub pairs: Vec<(usize, usize)>,
    /// Datagrams only.
    #[serde(skip_serializing_if = "is_default")]
    pub udp_only: bool,
}

/// What a fault does to a packet on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing passes, neither what is sent nor what is under way.
    Cut,
    /// Lost independently.
    Loss {
        /// Parts per million.
        ppm: u32,
    },
    /// Lost in bursts (Gilbert-Elliott), a state for each direction of each pair.
    Burst {
        /// Chance to become bad at a packet, in parts per million.
        enter_ppm: u32,
        /// Chance to become good again at a packet, in parts per million.
        leave_ppm: u32,
        /// Loss while bad, in parts per million.
        bad_ppm: u32,
    },
    /// Takes longer.
    Delay {
        /// By this much, in microseconds.
        delay_us: u64,
        /// And up to this much more, in microseconds.
        jitter_us: u64,
    },
    /// Some datagrams are held back.
    Reorder {
        /// Parts per million.
        ppm: u32,
        /// For this long, in microseconds.
        delay_us: u64,
    },
    /// Some datagrams arrive twice.
    Duplicate {
        /// Parts per million.
        ppm: u32,
    },
    /// One bit of some datagrams is flipped.
    Corrupt {
        /// Parts per million.
        ppm: u32,
    },
    /// Some datagrams lose their end.
    Truncate {
        /// Parts per million.
        ppm: u32,
    },
    /// Before some datagrams an older one arrives again.
    Replay {
        /// Parts per million.
        ppm: u32,
    },
    /// Larger datagrams vanish.
    Mtu {
        /// Largest UDP payload that passes.
        bytes: usize,
    },
}

/// What a fault is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// The process ends; its machine stays and refuses. It starts again when the fault ends.
    Kill {
        /// What it finds then.
        disk: Disk,
        /// It starts at an address that nobody had before.
        moves: bool,
        /// It announces its absence of so many seconds before.
        announce_s: Option<u16>,
    },
    /// The machine is gone, silently. It is back when the fault ends.
    Crash {
        /// What its node finds then.
        disk: Disk,
        /// It starts at an address that nobody had before.
        moves: bool,
    },
    /// The process is stopped (SIGSTOP); its kernel goes on.
    Pause,
    /// Each datagram and request takes so long.
    Slow {
        /// Microseconds.
        service_us: u64,
    },
    /// The receive buffer is small.
    Starve {
        /// Bytes.
        buffer_bytes: usize,
    },
    /// It sends no faster.
    Throttle {
        /// Bytes a second.
        bytes_per_s: u64,
    },
    /// The wall clock steps, and drifts until the fault ends; then it is right again.
    Clock {
        /// Milliseconds.
        step_ms: i64,
        /// Parts per million.
        drift_ppm: i64,
    },
    /// It says goodbye.
    Leave,
    /// It gets another address while it runs.
    Readdress,
    /// The network between hosts.
    Net {
        /// Where.
        path: Path,
        /// What.
        effect: Effect,
    },
    /// Bytes of another cluster and garbage arrive there.
    Noise {
        /// Time between two, in microseconds.
        every_us: u64,
    },
    /// A member brings decisions that nobody may make, or that are over.
    Forge {
        /// Time between two, in microseconds.
        every_us: u64,
    },
}

impl What {
    /// Its name in reports.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Kill { announce_s: Some(_), .. } => "restart-announced",
            Self::Kill { .. } => "kill",
            Self::Crash { .. } => "crash",
            Self::Pause => "pause",
            Self::Slow { .. } => "slow",
            Self::Starve { .. } => "starve",
            Self::Throttle { .. } => "throttle",
            Self::Clock { .. } => "clock",
            Self::Leave => "leave",
            Self::Readdress => "readdress",
            Self::Noise { .. } => "noise",
            Self::Forge { .. } => "forge",
            Self::Net { effect, .. } => match effect {
                Effect::Cut => "cut",
                Effect::Loss { .. } => "loss",
                Effect::Burst { .. } => "burst",
                Effect::Delay { .. } => "delay",
                Effect::Reorder { .. } => "reorder",
                Effect::Duplicate { .. } => "duplicate",
                Effect::Corrupt { .. } => "corrupt",
                Effect::Truncate { .. } => "truncate",
                Effect::Replay { .. } => "replay",
                Effect::Mtu { .. } => "mtu",
            },
        }
    }
}

/// On and off, in turn, beginning with on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flap {
    /// Microseconds.
    pub on_us: u64,
    /// Microseconds.
    pub off_us: u64,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its own number: decides its luck, and stays when other faults are taken away.
    pub id: u64,
    /// When it begins.
    pub at_us: u64,
    /// When it ends; none: never.
    pub until_us: Option<u64>,
    /// Whom it hits. For the network: those who are no longer counted as healthy.
    pub hosts: Vec<usize>,
    /// It comes and goes.
    pub flap: Option<Flap>,
    /// What it is.
    pub what: What,
}

/// What somebody decides about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Ruling {
    /// Its availability.
    Availability {
        /// Which.
        to: Availability,
    },
    /// Its role.
    Role {
        /// Which.
        to: Role,
    },
    /// A label.
    Label {
        /// Its key.
        key: String,
        /// Its value; none: it is taken away.
        value: Option<String>,
    },
    /// It is a member no more.
    Remove,
}

impl Ruling {
    /// As the node takes it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Availability { to } => Verdict::Availability(*to),
            Self::Role { to } => Verdict::Role(*to),
            Self::Label { key, value } => Verdict::Label(key.clone(), value.clone()),
            Self::Remove => Verdict::Removed,
        }
    }

    /// Its name in reports.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Availability { to } => to.word(),
            Self::Role { to: Role::Manager } => "promote",
            Self::Role { to: Role::Worker } => "demote",
            Self::Label { .. } => "label",
            Self::Remove => "remove",
        }
    }
}

/// Something that is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decree {
    /// When.
    pub at_us: u64,
    /// By whom: each of them decides.
    pub by: Vec<usize>,
    /// About whom.
    pub about: Vec<usize>,
    /// Why.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reason: Option<String>,
    /// The decider waits until all have it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub confirm: bool,
    /// What.
    pub ruling: Ruling,
}

/// What must hold once the faults are over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All faults end, and all that run agree.
    #[default]
    Heal,
    /// Faults between healthy hosts end, the others stay, and the healthy ones agree about each other.
    Core,
}

/// The end of all faults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calm {
    /// When.
    pub at_us: u64,
    /// Until when all must agree, counted from then.
    pub within_us: u64,
    /// Who must.
    pub mode: Mode,
    /// With [`Mode::Core`]: the healthy ones.
    pub core: Vec<usize>,
}

/// A bound on a figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The figure's name (`figures`).
    pub name: String,
    /// Least.
    pub at_least: Option<u64>,
    /// Most.
    pub at_most: Option<u64>,
}

/// A run, spelled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The scenario it was made from, with its variant.
    pub scenario: String,
    /// One sentence.
    pub about: String,
    /// Decides all luck.
    pub seed: u64,
    /// Length, in virtual microseconds.
    pub span_us: u64,
    /// Figures of traffic and changes count from here, in virtual microseconds.
    pub measure_from_us: u64,
    /// What runs on every host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Constants of the nodes.
    pub profile: Profile,
    /// A fault may hit nothing: it was made by chance, or others may have been before it.
    #[serde(default)]
    pub idle_faults: bool,
    /// Checkers that bind only where a scenario asks for them.
    pub checks: Vec<String>,
    /// When to draw who lists whom.
    pub matrices_us: Vec<u64>,
    /// Paths without faults.
    pub network: Network,
    /// The end of all faults.
    pub calm: Calm,
    /// Bounds.
    pub bounds: Vec<Bound>,
    /// Faults.
    pub faults: Vec<Fault>,
    /// Decisions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub decrees: Vec<Decree>,
    /// Writes into tables.
    #[serde(default, skip_serializing_if = "is_default")]
    pub writings: Vec<Writing>,
    /// Local programs that watch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub readings: Vec<Reading>,
    /// How many changes a node keeps for them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub history: usize,
    /// Machines.
    pub hosts: Vec<HostPlan>,
}

impl Plan {
    /// As a file.
    ///
    /// # Errors
    /// A number beyond what TOML holds.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// From a file.
    ///
    /// # Errors
    /// It is none, or names hosts that it does not have.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        plan.check()?;
        Ok(plan)
    }

    /// What no single field can say of itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let count = self.hosts.len();
        let known =
            |what: &str, mut hosts: Box<dyn Iterator<Item = usize> + '_>| match hosts.find(|host| *host >= count) {
                Some(host) => Err(format!("{what} names host {host} of {count}")),
                None => Ok(()),
            };
        let regions = self.network.latency_us.len();
        if self.network.latency_us.iter().any(|row| row.len() != regions) || regions == 0 {
            return Err("latency_us is not square".to_owned());
        }
        for (number, host) in self.hosts.iter().enumerate() {
            let HostPlan { contacts, region, clone_of, address_of, .. } = host;
            known("a host", Box::new(contacts.iter().copied().chain(*clone_of).chain(*address_of)))?;
            if *region >= regions || [clone_of, address_of].into_iter().flatten().any(|other| *other >= number) {
                return Err(format!("host {number}: unknown region, or a clone or address of a later host"));
            }
        }
        for fault in &self.faults {
            known("a fault", Box::new(fault.hosts.iter().copied()))?;
            if let What::Net { path, .. } = &fault.what {
                let pairs = path.pairs.iter().flat_map(|(one, other)| [*one, *other]);
                known("a path", Box::new(path.from.iter().chain(&path.to).copied().chain(pairs)))?;
            }
            let flap_is_right = fault.flap.is_none_or(|flap| flap.on_us > 0 && flap.off_us > 0);
            if !flap_is_right || fault.until_us.is_some_and(|until_us| until_us < fault.at_us) {
                return Err(format!("fault {}: its times make no sense", fault.id));
            }
        }
        for Decree { by, about, .. } in &self.decrees {
            known("a decree", Box::new(by.iter().chain(about).copied()))?;
        }
        for Writing { by, id, network, until_us, every_us, .. } in &self.writings {
            known("a writing", Box::new(by.iter().copied()))?;
            if *network == 0 || until_us.is_some() && *every_us == 0 {
                return Err(format!("writing {id}: networks count from 1, and time has to pass"));
            }
        }
        for Reading { on, every_us, .. } in &self.readings {
            known("a reader", Box::new(on.iter().copied()))?;
            if *every_us == 0 {
                return Err("a reader: time has to pass between two looks".to_owned());
            }
        }
        known("calm", Box::new(self.calm.core.iter().copied()))
    }
}
