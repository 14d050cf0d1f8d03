//! How a command ends: its exit code, and the one place where it writes.
//!
//! A command collects what it has to say in an [`Outcome`], which is written once, under one lock: data to stdout,
//! warnings and errors to stderr. Only what goes on until it is interrupted writes by itself.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::api::{Problem, ProblemKind};
use crate::client::ClientError;

/// The exit codes of `gossipctl`, as `--help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. Also when the reader of the output has gone.
    Ok = 0,
    /// The daemon or the cluster refused, or something failed.
    Failed = 1,
    /// The command line cannot be understood; nothing was asked of the daemon.
    Usage = 2,
    /// The daemon is not there, may not be asked by this user, or does not answer in time.
    Unreachable = 3,
    /// No node has that id or name, or several have.
    NoSuchNode = 4,
    /// `doctor` has found something to look at.
    Warnings = 10,
    /// `doctor` has found something that does not work.
    Problems = 11,
}

impl Exit {
    const ALL: [Self; 7] =
        [Self::Ok, Self::Failed, Self::Usage, Self::Unreachable, Self::NoSuchNode, Self::Warnings, Self::Problems];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "refused or failed",
            Self::Usage => "wrong usage, nothing was done",
            Self::Unreachable => "the daemon cannot be reached or does not answer",
            Self::NoSuchNode => "no such node, or an ambiguous name",
            Self::Warnings => "doctor: warnings",
            Self::Problems => "doctor: problems",
        }
    }

    /// The list of all codes for `--help`.
    pub(super) fn help() -> String {
        let lines = Self::ALL.map(|exit| format!("  {:2}  {}", exit.code(), exit.meaning()));
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

/// What went wrong with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
    /// What may have been meant, a line each.
    pub(super) candidates: Vec<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), candidates: Vec::new() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => problem.into(),
            ClientError::Connect { .. } | ClientError::Timeout { .. } => {
                Self::new(Exit::Unreachable, error.to_string())
            }
            ClientError::Protocol(_) => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.known_kind() {
            Some(ProblemKind::NotFound | ProblemKind::Ambiguous) => Exit::NoSuchNode,
            _ => Exit::Failed,
        };
        Self { exit, message: problem.detail, candidates: problem.candidates }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Exit::Failed, format!("cannot write JSON: {error}"))
    }
}

/// All that a command has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Data, for stdout.
    pub(super) out: String,
    /// What should be known although the command did its work, for stderr.
    pub(super) warnings: Vec<String>,
    /// What went wrong, for stderr; a command on several nodes may have both data and failures.
    pub(super) failures: Vec<Failure>,
    /// What was found, where the command is to say so by its exit code.
    pub(super) verdict: Option<Exit>,
}

impl Outcome {
    pub(super) fn data(out: impl Into<String>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }

    /// The exit code: that of the first failure, else the verdict.
    pub(super) fn exit(&self) -> Exit {
        self.failures.first().map(|failure| failure.exit).or(self.verdict).unwrap_or(Exit::Ok)
    }

    /// What goes to stderr.
    pub(super) fn err(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            text.push_str(&format!("Warning: {}\n", printable(warning)));
        }
        for Failure { exit: _, message, candidates } in &self.failures {
            text.push_str(&format!("Error: {}\n", printable(message)));
            for candidate in candidates {
                text.push_str(&format!("    {}\n", printable(candidate)));
            }
        }
        text
    }

    /// Writes all of it and gives the exit code.
    pub(super) fn finish(&self) -> ExitCode {
        let mut exit = self.exit();
        // A reader that has gone (`| head`) has got what it wanted.
        if let Err(error) = write_all(io::stdout().lock(), &self.out)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let lost = Self {
                failures: vec![Failure::new(Exit::Failed, format!("cannot write to stdout: {error}"))],
                ..Self::default()
            };
            exit = lost.exit();
            let _ = write_all(io::stderr().lock(), &lost.err());
        }
        // Where should a failure to write to stderr be told? The exit code stands.
        let _ = write_all(io::stderr().lock(), &self.err());
        ExitCode::from(exit.code())
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self { failures: vec![failure], ..Self::default() }
    }
}

fn write_all(mut to: impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// Tells at once, on stderr, what should be known: for commands that go on.
pub(super) fn warn(text: &str) {
    // Where should a failure to write to stderr be told?
    let _ = writeln!(io::stderr().lock(), "Warning: {}", printable(text));
}

/// Text that a terminal only shows: control characters, which could move its cursor, are escaped.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_error_has_its_exit_code() {
        let problem = |kind: ProblemKind| Failure::from(ClientError::Problem(kind.problem("x"))).exit;
        for kind in ProblemKind::ALL {
            let expected = match kind {
                ProblemKind::NotFound | ProblemKind::Ambiguous => Exit::NoSuchNode,
                _ => Exit::Failed,
            };
            assert_eq!(problem(kind), expected, "{kind:?}");
        }
        let path = PathBuf::from("/x");
        let connect =
            ClientError::Connect { path: path.clone(), error: io::ErrorKind::NotFound.into(), hint: "h".into() };
        assert_eq!(Failure::from(connect).exit, Exit::Unreachable);
        assert_eq!(Failure::from(ClientError::Timeout { path, after: Duration::ZERO }).exit, Exit::Unreachable);
        assert_eq!(Failure::from(ClientError::Protocol("x".into())).exit, Exit::Failed);
    }

    #[test]
    fn errors_are_told_once_with_their_candidates() {
        let problem = ProblemKind::Ambiguous
            .problem("\"web\" fits 2 nodes")
            .with_candidates(vec!["id1 web1".into(), "id2 \u{1b}[31mweb2".into()]);
        let outcome = Outcome::from(Failure::from(problem));
        insta::assert_snapshot!(outcome.err(), @r#"
        Error: "web" fits 2 nodes
            id1 web1
            id2 \u{1b}[31mweb2
        "#);
        assert_eq!(outcome.exit(), Exit::NoSuchNode);
    }
}
