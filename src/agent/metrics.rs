//! Every metric of the daemon: name, kind, labels, meaning. The README's table is checked against [`ALL`].
//!
//! What the protocol core counts is copied when somebody looks ([`Recorder::render`]); the rest is counted where it
//! happens, through the functions below.

use std::io;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::node::{Degraded, Health, Node};

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name; the unit is the last word but `total`.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

const HEALTH_SCORE: &str = "gossipd_health_score";
const DEGRADED: &str = "gossipd_degraded";
const MEMBERS: &str = "gossipd_members";
const DATAGRAMS: &str = "gossipd_datagrams_total";
const DATAGRAM_BYTES: &str = "gossipd_datagram_bytes_total";
const DATAGRAMS_DROPPED: &str = "gossipd_datagrams_dropped_total";
const DATAGRAMS_REFUSED: &str = "gossipd_datagrams_refused_total";
const UDP_ERRORS: &str = "gossipd_udp_errors_total";
const PROBES: &str = "gossipd_probes_total";
const PROBE_RTT: &str = "gossipd_probe_round_trip_microseconds_total";
const INQUIRIES: &str = "gossipd_inquiries_total";
const INQUIRIES_BARREN: &str = "gossipd_inquiry_rounds_without_witnesses_total";
const ACCUSATIONS: &str = "gossipd_accusations_total";
const ERRANDS: &str = "gossipd_errands_total";
const ISOLATIONS: &str = "gossipd_isolations_total";
const RENEWALS: &str = "gossipd_identity_renewals_total";
const REFUTATIONS: &str = "gossipd_refutations_total";
const UNDEAD_WITHHELD: &str = "gossipd_undead_messages_withheld_total";
const UPDATES_FILTERED: &str = "gossipd_updates_filtered_total";
const UPDATES_REFUSED: &str = "gossipd_updates_refused_total";
const RECORDS_REFUSED: &str = "gossipd_records_refused_total";
const DECISIONS: &str = "gossipd_decisions";
const DECISIONS_REFUSED: &str = "gossipd_decisions_refused_total";
const TABLE_RECORDS: &str = "gossipd_table_records";
const TABLE_BYTES: &str = "gossipd_table_bytes";
const TABLE_STEPS: &str = "gossipd_table_steps_total";
const TABLE_STEPS_REFUSED: &str = "gossipd_table_steps_refused_total";
const SWIM_ERRORS: &str = "gossipd_swim_errors_total";
const EXCHANGES: &str = "gossipd_exchanges_total";
const QUEUE_DEPTH: &str = "gossipd_queue_depth";
const REVISION: &str = "gossipd_revision";
const WATCHERS: &str = "gossipd_watchers";
const WATCH_LINES: &str = "gossipd_watch_lines_total";
const WATCHERS_LAGGED: &str = "gossipd_watchers_lagged_total";
const CONNECTIONS: &str = "gossipd_connections_total";
const ADMISSIONS: &str = "gossipd_admissions_total";
const CERTIFICATE_EXPIRY: &str = "gossipd_certificate_expiry_timestamp_seconds";

const fn row(name: &'static str, kind: Kind, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind, labels, meaning }
}

/// All metrics.
pub const ALL: &[Metric] = &[
    row(HEALTH_SCORE, Kind::Gauge, &[], "0: this node is well; up to 8 the more it has trouble of its own"),
    row(DEGRADED, Kind::Gauge, &["reason"], "1 for each reason why this node is not well, else 0"),
    row(MEMBERS, Kind::Gauge, &["status"], "members known, this node included, by status"),
    row(DATAGRAMS, Kind::Counter, &["direction", "kind"], "datagrams sent and accepted"),
    row(DATAGRAM_BYTES, Kind::Counter, &["direction", "kind"], "UDP payload bytes sent and accepted"),
    row(DATAGRAMS_DROPPED, Kind::Counter, &["cause"], "datagrams received and dropped"),
    row(DATAGRAMS_REFUSED, Kind::Counter, &[], "datagrams sent that nobody listened for (ICMP port unreachable)"),
    row(UDP_ERRORS, Kind::Counter, &["direction", "error"], "errors of the UDP socket"),
    row(PROBES, Kind::Counter, &[], "direct probes answered in time"),
    row(PROBE_RTT, Kind::Counter, &[], "sum of the round trips of answered probes"),
    row(INQUIRIES, Kind::Counter, &[], "probes unanswered in time, and so looked into"),
    row(INQUIRIES_BARREN, Kind::Counter, &[], "rounds of inquiries that too few witnesses answered"),
    row(ACCUSATIONS, Kind::Counter, &["result"], "members that this node accused: refuted by them, or upheld"),
    row(ERRANDS, Kind::Counter, &[], "times this node was a witness"),
    row(ISOLATIONS, Kind::Counter, &[], "times this node heard nobody any more"),
    row(RENEWALS, Kind::Counter, &[], "times this node took a new generation because others held it for down"),
    row(REFUTATIONS, Kind::Counter, &[], "suspicions about this node that it refuted"),
    row(UNDEAD_WITHHELD, Kind::Counter, &[], "suspicions not enforced, as the suspect had refuted"),
    row(UPDATES_FILTERED, Kind::Counter, &[], "membership updates received that were no news"),
    row(UPDATES_REFUSED, Kind::Counter, &[], "membership updates refused: unusable, implausible or too many"),
    row(RECORDS_REFUSED, Kind::Counter, &[], "node records refused because they break a limit"),
    row(DECISIONS, Kind::Gauge, &[], "operators' decisions kept"),
    row(
        DECISIONS_REFUSED,
        Kind::Counter,
        &["cause"],
        "decisions refused: forged, by a signer without the right, stale, ahead of the clock",
    ),
    row(TABLE_RECORDS, Kind::Gauge, &[], "attachments and endpoints held, of all nodes"),
    row(TABLE_BYTES, Kind::Gauge, &[], "bytes of them"),
    row(TABLE_STEPS, Kind::Counter, &["result"], "changes of tables heard: taken in, known already; and not passed on"),
    row(
        TABLE_STEPS_REFUSED,
        Kind::Counter,
        &["cause"],
        "changes of tables refused: malformed, not their owner's, over a quota",
    ),
    row(SWIM_ERRORS, Kind::Counter, &[], "errors inside the SWIM library"),
    row(EXCHANGES, Kind::Counter, &["result"], "state exchanges started, failed, answered"),
    row(QUEUE_DEPTH, Kind::Gauge, &["queue"], "entries in the protocol's queues"),
    row(REVISION, Kind::Gauge, &[], "number of the last visible change; it never repeats"),
    row(WATCHERS, Kind::Gauge, &[], "programs that watch the event stream"),
    row(WATCH_LINES, Kind::Counter, &[], "lines of the event stream made for them"),
    row(WATCHERS_LAGGED, Kind::Counter, &[], "times one of them was too slow and was cut off"),
    row(CONNECTIONS, Kind::Counter, &["result"], "TCP connections accepted, refused by a limit, failed"),
    row(ADMISSIONS, Kind::Counter, &["result"], "join requests admitted and refused by this manager"),
    row(CERTIFICATE_EXPIRY, Kind::Gauge, &[], "end of this node's certificate, in seconds since the Unix epoch"),
];

/// The process's metrics.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// Makes the process count. Once in a process.
    ///
    /// # Errors
    /// [`BuildError`] when there is a recorder already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new().install_recorder()?;
        for Metric { name, kind, meaning, .. } in ALL {
            match kind {
                Kind::Counter => describe_counter!(*name, *meaning),
                Kind::Gauge => describe_gauge!(*name, *meaning),
            }
        }
        // Shown from the start, so that a change from nothing to something can be seen.
        for direction in ["send", "receive"] {
            counter!(UDP_ERRORS, "direction" => direction, "error" => "none").increment(0);
        }
        counter!(DATAGRAMS_REFUSED).increment(0);
        gauge!(WATCHERS).set(0.0);
        counter!(WATCH_LINES).increment(0);
        counter!(WATCHERS_LAGGED).increment(0);
        Ok(Self(handle))
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

/// Copies what the protocol core has counted.
#[expect(clippy::cast_precision_loss, reason = "gauges are floats; these numbers are far below 2^52")]
pub fn copy_from(node: &Node) {
    let Health { score, reasons } = node.health();
    gauge!(HEALTH_SCORE).set(f64::from(score));
    for reason in Degraded::ALL {
        gauge!(DEGRADED, "reason" => reason.word()).set(f64::from(u8::from(reasons.contains(&reason))));
    }
    for (status, count) in node.count_by_status() {
        gauge!(MEMBERS, "status" => status.word()).set(count as f64);
    }
    for (queue, depth) in node.queue_depths() {
        gauge!(QUEUE_DEPTH, "queue" => queue).set(depth as f64);
    }
    gauge!(REVISION).set(node.revision() as f64);
    let stats = node.stats();
    for (direction, kinds) in [("sent", stats.sent().collect::<Vec<_>>()), ("received", stats.received().collect())] {
        for (kind, traffic) in kinds {
            counter!(DATAGRAMS, "direction" => direction, "kind" => kind.label()).absolute(traffic.datagrams);
            counter!(DATAGRAM_BYTES, "direction" => direction, "kind" => kind.label()).absolute(traffic.bytes);
        }
    }
    for (cause, count) in stats.drops() {
        counter!(DATAGRAMS_DROPPED, "cause" => cause.to_string()).absolute(count);
    }
    counter!(PROBES).absolute(stats.probes_answered);
    counter!(INQUIRIES).absolute(stats.inquiries);
    counter!(INQUIRIES_BARREN).absolute(stats.inquiries_barren);
    counter!(ACCUSATIONS, "result" => "refuted").absolute(stats.accusations_withdrawn);
    counter!(ACCUSATIONS, "result" => "upheld").absolute(stats.accusations_upheld);
    counter!(ERRANDS).absolute(stats.errands);
    counter!(ISOLATIONS).absolute(stats.isolations);
    counter!(PROBE_RTT).absolute(stats.probe_rtt_us_sum);
    counter!(RENEWALS).absolute(stats.renewals);
    counter!(REFUTATIONS).absolute(stats.refutations);
    counter!(UNDEAD_WITHHELD).absolute(stats.undead_withheld);
    counter!(UPDATES_FILTERED).absolute(stats.updates_filtered);
    counter!(UPDATES_REFUSED).absolute(stats.updates_refused);
    counter!(RECORDS_REFUSED).absolute(stats.records_refused);
    for (cause, count) in stats.decisions_refused() {
        counter!(DECISIONS_REFUSED, "cause" => cause.label()).absolute(count);
    }
    gauge!(DECISIONS).set(node.decision_count() as f64);
    let usage = node.tables().usage();
    gauge!(TABLE_RECORDS).set(usage.records as f64);
    gauge!(TABLE_BYTES).set(usage.bytes as f64);
    counter!(TABLE_STEPS, "result" => "taken").absolute(stats.steps_taken);
    counter!(TABLE_STEPS, "result" => "known").absolute(stats.steps_known);
    counter!(TABLE_STEPS, "result" => "unsent").absolute(stats.steps_unsent);
    for (cause, count) in stats.steps_refused() {
        counter!(TABLE_STEPS_REFUSED, "cause" => cause.label()).absolute(count);
    }
    counter!(SWIM_ERRORS).absolute(stats.swim_errors);
    counter!(EXCHANGES, "result" => "started").absolute(stats.exchanges_started);
    counter!(EXCHANGES, "result" => "failed").absolute(stats.exchanges_failed);
    counter!(EXCHANGES, "result" => "answered").absolute(stats.exchanges_answered);
}

/// The UDP socket refused.
pub fn udp_error(direction: &'static str, error: &io::Error) {
    counter!(UDP_ERRORS, "direction" => direction, "error" => error.kind().to_string()).increment(1);
    tracing::trace!(direction, %error, "UDP");
}

/// A datagram reached a machine where nobody listened for it.
pub fn datagram_refused() {
    counter!(DATAGRAMS_REFUSED).increment(1);
}

/// What became of a TCP connection.
pub fn connection(result: &'static str) {
    counter!(CONNECTIONS, "result" => result).increment(1);
}

/// What became of a join request.
pub fn admission(result: &'static str) {
    counter!(ADMISSIONS, "result" => result).increment(1);
}

/// A program begins or ends to watch.
pub fn watcher(begins: bool) {
    gauge!(WATCHERS).increment(if begins { 1.0 } else { -1.0 });
}

/// So many lines were made for one that watches.
pub fn watch_lines(count: u64) {
    counter!(WATCH_LINES).increment(count);
}

/// One that watches was too slow.
pub fn watcher_lagged() {
    counter!(WATCHERS_LAGGED).increment(1);
}

/// This node's certificate ends then.
#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
pub fn certificate_expiry(unix_ms: u64) {
    gauge!(CERTIFICATE_EXPIRY).set((unix_ms / 1_000) as f64);
}
