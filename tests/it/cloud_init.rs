//! `deploy/cloud-init`: the user data is valid, and what it runs makes a droplet a node, or says why not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use gossipd::record::Status;

use crate::harness::{Node, Ran, command, skip, wait_for};
use crate::lab::{DROPLET, Lab, is_possible, missing};
use crate::package::{PACKAGE, PROGRAMS, TOUCHED};

const USER_DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/cloud-init/user-data.yaml");
/// Enough of systemctl: the daemon as its own user, in directories of its own.
const SYSTEMCTL: &str = "#!/bin/sh
[ \"$*\" = 'restart gossipd' ] || exit 1
install -d -o gossipd -g gossipd -m 700 /var/lib/gossipd
install -d -o gossipd -g gossipd -m 755 /run/gossipd
setsid runuser -u gossipd -- gossipd run </dev/null >/run/gossipd.log 2>&1 &
";

/// The files that the user data writes: path and content.
fn files() -> Vec<(String, String)> {
    let text = fs::read_to_string(USER_DATA).unwrap();
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.lines().take_while(|line| !line.starts_with("runcmd:")) {
        if let Some(path) = line.strip_prefix("  - path: ") {
            files.push((path.to_owned(), String::new()));
        } else if let Some((_, content)) = files.last_mut() {
            match line.strip_prefix("      ") {
                Some(line) => *content += &format!("{line}\n"),
                None if line.is_empty() => *content += "\n",
                None => {}
            }
        }
    }
    files
}

#[test]
fn the_user_data_is_valid() {
    let missing = missing(&["cloud-init", "shellcheck"]);
    if !missing.is_empty() {
        return skip(&format!("not installed: {}", missing.join(", ")));
    }
    let said = Ran::of(command("cloud-init").args(["schema", "--config-file", USER_DATA]));
    assert_eq!(said.code, 0, "{said:#?}");
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.sh");
    let files = files();
    assert_eq!(
        files.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["/root/gossipd.env", "/usr/local/sbin/gossipd-droplet"]
    );
    fs::write(&script, &files[1].1).unwrap();
    Ran::of(command("shellcheck").arg(&script)).ok();
    let text = fs::read_to_string(USER_DATA).unwrap();
    assert!(text.ends_with("  - [/usr/local/sbin/gossipd-droplet, /root/gossipd.env]\n"));
}

/// A new droplet on which the user data's files were written; variables of the first one, and what is run.
struct Droplet {
    lab: Lab,
    env: PathBuf,
}

impl Droplet {
    fn new() -> Self {
        let lab = Lab::new(&[TOUCHED, &["/root"]].concat(), DROPLET);
        for (path, content) in files() {
            fs::write(lab.path(&path), content).unwrap();
        }
        lab.sh("chmod 755 /usr/local/sbin/gossipd-droplet; rm -f /etc/ufw/gossipd.state; ufw --force reset").ok();
        let systemctl = lab.path("/usr/local/bin/systemctl");
        fs::write(&systemctl, SYSTEMCTL).unwrap();
        fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).unwrap();
        let env = lab.path("/root/gossipd.env");
        Self { lab, env }
    }

    /// As an operator fills it in.
    fn set(&self, variable: &str, value: &str) {
        let text = fs::read_to_string(&self.env).unwrap();
        let is_it = |line: &&str| line.split('=').next() == Some(variable);
        assert_eq!(text.lines().filter(is_it).count(), 1, "{variable} is in the file");
        let line = |old: &str| if is_it(&old) { format!("{variable}=\"{value}\"\n") } else { format!("{old}\n") };
        fs::write(&self.env, text.lines().map(line).collect::<String>()).unwrap();
    }

    fn run(&self) -> Ran {
        Ran::of(self.lab.command("/usr/local/sbin/gossipd-droplet").arg("/root/gossipd.env"))
    }
}

#[test]
fn a_droplet_is_a_node_after_its_first_boot() {
    let programs: Vec<_> = PROGRAMS.iter().copied().chain(["ufw", "apt-get"]).collect();
    if !is_possible(&programs) {
        return;
    }
    let droplet = Droplet::new();
    let lab = &droplet.lab;
    // Another node of the cluster, on the private network.
    let entry = lab.entry();
    let words: Vec<_> = entry.iter().map(String::as_str).chain(["ip", "netns", "exec", "private"]).collect();
    let mut manager = Node::new("swarm1").at("10.130.27.1".parse().unwrap()).on_port(7946).wrapped_in(&words);
    manager.start();
    manager.init();
    let token = manager.token("worker");

    // Nothing is done before all is there to do it with.
    let refused = |text: &str| {
        droplet.run().refused(1, &[text]);
        let untouched = !lab.path("/usr/bin/gossipd").exists() && !lab.path("/etc/ufw/gossipd.state").exists();
        assert!(untouched, "{text}");
    };
    refused("no member to join through: set GOSSIPD_SEEDS");
    droplet.set("GOSSIPD_SEEDS", "10.130.27.9 10.130.27.1:7946");
    refused("no join token: set GOSSIPD_JOIN_TOKEN or GOSSIPD_JOIN_TOKEN_FILE");
    droplet.set("GOSSIPD_JOIN_TOKEN_FILE", "/root/no-such-file");
    refused("cannot read the join token from /root/no-such-file");
    droplet.set("GOSSIPD_JOIN_TOKEN_FILE", "");
    droplet.set("GOSSIPD_JOIN_TOKEN", "SWMTKN-1-49x7");
    refused("the join token does not begin with GDTKN-");
    droplet.set("GOSSIPD_JOIN_TOKEN", &token);
    refused("gossipd is not installed, and GOSSIPD_PACKAGE does not say where the package is");
    droplet.set("GOSSIPD_PACKAGE", PACKAGE.1.to_str().unwrap());
    droplet.set("GOSSIPD_INTERFACE", "eth7");
    refused("there is no interface eth7 on this machine");
    droplet.set("GOSSIPD_INTERFACE", "eth1");

    droplet.set("GOSSIPD_UFW_OPTIONS", "--overlay --close-docker-tcp");
    let ran = droplet.run();
    assert_eq!(ran.code, 0, "{ran:#?}\n{}", lab.sh("cat /run/gossipd.log").out);
    assert!(ran.out.contains("gossipd-droplet: this node is in a cluster:"), "{ran:#?}");
    wait_for("the manager to list the droplet", || {
        let members = manager.members()?;
        let is_it = members.iter().any(|m| m.address.to_string() == "10.130.27.207:7946" && m.status == Status::Ready);
        if is_it { Ok(()) } else { Err(crate::harness::shown(&members)) }
    });
    let status = lab.sh("ufw status").ok();
    assert!(status.contains("gossipd on eth1") && status.contains("gossipd-overlay on eth1"), "{status}");
    // The token has done its work.
    assert!(!lab.path("/etc/gossipd/join-token").exists());
    assert!(!fs::read_to_string(&droplet.env).unwrap().contains(&token));
    assert_eq!(droplet.run().ok(), "gossipd-droplet: this node is in a cluster already\n");
}

#[test]
fn the_first_droplet_founds_the_cluster() {
    let programs: Vec<_> = PROGRAMS.iter().copied().chain(["ufw", "apt-get"]).collect();
    if !is_possible(&programs) {
        return;
    }
    let droplet = Droplet::new();
    droplet.set("GOSSIPD_FOUND", "yes");
    droplet.set("GOSSIPD_SEEDS", "10.130.27.1");
    droplet.run().refused(1, &["GOSSIPD_FOUND=yes makes a new cluster"]);
    droplet.set("GOSSIPD_SEEDS", "");
    droplet.set("GOSSIPD_PACKAGE", PACKAGE.1.to_str().unwrap());
    let ran = droplet.run();
    assert_eq!(ran.code, 0, "{ran:#?}");
    let token = droplet.lab.sh("gossipctl join-token -q worker").ok();
    assert!(token.starts_with("GDTKN-1-"), "{token}");
}
