//! Rules of the code base, as tests: dependency edges, sizes, documents that must follow the code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines without tests that a file may have.
const FILE_LINES_MAX: usize = 600;
/// Lines that a function may have.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions over the limit, each with its reason. This list may only shrink.
const LONG_FUNCTIONS: &[&str] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(under: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(&root().join(under), &mut out);
    out.sort();
    assert!(!out.is_empty(), "no file below {under}");
    out
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The part of a file before its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// Who may use whom, as in ARCHITECTURE.md. What is not listed is forbidden.
const EDGES: &[(&str, &[&str])] = &[
    ("record", &[]),
    ("wire", &["record"]),
    ("node", &["record", "wire"]),
    ("ca", &["record", "wire"]),
    ("api", &["record"]),
    ("client", &["api", "record"]),
    ("cli", &["agent", "api", "client", "record"]),
    ("session", &["api", "node", "record", "wire"]),
    ("agent", &["api", "ca", "node", "record", "session", "wire"]),
];

#[test]
fn modules_depend_one_way() {
    let modules: Vec<_> = EDGES.iter().map(|(module, _)| *module).collect();
    for (module, allowed) in EDGES {
        let files = match *module {
            "ca" => vec![root().join("src/ca.rs")],
            _ => rust_files(&format!("src/{module}")),
        };
        for file in files.into_iter().filter(|file| !file.ends_with("tests.rs")) {
            for (number, line) in code(&file).lines().enumerate() {
                for other in &modules {
                    let uses = line.contains(&format!("crate::{other}::")) && !line.trim_start().starts_with("//");
                    let fine = other == module || allowed.contains(other);
                    assert!(!uses || fine, "{}:{}: {module} must not use {other}", name(&file), number + 1);
                }
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    for module in ["src/node", "src/wire", "src/session"] {
        let top = read(format!("{module}/mod.rs"));
        assert!(
            top.contains("#![deny(clippy::disallowed_types, clippy::disallowed_methods)]"),
            "{module} must ask for the bans of clippy.toml"
        );
        for file in rust_files(module) {
            let text = code(&file);
            for word in
                ["tokio", "HashMap", "HashSet", "Instant::now", "SystemTime", "std::env", "thread_rng", "rand::rng("]
            {
                let found = text.lines().find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                assert!(found.is_none(), "{}: {word} in {found:?}", name(&file));
            }
        }
    }
    let simulator = read("sim/Cargo.toml");
    assert!(simulator.contains("default-features = false, features = [\"ca\"]"));
}

#[test]
fn every_crate_root_forbids_unsafe_code() {
    for file in ["src/lib.rs", "src/bin/gossipd.rs", "src/bin/gossipctl.rs", "sim/src/lib.rs", "sim/src/main.rs"] {
        assert!(read(file).contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

#[test]
fn files_and_functions_stay_small() {
    let mut long = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("sim/src")) {
        let text = code(&file);
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines; cut it by responsibility", name(&file));
        let mut open: Option<(String, usize, usize)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_function = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
                "async fn ",
                "pub async fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|start| line.trim_start().starts_with(start));
            match &open {
                None if is_function && line.ends_with(['{', '(']) => {
                    open = Some((line.trim().to_owned(), number, indent));
                }
                Some((title, from, depth)) if indent == *depth && line.trim_start() == "}" => {
                    if number - from + 1 > FUNCTION_LINES_MAX {
                        long.push(format!("{}: {title} ({} lines)", name(&file), number - from + 1));
                    }
                    open = None;
                }
                _ => {}
            }
        }
    }
    long.retain(|found| !LONG_FUNCTIONS.iter().any(|known| found.starts_with(known)));
    assert!(long.is_empty(), "over {FUNCTION_LINES_MAX} lines: {long:#?}");
}

#[test]
fn every_module_says_what_it_is() {
    for file in rust_files("src").into_iter().chain(rust_files("sim/src")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} has no header", name(&file));
    }
}

#[test]
fn the_firewall_profile_opens_the_default_port() {
    let profile = read("deploy/ufw/gossipd");
    let port = gossipd::api::DEFAULT_PORT;
    assert!(profile.contains(&format!("ports={port}/tcp|{port}/udp")), "{profile}");
}

#[test]
fn the_unit_has_the_default_paths() {
    let unit = read("deploy/systemd/gossipd.service");
    let line = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(format!("/var/lib/{}", line("StateDirectory=")), gossipd::agent::config::DEFAULT_STATE_DIR);
    assert_eq!(format!("/run/{}/gossipd.sock", line("RuntimeDirectory=")), gossipd::api::DEFAULT_SOCKET);
    // What `gossipd --help` says of exit codes that another start does not change.
    assert_eq!(line("RestartPreventExitStatus="), "2 65 78");
}

#[test]
fn the_readme_lists_every_metric_and_every_configuration_key() {
    let readme = read("README.md");
    for metric in gossipd::agent::metrics::ALL {
        let labels = if metric.labels.is_empty() { "–".to_owned() } else { metric.labels.join(", ") };
        let row = format!("| `{}` | {labels} | {} |", metric.name, metric.meaning);
        assert!(readme.contains(&row), "README.md lacks: {row}");
    }
    for line in read("deploy/gossipd.toml").lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains([' ', '`', '"'])) {
            assert!(readme.contains(&format!("`{key}`")), "README.md does not explain {key}");
        }
    }
}

#[test]
fn documents_are_there_and_speak_of_the_project_only() {
    for file in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "LICENSES.md"] {
        assert!(read(file).len() > 100, "{file}");
    }
    assert!(read("CHANGELOG.md").contains("## Unreleased"));
    // ARCHITECTURE.md is a map, not a book.
    assert!(read("ARCHITECTURE.md").lines().count() <= 200);
}
