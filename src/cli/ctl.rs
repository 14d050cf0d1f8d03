//! `gossipctl`: what each command asks of the daemon, and what it makes of the answer.
//!
//! Not here: the arguments (`args`) and the texts (`render`).

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};
use serde::Serialize;

use super::args::{
    Cli, Command, CompletionsArgs, InitArgs, InspectArgs, JoinArgs, JoinTokenArgs, LeaveArgs, ListFormat, MembersArgs,
    NodeArgs, NodeCommand, TextFormat, VersionArgs,
};
use super::ca;
use super::doctor;
use super::exit::{Exit, Failure, Outcome};
use super::filter;
use super::networks;
use super::node;
use super::render::{self, Look};
use super::{watch, without_empty_variables};
use crate::api::{InitRequest, JoinRequest, LeaveRequest, Member, NodeOptions, RotateRequest};
use crate::client::{Client, ClientError};

/// Where a join token may come from without being named on the command line.
const TOKEN_VARIABLE: &str = "GOSSIPD_JOIN_TOKEN";
/// Largest token file that is read, in bytes: a token has about a hundred, and this is a wrong file.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;
/// The node that is asked, where a node is to be named.
const SELF: &str = "self";

/// Runs `gossipctl` with the arguments of this process; its exit codes are those of [`Exit`].
pub fn gossipctl() -> ExitCode {
    let command = without_empty_variables(Cli::command());
    match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
            Ok(runtime) => runtime.block_on(run(cli)).finish(),
            Err(error) => Outcome::from(Failure::new(Exit::Failed, format!("cannot start: {error}"))).finish(),
        },
        Err(error) => told_by_clap(&error),
    }
}

/// The command line of `gossipctl`, for manual pages.
pub fn gossipctl_command() -> clap::Command {
    Cli::command()
}

/// Help, version, or wrong usage.
fn told_by_clap(error: &clap::Error) -> ExitCode {
    // Help into a pipe that is closed (`| head`) has been read.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::from(Exit::Ok.code()),
        _ => ExitCode::from(Exit::Usage.code()),
    }
}

async fn run(cli: Cli) -> Outcome {
    let Cli { socket, command } = cli;
    let socket = socket.as_path();
    let done = match command {
        Command::Init(args) => init(socket, args).await,
        Command::Join(args) => join(socket, args).await,
        Command::Leave(args) => leave(socket, &args).await,
        Command::JoinToken(args) => join_token(socket, args).await,
        Command::Ca(args) => ca::ca(socket, args).await,
        Command::Members(args) | Command::Node(NodeCommand::Ls(args)) => members(socket, &args).await,
        Command::Node(NodeCommand::Inspect(args)) => inspect(socket, &args).await,
        Command::Node(NodeCommand::Update(args)) => node::update(socket, args).await,
        Command::Node(NodeCommand::Promote(args)) => node::promote(socket, args).await,
        Command::Node(NodeCommand::Demote(args)) => node::demote(socket, args).await,
        Command::Node(NodeCommand::Rm(args)) => node::rm(socket, args).await,
        Command::Network(command) => networks::network(socket, command).await,
        Command::Endpoint(command) => networks::endpoint(socket, command).await,
        Command::Metadata(args) => node::metadata(socket, args).await,
        Command::Watch(args) => watch::watch(socket, args).await,
        Command::Doctor(args) => doctor::doctor(socket, args).await,
        Command::Version(args) => version(socket, &args).await,
        Command::Completions(args) => Ok(completions(&args)),
    };
    done.unwrap_or_else(Outcome::from)
}

fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gossipctl", &mut script);
    Outcome::data(String::from_utf8_lossy(&script))
}

async fn init(socket: &Path, args: InitArgs) -> Result<Outcome, Failure> {
    let InitArgs { node, cert_expiry } = args;
    let request = InitRequest { node: options(node), cert_expiry };
    let answer = Client::connect(socket).await?.init(&request).await?;
    Ok(Outcome::data(render::initialized(&answer)))
}

async fn join(socket: &Path, args: JoinArgs) -> Result<Outcome, Failure> {
    let JoinArgs { token, token_file, node, remotes } = args;
    let token = match (token, token_file) {
        (Some(token), _) => token,
        (None, Some(path)) => read_token(&path)?,
        (None, None) => token_from_environment(std::env::var_os(TOKEN_VARIABLE))?,
    };
    let request = JoinRequest { token, remotes, node: options(node) };
    let answer = Client::connect(socket).await?.join(&request).await?;
    Ok(Outcome::data(render::joined(&answer)))
}

async fn leave(socket: &Path, args: &LeaveArgs) -> Result<Outcome, Failure> {
    let answer = Client::connect(socket).await?.leave(&LeaveRequest { force: args.force }).await?;
    let mut outcome = Outcome::data("Node left the cluster.\n");
    if !answer.acknowledged {
        outcome.warnings.push("no other node has acknowledged it: they will list this node as down".to_owned());
    }
    Ok(outcome)
}

async fn join_token(socket: &Path, args: JoinTokenArgs) -> Result<Outcome, Failure> {
    let JoinTokenArgs { role, rotate, expires, max_uses, revoke, quiet } = args;
    let client = Client::connect(socket).await?;
    let answer = if rotate || revoke {
        client.rotate_token(role, &RotateRequest { expires, max_uses, revoke }).await?
    } else {
        client.join_token(role).await?
    };
    if let Some(what) = render::useless(&answer, SystemTime::now()).filter(|_| !rotate && !revoke) {
        return Err(Failure::new(Exit::Failed, what));
    }
    let out = match &answer.token {
        _ if revoke => render::revoked(role),
        Some(token) if quiet => format!("{token}\n"),
        Some(token) => render::join_token(&answer, token, rotate),
        None => {
            let what =
                format!("the {role} join token was revoked; 'gossipctl join-token {role} --rotate' makes a new one");
            return Err(Failure::new(Exit::Failed, what));
        }
    };
    let warnings = render::unconfirmed(&answer.unconfirmed).into_iter().collect();
    Ok(Outcome { out, warnings, ..Outcome::default() })
}

async fn members(socket: &Path, args: &MembersArgs) -> Result<Outcome, Failure> {
    let MembersArgs { filters, format, quiet, no_trunc, wide } = args;
    let answer = Client::connect(socket).await?.members(&filter::combine(filters)).await?;
    let out = match format {
        _ if *quiet => render::ids(&answer.members),
        ListFormat::Table => {
            let look = Look { colour: colour_wanted(), full: *no_trunc, wide: *wide };
            render::members_table(&answer.members, look)
        }
        ListFormat::Json => render::json(&answer)?,
        ListFormat::Ndjson => render::ndjson(&answer.members)?,
    };
    Ok(Outcome::data(out))
}

/// Shows the nodes that there are, and tells of each that there is not.
async fn inspect(socket: &Path, args: &InspectArgs) -> Result<Outcome, Failure> {
    let InspectArgs { pretty, nodes } = args;
    let client = Client::connect(socket).await?;
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for node in nodes {
        match one_node(&client, node).await.map_err(Failure::from) {
            Ok(member) => found.push(member),
            Err(failure) if failure.exit == Exit::NoSuchNode => failures.push(failure),
            Err(failure) => return Err(failure),
        }
    }
    let out = match (found.is_empty(), pretty) {
        (true, _) => String::new(),
        (false, true) => render::inspect_pretty(&found),
        (false, false) => render::json(&found)?,
    };
    Ok(Outcome { out, failures, ..Outcome::default() })
}

async fn one_node(client: &Client, node: &str) -> Result<Member, ClientError> {
    if node == SELF {
        let id = client.self_info().await?.id;
        return client.member(&id.to_string()).await;
    }
    client.member(node).await
}

/// Both versions. Without a daemon that is no failure: the client's own is asked for too.
async fn version(socket: &Path, args: &VersionArgs) -> Result<Outcome, Failure> {
    #[derive(Serialize)]
    struct Versions<'a> {
        client: &'a str,
        daemon: Option<&'a str>,
    }

    let (daemon, warnings) = match daemon_version(socket).await {
        Ok(version) => (Some(version), Vec::new()),
        Err(error) => (None, vec![error.to_string()]),
    };
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), daemon: daemon.as_deref() };
    let out = match args.format {
        TextFormat::Json => render::json(&versions)?,
        TextFormat::Text => {
            let daemon = versions.daemon.map_or_else(String::new, |version| format!("gossipd    {version}\n"));
            format!("gossipctl  {}\n{daemon}", versions.client)
        }
    };
    Ok(Outcome { out, warnings, ..Outcome::default() })
}

async fn daemon_version(socket: &Path) -> Result<String, ClientError> {
    Ok(Client::connect(socket).await?.self_info().await?.version)
}

fn options(args: NodeArgs) -> NodeOptions {
    let NodeArgs { advertise_addr, listen_addr, data_path_addr, availability } = args;
    NodeOptions { listen_addr, advertise_addr, data_path_addr, availability }
}

fn token_from_environment(value: Option<OsString>) -> Result<String, Failure> {
    let value = value.and_then(|value| value.into_string().ok()).unwrap_or_default();
    let token = value.trim();
    if token.is_empty() {
        let what = format!("a join token is missing: give it with --token, --token-file or {TOKEN_VARIABLE}");
        return Err(Failure::new(Exit::Usage, what));
    }
    Ok(token.to_owned())
}

/// What is in a file; `-`: on stdin.
pub(super) fn read_file(path: &Path, what: &str, bytes_max: u64) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(bytes_max + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_string(&mut text))
    };
    let failed = |why: String| Failure::new(Exit::Failed, format!("cannot read {what} from {}: {why}", path.display()));
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > bytes_max {
        return Err(failed(format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

/// A duration after a bare `--wait` would be taken for a name, or for the beginning of somebody's id.
pub(super) fn refuse_duration(references: &[String], wait: Option<Duration>) -> Result<(), Failure> {
    match references.first().filter(|first| wait.is_some() && humantime::parse_duration(first).is_ok()) {
        Some(first) => Err(Failure::new(
            Exit::Usage,
            format!("{first:?} is a duration, and would be taken for a name: write --wait={first}"),
        )),
        None => Ok(()),
    }
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = read_file(path, "the join token", TOKEN_FILE_BYTES_MAX)?;
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(token), None) => Ok(token.to_owned()),
        (None, _) => Err(Failure::new(Exit::Failed, format!("there is no join token in {}", path.display()))),
        (Some(_), Some(_)) => {
            Err(Failure::new(Exit::Failed, format!("there is more than one join token in {}", path.display())))
        }
    }
}

/// Colour is for people: on a terminal that can do it, unless NO_COLOR says otherwise (<https://no-color.org>).
fn colour_wanted() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    io::stdout().is_terminal() && !refused && !dumb
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use clap::Parser as _;

    use super::*;
    use crate::api::{JoinToken, Members, PROBLEM_JSON, ProblemKind};
    use crate::client::fake::{Asked, Fake, http};
    use crate::record::Role;

    /// Runs a command line against a fake daemon.
    async fn gossipctl(fake: &Fake, line: &str) -> Outcome {
        let words = std::iter::once("gossipctl").chain(line.split_whitespace()).map(OsString::from);
        let socket = [OsString::from("--socket"), fake.path().into_os_string()];
        run(Cli::try_parse_from(words.chain(socket)).unwrap()).await
    }

    fn token() -> JoinToken {
        JoinToken {
            role: Role::Worker,
            token: Some("GDTKN-1-digest-secret".into()),
            expires_at: None,
            uses_left: None,
            remote: "10.130.27.207:7946".parse().unwrap(),
            unconfirmed: Vec::new(),
        }
    }

    fn answers(value: &impl Serialize) -> Fake {
        Fake::json("200 OK", serde_json::to_string(value).unwrap())
    }

    #[tokio::test]
    async fn init_says_how_to_go_on() {
        let fake = Fake::json(
            "200 OK",
            r#"{"node_id":"asqtfpeef1ur58dijnnykuwuk","cluster_id":"4dczyrb1xk8pvmehncli8y5o7",
                "advertise_addr":"10.130.27.207:7946","worker_token":"GDTKN-1-d-w","manager_token":"GDTKN-1-d-m"}"#,
        );
        insta::assert_snapshot!(gossipctl(&fake, "init --advertise-addr eth1").await.out, @"
        Cluster initialized: current node (asqtfpeef1ur58dijnnykuwuk) is now a manager.

        To add a worker to this cluster, run the following command:

            gossipctl join --token GDTKN-1-d-w 10.130.27.207:7946

        To add a manager to this cluster, run 'gossipctl join-token manager' and follow the instructions.
        ");
    }

    #[tokio::test]
    async fn join_sends_what_was_given_and_names_the_role() {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let log = Arc::clone(&asked);
        let fake = Fake::serve(move |request| {
            log.lock().unwrap().push(request.clone());
            let body = r#"{"node_id":"asqtfpeef1ur58dijnnykuwuk","cluster_id":"4dczyrb1xk8pvmehncli8y5o7",
                           "role":"worker","admitted_by":"10.0.0.1:7946","nodes":3}"#;
            http("200 OK", "application/json", body)
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "GDTKN-1-d-s\n").unwrap();
        let line = format!("join --token-file {} --availability drain h1 h2:7000", file.path().display());
        let outcome = gossipctl(&fake, &line).await;
        assert_eq!(outcome, Outcome::data("This node joined a cluster as a worker.\n"));
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0].line, "POST /v1/cluster/join");
        assert_eq!(
            asked[0].body,
            r#"{"token":"GDTKN-1-d-s","remotes":["h1","h2:7000"],"node":{"availability":"drain"}}"#
        );
    }

    #[test]
    fn a_token_that_is_not_there_is_told() {
        assert_eq!(token_from_environment(None).unwrap_err().exit, Exit::Usage);
        assert_eq!(token_from_environment(Some("".into())).unwrap_err().exit, Exit::Usage);
        assert_eq!(token_from_environment(Some(" T\n".into())).unwrap(), "T");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(read_token(&path).unwrap_err().message.starts_with("cannot read the join token from "));
        std::fs::write(&path, "\n").unwrap();
        assert!(read_token(&path).unwrap_err().message.starts_with("there is no join token in "));
        std::fs::write(&path, "a b").unwrap();
        assert!(read_token(&path).unwrap_err().message.starts_with("there is more than one join token in "));
    }

    #[tokio::test]
    async fn leave_warns_when_nobody_has_heard_it() {
        let heard = gossipctl(&Fake::json("200 OK", r#"{"acknowledged":true}"#), "leave").await;
        assert_eq!(heard, Outcome::data("Node left the cluster.\n"));
        let unheard = gossipctl(&Fake::json("200 OK", r#"{"acknowledged":false}"#), "leave --force").await;
        assert_eq!((unheard.out.as_str(), unheard.exit()), ("Node left the cluster.\n", Exit::Ok));
        assert_eq!(unheard.err(), "Warning: no other node has acknowledged it: they will list this node as down\n");
    }

    #[tokio::test]
    async fn tokens_are_shown_rotated_and_revoked() {
        let plain = answers(&token());
        insta::assert_snapshot!(gossipctl(&plain, "join-token worker").await.out, @"
        To add a worker to this cluster, run the following command:

            gossipctl join --token GDTKN-1-digest-secret 10.130.27.207:7946
        ");
        assert_eq!(gossipctl(&plain, "join-token worker -q").await.out, "GDTKN-1-digest-secret\n");

        let limited = answers(&JoinToken {
            expires_at: Some("9999-03-13T14:11:26Z".into()),
            uses_left: Some(3),
            unconfirmed: vec!["cywjboq8e8pk1buntrulod9fu".parse().unwrap()],
            ..token()
        });
        let outcome = gossipctl(&limited, "join-token worker --rotate --expires 24h --max-uses 3").await;
        insta::assert_snapshot!(outcome.out, @"
        Successfully rotated worker join token.

        To add a worker to this cluster, run the following command:

            gossipctl join --token GDTKN-1-digest-secret 10.130.27.207:7946

        This token is valid until 9999-03-13T14:11:26Z and for 3 more joins.
        ");
        insta::assert_snapshot!(outcome.err(), @"Warning: these managers have not confirmed the change yet and may still accept the old token: cywjboq8e8pk1buntrulod9fu");

        let none = answers(&JoinToken { token: None, ..token() });
        insta::assert_snapshot!(gossipctl(&none, "join-token worker --revoke").await.out, @"Revoked the worker join token. Nobody can join as a worker until 'gossipctl join-token worker --rotate' makes a new one.");
        let refused = gossipctl(&none, "join-token worker -q").await;
        assert_eq!((refused.out.as_str(), refused.exit()), ("", Exit::Failed));
    }

    #[tokio::test]
    async fn a_token_that_lets_nobody_in_is_not_printed() {
        let expired = JoinToken { expires_at: Some("2026-03-13T14:11:26.5Z".into()), ..token() };
        let used_up = JoinToken { uses_left: Some(0), ..token() };
        let said = [
            "Error: the worker join token expired at 2026-03-13T14:11:26.5Z; \
             'gossipctl join-token worker --rotate' makes a new one\n",
            "Error: the worker join token is used up: no more nodes can join with it; \
             'gossipctl join-token worker --rotate' makes a new one\n",
        ];
        for (useless, said) in [expired, used_up].iter().zip(said) {
            for line in ["join-token worker", "join-token -q worker"] {
                let outcome = gossipctl(&answers(useless), line).await;
                assert_eq!((outcome.out.as_str(), outcome.exit()), ("", Exit::Failed), "{line}");
                assert_eq!(outcome.err(), said, "{line}");
            }
        }
        let once = answers(&JoinToken { uses_left: Some(1), ..token() });
        let outcome = gossipctl(&once, "join-token worker").await;
        assert!(outcome.out.contains("\nThis token is valid for 1 more join.\n"), "{outcome:?}");
    }

    #[tokio::test]
    async fn members_come_in_every_format() {
        let members = Members { revision: 7, members: render::tests::members() };
        let fake = answers(&members);
        let table = gossipctl(&fake, "members").await;
        assert_eq!(table, gossipctl(&fake, "node ls").await);
        assert_eq!(table, gossipctl(&fake, "node list").await);
        assert!(table.out.starts_with("ID   "), "{table:?}");
        let wide = gossipctl(&fake, "members --wide").await;
        assert!(wide.out.lines().next().unwrap().ends_with("RTT        LAST HEARD   DEGRADED"), "{wide:?}");
        assert_eq!(gossipctl(&fake, "members -q").await.out.lines().count(), 3);
        assert_eq!(gossipctl(&fake, "members --format ndjson").await.out.lines().count(), 3);
        let json = gossipctl(&fake, "members --format json").await.out;
        assert_eq!(serde_json::from_str::<Members>(&json).unwrap(), members);
    }

    #[tokio::test]
    async fn inspect_shows_who_is_there_and_tells_who_is_not() {
        let fake = Fake::serve(|asked| {
            let members = render::tests::members();
            let own = "GET /v1/members/bj8muio9ov1wkkxg7ts1lqozc";
            match asked.line.as_str() {
                "GET /v1/self" => http(
                    "200 OK",
                    "application/json",
                    r#"{"id":"bj8muio9ov1wkkxg7ts1lqozc","hostname":"swarm1","version":"0.1.0","state":"active","cluster":null}"#,
                ),
                line if line == own => http("200 OK", "application/json", &serde_json::to_string(&members[0]).unwrap()),
                _ => {
                    let problem = ProblemKind::NotFound.problem("no node has the name \"web\"");
                    http("404 Not Found", PROBLEM_JSON, &serde_json::to_string(&problem).unwrap())
                }
            }
        });
        let outcome = gossipctl(&fake, "node inspect self web").await;
        let shown: Vec<Member> = serde_json::from_str(&outcome.out).unwrap();
        assert_eq!(shown, &render::tests::members()[..1]);
        assert_eq!(
            (outcome.err().as_str(), outcome.exit()),
            ("Error: no node has the name \"web\"\n", Exit::NoSuchNode)
        );
        let nobody = gossipctl(&fake, "node inspect --pretty web").await;
        assert_eq!((nobody.out.as_str(), nobody.exit()), ("", Exit::NoSuchNode));
    }

    #[tokio::test]
    async fn versions_are_shown_with_and_without_a_daemon() {
        let info =
            r#"{"id":"bj8muio9ov1wkkxg7ts1lqozc","hostname":"h","version":"9.9.9","state":"inactive","cluster":null}"#;
        let fake = Fake::json("200 OK", info);
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(gossipctl(&fake, "version").await.out, format!("gossipctl  {own}\ngossipd    9.9.9\n"));
        assert_eq!(
            gossipctl(&fake, "version --format json").await.out,
            format!("{{\n  \"client\": \"{own}\",\n  \"daemon\": \"9.9.9\"\n}}\n")
        );
        std::fs::remove_file(fake.path()).unwrap();
        let alone = gossipctl(&fake, "version").await;
        assert_eq!((alone.out, alone.failures.len(), alone.warnings.len()), (format!("gossipctl  {own}\n"), 0, 1));
        let members = gossipctl(&fake, "members").await;
        assert_eq!((members.exit(), members.out.as_str()), (Exit::Unreachable, ""));
    }
}
