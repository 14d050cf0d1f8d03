//! What a node thinks of itself: how long answers take, whether it is woken in time, whether it hears anybody.
//!
//! Lifeguard's local health: the worse a node does, the longer it waits for answers, and the less its word counts.
//! Not here: what it thinks of others (`inquiry`).

use std::collections::VecDeque;

use super::inquiry::Tcp;
use super::{Config, Degraded, Effect, Event, Health, Mutant, Node, Now};
use crate::record::NodeId;

/// Woken later than this, a node has not lived through the time in between, in microseconds.
pub(super) const LATE_US: u64 = 200_000;
/// How long a late node distrusts itself, in microseconds.
const SLOW_US: u64 = 2_000_000;
/// Probes in a row that only TCP answered: UDP is blocked here.
const TCP_STREAK: u32 = 6;
/// Nodes whose clocks are remembered; when most of them differ from this one's, this one's is wrong.
const CLOCKS_MAX: usize = 9;
/// A difference between two wall clocks that matters, in seconds.
const CLOCK_SKEW_S: u64 = 10;

/// Own health, and the round trips that timeouts are made from.
#[derive(Debug, Default)]
pub(super) struct Own {
    score: u32,
    /// Smoothed round trip and its deviation, in microseconds (RFC 6298, in integers).
    rtt_us: Option<(u64, u64)>,
    heard_us: u64,
    isolated: bool,
    slow_until_us: u64,
    tcp_streak: u32,
    clocks: VecDeque<(NodeId, i64)>,
    /// When it last looked at itself.
    now_us: u64,
}

impl Own {
    fn worsen(&mut self, by: u32) {
        self.score = (self.score + by).min(Health::SCORE_MAX);
    }

    /// A probe was answered.
    pub(super) fn answered(&mut self, rtt_us: u64) {
        self.score = self.score.saturating_sub(1);
        self.tcp_streak = 0;
        self.rtt_us = Some(match self.rtt_us {
            None => (rtt_us, rtt_us / 2),
            Some((mean, deviation)) => ((7 * mean + rtt_us) / 8, (3 * deviation + mean.abs_diff(rtt_us)) / 4),
        });
    }

    /// How long the answer to a direct probe may take, in microseconds.
    pub(super) fn probe_timeout_us(&self, config: &Config) -> u64 {
        let (floor_us, ceiling_us) = (config.probe_rtt_min_ms * 1_000, config.probe_rtt_ms * 1_000);
        let (mean, deviation) = self.rtt_us.unwrap_or((ceiling_us, 0));
        let measured = mean + 4 * deviation;
        (measured.max(floor_us) * u64::from(1 + self.score)).clamp(floor_us.min(ceiling_us), ceiling_us)
    }

    pub(super) fn lacked_witnesses(&mut self) {
        self.worsen(1);
    }

    pub(super) fn missed_what_others_heard(&mut self) {
        self.worsen(1);
    }

    pub(super) fn was_suspected(&mut self) {
        self.worsen(1);
    }

    pub(super) fn answered_over_tcp_only(&mut self) {
        self.tcp_streak = self.tcp_streak.saturating_add(1);
    }

    /// A timer fired that late. Says whether time was lost.
    pub(super) fn woken(&mut self, now: Now, late_us: u64) -> bool {
        let is_late = late_us > LATE_US;
        if is_late {
            self.worsen(2);
            self.slow_until_us = now.mono_us + SLOW_US;
            self.look(now);
        }
        is_late
    }

    /// Something authentic arrived.
    pub(super) fn heard(&mut self, now: Now) {
        self.heard_us = now.mono_us;
        self.isolated = false;
    }

    /// Another node's wall clock is so many seconds ahead of this one's (negative: behind).
    pub(super) fn compared_clocks(&mut self, with: NodeId, difference_s: i64) {
        self.clocks.retain(|(id, _)| *id != with);
        if self.clocks.len() >= CLOCKS_MAX {
            self.clocks.pop_front();
        }
        self.clocks.push_back((with, difference_s));
    }

    /// How far most others' wall clocks are ahead of this one's, in milliseconds; 0 as long as none is known or the
    /// difference may come from the way.
    pub(super) fn clock_off_ms(&self) -> i64 {
        let mut differences: Vec<_> = self.clocks.iter().map(|(_, difference_s)| *difference_s).collect();
        differences.sort_unstable();
        let median_s = differences.get(differences.len() / 2).copied().unwrap_or(0);
        if median_s.unsigned_abs() < CLOCK_SKEW_S { 0 } else { median_s.saturating_mul(1_000) }
    }

    /// Has any other clock been seen?
    pub(super) fn knows_clocks(&self) -> bool {
        !self.clocks.is_empty()
    }

    pub(super) const fn is_isolated(&self) -> bool {
        self.isolated
    }

    pub(super) const fn is_udp_blocked(&self) -> bool {
        self.tcp_streak >= TCP_STREAK
    }

    /// May others rely on its word that somebody is silent?
    pub(super) const fn is_fit_to_testify(&self, now: Now) -> bool {
        !self.isolated && now.mono_us >= self.slow_until_us
    }

    /// Looks at itself.
    pub(super) const fn look(&mut self, now: Now) {
        self.now_us = now.mono_us;
    }

    /// What it thinks of itself, as of the last look.
    pub(super) fn report(&self) -> Health {
        let different =
            self.clocks.iter().filter(|(_, difference_s)| difference_s.unsigned_abs() >= CLOCK_SKEW_S).count();
        let is_skewed = 2 * different > self.clocks.len();
        let reasons = Degraded::ALL
            .into_iter()
            .filter(|reason| match reason {
                Degraded::Isolated => self.isolated,
                Degraded::UdpBlocked => self.is_udp_blocked(),
                Degraded::Slow => self.now_us < self.slow_until_us,
                Degraded::ClockSkew => is_skewed,
            })
            .collect();
        Health { score: self.score, reasons }
    }
}

impl Node {
    /// Tells listeners when what is wrong with this node has changed.
    pub(super) fn note_health(&mut self, now: Now) {
        self.health.look(now);
        let health = self.health.report();
        if health.reasons != self.told_health {
            self.told_health.clone_from(&health.reasons);
            self.effect(Effect::Event(Event::Health(health)));
        }
    }

    /// Does anybody still speak to this node? With a single other member its silence says nothing about this one.
    pub(super) fn health_looks_around(&mut self, now: Now) {
        let silent_us = now.mono_us.saturating_sub(self.health.heard_us);
        if !self.config.has(Mutant::NeverIsolated)
            && !self.health.isolated
            && self.table.active() > 1
            && self.inquiries.len() > 1
            && silent_us > self.config.isolated_after_ms * 1_000
            // Refusals come from somewhere: the network carries.
            && !self.inquiries.open.values().any(|inquiry| inquiry.tcp == Tcp::Refused && inquiry.icmp_refused)
        {
            self.health.isolated = true;
            self.stats.isolations += 1;
            // Look for company at once.
            self.arm_rejoin(now.mono_us);
            self.note_health(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { mono_us: 10_000_000, unix_ms: 0 };

    #[test]
    fn timeouts_follow_round_trips_within_the_profile() {
        let config = Config::lan();
        let (floor_us, ceiling_us) = (config.probe_rtt_min_ms * 1_000, config.probe_rtt_ms * 1_000);
        let mut own = Own::default();
        assert_eq!(own.probe_timeout_us(&config), ceiling_us, "nothing is known yet");
        (0..20).for_each(|_| own.answered(500));
        assert_eq!(own.probe_timeout_us(&config), floor_us);
        own.worsen(1);
        assert_eq!(own.probe_timeout_us(&config), 2 * floor_us, "a node in doubt of itself waits longer");
        (0..20).for_each(|_| own.answered(60_000));
        let timeout_us = own.probe_timeout_us(&config);
        assert!((60_000..ceiling_us).contains(&timeout_us), "{timeout_us}");
        own.answered(10_000_000);
        assert_eq!(own.probe_timeout_us(&config), ceiling_us);
    }

    #[test]
    fn the_score_has_a_floor_and_a_ceiling() {
        let mut own = Own::default();
        (0..100).for_each(|_| own.lacked_witnesses());
        assert_eq!(own.report().score, Health::SCORE_MAX);
        (0..100).for_each(|_| own.answered(1));
        assert_eq!(own.report().score, 0);
    }

    #[test]
    fn a_late_node_distrusts_itself_for_a_while() {
        let mut own = Own::default();
        assert!(!own.woken(NOW, LATE_US));
        assert!(own.woken(NOW, LATE_US + 1));
        assert!(!own.is_fit_to_testify(NOW));
        assert_eq!(own.report().reasons, [Degraded::Slow]);
        let later = Now { mono_us: NOW.mono_us + SLOW_US, ..NOW };
        assert!(own.is_fit_to_testify(later));
        own.look(later);
        assert_eq!(own.report().reasons, []);
    }

    #[test]
    fn one_wrong_clock_is_its_owners_and_many_are_this_nodes() {
        let mut own = Own::default();
        let id = |n| NodeId::from_bytes([n; 16]);
        own.compared_clocks(id(1), 0);
        (0..9).for_each(|_| own.compared_clocks(id(2), 300));
        assert_eq!(own.report().reasons, []);
        own.compared_clocks(id(3), 300);
        assert_eq!(own.report().reasons, [Degraded::ClockSkew]);
    }
}
