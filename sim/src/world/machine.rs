//! What may befall a machine: its node starts, ends, is stopped and goes on, moves.
//!
//! Not here: when, and to whom (`plan`, `run`).

use std::net::SocketAddr;

use gossipd::node::{Command, KeptTables, Start};
use gossipd::record::{NodeId, Role};
use rand::Rng;

use super::World;
use super::decide::RENEW_US;
use super::drive::Happening;
use super::truth::RECOVERY_US;
use crate::brain::Brain;
use crate::host::{self, Host, HostId};
use crate::luck::Purpose;
use crate::plan::{Disk, Effect, Path};

/// How long a node that announced its absence may take until it is ended anyway, in microseconds.
const AWAY_US: u64 = 2_000_000;
/// Names faults that are put on by hand.
const BY_HAND: u64 = 1 << 40;

impl World {
    // ---- adding --------------------------------------------------------------------------------------------------

    /// Adds a machine in `region`, on which nothing runs yet. The first one is a manager.
    pub fn add(&mut self, region: usize) -> HostId {
        let id = HostId::new(self.hosts.len());
        let role = if self.hosts.is_empty() { Role::Manager } else { Role::Worker };
        let mut node_id = [0; 16];
        self.luck.of_host(Purpose::Names, id).fill_bytes(&mut node_id);
        let node_id = NodeId::from_bytes(node_id);
        let number = self.truth.number(node_id, id);
        let addr = self.new_address(id);
        self.hosts.push(Host::new(number, node_id, role, addr, Vec::new()));
        self.net.attach(self.luck, id, region);
        id
    }

    /// Adds a machine and starts a node on it that is told where `contacts` are.
    pub fn spawn(&mut self, contacts: &[HostId]) -> HostId {
        let id = self.add(0);
        self.set_contacts(id, contacts);
        self.start(id);
        id
    }

    /// From its next start on, the node on `host` is a manager.
    pub fn set_manager(&mut self, host: HostId) {
        self.host_mut(host).role = Role::Manager;
    }

    /// From its next start on, the node on `host` is told where these are.
    pub fn set_contacts(&mut self, host: HostId, contacts: &[HostId]) {
        let contacts = contacts.iter().map(|contact| self.addr(*contact)).collect();
        self.host_mut(host).contacts = contacts;
    }

    /// Adds a machine with a copy of the disk of `host`, and starts a node on it: two live nodes with one id.
    pub fn spawn_clone(&mut self, host: HostId) -> HostId {
        let id = self.add(0);
        self.copy_disk(host, id);
        self.start(id);
        id
    }

    /// Gives `to` a copy of the disk of `from`.
    pub fn copy_disk(&mut self, from: HostId, to: HostId) {
        let Host { number, node_id, role, issued_ms, contacts, disk, kept, kept_tables, .. } = self.host(from);
        let (number, node_id, contacts, kept) = (*number, *node_id, contacts.clone(), kept.clone());
        let kept_tables = kept_tables.clone();
        let (role, issued_ms, disk) = (*role, *issued_ms, *disk);
        let clone = self.host_mut(to);
        (clone.number, clone.node_id, clone.disk, clone.kept) = (number, node_id, disk, kept);
        (clone.role, clone.issued_ms) = (role, issued_ms);
        (clone.contacts, clone.kept_tables) = (contacts, kept_tables);
        self.checks.rivals([from, to]);
        self.registry.doubtful.insert(self.owner(to));
    }

    /// Gives `to`, on which nothing runs, the address of `from`, on which nothing runs any more.
    pub fn take_address(&mut self, from: HostId, to: HostId) {
        let addr = self.addr(from);
        self.new_address(from);
        self.set_address(to, addr);
    }

    /// Whether somebody kept a copy of its disk when its node learned that it was removed.
    pub(crate) fn has_copy(&self, host: HostId) -> bool {
        self.host(host).copy.is_some()
    }

    // ---- starting and ending -------------------------------------------------------------------------------------

    /// Ends the process on `host` at once, without a word. The machine stays, and refuses.
    pub fn kill(&mut self, host: HostId) {
        self.end(host, false);
    }

    /// The machine is gone at once, silently.
    pub fn crash(&mut self, host: HostId) {
        self.end(host, true);
        self.host_mut(host).is_up = false;
    }

    fn end(&mut self, host: HostId, is_silent: bool) {
        if !self.lives(host) {
            return;
        }
        self.log(host, || "ends".to_owned());
        self.living -= 1;
        self.follow_end(host);
        let target = self.host_mut(host);
        target.stop();
        target.is_busy = false;
        self.break_calls(host, is_silent);
    }

    /// Starts a node on `host` with the id and generation of its disk, after a crash if one still runs there. It is
    /// told its first contacts again, and no others.
    pub fn restart(&mut self, host: HostId) {
        self.revive(host, Disk::Forgetful, false);
    }

    /// As [`World::restart`], at an address that nobody had before.
    pub fn restart_elsewhere(&mut self, host: HostId) {
        self.revive(host, Disk::Forgetful, true);
    }

    /// Starts the node on `host` again.
    pub fn revive(&mut self, host: HostId, disk: Disk, moves: bool) {
        self.kill(host);
        if moves {
            self.new_address(host);
        }
        match disk {
            Disk::Kept => {}
            Disk::Forgetful => self.host_mut(host).peers.clear(),
            Disk::Old => self.host_mut(host).disk = 0,
            Disk::Copied => {
                self.host_mut(host).put_copy_back();
            }
            Disk::Blank => self.lose_tables(host, false),
            Disk::Wiped => {
                self.lose_tables(host, true);
                let mut node_id = [0; 16];
                let name = format!("{host}-{}", self.host(host).life);
                self.luck.named(Purpose::Names, &name).fill_bytes(&mut node_id);
                let node_id = NodeId::from_bytes(node_id);
                let number = self.truth.number(node_id, host);
                let target = self.host_mut(host);
                (target.node_id, target.number, target.disk) = (node_id, number, 0);
                target.peers.clear();
                target.kept.clear();
                (target.issued_ms, target.is_removed) = (0, false);
            }
        }
        if self.host(host).is_removed {
            // Its daemon starts and is in no cluster.
            return self.host_mut(host).is_up = true;
        }
        self.start(host);
    }

    fn lose_tables(&mut self, host: HostId, stays_down: bool) {
        let target = self.host(host);
        let generation = target.next_generation(self.now_us);
        self.bury(host, self.owner(host), generation, stays_down);
        let target = self.host_mut(host);
        (target.kept_tables, target.has_lost_tables) = (KeptTables::default(), true);
    }

    /// Replaces what `host` knows before its next start: the generation on its disk, and what its clock is off by.
    pub fn set_back(&mut self, host: HostId, disk: u64, skew_ms: i64) {
        let host = self.host_mut(host);
        (host.disk, host.skew_ms) = (disk, skew_ms);
    }

    /// Starts the node on `host`.
    pub fn start(&mut self, id: HostId) {
        let node = self.made(id);
        self.begin(id, node);
    }

    /// A node for `host`, which does nothing yet.
    pub(super) fn made(&mut self, id: HostId) -> Brain {
        self.log(id, || "starts".to_owned());
        let (now_us, protocol, cluster_size) = (self.now_us, self.protocol, self.hosts.len());
        let (cluster, keyring, config, luck) = (self.cluster, self.keyring.clone(), self.config.clone(), self.luck);
        let (anchor, host) = (self.issuer.anchor(), self.host(id));
        let credential = self.issuer.credential(host.node_id, host.role, host.issued_ms);
        let host = self.host_mut(id);
        host.is_up = true;
        let now = host.now(now_us);
        host.life += 1;
        host.started_us = now_us;
        host.disk = host.next_generation(now_us);
        #[cfg(feature = "mutants")]
        let config = gossipd::node::Config {
            is_later_version: config.is_later_version && (id.index() as u64 + host.life).is_multiple_of(2),
            ..config
        };
        let start = Start {
            cluster,
            id: host.node_id,
            generation: host.disk,
            addr: host.addr,
            record: host::record(&id.to_string(), host.role, host.addr, now),
            keyring,
            anchors: anchor.into(),
            credential,
            decisions: host.kept.values().map(|kept| (**kept).clone()).collect(),
            tables: host.kept_tables.tables(),
            seed: luck.life_seed(id, host.life),
            contacts: host.contacts.iter().chain(&host.peers).copied().collect(),
            config,
        };
        Brain::new(protocol, start, cluster_size, &self.commons, now)
    }

    pub(super) fn begin(&mut self, id: HostId, node: Brain) {
        self.tables_start(id, &node);
        let view = self.first_view(id, &node);
        self.host_mut(id).node = Some(node);
        self.living += 1;
        self.living_peak = self.living_peak.max(self.living);
        self.open_stream(id);
        self.follow_start(id, view);
        self.see_to_role(id, RENEW_US);
        self.set_alarm(id);
    }

    /// Orders the node on `host` to say goodbye; it is gone once it says that this is done.
    pub fn leave(&mut self, host: HostId) {
        self.log(host, || "is told to leave".to_owned());
        self.note_farewell(host, false);
        self.with_node(host, |node, now| node.handle_command(now, Command::Leave));
    }

    /// Orders the node on `host` to announce that it will be away; it is ended once it says that this is done.
    pub fn send_away(&mut self, host: HostId, seconds: u16) {
        self.log(host, || format!("announces {seconds} s of absence"));
        self.note_farewell(host, true);
        let life = self.host(host).life;
        self.schedule(self.now_us + AWAY_US, Happening::GiveUp { host, life });
        self.with_node(host, |node, now| node.handle_command(now, Command::Away(seconds)));
    }

    /// The machine gets another address, and its node is told.
    pub fn readdress(&mut self, host: HostId) {
        let addr = self.new_address(host);
        self.log(host, || format!("moves to {addr}"));
        self.with_node(host, |node, now| node.handle_command(now, Command::Readdress(addr)));
    }

    // ---- the machine itself --------------------------------------------------------------------------------------

    /// Stops the process (SIGSTOP).
    pub fn pause(&mut self, host: HostId) {
        self.log(host, || "is stopped".to_owned());
        let host = self.host_mut(host);
        host.is_paused = host.node.is_some();
    }

    /// The process goes on: first what waits, then its timers.
    pub fn resume(&mut self, host: HostId) {
        let target = self.host_mut(host);
        if !target.is_paused {
            return;
        }
        target.is_paused = false;
        target.is_busy = true;
        target.wake_us = None;
        let life = target.life;
        self.log(host, || "goes on".to_owned());
        self.turn(host, life);
    }

    /// From now on each input takes so long.
    pub fn slow(&mut self, host: HostId, service_us: u64) {
        self.host_mut(host).service_us = service_us;
    }

    /// From now on so much waits at most.
    pub fn starve(&mut self, host: HostId, buffer_bytes: usize) {
        self.host_mut(host).buffer_bytes = buffer_bytes;
    }

    /// From now on it sends no faster.
    pub fn throttle(&mut self, host: HostId, bytes_per_s: Option<u64>) {
        self.host_mut(host).egress_bytes_per_s = bytes_per_s;
    }

    /// Its wall clock steps and drifts from now on.
    pub fn set_clock(&mut self, host: HostId, skew_ms: i64, drift_ppm: i64) {
        let now_us = self.now_us;
        let host = self.host_mut(host);
        (host.skew_ms, host.drift_ppm, host.drift_since_us) = (skew_ms, drift_ppm, now_us);
    }

    // ---- the network ---------------------------------------------------------------------------------------------

    /// From now on nothing gets from any of `from` to any of `to`.
    pub fn cut(&mut self, from: &[HostId], to: &[HostId]) -> u64 {
        self.cut_by_hand(from, to, false)
    }

    /// Cuts both directions.
    pub fn split(&mut self, one: &[HostId], other: &[HostId]) -> u64 {
        self.cut_by_hand(one, other, true)
    }

    fn cut_by_hand(&mut self, from: &[HostId], to: &[HostId], both: bool) -> u64 {
        let [from, to] = [from, to].map(|hosts| hosts.iter().map(|host| host.index()).collect());
        self.by_hand += 1;
        let id = BY_HAND + self.by_hand;
        self.begin_net(id, &Path { from, to, both, ..Path::default() }, Effect::Cut);
        id
    }

    /// Ends a cut.
    pub fn heal(&mut self, cut: u64) {
        self.end_net(cut);
    }

    pub(crate) fn begin_net(&mut self, id: u64, path: &Path, effect: Effect) {
        self.net.begin(self.luck, id, path, effect);
    }

    pub(crate) fn end_net(&mut self, id: u64) {
        self.net.end(id);
    }

    // ---- addresses -----------------------------------------------------------------------------------------------

    fn new_address(&mut self, host: HostId) -> SocketAddr {
        let addr = host::address(u32::try_from(self.homes.len()).unwrap_or(u32::MAX));
        self.homes.push(None);
        self.set_address(host, addr);
        addr
    }

    fn set_address(&mut self, host: HostId, addr: SocketAddr) {
        for home in &mut self.homes {
            if *home == Some(host) {
                *home = None;
            }
        }
        if let Some(home) = host::address_number(addr).and_then(|number| self.homes.get_mut(number)) {
            *home = Some(host);
        }
        if let Some(host) = self.hosts.get_mut(host.index()) {
            host.addr = addr;
        }
    }

    // ---- health ---------------------------------------------------------------------------------------------------

    /// Notes that a fault touches a host, or does so no longer.
    pub(crate) fn touch(&mut self, host: HostId, begins: bool) {
        let now_us = self.now_us;
        let host = self.host_mut(host);
        if begins {
            host.faults += 1;
        } else {
            host.faults = host.faults.saturating_sub(1);
            host.well_from_us = now_us + RECOVERY_US;
        }
    }

    /// Whether no fault is on `host`, and none was lately.
    pub fn is_healthy(&self, host: HostId) -> bool {
        self.host(host).is_healthy(self.now_us)
    }
}
