//! One story each.

use std::cell::Cell;

use drover_crds::{Limit, RolloutPhase, RolloutStatus};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    super::{decide::decide, request::Request},
    world::{Luck, World, drained, rollout},
};
use crate::metadata::name;

#[test]
fn one_canary_first_then_the_rest() {
    let mut world = World::new(4, drained());
    let before = world.nodes.clone();
    let order = std::cell::RefCell::new(vec![]);
    for _ in 0..400 {
        world.settle(0);
        for host in world.claimed() {
            let batch = host.status.as_ref().unwrap().claim.as_ref().unwrap().batch;
            let entry = (batch, name(&host.metadata).to_owned());
            if order.borrow().last() != Some(&entry) {
                order.borrow_mut().push(entry);
            }
        }
        world.agents();
        world.now += SignedDuration::from_secs(2);
    }
    let expected = [(0, "node-1"), (1, "node-2"), (1, "node-3"), (2, "node-4")];
    assert_eq!(*order.borrow(), expected.map(|(batch, host)| (batch, host.to_owned())));
    let status = world.status();
    assert_eq!(status.phase, Some(RolloutPhase::Complete));
    assert_eq!(status.message.as_deref(), Some("4 of 4 updated to base-1"));
    let names: Vec<_> = status.batches.iter().map(|batch| (batch.name.as_str(), batch.total)).collect();
    assert_eq!(names, [("canary", 1), ("rest", 2), ("rest-2", 1)]);
    world.assert_given_back(&before);
}

#[test]
fn while_machines_are_written_the_others_go_on_and_the_run_waits() {
    let mut world = World::new(4, json!({"strategy": {"maxParallel": 2, "maxUnavailable": 4}}));
    while world.status().in_flight.is_empty() {
        assert_eq!(world.step(0), None);
    }
    let mut snapshot = world.snapshot(0);
    let mut written = vec![];
    while let Some(request) = decide(&snapshot, world.now).request {
        let Request::WriteHost { host, .. } = request else { panic!("before all answers: {request:?}") };
        snapshot.unanswered.insert(host.clone());
        written.push(host);
    }
    assert_eq!(written, ["node-1", "node-2"], "each once");
    // The Rollout goes, and nothing that is written is decided on either.
    snapshot.rollout.metadata.deletion_timestamp = Some(Time(world.now));
    assert_eq!(decide(&snapshot, world.now).request, None);
    snapshot.unanswered.remove("node-2");
    let left = decide(&snapshot, world.now).request;
    let Some(Request::WriteRollout(status)) = left else { panic!("{left:?}") };
    assert_eq!(status.in_flight.len(), 1);
}

#[test]
fn a_rollout_without_a_drain_never_touches_the_node() {
    let mut world = World::new(3, json!({"strategy": {"maxParallel": 3, "maxUnavailable": 3}}));
    let before = world.nodes.clone();
    world.until(RolloutPhase::Complete);
    assert_eq!(world.nodes, before);
}

#[test]
fn a_cordon_of_an_administrator_stays() {
    let mut spec = drained();
    spec["strategy"]["maxUnavailable"] = json!(2);
    let mut world = World::new(3, spec);
    world.nodes.get_mut("node-2").unwrap().cordoned = true;
    world.nodes.get_mut("node-2").unwrap().load_balancer_label = Some("theirs".into());
    let before = world.nodes.clone();
    world.until(RolloutPhase::Complete);
    world.assert_given_back(&before);
    assert!(world.nodes["node-2"].cordoned);
}

#[test]
fn a_budget_that_blocks_is_named_and_then_the_drain_fails_and_gives_back() {
    let mut world = World::new(3, drained());
    world.pod("web-1", "node-1", Some("web"), true);
    world.budgets.insert("web", 0);
    let before = world.nodes.clone();
    for _ in 0..20 {
        world.settle(0);
        world.now += SignedDuration::from_secs(2);
    }
    let status = world.status();
    assert_eq!(status.display.unwrap().blocked.as_deref(), Some("Drain"));
    let message = status.message.unwrap();
    assert!(message.contains("pod default/web-1: PodDisruptionBudget web needs 2 healthy pods and has 2"), "{message}");
    world.until(RolloutPhase::Failed);
    let status = world.status();
    assert!(status.failures[0].message.starts_with("not drained within 300 s: pod default/web-1"), "{status:?}");
    assert_eq!(status.counts.unwrap().pending, 2, "the others are not touched");
    world.assert_given_back(&before);
}

#[test]
fn a_budget_that_opens_lets_the_drain_go_on() {
    let mut world = World::new(2, drained());
    world.pod("web-1", "node-1", Some("web"), true);
    world.budgets.insert("web", 0);
    world.settle(0);
    world.now += SignedDuration::from_secs(20);
    world.settle(0);
    world.budgets.insert("web", 1);
    world.until(RolloutPhase::Complete);
}

#[test]
fn a_pod_without_a_controller_blocks_the_drain_unless_told_otherwise() {
    let mut world = World::new(1, drained());
    world.pod("lonely", "node-1", None, false);
    world.until(RolloutPhase::Failed);
    assert!(world.status().failures[0].message.contains("default/lonely has no controller"), "{:?}", world.status());
    let mut spec = drained();
    spec["disruption"]["drain"]["unmanagedPods"] = json!("Evict");
    let mut world = World::new(1, spec);
    world.pod("lonely", "node-1", None, false);
    world.until(RolloutPhase::Complete);
}

#[test]
fn the_first_failure_stops_the_run_says_why_and_gives_back() {
    for (luck, why) in [
        (Luck::AgentFails, "1 of 3 resources failed: base/web: exit code 1"),
        (Luck::AgentSilent, "no report from the agent within 600 s"),
        (Luck::GateFails, "gate http :80/ did not pass within 60 s: connection refused"),
        (Luck::GateSilent, "gate http :80/ did not pass within 60 s: no answer yet"),
    ] {
        let mut world = World::new(3, drained());
        world.luck.insert("node-1".into(), luck);
        let before = world.nodes.clone();
        world.until(RolloutPhase::Failed);
        let status = world.status();
        assert!(status.failures[0].message.contains(why), "{luck:?}: {}", status.failures[0].message);
        assert!(status.message.unwrap().contains(why));
        assert_eq!(status.counts.as_ref().map(|c| (c.failed, c.updated, c.pending)), Some((1, 0, 2)));
        world.assert_given_back(&before);
    }
}

#[test]
fn a_machine_reboots_while_it_is_out_of_service_and_is_known_by_another_boot_id() {
    let mut world = World::new(2, drained());
    world.needs_reboot = true;
    let before = world.nodes.clone();
    world.until(RolloutPhase::Complete);
    for host in &world.hosts {
        let active = host.status.as_ref().unwrap().active.as_ref().unwrap();
        assert_eq!((active.boot_id.as_deref(), active.reboot_required.len()), (Some("boot-0+"), 0));
    }
    world.assert_given_back(&before);
}

#[test]
fn a_reboot_needs_the_rollouts_leave() {
    for (spec, reboots) in [
        (json!({}), false),
        (json!({"disruption": {"reboot": "IfRequired"}}), true),
        (json!({"disruption": {"drain": {}}}), true),
        (json!({"disruption": {"drain": {}, "reboot": "Never"}}), false),
    ] {
        let mut world = World::new(1, spec.clone());
        world.needs_reboot = true;
        world.until(RolloutPhase::Complete);
        let active = world.hosts[0].status.as_ref().unwrap().active.as_ref().unwrap();
        assert_eq!(active.boot_id.as_deref() == Some("boot-0+"), reboots, "{spec}");
    }
}

#[test]
fn a_machine_that_does_not_come_back_from_its_reboot_has_failed() {
    let mut world = World::new(2, drained());
    world.needs_reboot = true;
    world.luck.insert("node-1".into(), Luck::NeverReboots);
    let before = world.nodes.clone();
    world.until(RolloutPhase::Failed);
    let why = "it did not come back from its reboot within 900 s";
    assert!(world.status().failures[0].message.starts_with(why), "{:?}", world.status().failures);
    world.assert_given_back(&before);
}

#[test]
fn a_changed_spec_tries_again_with_the_broken_machine_first() {
    let mut world = World::new(3, drained());
    world.luck.insert("node-2".into(), Luck::GateFails);
    world.until(RolloutPhase::Failed);
    world.luck.clear();
    world.rollouts[0].metadata.generation = Some(2);
    world.settle(0);
    assert_eq!(world.status().run.unwrap().number, 2);
    assert_eq!(name(&world.claimed()[0].metadata), "node-2");
    world.until(RolloutPhase::Complete);
    assert_eq!(world.status().history.len(), 1);
}

#[test]
fn failures_that_are_tolerated_still_end_as_failed() {
    let mut spec = drained();
    spec["strategy"]["failure"] = json!({"maxFailed": 1});
    spec["strategy"]["maxUnavailable"] = json!(2);
    let mut world = World::new(3, spec);
    world.luck.insert("node-1".into(), Luck::AgentFails);
    world.until(RolloutPhase::Failed);
    assert_eq!(world.status().counts.map(|c| (c.failed, c.updated)), Some((1, 2)));
}

#[test]
fn a_paused_rollout_finishes_what_is_under_way_and_begins_nothing() {
    let mut world = World::new(3, drained());
    world.settle(0);
    assert_eq!(world.claimed().len(), 1);
    world.rollouts[0].spec.paused = Some(true);
    world.until(RolloutPhase::Paused);
    assert_eq!(world.status().counts.map(|c| (c.updated, c.pending)), Some((1, 2)));
    assert!(world.claimed().is_empty());
    world.rollouts[0].spec.paused = Some(false);
    world.until(RolloutPhase::Complete);
}

#[test]
fn a_deleted_rollout_gives_back_first() {
    let mut world = World::new(3, drained());
    let before = world.nodes.clone();
    world.settle(0);
    world.now += SignedDuration::from_secs(30);
    world.settle(0);
    assert!(world.nodes["node-1"].cordoned);
    world.rollouts[0].metadata.deletion_timestamp = Some(Time(world.now));
    world.settle(0);
    world.assert_given_back(&before);
    assert_eq!(world.rollouts[0].metadata.finalizers, None);
}

#[test]
fn a_new_revision_waits_for_the_machine_under_way_and_repairs_the_broken_one_first() {
    let mut world = World::new(3, drained());
    world.luck.insert("node-2".into(), Luck::AgentFails);
    world.until(RolloutPhase::Failed);
    world.luck.clear();
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world.settle(0);
    assert_eq!(name(&world.claimed()[0].metadata), "node-2", "the broken one is the canary of the next run");
    world.until(RolloutPhase::Complete);
    assert_eq!(world.status().run.unwrap().revision, "base-2");

    let mut world = World::new(3, drained());
    while world.hosts[0].status.as_ref().unwrap().assigned.is_empty() {
        world.settle(0);
        world.now += SignedDuration::from_secs(10);
    }
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world.settle(0);
    assert!(world.status().message.unwrap().contains("finishes the machines that are under way to base-1"));
    world.until(RolloutPhase::Complete);
    assert!(world.hosts.iter().all(|host| host.status.as_ref().unwrap().assigned[0].revision == "base-2"));
}

#[test]
fn a_host_made_again_under_its_name_frees_its_place_and_is_another_host() {
    let mut world = World::new(2, drained());
    world.settle(0);
    world.hosts.retain(|host| name(&host.metadata) != "node-1");
    world.nodes.remove("node-1");
    world.join("node-1", "9u-x");
    world.settle(0);
    let entry = world.status().in_flight[0].clone();
    assert_eq!((entry.host.as_str(), entry.uid.as_str()), ("node-1", "9u-x"));
    world.until(RolloutPhase::Complete);
}

#[test]
fn nothing_is_complete_without_machines_and_missing_things_are_named() {
    let mut world = World::new(0, drained());
    world.settle(0);
    assert_eq!(world.status().phase, Some(RolloutPhase::Pending));
    assert!(world.status().message.unwrap().contains("no Host matches"));

    let mut world = World::new(1, drained());
    world.config.status = None;
    world.settle(0);
    assert_eq!(world.status().message.as_deref(), Some("waits for the first revision of NodeConfig base"));

    let mut world = World::new(1, json!({"nodeConfigRef": {"name": "base", "revision": "base-77"}}));
    world.settle(0);
    assert!(world.status().message.unwrap().starts_with("NodeConfig base has no revision base-77"));
    let mut snapshot = world.snapshot(0);
    snapshot.node_config = None;
    let Some(Request::WriteRollout(status)) = decide(&snapshot, world.now).request else { panic!("no status") };
    assert!(status.message.unwrap().starts_with("waits for NodeConfig base: there is none"));
}

#[test]
fn newest_content_that_can_not_be_rolled_out_is_mentioned_and_the_machines_stay() {
    let mut world = World::new(1, drained());
    world.until(RolloutPhase::Complete);
    let config = world.config.status.as_mut().unwrap();
    config.message = Some("base/motd: line 3".into());
    drover_crds::condition::summarise(
        &mut config.conditions,
        drover_crds::condition::Summary::Stalled,
        "Invalid",
        "base/motd: line 3",
        Some(2),
        world.now,
    );
    world.settle(0);
    assert_eq!(world.status().phase, Some(RolloutPhase::Complete));
    let message = world.status().message.unwrap();
    assert_eq!(
        message,
        "1 of 1 updated to base-1; the newest content of NodeConfig base is not rolled out: base/motd: line 3"
    );
}

#[test]
fn machines_out_of_service_for_another_reason_count() {
    let mut world = World::new(3, drained());
    world.nodes.get_mut("node-3").unwrap().ready = false;
    world.settle(0);
    assert!(world.claimed().is_empty());
    let message = world.status().message.unwrap();
    assert!(message.contains("1 out of service and 1 may be: node-3"), "{message}");
    world.nodes.get_mut("node-3").unwrap().ready = true;
    world.until(RolloutPhase::Complete);
}

#[test]
fn a_status_that_was_lost_is_taken_from_the_claims_again() {
    let mut world = World::new(3, drained());
    world.settle(0);
    world.now += SignedDuration::from_secs(30);
    world.settle(0);
    let run = world.status().run;
    world.rollouts[0].status = Some(RolloutStatus { run, ..Default::default() });
    world.settle(0);
    assert_eq!(world.status().in_flight.len(), 1);
    assert_eq!(world.claimed().len(), 1, "no second machine was begun");
    world.until(RolloutPhase::Complete);
}

#[test]
fn two_rollouts_never_hold_one_machine() {
    let mut world = World::new(2, drained());
    let mut second = rollout(&drained());
    second.metadata.name = Some("other".into());
    second.metadata.uid = Some("1r-other".into());
    world.rollouts.push(second);
    world.strict = false;
    for _ in 0..400 {
        world.settle(0);
        world.settle(1);
        world.agents();
        world.now += SignedDuration::from_secs(5);
    }
    assert_eq!(world.rollouts[1].status.as_ref().unwrap().phase, Some(RolloutPhase::Complete));
    assert_eq!(world.status().phase, Some(RolloutPhase::Complete));
}

#[test]
fn the_same_end_whatever_request_is_the_last_before_a_crash() {
    let reference = Cell::new(0);
    let run = |crash: Option<usize>| {
        let mut world = World::new(3, drained());
        world.pod("web-1", "node-2", Some("web"), true);
        world.budgets.insert("web", 1);
        let before = world.nodes.clone();
        for _ in 0..300 {
            let mut snapshot = world.snapshot(0);
            if let Some(request) = decide(&snapshot, world.now).request {
                let again = request.clone();
                world.carry_out(0, request, &mut snapshot);
                if crash == Some(world.writes) {
                    // The answer was lost, and somebody who still has the old snapshot makes the request again.
                    world.carry_out(0, again, &mut snapshot);
                }
            } else {
                world.agents();
                world.now += SignedDuration::from_secs(5);
            }
        }
        assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "crash at {crash:?}");
        world.assert_given_back(&before);
        reference.set(world.writes);
        let end: Vec<_> = world.hosts.iter().map(|host| host.status.clone().unwrap().assigned).collect();
        (end, world.writes)
    };
    let (end, writes) = run(None);
    assert!(writes > 30, "{writes}");
    for crash in 1..=writes {
        assert_eq!(run(Some(crash)).0, end);
    }
}

#[test]
fn a_large_fleet_keeps_the_status_small() {
    let mut spec = drained();
    spec["strategy"]["maxParallel"] = json!("10%");
    spec["strategy"]["maxUnavailable"] = json!("10%");
    spec["strategy"]["batches"] = json!([{"size": "1%"}]);
    let mut world = World::new(3_000, spec);
    let mut snapshot = world.snapshot(0);
    while let Some(request) = decide(&snapshot, world.now).request {
        world.carry_out(0, request, &mut snapshot);
        snapshot.rollout = world.rollouts[0].clone();
        snapshot.nodes = world.nodes.clone().into_iter().collect();
        snapshot.hosts = world.hosts.clone().into();
    }
    let size = serde_json::to_vec(&world.status()).unwrap().len();
    assert!(world.status().in_flight.len() == 30, "a batch of 1% is under way");
    assert!(size < 32 * 1024, "{size} bytes");
    let limit = Limit::Percent(10).of(3_000);
    assert_eq!(limit, 300, "more than the ledger takes at once");
}
