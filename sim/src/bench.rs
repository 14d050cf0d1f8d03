//! How fast the simulator is: a settled cluster, one crash, events for each second of one processor.

use std::io::Write;
use std::time::Instant;

use clap::Args;
use gossip_sim::{HostId, Setup, World};

/// Virtual seconds until a cluster has settled after its start.
const SETTLE_US: u64 = 20_000_000;
/// Virtual seconds that are measured; the crash is in the middle.
const SPAN_US: u64 = 20_000_000;

#[derive(Args)]
pub(crate) struct Flags {
    /// Sizes of the clusters
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 256, 1_000])]
    nodes: Vec<usize>,
    /// And 10,000 nodes, which takes tens of gigabytes
    #[arg(long)]
    full: bool,
}

/// Measures and prints.
pub(crate) fn bench(flags: &Flags, out: &mut impl Write) -> anyhow::Result<u8> {
    writeln!(out, "{:>6} {:>12} {:>10} {:>14} {:>14}", "nodes", "events", "seconds", "events/s", "virtual:wall")?;
    for nodes in flags.nodes.iter().copied().chain(flags.full.then_some(10_000)) {
        let mut world = World::new(Setup::new(1));
        let began = Instant::now();
        let hosts: Vec<HostId> = (0..nodes).map(|_| world.add(0)).collect();
        for host in &hosts {
            world.set_contacts(*host, hosts.get(..1).unwrap_or_default());
            world.start(*host);
            world.run_for(1_000);
        }
        world.run_for(SETTLE_US);
        let formed = began.elapsed();
        let (events, began) = (world.handled(), Instant::now());
        world.run_for(SPAN_US / 2);
        world.crash(HostId::from_index(nodes / 2));
        world.run_for(SPAN_US / 2);
        let (events, took_s) = (world.handled() - events, began.elapsed().as_secs_f64());
        let rate = events as f64 / took_s;
        let ratio = SPAN_US as f64 / 1e6 / took_s;
        writeln!(
            out,
            "{nodes:>6} {events:>12} {took_s:>10.2} {rate:>14.0} {ratio:>13.1}x  (formed in {:.1} s, settled: {})",
            formed.as_secs_f64(),
            world.is_settled()
        )?;
    }
    Ok(0)
}
