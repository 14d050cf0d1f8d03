//! Networks and endpoints on real daemons: written on one node, seen on all that are attached, and gone when they should be.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use gossipd::api::watch::Topic;
use gossipd::api::{
    AttachRequest, Endpoint, EndpointFilter, EndpointSpec, Endpoints, EndpointsRequest, LeaseRequest, ReplaceRequest,
    Service,
};
use gossipd::client::{Client, EndpointTurn, NetworkTable, Subscription, Update, WatchOptions};
use gossipd::record::Status;
use gossipd::record::network::EndpointState;

use crate::harness::{Node, all_ready, at_fixed_port, cluster, form, wait_for};

fn endpoints(node: &Node) -> Result<Vec<Endpoint>, String> {
    let answer = node.get("/v1/endpoints");
    let listed: Endpoints = serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {answer:?}"))?;
    Ok(listed.endpoints)
}

/// Waits until these nodes list exactly these endpoints, by task.
#[track_caller]
fn list_tasks(nodes: &[&Node], tasks: &[&str]) {
    for node in nodes {
        wait_for(&format!("{} to list {tasks:?}", node.name), || {
            let mut listed: Vec<_> = endpoints(node)?.into_iter().filter_map(|one| one.task).collect();
            listed.sort();
            if listed == tasks { Ok(()) } else { Err(format!("{listed:?}")) }
        });
    }
}

fn set(node: &Node, task: &str, address: &str) -> String {
    let arguments = ["endpoint", "set", "--network", "web", "--service", "shop", "--vip", "10.0.9.2", "--task", task];
    let more = ["--address", address, "--publish", "8080:80"];
    node.ctl(&[&arguments[..], &more].concat()).ok().trim_end().to_owned()
}

fn attach(nodes: &[&Node]) {
    for node in nodes {
        node.ctl(&["network", "attach", "web"]).ok();
    }
}

fn spec(task: &str, address: &str) -> EndpointSpec {
    EndpointSpec { task: Some(task.to_owned()), addresses: vec![address.to_owned()], ..EndpointSpec::default() }
}

#[test]
fn an_endpoint_is_known_where_its_network_is_and_nowhere_else() {
    let nodes = cluster(&["one", "two", "three"]);
    let [one, two, three] = nodes.as_slice() else { panic!("three nodes") };
    attach(&[one, two]);
    let id = set(one, "shop.1", "10.0.9.5/24");
    assert_eq!(set(one, "shop.1", "10.0.9.5/24"), id, "the same task is the same endpoint");
    set(two, "shop.2", "10.0.9.6/24");
    list_tasks(&[one, two], &["shop.1", "shop.2"]);
    // All nodes know who is attached; the endpoints only those that are.
    wait_for("three to know the network", || {
        let said = three.ctl(&["network", "ls"]);
        if said.out.contains("web    no         2       -") { Ok(()) } else { Err(said.out) }
    });
    assert!(endpoints(three).unwrap().is_empty());
    three.ctl(&["endpoint", "ls", "--network", "web"]).refused(1, &["is not attached to network"]);
    three.ctl(&["endpoint", "ls", "--network", "nets"]).refused(4, &["no node is attached to network \"nets\""]);
    // Filters.
    let listed = |filter: &[&str]| two.ctl(&[&["endpoint", "ls", "-q"], filter].concat()).ok();
    assert_eq!(
        listed(&["--node", "one", "--service", "shop", "--port", "8080/tcp", "--state", "enabled"]),
        format!("{id}\n")
    );
    assert_eq!(listed(&["--node", "three"]), "");
    assert_eq!(listed(&["--port", "8081"]), "");
    // A newcomer gets all at once, and a node that goes takes its own along.
    attach(&[three]);
    list_tasks(&[three], &["shop.1", "shop.2"]);
    one.ctl(&["network", "detach", "--wait", "web"]).ok();
    list_tasks(&[two, three], &["shop.2"]);
    assert!(endpoints(one).unwrap().is_empty());
    two.ctl(&["leave"]).ok();
    list_tasks(&[three], &[]);
}

#[test]
fn whoever_disables_knows_who_has_heard() {
    let mut nodes = cluster(&["one", "two", "three"]);
    attach(&nodes.iter().collect::<Vec<_>>());
    let id = set(&nodes[0], "shop.1", "10.0.9.5/24");
    list_tasks(&nodes.iter().collect::<Vec<_>>(), &["shop.1"]);
    assert_eq!(nodes[0].ctl(&["endpoint", "disable", "--wait", "shop.1"]).ok(), "shop.1\n");
    for node in &nodes {
        // All have confirmed: nothing is waited for.
        assert_eq!(endpoints(node).unwrap()[0].state, EndpointState::Disabled, "{}", node.name);
    }
    nodes[1].ctl(&["endpoint", "enable", &id]).refused(1, &["is on one", "only that node changes it"]);
    // A node that is stopped cannot have heard, and is named.
    let (second, third) = (nodes[1].id(), nodes[2].id());
    nodes[2].signal(nix::sys::signal::Signal::SIGSTOP);
    // The second time there is nothing to write, and the answer is the same.
    for _ in 0..2 {
        let said = nodes[0].ctl(&["endpoint", "enable", "--wait=1s", "shop.1"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(&third) && said.err.contains("have not confirmed it yet"), "{said:?}");
        assert!(!said.err.contains(&second), "it has confirmed: {said:?}");
        let flags = ["--network", "web", "--task", "shop.9", "--address", "10.0.9.9/24", "--wait=1s"];
        let said = nodes[0].ctl(&[&["endpoint", "set"], &flags[..]].concat());
        assert!(said.code == 1 && said.err.contains(&third) && !said.err.contains(&second), "{said:?}");
    }
    let seen = nodes[0].get("/v1/networks/web/seen?wait=500ms").json();
    assert_eq!((&seen["confirmed"], &seen["unconfirmed"]), (&serde_json::json!([second]), &serde_json::json!([third])));
    nodes[0].ctl(&["endpoint", "rm", "shop.9"]).ok();
    nodes[2].signal(nix::sys::signal::Signal::SIGCONT);
    wait_for("three to hear of it after all", || match endpoints(&nodes[2])?.as_slice() {
        [one] if one.state == EndpointState::Enabled => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let seen = nodes[2].get("/v1/networks/web/seen?node=one").json();
    assert_eq!((seen["confirmed"].as_array().unwrap().len(), seen["unconfirmed"].as_array().unwrap().len()), (3, 0));
    nodes[0].ctl(&["endpoint", "rm", "--wait", "shop.1"]).ok();
    list_tasks(&nodes.iter().collect::<Vec<_>>(), &[]);
    nodes[2].kill();
}

#[test]
fn endpoints_survive_their_daemon_and_are_marked_while_it_is_down() {
    let mut nodes: Vec<Node> = ["one", "two"].map(Node::new).into_iter().map(at_fixed_port).collect();
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    attach(&nodes.iter().collect::<Vec<_>>());
    set(&nodes[0], "shop.1", "10.0.9.5/24");
    list_tasks(&nodes.iter().collect::<Vec<_>>(), &["shop.1"]);
    let before = endpoints(&nodes[1]).unwrap();
    nodes[0].kill();
    wait_for("the mark", || match endpoints(&nodes[1])?.as_slice() {
        [one] if one.owner_down_since.is_some() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    nodes[0].start();
    wait_for("it to be as it was", || {
        let listed = endpoints(&nodes[1])?;
        if listed == before { Ok(()) } else { Err(format!("{listed:?}")) }
    });
    assert_eq!(endpoints(&nodes[0]).unwrap(), before);
    // Also when all of them end at once.
    nodes.iter_mut().for_each(Node::kill);
    nodes.iter_mut().for_each(Node::start);
    list_tasks(&nodes.iter().collect::<Vec<_>>(), &["shop.1"]);
}

/// A machine that lost its disk: it joins as another node, and what the one that it was had written goes.
#[test]
fn what_a_wiped_machine_had_written_goes_when_it_is_back_at_its_address() {
    let mut nodes: Vec<Node> = ["one", "two", "three"].map(Node::new).into_iter().map(at_fixed_port).collect();
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    attach(&nodes.iter().collect::<Vec<_>>());
    let set = ["endpoint", "set", "--network", "web", "--task", "shop.1", "--address", "10.0.9.5/24"];
    nodes[2].ctl(&set).ok();
    list_tasks(&[&nodes[0], &nodes[1]], &["shop.1"]);
    let old = nodes[2].id();
    nodes[2].kill();
    std::fs::remove_dir_all(nodes[2].state_dir()).unwrap();
    nodes[2].start();
    nodes[2].join(&nodes[0], "worker");
    for node in &nodes[..2] {
        wait_for("the old life to be forgotten", || match node.member(&old) {
            Ok(member) => Err(format!("{member:?}")),
            Err(_) => Ok(()),
        });
        list_tasks(&[node], &[]);
    }
    all_ready(&nodes.iter().collect::<Vec<_>>());
}

#[test]
fn what_is_refused_changes_nothing() {
    let nodes = cluster(&["one"]);
    let one = &nodes[0];
    let refused = |body: &str, text: &str| {
        let answer = one.post("/v1/networks/web/endpoints", body);
        assert!(answer.status >= 400 && answer.body.contains(text), "{body}: {answer:?}");
    };
    refused(r#"{"set":[]}"#, "no node is attached to network");
    attach(&[one]);
    refused(r#"{"set":[{"task":"a","addresses":["10.0.9.5"]}]}"#, "is not an address with its prefix length");
    refused(r#"{"set":[{"task":"a","addresses":[]}]}"#, "without address");
    refused(r#"{"set":[{"task":"a b","addresses":["10.0.9.5/24"]}]}"#, "task \\\"a b\\\" is refused");
    refused(r#"{"set":[{"task":"a","colour":1,"addresses":["10.0.9.5/24"]}]}"#, "unknown field `colour`");
    let twice = r#"{"set":[{"task":"a","addresses":["10.0.9.5/24"]},{"task":"a","addresses":["10.0.9.6/24"]}]}"#;
    refused(twice, "is given twice");
    let good_and_bad = r#"{"set":[{"task":"a","addresses":["10.0.9.5/24"]},{"task":"b","addresses":["127.0.0.1/8"]}]}"#;
    refused(good_and_bad, "not loopback");
    assert!(endpoints(one).unwrap().is_empty());
    let large = "x".repeat(32_000);
    let labels = format!(r#"{{"a":"{large}","b":"{large}"}}"#);
    refused(&format!(r#"{{"set":[{{"task":"a","addresses":["10.0.9.5/24"],"labels":{labels}}}]}}"#), "at most 61440");
    assert!(endpoints(one).unwrap().is_empty());
    one.ctl(&["network", "attach", "we b"]).refused(1, &["\"we b\" is refused"]);
    one.ctl(&["endpoint", "set", "--network", "web", "--address", "10.0.9.5/24", "--publish", "0:80"])
        .refused(2, &["is not a port"]);
    one.ctl(&["endpoint", "disable", "nothing"]).refused(4, &["there is no endpoint \"nothing\""]);
}

async fn client(node: &Node) -> Client {
    Client::connect(node.socket()).await.unwrap()
}

/// Takes updates in until the table is as wanted.
async fn follow(
    updates: &mut Subscription,
    table: &mut NetworkTable,
    what: &str,
    is_so: impl Fn(&NetworkTable) -> bool,
) {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_so(table) {
        let update = tokio::time::timeout_at(until, updates.next()).await;
        let update = update.unwrap_or_else(|_| panic!("not seen: {what}: {table:#?}")).unwrap().unwrap();
        check_old(table, &update);
        table.apply(&update);
    }
}

/// What a change says was before is what was told last.
fn check_old(table: &NetworkTable, update: &Update) {
    use gossipd::api::watch::Values;
    let Update::Change(change) = update else { return };
    if let Values::Endpoints { old, new } = &change.what {
        let one = new.as_ref().or(old.as_ref()).unwrap();
        let told = table.endpoints().find(|told| (told.network, told.node, told.id) == (one.network, one.node, one.id));
        assert_eq!(told, old.as_deref(), "{change:?}");
    }
    if let Values::Networks { old, new } = &change.what {
        let one = new.as_ref().or(old.as_ref()).unwrap();
        assert_eq!(table.attachment(one.network, one.node), old.as_deref(), "{change:?}");
    }
}

fn options() -> WatchOptions {
    let topics = vec![Topic::Networks, Topic::Endpoints, Topic::Conflicts];
    WatchOptions { topics, networks: vec!["web".to_owned()], ..WatchOptions::default() }
}

#[tokio::test]
async fn the_stream_tells_each_change_once_and_the_same_as_the_listing() {
    let mut nodes = cluster(&["one", "two"]);
    let two = client(&nodes[1]).await;
    // Before there is such a network.
    let (mut updates, mut table) = (two.watch(options()), NetworkTable::default());
    let one = client(&nodes[0]).await;
    one.attach("web", &AttachRequest::default(), None).await.unwrap();
    one.attach("other", &AttachRequest::default(), None).await.unwrap();
    follow(&mut updates, &mut table, "the attachment", |table| table.attachments().count() == 1).await;
    two.attach("web", &AttachRequest::default(), None).await.unwrap();
    let set = vec![spec("a", "10.0.9.5/24"), spec("b", "10.0.9.6/24")];
    let written = one.set_endpoints("web", &EndpointsRequest { set, ..Default::default() }, None).await.unwrap();
    assert!(written.seen.version.is_some());
    follow(&mut updates, &mut table, "both endpoints", |table| table.endpoints().count() == 2).await;
    // The same again is no change; all of it replaced is one step.
    let again = vec![spec("a", "10.0.9.5/24")];
    let same = one.set_endpoints("web", &EndpointsRequest { set: again, ..Default::default() }, None).await.unwrap();
    assert_eq!(same.seen.version, None);
    let endpoints = vec![spec("b", "10.0.9.7/24"), spec("c", "10.0.9.8/24")];
    let all = ReplaceRequest { endpoints, wait: None };
    let replaced = one.replace_endpoints("web", &all, Some(Duration::from_secs(20))).await.unwrap();
    assert_eq!(replaced.seen.unconfirmed, []);
    let seq = |version: &Option<String>| version.as_ref().unwrap().split_once('.').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(seq(&replaced.seen.version), seq(&written.seen.version) + 1);
    follow(&mut updates, &mut table, "the replacement", |table| {
        let tasks: Vec<_> = table.endpoints().filter_map(|one| one.task.as_deref()).collect();
        tasks.len() == 2 && tasks.contains(&"c") && table.endpoints().any(|one| one.addresses == ["10.0.9.7/24"])
    })
    .await;
    // An address that both claim.
    let set = vec![spec("d", "10.0.9.8/24")];
    two.set_endpoints("web", &EndpointsRequest { set, ..Default::default() }, None).await.unwrap();
    follow(&mut updates, &mut table, "the conflict", |table| table.conflicts().count() == 1).await;
    let holder = table.conflicts().next().unwrap().endpoints[0];
    wait_for("both to name the same holder", || {
        let network = nodes[0].get("/v1/networks/web").json();
        let first = &network["conflicts"][0]["endpoints"][0]["node"];
        if first == &serde_json::json!(holder.node.to_string()) { Ok(()) } else { Err(network.to_string()) }
    });
    two.turn_endpoint("d", None, EndpointTurn::Remove, None).await.unwrap();
    follow(&mut updates, &mut table, "its end", |table| table.conflicts().count() == 0).await;
    // The owner goes down, and what was told stays, marked.
    nodes[0].kill();
    follow(&mut updates, &mut table, "the mark", |table| table.endpoints().all(|one| one.owner_down_since.is_some()))
        .await;
    let listed =
        two.endpoints(&EndpointFilter { network: Some("web".to_owned()), ..Default::default() }).await.unwrap();
    let by_id = |all: Vec<Endpoint>| all.into_iter().map(|one| (one.id, one)).collect::<BTreeMap<_, _>>();
    assert_eq!(by_id(listed.endpoints), by_id(table.endpoints().cloned().collect()));
}

#[tokio::test]
async fn leased_endpoints_go_with_their_program() {
    let mut nodes: Vec<Node> = ["one", "two"].map(Node::new).into_iter().map(at_fixed_port).collect();
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    attach(&nodes.iter().collect::<Vec<_>>());
    let request = |task: &str, grace: &str| LeaseRequest {
        network: "web".to_owned(),
        endpoints: vec![spec(task, "10.0.9.5/24")],
        grace: Some(grace.to_owned()),
    };
    let one = client(&nodes[0]).await;
    let lease = one.lease(&request("a", "200ms")).await.unwrap();
    assert_eq!(lease.endpoints().len(), 1);
    list_tasks(&[&nodes[1]], &["a"]);
    drop(lease);
    list_tasks(&[&nodes[0], &nodes[1]], &[]);
    // A program that is started again within the grace finds its endpoint, and the old connection's end is none of its.
    let first = one.lease(&request("a", "1s")).await.unwrap();
    let mut again = one.lease(&request("a", "1s")).await.unwrap();
    drop(first);
    tokio::time::sleep(Duration::from_secs(2)).await;
    list_tasks(&[&nodes[1]], &["a"]);
    // Written without a lease, it is there to stay.
    set(&nodes[0], "a", "10.0.9.5/24");
    again.lost().await.unwrap();
    drop(again);
    // A daemon that ends takes no endpoint along, and its next life looks after what was leased.
    let lease = one.lease(&request("b", "500ms")).await.unwrap();
    list_tasks(&[&nodes[1]], &["a", "b"]);
    nodes[0].kill();
    drop(lease);
    nodes[0].start();
    list_tasks(&[&nodes[0], &nodes[1]], &["a"]);
}

/// R16.
#[tokio::test]
async fn a_thousand_endpoints_written_at_once_reach_five_nodes() {
    let nodes = cluster(&["a", "b", "c", "d", "e"]);
    let all: Vec<&Node> = nodes.iter().collect();
    all_ready(&all);
    attach(&all);
    let service = Service { id: None, name: "shop".to_owned(), vip_v4: Some([10, 0, 0, 2].into()), vip_v6: None };
    let endpoint = |n: usize| EndpointSpec {
        service: Some(service.clone()),
        ..spec(&format!("shop.{n}"), &format!("10.0.{}.{}/16", 1 + n / 250, 1 + n % 250))
    };
    let request = EndpointsRequest { set: (0..1_000).map(endpoint).collect(), ..Default::default() };
    let began = Instant::now();
    let first = client(&nodes[0]).await;
    let written = first.set_endpoints("web", &request, Some(Duration::from_secs(30))).await.unwrap();
    println!("1,000 endpoints on five nodes, confirmed: {:?}", began.elapsed());
    assert_eq!((written.endpoints.len(), written.seen.confirmed.len()), (1_000, 4));
    for node in &nodes {
        assert_eq!(endpoints(node).unwrap().len(), 1_000, "{}", node.name);
        assert!(node.members().unwrap().iter().all(|member| member.status == Status::Ready));
    }
}

#[tokio::test]
async fn what_is_refused_leaves_endpoints_and_leases_as_they_were() {
    let nodes = cluster(&["one"]);
    attach(&[&nodes[0]]);
    set(&nodes[0], "durable", "10.0.9.5/24");
    let client = client(&nodes[0]).await;
    let request = |task: &str, address: &str| LeaseRequest {
        network: "web".to_owned(),
        endpoints: vec![spec(task, address)],
        grace: Some("0s".to_owned()),
    };
    // A lease that breaks a limit takes nothing over, and its end takes nothing away.
    assert!(client.lease(&request("durable", "127.0.0.1/8")).await.is_err());
    let lease = client.lease(&request("leased", "10.0.9.6/24")).await.unwrap();
    assert!(client.lease(&request("leased", "127.0.0.1/8")).await.is_err());
    // Nor does a write that is refused untie what it names, or anything else.
    for body in [
        r#"{"set":[{"task":"leased","addresses":["127.0.0.1/8"]}]}"#,
        r#"{"set":[{"task":"leased","ports":[{"published":8080,"target":0}]}]}"#,
    ] {
        assert_eq!(nodes[0].post("/v1/networks/web/endpoints", body).status, 400);
    }
    list_tasks(&[&nodes[0]], &["durable", "leased"]);
    drop(lease);
    list_tasks(&[&nodes[0]], &["durable"]);
}

#[tokio::test]
async fn whoever_takes_a_lease_over_as_it_ends_keeps_it() {
    let nodes = cluster(&["one"]);
    attach(&[&nodes[0]]);
    let client = client(&nodes[0]).await;
    let request = LeaseRequest {
        network: "web".to_owned(),
        endpoints: vec![spec("shop.1", "10.0.9.5/24")],
        grace: Some("0s".to_owned()),
    };
    for pause_us in (0..6_000).step_by(300) {
        drop(client.lease(&request).await.unwrap());
        tokio::time::sleep(Duration::from_micros(pause_us)).await;
        let lease = client.lease(&request).await.unwrap();
        // Whatever the end of the first one did has been done before this write.
        nodes[0].ctl(&["endpoint", "set", "--network", "web", "--task", "other", "--address", "10.0.9.6/24"]).ok();
        list_tasks(&[&nodes[0]], &["other", "shop.1"]);
        drop(lease);
        list_tasks(&[&nodes[0]], &["other"]);
        nodes[0].ctl(&["endpoint", "rm", "other"]).ok();
    }
}

#[test]
fn turning_an_endpoint_changes_nothing_else_of_it() {
    let nodes = cluster(&["one"]);
    attach(&[&nodes[0]]);
    let one = &nodes[0];
    let write = |label: usize| {
        let body = format!(r#"{{"set":[{{"task":"shop.1","addresses":["10.0.9.5/24"],"labels":{{"v":"{label}"}}}}]}}"#);
        assert_eq!(one.post("/v1/networks/web/endpoints", &body).status, 200);
    };
    let id = {
        write(0);
        endpoints(one).unwrap()[0].id.to_string()
    };
    for round in 1..=30 {
        std::thread::scope(|scope| {
            scope.spawn(|| write(round));
            scope.spawn(|| one.post(&format!("/v1/endpoints/{id}/disable"), "").status);
        });
        assert_eq!(endpoints(one).unwrap()[0].labels["v"], round.to_string(), "a write was undone");
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(one.post(&format!("/v1/endpoints/{id}/remove"), "").status, 200));
            scope.spawn(|| one.post(&format!("/v1/endpoints/{id}/enable"), "").status);
        });
        assert!(endpoints(one).unwrap().is_empty(), "what was removed is back");
        write(round);
    }
}

#[test]
fn a_task_in_two_networks_is_named_with_its_network() {
    let nodes = cluster(&["one", "two"]);
    let [one, two] = nodes.as_slice() else { panic!("two nodes") };
    for network in ["web", "back"] {
        one.ctl(&["network", "attach", network]).ok();
        let flags = ["--network", network, "--task", "shop.1", "--address", "10.0.9.5/24"];
        one.ctl(&[&["endpoint", "set"], &flags[..]].concat()).ok();
    }
    attach(&[two]);
    two.ctl(&["endpoint", "set", "--network", "web", "--task", "shop.1", "--address", "10.0.9.6/24"]).ok();
    wait_for("two's endpoint", || match endpoints(one)?.len() {
        3 => Ok(()),
        other => Err(other.to_string()),
    });
    // What may be meant is named with all that tells one from the other; others' endpoints are not for this node to change.
    let said = one.ctl(&["endpoint", "disable", "shop.1"]).refused(4, &["fits 2 endpoints", "name the network"]);
    assert!(["in web (", "in back (", " on one, enabled"].iter().all(|part| said.contains(part)), "{said}");
    let said = one.ctl(&["endpoint", "inspect", "--network", "web", "shop.1"]).refused(4, &["fits 2 endpoints"]);
    assert!(said.contains(" on one, ") && said.contains(" on two, "), "{said}");
    one.ctl(&["endpoint", "disable", "--network", "web", "shop.1"]).ok();
    let states: BTreeMap<_, _> = endpoints(one).unwrap().into_iter().map(|e| ((e.network, e.node), e.state)).collect();
    assert_eq!(states.values().filter(|state| **state == EndpointState::Disabled).count(), 1, "{states:?}");
    two.ctl(&["endpoint", "rm", "--network", "back", "shop.1"])
        .refused(4, &["not attached to network back", "network attach back"]);
    one.ctl(&["endpoint", "rm", "--network", "nosuch", "shop.1"]).refused(4, &["\"nosuch\""]);
    // What is to be removed in one network and is in another was not meant.
    let back = endpoints(one)
        .unwrap()
        .into_iter()
        .find(|e| {
            e.state == EndpointState::Enabled
                && e.node == states.keys().find(|(_, node)| node.to_string() == one.id()).unwrap().1
        })
        .unwrap();
    let answer = one.post("/v1/networks/web/endpoints", &format!(r#"{{"remove":["{}"]}}"#, back.id));
    assert!(answer.status == 409 && answer.body.contains("it is one of one in network back"), "{answer:?}");
    let gone = one.post("/v1/networks/web/endpoints", r#"{"remove":["zzzz"]}"#);
    assert_eq!(gone.status, 400, "{gone:?}");
}

#[test]
fn who_is_asked_about_must_be_there() {
    let nodes = cluster(&["one", "two"]);
    let [one, two] = nodes.as_slice() else { panic!("two nodes") };
    attach(&[one]);
    wait_for("the network", || match two.get("/v1/networks/web").status {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    let answer = one.get("/v1/networks/web/seen?node=two");
    assert!(answer.status == 404 && answer.body.contains("two is not attached to network web"), "{answer:?}");
    assert_eq!(one.get("/v1/networks/web/seen").status, 200, "attached, and nothing written");
    let answer = two.get("/v1/networks/web/seen?node=one");
    assert!(answer.status == 404 && answer.body.contains("this node is not attached to network web"), "{answer:?}");
    one.ctl(&["endpoint", "ls", "--node", "nosuch"]).refused(4, &["\"nosuch\"", "gossipctl members"]);
    one.ctl(&["endpoint", "ls", "--node", "two,self"]).ok();
    two.ctl(&["endpoint", "set", "--network", "web", "--task", "a", "--address", "10.0.9.5/24"])
        .refused(4, &["not attached to network web (", "gossipctl network attach web"]);
    // Wrong words are wrong usage.
    for arguments in [
        &["endpoint", "ls", "--state", "asleep"][..],
        &["endpoint", "ls", "--port", "80/icmp"],
        &["endpoint", "set", "--network", "web", "--address", "10.0.9.5"],
    ] {
        one.ctl(arguments).refused(2, &[arguments.last().unwrap()]);
    }
    one.ctl(&["endpoint", "disable", "--wait=20m", "a"]).refused(2, &["20m is too long", "10m"]);
    // An interface for an address, as for `init`.
    one.ctl(&["network", "attach", "--data-path-addr", "nosuch0", "web"]).refused(1, &["nosuch0"]);
    one.ctl(&["network", "attach", "--data-path-addr", "127.0.0.1:80", "web"]).refused(1, &["has a port"]);
    one.ctl(&["network", "attach", "--data-path-addr", "lo", "web"]).ok();
    assert_eq!(one.get("/v1/networks/web").json()["nodes"][0]["data_path_addr"], "127.0.0.1");
}

#[test]
fn more_requests_than_may_wait_are_refused_and_what_they_wrote_is_in_force() {
    const WAITS_MAX: usize = 64;
    let nodes = cluster(&["one", "two"]);
    let [one, two] = nodes.as_slice() else { panic!("two nodes") };
    attach(&[one, two]);
    set(one, "shop.1", "10.0.9.5/24");
    two.signal(nix::sys::signal::Signal::SIGSTOP);
    let is_full = |is_wanted: bool| {
        wait_for(if is_wanted { "all places to be taken" } else { "a place" }, || {
            let answer = one.get("/v1/networks/web/seen?wait=0s");
            if (answer.status == 503) == is_wanted { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
    };
    // Programs that hang up give their places back.
    let target = "/v1/networks/web/seen?wait=10m";
    let waiting: Vec<_> = (0..2 * WAITS_MAX)
        .map(|_| {
            let mut stream = UnixStream::connect(one.socket()).unwrap();
            write!(stream, "GET {target} HTTP/1.1\r\nHost: gossipd\r\n\r\n").unwrap();
            stream
        })
        .collect();
    is_full(true);
    drop(waiting);
    is_full(false);
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..2 * WAITS_MAX).map(|_| scope.spawn(|| one.get("/v1/networks/web/seen?wait=30s"))).collect();
        let problem = is_full(true).json();
        assert_eq!(problem["type"], "urn:gossipd:problem:busy");
        assert!(problem["detail"].as_str().unwrap().contains("64 requests wait"), "{problem}");
        let answer = one.post("/v1/endpoints/shop.1/disable?wait=1s", "");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.body.contains("it is in force and spreads on"), "{answer:?}");
        assert_eq!(endpoints(one).unwrap()[0].state, EndpointState::Disabled);
        one.ctl(&["endpoint", "enable", "--wait", "shop.1"]).refused(1, &["it is in force", "64 requests wait"]);
        assert_eq!(endpoints(one).unwrap()[0].state, EndpointState::Enabled);
        two.signal(nix::sys::signal::Signal::SIGCONT);
        let served = waiting.into_iter().map(|one| one.join().unwrap()).filter(|answer| answer.status == 200).count();
        assert!((WAITS_MAX / 2..=WAITS_MAX).contains(&served), "{served}");
    });
    one.ctl(&["endpoint", "disable", "--wait", "shop.1"]).ok();
}
