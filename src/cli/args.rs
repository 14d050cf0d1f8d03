//! The arguments of `gossipctl`. Docker's words where Docker has them.
//!
//! Not here: what the commands do (`ctl`).

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::exit::Exit;
use super::filter::{self, Condition};
use super::networks::{EndpointCommand, NetworkCommand};
use super::node;
use crate::api::DEFAULT_SOCKET;
use crate::api::watch::Topic;
use crate::record::{Availability, Role, Status};

const INIT_EXAMPLES: &str = "\
Examples:
  Make a cluster that uses the private network only:
    gossipctl init --advertise-addr eth1 --listen-addr eth1

  Certificates that live for 30 days:
    gossipctl init --cert-expiry 720h";

const JOIN_EXAMPLES: &str = "\
Examples:
  With the command that 'gossipctl join-token worker' prints on a manager:
    gossipctl join --token GDTKN-1-... 10.130.27.207:7946

  Without the token in the process list, with a second member to try:
    gossipctl join --token-file /run/secrets/token swarm1 swarm2
    ssh manager gossipctl join-token -q worker | gossipctl join --token-file - manager";

const MEMBERS_EXAMPLES: &str = "\
Examples:
  Nodes that may have failed:
    gossipctl members --filter status=suspect --filter status=down

  Managers that take tasks, for a script:
    gossipctl members -q --filter role=manager --filter availability=active

  Nodes that are slow to answer, or that something is wrong with:
    gossipctl members --wide

  Addresses of all nodes that answer:
    gossipctl members --filter status=ready --format ndjson | jq -r .address";

const UPDATE_EXAMPLES: &str = "\
Examples:
  Empty a node for an update of its kernel, and wait until every node knows:
    gossipctl node update --availability drain --reason 'kernel update' --deadline 10m --wait swarm2

  Let it take tasks again:
    gossipctl node update --availability active swarm2

  Say where nodes are:
    gossipctl node update --label-add zone=fra1 --label-rm old swarm2 swarm3";

const METADATA_EXAMPLES: &str = "\
Examples:
  Say what the scheduler on this node can take, and since when:
    gossipctl metadata slots=12 scheduler=1.4.2

  Take a word back:
    gossipctl metadata --rm scheduler";

const RM_EXAMPLES: &str = "\
Examples:
  A node that is gone for good:
    gossipctl node rm swarm3

  A machine that is not to be trusted any more, though it answers:
    gossipctl node rm --force --reason 'compromised' swarm3";

const WATCH_EXAMPLES: &str = "\
Examples:
  Follow what happens:
    gossipctl watch

  Nodes that fail or come back, for a program:
    gossipctl watch --filter status=down --format ndjson | jq -c 'select(.type == \"change\")'

  A command for each change, which finds it in GOSSIPD_* variables and as JSON on its standard input:
    gossipctl watch --exec 'logger \"$GOSSIPD_NODE_NAME: $GOSSIPD_OLD_STATUS -> $GOSSIPD_NEW_STATUS\"'

  Go on where an earlier one ended:
    gossipctl watch --since 1882194870272017";

const DOCTOR_EXAMPLES: &str = "\
Findings:
  unreachable                       nothing comes back from the node, over UDP nor TCP
  udp-blocked-out, udp-blocked-in   datagrams to it, or from it, do not arrive
  tcp-blocked-out, tcp-blocked-in   connections to it, or from it, fail
  mtu-small                         the largest datagrams are lost on the way
  clock-offset                      its clock is more than 10 s off (a problem above 5 min)
  version-skew, key-skew            other versions, other datagram keys
  degraded                          this node is not well itself
  firewall                          ufw of this machine keeps others out (seen by root only)

Exit codes: 0 nothing found, 10 warnings, 11 problems; others as of all commands.

Examples:
  After the firewall was changed:
    sudo gossipctl doctor

  What is wrong with one node, for a program:
    gossipctl doctor swarm2 --format json | jq -r '.findings[].code'";

const CA_EXAMPLES: &str = "\
Examples:
  After a manager was demoted whose machine is not to be trusted:
    gossipctl node demote swarm3
    gossipctl ca --rotate --reason 'swarm3 was lost' --wait 2m

  How far a change is:
    gossipctl ca --format json | jq .change";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  For one user of bash (the package does it for all):
    gossipctl completions bash > ~/.local/share/bash-completion/completions/gossipctl";

/// Controls the gossipd daemon of this node: its cluster, the nodes in it, and who may join
#[derive(Debug, Parser)]
#[command(name = "gossipctl", version, max_term_width = 100, after_help = Exit::help())]
#[command(disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Cli {
    /// Socket of the daemon
    #[arg(long, global = true, value_name = "PATH", env = "GOSSIPD_SOCKET", hide_env_values = true)]
    #[arg(default_value = DEFAULT_SOCKET, help_heading = "Global options")]
    pub(super) socket: PathBuf,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a new cluster with this node as its first manager
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitArgs),
    /// Join a cluster
    #[command(after_help = JOIN_EXAMPLES)]
    Join(JoinArgs),
    /// Leave the cluster
    Leave(LeaveArgs),
    /// Show, replace or revoke the token that lets nodes join
    JoinToken(JoinTokenArgs),
    /// Show the cluster's certificate authority, or put a new one in its place
    #[command(after_help = CA_EXAMPLES)]
    Ca(CaArgs),
    /// List the nodes of the cluster
    #[command(after_help = MEMBERS_EXAMPLES)]
    Members(MembersArgs),
    /// Look at nodes, and decide about them
    #[command(subcommand, disable_help_subcommand = true)]
    Node(NodeCommand),
    /// Look at overlay networks, and attach this node to them
    #[command(subcommand, disable_help_subcommand = true)]
    Network(NetworkCommand),
    /// Look at endpoints, and write this node's
    #[command(subcommand, disable_help_subcommand = true)]
    Endpoint(EndpointCommand),
    /// Attach metadata to this node, for all nodes to see
    #[command(after_help = METADATA_EXAMPLES)]
    Metadata(MetadataArgs),
    /// Follow what happens in the cluster, until interrupted
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// Examine how this node reaches the others and is reached, and say what is wrong
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Show the versions of this program and of the daemon
    Version(VersionArgs),
    /// Print what makes a shell complete these commands
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
}

/// The commands below `node`.
#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// List the nodes of the cluster, as 'members' does
    #[command(visible_alias = "list", after_help = MEMBERS_EXAMPLES)]
    Ls(MembersArgs),
    /// Show all that is known of one or more nodes
    Inspect(InspectArgs),
    /// Decide about nodes: availability, role, labels
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(UpdateArgs),
    /// Make nodes managers
    Promote(NodesArgs),
    /// Make managers workers
    Demote(NodesArgs),
    /// Remove nodes from the cluster, for ever
    #[command(visible_alias = "remove", after_help = RM_EXAMPLES)]
    Rm(RmArgs),
}

/// What `init` and `join` say of this node.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Address or interface that the other nodes reach this one at (format: <IP|INTERFACE>[:PORT])
    #[arg(long, value_name = "ADDR", value_parser = NonEmptyStringValueParser::new())]
    pub(super) advertise_addr: Option<String>,

    /// Address or interface to listen at (format: <IP|INTERFACE>[:PORT])
    #[arg(long, value_name = "ADDR", value_parser = NonEmptyStringValueParser::new())]
    pub(super) listen_addr: Option<String>,

    /// Address or interface for overlay traffic (format: <IP|INTERFACE>)
    #[arg(long, value_name = "ADDR", value_parser = NonEmptyStringValueParser::new())]
    pub(super) data_path_addr: Option<String>,

    /// Availability that this node starts with [default: active]
    #[arg(long, value_name = "AVAILABILITY", value_parser = availability())]
    pub(super) availability: Option<Availability>,
}

/// `init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,

    /// Validity of the certificates that the cluster gives its nodes [default: 2160h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) cert_expiry: Option<String>,
}

/// `join`.
#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// Join token. Better in the variable GOSSIPD_JOIN_TOKEN or in a file: everybody on this machine can read the
    /// process list
    // The environment is read by `ctl`: here, it would be in conflict with `--token-file`.
    #[arg(long, value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
    pub(super) token: Option<String>,

    /// File that holds the join token, - for standard input
    #[arg(long, value_name = "PATH", conflicts_with = "token")]
    pub(super) token_file: Option<PathBuf>,

    #[command(flatten)]
    pub(super) node: NodeArgs,

    /// Members of the cluster to ask, in this order
    #[arg(required = true, value_name = "HOST[:PORT]", value_parser = NonEmptyStringValueParser::new())]
    pub(super) remotes: Vec<String>,
}

/// `leave`.
#[derive(Debug, Args)]
pub(super) struct LeaveArgs {
    /// Leave although this node is the last manager: without it nobody can join the cluster any more
    #[arg(short, long)]
    pub(super) force: bool,
}

/// `join-token`.
#[derive(Debug, Args)]
pub(super) struct JoinTokenArgs {
    /// Role that the token gives
    #[arg(value_parser = role())]
    pub(super) role: Role,

    /// Replace the token; the old one is not valid any more
    #[arg(long)]
    pub(super) rotate: bool,

    /// How long the new token is valid, such as 24h [default: no end]
    #[arg(long, value_name = "DURATION", requires = "rotate", value_parser = duration)]
    pub(super) expires: Option<String>,

    /// How many nodes may join with the new token [default: no limit]
    #[arg(long, value_name = "N", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_uses: Option<u32>,

    /// Make the token invalid without a new one: nobody joins with this role until it is rotated
    #[arg(long, conflicts_with_all = ["rotate", "expires", "max_uses", "quiet"])]
    pub(super) revoke: bool,

    /// Only print the token
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// `ca`.
#[derive(Debug, Args)]
pub(super) struct CaArgs {
    /// Make a new CA. All nodes get certificates of it and join tokens change; then the old one is not trusted any more.
    /// A node that is down holds that up until it is back or removed
    #[arg(long)]
    pub(super) rotate: bool,

    /// Begin again with another new CA, though a change is under way
    #[arg(long, requires = "rotate")]
    pub(super) restart: bool,

    /// Why, for others to read
    #[arg(long, value_name = "TEXT", requires = "rotate")]
    pub(super) reason: Option<String>,

    /// Wait until the change under way is over, for that long at most, such as 2m
    #[arg(long, value_name = "DURATION", value_parser = node::wait)]
    pub(super) wait: Option<Duration>,

    /// How to print it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = CaFormat::Pem)]
    pub(super) format: CaFormat,
}

/// How `ca` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CaFormat {
    /// The certificate
    Pem,
    /// The certificate, its digest, and how far a change is
    Json,
}

/// `members` and `node ls`.
#[derive(Debug, Args)]
pub(super) struct MembersArgs {
    /// Only nodes that fit: status, role, availability, or the beginning of name or id. The same key again means
    /// either, different keys mean both
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter::condition)]
    pub(super) filters: Vec<Condition>,

    /// How to print them
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ListFormat::Table)]
    pub(super) format: ListFormat,

    /// Only print ids
    #[arg(short, long, conflicts_with = "format")]
    pub(super) quiet: bool,

    /// Print long names in full
    #[arg(long)]
    pub(super) no_trunc: bool,

    /// More columns: round trip, when it was last heard, and what is wrong with it
    #[arg(long, conflicts_with = "quiet")]
    pub(super) wide: bool,
}

/// `node inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Print it for people, not as JSON
    #[arg(long)]
    pub(super) pretty: bool,

    /// Id, beginning of an id, host name, or self
    #[arg(required = true, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub(super) nodes: Vec<String>,
}

/// Why something is decided, and how long to wait for it.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why; shown with the decision
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,

    /// Until when it is to be carried out, for the scheduler: a duration from now, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = NonEmptyStringValueParser::new())]
    pub(super) deadline: Option<String>,

    /// Return when all nodes that answer have the decision, at most after this time
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_parser = node::wait)]
    pub(super) wait: Option<Duration>,
}

/// `node update`.
#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Whether it takes tasks: active; keeps what it has and takes no more: pause; must be emptied: drain
    #[arg(long, value_name = "AVAILABILITY", value_parser = availability())]
    pub(super) availability: Option<Availability>,

    /// What it may do
    #[arg(long, value_name = "ROLE", value_parser = role())]
    pub(super) role: Option<Role>,

    /// Set a label; can be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = node::label)]
    pub(super) label_add: Vec<(String, String)>,

    /// Take a label away; can be given several times
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub(super) label_rm: Vec<String>,

    #[command(flatten)]
    pub(super) why: Why,

    /// Id, beginning of an id, host name, or self
    #[arg(required = true, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub(super) nodes: Vec<String>,
}

/// `node promote` and `node demote`.
#[derive(Debug, Args)]
pub(super) struct NodesArgs {
    #[command(flatten)]
    pub(super) why: Why,

    /// Id, beginning of an id, host name, or self
    #[arg(required = true, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub(super) nodes: Vec<String>,
}

/// `metadata`.
#[derive(Debug, Args)]
pub(super) struct MetadataArgs {
    /// Take an entry away; can be given several times
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub(super) rm: Vec<String>,

    /// Entries to set; without any, those that there are are shown
    #[arg(value_name = "KEY=VALUE", value_parser = node::entry)]
    pub(super) entries: Vec<(String, String)>,
}

/// `node rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Also a node that answers
    #[arg(short, long)]
    pub(super) force: bool,

    /// Why; shown to the node that is removed
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,

    /// Return when all nodes that answer have the decision, at most after this time
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_parser = node::wait)]
    pub(super) wait: Option<Duration>,

    /// Id, beginning of an id, or host name
    #[arg(required = true, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub(super) nodes: Vec<String>,
}

/// `watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// What to follow [default: all]
    #[arg(long, value_name = "TOPIC", value_delimiter = ',', value_parser = topic())]
    pub(super) topics: Vec<Topic>,

    /// How to print it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = StreamFormat::Text)]
    pub(super) format: StreamFormat,

    /// Begin after this revision, with what was missed, and not with the nodes that there are
    #[arg(long, value_name = "REVISION")]
    pub(super) since: Option<u64>,

    /// Only nodes with this status, before or after a change. Again, or with commas: either
    #[arg(short, long = "filter", value_name = "status=VALUE", value_parser = filter::watch_condition)]
    // A condition may name several: flattened by who reads it.
    pub(super) filters: Vec<Vec<Status>>,

    /// Only nodes with this label, before or after a change. Again: all of them
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = NonEmptyStringValueParser::new())]
    pub(super) labels: Vec<String>,

    /// Only attachments, endpoints and conflicts of this network, by id or name. Again: either
    #[arg(long = "network", value_name = "NETWORK", value_parser = NonEmptyStringValueParser::new())]
    pub(super) networks: Vec<String>,

    /// Run this shell command once for each change, one at a time and in order. It gets the change as JSON on its
    /// standard input, and GOSSIPD_REVISION, GOSSIPD_TOPIC, GOSSIPD_CAUSE, GOSSIPD_TIME, GOSSIPD_NODE_ID,
    /// GOSSIPD_NODE_NAME, GOSSIPD_NODE_ADDRESS, GOSSIPD_OLD_STATUS, GOSSIPD_NEW_STATUS and GOSSIPD_SOCKET. While it is
    /// slow up to 256 changes wait; those beyond are told and passed over
    #[arg(long, value_name = "COMMAND", value_parser = NonEmptyStringValueParser::new())]
    pub(super) exec: Option<String>,
}

/// `doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// How to print it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = TableFormat::Table)]
    pub(super) format: TableFormat,

    /// How long each node may take, from 1s to 60s [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = node::wait)]
    pub(super) timeout: Option<Duration>,

    /// Id, beginning of an id, or host name; all nodes that have not left if none is given
    #[arg(value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub(super) nodes: Vec<String>,
}

/// How something is printed of which there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TableFormat {
    /// For people
    Table,
    /// The API's answer
    Json,
}

/// `version`.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// How to print them
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = TextFormat::Text)]
    pub(super) format: TextFormat,
}

/// `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: Shell,
}

/// Formats of listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    /// Columns, for people
    Table,
    /// The API's answer: one document
    Json,
    /// One document for each node, a line each
    Ndjson,
}

/// Formats of `watch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StreamFormat {
    /// A line for each change, for people
    Text,
    /// The API's lines as they are
    Ndjson,
}

/// Formats of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TextFormat {
    /// For people
    Text,
    /// One document
    Json,
}

fn availability() -> impl TypedValueParser<Value = Availability> {
    PossibleValuesParser::new(Availability::ALL.iter().map(|value| value.word())).try_map(|word| word.parse())
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.iter().map(|value| value.word())).try_map(|word| word.parse())
}

fn topic() -> impl TypedValueParser<Value = Topic> {
    PossibleValuesParser::new(Topic::ALL.iter().map(|value| value.word())).try_map(|word| word.parse())
}

/// Checks a duration and hands it on as it was written, as the API takes it.
fn duration(text: &str) -> Result<String, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("it must not be zero".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error} (a duration is written like 24h, 90m or 30days)")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn help(path: &[&str]) -> String {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut at = &mut command;
        for name in path {
            at = at.find_subcommand_mut(name).unwrap();
        }
        // clap pads the blank lines before `[default: …]`.
        at.render_long_help().to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_the_top_level() {
        insta::assert_snapshot!(help(&[]), @"
        Controls the gossipd daemon of this node: its cluster, the nodes in it, and who may join

        Usage: gossipctl [OPTIONS] <COMMAND>

        Commands:
          init         Make a new cluster with this node as its first manager
          join         Join a cluster
          leave        Leave the cluster
          join-token   Show, replace or revoke the token that lets nodes join
          ca           Show the cluster's certificate authority, or put a new one in its place
          members      List the nodes of the cluster
          node         Look at nodes, and decide about them
          network      Look at overlay networks, and attach this node to them
          endpoint     Look at endpoints, and write this node's
          metadata     Attach metadata to this node, for all nodes to see
          watch        Follow what happens in the cluster, until interrupted
          doctor       Examine how this node reaches the others and is reached, and say what is wrong
          version      Show the versions of this program and of the daemon
          completions  Print what makes a shell complete these commands

        Options:
          -h, --help
                  Print help

          -V, --version
                  Print version

        Global options:
              --socket <PATH>
                  Socket of the daemon

                  [env: GOSSIPD_SOCKET]
                  [default: /run/gossipd/gossipd.sock]

        Exit codes:
           0  done
           1  refused or failed
           2  wrong usage, nothing was done
           3  the daemon cannot be reached or does not answer
           4  no such node, or an ambiguous name
          10  doctor: warnings
          11  doctor: problems
        ");
    }

    #[test]
    fn help_of_members() {
        insta::assert_snapshot!(help(&["members"]), @"
        List the nodes of the cluster

        Usage: gossipctl members [OPTIONS]

        Options:
          -f, --filter <KEY=VALUE>
                  Only nodes that fit: status, role, availability, or the beginning of name or id. The same
                  key again means either, different keys mean both

              --format <FORMAT>
                  How to print them

                  Possible values:
                  - table:  Columns, for people
                  - json:   The API's answer: one document
                  - ndjson: One document for each node, a line each

                  [default: table]

          -q, --quiet
                  Only print ids

              --no-trunc
                  Print long names in full

              --wide
                  More columns: round trip, when it was last heard, and what is wrong with it

          -h, --help
                  Print help (see a summary with '-h')

        Global options:
              --socket <PATH>
                  Socket of the daemon

                  [env: GOSSIPD_SOCKET]
                  [default: /run/gossipd/gossipd.sock]

        Examples:
          Nodes that may have failed:
            gossipctl members --filter status=suspect --filter status=down

          Managers that take tasks, for a script:
            gossipctl members -q --filter role=manager --filter availability=active

          Nodes that are slow to answer, or that something is wrong with:
            gossipctl members --wide

          Addresses of all nodes that answer:
            gossipctl members --filter status=ready --format ndjson | jq -r .address
        ");
    }

    #[test]
    fn help_of_watch() {
        insta::assert_snapshot!(help(&["watch"]), @r#"
        Follow what happens in the cluster, until interrupted

        Usage: gossipctl watch [OPTIONS]

        Options:
              --topics <TOPIC>
                  What to follow [default: all]

                  [possible values: members, decisions, networks, endpoints, conflicts]

              --format <FORMAT>
                  How to print it

                  Possible values:
                  - text:   A line for each change, for people
                  - ndjson: The API's lines as they are

                  [default: text]

              --since <REVISION>
                  Begin after this revision, with what was missed, and not with the nodes that there are

          -f, --filter <status=VALUE>
                  Only nodes with this status, before or after a change. Again, or with commas: either

              --label <KEY[=VALUE]>
                  Only nodes with this label, before or after a change. Again: all of them

              --network <NETWORK>
                  Only attachments, endpoints and conflicts of this network, by id or name. Again: either

              --exec <COMMAND>
                  Run this shell command once for each change, one at a time and in order. It gets the
                  change as JSON on its standard input, and GOSSIPD_REVISION, GOSSIPD_TOPIC, GOSSIPD_CAUSE,
                  GOSSIPD_TIME, GOSSIPD_NODE_ID, GOSSIPD_NODE_NAME, GOSSIPD_NODE_ADDRESS,
                  GOSSIPD_OLD_STATUS, GOSSIPD_NEW_STATUS and GOSSIPD_SOCKET. While it is slow up to 256
                  changes wait; those beyond are told and passed over

          -h, --help
                  Print help (see a summary with '-h')

        Global options:
              --socket <PATH>
                  Socket of the daemon

                  [env: GOSSIPD_SOCKET]
                  [default: /run/gossipd/gossipd.sock]

        Examples:
          Follow what happens:
            gossipctl watch

          Nodes that fail or come back, for a program:
            gossipctl watch --filter status=down --format ndjson | jq -c 'select(.type == "change")'

          A command for each change, which finds it in GOSSIPD_* variables and as JSON on its standard
          input:
            gossipctl watch --exec 'logger "$GOSSIPD_NODE_NAME: $GOSSIPD_OLD_STATUS -> $GOSSIPD_NEW_STATUS"'

          Go on where an earlier one ended:
            gossipctl watch --since 1882194870272017
        "#);
    }

    #[test]
    fn help_of_join() {
        insta::assert_snapshot!(help(&["join"]), @"
        Join a cluster

        Usage: gossipctl join [OPTIONS] <HOST[:PORT]>...

        Arguments:
          <HOST[:PORT]>...
                  Members of the cluster to ask, in this order

        Options:
              --token <TOKEN>
                  Join token. Better in the variable GOSSIPD_JOIN_TOKEN or in a file: everybody on this
                  machine can read the process list

              --token-file <PATH>
                  File that holds the join token, - for standard input

              --advertise-addr <ADDR>
                  Address or interface that the other nodes reach this one at (format:
                  <IP|INTERFACE>[:PORT])

              --listen-addr <ADDR>
                  Address or interface to listen at (format: <IP|INTERFACE>[:PORT])

              --data-path-addr <ADDR>
                  Address or interface for overlay traffic (format: <IP|INTERFACE>)

              --availability <AVAILABILITY>
                  Availability that this node starts with [default: active]

                  [possible values: active, pause, drain]

          -h, --help
                  Print help

        Global options:
              --socket <PATH>
                  Socket of the daemon

                  [env: GOSSIPD_SOCKET]
                  [default: /run/gossipd/gossipd.sock]

        Examples:
          With the command that 'gossipctl join-token worker' prints on a manager:
            gossipctl join --token GDTKN-1-... 10.130.27.207:7946

          Without the token in the process list, with a second member to try:
            gossipctl join --token-file /run/secrets/token swarm1 swarm2
            ssh manager gossipctl join-token -q worker | gossipctl join --token-file - manager
        ");
    }

    #[test]
    fn wrong_usage_is_refused_before_anything_is_done() {
        let cases: &[(&str, ErrorKind)] = &[
            ("members --filter label=x", ErrorKind::ValueValidation),
            ("members --filter status=dead", ErrorKind::ValueValidation),
            ("members --format yaml", ErrorKind::InvalidValue),
            ("members -q --format json", ErrorKind::ArgumentConflict),
            ("members -q --wide", ErrorKind::ArgumentConflict),
            ("init --availability away", ErrorKind::InvalidValue),
            ("init --cert-expiry soon", ErrorKind::ValueValidation),
            ("init --cert-expiry 0s", ErrorKind::ValueValidation),
            ("join --token T", ErrorKind::MissingRequiredArgument),
            ("join --token T --token-file F h", ErrorKind::ArgumentConflict),
            ("join-token", ErrorKind::MissingRequiredArgument),
            ("join-token boss", ErrorKind::InvalidValue),
            ("join-token worker --expires 1h", ErrorKind::MissingRequiredArgument),
            ("join-token worker --rotate --max-uses 0", ErrorKind::ValueValidation),
            ("join-token worker --rotate --revoke", ErrorKind::ArgumentConflict),
            ("join-token worker --revoke --max-uses 3", ErrorKind::ArgumentConflict),
            ("join-token worker --revoke --expires 1h", ErrorKind::ArgumentConflict),
            ("join-token worker --revoke --quiet", ErrorKind::ArgumentConflict),
            ("watch --topics weather", ErrorKind::InvalidValue),
            ("watch --since yesterday", ErrorKind::ValueValidation),
            ("watch --filter role=worker", ErrorKind::ValueValidation),
            ("watch --format table", ErrorKind::InvalidValue),
            ("node inspect", ErrorKind::MissingRequiredArgument),
            ("swarm init", ErrorKind::InvalidSubcommand),
        ];
        for (line, expected) in cases {
            let words = std::iter::once("gossipctl").chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (*expected, i32::from(Exit::Usage.code())), "{line}");
        }
    }

    #[test]
    fn dockers_durations_are_durations() {
        for good in ["2160h", "2160h0m0s", "24h", "90days"] {
            assert_eq!(duration(good).as_deref(), Ok(good));
        }
    }
}
