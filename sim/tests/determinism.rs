//! One seed, one run: the reason to believe anything that the simulator says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use gossip_sim::outcome::Protocol;
use gossip_sim::plan::Plan;
use gossip_sim::run::run_logged;
use gossip_sim::run_plan;
use gossip_sim::scenario::catalogue;
use gossip_sim::world::Logs;

fn plan(name: &str, seed: u64) -> Plan {
    let (scenario, variant) = catalogue::find(name).unwrap();
    scenario.plan(&variant.unwrap_or_else(|| scenario.default_variant()), seed).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let outcome = run_plan(&plan("S10@16", 1));
    assert_eq!(outcome, run_plan(&plan("S10@16", 1)));
    assert_ne!(outcome.trace, run_plan(&plan("S10@16", 2)).trace);
}

#[test]
fn a_plan_says_which_protocol_and_foca_runs_as_reproducibly() {
    let foca = Plan { protocol: Protocol::Foca, ..plan("S10@16", 1) };
    assert_eq!(Plan::from_toml(&foca.to_toml().unwrap()).unwrap(), foca);
    let outcome = run_plan(&foca);
    assert_eq!(outcome, run_plan(&foca));
    assert_eq!(outcome.protocol, Protocol::Foca);
    assert!(outcome.figures["renewals"] > 0, "what it does when one node is deaf");
    // It has no seals, no goodbyes, no incarnations to tell.
    assert!(outcome.checks.iter().all(|check| !["M3", "M8", "M9", "M10"].contains(&check.name.as_str())));
}

#[test]
fn writing_the_log_changes_nothing() {
    let plan = plan("S20@5s", 1);
    assert_eq!(run_plan(&plan), run_logged(&plan, Logs::Discarded));
}

#[test]
fn whoever_watches_changes_nothing() {
    let watched = plan("S44", 1);
    let unwatched = Plan { readings: Vec::new(), ..watched.clone() };
    assert!(!watched.readings.is_empty());
    assert_eq!(run_plan(&watched).trace, run_plan(&unwatched).trace);
}

#[test]
fn a_plan_in_a_file_is_the_same_plan() {
    for scenario in catalogue::all().unwrap() {
        let variants = scenario.variants();
        let some = variants.iter().step_by(variants.len().div_ceil(12));
        for variant in some.chain(&scenario.quick()).chain([&scenario.default_variant()]) {
            let plan = scenario.plan(variant, 3).unwrap();
            assert_eq!(Plan::from_toml(&plan.to_toml().unwrap()).unwrap(), plan, "{} {variant}", scenario.name());
        }
    }
}

#[test]
fn names_are_unique_and_every_variant_is_found() {
    let all = catalogue::all().unwrap();
    for (n, scenario) in all.iter().enumerate() {
        let same = |other: &&gossip_sim::scenario::Scenario| {
            other.number() == scenario.number() || other.name() == scenario.name()
        };
        assert_eq!(all[n..].iter().filter(same).count(), 1, "{}", scenario.name());
        assert!(!scenario.about().is_empty());
        let variants = scenario.variants();
        assert!(scenario.quick().iter().all(|quick| variants.contains(quick)), "{}", scenario.name());
        assert!(variants.contains(&scenario.default_variant()), "{}", scenario.name());
    }
}
