//! scratch
use gossip_sim::*;
use gossipd::record::Status;
const S: u64 = 1_000_000;
fn cluster(setup: Setup, n: usize) -> World {
    let mut w = World::new(setup);
    let seed = w.spawn(&[]);
    for _ in 1..n {
        w.run_for(1000);
        w.spawn(&[seed]);
    }
    w.run_until(w.now_us() + 90 * S, World::is_settled);
    w
}
fn odd(w: &World) -> String {
    let mut v = vec![];
    for o in w.living() {
        for s in w.hosts() {
            if o != s {
                let r = w.row(o, s);
                let live = w.node(s).map(|n| n.identity());
                let ok = match live {
                    Some(i) => r.is_some_and(|r| r.status == Status::Ready && r.identity == i),
                    None => r.is_none_or(|r| !matches!(r.status, Status::Ready | Status::Suspect)),
                };
                if !ok {
                    v.push(format!("{o}:{s}={:?}", r.map(|r| (r.status, r.identity.generation))));
                }
            }
        }
    }
    format!("{} odd, {:?}", v.len(), &v[..v.len().min(6)])
}
fn finish(tag: &str, seed: u64, w: &mut World, t0: u64, limit: u64) {
    let t = w.run_until(t0 + limit, World::is_settled);
    let downs = w
        .sightings()
        .iter()
        .filter(|s| s.at_us >= t0 && s.new == Some(Status::Down) && s.old != Some(Status::Down) && s.subject_lives)
        .count();
    let susp =
        w.sightings().iter().filter(|s| s.at_us >= t0 && s.new == Some(Status::Suspect) && s.subject_lives).count();
    let ren: u64 = w.hosts().map(|h| w.totals(h).renewals).sum();
    w.check_all();
    if std::env::var("V").is_ok() {
        for s in w.sightings().iter().filter(|s| {
            s.at_us >= t0 && s.subject_lives && (s.new == Some(Status::Down) || std::env::var("VV").is_ok())
        }) {
            println!(
                "   +{:.4} {} sees {} gen {} {:?} -> {:?}",
                (s.at_us - t0) as f64 / 1e6,
                s.observer,
                s.subject,
                s.generation,
                s.old,
                s.new
            );
        }
    }
    println!(
        "{tag} seed {seed}: settled {:?} downs {downs} susp {susp} renewals {ren} fails {:?} {}",
        t.map(|t| (t - t0) as f64 / 1e6),
        w.checks().failures().iter().map(|s| s.chars().take(300).collect::<String>()).collect::<Vec<_>>(),
        if t.is_none() { odd(w) } else { String::new() }
    );
}
fn main() {
    let what = std::env::args().nth(1).unwrap();
    let n: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let seeds: u64 = std::env::args().nth(3).unwrap().parse().unwrap();
    for seed in 1..=seeds {
        let mut setup = Setup::new(seed);
        if what.starts_with("loss") {
            setup.link.loss_ppm = what[4..].parse::<u32>().unwrap() * 10_000;
        }
        if what == "leaveloss" || what == "restartloss" {
            setup.link.loss_ppm = 50_000;
        }
        let mut w = cluster(setup, n);
        let hosts: Vec<_> = w.hosts().collect();
        let mid = hosts[n / 2];
        match what.as_str() {
            "mute" => {
                let c = w.cut(&[mid], &hosts);
                w.run_for(30 * S);
                w.heal(c);
                let t = w.now_us();
                finish("mute", seed, &mut w, t, 120 * S);
            }
            "deaf" => {
                let c = w.cut(&hosts, &[mid]);
                w.run_for(60 * S);
                w.heal(c);
                let t = w.now_us();
                finish("deaf", seed, &mut w, t, 120 * S);
            }
            "lone" => {
                let others: Vec<_> = hosts.iter().copied().filter(|h| *h != mid).collect();
                let c = w.split(&[mid], &others);
                w.run_for(60 * S);
                c.into_iter().for_each(|c| w.heal(c));
                let t = w.now_us();
                finish("lone", seed, &mut w, t, 120 * S);
            }
            "split" => {
                let (a, b) = hosts.split_at(n / 2);
                let c = w.split(a, b);
                w.run_for(60 * S);
                c.into_iter().for_each(|c| w.heal(c));
                let t = w.now_us();
                finish("split", seed, &mut w, t, 120 * S);
                let t = w.now_us();
                w.run_for(60 * S);
                finish("  +60s", seed, &mut w, t, 120 * S);
            }
            "shortsplit" => {
                let (a, b) = hosts.split_at(n / 2);
                let c = w.split(a, b);
                w.run_for(2 * S + 500_000);
                c.into_iter().for_each(|c| w.heal(c));
                let t = w.now_us();
                finish("short", seed, &mut w, t, 120 * S);
            }
            "three" => {
                let k = n / 3;
                let (a, b, c) = (&hosts[..k], &hosts[k..2 * k], &hosts[2 * k..]);
                let mut cuts = vec![w.split(a, b), w.split(b, c), w.split(a, c)];
                w.run_for(60 * S);
                for _ in 0..3 {
                    cuts.remove(0).into_iter().for_each(|c| w.heal(c));
                    w.run_for(5 * S);
                }
                let t = w.now_us();
                finish("three", seed, &mut w, t, 120 * S);
            }
            "pair" => {
                let c = w.split(&hosts[1..2], &hosts[2..3]);
                let t = w.now_us();
                w.run_for(120 * S);
                c.into_iter().for_each(|c| w.heal(c));
                finish("pair", seed, &mut w, t, 240 * S);
            }
            "restartall" => {
                hosts.iter().for_each(|h| w.restart(*h));
                let t = w.now_us();
                finish("restartall", seed, &mut w, t, 120 * S);
            }
            "seedsdead" => {
                w.crash(hosts[0]);
                hosts[1..].iter().for_each(|h| w.restart(*h));
                w.run_for(60 * S);
                w.restart(hosts[0]);
                let t = w.now_us();
                finish("seedsdead", seed, &mut w, t, 120 * S);
            }
            "masscrash" => {
                for h in &hosts[n * 7 / 10..] {
                    w.crash(*h);
                }
                let t = w.now_us();
                finish("masscrash", seed, &mut w, t, 240 * S);
            }
            "leaveloss" => {
                w.leave(mid);
                let t = w.now_us();
                w.run_for(30 * S);
                let bad = w
                    .sightings()
                    .iter()
                    .filter(|s| {
                        s.at_us >= t && s.subject == mid && matches!(s.new, Some(Status::Down | Status::Suspect))
                    })
                    .count();
                println!("leave bad {bad}");
                finish("leave", seed, &mut w, t, 100 * S);
            }
            "leavemany" => {
                for h in &hosts[n / 2..] {
                    w.leave(*h);
                }
                let t = w.now_us();
                w.run_for(S * 60);
                let bad = w
                    .sightings()
                    .iter()
                    .filter(|s| s.at_us >= t && matches!(s.new, Some(Status::Down | Status::Suspect)))
                    .count();
                println!("leave bad {bad}, still alive {}", w.living().count());
                finish("leavemany", seed, &mut w, t, 100 * S);
            }
            "leaveall" => {
                for h in &hosts {
                    w.leave(*h);
                }
                w.run_for(S * 20);
                println!(
                    "still alive {} susp {}",
                    w.living().count(),
                    w.sightings().iter().filter(|s| matches!(s.new, Some(Status::Down | Status::Suspect))).count()
                );
            }
            "rejoinleft" => {
                w.leave(mid);
                w.run_for(5 * S);
                w.restart(mid);
                let t = w.now_us();
                finish("rejoinleft", seed, &mut w, t, 60 * S);
            }
            "restartloss" => {
                let t = w.now_us();
                w.restart(mid);
                finish("restart", seed, &mut w, t, 100 * S);
                w.run_for(60 * S);
                let bad = w
                    .sightings()
                    .iter()
                    .filter(|s| s.at_us >= t && s.subject == mid && matches!(s.new, Some(Status::Down)))
                    .count();
                println!("bad {bad}");
            }
            "behind" => {
                w.set_back(mid, 0, -3_600_000);
                w.restart(mid);
                let t = w.now_us();
                finish("behind", seed, &mut w, t, 60 * S);
            }
            "rolling" => {
                let t = w.now_us();
                for h in &hosts {
                    w.crash(*h);
                    w.run_for(2 * S);
                    w.restart(*h);
                    w.run_for(S);
                }
                finish("rolling", seed, &mut w, t, 600 * S);
                let bad = w.sightings().iter().filter(|s| s.at_us >= t && matches!(s.new, Some(Status::Down))).count();
                println!("down sightings {bad}");
            }
            "flap" => {
                let t = w.now_us();
                for _ in 0..30 {
                    let c = w.cut(&hosts, &[mid]);
                    w.run_for(10 * S);
                    w.heal(c);
                    w.run_for(10 * S);
                }
                finish("flap", seed, &mut w, t, 900 * S);
            }
            x if x.starts_with("loss") => {
                let t = w.now_us();
                w.run_for(300 * S);
                let d = w.sightings().iter().filter(|s| s.new == Some(Status::Down)).count();
                let su = w.sightings().iter().filter(|s| s.new == Some(Status::Suspect)).count();
                println!("{what} downs {d} susp {su}");
                finish("loss", seed, &mut w, t, 600 * S);
            }
            _ => panic!(),
        }
    }
}
