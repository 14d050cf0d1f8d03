//! The `.deb`: what is in it, and what it does to a machine when it is installed, removed and purged.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::dist;
use crate::harness::{GOSSIPCTL, GOSSIPD, Ran, command, skip, wait_for};
use crate::lab::{DROPLET, Lab, is_possible, missing};

/// What it takes to build the package and install it in a lab.
pub(crate) const PROGRAMS: &[&str] =
    &["cargo-deb", "strip", "dpkg", "dpkg-shlibdeps", "systemd-sysusers", "runuser", "ip", "unshare", "nsenter"];
/// Directories that a package changes.
pub(crate) const TOUCHED: &[&str] = &["/etc", "/usr", "/var"];

/// The package with the programs under test, built once.
pub(crate) static PACKAGE: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    // cargo-deb looks for what is built in `release`.
    let release = dir.path().join("release");
    dist::write(&release.join("dist")).unwrap();
    Ran::of(command("sh").args(["-c", "gzip -9n \"$0\"/*.1"]).arg(release.join("dist/man"))).ok();
    for program in [GOSSIPD, GOSSIPCTL] {
        let to = release.join(Path::new(program).file_name().unwrap());
        Ran::of(command("strip").args(["-o", to.to_str().unwrap(), program])).ok();
    }
    let package = dir.path().join("gossipd.deb");
    let mut cargo_deb = command("cargo-deb");
    cargo_deb.args(["deb", "--no-build", "--offline", "--fast", "--quiet", "--output"]).arg(&package);
    cargo_deb.env("CARGO_TARGET_DIR", dir.path()).current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = Ran::of(&mut cargo_deb);
    assert_eq!(built.code, 0, "{built:#?}");
    (dir, package)
});

fn package() -> &'static str {
    PACKAGE.1.to_str().unwrap()
}

#[test]
fn completions_and_manual_pages_are_written() {
    let dir = tempfile::tempdir().unwrap();
    dist::write(dir.path()).unwrap();
    let pages = fs::read_dir(dir.path().join("man")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = pages.collect();
    pages.sort();
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
    for name in ["gossipd.1", "gossipd-run.1", "gossipctl.1", "gossipctl-node-update.1"] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        assert!(text.contains(".SH SYNOPSIS") && !text.contains(".SH EXTRA"), "{}", page.display());
        assert_eq!(text.matches(".nf\n").count(), text.matches(".fi\n").count(), "{}", page.display());
        if missing(&["man"]).is_empty() {
            let shown = Ran::of(command("man").args(["--warnings", "-l"]).arg(page).env("LC_ALL", "C.UTF-8")).ok();
            assert!(shown.contains("SYNOPSIS"), "{shown}");
        }
    }
    for (shell, check, files) in [
        ("bash", "bash", ["bash/gossipctl", "bash/gossipd"]),
        ("zsh", "zsh", ["zsh/_gossipctl", "zsh/_gossipd"]),
        ("fish", "fish", ["fish/gossipctl.fish", "fish/gossipd.fish"]),
    ] {
        for file in files {
            let path = dir.path().join(file);
            assert!(fs::metadata(&path).unwrap().len() > 1_000, "{file}");
            if missing(&[check]).is_empty() {
                Ran::of(command(check).arg("-n").arg(&path)).ok();
            } else {
                skip(&format!("not installed: {check}"));
            }
        }
        // The command prints what the package holds.
        let printed = Ran::of(command(GOSSIPCTL).args(["completions", shell])).ok();
        assert_eq!(printed, fs::read_to_string(dir.path().join(files[0])).unwrap());
    }
    Ran::of(command(GOSSIPCTL).args(["completions", "tcsh"])).refused(2, &["tcsh", "bash, elvish, fish"]);
}

#[test]
fn the_package_is_installed_removed_and_purged() {
    if !is_possible(PROGRAMS) {
        return;
    }
    let lab = Lab::new(TOUCHED, DROPLET);
    let is_there = |path: &str| lab.path(path).exists();
    let dpkg = |option: &str, what: &str| {
        let done = Ran::of(lab.command("dpkg").args(["--force-confold", option, what]));
        assert_eq!(done.code, 0, "{done:#?}");
        done.out + &done.err
    };
    dpkg("--install", package());
    for path in [
        "/usr/bin/gossipctl",
        "/usr/share/bash-completion/completions/gossipctl",
        "/usr/share/gossipd/ufw/setup.sh",
        "/usr/share/gossipd/cloud-init/user-data.yaml",
        "/usr/lib/sysusers.d/gossipd.conf",
        "/etc/ufw/applications.d/gossipd-overlay",
    ] {
        assert!(is_there(path), "{path}");
    }
    // Machines may be told to leave manual pages out.
    let contents = Ran::of(command("dpkg-deb").args(["--contents", package()])).ok();
    assert!(contents.contains(" ./usr/share/man/man1/gossipctl-node-update.1.gz\n"), "{contents}");
    lab.sh("systemd-analyze verify --man=no /lib/systemd/system/gossipd.service").ok();
    let conffiles = lab.sh("dpkg-query --show --showformat='${Conffiles}\n' gossipd").ok();
    for path in ["/etc/gossipd/gossipd.toml", "/etc/ufw/applications.d/gossipd "] {
        assert!(conffiles.contains(path), "{conffiles}");
    }
    // Enabled, though systemd does not run.
    assert!(lab.path("/etc/systemd/system/multi-user.target.wants/gossipd.service").is_symlink());

    runs_without_rights(&lab);

    // The second installation keeps what the operator has changed.
    let config = lab.path("/etc/gossipd/gossipd.toml");
    let changed = fs::read_to_string(&config).unwrap() + "port = 7947\n";
    fs::write(&config, &changed).unwrap();
    dpkg("--install", package());
    assert_eq!(fs::read_to_string(&config).unwrap(), changed);

    dpkg("--remove", "gossipd");
    assert!(!is_there("/usr/bin/gossipd") && !is_there("/usr/share/gossipd"));
    assert!(is_there("/var/lib/gossipd/cluster.json"), "the node can come back as who it was");
    assert_eq!(fs::read_to_string(&config).unwrap(), changed);

    dpkg("--purge", "gossipd");
    for path in ["/var/lib/gossipd", "/etc/gossipd", "/run/gossipd", "/etc/ufw/applications.d/gossipd"] {
        assert!(!is_there(path), "{path}");
    }
    let left = lab.sh("find /etc /usr /var/lib -name '*gossip*' -not -path '*/dpkg/*' -xdev || true").ok();
    let ours = |line: &&str| lab.path(line).exists() && !Path::new(line).exists();
    assert_eq!(left.lines().filter(ours).collect::<Vec<_>>(), Vec::<&str>::new());
}

/// As its own user, without any right of root's, it serves 7946 and a socket for its group.
fn runs_without_rights(lab: &Lab) {
    // What the unit's StateDirectory= and RuntimeDirectory= do.
    lab.sh("install -d -o gossipd -g gossipd -m 700 /var/lib/gossipd").ok();
    lab.sh("install -d -o gossipd -g gossipd -m 755 /run/gossipd").ok();
    lab.sh("setsid runuser -u gossipd -- gossipd run </dev/null >/run/gossipd.log 2>&1 & echo $! >/run/gossipd.pid")
        .ok();
    let ctl = |args: &str| lab.sh(&format!("gossipctl {args}"));
    wait_for("the daemon to answer", || {
        let asked = ctl("version");
        if asked.code == 0 && asked.err.is_empty() {
            return Ok(());
        }
        Err(format!("{asked:?}\n{}", lab.sh("cat /run/gossipd.log").out))
    });
    let socket = fs::metadata(lab.path("/run/gossipd/gossipd.sock")).unwrap();
    assert!(socket.file_type().is_socket());
    let id = |what: &str| -> u32 { lab.sh(&format!("id {what} gossipd")).ok().trim().parse().unwrap() };
    assert_eq!((socket.uid(), socket.gid()), (id("-u"), id("-g")));
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    ctl("init --listen-addr eth1 --advertise-addr eth1").ok();
    assert!(ctl("members").ok().contains("10.130.27.207:7946"));
    lab.sh("kill $(pidof gossipd)").ok();
    wait_for("its end", || match lab.sh("pidof gossipd").code {
        0 => Err("it runs".to_owned()),
        _ => Ok(()),
    });
}

/// `deploy/README.md` shows commands that there are, and the firewall as it is in the end.
#[test]
fn the_walk_through_is_true() {
    let read = |path: &str| fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let text = read("deploy/README.md");
    let mut commands = 0;
    for line in text.lines().filter_map(|line| line.split_once(":~# gossipctl ")).map(|(_, line)| line) {
        let line = line.split(" | ").next().unwrap_or_default();
        let words = std::iter::once("gossipctl").chain(line.split(' '));
        let parsed = gossipd::cli::gossipctl_command().try_get_matches_from(words);
        assert!(parsed.is_ok(), "gossipctl {line}: {}", parsed.unwrap_err());
        commands += 1;
    }
    assert!(commands > 10);
    let status = read("tests/it/snapshots/it__ufw__gossip_is_open_on_the_private_interface_only-3.snap");
    let status = status.splitn(3, "---\n").nth(2).unwrap();
    assert!(text.contains(&format!("ufw status verbose\n{status}```")), "{status}");
}
