//! How fast the simulator is: a cluster forms, and then runs on in a steady state.

use std::io::Write;
use std::time::Instant;

use clap::Args;
use gossip_sim::{HostId, Setup, World};

/// Virtual time that a cluster has to form.
const FORM_US: u64 = 60_000_000;
/// Virtual time until comparisons after the start are over.
const SETTLE_US: u64 = 60_000_000;
/// The same where there is nothing to compare.
const CALM_US: u64 = 5_000_000;
/// More than so many are not formed: what that costs grows with the square of their number.
const FORM_MAX: usize = 2_000;
/// Virtual time that is measured of the steady state.
const SPAN_US: u64 = 20_000_000;
const NOTE: &str = "\
An event is one input that is given to a node: a datagram, a timer that is due, a greeting, request or reply of an
exchange, an order. One processor works, but for the phase \"together\". Forming: one node a millisecond, all through one,
until all know all. Together: all start at once and know each other. Steady: 20 s of virtual time, when what follows from
the start is over. Memory is the process's resident size at the end of the phase.";

#[derive(Args)]
pub(crate) struct Flags {
    /// Sizes of the clusters
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 256, 1_000])]
    nodes: Vec<usize>,
    /// And 10,000 nodes, which takes some ten gigabytes
    #[arg(long)]
    full: bool,
    /// Start all nodes of a cluster together, knowing each other; more than 2,000 always are
    #[arg(long)]
    together: bool,
}

/// Resident memory of this process, in MiB.
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1_024)
}

fn measure(world: &mut World, what: &str, out: &mut impl Write, run: impl FnOnce(&mut World)) -> anyhow::Result<()> {
    let (events, virtual_us, began) = (world.handled(), world.now_us(), Instant::now());
    run(world);
    let (events, virtual_us) = (world.handled() - events, world.now_us() - virtual_us);
    let wall_s = began.elapsed().as_secs_f64().max(1e-9);
    let rate = events as f64 / wall_s;
    let ratio = virtual_us as f64 / 1e6 / wall_s;
    let memory = resident_mib().map_or("–".to_owned(), |mib| mib.to_string());
    let (nodes, virtual_s) = (world.living_count(), virtual_us as f64 / 1e6);
    writeln!(
        out,
        "{nodes:>6} {what:<8} {events:>11} {virtual_s:>10.2} {wall_s:>9.2} {rate:>10.0} {ratio:>12.2} {memory:>8}"
    )?;
    Ok(())
}

/// Measures and prints.
pub(crate) fn bench(flags: &Flags, out: &mut impl Write) -> anyhow::Result<u8> {
    writeln!(out, "{NOTE}\n")?;
    let head = ["nodes", "phase", "events", "virtual s", "wall s", "events/s", "virtual:wall", "RSS MiB"];
    let [nodes, phase, events, virtual_s, wall_s, rate, ratio, memory] = head;
    writeln!(out, "{nodes:>6} {phase:<8} {events:>11} {virtual_s:>10} {wall_s:>9} {rate:>10} {ratio:>12} {memory:>8}")?;
    for nodes in flags.nodes.iter().copied().chain(flags.full.then_some(10_000)) {
        let mut world = World::new(Setup::new(1));
        let hosts: Vec<HostId> = (0..nodes).map(|_| world.add(0)).collect();
        if flags.together || nodes > FORM_MAX {
            measure(&mut world, "together", out, |world| world.start_together(&hosts))?;
            world.run_for(CALM_US);
            measure(&mut world, "steady", out, |world| world.run_for(SPAN_US))?;
            continue;
        }
        measure(&mut world, "forming", out, |world| {
            for host in &hosts {
                world.set_contacts(*host, hosts.get(..1).unwrap_or_default());
                world.start(*host);
                world.run_for(1_000);
            }
            world.run_until(FORM_US, World::is_settled);
        })?;
        if !world.is_settled() {
            writeln!(out, "{nodes:>6} did not form")?;
        }
        world.run_for(SETTLE_US);
        measure(&mut world, "steady", out, |world| world.run_for(SPAN_US))?;
    }
    Ok(0)
}
