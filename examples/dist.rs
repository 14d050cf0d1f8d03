//! Writes what a package holds beside the programs: manual pages and shell completions.
//!
//! ```console
//! $ cargo run --example dist -- target/dist
//! ```
//! puts `man/*.1`, `bash/`, `zsh/` and `fish/` there.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let Some(dir) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: dist DIR"));
    };
    write(&dir)
}

/// Writes all of it below `dir`.
///
/// # Errors
/// The system's.
pub(crate) fn write(dir: &Path) -> io::Result<()> {
    let man = dir.join("man");
    fs::create_dir_all(&man)?;
    for command in [gossipd::cli::gossipd_command(), gossipd::cli::gossipctl_command()] {
        clap_mangen::generate_to(command, &man)?;
    }
    for entry in fs::read_dir(&man)? {
        let path = entry?.path();
        let page = fs::read_to_string(&path)?;
        fs::write(&path, with_sections(&page))?;
    }
    for (shell, folder) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder)?;
        for mut command in [gossipd::cli::gossipd_command(), gossipd::cli::gossipctl_command()] {
            let name = command.get_name().to_owned();
            let path = clap_complete::generate_to(shell, &mut command, &name, &folder)?;
            // bash looks for a file that is called as the command is.
            if shell == Shell::Bash {
                fs::rename(path, folder.join(name))?;
            }
        }
    }
    Ok(())
}

/// Makes sections, laid out as they are, of what help says after the options: `Examples:` and the like.
fn with_sections(page: &str) -> String {
    let mut out = String::new();
    let mut is_extra = false;
    for line in page.lines() {
        if line.starts_with(".SH") {
            if is_extra {
                out += ".fi\n";
            }
            is_extra = line == ".SH EXTRA";
            if is_extra {
                // Closed by the first heading.
                out += ".nf\n";
                continue;
            }
        }
        match line.strip_suffix(':').filter(|heading| is_extra && !heading.starts_with(' ')) {
            Some(heading) => out += &format!(".fi\n.SH {}\n.nf\n", heading.to_uppercase()),
            None => out += &format!("{line}\n"),
        }
    }
    if is_extra {
        out += ".fi\n";
    }
    out
}
