//! The main job, with the samples that the README starts with.

use std::collections::{BTreeMap, BTreeSet};

use drover_crds::{Host, NodeConfig, Rollout, RolloutPhase};
use drover_e2e::{
    Fleet, NODES,
    audit::NodeState,
    cluster::objects_of,
    fleet::{is_cordoned, is_excluded},
    record::Record,
    story,
    web::Web,
};
use k8s_openapi::api::core::v1::ConfigMap;

/// The samples, in the order in which the README applies them.
async fn apply_samples(fleet: &Fleet) {
    let sample = |file: &str| objects_of(&format!("config/samples/{file}.yaml")).remove(0);
    let mut data = sample("data");
    // So that it goes with the story.
    data["metadata"]["labels"] = serde_json::json!({"drover.dev/e2e": "true"});
    fleet.cluster.apply(&fleet.api::<ConfigMap>(), &data).await;
    fleet.cluster.apply(&fleet.api::<NodeConfig>(), &sample("nodeconfig")).await;
    fleet.cluster.apply(&fleet.api::<Rollout>(), &sample("rollout")).await;
}

/// How far a Host was when it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Waits,
    UnderWay,
    Updated,
}

fn stand(host: &Host) -> Stand {
    let status = host.status.clone().unwrap_or_default();
    match (status.claim, status.assigned.is_empty()) {
        (Some(_), _) => Stand::UnderWay,
        (None, true) => Stand::Waits,
        (None, false) => Stand::Updated,
    }
}

#[tokio::test]
async fn a_revision_travels_over_the_machines_and_the_application_does_not_notice() {
    story(async |fleet| {
        let web = Web::start(fleet).await;
        let pods = web.record().await;
        let nodes = Record::start(fleet.nodes(), "", |nodes| {
            let state = |node| NodeState { cordoned: is_cordoned(node), excluded: is_excluded(node) };
            nodes.iter().map(|(name, node)| (name.clone(), state(node))).collect::<BTreeMap<_, _>>()
        })
        .await;
        let hosts = Record::start(fleet.api::<Host>(), "", |hosts| hosts.values().map(stand).collect::<Vec<_>>()).await;

        let turns = fleet.turns().await;
        apply_samples(fleet).await;
        let status = fleet.rollout_until("base", "Complete", |s| s.phase == Some(RolloutPhase::Complete)).await;

        let counts = status.counts.unwrap();
        assert_eq!((counts.updated, counts.total, counts.failed, counts.unavailable), (3, 3, 0, 0));
        let batches: Vec<_> = status.batches.iter().map(|batch| (batch.name.as_str(), batch.updated)).collect();
        assert_eq!(batches, [("canary", 1), ("rest", 1), ("rest-2", 1)]);
        let stands = hosts.until("all are updated", |hosts| *hosts == [Stand::Updated; 3]).await;
        one_canary_first(&stands, &turns);
        let back = |nodes: &BTreeMap<String, NodeState>| nodes.values().all(|node| *node == NodeState::default());
        one_node_at_a_time(&nodes.until("all Nodes are back", back).await);
        one_node_at_a_time(&fleet.audit.nodes());
        web.is_whole().await;
        let pods = pods.until("the web is whole", |pods| pods.serving.len() == 3).await;
        let fewest = pods.iter().map(|pods| pods.serving.len()).min();
        assert!(fewest >= Some(2), "the budget wants 2 pods at every moment: {pods:#?}");
        let (first, last) = (&pods[0].all, &pods[pods.len() - 1].all);
        let moved: BTreeSet<String> =
            pods.iter().flat_map(|pods| &pods.all).filter(|pod| !last.contains(*pod)).cloned().collect();
        assert!(moved.is_superset(first), "each node was drained, so no pod stayed");
        assert!(fleet.audit.evicted().is_superset(&moved), "pods leave by eviction only: {moved:?}");

        for node in NODES {
            machine_is_as_the_sample_says(fleet, node).await;
        }
        tables_are_worth_looking_at(fleet).await;
    })
    .await;
}

/// One machine after the other, as their turns were when it began.
fn one_canary_first(moments: &[Vec<Stand>], turns: &[String; 3]) {
    use Stand::{UnderWay, Updated, Waits};
    let expected = [
        [Waits, Waits, Waits],
        [UnderWay, Waits, Waits],
        [Updated, Waits, Waits],
        [Updated, UnderWay, Waits],
        [Updated, Updated, Waits],
        [Updated, Updated, UnderWay],
        [Updated, Updated, Updated],
    ];
    let by_turn =
        |moment: &Vec<Stand>| turns.each_ref().map(|turn| moment[NODES.iter().position(|node| node == turn).unwrap()]);
    assert_eq!(moments.iter().map(by_turn).collect::<Vec<_>>(), expected);
}

/// At no moment was more than one Node out of service, and each was once.
fn one_node_at_a_time(moments: &[BTreeMap<String, NodeState>]) {
    let mut touched = BTreeMap::<&str, NodeState>::new();
    for nodes in moments {
        let out = nodes.values().filter(|node| node.cordoned).count();
        assert!(out <= 1, "{out} Nodes are cordoned at once: {nodes:?}");
        for (name, node) in nodes {
            let seen = touched.entry(name).or_default();
            seen.cordoned |= node.cordoned;
            seen.excluded |= node.excluded;
        }
    }
    let each = NodeState { cordoned: true, excluded: true };
    assert_eq!(touched, NODES.map(|node| (node, each)).into(), "each Node was cordoned and out of load balancers");
    let last = moments.last().unwrap();
    assert!(last.values().all(|node| *node == NodeState::default()), "all Nodes are back: {last:?}");
}

async fn machine_is_as_the_sample_says(fleet: &Fleet, node: &str) {
    let machine = fleet.machine(node);
    let motd = machine.read("/etc/motd.d/drover").await.unwrap();
    let lines: Vec<_> = motd.lines().collect();
    assert!(lines[0].starts_with(&format!("{node} (Debian")) && lines[0].ends_with(" is kept by Drover."), "{motd}");
    assert_eq!(lines[1..], ["Platform team: platform@example.org"]);
    assert!(motd.ends_with("org\n"), "{motd:?}");
    assert_eq!(machine.access("/etc/motd.d/drover").await, "644 root root");
    assert_eq!(machine.access("/srv/herd-beacon").await, "755 root root");
    assert_eq!(machine.unit_state("herd-beacon").await, "active");
    assert_eq!(machine.run("systemctl is-enabled herd-beacon").await, "enabled");
    assert_eq!(machine.run("curl -s http://localhost:8085/healthz").await, "ok");
    assert_eq!(machine.run("cat /proc/sys/net/ipv4/tcp_keepalive_time").await, "600");
    let kept = machine.run("cat /etc/sysctl.d/60-drover-net.ipv4.tcp_keepalive_time.conf").await;
    assert!(kept.contains("net.ipv4.tcp_keepalive_time = 600"), "{kept}");
    let joined = machine.run("cat /srv/herd-beacon/joined").await;
    assert!(joined.len() == 20 && joined.ends_with('Z'), "the command ran: {joined}");
}

/// What `kubectl get` shows.
async fn tables_are_worth_looking_at(fleet: &Fleet) {
    let table = async |kind: &str| {
        let text = fleet.cluster.kubectl(&["get", "-n", "drover-system", kind]).await;
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    let rollouts = table("rollouts.drover.dev").await;
    assert_eq!(rollouts[0], ["NAME", "PHASE", "BATCH", "UPDATED", "TOTAL", "FAILED", "BLOCKED", "ETA", "AGE"]);
    assert_eq!(rollouts[1][..6], ["base", "Complete", "3/3", "3", "3", "0"]);
    let configs = table("nodeconfigs.drover.dev").await;
    assert_eq!(configs[0], ["NAME", "READY", "HOSTS", "UPDATED", "FAILED", "DRIFTED", "REVISION", "AGE"]);
    assert_eq!(configs[1][..6], ["base", "True", "3", "3", "0", "0"]);
    let revision = &configs[1][6];
    let hosts = table("hosts.drover.dev").await;
    assert_eq!(hosts[0], ["NAME", "STATE", "VIA", "REVISION", "OS", "RELEASE", "DRIFTED", "LAST-CHANGE", "AGE"]);
    for (row, node) in hosts[1..].iter().zip(NODES) {
        assert_eq!(row[..5], [node, "UpToDate", "node", revision, "Debian"]);
    }
    let pools = table("masterpools.drover.dev").await;
    assert_eq!(pools[1][..3], ["masters", "True", "2/2"]);
    let facts = fleet.api::<Host>().get("node-2").await.unwrap().status.unwrap().facts.unwrap();
    let told = [&facts["networking"]["hostname"], &facts["os"]["id"], &facts["service_provider"]];
    assert_eq!(told, ["node-2", "debian", "systemd"]);
}
