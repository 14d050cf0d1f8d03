//! All scenarios, inside the binary.

use super::Scenario;

macro_rules! files {
    ($($name:literal,)*) => { &[$(include_str!(concat!("../../scenarios/", $name, ".toml")),)*] };
}

const FILES: &[&str] = files![
    "S02-crash-one",
    "S04-split-50-50",
    "S10-one-way-deaf",
    "S19-lifeguard-grid",
    "S20-pause",
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
