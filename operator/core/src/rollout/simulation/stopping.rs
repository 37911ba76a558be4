//! How runs are stopped and rolled back, and what people ask for.

use std::collections::BTreeMap;

use drover_crds::{RolloutPhase, RunOutcome};
use jiff::SignedDuration;
use serde_json::json;

use super::world::{Luck, World, drained};
use crate::metadata::name;

/// A world of so many machines in which base-1 is on all of them, and base-2 is the newest revision.
fn second_revision(hosts: usize, strategy: serde_json::Value) -> World {
    let mut spec = drained();
    spec["strategy"] = strategy;
    let mut world = World::new(hosts, spec);
    world.until(RolloutPhase::Complete);
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world
}

fn revisions(world: &World) -> BTreeMap<String, String> {
    let host = |host: &drover_crds::Host| {
        let assigned = host.status.as_ref().unwrap().assigned.first();
        (name(&host.metadata).to_owned(), assigned.map_or_else(String::new, |a| a.revision.clone()))
    };
    world.hosts.iter().map(host).collect()
}

fn rolling_back() -> serde_json::Value {
    json!({"maxUnavailable": 1, "failure": {"maxFailed": 0, "onExceeded": "Rollback"}})
}

#[test]
fn a_failure_too_many_rolls_back_what_the_run_changed_the_last_one_first() {
    let mut world = second_revision(4, rolling_back());
    let before = world.nodes.clone();
    world.luck.insert("node-3".into(), Luck::GateFails);
    let mut order = vec![];
    for _ in 0..2_000 {
        let wait = world.settle(0);
        for host in world.claimed() {
            let claim = host.status.as_ref().unwrap().claim.as_ref().unwrap();
            let entry = (claim.target.revision.clone(), name(&host.metadata).to_owned());
            if order.last() != Some(&entry) {
                order.push(entry);
            }
        }
        // The gate asks what the machine is like; with its old revision it is well.
        if revisions(&world)["node-3"] == "base-1" && order.last().is_some_and(|(revision, _)| revision == "base-1") {
            world.luck.clear();
        }
        if world.status().phase == Some(RolloutPhase::RolledBack) {
            break;
        }
        world.agents();
        world.now += SignedDuration::try_from(wait.min(std::time::Duration::from_secs(20))).unwrap();
    }
    let expected = [
        ("base-2", "node-1"),
        ("base-2", "node-2"),
        ("base-2", "node-3"),
        ("base-1", "node-3"),
        ("base-1", "node-2"),
        ("base-1", "node-1"),
    ];
    assert_eq!(order, expected.map(|(revision, host)| (revision.to_owned(), host.to_owned())));
    assert!(revisions(&world).values().all(|revision| revision == "base-1"), "{:?}", revisions(&world));
    let status = world.status();
    assert_eq!(status.message.as_deref(), Some("1 failed and 0 may: 3 rolled back"));
    assert_eq!(status.counts.map(|c| (c.rolled_back, c.updated, c.failed, c.pending)), Some((3, 0, 0, 1)));
    assert!(status.run.unwrap().finished_at.is_some());
    world.assert_given_back(&before);

    // The revision is not tried again by itself.
    let writes = world.writes;
    for _ in 0..50 {
        world.settle(0);
        world.now += SignedDuration::from_secs(60);
    }
    assert_eq!(world.writes, writes);
    assert_eq!(world.status().phase, Some(RolloutPhase::RolledBack));

    // A newer one is.
    world.revisions.insert("base-3".into());
    world.config.status.as_mut().unwrap().revision = Some("base-3".into());
    world.until(RolloutPhase::Complete);
    assert!(revisions(&world).values().all(|revision| revision == "base-3"));
}

#[test]
fn a_rollback_keeps_the_limits_and_goes_on_past_machines_that_fail_on_their_way_back() {
    let strategy = json!({
        "maxParallel": 2, "maxUnavailable": 3, "failure": {"maxFailed": 1, "onExceeded": "Rollback"},
    });
    let mut world = second_revision(6, strategy);
    world.luck.insert("node-3".into(), Luck::AgentFails);
    world.luck.insert("node-4".into(), Luck::AgentFails);
    world.until(RolloutPhase::RolledBack);
    let status = world.status();
    let message = status.message.unwrap();
    assert!(message.starts_with("2 failed and 1 may: 2 rolled back, 2 stay as they are: node-"), "{message}");
    assert_eq!(status.counts.map(|c| (c.rolled_back, c.failed, c.pending)), Some((2, 2, 2)));
}

#[test]
fn machines_that_had_nothing_before_have_nothing_to_go_back_to() {
    let mut spec = drained();
    spec["strategy"] = rolling_back();
    let mut world = World::new(3, spec);
    world.luck.insert("node-2".into(), Luck::AgentFails);
    world.until(RolloutPhase::RolledBack);
    let message = world.status().message.unwrap();
    assert!(message.contains("0 rolled back, 2 stay as they are: node-2"), "{message}");
    assert_eq!(revisions(&world)["node-1"], "base-1");
    assert_eq!(revisions(&world)["node-3"], "");
}

#[test]
fn an_abort_gives_back_what_was_not_changed_yet_and_finishes_what_was() {
    let mut world = second_revision(3, json!({"maxParallel": 2, "maxUnavailable": 2}));
    world.pod("web-1", "node-2", Some("web"), true);
    world.budgets.insert("web", 0);
    let before = world.nodes.clone();
    for _ in 0..20 {
        world.settle(0);
        world.now += SignedDuration::from_secs(2);
    }
    assert_eq!(world.claimed().len(), 2, "one applies, one is being drained");
    world.annotate("drover.dev/abort", "1");
    world.settle(0);
    let handled = world.status().last_handled;
    assert_eq!(handled[0].result, "ignored: the value is the number of the run, which is 2");
    world.annotate("drover.dev/abort", "2");
    world.until(RolloutPhase::Aborted);
    let record = |host: usize| world.hosts[host].status.as_ref().unwrap().runs[0].clone();
    assert_eq!((record(0).outcome, record(1).outcome), (RunOutcome::Succeeded, RunOutcome::Withdrawn));
    assert_eq!(revisions(&world).into_values().collect::<Vec<_>>(), ["base-2", "base-1", "base-1"]);
    world.assert_given_back(&before);
    // Another try goes on with the two that are left.
    world.budgets.insert("web", 1);
    world.annotate("drover.dev/retry", "2");
    world.until(RolloutPhase::Complete);
    assert_eq!(world.status().run.unwrap().number, 3);
}

#[test]
fn a_complete_run_can_be_undone_and_stays_so() {
    let mut world = second_revision(3, json!({}));
    world.until(RolloutPhase::Complete);
    world.annotate("drover.dev/undo", "2");
    world.until(RolloutPhase::RolledBack);
    assert!(revisions(&world).values().all(|revision| revision == "base-1"), "{:?}", revisions(&world));
    for _ in 0..20 {
        world.settle(0);
        world.agents();
        world.now += SignedDuration::from_secs(60);
    }
    assert_eq!(world.status().phase, Some(RolloutPhase::RolledBack));
    world.annotate("drover.dev/retry", "2");
    world.until(RolloutPhase::Complete);
    assert!(revisions(&world).values().all(|revision| revision == "base-2"));
}

#[test]
fn a_pause_by_annotation_is_echoed_and_ends_with_it() {
    let mut world = World::new(3, drained());
    world.settle(0);
    world.annotate("drover.dev/pause", "load test until noon");
    world.until(RolloutPhase::Paused);
    let status = world.status();
    assert_eq!(
        status.message.as_deref(),
        Some("1 of 3 updated to base-1; paused: load test until noon; remove the annotation drover.dev/pause to go on")
    );
    assert_eq!((status.last_handled[0].action.as_str(), status.last_handled.len()), ("pause", 1));
    world.remove_annotation("drover.dev/pause");
    world.until(RolloutPhase::Complete);
    assert!(world.status().last_handled.is_empty());
}

#[test]
fn a_held_rollout_moves_nothing_at_all() {
    let mut world = World::new(3, drained());
    world.settle(0);
    world.annotate("drover.dev/hold", "");
    world.settle(0);
    let (hosts, nodes) = (world.hosts.clone(), world.nodes.clone());
    for _ in 0..50 {
        world.now += SignedDuration::from_secs(60);
        world.settle(0);
    }
    assert_eq!((&world.hosts, &world.nodes), (&hosts, &nodes));
    assert_eq!(world.status().phase, Some(RolloutPhase::Paused));
    world.remove_annotation("drover.dev/hold");
    world.until(RolloutPhase::Complete);
}

#[test]
fn a_batch_waits_for_its_approval_and_for_the_one_before_to_soak() {
    let mut spec = drained();
    spec["strategy"]["batches"] = json!([
        {"name": "canary", "size": 1, "soakSeconds": 600}, {"name": "rest", "size": "100%", "approval": "Required"},
    ]);
    let mut world = World::new(3, spec);
    let passed = |world: &mut World, seconds: i64| {
        for _ in 0..seconds / 10 {
            world.settle(0);
            world.agents();
            world.now += SignedDuration::from_secs(10);
        }
        world.settle(0);
        world.status()
    };
    let status = passed(&mut world, 300);
    assert!(status.message.as_ref().unwrap().contains("batch canary soaks until 1970-"), "{status:?}");
    let status = passed(&mut world, 1200);
    let approve = "batch rest waits for approval: kubectl annotate --overwrite rollouts.drover.dev base drover.dev/approve=1/rest";
    assert!(status.message.as_ref().unwrap().ends_with(approve), "{status:?}");
    assert_eq!(status.counts.map(|c| (c.updated, c.pending)), Some((1, 2)));
    for (value, result) in [("rest", "ignored: write <run>/<batch>, such as 3/canary"), ("7/rest", "approved")] {
        world.annotate("drover.dev/approve", value);
        let status = passed(&mut world, 100);
        assert_eq!(status.last_handled[0].result, result);
        assert_eq!(status.counts.map(|c| c.updated), Some(1), "{value} is no approval of this batch");
    }
    world.annotate("drover.dev/approve", "1/rest");
    world.until(RolloutPhase::Complete);
}

#[test]
fn a_host_that_is_skipped_is_left_out_and_counted() {
    let mut world = World::new(3, drained());
    world.annotate("drover.dev/skip", "node-2, node-9");
    world.until(RolloutPhase::Complete);
    let status = world.status();
    assert_eq!(status.counts.map(|c| (c.updated, c.skipped)), Some((2, 1)));
    assert_eq!(status.message.as_deref(), Some("2 of 3 updated to base-1, 1 left out"));
    world.remove_annotation("drover.dev/skip");
    world.until_message("3 of 3 updated to base-1");
}

#[test]
fn a_machine_under_way_that_somebody_leaves_out_is_given_back_if_it_was_not_changed_yet() {
    let mut world = second_revision(2, json!({"maxParallel": 1, "maxUnavailable": 1}));
    world.pod("web-1", "node-1", Some("web"), true);
    world.budgets.insert("web", 0);
    for _ in 0..20 {
        world.settle(0);
        world.now += SignedDuration::from_secs(2);
    }
    assert!(world.nodes["node-1"].cordoned);
    world.annotate("drover.dev/skip", "node-1");
    world.until(RolloutPhase::Complete);
    assert_eq!(revisions(&world).into_values().collect::<Vec<_>>(), ["base-1", "base-2"]);
    assert!(!world.nodes["node-1"].cordoned);
}

#[test]
fn a_machine_that_fails_is_out_of_service_for_the_others() {
    let mut world = second_revision(3, json!({"maxUnavailable": 1, "failure": {"maxFailed": 2}}));
    world.luck.insert("node-1".into(), Luck::AgentFails);
    // It would wait for ever, so it stops.
    world.until(RolloutPhase::Failed);
    let status = world.status();
    let message = status.message.unwrap();
    assert!(message.contains("1 failed and count as out of service, of which there may be 1: node-1:"), "{message}");
    assert_eq!(status.counts.map(|c| (c.failed, c.pending)), Some((1, 2)));
}

#[test]
fn batches_take_the_machines_that_they_are_for_and_the_rest_comes_at_the_end() {
    let mut spec = json!({"strategy": {"batches": [
        {"name": "named", "hosts": ["node-4"]},
        {"name": "south", "hostSelector": {"matchLabels": {"zone": "south"}}, "size": 1},
    ]}});
    let order = |spec: &serde_json::Value, label: &dyn Fn(usize) -> Option<&'static str>, own: Option<&str>| {
        let mut world = World::new(5, spec.clone());
        world.own_node = own.map(str::to_owned);
        for (index, host) in world.hosts.iter_mut().enumerate() {
            let zone = label(index + 1).map(|zone| ("zone".to_owned(), zone.to_owned()));
            host.metadata.labels = Some(zone.into_iter().collect());
        }
        let mut order = vec![];
        for _ in 0..200 {
            world.settle(0);
            for host in world.claimed() {
                let batch = host.status.as_ref().unwrap().claim.as_ref().unwrap().batch;
                let entry = (batch, name(&host.metadata).to_owned());
                if !order.contains(&entry) {
                    order.push(entry);
                }
            }
            world.agents();
            world.now += SignedDuration::from_secs(5);
        }
        assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "{:?}", world.status());
        let names: Vec<_> = world.status().batches.into_iter().map(|batch| batch.name).collect();
        let order = order.into_iter().map(|(batch, host)| format!("{batch}{}", host.trim_start_matches("node-")));
        (order.collect::<Vec<_>>().join(" "), names.join(" "))
    };
    let south = |host: usize| (host == 2 || host == 5).then_some("south");
    assert_eq!(order(&spec, &south, None), ("04 12 25 31 33".into(), "named south south-2 rest".into()));
    spec["strategy"] = json!({"order": {"topologyKey": "zone"}});
    let zones = |host: usize| [Some("b"), Some("a"), None, Some("a"), Some("b")][host - 1];
    assert_eq!(order(&spec, &zones, None).0, "02 04 01 05 03");
    assert_eq!(order(&spec, &zones, Some("node-2")).0, "04 01 05 03 02", "the operator's own node is the last one");
    spec["strategy"] = json!({"order": {"label": "zone"}});
    let numbers = |host: usize| [Some("10"), Some("9"), None, Some("x"), Some("-1")][host - 1];
    assert_eq!(order(&spec, &numbers, None).0, "05 02 01 03 04");
}

#[test]
fn a_node_config_that_is_deleted_on_the_way_gives_everything_back() {
    let mut world = second_revision(3, json!({"maxParallel": 2, "maxUnavailable": 2}));
    world.pod("web-1", "node-2", Some("web"), true);
    world.budgets.insert("web", 0);
    let before = world.nodes.clone();
    for _ in 0..6 {
        world.settle(0);
        world.now += SignedDuration::from_secs(5);
    }
    assert_eq!(world.claimed().len(), 2);
    world.has_config = false;
    for _ in 0..400 {
        world.settle(0);
        world.now += SignedDuration::from_secs(5);
    }
    world.assert_given_back(&before);
    assert!(world.status().message.unwrap().starts_with("waits for NodeConfig base: there is none"));
}

#[test]
fn a_machine_that_was_broken_comes_first_even_when_it_is_not_ready() {
    let mut spec = drained();
    spec["strategy"] = json!({"maxUnavailable": 1});
    let mut world = World::new(3, spec);
    world.luck.insert("node-2".into(), Luck::AgentFails);
    world.until(RolloutPhase::Failed);
    world.luck.clear();
    world.nodes.get_mut("node-2").unwrap().ready = false;
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world.settle(0);
    assert_eq!(name(&world.claimed()[0].metadata), "node-2");
}
