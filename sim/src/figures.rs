//! What a run amounts to in numbers, and whether they are within their bounds.
//!
//! | figure | meaning |
//! |---|---|
//! | `detect_first_us`, `_median_us`, `_p99_us`, `_max_us` | from a crash to `down`, over all pairs of a crash and a healthy observer |
//! | `detect_full_max_us` | as `detect_max_us`, and unknown while anybody has not seen it |
//! | `detect_missed` | pairs in which it was never seen |
//! | `leave_max_us`, `leave_missed` | the same for a goodbye and `left` |
//! | `all_know_all_us` | from the last start until all agree |
//! | `heal_us` | from the end of the faults until all (or the healthy core) agree |
//! | `wire_bytes_per_node_s`, `datagrams_per_node_s` | traffic since the start of measuring: datagrams with 28 bytes each, and exchanges |
//! | `tail_bytes_per_node_s` | the same over the last ten seconds |
//! | `max_host_bytes` | what the busiest host sent in all |
//! | `suspicions` … `downs_per_pair_max` | [`crate::world::Counts`], since the start of measuring |
//! | `decisions`, `orders_refused` | decisions made, and orders that the decider's own node refused |
//! | `decision_median_us`, `_p99_us` | from a decision until a node that runs and is connected holds it, over all such nodes |
//! | `decision_all_median_us`, `_max_us` | from a decision until all of them do, over the decisions |
//! | `decision_missed` | of them: those that never did |
//! | `confirm_median_us`, `_max_us`, `confirm_missed` | until the decider is told that all have it; questions without an answer |
//! | `writes`, `writes_refused` | steps that owners wrote into their tables, and writes that their own nodes refused |
//! | `write_median_us`, `_p99_us`, `_max_us` | from a write until a node that runs, is connected and takes part has it, over all such nodes |
//! | `write_all_max_us`, `write_missed` | until the last of them has it; those that never did |
//! | `write_datagrams_per_1000`, `write_surplus_per_1000` | datagrams about tables, and copies that brought nothing new, for a thousand that did, since the start of measuring |
//! | `write_copy_bytes` | payload of these datagrams for each such copy |
//! | `buried_max_us`, `unburied` | until nobody shows, unmarked, what a life wrote whose disk is gone; lives of which somebody still does |
//! | `reader_changes`, `_snapshots`, `_resumed`, `_gone`, `_lagged` | changes told to readers, sessions that began with a snapshot or went on, readers that could not, and that were told that they lagged |
//! | `conflicts`, `gave_way` | hosts that reported a double, and that gave way to it |
//! | `buffer_drops`, `exchange_failures`, `exchanges`, `queue_max`, `events` | totals of the run |
//!
//! Not here: properties (`checks`).

use std::collections::{BTreeMap, BTreeSet};

use crate::outcome::{CheckResult, Detection, Expectation, FaultLane, Outcome, Verdict};
use crate::plan::{Bound, Decree};
use crate::report::units;
use crate::run::Run;
use crate::world::{Accepted, Counts, HEADER_BYTES, ReaderCounts, Sent, Watch, World};
use crate::writing::Writing;

type Figures = BTreeMap<String, u64>;

/// Makes the outcome of a run that is over.
pub(crate) fn conclude(run: Run<'_>) -> Outcome {
    let plan = run.plan;
    let figures = figures(&run);
    let expectations: Vec<_> = plan.bounds.iter().map(|bound| expectation(bound, &figures)).collect();
    let faults = lanes(&run);
    let mut checks = run.world.checks().results();
    checks.push(idle_faults(&faults, plan.idle_faults));
    let converged = run.agrees_at_end && run.calm_after_us.is_some_and(|us| us <= plan.calm.within_us);
    checks.push(agreement(&run, converged));
    let verdict = verdict(&checks, converged, &expectations);
    let Run { world, seconds, convergence, matrices, .. } = run;
    Outcome {
        scenario: plan.scenario.clone(),
        about: plan.about.clone(),
        seed: plan.seed,
        protocol: plan.protocol,
        nodes: plan.hosts.len(),
        span_us: plan.span_us,
        trace: world.trace().to_string(),
        verdict,
        expectations,
        figures,
        checks,
        faults,
        changes: world.sightings().to_vec(),
        detections: detections(&world),
        convergence,
        seconds,
        bytes_by_host: world.hosts().map(|host| world.sent_by(host)).collect(),
        matrices,
    }
}

/// Properties come before convergence, and that before numbers.
fn verdict(checks: &[CheckResult], converged: bool, expectations: &[Expectation]) -> Verdict {
    let is_number = |name: &str| name.starts_with('D') || name == "Calm";
    if checks.iter().any(|check| check.failed > 0 && !is_number(&check.name)) {
        Verdict::Violated
    } else if !converged {
        Verdict::NotConverged
    } else if expectations.iter().any(|one| !one.holds) || checks.iter().any(|check| check.failed > 0) {
        Verdict::OutOfBounds
    } else {
        Verdict::Passed
    }
}

fn idle_faults(faults: &[FaultLane], allowed: bool) -> CheckResult {
    let idle: Vec<_> = faults.iter().filter(|lane| lane.hits == 0).collect();
    CheckResult {
        name: "Faults".to_owned(),
        what: "every fault hit something".to_owned(),
        looked: faults.len() as u64,
        failed: if allowed { 0 } else { idle.len() as u64 },
        examples: idle
            .iter()
            .take(8)
            .map(|lane| format!("fault hit nothing: {} at {} µs", lane.kind, lane.from_us))
            .collect(),
    }
}

fn agreement(run: &Run<'_>, converged: bool) -> CheckResult {
    let mut examples = Vec::new();
    if !converged {
        let within = run.plan.calm.within_us;
        examples.push(match run.calm_after_us {
            Some(us) if us > within => format!("after {us} µs, allowed {within}"),
            Some(us) => format!("after {us} µs, and not at the end"),
            None => format!("never within the run, allowed {within} µs"),
        });
        examples.extend(run.world.disagreements(6));
        examples.extend(run.world.odd_tables(6));
    }
    CheckResult {
        name: "Calm".to_owned(),
        what: "once the faults are over all agree, in time and for good".to_owned(),
        looked: 1,
        failed: u64::from(!converged),
        examples,
    }
}

fn expectation(bound: &Bound, figures: &Figures) -> Expectation {
    let Bound { name, at_least, at_most } = bound.clone();
    let actual = figures.get(&name).copied();
    let holds = actual.is_some_and(|actual| {
        at_least.is_none_or(|least| actual >= least) && at_most.is_none_or(|most| actual <= most)
    });
    Expectation { unit: units::unit_of(&name).to_owned(), name, at_least, at_most, actual, holds }
}

fn lanes(run: &Run<'_>) -> Vec<FaultLane> {
    let lane = |(fault, ended_us): (&crate::plan::Fault, &Option<u64>)| FaultLane {
        kind: fault.what.word().to_owned(),
        hosts: fault.hosts.clone(),
        from_us: fault.at_us,
        to_us: *ended_us,
        hits: run.world.hits(fault.id),
    };
    let decided = |(decree, count): (&Decree, &u64)| FaultLane {
        kind: decree.ruling.word().to_owned(),
        hosts: decree.about.clone(),
        from_us: decree.at_us,
        to_us: Some(decree.at_us),
        hits: *count,
    };
    let faults = run.plan.faults.iter().zip(&run.ended_us).map(lane);
    let written = |writing: &Writing| FaultLane {
        kind: writing.deed.word().to_owned(),
        hosts: writing.by.clone(),
        from_us: writing.at_us,
        to_us: Some(writing.until_us.unwrap_or(writing.at_us)),
        hits: run.world.hits(writing.id),
    };
    let decreed = faults.chain(run.plan.decrees.iter().zip(&run.decided).map(decided));
    decreed.chain(run.plan.writings.iter().map(written)).collect()
}

fn latencies(watches: &[&Watch]) -> Vec<u64> {
    let mut all: Vec<_> = watches.iter().flat_map(|watch| watch.seen.iter().map(|(_, us)| *us)).collect();
    all.sort_unstable();
    all
}

fn detections(world: &World) -> Vec<Detection> {
    let crashes = world.book().watches.iter().filter(|watch| watch.is_crash);
    crashes
        .map(|watch| Detection {
            subject: watch.subject.index(),
            at_us: watch.at_us,
            latencies_us: latencies(&[watch]),
            missed: world.missed(watch),
        })
        .collect()
}

fn figures(run: &Run<'_>) -> Figures {
    let Run { plan, world, .. } = run;
    let mut figures = Figures::new();
    let mut put = |name: &str, value: u64| {
        figures.insert(name.to_owned(), value);
    };
    spread_figures(world, &mut put);
    // Without faults there is nothing but the start to wait for.
    let formed_us = run.all_know_all_us.or(run.calm_after_us.filter(|_| plan.faults.is_empty()));
    if let Some(us) = formed_us {
        put("all_know_all_us", us);
    }
    if let Some(us) = run.calm_after_us {
        put("heal_us", us);
    }
    traffic_figures(run, &mut put);
    count_figures(world.book().counts(), &mut put);
    let book = world.book();
    let reporters: BTreeSet<_> = book.conflicts.iter().map(|(host, _)| host.index()).collect();
    let gave_way: BTreeSet<_> =
        book.conflicts.iter().filter(|(_, gave_way)| *gave_way).map(|(host, _)| host.index()).collect();
    decision_figures(world, &mut put);
    table_figures(run, &mut put);
    if !plan.readings.is_empty() {
        let ReaderCounts { changes, snapshots, resumed, gone, lagged } = world.reader_counts();
        let all =
            [("changes", changes), ("snapshots", snapshots), ("resumed", resumed), ("gone", gone), ("lagged", lagged)];
        all.into_iter().for_each(|(name, count)| put(&format!("reader_{name}"), count));
    }
    put("conflicts", reporters.len() as u64);
    put("gave_way", gave_way.len() as u64);
    put("buffer_drops", book.buffer_drops);
    put("exchange_failures", book.exchange_failures);
    put("queue_max", book.queue_max as u64);
    put("exchanges", world.sent().exchanges);
    put("events", world.handled());
    put("nodes", plan.hosts.len() as u64);
    figures
}

fn spread_figures(world: &World, put: &mut impl FnMut(&str, u64)) {
    let (crashes, goodbyes): (Vec<_>, Vec<_>) = world.book().watches.iter().partition(|watch| watch.is_crash);
    let missed = |watches: &[&Watch]| watches.iter().map(|watch| world.missed(watch) as u64).sum::<u64>();
    if !crashes.is_empty() {
        let all = latencies(&crashes);
        let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied();
        let named = [("first", at(0)), ("median", at(50)), ("p99", at(99)), ("max", all.last().copied())];
        for (name, us) in named {
            us.into_iter().for_each(|us| put(&format!("detect_{name}_us"), us));
        }
        put("detect_missed", missed(&crashes));
        if let Some(us) = all.last().filter(|_| missed(&crashes) == 0) {
            put("detect_full_max_us", *us);
        }
    }
    if !goodbyes.is_empty() {
        latencies(&goodbyes).last().into_iter().for_each(|us| put("leave_max_us", *us));
        put("leave_missed", missed(&goodbyes));
    }
}

fn decision_figures(world: &World, put: &mut impl FnMut(&str, u64)) {
    let rulings = world.rulings();
    if rulings.all().is_empty() && rulings.refused == 0 {
        return;
    }
    let mut tell = |name: &str, mut all: Vec<u64>, of_rest: &str| {
        all.sort_unstable();
        let rest = if of_rest == "p99" { all.get(all.len() * 99 / 100) } else { all.last() };
        all.get(all.len() / 2).into_iter().for_each(|us| put(&format!("{name}_median_us"), *us));
        rest.into_iter().for_each(|us| put(&format!("{name}_{of_rest}_us"), *us));
    };
    let seen = rulings.all().iter().flat_map(|one| one.seen.iter().map(|(_, us)| *us));
    tell("decision", seen.collect(), "p99");
    tell("decision_all", rulings.all().iter().filter_map(Accepted::all_us).collect(), "max");
    tell("confirm", rulings.questions.iter().filter_map(|one| one.answered_us).collect(), "max");
    put("decisions", rulings.all().len() as u64);
    put("orders_refused", rulings.refused);
    put("decision_missed", rulings.all().iter().map(Accepted::missed).sum::<usize>() as u64);
    if !rulings.questions.is_empty() {
        put("confirm_missed", rulings.questions.iter().filter(|one| one.answered_us.is_none()).count() as u64);
    }
}

fn table_figures(run: &Run<'_>, put: &mut impl FnMut(&str, u64)) {
    let registry = run.world.registry();
    if registry.writes == 0 && registry.refused == 0 {
        return;
    }
    let mut all = registry.spread_us.clone();
    all.sort_unstable();
    let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied();
    for (name, us) in [("median", at(50)), ("p99", at(99)), ("max", all.last().copied())] {
        us.into_iter().for_each(|us| put(&format!("write_{name}_us"), us.into()));
    }
    registry.spread_all_us.iter().max().into_iter().for_each(|us| put("write_all_max_us", (*us).into()));
    put("writes", registry.writes);
    put("writes_refused", registry.refused);
    put("write_missed", registry.missed() as u64);
    let (from, now) = (run.tables_from, run.world.all_totals());
    let copies = (now.steps_taken - from.steps_taken).max(1);
    put("write_datagrams_per_1000", (now.table_datagrams - from.table_datagrams) * 1_000 / copies);
    put("write_surplus_per_1000", (now.steps_known - from.steps_known) * 1_000 / copies);
    put("write_copy_bytes", (now.table_bytes - from.table_bytes) / copies);
    registry.buried_us.iter().max().into_iter().for_each(|us| put("buried_max_us", *us));
    put("unburied", registry.unburied() as u64);
}

fn traffic_figures(run: &Run<'_>, put: &mut impl FnMut(&str, u64)) {
    let now = run.world.sent();
    let per_node_s = |count: u64, from: Sent| {
        let alive_us = now.alive_us - from.alive_us;
        u64::try_from(u128::from(count) * 1_000_000 / u128::from(alive_us.max(1))).unwrap_or(u64::MAX)
    };
    let bytes = |sent: Sent| sent.datagram_bytes + sent.exchange_bytes;
    let from = run.measured_from;
    put("wire_bytes_per_node_s", per_node_s(bytes(now) - bytes(from), from));
    put("datagrams_per_node_s", per_node_s(now.datagrams - from.datagrams, from));
    let tail = run.tail_from;
    put("tail_bytes_per_node_s", per_node_s(bytes(now) - bytes(tail), tail));
    put("max_host_bytes", run.world.hosts().map(|host| run.world.sent_by(host)).max().unwrap_or_default());
    let headers = now.datagrams * HEADER_BYTES;
    put("payload_bytes", now.datagram_bytes - headers);
}

fn count_figures(counts: &Counts, put: &mut impl FnMut(&str, u64)) {
    let Counts {
        suspicions,
        healthy_suspected,
        collateral_suspicions,
        false_downs,
        healthy_downs,
        collateral_downs,
        accusations_by_sick,
        flaps,
        renewals,
        collateral_renewals,
        changes,
        leavers_accused,
        isolated_told,
        slow_told,
        udp_blocked_told,
        downs_per_pair_max,
    } = counts;
    let named = [
        ("suspicions", suspicions),
        ("healthy_suspected", healthy_suspected),
        ("collateral_suspicions", collateral_suspicions),
        ("false_downs", false_downs),
        ("healthy_downs", healthy_downs),
        ("collateral_downs", collateral_downs),
        ("accusations_by_sick", accusations_by_sick),
        ("flaps", flaps),
        ("renewals", renewals),
        ("collateral_renewals", collateral_renewals),
        ("changes", changes),
        ("leavers_accused", leavers_accused),
        ("isolated_told", isolated_told),
        ("slow_told", slow_told),
        ("udp_blocked_told", udp_blocked_told),
        ("downs_per_pair_max", downs_per_pair_max),
    ];
    named.into_iter().for_each(|(name, count)| put(name, *count));
}
