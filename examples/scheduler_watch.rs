//! A scheduler's side of gossipd: which nodes may take tasks, kept right through restarts of the daemon and of this program's
//! own slowness. Run it beside a daemon: `cargo run --example scheduler_watch [SOCKET]`.

use std::collections::BTreeMap;

use gossipd::api::{DEFAULT_SOCKET, Member};
use gossipd::client::{Client, ClientError, MemberTable, Update, WatchOptions};
use gossipd::record::{Availability, NodeId, Status};

/// Nodes that may take tasks, by id, with their names.
type Places = BTreeMap<NodeId, String>;

/// It answers, and no operator has paused or drained it.
fn may_take_tasks(member: &Member) -> bool {
    member.status == Status::Ready && member.availability == Some(Availability::Active)
}

fn places(table: &MemberTable) -> Places {
    let name = |member: &Member| member.hostname.clone().unwrap_or_else(|| member.id.to_string());
    table.iter().filter(|member| may_take_tasks(member)).map(|member| (member.id, name(member))).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ClientError> {
    let socket = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_SOCKET.to_owned());
    let mut updates = Client::connect(socket).await?.watch(WatchOptions::default());
    let mut table = MemberTable::default();
    let mut before = Places::new();
    while let Some(update) = updates.next().await {
        match &update {
            Ok(update) => table.apply(update),
            // It connects again by itself. Until then the table is old: good enough to go on, not to move tasks away.
            Err(error) => eprintln!("{error}"),
        }
        if let Ok(Update::Resync { reason }) = &update {
            eprintln!("starting over: {reason}");
        }
        let now = places(&table);
        for (id, name) in now.iter().filter(|(id, _)| !before.contains_key(id)) {
            println!("{name} ({id}) may take tasks");
        }
        for (id, name) in before.iter().filter(|(id, _)| !now.contains_key(id)) {
            println!("{name} ({id}) may take none");
        }
        before = now;
    }
    Ok(())
}
