//! The package under a real systemd, in a lab: with all of the unit's sandbox the daemon starts, serves its socket to its
//! group, is started again when it hangs, and stops.

use std::fs;

use crate::harness::{Ran, wait_for};
use crate::lab::{DROPLET, Lab, is_possible};
use crate::package::{PACKAGE, PROGRAMS, TOUCHED};

/// Starts systemd as the first process of a process namespace of its own, with nothing wanted but the basics.
const BOOT: &str = "
rm -f /etc/systemd/system/*.wants/* /usr/sbin/policy-rc.d /lib/systemd/system/sysinit.target.wants/*
rm -f /lib/systemd/system/sockets.target.wants/*udev*
ln -sf /dev/null /etc/systemd/system/network-online.target
cat >/run/boot.sh <<'END'
mount -t proc lab /proc
mount -t sysfs lab /sys
mount -t cgroup2 lab /sys/fs/cgroup
mount -t tmpfs -o mode=755 lab /run
exec env container=lab /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=0
END
unshare --mount --pid --ipc --cgroup --fork --kill-child sh /run/boot.sh </dev/null >/var/systemd.log 2>&1 &
echo $! >/run/systemd.pid
";

struct Machine(Lab);

impl Machine {
    fn boot() -> Self {
        let lab = Lab::new(TOUCHED, DROPLET);
        lab.sh(BOOT).ok();
        let machine = Self(lab);
        wait_for("systemd to be up", || {
            let state = machine.sh("systemctl is-system-running");
            match state.out.trim_end() {
                "running" | "degraded" => Ok(()),
                _ => Err(format!("{state:?}\n{}", machine.0.sh("cat /var/systemd.log").out)),
            }
        });
        machine
    }

    fn sh(&self, script: &str) -> Ran {
        let first = "unshare=$(cat /run/systemd.pid); first=$(cat /proc/$unshare/task/$unshare/children)";
        let enter = "exec nsenter --target $first --mount --pid --ipc --cgroup sh -c \"$0\"";
        Ran::of(self.0.command("sh").args(["-c", &format!("{first}; {enter}"), script]))
    }

    fn property(&self, name: &str) -> String {
        self.sh(&format!("systemctl show --property={name} --value gossipd")).ok().trim_end().to_owned()
    }
}

#[test]
fn systemd_starts_it_in_its_sandbox_and_again_when_it_hangs() {
    if !is_possible(&[PROGRAMS, &["systemctl", "setpriv"]].concat()) {
        return;
    }
    let machine = Machine::boot();
    fs::copy(&PACKAGE.1, machine.0.path("/var/gossipd.deb")).unwrap();
    let installed = machine.sh("dpkg --install /var/gossipd.deb");
    assert_eq!(installed.code, 0, "{installed:#?}");
    let log = || machine.sh("journalctl --no-pager --unit gossipd").out;
    // Type=notify: active is what says that it is ready.
    assert_eq!(machine.property("ActiveState"), "active", "{}", log());
    machine.sh("gossipctl init --listen-addr eth1 --advertise-addr eth1").ok();
    let id = machine.sh("gossipctl members -q").ok();
    let memory = machine.sh("gossipctl node inspect --pretty self | grep Memory:").ok();
    assert!(!memory.contains(" 0 "), "{memory}");

    // The socket is for root and for the group.
    let as_nobody = |groups: &str| machine.sh(&format!("setpriv --reuid=nobody {groups} gossipctl members -q"));
    as_nobody("--clear-groups").refused(3, &["Permission denied", "group gossipd"]);
    assert_eq!(as_nobody("--groups=$(getent group gossipd | cut -d: -f3)").ok(), id);

    // A new version is run at once, as the same node.
    let pid = machine.property("MainPID");
    assert_eq!(machine.sh("dpkg --install /var/gossipd.deb").code, 0);
    assert_ne!(machine.property("MainPID"), pid, "{}", log());
    assert_eq!(machine.sh("gossipctl members -q").ok(), id);

    // It hangs.
    machine.sh("mkdir -p /run/systemd/system/gossipd.service.d").ok();
    machine.sh("printf '[Service]\\nWatchdogSec=2s\\n' >/run/systemd/system/gossipd.service.d/watchdog.conf").ok();
    machine.sh("systemctl daemon-reload && systemctl restart gossipd").ok();
    let pid = machine.property("MainPID");
    machine.sh(&format!("kill -STOP {pid}")).ok();
    wait_for("systemd to start it again", || match machine.property("NRestarts").as_str() {
        "0" => Err(log()),
        _ => Ok(()),
    });
    wait_for("the member to be back", || {
        let asked = machine.sh("gossipctl members -q");
        if asked.out == id { Ok(()) } else { Err(format!("{asked:?}\n{}", log())) }
    });
    assert_ne!(machine.property("MainPID"), pid);

    machine.sh("systemctl reload gossipd && systemctl stop gossipd").ok();
    assert_eq!((machine.property("ActiveState"), machine.property("Result")), ("inactive".into(), "success".into()));
    assert!(log().contains("gossipd stops reason=\"SIGTERM\""), "{}", log());
    assert_eq!(machine.sh("dpkg --purge gossipd").code, 0);
    assert_eq!(machine.sh("test ! -e /var/lib/gossipd && test ! -e /usr/bin/gossipd").code, 0);
}
