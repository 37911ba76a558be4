//! A small world in which decisions are carried out: it keeps versions as the API server does, evicts as it does, and
//! watches the invariants after every single write, from what is so and not from what the decision says.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use drover_crds::{
    AppliedReport, Assignment, Host, HostSpec, HostStatus, Limit, NodeConfig, NodeConfigSpec, NodeConfigStatus,
    NodeRef, Rollout, RolloutPhase, RolloutSpec, RolloutStatus, RunOutcome,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use proptest::prelude::*;
use serde_json::json;

use super::{
    decide::{Decision, decide},
    request::{NodeChange, Request},
    snapshot::{GateEvidence, NodeView, PodKeeper, PodKey, PodView, Snapshot},
};
use crate::metadata::{name, uid};

#[derive(Clone)]
struct Pod {
    view: PodView,
    node: String,
    /// The budget that protects it, by name.
    budget: Option<&'static str>,
}

/// What the agent on a machine does with a new catalog, and what the machine's gates show after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Luck {
    Works,
    AgentFails,
    AgentSilent,
    GateFails,
    GateSilent,
    NeverReboots,
}

struct World {
    now: Timestamp,
    version: u64,
    rollouts: Vec<Rollout>,
    config: NodeConfig,
    revisions: BTreeSet<String>,
    hosts: Vec<Host>,
    nodes: BTreeMap<String, NodeView>,
    pods: Vec<Pod>,
    /// How many evictions each budget still allows; a pod that is evicted takes one, and gives it back when it runs again.
    budgets: BTreeMap<&'static str, i32>,
    luck: BTreeMap<String, Luck>,
    /// Whether what the agents apply asks for a reboot.
    needs_reboot: bool,
    writes: usize,
    /// Whether what only one operator can promise is checked: not after a write that was decided on an old snapshot.
    strict: bool,
}

fn rollout(spec: &serde_json::Value) -> Rollout {
    let mut all = json!({"nodeConfigRef": {"name": "base"}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec: RolloutSpec = serde_json::from_value(all).unwrap();
    let mut rollout = Rollout::new("base", spec);
    rollout.metadata.uid = Some("0r-base".into());
    rollout.metadata.generation = Some(1);
    rollout
}

fn drained() -> serde_json::Value {
    json!({
        "strategy": {"maxUnavailable": 1, "batches": [{"name": "canary", "size": 1}, {"name": "rest", "size": "50%"}]},
        "disruption": {"drain": {"timeoutSeconds": 300}, "loadBalancer": {"settleSeconds": 10}},
        "gates": {"host": [{"http": {"port": 80}, "timeoutSeconds": 60}]},
    })
}

impl World {
    #[allow(clippy::needless_pass_by_value, reason = "a test writes its spec in place")]
    fn new(hosts: usize, spec: serde_json::Value) -> Self {
        let mut config = NodeConfig::new(
            "base",
            NodeConfigSpec {
                host_selector: None,
                resources: vec![],
                priority: None,
                data_from: vec![],
                drift: None,
                disruption: None,
                revision_history_limit: None,
            },
        );
        config.status = Some(NodeConfigStatus { revision: Some("base-1".into()), ..Default::default() });
        let mut world = Self {
            now: Timestamp::from_second(1_000_000).unwrap(),
            version: 1,
            rollouts: vec![rollout(&spec)],
            config,
            revisions: ["base-1".into(), "base-2".into()].into(),
            hosts: vec![],
            nodes: BTreeMap::new(),
            pods: vec![],
            budgets: BTreeMap::new(),
            luck: BTreeMap::new(),
            needs_reboot: false,
            writes: 0,
            strict: true,
        };
        for index in 1..=hosts {
            world.join(&format!("node-{index}"), &format!("{index}u-x"));
        }
        world
    }

    /// A machine joins.
    fn join(&mut self, machine: &str, id: &str) {
        let spec = HostSpec { node_ref: NodeRef { name: machine.into(), uid: format!("n{id}") } };
        let mut host = Host::new(machine, spec);
        host.metadata = ObjectMeta { name: Some(machine.into()), uid: Some(id.into()), ..Default::default() };
        host.status = Some(HostStatus::default());
        self.hosts.push(host);
        let node = NodeView { uid: format!("n{id}"), ready: true, resource_version: "1".into(), ..Default::default() };
        self.nodes.insert(machine.into(), node);
        let key = PodKey { namespace: "kube-system".into(), name: format!("agent-{machine}"), uid: format!("a{id}") };
        let view = PodView { key, keeper: PodKeeper::DaemonSet, finished: false, terminating: false };
        self.pods.push(Pod { view, node: machine.into(), budget: None });
    }

    fn pod(&mut self, pod: &str, node: &str, budget: Option<&'static str>, managed: bool) {
        let key = PodKey { namespace: "default".into(), name: pod.into(), uid: format!("p-{pod}") };
        let keeper = if managed { PodKeeper::Controller } else { PodKeeper::Nobody };
        let view = PodView { key, keeper, finished: false, terminating: false };
        self.pods.push(Pod { view, node: node.into(), budget });
    }

    fn snapshot(&self, index: usize) -> Snapshot {
        let mut pods: BTreeMap<String, Vec<PodView>> = self.nodes.keys().map(|node| (node.clone(), vec![])).collect();
        for pod in &self.pods {
            pods.entry(pod.node.clone()).or_default().push(pod.view.clone());
        }
        let gates = self.hosts.iter().map(|host| {
            let shown = match self.luck(name(&host.metadata)) {
                Luck::GateFails => GateEvidence::Failed("connection refused".into()),
                Luck::GateSilent => GateEvidence::Inconclusive,
                _ => GateEvidence::Passed,
            };
            (name(&host.metadata).to_owned(), vec![shown])
        });
        Snapshot {
            rollout: self.rollouts[index].clone(),
            node_config: Some(self.config.clone()),
            revisions: self.revisions.clone(),
            hosts: self.hosts.clone(),
            nodes: self.nodes.clone(),
            pods,
            refused_evictions: BTreeMap::new(),
            gates: gates.collect(),
        }
    }

    fn luck(&self, host: &str) -> Luck {
        self.luck.get(host).copied().unwrap_or(Luck::Works)
    }

    fn bump(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Carries out a request as the API server would. False: refused with a conflict.
    fn carry_out(&mut self, index: usize, request: Request, seen: &mut Snapshot) -> bool {
        let same = |a: &ObjectMeta, b: &ObjectMeta| a.resource_version == b.resource_version && a.uid == b.uid;
        match request {
            Request::AddFinalizer | Request::RemoveFinalizer | Request::WriteRollout(_) => {
                if !same(&self.rollouts[index].metadata, &seen.rollout.metadata) {
                    return false;
                }
                let version = self.bump();
                let before = self.rollouts[index].clone();
                let rollout = &mut self.rollouts[index];
                rollout.metadata.resource_version = Some(version);
                match request {
                    Request::AddFinalizer => rollout.metadata.finalizers = Some(vec!["drover.dev/rollout".into()]),
                    Request::RemoveFinalizer => rollout.metadata.finalizers = None,
                    Request::WriteRollout(status) => rollout.status = Some(*status),
                    _ => unreachable!(),
                }
                self.check_admission(&before, index);
            }
            Request::WriteHost { host, status } => {
                let version = self.bump();
                let read = seen.hosts.iter().find(|other| name(&other.metadata) == host).unwrap();
                let Some(host) = self.hosts.iter_mut().find(|other| same(&other.metadata, &read.metadata)) else {
                    return false;
                };
                host.metadata.resource_version = Some(version);
                host.status = Some(*status);
            }
            Request::PatchNode { node, resource_version, change } => {
                let version = self.bump();
                let Some(node) = self.nodes.get_mut(&node).filter(|node| node.resource_version == resource_version)
                else {
                    return false;
                };
                node.resource_version = version;
                match change {
                    NodeChange::Cordon(token) => (node.cordoned, node.cordoned_by) = (true, Some(token)),
                    NodeChange::Uncordon => (node.cordoned, node.cordoned_by) = (false, None),
                    NodeChange::ExcludeFromLoadBalancers(token) => {
                        (node.load_balancer_label, node.excluded_by) = (Some(String::new()), Some(token));
                    }
                    NodeChange::IncludeInLoadBalancers => (node.load_balancer_label, node.excluded_by) = (None, None),
                }
            }
            Request::Evict(key) => {
                if let Some(position) = self.pods.iter().position(|pod| pod.view.key == key) {
                    let allowed = self.pods[position].budget.and_then(|budget| self.budgets.get(budget));
                    if allowed.is_some_and(|allowed| *allowed <= 0) {
                        seen.refused_evictions.insert(key, "the budget needs 2 healthy pods and has 2".into());
                        return true;
                    }
                    self.pods.remove(position);
                }
            }
        }
        self.writes += 1;
        self.check();
        true
    }

    /// The agents of the machines work.
    fn agents(&mut self) {
        for index in 0..self.hosts.len() {
            let luck = self.luck(name(&self.hosts[index].metadata));
            let version = self.bump();
            let host = &mut self.hosts[index];
            let status = host.status.get_or_insert_default();
            let reported = status.active.as_ref().is_some_and(|active| active.generation == status.assigned_generation);
            let booted = status.active.as_ref().and_then(|active| active.boot_id.clone()).unwrap_or("boot-0".into());
            let may_reboot = status.claim.as_ref().is_some_and(|claim| claim.reboot.as_ref() == Some(&booted));
            if status.assigned.is_empty() || (reported && !may_reboot) || luck == Luck::AgentSilent {
                continue;
            }
            if may_reboot && luck == Luck::NeverReboots {
                continue;
            }
            host.metadata.resource_version = Some(version);
            status.active = Some(AppliedReport {
                generation: status.assigned_generation,
                revisions: status.assigned.clone(),
                converged: luck != Luck::AgentFails,
                message: (luck == Luck::AgentFails).then(|| "base/web: exit code 1".into()),
                failed: i32::from(luck == Luck::AgentFails),
                resources: 3,
                reboot_required: if self.needs_reboot && !may_reboot { vec!["a new kernel".into()] } else { vec![] },
                boot_id: Some(if may_reboot { format!("{booted}+") } else { booted }),
                ..Default::default()
            });
        }
    }

    /// Asks and carries out until there is nothing to do but wait.
    fn settle(&mut self, index: usize) -> Duration {
        let mut snapshot = self.snapshot(index);
        for _ in 0..500 {
            let Decision { request, look_again } = decide(&snapshot, self.now);
            let Some(request) = request else { return look_again };
            let refused = snapshot.refused_evictions.clone();
            self.carry_out(index, request, &mut snapshot);
            let refused =
                if snapshot.refused_evictions.len() > refused.len() { snapshot.refused_evictions } else { refused };
            snapshot = self.snapshot(index);
            snapshot.refused_evictions = refused;
        }
        panic!("no rest after 500 requests: {:?}", self.rollouts[index].status);
    }

    /// Lets time pass until the Rollout says that it is at this phase.
    fn until(&mut self, phase: RolloutPhase) {
        for _ in 0..2_000 {
            let wait = self.settle(0);
            if self.status().phase == Some(phase) {
                return;
            }
            self.agents();
            self.now += SignedDuration::try_from(wait.clamp(Duration::from_secs(1), Duration::from_secs(20))).unwrap();
        }
        panic!("never {phase:?}: {:#?}", self.status());
    }

    fn status(&self) -> RolloutStatus {
        self.rollouts[0].status.clone().unwrap_or_default()
    }

    fn claimed(&self) -> Vec<&Host> {
        self.hosts.iter().filter(|host| host.status.as_ref().is_some_and(|status| status.claim.is_some())).collect()
    }

    /// Everything that must be so at every moment.
    fn check(&self) {
        let total = self.hosts.len();
        for rollout in &self.rollouts {
            let status = rollout.status.clone().unwrap_or_default();
            let ours = |host: &&&Host| {
                host.status
                    .as_ref()
                    .and_then(|s| s.claim.as_ref())
                    .is_some_and(|c| c.rollout_uid == uid(&rollout.metadata))
            };
            let claimed = self.claimed();
            let held: Vec<_> = claimed.iter().filter(ours).collect();
            assert!(held.len() <= rollout.spec.resolved_max_parallel(total), "claims exceed maxParallel");
            if let Some(counts) = &status.counts {
                assert_eq!(
                    counts.total,
                    counts.pending + counts.in_flight + counts.updated + counts.failed,
                    "{counts:?}"
                );
                assert!(
                    status.phase != Some(RolloutPhase::Complete)
                        || (counts.total > 0 && counts.total == counts.updated)
                );
            }
        }
        for (machine, node) in &self.nodes {
            let held = self.claimed().into_iter().any(|host| name(&host.metadata) == machine);
            assert!(
                held || !self.strict || (node.cordoned_by.is_none() && node.excluded_by.is_none()),
                "{machine} is marked but not held"
            );
        }
    }

    /// A machine was begun: were the limits respected?
    fn check_admission(&self, before: &Rollout, index: usize) {
        let entries = |rollout: &Rollout| rollout.status.as_ref().map_or(0, |status| status.in_flight.len());
        let after = &self.rollouts[index];
        if entries(after) <= entries(before) || !self.strict {
            return;
        }
        let in_flight = &after.status.as_ref().unwrap().in_flight;
        assert!(in_flight.len() <= after.spec.resolved_max_parallel(self.hosts.len()));
        assert!(!after.spec.paused.unwrap_or(false), "begun although paused");
        let unavailable = self.nodes.iter().filter(|(machine, node)| {
            node.cordoned || !node.ready || in_flight.iter().any(|entry| entry.host == **machine)
        });
        assert!(
            unavailable.count() <= after.spec.resolved_max_unavailable(self.hosts.len()),
            "maxUnavailable exceeded"
        );
    }

    /// Nodes are as they were before.
    fn assert_given_back(&self, before: &BTreeMap<String, NodeView>) {
        for (machine, node) in &self.nodes {
            let was = &before[machine];
            assert_eq!(
                (node.cordoned, &node.load_balancer_label),
                (was.cordoned, &was.load_balancer_label),
                "{machine}"
            );
            assert_eq!((&node.cordoned_by, &node.excluded_by), (&None, &None), "{machine}");
        }
        assert!(self.claimed().is_empty());
    }
}

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
    assert!(message.contains("pod default/web-1: the budget needs 2 healthy pods and has 2"), "{message}");
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
    world.settle(0);
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

#[derive(Clone, Debug)]
enum Event {
    Reconcile,
    /// A decision on a snapshot that is as old as the one before.
    Stale,
    Agents,
    Time(i64),
    Cordon(usize),
    Ready(usize),
    Pause(bool),
    Revision(bool),
    Luck(usize, u8),
    Replace(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => Just(Event::Reconcile),
        2 => Just(Event::Stale),
        3 => Just(Event::Agents),
        3 => (1_i64..90).prop_map(Event::Time),
        1 => (0_usize..5).prop_map(Event::Cordon),
        1 => (0_usize..5).prop_map(Event::Ready),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => any::<bool>().prop_map(Event::Revision),
        1 => (0_usize..5, 0_u8..6).prop_map(|(host, luck)| Event::Luck(host, luck)),
        1 => (0_usize..5).prop_map(Event::Replace),
    ];
    proptest::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no limit is exceeded, no mark is left, and in quiet times it ends.
    #[test]
    fn the_invariants_hold_in_every_history(
        hosts in 1_usize..5, parallel in 1_u32..4, unavailable in 1_u32..4, percent in any::<bool>(), events in events()
    ) {
        let mut spec = drained();
        spec["strategy"]["maxParallel"] = json!(parallel);
        spec["strategy"]["maxUnavailable"] = if percent { json!(format!("{}%", unavailable * 25)) } else { json!(unavailable) };
        spec["strategy"]["failure"] = json!({"maxFailed": 1});
        let mut world = World::new(hosts, spec);
        let mut foreign: BTreeMap<String, bool> = BTreeMap::new();
        let mut older = world.snapshot(0);
        let mut fresh_ids = 100;
        for event in events {
            let machine = |index: usize| format!("node-{}", index % hosts + 1);
            match event {
                Event::Reconcile => {
                    let mut snapshot = world.snapshot(0);
                    older = snapshot.clone();
                    if let Some(request) = decide(&snapshot, world.now).request {
                        world.carry_out(0, request, &mut snapshot);
                    }
                }
                Event::Stale => {
                    world.strict = false;
                    if let Some(request) = decide(&older, world.now).request {
                        world.carry_out(0, request, &mut older.clone());
                    }
                }
                Event::Agents => world.agents(),
                Event::Time(seconds) => world.now += SignedDuration::from_secs(seconds),
                Event::Cordon(index) => {
                    let version = world.bump();
                    let node = world.nodes.get_mut(&machine(index)).unwrap();
                    // An administrator who cordons a node that is cordoned already changes nothing that could be seen.
                    if node.cordoned_by.is_none() {
                        node.cordoned = !node.cordoned;
                        node.resource_version = version;
                        foreign.insert(machine(index), node.cordoned);
                    }
                }
                Event::Ready(index) => {
                    let node = world.nodes.get_mut(&machine(index)).unwrap();
                    node.ready = !node.ready;
                }
                Event::Pause(paused) => {
                    let version = world.bump();
                    world.rollouts[0].metadata.resource_version = Some(version);
                    world.rollouts[0].spec.paused = Some(paused);
                }
                Event::Revision(second) => {
                    let revision = if second { "base-2" } else { "base-1" };
                    world.config.status.as_mut().unwrap().revision = Some(revision.into());
                }
                Event::Luck(index, luck) => {
                    let luck = [
                        Luck::Works, Luck::AgentFails, Luck::AgentSilent, Luck::GateFails, Luck::GateSilent, Luck::NeverReboots,
                    ][usize::from(luck)];
                    world.needs_reboot = luck == Luck::NeverReboots || (world.needs_reboot && index > 0);
                    world.luck.insert(machine(index), luck);
                }
                Event::Replace(index) => {
                    fresh_ids += 1;
                    let machine = machine(index);
                    world.hosts.retain(|host| name(&host.metadata) != machine);
                    world.nodes.remove(&machine);
                    foreign.remove(&machine);
                    world.join(&machine, &format!("{fresh_ids}u-x"));
                }
            }
        }
        // Quiet times: everything works, nothing is out of service, nobody pauses.
        world.luck.clear();
        world.rollouts[0].spec.paused = None;
        world.rollouts[0].metadata.generation = Some(2);
        for (machine, node) in &mut world.nodes {
            node.ready = true;
            if node.cordoned_by.is_none() && foreign.get(machine).copied().unwrap_or(false) {
                node.cordoned = false;
            }
        }
        for _ in 0..400 {
            world.settle(0);
            world.agents();
            world.now += SignedDuration::from_secs(5);
            if world.status().phase == Some(RolloutPhase::Failed) {
                let generation = world.rollouts[0].metadata.generation.unwrap();
                world.rollouts[0].metadata.generation = Some(generation + 1);
            }
        }
        let target = world.config.status.as_ref().unwrap().revision.clone().unwrap();
        prop_assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "{:#?}", world.status());
        for host in &world.hosts {
            let status = host.status.as_ref().unwrap();
            prop_assert_eq!(&status.assigned, &vec![Assignment { node_config: "base".into(), revision: target.clone() }]);
            prop_assert!(status.claim.is_none());
            prop_assert!(status.runs.iter().all(|record| record.outcome == RunOutcome::Succeeded || record.run < world.status().run.unwrap().number));
        }
        for (machine, node) in &world.nodes {
            prop_assert!(!node.cordoned && node.load_balancer_label.is_none(), "{} was not given back: {:?}", machine, node);
        }
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
        snapshot.nodes = world.nodes.clone();
        snapshot.hosts = world.hosts.clone();
    }
    let size = serde_json::to_vec(&world.status()).unwrap().len();
    assert!(world.status().in_flight.len() == 30, "a batch of 1% is under way");
    assert!(size < 32 * 1024, "{size} bytes");
    let limit = Limit::Percent(10).of(3_000);
    assert_eq!(limit, 300, "more than the ledger takes at once");
}
