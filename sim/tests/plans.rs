//! The plans that real daemons carry out are those of the catalogue.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::path::Path;

use gossip_sim::scenario::catalogue;

#[test]
fn plans_for_real_daemons_are_what_the_catalogue_makes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/plans");
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (scenario, variant) = catalogue::find(name).unwrap();
        let plan = scenario.plan(&variant.unwrap_or_else(|| scenario.default_variant()), 1).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text == plan.to_toml().unwrap(), "write it anew: gossip-sim plan {name} > {}", path.display());
        count += 1;
    }
    assert!(count >= 4);
}
