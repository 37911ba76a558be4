//! How machines are taken out of service: by what the change costs, by the rules of the drain, and when it takes too long.

use drover_crds::{ChangeCost, ClaimStep, InFlightHost, RolloutPhase};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    super::{
        cost::{admitted, waiting},
        decide::decide,
        snapshot::{BudgetView, LoadBalancerAnswer, PodKeeper},
    },
    world::{World, drained},
};

fn claim(world: &World, host: usize) -> drover_crds::Claim {
    world.hosts[host].status.as_ref().unwrap().claim.clone().unwrap()
}

/// Plays until the Rollout is at this phase; what was seen of the first machine on the way.
#[derive(Default, Debug, PartialEq)]
struct Seen {
    excluded: bool,
    cordoned: bool,
    evicted: bool,
    steps: Vec<ClaimStep>,
}

fn play(world: &mut World, phase: RolloutPhase) -> Seen {
    let mut seen = Seen::default();
    let pods = world.pods.len();
    for _ in 0..2_000 {
        if world.status().phase == Some(phase) {
            return seen;
        }
        let wait = world.step(0);
        let node = &world.nodes["node-1"];
        seen.excluded |= node.load_balancer_label.is_some();
        seen.cordoned |= node.cordoned;
        seen.evicted |= world.pods.len() < pods;
        let step = world.hosts[0].status.as_ref().unwrap().claim.as_ref().map(|claim| claim.step);
        if let Some(step) = step.filter(|step| seen.steps.last() != Some(step)) {
            seen.steps.push(step);
        }
        if let Some(wait) = wait {
            world.agents();
            let wait = SignedDuration::try_from(wait).unwrap();
            world.now += wait.clamp(SignedDuration::from_secs(1), SignedDuration::from_secs(20));
        }
    }
    panic!("never {phase:?}: {:#?}", world.status());
}

fn costing(cost: Option<ChangeCost>, spec: Value) -> World {
    let mut world = World::new(1, spec);
    world.pod("web-1", "node-1", None, true);
    world.costs.extend(cost.map(|cost| ("node-1".into(), cost)));
    world
}

#[test]
fn the_cost_of_the_change_decides_what_is_done_to_the_machine() {
    use ChangeCost::{Drain, NoOp, Reboot, Reload, Restart};
    for (cost, excluded, drains) in [
        (Some(NoOp), false, false),
        (Some(ChangeCost::None), false, false),
        (Some(Reload), false, false),
        (Some(Restart), true, false),
        (Some(Drain), true, true),
        (Some(Reboot), true, true),
        (None, true, true),
    ] {
        let mut world = costing(cost, drained());
        let before = world.nodes.clone();
        let seen = play(&mut world, RolloutPhase::Complete);
        assert_eq!((seen.excluded, seen.cordoned, seen.evicted), (excluded, drains, drains), "{cost:?}");
        world.assert_given_back(&before);

        let mut always = drained();
        always["disruption"]["when"] = json!("Always");
        let seen = play(&mut costing(cost, always), RolloutPhase::Complete);
        assert_eq!((seen.excluded, seen.cordoned, seen.evicted), (true, true, true), "{cost:?}, always");
    }
}

#[test]
fn a_machine_is_never_rebooted_undrained_whatever_the_change_was_thought_to_cost() {
    for cost in [ChangeCost::NoOp, ChangeCost::Restart, ChangeCost::Drain] {
        let mut world = costing(Some(cost), drained());
        world.needs_reboot = true;
        let before = world.nodes.clone();
        let seen = play(&mut world, RolloutPhase::Complete);
        assert!(seen.evicted, "{cost:?}");
        let applied: Vec<_> = seen.steps.iter().filter(|step| **step == ClaimStep::Apply).collect();
        assert_eq!(applied.len(), if cost == ChangeCost::Drain { 1 } else { 2 }, "{cost:?}: {:?}", seen.steps);
        let active = world.hosts[0].status.as_ref().unwrap().active.clone().unwrap();
        assert_eq!((active.boot_id.as_deref(), active.generation), (Some("boot-0+"), 1), "applied once, rebooted once");
        world.assert_given_back(&before);
    }
}

#[test]
fn the_claim_says_what_it_was_drained_for_and_that_the_cost_was_raised() {
    let mut world = costing(Some(ChangeCost::None), drained());
    world.needs_reboot = true;
    world.settle(0);
    assert_eq!((claim(&world, 0).step, claim(&world, 0).cost), (ClaimStep::Apply, Some(ChangeCost::None)));
    world.agents();
    world.settle(0);
    let raised = claim(&world, 0);
    assert_eq!((raised.cost, raised.applied, raised.drained_for), (Some(ChangeCost::Reboot), true, None));
    world.now += SignedDuration::from_secs(30);
    world.settle(0);
    let ready = claim(&world, 0);
    assert_eq!((ready.step, ready.drained_for), (ClaimStep::Reboot, Some(ChangeCost::Reboot)));
}

#[test]
fn a_machine_that_was_changed_already_is_not_called_unchanged_while_it_drains_for_its_reboot() {
    let mut world = costing(Some(ChangeCost::None), drained());
    world.needs_reboot = true;
    world.settle(0);
    world.agents();
    world.settle(0);
    assert_eq!(claim(&world, 0).step, ClaimStep::LeaveLoadBalancer);
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world.settle(0);
    assert_eq!(claim(&world, 0).outcome, None, "it goes on to its end");
    world.until(RolloutPhase::Complete);
    assert_eq!(world.status().run.unwrap().revision, "base-2");
}

#[test]
fn a_node_that_somebody_uncordoned_is_drained_again_before_it_reboots() {
    let mut world = costing(Some(ChangeCost::Reboot), drained());
    world.needs_reboot = true;
    while claim_step(&world) != Some(ClaimStep::Apply) {
        world.settle(0);
        world.now += SignedDuration::from_secs(10);
    }
    let version = world.bump();
    let node = world.nodes.get_mut("node-1").unwrap();
    (node.cordoned, node.resource_version) = (false, version);
    world.pod("web-2", "node-1", None, true);
    // The world itself refuses a reboot of a node in service.
    let seen = play(&mut world, RolloutPhase::Complete);
    assert!(seen.evicted, "{:?}", seen.steps);
}

fn claim_step(world: &World) -> Option<ClaimStep> {
    world.hosts[0].status.as_ref().unwrap().claim.as_ref().map(|claim| claim.step)
}

#[test]
fn who_takes_our_mark_from_a_cordoned_node_keeps_it_cordoned() {
    let mut world = costing(None, drained());
    while claim_step(&world) != Some(ClaimStep::Apply) {
        world.settle(0);
        world.now += SignedDuration::from_secs(10);
    }
    let version = world.bump();
    let node = world.nodes.get_mut("node-1").unwrap();
    (node.cordoned_by, node.resource_version) = (None, version);
    world.until(RolloutPhase::Complete);
    assert!(world.nodes["node-1"].cordoned);
}

#[test]
fn what_no_budget_lets_go_keeps_the_machine_in_service_until_it_may() {
    let mut world = costing(None, drained());
    world.pods.clear();
    world.pod("web-1", "node-1", Some("web"), true);
    world.budgets.insert("web", 0);
    let before = world.nodes.clone();
    world.settle(0);
    world.now += SignedDuration::from_secs(100);
    world.settle(0);
    assert_eq!(claim_step(&world), Some(ClaimStep::Claim));
    assert_eq!(world.nodes, before, "neither label nor cordon");
    let status = world.status();
    let wanted = "pod default/web-1: PodDisruptionBudget web needs 2 healthy pods and has 2; the node is in service";
    assert!(status.message.as_ref().unwrap().contains(wanted), "{:?}", status.message);
    assert_eq!(status.display.unwrap().blocked.as_deref(), Some("Drain"));
    world.budgets.insert("web", 1);
    world.until(RolloutPhase::Complete);
}

#[test]
fn a_budget_that_closes_in_mid_drain_is_named_as_well() {
    let mut world = costing(None, drained());
    world.pod("web-2", "node-1", Some("web"), true);
    world.budgets.insert("web", 1);
    while claim_step(&world) != Some(ClaimStep::Cordon) {
        world.step(0);
        world.now += SignedDuration::from_secs(1);
    }
    world.budgets.insert("web", 0);
    world.settle(0);
    assert_eq!(claim_step(&world), Some(ClaimStep::Drain));
    let message = world.status().message.unwrap();
    assert!(
        message.ends_with("pod default/web-2: PodDisruptionBudget web needs 2 healthy pods and has 2"),
        "{message}"
    );
}

#[test]
fn a_budget_does_not_hold_back_what_the_api_server_would_evict() {
    for (ready, budget, holds) in [
        (true, BudgetView { allowed: 1, needs: 2, has: 3, ..BudgetView::default() }, false),
        (true, BudgetView { allowed: 0, needs: 2, has: 2, ..BudgetView::default() }, true),
        (false, BudgetView { allowed: 0, needs: 2, has: 2, ..BudgetView::default() }, false),
        (false, BudgetView { allowed: 0, needs: 2, has: 1, ..BudgetView::default() }, true),
        (false, BudgetView { allowed: 0, needs: 2, has: 1, unhealthy_may_go: true, ..BudgetView::default() }, false),
    ] {
        let mut world = costing(None, drained());
        world.pods.last_mut().unwrap().view.ready = ready;
        world.pods.last_mut().unwrap().shown = vec![budget.clone()];
        world.settle(0);
        assert_eq!(claim_step(&world) == Some(ClaimStep::Claim), holds, "{ready} {budget:?}");
    }
}

#[test]
fn a_pod_under_two_budgets_is_named_with_both() {
    let mut world = costing(None, drained());
    let budget = |name: &str| BudgetView { name: name.into(), allowed: 1, needs: 1, has: 2, ..BudgetView::default() };
    world.pods.last_mut().unwrap().shown = vec![budget("a"), budget("b")];
    world.settle(0);
    let message = world.status().message.unwrap();
    assert!(message.contains("pod default/web-1: the PodDisruptionBudgets a, b select it"), "{message}");
}

/// A machine whose drain never ends, and another one.
fn stuck(on_timeout: &str) -> World {
    let mut spec = drained();
    spec["disruption"]["drain"]["onTimeout"] = json!(on_timeout);
    spec["strategy"] = json!({"maxParallel": 2, "maxUnavailable": 2, "failure": {"maxFailed": 1}});
    let mut world = World::new(3, spec);
    world.pod("web-1", "node-1", Some("web"), true);
    world.budgets.insert("web", 0);
    world
}

#[test]
fn when_a_drain_takes_too_long_the_spec_says_what_happens() {
    let mut world = stuck("Fail");
    let before = world.nodes.clone();
    world.until(RolloutPhase::Failed);
    let counts = world.status().counts.unwrap();
    assert_eq!((counts.updated, counts.failed), (2, 1));
    world.assert_given_back(&before);

    let mut world = stuck("Skip");
    world.until(RolloutPhase::Complete);
    let counts = world.status().counts.unwrap();
    assert_eq!((counts.updated, counts.skipped), (2, 1));
    assert!(world.hosts[0].status.as_ref().unwrap().assigned.is_empty());
    world.assert_given_back(&before);

    let mut world = stuck("Force");
    world.until(RolloutPhase::Complete);
    assert_eq!((world.status().counts.unwrap().updated, world.deleted.as_slice()), (3, &["web-1".to_owned()][..]));
    world.assert_given_back(&before);
}

fn let_pass(world: &mut World, seconds: i64) {
    for _ in 0..seconds / 20 {
        world.settle(0);
        world.agents();
        world.now += SignedDuration::from_secs(20);
    }
    world.settle(0);
}

#[test]
fn a_drain_that_holds_goes_on_waiting_and_one_that_pauses_keeps_others_from_beginning() {
    let mut world = stuck("Hold");
    let_pass(&mut world, 2_000);
    let status = world.status();
    assert_eq!((status.phase, status.counts.unwrap().updated), (Some(RolloutPhase::Progressing), 2));
    let message = status.message.unwrap();
    assert!(message.contains("not drained within 300 s, goes on waiting"), "{message}");
    world.budgets.insert("web", 1);
    world.until(RolloutPhase::Complete);

    // Two machines are held up until the time is over, so that the third one's turn comes after it.
    let mut world = stuck("Pause");
    world.pod("web-2", "node-2", Some("web"), true);
    let_pass(&mut world, 400);
    world.pods.retain(|pod| pod.view.key.name != "web-2");
    let_pass(&mut world, 2_000);
    let status = world.status();
    let counts = status.counts.unwrap();
    assert_eq!((counts.updated, counts.pending), (1, 1), "{:?}", status.message);
    assert!(status.message.unwrap().contains("no further machine is begun"));
    world.budgets.insert("web", 1);
    world.until(RolloutPhase::Complete);
}

fn ruled(rules: Value) -> World {
    let mut spec = json!({"disruption": {"drain": {"timeoutSeconds": 300}}});
    spec["disruption"]["drain"]["podRules"] = rules;
    let mut world = World::new(1, spec);
    for (pod, app) in [("db-1", "db"), ("job-1", "job"), ("web-1", "web")] {
        world.pod(pod, "node-1", None, true);
        world.pods.last_mut().unwrap().view.labels = [("app".to_owned(), app.to_owned())].into();
    }
    world
}

fn names(world: &World) -> Vec<String> {
    let of_apps = world.pods.iter().filter(|pod| pod.view.keeper == PodKeeper::Controller);
    of_apps.map(|pod| pod.view.key.name.clone()).collect()
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

#[test]
fn the_first_rule_that_is_for_a_pod_counts_and_what_is_skipped_stays() {
    let mut world = ruled(json!([
        {"selector": app("db"), "behavior": "Skip"},
        {"selector": app("db"), "behavior": "Drain"},
        {"selector": app("web"), "namespaces": ["elsewhere"], "behavior": "Skip"},
        {"selector": app("web"), "namespaceSelector": {"matchLabels": {"tier": "x"}}, "behavior": "Skip"},
    ]));
    world.until(RolloutPhase::Complete);
    assert_eq!(names(&world), ["db-1"]);

    let mut world = ruled(json!([{"namespaceSelector": {"matchLabels": {"tier": "x"}}, "behavior": "Skip"}]));
    for pod in &mut world.pods {
        pod.view.namespace_labels = [("tier".to_owned(), "x".to_owned())].into();
    }
    world.until(RolloutPhase::Complete);
    assert_eq!(names(&world).len(), 3);
}

#[test]
fn pods_leave_in_their_order_and_what_completes_is_waited_for() {
    let mut world = ruled(json!([
        {"selector": app("db"), "behavior": "Drain", "order": 10},
        {"selector": app("job"), "behavior": "WaitCompleted", "order": -1},
    ]));
    world.settle(0);
    assert_eq!(names(&world).len(), 3, "nobody leaves before the job has finished");
    let message = world.status().message.unwrap();
    assert!(message.contains("waiting for default/job-1 to finish"), "{message}");
    world.pods.iter_mut().find(|pod| pod.view.key.name == "job-1").unwrap().view.finished = true;
    // The web's pod takes its time to end; the database stays until then.
    world.slow = Some("web-1");
    world.settle(0);
    assert_eq!(names(&world), ["db-1", "job-1", "web-1"]);
    assert!(world.status().message.unwrap().contains("waiting for default/web-1 to terminate"));
    world.pods.retain(|pod| pod.view.key.name != "web-1");
    world.until(RolloutPhase::Complete);
    assert_eq!(names(&world), ["job-1"], "what has finished stays");
}

#[test]
fn an_empty_dir_is_taken_away_unless_told_otherwise_and_a_daemon_set_that_is_gone_keeps_nothing() {
    let mut world = ruled(json!([]));
    world.pods[1].view.empty_dir = true;
    world.pods[2].view.keeper = PodKeeper::GoneDaemonSet;
    world.until(RolloutPhase::Complete);
    assert!(names(&world).is_empty());
    assert_eq!(world.pods.len(), 1, "the agent's own pod stays");

    let mut world = ruled(json!([]));
    world.rollouts[0].spec.disruption.as_mut().unwrap().drain.as_mut().unwrap().empty_dir =
        Some(drover_crds::EmptyDirPods::Block);
    world.pods[1].view.empty_dir = true;
    world.until(RolloutPhase::Failed);
    assert!(world.status().failures[0].message.contains("pod default/db-1 keeps data in an emptyDir"));
}

#[test]
fn what_terminates_on_a_node_that_does_not_answer_is_not_waited_for() {
    for ready in [true, false] {
        let mut world = ruled(json!([]));
        world.slow = Some("db-1");
        world.settle(0);
        world.nodes.get_mut("node-1").unwrap().ready = ready;
        world.settle(0);
        assert_eq!(claim_step(&world) == Some(ClaimStep::Apply), !ready);
    }
}

#[test]
fn volumes_are_waited_for_where_that_is_wanted() {
    let wanted = json!({"disruption": {"drain": {"volumeDetachSeconds": 60}}});
    let mut world = costing(None, wanted.clone());
    world.attached.insert("node-1".into(), vec!["pvc-1".into()]);
    world.settle(0);
    assert_eq!(claim_step(&world), Some(ClaimStep::DetachVolumes));
    assert!(world.status().message.unwrap().contains("volumes to be detached: pvc-1"));
    world.attached.clear();
    world.until(RolloutPhase::Complete);

    let mut world = costing(None, wanted.clone());
    world.attached.insert("node-1".into(), vec!["pvc-1".into()]);
    world.until(RolloutPhase::Failed);
    assert!(world.status().failures[0].message.starts_with("volumes not detached within 60 s: volumes to be"));

    let mut forced = wanted;
    forced["disruption"]["drain"]["onTimeout"] = json!("Force");
    let mut world = costing(None, forced);
    world.attached.insert("node-1".into(), vec!["pvc-1".into()]);
    world.until(RolloutPhase::Complete);
}

#[test]
fn the_cost_is_asked_for_machines_that_wait_and_for_those_admitted_with_what_they_get() {
    let mut world = World::new(3, json!({}));
    let asked = |world: &World| {
        let snapshot = world.snapshot(0);
        let (revision, waiting) = waiting(&snapshot).unwrap();
        let asked = admitted(&snapshot).chain(waiting.into_iter().map(|host| (host, revision.as_str())));
        asked.map(|(host, revision)| (host.metadata.name.clone().unwrap(), revision.to_owned())).collect::<Vec<_>>()
    };
    let entry = |host: &str, revision: &str| (host.to_owned(), revision.to_owned());
    assert_eq!(asked(&world), ["node-1", "node-2", "node-3"].map(|host| entry(host, "base-1")));
    let entered: InFlightHost = serde_json::from_value(json!({
        "host": "node-2", "uid": "2u-x", "batch": 0, "token": "t", "revision": "base-0",
        "since": "2030-01-01T00:00:00Z", "step": "Claim",
    }))
    .unwrap();
    world.rollouts[0].status.get_or_insert_default().in_flight = vec![entered];
    assert_eq!(asked(&world), [entry("node-2", "base-0"), entry("node-1", "base-1"), entry("node-3", "base-1")]);
    world.rollouts[0].status = None;
    world.until(RolloutPhase::Complete);
    assert_eq!(asked(&world), []);
}

/// A machine behind load balancers outside the cluster.
#[allow(clippy::needless_pass_by_value, reason = "a test writes its spec in place")]
fn balanced(load_balancer: Value) -> World {
    let mut world = World::new(1, json!({"disruption": {"loadBalancer": load_balancer}}));
    world.pod("web-1", "node-1", None, true);
    world
}

fn haproxy() -> Value {
    json!({"name": "edge", "haproxy": {"address": "lb:9999", "backend": "web"}})
}

fn http() -> Value {
    json!({"name": "cloud", "http": {"leave": {"url": "http://lb/{{ host.name }}"}, "return": {"url": "http://lb/x"}}})
}

#[test]
fn a_machine_leaves_load_balancers_outside_and_comes_back_to_them_in_the_opposite_order() {
    let mut world = balanced(json!({"settleSeconds": 10, "steps": [haproxy(), http()]}));
    let mut seen = vec![];
    for _ in 0..200 {
        world.settle(0);
        let out: Vec<_> = world.out.iter().map(|(step, server)| format!("{step}/{server}")).collect();
        if seen.last() != Some(&out) {
            seen.push(out);
        }
        world.agents();
        world.now += SignedDuration::from_secs(2);
    }
    assert_eq!(seen, [vec!["cloud/node-1".to_owned(), "edge/node-1".to_owned()], vec![]]);
    assert_eq!(world.status().phase, Some(RolloutPhase::Complete));

    // One that cost less than a restart stays in all of them.
    let mut world = balanced(json!({"settleSeconds": 10, "steps": [haproxy()]}));
    world.costs.insert("node-1".into(), ChangeCost::Reload);
    world.settle(0);
    assert!(world.out.is_empty());
    assert_eq!(claim_step(&world), Some(ClaimStep::Apply));
}

#[test]
fn a_server_that_was_out_before_stays_out() {
    let mut world = balanced(json!({"steps": [haproxy()]}));
    world.out.insert(("edge".into(), "node-1".into()));
    world.until(RolloutPhase::Complete);
    assert_eq!(world.out.len(), 1);
}

#[test]
fn what_is_open_is_waited_for_until_it_ends_or_the_time_is_over() {
    let sessions = LoadBalancerAnswer::Busy("3 sessions are open".into());
    let spec = json!({"exclude": false, "settleSeconds": 60, "steps": [haproxy()]});
    let mut world = balanced(spec.clone());
    world.answer = Some(sessions.clone());
    world.settle(0);
    assert_eq!(claim_step(&world), Some(ClaimStep::LeaveLoadBalancer));
    assert!(world.status().message.unwrap().contains("load balancer edge: 3 sessions are open"));
    world.answer = None;
    world.settle(0);
    assert_eq!(claim_step(&world), Some(ClaimStep::Apply), "at once, not after a minute");

    let mut world = balanced(spec);
    world.answer = Some(sessions);
    world.settle(0);
    world.now += SignedDuration::from_secs(60);
    world.settle(0);
    assert_eq!(claim_step(&world), Some(ClaimStep::Apply));
}

#[test]
fn a_load_balancer_that_does_not_let_go_fails_the_machine_and_one_that_does_not_take_back_is_waited_for() {
    let refusal = LoadBalancerAnswer::Failed("http://lb/node-1 answered 503".into());
    let mut world = balanced(json!({"timeoutSeconds": 120, "steps": [http()]}));
    let before = world.nodes.clone();
    world.answer = Some(refusal.clone());
    let_pass(&mut world, 100);
    assert!(world.status().message.unwrap().contains("load balancer cloud: http://lb/node-1 answered 503"));
    let_pass(&mut world, 40);
    // It may have done it all the same, so it is told that the machine is back.
    let message = world.status().message.unwrap();
    assert!(message.contains("load balancer cloud to take the machine back"), "{message}");
    world.answer = None;
    world.until(RolloutPhase::Failed);
    let why = "load balancer cloud did not let it go within 120 s: http://lb/node-1 answered 503";
    assert_eq!(world.status().failures[0].message, why);
    world.assert_given_back(&before);

    let mut world = balanced(json!({"settleSeconds": 1, "steps": [http()]}));
    while claim_step(&world) != Some(ClaimStep::Apply) {
        world.settle(0);
        world.now += SignedDuration::from_secs(1);
    }
    world.answer = Some(refusal);
    let_pass(&mut world, 5_000);
    assert_eq!(claim_step(&world), Some(ClaimStep::Restore));
    assert_eq!(world.out.len(), 1);
    // What is undone is what was done, whatever the spec says by then.
    world.rollouts[0].spec.disruption = None;
    world.answer = None;
    world.until(RolloutPhase::Complete);
    assert!(world.out.is_empty());
}

#[test]
fn whatever_request_is_the_last_before_a_crash_no_load_balancer_is_left() {
    let run = |crash: Option<usize>, deleted: bool| {
        let mut world = balanced(json!({"settleSeconds": 5, "steps": [haproxy(), http()]}));
        let before = world.nodes.clone();
        let mut writes = 0;
        for _ in 0..300 {
            let mut snapshot = world.snapshot(0);
            if let Some(request) = decide(&snapshot, world.now).request {
                writes += 1;
                let again = request.clone();
                world.carry_out(0, request, &mut snapshot);
                if crash == Some(writes) {
                    world.answers.clear();
                    if deleted {
                        world.rollouts[0].metadata.deletion_timestamp = Some(Time(world.now));
                    } else {
                        world.carry_out(0, again, &mut snapshot);
                    }
                }
            } else {
                world.answers.clear();
                world.agents();
                world.now += SignedDuration::from_secs(5);
            }
        }
        assert!(world.out.is_empty(), "crash at {crash:?}, deleted: {deleted}");
        world.assert_given_back(&before);
        writes
    };
    let writes = run(None, false);
    assert!(writes > 20, "{writes}");
    for crash in 1..=writes {
        run(Some(crash), false);
        run(Some(crash), true);
    }
}
