//! All scenarios, inside the binary.

use super::Scenario;

macro_rules! files {
    ($($name:literal,)*) => { &[$(include_str!(concat!("../../scenarios/", $name, ".toml")),)*] };
}

const FILES: &[&str] = files![
    "S01-calm-baseline",
    "S02-crash-one",
    "S02b-regions",
    "S03-graceful-leave",
    "S04-split-50-50",
    "S04b-split-decisions",
    "S04c-split-tables",
    "S05-split-minority",
    "S06-split-three-way",
    "S07-bridge",
    "S08-majorities-ring",
    "S09-partial-pair",
    "S09b-udp-blocked",
    "S10-one-way-deaf",
    "S11-one-way-mute",
    "S12-deaf-forever-core",
    "S13-flapping-link",
    "S14-lossy-1pc-ingress",
    "S15-lossy-1pc-egress",
    "S16-flip-flop-1pc",
    "S17-uniform-loss",
    "S18-slow-cpu",
    "S19-lifeguard-grid",
    "S20-pause",
    "S21-zombie-writer",
    "S22-mass-crash",
    "S22b-few-are-left",
    "S23-rack-failure",
    "S23b-rack-tables",
    "S24-power-cycle-all",
    "S24b-power-cycle-decisions",
    "S24c-power-cycle-tables",
    "S25-rolling-restart",
    "S26-wiped-disk",
    "S27-generation-behind",
    "S28-clock-skew",
    "S28b-decisions-under-skew",
    "S29-address-reuse",
    "S30-cloned-id",
    "S31-address-change",
    "S32-herd-join",
    "S33-join-during-partition",
    "S34-seeds-dead",
    "S35-beyond-retention",
    "S35b-deletes-beyond-retention",
    "S37-removed-node",
    "S39-corrupt",
    "S40-mtu-hole",
    "S41-endpoint-churn",
    "S41b-spread",
    "S43-missed-decision",
    "S43b-forged-decisions",
    "S43c-missed-attachment",
    "S44-slow-subscriber",
    "S45-decision-races",
    "S45b-decision-spread",
    "S46-swizzle",
    "S47-small-scope",
];

/// All of them, in order.
///
/// # Errors
/// One of them is no TOML.
pub fn all() -> Result<Vec<Scenario>, String> {
    FILES.iter().map(|text| Scenario::parse(text)).collect()
}

/// The scenario and variant that `name` means: `S10`, `s10@64`, `one-way-deaf@64`.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<(Scenario, Option<String>), String> {
    let (name, variant) = match name.split_once('@') {
        Some((name, variant)) => (name, Some(variant.to_owned())),
        None => (name, None),
    };
    let known = |scenario: &Scenario| {
        [scenario.number(), scenario.name()].into_iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    let found = all()?.into_iter().find(known).ok_or_else(|| format!("no scenario {name}; see `gossip-sim list`"))?;
    if let Some(variant) = &variant
        && !found.variants().contains(variant)
    {
        return Err(format!("{} has no variant {variant}: {}", found.number(), found.variants().join(", ")));
    }
    Ok((found, variant))
}
