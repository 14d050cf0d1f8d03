//! A scenario file and a seed become a plan: selectors become hosts, milliseconds become microseconds.

use std::collections::BTreeSet;

use super::file::{Act, CalmFile, Extra, File, NetworkFile, Range, ReaderFile, Selector, Start};
use super::select::Cast;
use super::swizzle;
use crate::luck::Luck;
use crate::outcome::Protocol;
use crate::plan::{Bound, Calm, Decree, Effect, Fault, Flap, HostPlan, Mode, Network, Path, Plan, Ruling, What};
use crate::reading::Reading;
use crate::writing::{Deed, NETWORK, Writing};

const MS: u64 = 1_000;
const SECOND_US: u64 = 1_000_000;
/// Numbers of faults that one act may make.
const FAULTS_PER_ACT: u64 = 100_000;

pub(super) fn resolve(file: &File, label: &str, seed: u64) -> Result<Plan, String> {
    let NetworkFile { latency_us, jitter_percent, loss_ppm } = file.network.clone();
    let luck = Luck::new(seed);
    let cast = Cast { luck, nodes: file.nodes, regions: latency_us.len(), groups: &file.groups };
    let mut hosts = starts(&file.start, &cast)?;
    for (n, extra) in file.extra.iter().enumerate() {
        hosts.push(extra_host(extra, &cast, n)?);
    }
    let (mut faults, mut decrees, mut writings) = (Vec::new(), Vec::new(), Vec::new());
    for (n, act) in file.act.iter().enumerate() {
        if matches!(act.kind.as_str(), "attach" | "detach" | "endpoints") {
            writings.extend(act_writings(act, &cast, n as u64)?);
        } else if act.kind == "decide" {
            decrees.extend(act_decrees(act, &cast, n)?);
        } else {
            faults.extend(act_faults(act, &cast, n as u64)?);
        }
    }
    let readings: Result<Vec<_>, String> = file.reader.iter().map(|reader| reading(reader, &cast)).collect();
    let readings = readings?;
    let span_us = file.seconds * SECOND_US;
    if file.generate.as_deref() == Some("swizzle") {
        faults.extend(swizzle::faults(luck, file.nodes));
        if file.start.attached.is_some() {
            writings.extend(swizzle::writings(luck, file.nodes));
        }
        decrees.extend(swizzle::decrees(luck, file.nodes, file.start.managers));
    }
    let written_us = writings.iter().map(|writing| writing.until_us.unwrap_or(writing.at_us));
    let decided_us = decrees.iter().map(|decree| decree.at_us);
    let last_us = decided_us.chain(written_us).chain(hosts.iter().map(|host| host.start_us)).max();
    let calm = calm(&file.calm, &cast, &faults, last_us.unwrap_or_default(), span_us)?;
    let bounds = file.expect.iter().map(|(name, range)| {
        let (at_least, at_most) = match range {
            Range::Most(most) => (None, Some(*most)),
            Range::Both { at_least, at_most } => (*at_least, *at_most),
        };
        Bound { name: name.clone(), at_least, at_most }
    });
    Ok(Plan {
        scenario: format!("{label} {}", file.name),
        about: file.about.clone(),
        seed,
        span_us,
        measure_from_us: file.measure_from_s * SECOND_US,
        protocol: Protocol::Gossipd,
        profile: file.profile,
        idle_faults: file.generate.is_some(),
        checks: file.checks.clone(),
        matrices_us: matrices(&file.matrices_s, &faults, &calm, span_us),
        network: Network { latency_us, jitter_percent, loss_ppm },
        calm,
        bounds: bounds.collect(),
        faults,
        decrees,
        writings,
        history: if readings.is_empty() { 0 } else { file.history },
        readings,
        hosts,
    })
}

/// When nothing is said: before the faults, in their middle, at their end, and once all is over.
fn matrices(wanted_s: &[u64], faults: &[Fault], calm: &Calm, span_us: u64) -> Vec<u64> {
    let begins_us = faults.iter().map(|fault| fault.at_us).min();
    match begins_us {
        _ if !wanted_s.is_empty() => wanted_s.iter().map(|s| s * SECOND_US).collect(),
        None => vec![span_us],
        Some(begins_us) => {
            let ends_us = calm.at_us.saturating_sub(1_000).max(begins_us);
            let middle_us = u64::midpoint(begins_us, ends_us);
            let mut all = vec![begins_us.saturating_sub(1_000), middle_us, ends_us, calm.at_us + calm.within_us];
            all.dedup();
            all.retain(|at_us| *at_us <= span_us);
            all
        }
    }
}

fn starts(start: &Start, cast: &Cast<'_>) -> Result<Vec<HostPlan>, String> {
    let Start { stagger_us, contacts, warm, managers, attached, late, late_ms } = start;
    let attached = attached.as_ref().map_or(Ok(Vec::new()), |attached| cast.select(attached, "attached"))?;
    let late = late.as_ref().map_or(Ok(Vec::new()), |late| cast.select(late, "late"))?;
    let mut late_us = late_ms * MS;
    let mut start_us = 0;
    let host = |n| {
        let is_late = late.binary_search(&n).is_ok();
        let clock = if is_late { &mut late_us } else { &mut start_us };
        let at_us = *clock;
        let is_warm = *warm && !is_late;
        *clock += if is_warm { 0 } else { *stagger_us };
        HostPlan {
            start_us: at_us,
            contacts: (0..*contacts).filter(|contact| *contact != n).collect(),
            region: cast.region(n),
            warm: is_warm,
            manager: n > 0 && n < *managers,
            attached: attached.binary_search(&n).is_ok(),
            ..HostPlan::default()
        }
    };
    Ok((0..cast.nodes).map(host).collect())
}

fn extra_host(extra: &Extra, cast: &Cast<'_>, n: usize) -> Result<HostPlan, String> {
    let Extra { at_ms, clone_of, address_of } = extra;
    let one = |selector: &Option<Selector>| match selector {
        Some(selector) => Ok::<_, String>(cast.select(selector, &format!("extra {n}"))?.first().copied()),
        None => Ok(None),
    };
    Ok(HostPlan {
        start_us: at_ms * MS,
        contacts: vec![0, 1],
        clone_of: one(clone_of)?,
        address_of: one(address_of)?,
        ..HostPlan::default()
    })
}

fn reading(reader: &ReaderFile, cast: &Cast<'_>) -> Result<Reading, String> {
    let ReaderFile { on, at_ms, every_ms, bytes, stalls_ms, drops_every } = reader;
    Ok(Reading {
        on: cast.select(on, "reader")?,
        at_us: at_ms * MS,
        every_us: every_ms * MS,
        bytes: *bytes,
        stalls_us: stalls_ms.map(|(from, until)| (from * MS, until * MS)),
        drops_every: *drops_every,
    })
}

fn calm(file: &CalmFile, cast: &Cast<'_>, faults: &[Fault], last_us: u64, span_us: u64) -> Result<Calm, String> {
    let CalmFile { at_ms, within_ms, mode, core } = file;
    let over_us = faults.iter().map(|fault| fault.until_us.unwrap_or(fault.at_us)).max();
    let at_us = at_ms.map_or_else(|| over_us.unwrap_or_default().max(last_us), |ms| ms * MS).min(span_us);
    let core = match (mode, core) {
        (Mode::Heal, _) => Vec::new(),
        (Mode::Core, Some(core)) => cast.select(core, "core")?,
        (Mode::Core, None) => {
            let touched: BTreeSet<_> = faults.iter().flat_map(|fault| fault.hosts.iter().copied()).collect();
            (0..cast.nodes).filter(|host| !touched.contains(host)).collect()
        }
    };
    Ok(Calm { at_us, within_us: within_ms * MS, mode: *mode, core })
}

/// The decrees of one act: one, or one about each host when they come one after another.
fn act_decrees(act: &Act, cast: &Cast<'_>, n: usize) -> Result<Vec<Decree>, String> {
    let name = format!("act {n}");
    let about = act.hosts.as_ref().ok_or_else(|| format!("{name}: about whom?"))?;
    let about = cast.select(about, &name)?;
    let by = match &act.by {
        Some(by) => cast.select(by, &format!("{name} by"))?,
        None => vec![0],
    };
    let label = act.label.as_ref().map(|label| match label.split_once('=') {
        Some((key, value)) => Ruling::Label { key: key.to_owned(), value: Some(value.to_owned()) },
        None => Ruling::Label { key: label.clone(), value: None },
    });
    let all = [
        act.availability.map(|to| Ruling::Availability { to }),
        act.role.map(|to| Ruling::Role { to }),
        label,
        act.remove.then_some(Ruling::Remove),
    ];
    let mut rulings = all.into_iter().flatten();
    let (Some(ruling), None) = (rulings.next(), rulings.next()) else {
        return Err(format!("{name}: one thing is decided, an availability, a role, a label, or a removal"));
    };
    let decree = |number: u64, about: Vec<usize>| Decree {
        at_us: (act.at_ms + number * act.each_ms.unwrap_or_default()) * MS,
        by: by.clone(),
        about,
        reason: act.reason.clone(),
        confirm: act.confirm,
        ruling: ruling.clone(),
    };
    Ok(match act.each_ms {
        None => vec![decree(0, about)],
        Some(_) => (0..).zip(about).map(|(number, host)| decree(number, vec![host])).collect(),
    })
}

/// The writings of one act: one, or one by each owner when they come one after another.
fn act_writings(act: &Act, cast: &Cast<'_>, n: u64) -> Result<Vec<Writing>, String> {
    let name = format!("act {n}");
    let by = cast.select(act.hosts.as_ref().ok_or_else(|| format!("{name}: who writes?"))?, &name)?;
    let count = act.count.unwrap_or(1);
    let deed = match act.kind.as_str() {
        "attach" => Deed::Attach,
        "detach" => Deed::Detach,
        _ => Deed::Endpoints {
            count,
            slots: act.slots.unwrap_or(count),
            gone_percent: act.gone_percent,
            bytes: u32::try_from(act.bytes).unwrap_or(u32::MAX),
        },
    };
    let writing = |number: u64, by: Vec<usize>| {
        let at_us = (act.at_ms + number * act.each_ms.unwrap_or_default()) * MS;
        let until_us = act.for_ms.map(|ms| at_us + ms * MS);
        let id = n * FAULTS_PER_ACT + number;
        Writing { id, at_us, until_us, every_us: act.every_us, by, network: act.network.unwrap_or(NETWORK), deed }
    };
    Ok(match act.each_ms {
        None => vec![writing(0, by)],
        Some(_) => (0..).zip(by).map(|(number, host)| writing(number, vec![host])).collect(),
    })
}

/// The faults of one act: one, or one for each host when they come one after another.
fn act_faults(act: &Act, cast: &Cast<'_>, n: u64) -> Result<Vec<Fault>, String> {
    let name = format!("act {n}");
    let set = |selector: &Option<Selector>| match selector {
        Some(selector) => cast.select(selector, &name),
        None => Ok(Vec::new()),
    };
    let pairs = match act.ring_reach {
        Some(reach) => ring(cast.nodes, reach),
        None => act.pairs.clone(),
    };
    let path = Path { from: set(&act.from)?, to: set(&act.to)?, both: act.both, pairs, udp_only: act.udp_only };
    let what = what(act, &path)?;
    let hosts = match (&act.hosts, &what) {
        (Some(hosts), _) => cast.select(hosts, &name)?,
        (None, What::Net { .. }) => touched(&path),
        (None, _) => return Err(format!("{name}: whom does it hit?")),
    };
    let fault = |number: u64, at_us: u64, hosts: Vec<usize>| Fault {
        id: n * FAULTS_PER_ACT + number,
        at_us,
        until_us: act.for_ms.map(|ms| at_us + ms * MS),
        hosts,
        flap: act.on_ms.zip(act.off_ms).map(|(on_ms, off_ms)| Flap { on_us: on_ms * MS, off_us: off_ms * MS }),
        what: what.clone(),
    };
    Ok(match act.each_ms {
        None => vec![fault(0, act.at_ms * MS, hosts)],
        Some(each_ms) => (0..)
            .zip(hosts)
            .map(|(number, host)| fault(number, (act.at_ms + number * each_ms) * MS, vec![host]))
            .collect(),
    })
}

/// The smaller side; both when they are equal.
fn touched(path: &Path) -> Vec<usize> {
    let Path { from, to, pairs, .. } = path;
    if !pairs.is_empty() {
        let both: BTreeSet<_> = pairs.iter().flat_map(|(one, other)| [*one, *other]).collect();
        return both.into_iter().collect();
    }
    match from.len().cmp(&to.len()) {
        std::cmp::Ordering::Less => from.clone(),
        std::cmp::Ordering::Greater => to.clone(),
        std::cmp::Ordering::Equal => from.iter().chain(to).copied().collect::<BTreeSet<_>>().into_iter().collect(),
    }
}

/// All pairs of a ring that are further apart than `reach`.
fn ring(nodes: usize, reach: usize) -> Vec<(usize, usize)> {
    let apart = |one: usize, other: usize| {
        let step = other - one;
        step.min(nodes - step) > reach
    };
    (0..nodes)
        .flat_map(|one| (one + 1..nodes).filter(move |other| apart(one, *other)).map(move |other| (one, other)))
        .collect()
}

fn what(act: &Act, path: &Path) -> Result<What, String> {
    let Act { ppm, enter_ppm, leave_ppm, delay_us, jitter_us, bytes, disk, moves, .. } = *act;
    let as_size = usize::try_from(bytes).unwrap_or(usize::MAX);
    let net = |effect| What::Net { path: path.clone(), effect };
    Ok(match act.kind.as_str() {
        "kill" => What::Kill { disk, moves, announce_s: act.announce_s },
        "crash" => What::Crash { disk, moves },
        "pause" => What::Pause,
        "slow" => What::Slow { service_us: act.service_us },
        "starve" => What::Starve { buffer_bytes: as_size },
        "throttle" => What::Throttle { bytes_per_s: bytes },
        "clock" => What::Clock { step_ms: act.step_ms, drift_ppm: act.drift_ppm },
        "leave" => What::Leave,
        "readdress" => What::Readdress,
        "noise" => What::Noise { every_us: act.every_us },
        "forge" => What::Forge { every_us: act.every_us },
        "cut" => net(Effect::Cut),
        "loss" => net(Effect::Loss { ppm }),
        "burst" => net(Effect::Burst { enter_ppm, leave_ppm, bad_ppm: ppm }),
        "delay" => net(Effect::Delay { delay_us, jitter_us }),
        "reorder" => net(Effect::Reorder { ppm, delay_us }),
        "duplicate" => net(Effect::Duplicate { ppm }),
        "corrupt" => net(Effect::Corrupt { ppm }),
        "truncate" => net(Effect::Truncate { ppm }),
        "replay" => net(Effect::Replay { ppm }),
        "mtu" => net(Effect::Mtu { bytes: as_size }),
        other => return Err(format!("no fault is called {other}")),
    })
}
